"""An exchange that plays a recording instead of asking an upstream, with the recording's own timing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import orjson

from gai_fast.net.upstream import Receiver


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded answer.

    Args:
        chunks: Pairs of seconds since the request and the bytes that were read then.
    """

    chunks: Sequence[tuple[float, bytes]]


@cache
def load_recording(name: str) -> Recording:
    """A recording that ships with the providers: a header line, then `{"at": seconds, "data": text}` per read."""
    lines = files("gai_fast.providers").joinpath(name).read_bytes().splitlines()[1:]
    reads: list[dict[str, Any]] = [orjson.loads(line) for line in lines]
    return Recording([(read["at"], read["data"].encode()) for read in reads])


class ReplayExchange:
    """Plays one recording to one receiver.

    Args:
        recording: What is played.
        receiver: Called as an upstream's exchange would call it.
        loop: The loop that keeps the time.
    """

    def __init__(self, recording: Recording, receiver: Receiver, loop: asyncio.AbstractEventLoop) -> None:
        self._recording = recording
        self._receiver = receiver
        self._loop = loop
        self._next = 0
        self._paused = False
        # How much later than recorded the rest is played: pauses move it.
        self._began = loop.time()
        self._handle: asyncio.Handle | None = loop.call_soon(self._begin)

    def pause_reading(self) -> None:
        """Stops playing; the rest comes later by as long as the pause lasts."""
        if not self._paused:
            self._paused = True
            self._began -= self._loop.time()

    def resume_reading(self) -> None:
        """Goes on playing."""
        if self._paused:
            self._paused = False
            self._began += self._loop.time()
            self._schedule()

    def close(self) -> None:
        """Stops for good."""
        self._paused = True
        self._next = len(self._recording.chunks) + 1
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _begin(self) -> None:
        self._handle = None
        self._receiver.head_received(200, {"content-type": "text/event-stream"})
        self._schedule()

    def _schedule(self) -> None:
        if self._paused or self._handle is not None or self._next > len(self._recording.chunks):
            return
        if self._next == len(self._recording.chunks):
            self._next += 1
            self._receiver.exchange_ended(None)
            return
        self._handle = self._loop.call_at(self._began + self._recording.chunks[self._next][0], self._play)

    def _play(self) -> None:
        self._handle = None
        if self._paused:
            return
        chunk = self._recording.chunks[self._next][1]
        self._next += 1
        self._receiver.body_received(chunk)
        self._schedule()
