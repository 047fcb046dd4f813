"""One connection of a client: `AcceptedTransport`, in place of the event loop's own transport.

The loop creates its own transport in a coroutine, which waits for an iteration of the loop. With that transport,
accepting a client took a quarter of the instructions until the first token.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn, cast

from gai_fast.kernels import SocketSet
from gai_fast.net.sockets.plain_transport import PlainTransport
from gai_fast.net.sockets.socket_transport import SocketReceiver
from gai_fast.server.limits import LIMITS

_READ: Final[int] = LIMITS.client_read
_HIGH: Final = 64 * 1024
"""Unsent bytes above which a protocol is paused, unless it sets another limit; asyncio's transports use this value."""


class AcceptedTransport(PlainTransport):
    """A client's connection, with the methods of `asyncio.Transport`; starts without waiting for a loop iteration.

    Args:
        loop: The loop.
        sock: The accepted, non-blocking socket; belongs to the transport from now on.
        protocol: Its `connection_made` is called at once.
        readers: Watches the socket while it is read.
        peer: The client's address, kept for the transport's lifetime; None if the client disconnected too early.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: asyncio.Protocol,
        readers: SocketSet,
        peer: Any,
    ) -> None:
        self._peer = peer
        self._high, self._low = _HIGH, _HIGH // 4
        self._queue: list[bytes] = []  # written after `_unsent`
        self._queue_size = 0
        self._is_blocked = False  # the protocol is paused: more than `_high` is unsent
        self._is_ending = False  # the socket is closed once everything is sent
        self._has_ended_input = False  # the client sends nothing more
        self._has_ended_output = False  # nothing more may be written
        super().__init__(loop, sock, protocol, readers, _READ)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Works as `asyncio.BaseTransport.get_extra_info`: `socket`, `peername`, `sockname`."""
        if name == "peername" and self._peer is not None:
            return self._peer  # after a reset the system no longer knows it, but a request may still be read
        if name == "sockname":
            with contextlib.suppress(OSError):  # the socket is closed
                return self._sock.getsockname()
        return super().get_extra_info(name, default)

    @property
    def _sendfile_compatible(self) -> NoReturn:
        """Raises, for asyncio's `loop.sendfile`: aiohttp then reads a file itself."""
        raise NotImplementedError

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Works as `asyncio.BaseTransport.set_protocol`."""
        self._receiver = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Works as `asyncio.BaseTransport.get_protocol`."""
        return self._protocol

    @property
    def _protocol(self) -> asyncio.Protocol:
        return cast(asyncio.Protocol, self._receiver)

    def is_closing(self) -> bool:
        """Works as `asyncio.BaseTransport.is_closing`."""
        return self._is_closed or self._is_ending

    def resume_reading(self) -> None:
        """Works as `asyncio.ReadTransport.resume_reading`; does nothing if the client sends nothing more."""
        if not self._is_ending and not self._has_ended_input:
            try:
                super().resume_reading()
            except OSError as problem:  # the system cannot watch more sockets
                self._close(problem)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Works as `asyncio.WriteTransport.write`; does nothing after `close` or `write_eof`."""
        if self._is_closed or self._is_ending or self._has_ended_output or not data:
            return
        if not isinstance(data, bytes):
            data = bytes(data)
        super().write(data)

    def _write(self, data: bytes) -> None:
        if self._is_writing:
            self._queue.append(data)
            self._queue_size += len(data)
        else:
            super()._write(data)
        if self._is_writing:
            self._block()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Works as `asyncio.WriteTransport.writelines`."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Works as `asyncio.WriteTransport.can_write_eof`."""
        return True

    def write_eof(self) -> None:
        """Works as `asyncio.WriteTransport.write_eof`; idempotent."""
        if not self._has_ended_output and not self.is_closing():
            self.flush()
            self._has_ended_output = True
            if not self._is_writing:
                self._end_output()

    def close(self) -> None:
        """Works as `asyncio.BaseTransport.close`."""
        if not self.is_closing():
            self.flush()
            self._is_ending = True
            self.pause_reading()
            if not self._is_writing:
                self.abort()

    def get_write_buffer_size(self) -> int:
        """Works as `asyncio.WriteTransport.get_write_buffer_size`."""
        return len(self._unsent) + self._queue_size + len(self._unflushed)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Works as `asyncio.WriteTransport.get_write_buffer_limits`."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Works as `asyncio.WriteTransport.set_write_buffer_limits`."""
        if high is None:
            high = _HIGH if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low
        self._block()

    def _block(self) -> None:
        """Pauses the protocol if too much is unsent."""
        # Bytes that were not yet offered to the socket do not count: the socket may accept them.
        unsent = len(self._unsent) + self._queue_size
        if not self._is_blocked and unsent > self._high and not self._is_closed:
            self._is_blocked = True
            self._protocol.pause_writing()

    def _input_ended(self, receiver: SocketReceiver) -> None:
        self._has_ended_input = True
        self.pause_reading()
        if not receiver.eof_received():
            self.close()

    def _has_more(self) -> bool:
        self._unsent = memoryview(b"".join(self._queue))
        self._queue, self._queue_size = [], 0
        return bool(self._unsent)

    def _emptied(self) -> None:
        """Does nothing: `_flush` notifies the protocol, by the limits of the write buffer."""

    def _flush(self) -> None:
        super()._flush()
        if self._is_blocked and self.get_write_buffer_size() <= self._low and not self._is_closed:
            self._is_blocked = False
            self._protocol.resume_writing()
        if self._is_writing or self._is_closed:
            return
        if self._is_ending:
            self.abort()
        elif self._has_ended_output:
            self._end_output()

    def _close(self, problem: Exception | None) -> None:
        if self._unflushed:  # a response of this loop iteration, written before the connection failed
            with contextlib.suppress(OSError):  # the client has disconnected
                self._sock.send(self._unflushed)
        self._queue, self._queue_size = [], 0
        super()._close(problem)

    def _give_up_socket(self) -> None:
        """Keeps the socket open until `_lost`: a borrower still writes to it, and the descriptor could be reused."""

    def _lost(self, problem: Exception | None) -> None:
        try:
            super()._lost(problem)
        finally:
            super()._give_up_socket()

    def _end_output(self) -> None:
        with contextlib.suppress(OSError):  # the client has disconnected; the next read reports it
            self._sock.shutdown(socket.SHUT_WR)


class TransportFactory:
    """Creates connections from sockets that the loop has not accepted."""

    def __init__(self) -> None:
        self._readers: SocketSet | None = None

    def adopt(self, accepted: socket.socket, protocols: Callable[[str], asyncio.Protocol], address: Any = None) -> None:
        """Creates a connection from a socket, and calls `connection_made` at once. Closes a socket that fails.

        Args:
            accepted: The socket; belongs to the connection from now on.
            protocols: Creates the protocol, given the client's address; empty if it has none.
            address: The client's address; None to ask the socket.
        """
        loop = asyncio.get_running_loop()
        if self._readers is None:
            self._readers = SocketSet(loop)
        try:
            accepted.setblocking(False)
            if address is None:
                with contextlib.suppress(OSError):  # the client has disconnected
                    address = accepted.getpeername()
            protocol = protocols(str(address[0]) if isinstance(address, tuple) else "")
            AcceptedTransport(loop, accepted, protocol, self._readers, address)
        except Exception as problem:  # noqa: BLE001  # a bug of ours ends this connection only
            accepted.close()
            if not isinstance(problem, OSError):
                loop.call_exception_handler({"message": "a connection could not be made", "exception": problem})

    def close(self) -> None:
        """Stops creating connections; existing connections continue."""
        if self._readers is not None:
            self._readers.close()
