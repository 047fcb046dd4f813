"""One client of a durable stream: its position in the log, its response, and its pace.

Owns when a follower reads the log and when it is done. `view.py` decides what it is sent, `delivery.py` when its head
is committed and when it needs a keep-alive, `publication.py` what its leaving means for the stream.

1. A follower that keeps up is given each piece as it is logged. One whose client is slow holds no bytes, only its
   position: it reads the log from there when the client has caught up, a part in each turn of the loop, and is sent
   neighbouring deltas as one.
2. For events that are no longer in the log it writes `stream.gap`, or ends the response with an error that says so.
3. The response ends properly after the end of the stream. Where the writer of the log is gone without an end, it ends
   with an `error` and `done` that are this follower's own.
4. What a part of ours raises here ends this follower alone, and its client is answered or cut off.
5. A server that stops cuts its followers off between two frames, so that their answers do not look complete; the last
   frame says when to come back.
6. No response that ends properly is empty. A client that comes back with the last event before the end is known here
   (a copy of the log may be behind) gets `done` from this follower; the `error` that it has only in a format where
   nothing else ends a failed stream. One whose stream failed without a frame gets both.
7. A caller with a limit of `streams` has as many followers in this process. One more is refused, unless it follows a
   stream that the caller follows here already: it is a client that comes back before its former connection is known to
   be gone, and takes the place of that stream's oldest follower, which ends with an `error` of its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, Final

from gai_fast.core.meter import StreamMeter
from gai_fast.kernels import Piece, size_of
from gai_fast.model.errors import Error
from gai_fast.model.events import Event, done
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import StreamSettings
from gai_fast.net.limits import LIMITS
from gai_fast.net.logs.delivery import Client, Delivery
from gai_fast.net.logs.publication import Published
from gai_fast.net.logs.view import OwnFrames, View, with_retry
from gai_fast.net.logs.writer import Headers
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.stores import LogHeader, StreamLog
from gai_fast.stores._base import frames_after

_log: Final = logging.getLogger("gai_fast.follower")
_COMMENT: Final = b":"
"""Begins a keep-alive, which is no frame."""


class Followers:
    """The followers of this process, by the caller that they belong to."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[str, dict[Follower, None]] = {}  # the oldest first

    def __len__(self) -> int:
        return sum([len(each) for each in self._of.values()])

    def __iter__(self) -> Iterator[Follower]:
        return iter([follower for each in self._of.values() for follower in each])

    def check(self, header: LogHeader, places: int) -> None:
        """Checks whether a stream may have one more follower: rule 7.

        Args:
            header: The stream's.
            places: The number of followers that its caller may have.

        Raises:
            RateLimited: All places are taken, none of them for this stream.
        """
        mine = self._of.get(header.caller, {})
        if len(mine) >= places and self._oldest(header) is None:
            text = f"this key follows as many streams as it may (streams = {places})"
            raise Error("rate_limited", text, reason="streams", retry_after_ms=SHARED.overloaded_ms)

    def add(self, follower: Follower) -> None:
        """Adds a follower; above its caller's places the oldest one of its stream ends."""
        header = follower.header
        mine = self._of.setdefault(header.caller, {})
        former = self._oldest(header) if follower.places is not None and len(mine) >= follower.places else None
        mine[follower] = None
        if former is not None:
            former.replace()

    def discard(self, follower: Follower) -> None:
        """Removes a follower, if it is there."""
        caller = follower.header.caller
        mine = self._of.get(caller)
        if mine is not None:
            mine.pop(follower, None)
            if not mine:
                del self._of[caller]

    def _oldest(self, header: LogHeader) -> Follower | None:
        """Returns the oldest follower of a stream, or None."""
        for follower in self._of.get(header.caller, {}):
            if follower.header.stream_id == header.stream_id:
                return follower
        return None


class Follower:
    """A client of a durable stream; a `LogWatcher`, and what the client's response calls. Made by `Engine.follow`.

    Args:
        log: The stream's log.
        client: The client's response.
        view: What it is sent.
        after: The number of the last event that the client has.
        stream: The settings of the response.
        publication: The stream, where it runs in this process.
        is_first: The client has started the stream.
        is_answer: Its request asks for the stream, as the first one or again; otherwise it follows one by its id.
        places: The number of followers that its caller may have; None: no limit.
        home: The followers of this process; it is one of them while it follows.
        timers: The loop's timers.
        loop: The loop.
    """

    __slots__ = (
        "_after",
        "_cut_timer",
        "_delivery",
        "_home",
        "_is_ahead",
        "_is_behind",
        "_is_first",
        "_is_late",
        "_is_over",
        "_log",
        "_loop",
        "_metrics",
        "_own",
        "_parting",
        "_publication",
        "_read_handle",
        "_timer",
        "_timers",
        "_view",
        "is_answer",
        "places",
    )

    def __init__(
        self,
        log: StreamLog,
        client: Client,
        view: View,
        after: int,
        stream: StreamSettings,
        publication: Published | None,
        *,
        is_first: bool,
        is_answer: bool,
        places: int | None = None,
        home: Followers,
        timers: Timers,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._home = home
        self.places = places
        self._parting: _Parting | None = None
        self._cut_timer: Timer | None = None
        self._log = log
        self._view = view
        self._after = after
        self._publication = publication
        self._is_first = is_first
        self.is_answer = is_answer
        self._metrics: StreamMetrics | None = None
        self._timers = timers
        self._loop = loop
        self._delivery = Delivery(client, view, stream, StreamMeter(perf_counter()).counters, loop)
        self._is_ahead = log.last_seq < view.position
        self._is_behind = False  # the log has pieces that were not taken
        self._is_late = False  # because its client was slow
        self._own = view if isinstance(view, OwnFrames) else None  # what the log has can be passed on
        self._is_over = False
        self._read_handle: asyncio.Handle | None = None
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Sends what the log has, and follows it; the client's response must know its follower by now."""
        try:
            self._is_behind = self._log.last_seq > self._view.position or self._log.is_over
            if self._publication is not None:
                self._publication.joined(self)
            self._home.add(self)  # after that: the stream always has a follower, also where this one replaces another
            self._log.watch(self)
            self._arm()
            if self._is_behind:
                self._read_on()
        except Exception as problem:  # noqa: BLE001  # rule 4
            self._break_off(problem)

    # -- LogWatcher --

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Passes the next piece on, or leaves it in the log."""
        if self._is_behind or self._is_over:
            return
        if self._delivery.is_paused:
            self._is_behind = self._is_late = True
            return
        try:
            own, view = self._own, self._view
            if own is not None and not self._is_ahead and self._delivery.is_committed:  # most pieces
                own.position = last_seq
                self._delivery.pass_on(piece)
            elif last_seq > view.position:
                if self._is_ahead:  # the client has a part of the piece, perhaps
                    self._is_ahead = False
                    piece = frames_after(piece, self._log.header, view.position)
                view.position = last_seq
                view.feed(piece)
                self._send()
        except Exception as problem:  # noqa: BLE001  # rule 4
            self._break_off(problem)

    def ended(self) -> None:
        """Ends the response, unless the log has more to be read first."""
        if self._is_behind or self._is_over:
            return
        try:
            self._finish()
        except Exception as problem:  # noqa: BLE001  # rule 4
            self._break_off(problem)

    # -- other followers --

    @property
    def header(self) -> LogHeader:
        """The stream's header."""
        return self._log.header

    def replace(self) -> None:
        """Ends the response because another follower of the stream takes its place: rule 7."""
        text = f"another connection follows this stream in place of this one (streams = {self.places})"
        self._break_off(Error("rate_limited", text, reason="streams", temporary=False))

    # -- the publication --

    @property
    def is_slow(self) -> bool:
        """Whether the client takes its bytes too slowly, or has not been sent all that the log has."""
        return self._is_behind or self._delivery.is_paused

    @property
    def position(self) -> int:
        """The number of the last event that has been handed to the client's connection."""
        return self._view.position

    def fail(self, error: Error) -> None:
        """Answers with the stream's early failure, if the head has not gone out; else its event follows."""
        if not self._is_over and not self._delivery.is_committed:
            self._leave()
            self._delivery.cut(error)

    # -- the client's response --

    @property
    def metrics(self) -> StreamMetrics | None:
        """The figures of the stream, for the request that started it, once its response has ended."""
        return self._metrics

    @property
    def upstream_headers(self) -> Headers:
        """None: a log keeps no headers."""
        return ()

    def measured(self) -> StreamMetrics:
        """As `Session.measured`; a stream that is followed has no whole answer to put them in."""
        return StreamMetrics(duration=0.0)

    def client_lost(self) -> None:
        """The client is gone."""
        self._leave()

    def pause(self) -> None:
        """The client is slow."""
        self._delivery.is_paused = True
        if self._publication is not None:
            self._publication.balance()

    def resume(self) -> None:
        """The client has caught up."""
        self._delivery.is_paused = False
        if self._is_over:
            return
        if self._is_behind and not self._is_parted and self._read_handle is None:
            self._read_more()
        elif self._publication is not None:
            self._publication.balance()

    # -- the log --

    def _read_more(self) -> None:
        self._read_handle = None
        if self._is_over or self._is_parted or self._delivery.is_paused:
            return
        try:
            self._read_on()
        except Exception as problem:  # noqa: BLE001  # rule 4
            self._break_off(problem)

    def _read_on(self) -> None:
        """Sends the next part of the log, and whatever follows in later turns."""
        log, view = self._log, self._view
        backlog = log.read(view.position, SHARED.follower_read)
        if backlog.lost and not view.go_on_after(backlog.lost, backlog.text):
            text = "the log no longer has what this client has missed"
            self._end_with(Error("not_found", text, reason="gap").payload(), log.last_seq + 1)
            return
        if self._is_late:
            view.feed_joined(backlog.pieces)
        else:
            for piece in backlog.pieces:
                view.feed(piece)
        view.position = backlog.last_seq
        if backlog.pieces or backlog.lost:
            self._send()
        if self._is_parted:
            return
        if view.position < log.last_seq:
            if not self._delivery.is_paused and not self._is_over:
                self._read_handle = self._loop.call_soon(self._read_more)
        else:
            self._is_behind = self._is_late = False
            if log.is_over:
                self._finish()
        if self._publication is not None:
            self._publication.balance()

    def _send(self) -> None:
        delivery = self._delivery
        if not delivery.is_committed:
            delivery.commit()
        delivery.send()
        if self._is_parted:
            self._part()

    @property
    def _is_parted(self) -> bool:
        """Whether the client has been sent its last frame: rule 5."""
        return self._parting is not None and self._parting.is_told

    # -- the end of the server --

    def part(self, retry_ms: int, until: float) -> None:
        """Cuts the client off after its next frame, which says when to come back: rule 5. Called once.

        Args:
            retry_ms: Milliseconds after which it is to come back.
            until: Seconds of the loop's clock; without a frame until then it is cut off as it is.
        """
        if self._is_over:
            return
        self._parting = _Parting(self._view, retry_ms)
        self._delivery.output = self._parting
        self._own = None  # each piece is looked at from now on
        self._cut_at(until)

    def _part(self) -> None:
        """Cuts the client off once the frame that says why is on its way."""
        self._log.unwatch(self)
        self._is_behind = True
        self._cut_at(self._loop.time() + LIMITS.parting)

    def _cut_at(self, time: float) -> None:
        if self._cut_timer is not None:
            self._cut_timer.cancel()
        self._cut_timer = self._timers.schedule(time, self._cut)

    def _cut(self) -> None:
        self._cut_timer = None
        publication, self._publication = self._publication, None
        if publication is not None:  # this is no leaving of the client's, after which the stream might end
            publication.parted(self)
            if self._is_first:
                self._metrics = publication.metrics()
        self._leave()
        self._delivery.cut(Error("overloaded", "this server is being stopped", reason="draining"))

    # -- time --

    def _arm(self) -> None:
        due = self._delivery.due()
        if due < math.inf and not self._is_over:
            self._timer = self._timers.schedule(due, self._look)

    def _look(self) -> None:
        self._timer = None
        try:
            self._delivery.look(self._loop.time())
            self._arm()
        except Exception as problem:  # noqa: BLE001  # rule 4
            self._break_off(problem)

    # -- the end --

    def _finish(self) -> None:
        """Ends the response as the stream has ended."""
        log, ending = self._log, self._log.ending
        if log.last_seq < self._after:
            behind = Error(
                "network", "the log has not reached the event that this client has seen", reason="log_behind"
            )
            self._end_with(behind.payload(), self._after + 1)
        elif log.broken is not None:
            self._end_with(log.broken.payload(), log.last_seq + 1)
        elif ending is not None and not log.last_seq:
            self._end_with(ending.error, 1)
        elif ending is not None and log.last_seq == self._after:
            self._end_again(ending.error)
        else:
            self._leave()
            self._delivery.end(self._delivery.take_last(), None, delivered=True)

    def _end_with(self, error: Mapping[str, Any] | None, seq: int) -> None:
        """Ends the response with events of its own: rules 2, 3 and 6.

        Args:
            error: The payload of the `error`; `None`: the stream did not fail.
            seq: The number of the `error`.
        """
        if error is not None:
            self._view.event({"type": "error", "seq": seq, "error": dict(error)})
        self._view.event(done(error is None))
        self._leave()
        self._delivery.end(self._delivery.take_last(), None, delivered=True)

    def _end_again(self, error: Mapping[str, Any] | None) -> None:
        """Ends the response to a client that has the stream's last event: rule 6.

        Args:
            error: The payload of the `error`, which that event was; `None`: the stream did not fail.
        """
        self._view.event(done(error is None))
        pieces = self._delivery.take_last()
        if error is not None and not size_of(pieces):
            self._view.event({"type": "error", "seq": self._after, "error": dict(error)})
            pieces = self._delivery.take_last()
        self._leave()
        self._delivery.end(pieces, None, delivered=True)

    def _break_off(self, problem: Exception) -> None:
        """Ends a follower that cannot be sent more: with an `Error` of its own, or, after a bug, by rule 4."""
        if isinstance(problem, Error):
            try:
                self._end_with(problem.payload(), self._log.last_seq + 1)
                return
            except Exception as worse:  # noqa: BLE001  # rule 4: not even this end can be written
                problem = worse
        _log.error("a follower of stream %s failed: a bug of the gateway", self._log.header.stream_id, exc_info=problem)
        self._leave()
        self._delivery.cut(Error("internal", "the gateway failed while it handled this answer"))

    def _leave(self) -> None:
        """Follows no more; idempotent."""
        if self._is_over:
            return
        self._is_over = True
        self._home.discard(self)
        self._log.unwatch(self)
        self._delivery.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._cut_timer is not None:
            self._cut_timer.cancel()
            self._cut_timer = None
        if self._read_handle is not None:
            self._read_handle.cancel()
            self._read_handle = None
        publication, self._publication = self._publication, None
        if publication is not None:
            if self._is_first:
                self._metrics = publication.metrics()
            publication.left(self)


class _Parting:
    """The output of a follower whose next bytes are its last.

    Args:
        view: What the client is sent.
        retry_ms: Milliseconds after which it is to come back.

    Attributes:
        is_told: The last bytes have been taken.
    """

    def __init__(self, view: View, retry_ms: int) -> None:
        self.is_told = False
        self._view = view
        self._retry_ms = retry_ms

    def event(self, event: Event) -> None:
        """Writes an event that the log does not have."""
        self._view.event(event)

    def heartbeat(self) -> None:
        """Writes a keep-alive."""
        self._view.heartbeat()

    def take_pieces(self) -> Sequence[Piece]:
        """Returns the bytes since the last call; of the first that are frames, the last one says when to come back."""
        data = b"".join(self._view.take_pieces())
        if self.is_told or not data or data.startswith(_COMMENT) or not data.strip():
            return [data] if data else []
        self.is_told = True
        return [with_retry(data, self._retry_ms)]
