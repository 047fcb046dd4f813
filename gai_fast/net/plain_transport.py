"""One connection without TLS to an upstream: `PlainTransport`, in place of the event loop's own.

Owns the socket and the unsent bytes. It must not know HTTP, pools, or how a socket is connected.

The loop's own is made in a coroutine, which waits for a turn of the loop, and asks the socket for both of its
addresses. With it a newcomer's connection to an upstream took a third of the instructions until the first token.
"""

from __future__ import annotations

import asyncio
from socket import socket
from typing import Any, Final

from gai_fast.limits import LIMITS
from gai_fast.net.tls_transport import Receiver

_READ: Final = LIMITS.plain_read


class PlainTransport:
    """A TCP connection to an upstream, with the methods of an asyncio transport that its connection uses.

    It calls `connection_made` of the receiver at once, and is read from then on.

    Args:
        loop: The loop.
        sock: Connected, not blocking; belongs to the transport from now on.
        receiver: Called until its `connection_lost`, which comes in a later turn of the loop than the end.

    Raises:
        OSError: The loop cannot watch the socket; the receiver's `connection_lost` follows.
    """

    __slots__ = ("_descriptor", "_is_closed", "_is_reading", "_loop", "_receiver", "_sock", "_unsent")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket, receiver: Receiver) -> None:
        self._loop = loop
        self._sock = sock
        self._descriptor = sock.fileno()
        self._receiver: Receiver | None = receiver
        self._unsent = memoryview(b"")  # while there are any, the loop watches for room
        self._is_closed = self._is_reading = False
        is_watched = False
        try:
            receiver.connection_made(self)
            self.resume_reading()
            is_watched = True
        finally:
            if not is_watched:
                self.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Returns the `socket`."""
        return self._sock if name == "socket" else default

    def is_closing(self) -> bool:
        """Whether the socket is closed."""
        return self._is_closed

    def is_reading(self) -> bool:
        """Whether the socket is read."""
        return self._is_reading

    def pause_reading(self) -> None:
        """Stops reading the socket; idempotent."""
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._descriptor)

    def resume_reading(self) -> None:
        """Reads the socket again; idempotent."""
        if not self._is_reading and not self._is_closed:
            self._loop.add_reader(self._descriptor, self._readable)
            self._is_reading = True

    def write(self, data: bytes) -> None:
        """Sends bytes, as fast as the socket takes them."""
        if self._is_closed:
            return
        if self._unsent:
            self._unsent = memoryview(bytes(self._unsent) + data)
            return
        sent = self._send(data)
        if sent < len(data) and not self._is_closed:
            self._unsent = memoryview(data)[sent:]
            self._loop.add_writer(self._descriptor, self._writable)

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken."""
        return len(self._unsent)

    def abort(self) -> None:
        """Closes the socket at once; what is unsent is lost. The receiver's `connection_lost` follows."""
        self._close(None)

    def _readable(self) -> None:
        is_well = False
        try:
            self._read()
            is_well = True
        finally:
            if not is_well:  # a bug of ours must not leave the exchange without an end; the loop logs it
                self._close(ConnectionAbortedError("the gateway failed to read the connection"))

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as problem:
            self._close(problem)
            return
        receiver = self._receiver
        if receiver is None:
            return
        if data:
            receiver.data_received(data)
        else:
            receiver.eof_received()
            self.abort()

    def _send(self, data: bytes | memoryview) -> int:
        """Sends bytes once; returns how many the socket has taken, where it could be written to."""
        try:
            return self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as problem:
            self._close(problem)
            return 0

    def _writable(self) -> None:
        sent = self._send(self._unsent)  # a name, since mypyc evaluates the bound of a slice twice
        self._unsent = self._unsent[sent:]
        if not self._unsent and not self._is_closed:
            self._loop.remove_writer(self._descriptor)

    def _close(self, problem: Exception | None) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self.pause_reading()
        if self._unsent:
            self._unsent = memoryview(b"")
            self._loop.remove_writer(self._descriptor)
        self._sock.close()
        self._loop.call_soon(self._lost, problem)

    def _lost(self, problem: Exception | None) -> None:
        receiver, self._receiver = self._receiver, None  # breaks a reference cycle, as that refers to this
        if receiver is not None:
            receiver.connection_lost(problem)
