"""How the answers of `POST /v1/responses` are kept: which of them are, and what is kept.

Owns the decision and the record of one answer. `stores/responses.py` keeps it, `formats/responses/` writes what its
objects say of it, and the session waits (`net/stream/session.py`, rule 6).

1. An answer is kept under its caller, unless the request says `store: false`, has a `conversation`, or continues what
   an upstream keeps; or unless nothing is kept here (`[responses] store`).
2. Kept are the request's own items, the last `response` object as the client gets it, and the id of its parent.
3. Of a client that has left, what it could have read so far is kept as `cancelled`, if it has been sent the id.
   The log of a durable stream has its events: what is kept of it is written from these, as each client's answer is.
4. An answer that could not be kept says `store: false` in its last object, and goes to its client as any other. So
   does one whose upstream gave it an id that no request may name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from gai_fast.core.requests.stored_ids import is_item_of, is_response
from gai_fast.formats import ClientRequest, KeptAnswer, get_format
from gai_fast.formats.responses.chain import Written, indexed_ids, own_items, written
from gai_fast.kernels import Piece
from gai_fast.net.attempts.records import KeptRecord
from gai_fast.net.attempts.spec import Keeping, StreamSpec
from gai_fast.net.engine.engine import when_both_done
from gai_fast.net.logs.view import Reencoded, Representation
from gai_fast.runtime.clock import now_ms
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.chains import Turn
from gai_fast.server.requests.newest import Newest
from gai_fast.stores import LogHeader
from gai_fast.stores.responses import KEPT_ID, RESPONSE_ITEMS, KeptResponse, KeptResponses

if TYPE_CHECKING:
    from gai_fast.formats.responses.passthrough import PassedEvents
    from gai_fast.formats.responses.stream import ResponseEvents


class AnswerKeeping(Keeping):
    """How one answer is kept.

    Args:
        responses: Keeps it.
        caller: The name of its caller.
        answer: What its objects say; has the last of them at the end.
        own: The request's own items, which are written now: the request is not held while its answer is made.
        newest: Remembers the answer for its connection, kept or not. None if it has come over HTTP.
        before: The turns before, for `newest`.
        generates: An upstream is asked.

    Attributes:
        answer: As above.
    """

    def __init__(
        self,
        responses: KeptResponses,
        caller: str,
        answer: KeptAnswer,
        own: Written,
        newest: Newest | None = None,
        before: Sequence[KeptResponse] = (),
        *,
        generates: bool = True,
    ) -> None:
        self.answer = answer
        self._responses = responses
        self._caller = caller
        self._own = own
        self._newest = newest
        self._before = before
        self._generates = generates
        self._is_lost = False

    @property
    def has_last(self) -> bool:
        """Works as `Keeping.has_last`."""
        return bool(self.answer.identifier)

    def ended(self, spec: StreamSpec, *, is_left: bool, is_refused: bool) -> asyncio.Future[None] | None:
        """Works as `Keeping.ended`."""
        answer, output = self.answer, spec.output if spec.run is None else cast(Any, spec.output).inner
        if is_left and not spec.hold:  # the encoder of a stream
            cast("ResponseEvents | PassedEvents", output).leave_off()  # rule 3
        if is_refused or not answer.identifier:
            return None
        is_ours = is_response(answer.identifier)
        record = self._record(spec, is_ours=is_ours)
        noted = None if self._newest is None else self._newest.note(record, self._before)
        # A made-up credential reaches any other upstream, and its response may begin before its upstream refuses it.
        is_whole = self._generates and answer.status in _WHOLE
        is_accepted = is_whole and spec.model.upstream.takes_credentials
        return when_both_done(noted, self._keep(record, is_ours=is_ours, is_accepted=is_accepted))

    def _keep(self, record: KeptResponse, *, is_ours: bool, is_accepted: bool) -> asyncio.Future[None] | None:
        """Keeps what is kept, if it is; as `Keeping.ended`."""
        answer = self.answer
        if not answer.is_kept:
            return None
        if not is_ours and not KEPT_ID.fullmatch(answer.identifier):  # an upstream's, which nothing could name
            self._is_lost = True
            return None
        kept = self._responses.keep(self._caller, record, is_accepted=is_accepted)
        if isinstance(kept, bool):
            self._is_lost = not kept
            return None
        kept.add_done_callback(self._kept)
        return cast("asyncio.Future[None]", kept)

    def last(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """Works as `Keeping.last`."""
        return self.answer.without(pieces) if self._is_lost else pieces

    def _record(self, spec: StreamSpec, *, is_ours: bool) -> KeptResponse:
        """Returns what is kept. `is_ours`: the response's id has the gateway's form, as an upstream's may."""
        answer = self.answer
        identifier = answer.identifier
        if is_ours:
            # An item whose id contains the response's id is found without an index: nearly all of the gateway's are.
            # No reference names an id of another form.
            given = [each for each in self._own.given[-RESPONSE_ITEMS:] if KEPT_ID.fullmatch(each)]
            items = [each for each in (*given, *answer.items) if not is_item_of(each, identifier)]
            if len(items) > 1:
                items = list(dict.fromkeys(items))
        else:
            items = indexed_ids(identifier, self._own, answer.items, RESPONSE_ITEMS)
        provider = spec.model.upstream.provider.partition(":")[0]
        return KeptResponse(
            identifier, answer.parent or "", answer.status, self._own.text, answer.response, items, provider
        )

    def recorded(self) -> KeptRecord:
        """Works as `Keeping.recorded`."""
        return KeptRecord(self.answer.is_kept, self.answer.parent, msgspec.Raw(self._own.text))

    @property
    def is_lost(self) -> bool:
        """Whether the answer could not be kept."""
        return self._is_lost

    def _kept(self, kept: asyncio.Future[bool]) -> None:
        self._is_lost = kept.cancelled() or kept.exception() is not None or not kept.result()


class LoggedKeeping(Keeping):
    """How the answer of a durable stream is kept: rule 3.

    Args:
        keeping: Keeps it.
        header: The header of its log.
    """

    def __init__(self, keeping: AnswerKeeping, header: LogHeader) -> None:
        self._keeping = keeping
        self._view = Reencoded(header, Representation(get_format(header.dialect), "sse"), 0, now_ms)
        self._view.kept = keeping.answer
        self._view.is_unread = True
        self._waiting: list[bytes] = []
        self._size = 0

    @property
    def has_last(self) -> bool:
        """Works as `Keeping.has_last`: the end of a log is sent at once."""
        return False

    def recorded(self) -> KeptRecord:
        """Works as `Keeping.recorded`."""
        return self._keeping.recorded()

    def logged(self, frames: bytes) -> None:
        """Works as `Keeping.logged`. Adjacent deltas are read together."""
        self._waiting.append(frames)
        self._size += len(frames)
        if self._size >= LIMITS.kept_turn:
            self._read()

    def wrote(self, pieces: Sequence[Piece]) -> None:
        """Works as `Keeping.wrote`."""
        self._waiting.append(b"".join(pieces))
        self._read()

    def _read(self) -> None:
        waiting, self._waiting, self._size = self._waiting, [], 0
        self._view.feed_joined(waiting)
        self._view.take_pieces()

    def ended(self, spec: StreamSpec, *, is_left: bool, is_refused: bool) -> asyncio.Future[None] | None:
        """Works as `Keeping.ended`. A stream that another worker goes on with has not ended."""
        return None if is_left else self._keeping.ended(spec, is_left=False, is_refused=is_refused)

    def last(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """Works as `Keeping.last`: adds `store: false` to the last event if the answer is not kept."""
        if not self._keeping.is_lost:
            return pieces
        return [_END.sub(rb'\1"store":false,', b"".join(pieces))]


_WHOLE: Final = ("completed", "incomplete")
"""The states of answers that their upstream has ended."""
_END: Final = re.compile(rb'(?<=^data: )(\{(?:"schema":"[^"]*",)?"type":"(?:finish|error)",)', re.M)
"""The beginning of the last event of a stream."""


def keeping_again(responses: KeptResponses, header: LogHeader, kept: KeptRecord, own: Written) -> AnswerKeeping:
    """Returns how the answer to a request is kept whose worker is gone.

    Args:
        responses: Keep it.
        header: The header of its log.
        kept: The record of it.
        own: The request's own items.
    """
    answer = KeptAnswer(is_kept=kept.is_kept, parent=kept.parent)
    return AnswerKeeping(responses, header.caller, answer, own)


def keeping_of(
    responses: KeptResponses,
    caller: str,
    asked: ClientRequest,
    turn: Turn | None = None,
    newest: Newest | None = None,
    own: Written | None = None,
    *,
    generates: bool = True,
) -> AnswerKeeping | None:
    """Returns how the answer to a request is kept: rule 1. None if its objects repeat what the upstream says.

    Args:
        responses: Keep it.
        caller: The name of the caller.
        asked: The request.
        turn: What it goes on from. None if it names nothing of what is kept.
        newest: As for `AnswerKeeping`.
        own: Its own items, if they are written already.
        generates: As for `AnswerKeeping`.
    """
    body = asked.body
    given = body.get("input")  # None beside a stored `prompt`
    if turn is not None and turn.is_upstreams:
        return None
    if body.get("previous_response_id") is not None or (given is not None and not isinstance(given, (str, list))):
        return None
    is_kept = body.get("store") is not False and body.get("conversation") is None and responses.is_on
    parent = None if turn is None else turn.parent or None
    if not is_kept and body.get("store") is False and parent is None and newest is None:
        return None
    if own is None:
        own = written(own_items(body) if turn is None else turn.own, RESPONSE_ITEMS)
    answer = KeptAnswer(is_kept=is_kept, parent=parent)
    before = turn.before if turn is not None and newest is not None else ()  # else it would be held for nothing
    return AnswerKeeping(responses, caller, answer, own, newest, before, generates=generates)
