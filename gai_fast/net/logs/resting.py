"""Followers whose response ends where its run waits for approvals: their clients answer in the next request.

Owns when a run waits, by what its log says, and where the next response goes on. Sans-IO but for the follower.

1. A run waits for approvals alone if all calls of the gateway that have no result are asked for, and not decided.
2. A response ends once it has all of the log, if the run waits then. A log that says more has gone on: so does the
   response.
3. The response to an answer begins with the first decision about what was answered: its client has all that was before.
   It does not end before all that was answered is decided in the log.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import Final, cast

from gai_fast.formats import RestingEncoder
from gai_fast.model.events import Event
from gai_fast.net.logs.follower import Follower
from gai_fast.net.logs.view import Reencoded, Representation
from gai_fast.stores import LogHeader

_REQUIRED: Final = "approval.required"
_DECIDED: Final = "approval.decided"
_ENDS: Final = frozenset({"finish", "error", "done"})
_DELTAS: Final = frozenset({"text.delta", "reasoning.delta", "tool.call.delta"})
_NOTHING_YET: Final = sys.maxsize
"""The number of an event that no log has."""


class OpenCalls:
    """The calls of the gateway without a result: rule 1."""

    __slots__ = ("_asked",)

    def __init__(self) -> None:
        self._asked: dict[str, bool] = {}  # by id of the call: whether it is asked for, and not decided

    @property
    def wait(self) -> bool:
        """Whether there are any, and all wait for an approval."""
        return bool(self._asked) and all(self._asked.values())

    def note(self, kind: str, call_id: str, *, is_gateways: bool) -> None:
        """Notes an event of a log.

        Args:
            kind: Its type.
            call_id: The id of its call. Empty if it is about none.
            is_gateways: Whether it names the gateway as who makes the call.
        """
        if kind == "step.reset":
            self._asked.clear()
        elif kind == "tool.call":
            if is_gateways:
                self._asked[call_id] = False
        elif kind == _REQUIRED:
            self._asked[call_id] = True
        elif kind == _DECIDED:
            self._asked[call_id] = False
        elif kind == "tool.result":
            self._asked.pop(call_id, None)


class RestingView(Reencoded):
    """The view of a log in a format that rests (`Format.rests`)."""

    __slots__ = ("_answered", "_calls")

    def __init__(self, header: LogHeader, form: Representation, after: int, clock: Callable[[], int]) -> None:
        super().__init__(header, form, after, clock)
        self._calls = OpenCalls()
        self._answered: set[str] = set()

    def go_on_with(self, answered: Collection[str]) -> None:
        """Begins behind what the client has: rule 3.

        Args:
            answered: The ids of the approvals that it has answered.
        """
        self._answered.update(answered)
        self._after = _NOTHING_YET

    @property
    def waits(self) -> bool:
        """Whether the run waits behind the last event."""
        return not self._answered and self._calls.wait

    def rest(self) -> None:
        """Writes the end of a response whose run waits."""
        encoder = cast("RestingEncoder", self._encoder)
        encoder.rest()
        self._out += encoder.take_pieces()

    def _encode(self, event: Event) -> None:
        kind = event["type"]
        if self._answered:
            self._look(event, kind)
        super()._encode(event)
        if kind not in _DELTAS:
            self._calls.note(kind, event.get("call_id", ""), is_gateways="executed_by" in event)

    def _look(self, event: Event, kind: str) -> None:
        """Begins the response at the first decision, or where there is none any more."""
        is_decided = kind == _DECIDED and event["approval"]["id"] in self._answered
        if is_decided:
            self._answered.discard(event["approval"]["id"])
        elif kind in _ENDS or kind == "step.reset":
            self._answered.clear()
        if self._after == _NOTHING_YET and (is_decided or not self._answered):
            self._after = event.get("seq", 1) - 1
            encoder = cast("RestingEncoder", self._encoder)
            encoder.go_on()
            self._out += encoder.take_pieces()


class RestingFollower(Follower):
    """A follower whose view rests."""

    __slots__ = ()

    def _send(self) -> None:
        super()._send()
        view = cast("RestingView", self._view)
        if view.waits and self.position >= self.log.last_seq and not self.is_over:  # rule 2
            view.rest()
            self._end_response(self._delivery.take_last())
