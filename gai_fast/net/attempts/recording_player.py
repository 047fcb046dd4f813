"""An exchange that plays a recording instead of asking an upstream, with the recording's own timing."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final

import orjson

from gai_fast.model.errors import Error
from gai_fast.net.upstream.connection import Receiver

_STREAM: Final = {"content-type": "text/event-stream"}


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded answer.

    Args:
        chunks: Pairs of seconds since the request and the bytes of one read.
        status: Its HTTP status.
        headers: The recorded ones; lower-case names.
        broke: Whether it ended early.
        about: The other keys of its first line.
    """

    chunks: Sequence[tuple[float, bytes]]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: dict(_STREAM))
    broke: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)


def read_recording(data: bytes) -> Recording:
    """Reads a recording: a header line, then `{"at": seconds, "data": text}` per read.

    Args:
        data: The file, as `net/attempts/recording.py` and `tools/record_demo.py` write it.

    Raises:
        ValueError: It is not a recording; the text names the line.
    """
    chunks: list[tuple[float, bytes]] = []
    end = "complete"
    about: dict[str, Any] = {}
    for number, line in enumerate(data.splitlines(), 1):
        try:
            read = orjson.loads(line)
            if number == 1:
                about = dict(read)
                if about.get("format") != 1:
                    raise ValueError("its `format` must be 1")
            elif "end" in read:
                end = read["end"]
            else:
                body = b64decode(read["base64"]) if "base64" in read else read["data"].encode()
                chunks.append((float(read["at"]), body))
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            raise ValueError(f"line {number} is not of a recording: {problem}") from None
    if not about:
        raise ValueError("an empty file is no recording")
    status = about.pop("status", HTTPStatus.OK)
    headers = about.pop("headers", _STREAM)
    if not isinstance(status, int) or not isinstance(headers, dict) or not all(map(_is_text, headers.values())):
        raise ValueError("line 1 is not of a recording: its status or its headers are none")
    return Recording(chunks, status, headers, broke=end != "complete", about=about)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


@cache
def load_recording(name: str) -> Recording:
    """Reads a recording that ships with the providers."""
    return read_recording(files("gai_fast.providers").joinpath(name).read_bytes())


class PlayedExchange:
    """Plays one recording to one receiver.

    Args:
        recording: The recording.
        receiver: Called as an upstream's exchange would call it.
        loop: The loop, whose clock is used.
    """

    is_waiting = resent = False
    """No connection is needed."""
    sent = True
    """The recording is the answer to the request."""

    def __init__(self, recording: Recording, receiver: Receiver, loop: asyncio.AbstractEventLoop) -> None:
        self._recording = recording
        self._receiver = receiver
        self._loop = loop
        self._next = 0
        self._paused = False
        # The beginning of the recording on the loop's clock: each pause moves it.
        self._began = loop.time()
        self._handle: asyncio.Handle | None = loop.call_soon(self._begin)

    @property
    def is_complete(self) -> bool:
        """Whether all of it has been played."""
        return self._next >= len(self._recording.chunks)

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

    def limit_silence(self, seconds: float) -> None:
        """Does nothing: a recording is played with its own pauses."""

    def close(self) -> None:
        """Stops for good."""
        self._paused = True
        self._next = len(self._recording.chunks) + 1
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _begin(self) -> None:
        self._handle = None
        self._receiver.head_received(self._recording.status, dict(self._recording.headers))
        self._schedule()

    def _schedule(self) -> None:
        if self._paused or self._handle is not None or self._next > len(self._recording.chunks):
            return
        if self._next == len(self._recording.chunks):
            self._next += 1
            broke = Error("network", "the recorded answer breaks off here", reason="truncated")
            self._receiver.exchange_ended(broke if self._recording.broke else None)
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
