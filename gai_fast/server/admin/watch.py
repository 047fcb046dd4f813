"""`Watches`: the streams of one worker that admins follow, whichever worker answers them.

Owns what is kept of such a stream: its newest events, from the moment on at which somebody began to follow it.

1. A stream that nobody follows costs nothing. One that is followed takes the long way through the relay.
2. Those who follow ask for what is new. Once nobody has asked for `limits.watch_lease` seconds, nothing is kept.
3. At most `limits.watched_bytes` are kept of a stream, the newest. A follower that was slower learns that it missed
   some, by a `warning`.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final, NamedTuple

from gai_fast.kernels import encode_sse
from gai_fast.model.events import Event
from gai_fast.net.stream.streams import Engine
from gai_fast.runtime.timers import Timer
from gai_fast.server.limits import LIMITS


def _warning(reason: str) -> bytes:
    return encode_sse({"type": "warning", "reason": reason}, event="warning")


_SKIPPED: Final = _warning("skipped")
"""Stands for events that came faster than they were asked for."""
_LEFT_OUT: Final = _warning("left_out")
"""Stands for an event that is too large, or that cannot be written as JSON."""


class News(NamedTuple):
    """The events of a stream that came after a place in it.

    Attributes:
        place: The number of the last event, counted from when the stream was followed first.
        frames: The events, as server-sent events.
        is_over: The stream has ended, and nothing will follow.
    """

    place: int
    frames: bytes
    is_over: bool


class Watches:
    """The streams of a worker that are followed.

    Args:
        engine: Has the streams.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watches: dict[str, _Watch] = {}
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._watches)

    def news(self, stream_id: str, after: int) -> News | None:
        """Returns the events after a place; `None`: no such stream runs.

        Args:
            stream_id: Perhaps no stream id at all.
            after: `News.place` of the last time; 0 at the first.
        """
        session = self._engine.streams.get(stream_id)
        watch = self._watches.get(stream_id)
        if watch is None:
            if session is None:
                return None
            watch = self._watches[stream_id] = _Watch()
            session.watch(watch)
            self._await_lease()
        watch.asked_at = self._engine.timers.clock()
        place, frames = watch.after(after)
        return News(place, frames, session is None)

    def _await_lease(self) -> None:
        if self._timer is None:
            timers = self._engine.timers
            self._timer = timers.schedule(timers.clock() + LIMITS.watch_lease, self._look)

    def _look(self) -> None:
        """Ends the watches that nobody has asked for."""
        self._timer = None
        oldest = self._engine.timers.clock() - LIMITS.watch_lease
        for stream_id, watch in tuple(self._watches.items()):
            if watch.asked_at <= oldest:
                self._end(stream_id)
        if self._watches:
            self._await_lease()

    def _end(self, stream_id: str) -> None:
        del self._watches[stream_id]
        session = self._engine.streams.get(stream_id)
        if session is not None:
            session.watch(None)

    def close(self) -> None:
        """Watches no stream any more; those of an engine that goes on are as before."""
        for stream_id in tuple(self._watches):
            self._end(stream_id)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Watch:
    """One stream; the `EventSink` that its relay shows the events to."""

    def __init__(self) -> None:
        self.asked_at = 0.0
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._last = 0

    def event(self, event: Event) -> None:
        """Keeps an event."""
        try:
            frame = encode_sse(event, event=event["type"])
        except ValueError:
            frame = _LEFT_OUT
        if len(frame) > LIMITS.watched_bytes:
            frame = _LEFT_OUT
        self._frames.append(frame)
        self._last += 1
        self._size += len(frame)
        while self._size > LIMITS.watched_bytes:
            self._size -= len(self._frames.popleft())

    def after(self, place: int) -> tuple[int, bytes]:
        """Returns the number of the last event, and the frames after a place."""
        first = self._last - len(self._frames)
        if first <= place <= self._last:
            return self._last, b"".join(islice(self._frames, place - first, None))
        return self._last, b"".join([_SKIPPED, *self._frames])
