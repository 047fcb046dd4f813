"""A plain transport on a pair of sockets, whose other end the test holds."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

from gai_fast.kernels import SocketSet
from gai_fast.net.sockets.plain_transport import PlainTransport
from tests.limits import LIMITS


class Receiver:
    """Records its calls."""

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.calls: list[str] = []
        self.lost: list[Exception | None] = []
        self.on_data: Callable[[], object] = lambda: None

    def connection_made(self, transport: Any) -> None:
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.reads.append(data)
        self.on_data()

    def eof_received(self) -> None:
        self.calls.append("eof")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.lost.append(exc)


class Pair:
    """A transport, the peer's socket, and the bugs that the loop has reported."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            sock = socket.create_connection(listening.getsockname())
            self.peer, _ = listening.accept()
        sock.setblocking(False)
        self.peer.setblocking(False)
        self.receiver = Receiver()
        self.bugs: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.bugs.append(context["exception"]))
        self.transport = PlainTransport(loop, sock, self.receiver, SocketSet(loop))

    async def come(self, size: int) -> bytes:
        """Returns that many bytes, as the peer reads them."""
        data = bytearray()
        while len(data) < size:
            data += await asyncio.get_running_loop().sock_recv(self.peer, LIMITS.plain_read)
        return bytes(data)

    def reset(self) -> None:
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()
