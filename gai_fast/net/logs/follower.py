"""One client of a durable stream: its position in the log, its response, and its pace.

Owns how a follower's response ends, and when it is cut off. `cursor.py` decides when the log is read, `view.py` what is
sent, `delivery.py` when the headers are committed and when a keep-alive is due, and `publication.py` what happens to
the stream if the follower leaves.

1. A client that was slow gets adjacent deltas as one.
2. For events that are no longer in the log, the follower writes `stream.gap`, or ends the response with an error that
   states the loss.
3. The response ends properly after the end of the stream. If the writer of the log is gone without an end, the follower
   ends the response with its own `error` and `done`. If the log cannot be read, and nothing has been sent, the error is
   the response.
4. An exception in the gateway's code ends this follower alone. Its client gets an error, or is cut off.
5. A server that stops cuts its followers off between two frames, so that their responses do not look complete. The last
   frame tells the client when to reconnect.
6. No response that ends properly is empty. A client may resume after the last event before the end is known here (a
   copy of the log may be behind): it gets `done` from this follower, and the `error`, which it has, only in a format
   if nothing else ends a failed stream. If a stream failed without a frame, its client gets both.
7. A caller with a limit of `streams` has at most as many followers in this process. One more is refused, unless it
   follows a stream that the caller already follows here: then it is a client that resumes before its former connection
   is known to be gone. It replaces that stream's oldest follower, which ends with its own `error`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, Final

from gai_fast.core.meter import StreamMeter
from gai_fast.kernels import Piece, size_of
from gai_fast.model.errors import Error
from gai_fast.model.events import Event, done
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import AnswerSource, StreamMetrics
from gai_fast.model.settings import StreamSettings
from gai_fast.net.limits import LIMITS
from gai_fast.net.logs.cursor import LogCursor
from gai_fast.net.logs.delivery import Delivery
from gai_fast.net.logs.publication import Published
from gai_fast.net.logs.resting import Resting
from gai_fast.net.logs.view import LogFrames, View, with_retry
from gai_fast.net.logs.writer import Client, Headers
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.stores import Backlog, LogHeader, StreamLog

_KEPT_ALIVE: Final = (b":", b"event: keepalive\n")
"""How a keep-alive begins, which is not a frame."""


class Followers:
    """The followers of this process, by caller."""

    def __init__(self) -> None:
        self._of: dict[str, dict[Follower, None]] = {}  # by caller, the oldest first

    def __len__(self) -> int:
        return sum([len(each) for each in self._of.values()])

    def __iter__(self) -> Iterator[Follower]:
        return iter([follower for each in self._of.values() for follower in each])

    def check(self, header: LogHeader, places: int) -> None:
        """Checks whether a stream may have one more follower: rule 7.

        Args:
            header: The header of the stream's log.
            places: The number of followers that its caller may have.

        Raises:
            RateLimited: All places are taken, and none by a follower of this stream.
        """
        mine = self._of.get(header.caller, {})
        if len(mine) >= places and self._oldest(header) is None:
            text = f"this key follows as many streams as it may (streams = {places})"
            raise Error("rate_limited", text, reason="streams", retry_after_ms=SHARED.overloaded_ms)

    def add(self, follower: Follower) -> None:
        """Adds a follower. If its caller has no free place, the oldest follower of the same stream ends."""
        header = follower.log.header
        mine = self._of.setdefault(header.caller, {})
        former = self._oldest(header) if follower.places is not None and len(mine) >= follower.places else None
        mine[follower] = None
        if former is not None:
            former.replace()

    def discard(self, follower: Follower) -> None:
        """Removes a follower. Idempotent."""
        caller = follower.log.header.caller
        mine = self._of.get(caller)
        if mine is not None:
            if follower in mine:
                del mine[follower]
            if not mine:
                del self._of[caller]

    def _oldest(self, header: LogHeader) -> Follower | None:
        """Returns the oldest follower of a stream. None if it has none."""
        for follower in self._of.get(header.caller, {}):
            if follower.log.header.stream_id == header.stream_id:
                return follower
        return None


class Follower(LogCursor):
    """A client of a durable stream: a cursor of its log, and what the client's response calls. Made by `Engine.follow`.

    Args:
        log: The stream's log.
        client: The client's response.
        view: The form in which the client gets the log.
        after: The number of the last event that the client has.
        stream: The settings of the response.
        publication: The stream. None if it runs in another process.
        is_first: Whether the client has started the stream.
        is_answer: Whether the client's request asks for the answer, for the first time or again. Otherwise it follows a
            stream by its id.
        places: The number of followers that its caller may have. None if there is no limit.
        home: The followers of this process, which it joins until it leaves.
        timers: The loop's timers.
        loop: The loop.

    Attributes:
        resting: Ends the response where its run waits. None if it does not end there.
    """

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
        super().__init__(log, view.start, after, publication, loop, takes_metrics=is_first)
        self.is_answer = is_answer
        self.places = places
        self._home = home
        self._view = view
        self._passes_on = isinstance(view, LogFrames)  # pieces of the log are sent unchanged
        self._timers = timers
        self._timer: Timer | None = None
        self._delivery = Delivery(client, view, stream, StreamMeter(perf_counter()).counters, loop, loop.time())
        self._parting: _Parting | None = None
        self._cut_timer: Timer | None = None
        self.resting: Resting | None = None

    def begin(self) -> None:
        """Sends what the log has, and follows it. The client's response must have its follower set before."""
        self._join()
        self._home.add(self)  # after `_join`, so that the stream has a follower even if this one replaces another
        self._arm()
        if self._is_behind:
            self._go_on()

    # -- LogCursor --

    def _take_piece(self, piece: bytes, last_seq: int) -> None:
        """Sends the next piece."""
        self.position = last_seq
        if self._passes_on and self._delivery.is_committed:  # most pieces
            self._delivery.pass_on(piece)
        else:
            self._view.feed(piece)
            self._send()

    def _take(self, backlog: Backlog) -> None:
        """Sends the next part of the log."""
        view = self._view
        if backlog.lost and not view.go_on_after(self.position, backlog.lost, backlog.text):
            raise Error("not_found", "the log no longer has what this client has missed", reason="gap")
        if self._is_late:
            view.feed_joined(backlog.pieces)
        else:
            for piece in backlog.pieces:
                view.feed(piece)
        self.position = backlog.last_seq
        if backlog.pieces or backlog.lost:
            self._send()

    def _send(self) -> None:
        delivery = self._delivery
        if not delivery.is_committed:
            delivery.commit()
        delivery.send()
        if self._parting is not None and self._parting.is_sent:
            self._stop()  # the client has got its last frame: rule 5
            self._cut_at(self._loop.time() + LIMITS.parting)
        if self.resting is not None:
            self.resting.sent(is_all=self.position >= self.log.last_seq and not self.is_over)

    # -- other followers --

    def replace(self) -> None:
        """Ends the response because another follower of the stream takes its place: rule 7."""
        text = f"another connection follows this stream in place of this one (streams = {self.places})"
        self._break_off(Error("rate_limited", text, reason="streams", temporary=False))

    # -- the publication --

    def fail(self, error: Error) -> None:
        """Responds with the stream's early failure, if the headers are not committed. Otherwise its event follows."""
        if not self.is_over and not self._delivery.is_committed:
            self._abort(error)

    def put_off(self, seconds: float) -> None:
        """Holds the headers for longer: the stream waits for a limit of its upstream."""
        self._delivery.put_off(seconds)

    # -- the client's response --

    @property
    def upstream_headers(self) -> Headers:
        """Empty: a log keeps no headers."""
        return ()

    @property
    def answered_by(self) -> AnswerSource | None:
        """Returns the source of the answer without names, which the log's `start` event has.

        None if its request was not changed, or if the stream runs in another process.
        """
        changes = None if self._publication is None else self._publication.changes()
        return None if changes is None else ("", "", False, changes)

    def measured(self) -> StreamMetrics:
        """Returns empty metrics, in place of `Session.measured`: a follower writes no whole answer that has them."""
        return StreamMetrics(duration=0.0)

    def client_lost(self) -> None:
        """Called when the client is gone."""
        self.leave()

    def pause(self) -> None:
        """Called when the client reads too slowly."""
        self._delivery.is_paused = True
        super().pause()

    def resume(self) -> None:
        """Called when the client has caught up."""
        self._delivery.is_paused = False
        super().resume()

    # -- the end of the server --

    def part(self, retry_ms: int, until: float) -> None:
        """Cuts the client off after its next frame, which tells it when to reconnect: rule 5. Called once.

        Args:
            retry_ms: Milliseconds after which the client reconnects.
            until: The time at which the client is cut off without a frame, in seconds of the loop's clock.
        """
        if self.is_over:
            return
        self._parting = _Parting(self._view, retry_ms)
        self._delivery.output = self._parting
        self._passes_on = False
        self._cut_at(until)

    def _cut_at(self, time: float) -> None:
        if self._cut_timer is not None:
            self._cut_timer.cancel()
        self._cut_timer = self._timers.schedule(time, self._cut)

    def _cut(self) -> None:
        self._note_metrics()
        publication, self._publication = self._publication, None
        if publication is not None:  # not `remove`: the client has not left, so the stream must not end
            publication.parted(self)
        self._abort(Error("overloaded", "this server is being stopped", reason="draining"))

    # -- time --

    def _arm(self) -> None:
        due = self._delivery.due()
        if due < math.inf and not self.is_over:
            self._timer = self._timers.schedule(due, self._look)

    def _look(self) -> None:
        self._timer = None
        try:
            self._view.number = self.position
            self._delivery.look(self._loop.time())
            self._arm()
        except Exception as problem:  # noqa: BLE001  # rule 4
            self._break_off(problem)

    # -- the end --

    def _finish(self, error: Error | None) -> None:
        """Ends the response as the stream has ended, or with an error of this follower."""
        ending, last_seq = self.log.ending, self.log.last_seq
        if error is not None and error.is_of_log and error is self.log.broken and not self._delivery.is_committed:
            self._abort(error)
        elif error is not None:
            self._end_with(error.payload())
        elif ending is not None and not last_seq:
            self._end_with(ending.error)
        elif ending is not None and last_seq == self._after:
            self._end_again(ending.error)
        else:
            self._end_response(self._delivery.take_last())

    def _end_with(self, error: Mapping[str, Any] | None) -> None:
        """Ends the response with events of this follower: rules 2, 3 and 6.

        Args:
            error: The payload of the `error`. None if the stream did not fail.
        """
        if error is not None:
            seq = max(self.log.last_seq, self._after) + 1
            self._view.event({"type": "error", "seq": seq, "error": dict(error)})
        self._view.event(done(error is None))
        self._end_response(self._delivery.take_last())

    def _end_again(self, error: Mapping[str, Any] | None) -> None:
        """Ends the response to a client that has the stream's last event: rule 6.

        Args:
            error: The payload of the `error`, which was that last event. None if the stream did not fail.
        """
        self._view.event(done(error is None))
        pieces = self._delivery.take_last()
        if error is not None and not size_of(pieces):
            self._view.event({"type": "error", "seq": self._after, "error": dict(error)})
            pieces = self._delivery.take_last()
        self._end_response(pieces)

    def end_here(self) -> None:
        """Ends the response with what its view has, although the stream goes on."""
        self._end_response(self._delivery.take_last())

    def _end_response(self, pieces: Sequence[Piece]) -> None:
        self.leave()
        self._delivery.end(pieces, None, delivered=True)

    def _abort(self, error: Error) -> None:
        """Ends the response without an event."""
        self.leave()
        self._delivery.cut(error)

    def leave(self) -> None:
        """Stops following. Idempotent."""
        self._home.discard(self)
        self._delivery.stop()
        if self.resting is not None:
            self.resting.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._cut_timer is not None:
            self._cut_timer.cancel()
            self._cut_timer = None
        super().leave()


class _Parting:
    """The output of a follower that is cut off after its next frame.

    Args:
        view: The follower's output until now.
        retry_ms: Milliseconds after which the client reconnects.

    Attributes:
        is_sent: Whether the last frame has been taken.
    """

    def __init__(self, view: View, retry_ms: int) -> None:
        self.is_sent = False
        self._view = view
        self._retry_ms = retry_ms

    def event(self, event: Event) -> None:
        """Writes an event that the log does not have."""
        self._view.event(event)

    def heartbeat(self) -> None:
        """Writes a keep-alive."""
        self._view.heartbeat()

    def take_pieces(self) -> Sequence[Piece]:
        """Returns the bytes since the last call. The last of the first frames gets the time to reconnect."""
        data = b"".join(self._view.take_pieces())
        if self.is_sent or not data or data.startswith(_KEPT_ALIVE) or not data.strip():
            return [data] if data else []
        self.is_sent = True
        return [with_retry(data, self._retry_ms)]
