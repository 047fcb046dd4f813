"""A connection to an upstream over a socket: the base of `PlainTransport` and `TLSTransport`.

Owns the socket, the events that the loop watches it for, the unsent bytes, and the end of the connection. It must not
know the meaning of the bytes, or how a socket is connected.

A bug while the socket is read or written closes the socket, because the exchange must end; the loop logs the bug.

If a turn of the loop reads several sockets, its writes are sent at the end of the turn, one transport after the other.
Waking a process costs more than sending it bytes, and a peer on this machine that was woken by the first write is still
awake for the others: 13 % less CPU for bursts of 100 deltas from plain sockets, 7 % over TLS.
"""

from __future__ import annotations

import asyncio
import errno
from abc import ABC, abstractmethod
from socket import socket
from typing import Any, Final, Protocol

from mypy_extensions import mypyc_attr

from gai_fast.kernels import SocketSet, send
from gai_fast.net.limits import LIMITS

_MOST_UNFLUSHED: Final[int] = LIMITS.unflushed
_NOTHING: Final = memoryview(b"")
_send: Final = send  # a constant: a name look-up costs 30 ns


class SocketReceiver(Protocol):
    """The part of an asyncio protocol that a transport calls."""

    def connection_made(self, transport: Any) -> None:
        """Called when the connection is made and its TLS handshake, if any, has succeeded."""

    def data_received(self, data: bytes) -> None:
        """Receives plain text."""

    def eof_received(self) -> object:
        """Called when the peer has ended the connection properly."""

    def resume_writing(self) -> None:
        """Called when the socket has accepted the last of the written bytes, after it had not accepted them at once."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the socket is closed."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Transport(ABC):
    """The methods of an asyncio transport that upstream connections use. A class, not a protocol, like `Timers`."""

    @abstractmethod
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Returns the `socket`."""

    @abstractmethod
    def is_closing(self) -> bool:
        """Returns whether the socket is closed."""

    @abstractmethod
    def is_reading(self) -> bool:
        """Returns whether the socket is read."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Stops reading the socket; idempotent."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Resumes reading the socket; idempotent."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Starts to send bytes by the end of the loop's turn; buffers those that the socket does not accept yet."""

    @abstractmethod
    def get_write_buffer_size(self) -> int:
        """Returns the number of bytes that the socket has not accepted yet."""

    @abstractmethod
    def abort(self) -> None:
        """Closes the socket at once; unsent bytes are lost. The receiver's `connection_lost` follows."""


class SocketTransport(Transport):
    """A transport over a socket.

    Args:
        loop: The loop.
        sock: A connected, non-blocking socket, which the transport owns from then on.
        receiver: Called until its `connection_lost`, which is called in a later turn of the loop than the close.
        readers: Watches the socket for reading, and flushes it at the end of a turn.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket, receiver: SocketReceiver, readers: SocketSet
    ) -> None:
        self._loop = loop
        self._readers = readers
        self._sock = sock
        self._descriptor = sock.fileno()
        self._receiver: SocketReceiver | None = receiver
        self._unflushed = b""  # written in this turn of the loop
        self._unsent = _NOTHING
        self._is_closed = False
        self._is_reading = self._is_writing = False  # whether the loop watches the socket for that

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `Transport.get_extra_info`. Flushes written bytes before the socket is returned."""
        if name != "socket":
            return default
        self.flush()
        return self._sock

    def is_closing(self) -> bool:
        """Works as `Transport.is_closing`."""
        return self._is_closed

    def is_reading(self) -> bool:
        """Works as `Transport.is_reading`."""
        return self._is_reading

    def pause_reading(self) -> None:
        """Works as `Transport.pause_reading`."""
        if self._is_reading:
            self._is_reading = False
            self._readers.remove_reader(self._descriptor)

    def resume_reading(self) -> None:
        """Works as `Transport.resume_reading`."""
        if not self._is_reading and not self._is_closed:
            self._readers.add_reader(self._descriptor, self._readable)
            self._is_reading = True

    def write(self, data: bytes) -> None:
        """Works as `Transport.write`."""
        if self._is_closed:
            return
        if self._unflushed:
            self._unflushed += data
            waits = True
        else:
            self._unflushed = data
            waits = not self._is_writing and self._readers.flush_later(self)
        if not waits or len(self._unflushed) > _MOST_UNFLUSHED:
            self.flush()

    def flush(self) -> None:
        """Sends the bytes written in this turn of the loop."""
        data, self._unflushed = self._unflushed, b""
        if not data:
            return
        is_well = False
        try:
            self._write(data)
            is_well = True
        finally:
            if not is_well:
                self._close(failed_to("write to the connection"))

    @abstractmethod
    def _write(self, data: bytes) -> None:
        """Sends bytes after the unsent ones."""

    def get_write_buffer_size(self) -> int:
        """Works as `Transport.get_write_buffer_size`."""
        return len(self._unsent) + len(self._unflushed)

    def abort(self) -> None:
        """Works as `Transport.abort`."""
        self._close(None)

    def _readable(self) -> None:
        is_well = False
        try:
            self._read()
            is_well = True
        finally:
            if not is_well:
                self._close(failed_to("read the connection"))

    def _writable(self) -> None:
        is_well = False
        try:
            self._flush()
            is_well = True
        finally:
            if not is_well:
                self._close(failed_to("write to the connection"))

    @abstractmethod
    def _read(self) -> None:
        """Reads the socket once and calls the receiver."""

    def _send(self, data: bytes | memoryview) -> int:
        """Calls `send` once; returns the number of bytes sent, 0 if the socket accepted none or failed."""
        try:
            return _send(self._descriptor, data)
        except OSError as problem:
            self._close(problem)
            return 0

    def _flush(self) -> None:
        """Sends unsent bytes until the socket accepts no more. The loop then calls again when it is writable."""
        while self._unsent or self._has_more():
            sent = self._send(self._unsent)  # a name, since mypyc evaluates the bound of a slice twice
            if self._is_closed:
                return
            self._unsent = self._unsent[sent:]
            if self._unsent:
                self._await_room()
                return
        if self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self._descriptor)
            self._emptied()

    def _emptied(self) -> None:
        """Notifies the receiver that everything has been sent, after the socket had not accepted it at once."""
        if self._receiver is not None:
            self._receiver.resume_writing()

    def _has_more(self) -> bool:
        """Returns whether there are more bytes to send; if so, moves them to the unsent ones."""
        return False

    def _await_room(self) -> None:
        if not self._is_writing:
            self._is_writing = True
            self._loop.add_writer(self._descriptor, self._writable)

    def _close(self, problem: Exception | None) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self.pause_reading()
        if self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self._descriptor)
        self._unflushed = b""
        self._unsent = _NOTHING
        self._give_up_socket()
        self._loop.call_soon(self._lost, problem)

    def _lost(self, problem: Exception | None) -> None:
        receiver, self._receiver = self._receiver, None  # breaks a cycle: the receiver refers to the transport
        if receiver is not None:
            receiver.connection_lost(problem)

    def _give_up_socket(self) -> None:
        self._sock.close()
        self._descriptor = -1  # the number may become another socket's


def failed_to(what: str) -> OSError:
    """Returns the error for a connection that was closed because of a bug in the gateway."""
    return ConnectionAbortedError(errno.ECONNABORTED, f"the gateway failed to {what}")
