"""A loop with a clock of its own, and transports without sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from gai_fast.net.sockets.socket_transport import Transport


class FakeHandle:
    def __init__(self, when: float, callback: Callable[[], object], forget: Callable[[FakeHandle], object]) -> None:
        self.when = when
        self.callback = callback
        self.forget = forget

    def cancel(self) -> None:
        self.forget(self)


class FakeTransport(Transport):
    """The transport of a connection; the test plays the peer."""

    def __init__(self, protocol: Any, buffered: int = 0) -> None:
        self.protocol = protocol
        self.written: list[bytes] = []
        self.buffered = buffered
        self.paused = self.closing = self.aborted = False
        self.socket: socket.socket | None = None
        protocol.connection_made(self)

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str, default: Any = None) -> socket.socket | None:
        return self.socket if name == "socket" else None

    def is_reading(self) -> bool:
        return not self.paused and not self.closing

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = True
        self.lose(None)

    def lose(self, exc: Exception | None) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, exc)

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            assert not self.paused
            if not self.closing:
                self.protocol.data_received(piece)

    def eof(self) -> None:
        if not self.protocol.eof_received():
            self.lose(None)


class FakeLoop:
    """Its time advances only in `advance` and `stand_still`; names and connections are the test's.

    Tasks and `call_soon` belong to the running loop.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.handles: list[FakeHandle] = []
        self.errors: list[Exception] = []
        self.runs = 0
        self.names: list[tuple[Any, ...]] | Exception = [(socket.AF_INET, 1, 6, "", ("192.0.2.1", 443))]
        self.refuse: dict[str, Exception | None] = {}  # address → the failure of its connect; None: never answers
        self.connects: list[str] = []
        self.failure: Exception | None = None  # of every connection that is made
        self.transports: list[FakeTransport] = []
        self.gate: asyncio.Event | None = None  # connects wait for it

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> FakeHandle:
        handle = FakeHandle(when, callback, self.forget)
        self.handles.append(handle)
        return handle

    def forget(self, handle: FakeHandle) -> None:
        if handle in self.handles:
            self.handles.remove(handle)

    def advance(self, seconds: float) -> None:
        """Runs every callback that is due within `seconds`, each at its own time."""
        end = self.now + seconds
        while due := [handle for handle in self.handles if handle.when <= end]:
            handle = min(due, key=lambda handle: handle.when)
            self.now = max(self.now, handle.when)
            self._run(handle)
        self.now = end

    def stand_still(self, seconds: float) -> None:
        """Time passes, and one turn of the loop afterwards."""
        self.now += seconds
        for handle in [handle for handle in self.handles if handle.when <= self.now]:
            self._run(handle)

    def _run(self, handle: FakeHandle) -> None:
        self.forget(handle)
        self.runs += 1
        try:
            handle.callback()
        except ZeroDivisionError as exc:
            self.errors.append(exc)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        return asyncio.get_running_loop().call_soon(callback, *args)

    def create_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(coroutine)

    async def getaddrinfo(self, host: str, port: int, *, type: int) -> list[tuple[Any, ...]]:
        if isinstance(self.names, Exception):
            raise self.names
        return self.names

    async def connected(self, sock: socket.socket, address: Any) -> None:
        self.connects.append(address[0])
        if self.gate is not None:
            await self.gate.wait()
        if address[0] in self.refuse:
            failure = self.refuse[address[0]]
            if failure is None:
                await asyncio.Event().wait()
            else:
                raise failure

    def make_transport(self, sock: socket.socket, protocol: Any, readers: object) -> FakeTransport:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.close()
        if self.failure is not None:
            raise self.failure
        self.transports.append(FakeTransport(protocol))
        return self.transports[-1]
