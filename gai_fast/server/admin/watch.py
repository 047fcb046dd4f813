"""`Watches`: the streams of one worker that admins follow through any worker.

Owns which events of such a stream are kept: the newest, since an admin began to follow it.

1. A stream without a follower costs nothing. A followed stream does not use the relay's fast path.
2. Followers ask for new events. If no follower has asked for `limits.watch_lease` seconds, nothing is kept.
3. At most `limits.watched_bytes` of a stream are kept, the newest. A slower follower gets a `warning` that it missed
   events.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final, NamedTuple

from gai_fast.kernels import encode_sse
from gai_fast.model.events import Event
from gai_fast.net.engine.engine import Engine
from gai_fast.runtime.timers import Timer
from gai_fast.server.limits import LIMITS


def _warning(reason: str) -> bytes:
    return encode_sse({"type": "warning", "reason": reason}, event="warning")


_SKIPPED: Final = _warning("skipped")
"""Replaces events that came faster than they were requested."""
_LEFT_OUT: Final = _warning("left_out")
"""Replaces an event that is too large or cannot be written as JSON."""


class WatchedEvents(NamedTuple):
    """The events of a stream after a place.

    Attributes:
        place: The number of the last event, counted from the first follower on.
        frames: The events, as server-sent events.
        is_over: Whether the stream has ended, so no events follow.
    """

    place: int
    frames: bytes
    is_over: bool


class Watches:
    """The followed streams of a worker.

    Args:
        engine: Owns the streams.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watches: dict[str, _Watch] = {}
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._watches)

    def news(self, stream_id: str, after: int) -> WatchedEvents | None:
        """Returns the events after a place. `None` if no such stream runs.

        Args:
            stream_id: The stream's id; may be any text.
            after: `WatchedEvents.place` of the previous call; 0 for the first call.
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
        return WatchedEvents(place, frames, session is None)

    def _await_lease(self) -> None:
        if self._timer is None:
            timers = self._engine.timers
            self._timer = timers.schedule(timers.clock() + LIMITS.watch_lease, self._look)

    def _look(self) -> None:
        """Ends the watches that no follower has asked for."""
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
        """Stops watching all streams. The streams continue."""
        for stream_id in tuple(self._watches):
            self._end(stream_id)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Watch:
    """One followed stream: the `EventSink` that gets the events from its relay."""

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
