"""A durable stream: its session writes into a log, and may go on without a client.

Owns three decisions: what happens to a stream without followers (`on_disconnect`), when its upstream is paused for slow
followers, and how its end is logged. Knows no connection: the session sees a `Client`, and the followers read the log
(`follower.py`).

1. The log holds every event, also an early failure. If a follower's response answers a request for the stream, it gets
   an early failure by a call, so that the response has the true status.
2. The upstream is paused only if no follower keeps up (its client is slow, or it still reads missed events), and the
   next bytes would drop events that a follower has not sent. Without followers it is never paused.
3. If the last follower of all processes that share the store leaves, `cancel` ends the stream at once, `detach` ends it
   after `detach_ttl`, and `drain` lets it go on; if `[limits] drains` streams do so already, it ends at once. A stream
   that was started without a follower ends after `detach_ttl` without one, unless `drain` lets it go on.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol

from mypy_extensions import mypyc_attr

from gai_fast.kernels import FrameLog, Piece
from gai_fast.model.changes import Changes
from gai_fast.model.errors import Error
from gai_fast.model.events import NO_EVENT, Event
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import AnswerSource, Outcome, StreamMetrics
from gai_fast.model.settings import StreamSettings
from gai_fast.net.attempts.spec import Keeping
from gai_fast.net.limits import LIMITS
from gai_fast.net.logs.writer import Client
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.stores import Ending, StreamLog

_Policy = Literal["cancel", "detach", "drain"]
_POLICIES: Final[dict[str, _Policy]] = {"auto": "detach", "cancel": "cancel", "detach": "detach", "drain": "drain"}
"""The policy of a durable stream without followers, by `on_disconnect`."""


class Generation(Protocol):
    """The part of `Session` that a publication uses."""

    @property
    def metrics(self) -> StreamMetrics | None:
        """The metrics of the stream. None before its end."""

    @property
    def last_event(self) -> Event:
        """The stream's `finish` or `error`. Empty before."""

    @property
    def has_content(self) -> bool:
        """Whether any content has been written."""

    @property
    def answered_by(self) -> AnswerSource | None:
        """The names of the answer's origin, and the changes of its request. None before the first event."""

    def seconds_since_wait(self) -> float:
        """Returns the seconds since it has last waited for a person; 0 while it does, infinite if it never has."""

    def measured(self, outcome: Outcome = "finished") -> StreamMetrics:
        """Returns the metrics so far."""

    def pause(self) -> None:
        """Stops reading the upstream."""

    def resume(self) -> None:
        """Reads the upstream again."""

    def cancel(self) -> None:
        """Ends the stream on request."""


class Numbered(Protocol):
    """The part of an encoder that a publication uses."""

    @property
    def seq(self) -> int:
        """The number of the last event."""


class Follows(Protocol):
    """The part of a follower that a publication uses."""

    @property
    def is_slow(self) -> bool:
        """Whether its client reads too slowly, or has not been sent all that the log has."""

    @property
    def position(self) -> int:
        """The number of the last event that was sent to its client."""

    @property
    def is_answer(self) -> bool:
        """Whether its response answers the request that began the stream: an early failure then sets the status."""

    def put_off(self, seconds: float) -> None:
        """Holds the headers of the client's response for longer; as `Delivery.put_off`."""

    def fail(self, error: Error) -> None:
        """Called when the stream has failed before its first event."""


class PublicationRunner(Protocol):
    """The part of the engine that a publication uses."""

    @property
    def timers(self) -> Timers:
        """The loop's timers."""

    def look_elsewhere(self, log: StreamLog, found: Callable[[float], None]) -> None:
        """Finds out when a stream was last followed in another process.

        Args:
            log: The stream's log.
            found: Called with the seconds since then, at once or later. Infinity if it never was.
        """

    def may_drain(self) -> bool:
        """Returns whether one more stream may go on without a follower until its end, and counts it if so."""

    def drained(self) -> None:
        """Stops counting such a stream: it has ended, or is followed again."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Published(Client, ABC):
    """The part of `Publication` that a follower uses. A class, not a protocol, like `Timers`. It is a `Client` too."""

    @abstractmethod
    def add(self, follower: Follows) -> None:
        """Adds a follower.

        Args:
            follower: Must call `remove` at its end. Must call `balance` if `is_slow` has changed, and if `position` has
                changed while it is slow.
        """

    @abstractmethod
    def remove(self, follower: Follows) -> None:
        """Removes a follower that has left, or whose response has ended."""

    @abstractmethod
    def parted(self, follower: Follows) -> None:
        """Removes a follower that was cut off because the server stops. The stream goes on."""

    @abstractmethod
    def balance(self) -> None:
        """Pauses or resumes the upstream after a change of the followers: rule 2."""

    @abstractmethod
    def metrics(self) -> StreamMetrics | None:
        """Returns the metrics of the stream for a follower that leaves now. None if the stream never began."""

    @abstractmethod
    def changes(self) -> Changes | None:
        """Returns how the request of the upstream that answers was changed. None if it was not."""


class Publication(Published):
    """The client of a durable stream's session. A fast path may also log frames through it.

    Args:
        runner: The engine.
        log: The stream's log.
        encoder: Numbers the stream's events.
        stream: The stream's settings.
        keeping: How the answer is kept. None if it is not.

    Attributes:
        log: The stream's log.
    """

    def __init__(
        self,
        runner: PublicationRunner,
        log: StreamLog,
        encoder: Numbered,
        stream: StreamSettings,
        keeping: Keeping | None = None,
    ) -> None:
        self.log = log
        self._runner = runner
        self._encoder = encoder
        self._stream = stream
        self._keeping = keeping
        self._session: Generation | None = None
        self._metrics: StreamMetrics | None = None
        self._changes: Changes | None = None
        self._followers: dict[Follows, None] = {}
        self._timer: Timer | None = None
        self._put_off_until = 0.0
        self._is_draining = False
        self._are_slow = False  # whether all followers are slow
        self._is_held_back = False

    def begin(self, session: Generation) -> None:
        """Sets the session, which has been started and may have ended. It has no follower yet: rule 3."""
        if session.metrics is not None:
            self._metrics = session.metrics
            self._changes = _changes_of(session)
            return
        self._session = session
        self._await(self._stream.detach_ttl)

    def refused(self, error: Error) -> None:
        """Ends the log of a session that could not be started."""
        self.log.end(Ending("failed", error=error.payload(), has_content=False))

    def metrics(self) -> StreamMetrics | None:
        """Returns the metrics of the stream for a follower that leaves now. None if the stream never began."""
        session = self._session
        if session is None:
            return self._metrics
        return session.measured("disconnected") if session.metrics is None else session.metrics

    def changes(self) -> Changes | None:
        """Returns how the request was changed; as `Published.changes`."""
        return self._changes if self._session is None else _changes_of(self._session)

    def measured(self) -> dict[str, Any]:
        """Returns the metrics so far, for a whole answer that contains them."""
        return {} if self._session is None else self._session.measured().as_dict()

    # -- Client --

    @property
    def direct(self) -> FrameLog | None:
        """The log for the fast path."""
        return self

    def commit(self) -> None:
        """Does nothing: each follower's response has its own headers."""

    def flush(self) -> None:
        """Does nothing, as `commit`."""

    def write(self, pieces: Sequence[Piece]) -> None:
        """Logs the bytes of one turn."""
        self.log_frames(b"".join(pieces), self._encoder.seq)

    def log_frames(self, frames: bytes, last_seq: int) -> None:
        """Logs whole frames; as `FrameLog.log_frames`."""
        self.log.append(frames, last_seq)
        if self._keeping is not None:
            self._keeping.logged(frames)
        if self._are_slow:
            self._balance()

    def end(self, pieces: Sequence[Piece]) -> None:
        """Logs the last bytes and the end."""
        self._log_end(pieces)

    def fail(self, error: Error, pieces: Sequence[Piece]) -> None:
        """Logs an early failure. Followers whose response answers a request respond with it instead: rule 1."""
        for follower in tuple(self._followers):
            if follower.is_answer:
                follower.fail(error)
        if pieces or self.log.header.framing == "json":  # a whole answer has no frame for a failure
            self._log_end(pieces)
        else:
            self.abort(error)

    def put_off(self, seconds: float) -> None:
        """Works as `Client.put_off`, for each follower, also for those that join during the wait."""
        self._put_off_until = self._runner.timers.clock() + seconds
        for follower in self._followers:
            follower.put_off(seconds)

    def abort(self, error: Error) -> None:
        """Breaks off the log of a stream whose frames cannot report its end. Each follower ends with `error`."""
        self._leave()
        if not self.log.is_left:
            self.log.break_off(error)

    def _log_end(self, pieces: Sequence[Piece]) -> None:
        if self.log.is_left:  # the session had ended before, and the ledger has answered now
            self._leave()
            return
        last = b"".join(pieces)
        if last:
            self.log.append(last, self._encoder.seq)
        session = self._session
        event: Event = NO_EVENT if session is None else session.last_event
        has_content = session is None or session.has_content
        self._leave()
        self.log.end(ending_of(event, has_content=has_content))

    def _leave(self) -> None:
        """Releases the session, which has ended."""
        session, self._session = self._session, None
        if session is not None:
            self._metrics = session.metrics
            self._changes = _changes_of(session)
        self._stop_waiting()

    # -- followers --

    @property
    def followers(self) -> int:
        """The number of followers in this process."""
        return len(self._followers)

    @property
    def are_slow(self) -> bool:
        """Whether there are followers in this process, and none of them keeps up."""
        return self._are_slow

    def add(self, follower: Follows) -> None:
        """Adds a follower; as `Published.add`."""
        self._followers[follower] = None
        if self._put_off_until:
            follower.put_off(max(0.0, self._put_off_until - self._runner.timers.clock()))
        self._stop_waiting()
        self.balance()

    def remove(self, follower: Follows) -> None:
        """Removes a follower that has left, or whose response has ended."""
        if follower in self._followers:  # half of the instructions of `pop`
            del self._followers[follower]
        self.balance()
        if self._followers or self._session is None:
            return
        policy = _POLICIES[self._stream.on_disconnect]
        if policy == "detach":
            self._stop_waiting()
            self._await(self._stream.detach_ttl)
        elif policy == "cancel" or not self._drain():
            self._look_elsewhere()

    def parted(self, follower: Follows) -> None:
        """Removes a follower that was cut off because the server stops. The stream goes on."""
        self._followers.pop(follower, None)
        self.balance()

    def balance(self) -> None:
        """Pauses or resumes the upstream after a change of the followers: rule 2."""
        self._are_slow = bool(self._followers)
        for follower in self._followers:
            if not follower.is_slow:
                self._are_slow = False
                break
        if self._are_slow or self._is_held_back:
            self._balance()

    def cancel(self) -> None:
        """Ends the stream with `finish {cancelled}`, which is logged. Does nothing if the stream has ended."""
        if self._session is not None:
            self._session.cancel()

    def leave_to_other(self) -> None:
        """Releases the session of a stream that another worker has taken over. The session has been ended."""
        self._leave()

    def await_follower(self) -> None:
        """Called for a stream that was started without a follower: rule 3. Its `detach_ttl` began with `begin`."""
        if self._session is not None and self._stream.on_disconnect == "drain":
            self._drain()

    def _drain(self) -> bool:
        """Lets the stream go on without a follower, if `[limits] drains` permits it; returns whether it goes on."""
        if not self._is_draining and self._runner.may_drain():
            self._stop_waiting()
            self._is_draining = True
        return self._is_draining

    def _await(self, seconds: float) -> None:
        """Cancels the stream after some seconds, unless it gets a follower in this or another process."""
        timers = self._runner.timers
        self._timer = timers.schedule(timers.clock() + seconds, self._look_elsewhere)

    def _look_elsewhere(self) -> None:
        self._timer = None
        if self._session is not None:
            self._runner.look_elsewhere(self.log, self._found_elsewhere)

    def _found_elsewhere(self, ago: float) -> None:
        """Cancels the stream, or waits on if another process follows it: those note it every `limits.note_life`.

        Args:
            ago: Seconds since another process last followed the stream.
        """
        if self._session is None or self._followers or self._timer is not None or self._is_draining:
            return  # it has ended, has a follower, waits again, or drains
        waited = self._session.seconds_since_wait()
        ago = min(ago, waited)  # a decision is a sign that somebody comes back
        is_detached = _POLICIES[self._stream.on_disconnect] == "detach" or waited < math.inf
        rest = (self._stream.detach_ttl if is_detached else 0.0) + SHARED.note_life - ago
        if rest > 0.0:
            self._await(rest)
        else:
            self.cancel()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_draining:
            self._is_draining = False
            self._runner.drained()

    def _balance(self) -> None:
        """Pauses or resumes the upstream: rule 2."""
        session = self._session
        if session is None:
            return
        if self._must_hold_back() != self._is_held_back:
            self._is_held_back = not self._is_held_back
            if self._is_held_back:
                session.pause()
            else:
                session.resume()

    def _must_hold_back(self) -> bool:
        if not self._are_slow:
            return False
        slowest = self.log.last_seq
        for follower in self._followers:
            slowest = min(slowest, follower.position)
        return self.log.dropped_by(LIMITS.log_headroom) > slowest


def _changes_of(session: Generation) -> Changes | None:
    answered_by = session.answered_by
    return None if answered_by is None else answered_by[3]


def ending_of(event: Event, *, has_content: bool) -> Ending:
    """Returns the end of a stream, from its last event before `done`.

    Args:
        event: Its `finish` or `error`. Empty if it had neither.
        has_content: As in `Ending`.
    """
    if "error" in event:
        return Ending("failed", usage=event.get("usage"), error=event["error"], has_content=has_content)
    reason = event.get("finish_reason")
    state: Literal["finished", "cancelled"] = "finished" if reason not in (None, "cancelled") else "cancelled"
    return Ending(state, reason, event.get("usage"), None, has_content)  # a keyword costs 700 instructions
