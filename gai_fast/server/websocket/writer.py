"""The writing side of a WebSocket: whole frames, straight to its transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gai_fast.kernels import Borrower
from gai_fast.server.http.transport import SocketLender
from gai_fast.server.http.write_watch import WriteWatch


class FrameWriter:
    """Writes the frames of one WebSocket.

    Args:
        transport: The connection.
        watch: Counts what is written.
    """

    def __init__(self, transport: asyncio.Transport, watch: WriteWatch) -> None:
        # Found once: looking them up again costs each write as much as calling them.
        self._send: Callable[[bytes], None] = transport.write
        self._is_closing: Callable[[], bool] = transport.is_closing
        self._transport = transport
        self._lender = SocketLender()
        self._watch = watch
        self._is_closed = False

    def write(self, frames: bytes) -> None:
        """Writes whole frames; nothing once the socket is being closed.

        Args:
            frames: Without a mask; each message is one frame.
        """
        if self._lender.borrower is not None:
            self._lender.end()
        if self._is_closed or self._is_closing():
            return
        self._send(frames)
        self._watch.written += len(frames)

    def lend(self, borrower: Borrower) -> int:
        """Works as `LendingTransport.lend`, until anything else is written."""
        if self._is_closed:
            return -1
        return self._lender.lend(self._transport, borrower)

    def take_back(self) -> None:
        """Ends the loan of the socket."""
        self._lender.end()

    def close(self) -> None:
        """Writes nothing from now on: aiohttp writes the close, which nothing may follow (RFC 6455, 5.5.1)."""
        self._is_closed = True
        self._lender.end()
