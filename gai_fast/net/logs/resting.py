"""Responses that end where their run waits for approvals: their clients answer in the next request.

Owns when a run waits, by what its log says, and where the next response goes on.

1. A run waits for approvals alone if all calls of the gateway that have no result are asked for, and not decided.
2. A response ends once it has all of the log, if the run waits then, and the store has no decision that the run is
   about to hear of. A log that says more has gone on: so does the response.
3. The response to an answer begins with the first decision about what was answered: its client has all that was before.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Final, cast

from gai_fast.formats import RestingEncoder
from gai_fast.model.events import Event
from gai_fast.net.logs.view import Reencoded, Representation
from gai_fast.stores import LogHeader

_REQUIRED: Final = "approval.required"
_DECIDED: Final = "approval.decided"
_APPROVALS: Final = frozenset({_REQUIRED, _DECIDED})
_ENDS: Final = frozenset({"step.reset", "finish", "error", "done"})
"""Behind these nothing is decided any more about what was answered."""
_DELTAS: Final = frozenset({"text.delta", "reasoning.delta", "tool.call.delta"})
_NOTHING_YET: Final = sys.maxsize
"""The number of an event that no log has."""


class AskedCalls:
    """The calls of the gateway without a result: rule 1."""

    def __init__(self) -> None:
        self._asked: dict[str, str] = {}  # by id of the call: the id of its approval, unless that is decided

    @property
    def wait(self) -> bool:
        """Whether there are any, and all wait for an approval."""
        return bool(self._asked) and all(self._asked.values())

    @property
    def approvals(self) -> list[str]:
        """The ids of the approvals that are waited for."""
        return [each for each in self._asked.values() if each]

    def note(self, kind: str, call_id: str, approval_id: str, *, is_gateways: bool) -> None:
        """Notes an event of a log. Other kinds than those that say so change nothing.

        Args:
            kind: Its type.
            call_id: The id of its call. Empty if it is about none.
            approval_id: The id of its approval, likewise.
            is_gateways: Whether it names the gateway as who makes the call.
        """
        if kind == "step.reset":
            self._asked.clear()
        elif kind == _REQUIRED:
            self._asked[call_id] = approval_id
        elif kind == _DECIDED or (kind == "tool.call" and is_gateways):
            self._asked[call_id] = ""
        elif kind == "tool.result":
            self._asked.pop(call_id, None)


class RestingView(Reencoded):
    """The view of a log in a format that rests (`Format.rests`)."""

    def __init__(self, header: LogHeader, form: Representation, after: int, clock: Callable[[], int]) -> None:
        super().__init__(header, form, after, clock)
        self._calls = AskedCalls()
        self._answered: frozenset[str] = frozenset()  # until the response has begun

    def go_on_with(self, answered: Collection[str]) -> None:
        """Begins behind what the client has: rule 3.

        Args:
            answered: The ids of the approvals that it has answered.
        """
        self._answered = frozenset(answered)
        self._after = _NOTHING_YET

    @property
    def waited_for(self) -> Sequence[str]:
        """The approvals for which the run waits behind the last event. Empty if it does not wait."""
        return self._calls.approvals if self._calls.wait else ()

    def rest(self) -> None:
        """Writes the end of a response whose run waits."""
        encoder = cast("RestingEncoder", self._encoder)
        encoder.rest()
        self._out += encoder.take_pieces()

    def _encode(self, event: Event) -> None:
        kind = event["type"]
        approval_id = event["approval"]["id"] if kind in _APPROVALS else ""
        if self._answered and (kind in _ENDS or (kind == _DECIDED and approval_id in self._answered)):
            self._answered = frozenset()
            self._after = event.get("seq", 1) - 1
            encoder = cast("RestingEncoder", self._encoder)
            encoder.go_on()
            self._out += encoder.take_pieces()
        super()._encode(event)
        if kind not in _DELTAS:
            self._calls.note(kind, event.get("call_id", ""), approval_id, is_gateways="executed_by" in event)


Look = Callable[[Sequence[str], Callable[[bool], None]], "asyncio.Task[bool]"]
"""Finds out whether one of some approvals is decided, and calls with that, unless the task is cancelled."""


class Resting:
    """Ends the response of a follower where its run waits: rule 2.

    Args:
        view: Its view.
        look: As `Look`.
        end: Ends the response with what the view has.
    """

    def __init__(self, view: RestingView, look: Look, end: Callable[[], None]) -> None:
        self._view = view
        self._look = look
        self._end = end
        self._looking: asyncio.Task[bool] | None = None

    def sent(self, *, is_all: bool) -> None:
        """Looks whether the run waits.

        Args:
            is_all: Whether the client has all of the log, and its response has not ended.
        """
        self.stop()
        waited_for = self._view.waited_for if is_all else ()
        if waited_for:
            self._looking = self._look(waited_for, self._looked)

    def stop(self) -> None:
        """Stops looking. Idempotent."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _looked(self, is_decided: bool) -> None:
        """Ends the response, unless its run goes on. An event that comes first, or the client's end, stops the look."""
        self._looking = None
        if not is_decided:
            self._view.rest()
            self._end()
