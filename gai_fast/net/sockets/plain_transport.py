"""One connection without TLS to an upstream: `PlainTransport`, instead of the event loop's transport.

The loop's transport is made in a coroutine, which waits for a turn of the loop and asks the socket for both of its
addresses. With it, a new client's upstream connection took a third of the instructions until the first token.
"""

from __future__ import annotations

import asyncio
from socket import socket
from typing import Final

from gai_fast.kernels import SocketSet, receive
from gai_fast.net.limits import LIMITS
from gai_fast.net.sockets.socket_transport import SocketReceiver, SocketTransport

_READ: Final[int] = LIMITS.plain_read
_receive: Final = receive  # a constant: a name look-up costs 30 ns


class PlainTransport(SocketTransport):
    """A TCP connection to an upstream.

    It calls the receiver's `connection_made` at once, and then starts reading.

    Args:
        loop: See `SocketTransport`.
        sock: See `SocketTransport`.
        receiver: See `SocketTransport`.
        readers: See `SocketTransport`.
        most: Maximum number of bytes of one read.

    Raises:
        OSError: The loop cannot watch the socket; the receiver's `connection_lost` follows.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket,
        receiver: SocketReceiver,
        readers: SocketSet,
        most: int = _READ,
    ) -> None:
        super().__init__(loop, sock, receiver, readers)
        self._most = most
        is_watched = False
        try:
            receiver.connection_made(self)
            self.resume_reading()
            is_watched = True
        finally:
            if not is_watched:
                self.abort()

    def _write(self, data: bytes) -> None:
        if self._is_writing:
            self._unsent = memoryview(bytes(self._unsent) + data)
            return
        sent = self._send(data)
        if sent < len(data) and not self._is_closed:
            self._unsent = memoryview(data)[sent:]
            self._await_room()

    def _read(self) -> None:
        try:
            data = _receive(self._descriptor, self._most)
        except OSError as problem:
            self._close(problem)
            return
        receiver = self._receiver
        if data is None or receiver is None:
            return
        if data:
            receiver.data_received(data)
        else:
            self._input_ended(receiver)

    def _input_ended(self, receiver: SocketReceiver) -> None:
        receiver.eof_received()
        self.abort()
