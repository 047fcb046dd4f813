"""The client's leg on the wire: one HTTP/1.1 response, written straight to its transport.

Owns chunk framing, the proper and the improper end of a response, and how long a client may take no byte. aiohttp
parses requests and owns the connection; nothing of its response writer is used, because one contiguous write per turn
is what a relay costs (a `StreamResponse.write` per event costs a coroutine and a system call each).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from gai_fast.net.timers import TimerHandle, TimerWheel

_LAST_CHUNK: Final = b"0\r\n\r\n"
_LOOKS: Final = 4
"""Looks at a client within its `write_timeout`: one that takes nothing is cut off at most half of it too late."""


class ResponseWriter:
    """Writes one response.

    Args:
        transport: The client's connection.
        timers: The loop's timer wheel.
        clock: Monotonic seconds.
        write_timeout: Seconds after which a client that takes no byte is cut off.
        chunked: Frame the body in HTTP chunks; otherwise the end of the connection ends it (HTTP/1.0).
        on_end: Called once: the response is written, or the connection was given up.
    """

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        *,
        timers: TimerWheel,
        clock: Callable[[], float],
        write_timeout: float,
        chunked: bool,
        on_end: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._timers = timers
        self._clock = clock
        self._write_timeout = write_timeout
        self._chunked = chunked
        self._on_end = on_end
        self._head = b""
        self._written = 0
        self._taken = -1
        self._taken_at = 0.0
        self._watch: TimerHandle | None = None
        self._ended = False

    def start(self, head: bytes) -> None:
        """Begins the response; the head goes out with the first bytes, or at the end of this turn."""
        self._head = head

    def flush_head(self) -> None:
        """Writes the head alone."""
        if self._head:
            self._send(b"")

    def write(self, data: bytes) -> None:
        """Bytes of the body."""
        if self._chunked:
            self._send(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._send(data)

    def end(self, data: bytes) -> None:
        """The last bytes of the body, and its proper end."""
        if self._ended:
            return
        if not self._chunked:
            self._send(data)
        elif data:
            self._send(b"%x\r\n%b\r\n%b" % (len(data), data, _LAST_CHUNK))
        else:
            self._send(_LAST_CHUNK)
        self._finish()

    def send_whole(self, head: bytes, body: bytes) -> None:
        """A response whose length the head tells."""
        if self._ended:
            return
        self._send(head + body)
        self._finish()

    def lost(self) -> None:
        """The connection is gone."""
        self._stop_watch()
        self._finish()

    def release(self) -> bool:
        """Nobody writes any more. A client that has not taken all yet is still watched, until `lost`.

        Returns:
            Whether the client has taken all.
        """
        self._on_end = _nothing
        if self._watch is not None and not self._transport.get_write_buffer_size():
            self._stop_watch()
        return self._watch is None

    def _send(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        if self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)
        self._written += len(data)
        if self._watch is None:
            self._watch = self._timers.schedule(self._clock() + self._write_timeout / _LOOKS, self._check_progress)

    def _check_progress(self) -> None:
        """Cuts off a client that has taken nothing for `write_timeout`."""
        self._watch = None
        now = self._clock()
        unsent = self._transport.get_write_buffer_size()
        taken = self._written - unsent
        if not unsent or taken != self._taken:
            self._taken, self._taken_at = taken, now
        elif now - self._taken_at >= self._write_timeout:
            self._transport.abort()
            self._finish()
            return
        if unsent or not self._ended:
            self._watch = self._timers.schedule(now + self._write_timeout / _LOOKS, self._check_progress)

    def _stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _finish(self) -> None:
        if not self._ended:
            self._ended = True
            self._on_end()
            self._on_end = _nothing  # its owner is freed with the stream, not with the connection


def _nothing() -> None: ...
