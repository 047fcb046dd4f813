"""The writing side of a WebSocket: whole frames, straight to its transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gai_fast.server.websocket.deflate import Deflate
from gai_fast.server.write_watch import WriteWatch


class FrameWriter:
    """Writes the frames of one WebSocket.

    Args:
        transport: The connection.
        watch: Counts what is written.

    Attributes:
        deflate: Compresses the messages; `None`: they are written as they are.
        is_closed: The close has been written: nothing may follow it (RFC 6455, 5.5.1).
    """

    __slots__ = ("_is_closing", "_send", "_watch", "deflate", "is_closed")

    def __init__(self, transport: asyncio.Transport, watch: WriteWatch) -> None:
        # Found once: looking them up again costs each write as much as calling them.
        self._send: Callable[[bytes], None] = transport.write
        self._is_closing: Callable[[], bool] = transport.is_closing
        self._watch = watch
        self.deflate: Deflate | None = None
        self.is_closed = False

    def write(self, frames: bytes) -> None:
        """Writes whole frames; nothing once the socket is being closed.

        Args:
            frames: Without a mask; each message is one frame.
        """
        if self.is_closed or self._is_closing():
            return
        if self.deflate is not None:
            frames = self.deflate.compress(frames)
        self._send(frames)
        self._watch.written += len(frames)
