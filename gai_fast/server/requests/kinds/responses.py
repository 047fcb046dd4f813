"""Requests of OpenAI's Responses API: they may answer approvals, and name earlier responses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gai_fast.core.requests.gateway_calls import ApprovalAnswer, is_own_approval, new_answers
from gai_fast.core.requests.texts import Path
from gai_fast.formats import ClientRequest
from gai_fast.formats.responses.chain import Written, own_items, written
from gai_fast.guards.input import LetThrough
from gai_fast.model.errors import Error
from gai_fast.server.admission.negotiation import Negotiated
from gai_fast.server.admission.run_requests import named_tools
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.keeping import AnswerKeeping, keeping_of
from gai_fast.server.requests.kinds.dialect import DialectPassage, item_of
from gai_fast.server.requests.stream_passage import PassageHome
from gai_fast.stores.responses import RESPONSE_ITEMS

if TYPE_CHECKING:
    from gai_fast.net.runs.offers import RunTools, RunWish


class ResponsesPassage(DialectPassage):
    """`POST /v1/responses`: its answers are kept."""

    def __init__(self, incoming: Incoming, home: PassageHome) -> None:
        super().__init__(incoming, home)
        self._own: ClientRequest | None = None  # as stores keep it, if that differs from what is sent
        self._written: Written | None = None  # the own items of a large request

    def run_wish(self, tools: RunTools) -> RunWish | None:
        """Works as `Passage.run_wish`: nothing is offered that the request does not name."""
        named = named_tools(self._asked.body) if self._generates else None
        if named is None:
            if any(is_own_approval(each.item) for each in self.answers()):
                raise _without_tools()
            return None
        key = self.incoming.http.key
        model = self._home.specs.settings.chosen(self._asked.model, key)
        return tools.wish(model, key, named.patterns, named.approve)

    def answers(self) -> Sequence[ApprovalAnswer]:
        """Works as `Passage.answers`."""
        items = self._asked.body.get("input")
        return new_answers(items) if self._generates and isinstance(items, list) else ()

    def plan_again(self, let: LetThrough) -> None:
        """Works as `Passage.plan_again`."""
        offer = self.incoming.run
        if offer is not None and offer.answered:
            from gai_fast.server.admission.approval_answers import with_reasons  # most requests have none

            offer.answered = with_reasons(offer.answered, self.answers())
        super().plan_again(let)

    def _translation(self) -> Callable[[], None]:
        """Returns what translates a large body, and writes its own items."""
        return partial(self._write, super()._translation())

    def _write(self, translate: Callable[[], None] | None) -> None:
        if translate is not None:
            translate()
        given = (self._own or self._asked).body.get("input") if self.turn is None else self.turn.own
        if isinstance(given, list):
            self._written = written(given, RESPONSE_ITEMS)

    def _use_own(self, own: ClientRequest, before: dict[str, Any], left_out: Collection[Path]) -> None:
        self._own, self._written = own, None
        turn, items = self.turn, own.body.get("input")
        if turn is None:
            return
        if not isinstance(items, list):
            self.turn = turn._replace(own=own_items(own.body))
            return
        first = len(before["input"]) - len(turn.own)  # they stand behind those of the turns before
        first -= len([path for path in left_out if item_of(path) in range(first)])
        self.turn = turn._replace(own=items[first:])

    def _keeping(self, negotiated: Negotiated) -> AnswerKeeping | None:
        incoming = self.incoming
        if negotiated.name != incoming.format.name:
            return None  # another format has no id by which it could be found
        responses = self._home.engine.store.responses
        own, self._written = self._written, None
        asked = self._own or self._asked
        caller, generates = incoming.http.caller, self._generates
        return keeping_of(responses, caller, asked, self.turn, incoming.newest, own, generates=generates)


def _without_tools() -> Error:
    text = "mcp_approval_response: name the tools of the call in `tools`, as the request did that has asked"
    return Error("invalid_request", text, reason="approval")
