"""`AcceptedTransport`: what it adds to its base, as asyncio's transports do it, on a pair of sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web

from gai_fast.kernels import SocketSet
from gai_fast.server.edge.accepted_transport import TransportFactory
from gai_fast.server.edge.transport_layer import TransportLayer
from gai_fast.server.http.transport import SocketLender
from tests.limits import LIMITS
from tests.waiting import until

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
LARGE = b"x" * 4_000_000
"""More than the system takes at once: a pair's sockets have small buffers, which grow to 36 MB otherwise."""


class Recorder(asyncio.Protocol):
    """Records its calls."""

    def __init__(self, keeps_open: bool = False) -> None:
        self.keeps_open = keeps_open
        self.calls: list[str] = []
        self.read = b""
        self.problem: Exception | None = None
        self.transport: Any = None
        self.on_data: Callable[[], object] = lambda: None
        self.on_lost: Callable[[], object] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        assert len(data) <= LIMITS.client_read
        self.read += data
        self.on_data()

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.problem = exc
        self.on_lost()


class Layered(asyncio.Protocol):
    """A protocol behind a layer."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol

    def connection_made(self, transport: Any) -> None:
        transport.set_protocol(self.protocol)
        self.protocol.connection_made(TransportLayer(transport))


def reset(sock: socket.socket) -> None:
    """Ends a connection with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Readers(SocketSet):
    """A set of sockets whose turns may defer every write."""

    defers = False

    def flush_later(self, transport: Any) -> bool:
        if self.defers:
            asyncio.get_running_loop().call_soon(transport.flush)
        return self.defers


class Pair:
    """A protocol on its transport, and the client's socket."""

    def __init__(self, keeps_open: bool = False) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.client = socket.create_connection(listening.getsockname())
            accepted, self.address = listening.accept()
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        self.client.setblocking(False)
        self.loop = asyncio.get_running_loop()
        self.bugs: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.bugs.append(context["exception"]))
        self.protocol = Recorder(keeps_open)
        self.newcomers = TransportFactory()
        self.newcomers._readers = self.readers = Readers(self.loop)
        self.newcomers.adopt(accepted, lambda _: self.protocol)
        self.calls = self.protocol.calls
        self.transport = self.protocol.transport

    async def rest(self) -> bytes:
        """Returns what comes to the client until the end."""
        data = b""
        while read := await self.loop.sock_recv(self.client, 1 << 20):
            data += read
        return data


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs a scenario with a pair."""

    async def with_pair(scenario: Callable[[Pair], Coroutine[Any, Any, None]], keeps_open: bool) -> None:
        pair = Pair(keeps_open)
        assert pair.calls == ["made"], "at once"
        await scenario(pair)
        pair.client.close()
        pair.transport.abort()
        await until(lambda: pair.calls[-1] == "lost")
        assert pair.calls.count("lost") == 1
        pair.newcomers.close()

    def run(scenario: Callable[[Pair], Coroutine[Any, Any, None]], keeps_open: bool = False) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(with_pair(scenario, keeps_open))

    return run


def test_bytes_go_both_ways_and_the_address_is_known(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        assert pair.transport.get_extra_info("peername") == pair.address
        assert pair.transport.get_extra_info("sockname") == pair.client.getpeername()
        assert pair.transport.get_extra_info("sslcontext", "none") == "none"
        pair.client.send(b"request")
        await until(lambda: pair.protocol.read == b"request")
        for part in (b"an", bytearray(b"sw"), memoryview(b"er"), b""):
            pair.transport.write(part)
        pair.transport.writelines([b"!", bytearray(b"!")])
        pair.transport.close()
        assert await pair.rest() == b"answer!!"

    run(scenario)


def test_the_protocol_is_paused_above_the_limit_and_resumed_below_it(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        pair.transport.set_write_buffer_limits(high=1000)
        assert pair.transport.get_write_buffer_limits() == (250, 1000)
        pair.transport.write(LARGE)
        assert pair.calls == ["made", "pause"]
        piece = bytearray(b"y")
        pair.transport.write(piece)
        piece[:] = b"z"  # it has been copied
        pair.transport.write(b"end")
        assert pair.transport.get_write_buffer_size() > 1000
        pair.transport.close()
        assert pair.transport.is_closing()
        pair.transport.write(b"too late")
        assert await pair.rest() == LARGE + b"yend"
        await until(lambda: pair.calls == ["made", "pause", "resume", "lost"])
        assert pair.protocol.problem is None

    run(scenario)


def test_a_lower_limit_pauses_at_once(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        pair.transport.set_write_buffer_limits(high=2 * len(LARGE))
        pair.transport.write(LARGE)
        assert pair.calls == ["made"]
        pair.transport.set_write_buffer_limits()
        assert pair.calls == ["made", "pause"]
        pair.transport.set_write_buffer_limits()
        assert pair.calls == ["made", "pause"]

    run(scenario)


def test_our_side_ends_behind_what_was_written(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        pair.transport.write(LARGE)
        assert pair.transport.can_write_eof()
        pair.transport.write_eof()
        pair.transport.write_eof()
        pair.transport.write(b"too late")
        assert await pair.rest() == LARGE
        pair.client.send(b"more")
        await until(lambda: pair.protocol.read == b"more")

    run(scenario)


def test_a_client_that_ends_its_side_is_closed_after_what_was_written(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        pair.transport.write(LARGE)
        pair.client.shutdown(socket.SHUT_WR)
        await until(lambda: "eof" in pair.calls)
        assert pair.transport.is_closing()
        assert await pair.rest() == LARGE

    run(scenario)


def test_a_client_that_ends_its_side_may_be_answered(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        pair.client.shutdown(socket.SHUT_WR)
        await until(lambda: "eof" in pair.calls)
        pair.transport.pause_reading()
        pair.transport.resume_reading()  # the end is reported once
        await asyncio.sleep(0.01)
        assert pair.calls.count("eof") == 1
        pair.transport.write(b"answer")
        pair.transport.close()
        assert await pair.rest() == b"answer"

    run(scenario, keeps_open=True)


def test_reading_pauses_and_goes_on(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        pair.transport.pause_reading()
        pair.transport.pause_reading()
        assert not pair.transport.is_reading()
        pair.client.send(b"x")
        await asyncio.sleep(0.01)
        assert not pair.protocol.read
        pair.transport.resume_reading()
        pair.transport.resume_reading()
        assert pair.transport.is_reading()
        await until(lambda: pair.protocol.read == b"x")
        pair.transport.close()
        pair.transport.resume_reading()
        assert not pair.transport.is_reading()

    run(scenario)


def test_another_protocol_takes_over(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        other = Recorder()
        pair.transport.set_protocol(other)
        assert pair.transport.get_protocol() is other
        pair.client.send(b"x")
        await until(lambda: other.read == b"x")
        pair.transport.set_protocol(pair.protocol)

    run(scenario)


def defer(pair: Pair) -> None:
    """Has the writes of this turn, and of later ones, wait for the turn's end; the socket takes little."""
    pair.readers.defers = True
    pair.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)


def test_what_a_turn_writes_is_sent_at_its_end_as_one(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        defer(pair)
        pair.transport.write(b"one ")
        pair.transport.write(bytearray(b"two"))
        with pytest.raises(BlockingIOError):
            pair.client.recv(100)
        assert pair.transport.get_write_buffer_size() == len(b"one two")
        await asyncio.sleep(0)
        assert pair.client.recv(100) == b"one two"
        assert pair.transport.get_write_buffer_size() == 0

    run(scenario)


def test_a_turn_that_writes_much_sends_it_at_once(run: Any) -> None:
    """A slow client must pause what writes before the turn is over."""

    async def scenario(pair: Pair) -> None:
        defer(pair)
        pair.transport.write(b"x" * LIMITS.unflushed)
        with pytest.raises(BlockingIOError):
            pair.client.recv(1)
        pair.transport.write(b"x")
        assert pair.client.recv(1) == b"x"
        pair.transport.write(LARGE)
        assert "pause" in pair.calls

    run(scenario)


@pytest.mark.parametrize("how", ["close", "write_eof", "bug"])
def test_what_a_turn_has_written_is_sent_before_the_end(run: Any, how: str) -> None:
    """All of it, if the socket takes a part at a time; after a bug what it takes at once."""

    async def scenario(pair: Pair) -> None:
        defer(pair)
        written = bytes(60_000)

        def fail() -> None:
            pair.transport.write(written)
            raise ZeroDivisionError

        if how == "bug":
            pair.protocol.on_data = fail
            pair.client.send(b"x")
            assert (await pair.rest()) in (written[:size] for size in range(1, 60_001))
            assert [type(bug) for bug in pair.bugs] == [ZeroDivisionError]
        else:
            pair.transport.write(written)
            getattr(pair.transport, how)()
            assert await pair.rest() == written
        pair.transport.abort()

    run(scenario)


class Borrower:
    """Writes to a lent socket."""

    def end_writing(self) -> None: ...


def test_what_a_turn_has_written_is_sent_before_anything_a_borrower_sends(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        defer(pair)
        lender = SocketLender()
        pair.transport.write(b"first")
        os.write(lender.lend(pair.transport, Borrower()), b", then its borrower's")
        assert pair.client.recv(100) == b"first, then its borrower's"
        pair.transport.write(bytes(60_000))
        assert lender.lend(pair.transport, Borrower()) == -1  # not all of it is sent

    run(scenario)


def test_a_reset_is_reported(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        pair.transport.write(b"never read")
        await asyncio.sleep(0)  # it is sent at the end of the turn
        pair.client.close()  # with bytes that were not read, which is a reset
        await until(lambda: pair.calls[-1] == "lost")
        assert isinstance(pair.protocol.problem, ConnectionError)
        assert not pair.bugs

    run(scenario)


def test_a_bug_of_the_protocol_ends_its_connection_and_is_logged(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        pair.protocol.on_data = lambda: 1 / 0
        pair.client.send(b"x")
        assert await pair.rest() == b""
        await until(lambda: pair.calls == ["made", "lost"])
        assert [type(bug) for bug in pair.bugs] == [ZeroDivisionError]

    run(scenario)


def test_a_protocol_may_abort_while_it_is_called(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        pair.transport.write(LARGE)
        pair.transport.write(LARGE)
        pair.protocol.on_data = pair.transport.abort
        pair.client.send(b"x")
        await until(lambda: pair.calls[-1] == "lost")
        assert pair.protocol.problem is None
        assert pair.transport.is_closing()
        assert pair.transport.get_write_buffer_size() == 0
        assert pair.transport.get_extra_info("peername") == pair.address
        await until(lambda: pair.transport.get_extra_info("sockname") is None)

    run(scenario)


@pytest.mark.parametrize("by_client", [False, True])
def test_the_descriptor_is_nobody_elses_until_the_protocol_knows_the_end(run: Any, by_client: bool) -> None:
    """Until then a kernel may write to it."""

    async def scenario(pair: Pair) -> None:
        sock = pair.transport.get_extra_info("socket")
        seen: list[int] = []
        pair.protocol.on_lost = lambda: seen.append(sock.fileno())
        if by_client:
            reset(pair.client)
        else:
            pair.transport.abort()
            assert sock.fileno() >= 0
        await until(lambda: seen and sock.fileno() < 0)
        assert seen[0] >= 0

    run(scenario)


def test_the_address_of_a_client_that_leaves_behind_its_request_is_known(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        seen: list[Any] = []
        pair.protocol.on_data = lambda: seen.append(pair.transport.get_extra_info("peername"))
        pair.client.send(b"request")
        reset(pair.client)
        await until(lambda: seen)
        assert seen == [pair.address]

    run(scenario)


def test_the_address_that_came_with_a_client_counts(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        protocol = Recorder()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            reset(socket.create_connection(listening.getsockname()))
            accepted, address = listening.accept()
        pair.newcomers.adopt(accepted, lambda _: protocol, address)
        assert protocol.transport.get_extra_info("peername") == address
        await until(lambda: protocol.calls == ["made", "lost"])

    run(scenario)


def test_a_bug_at_the_end_closes_the_socket_too(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        pair.protocol.on_lost = lambda: 1 / 0
        pair.transport.abort()
        assert await pair.rest() == b""
        await until(lambda: [type(bug) for bug in pair.bugs] == [ZeroDivisionError])

    run(scenario)


def test_a_socket_that_cannot_be_watched_again_is_lost(run: Any) -> None:
    async def scenario(pair: Pair) -> None:
        pair.transport.pause_reading()
        pair.transport.get_extra_info("socket").close()
        pair.transport.resume_reading()
        await until(lambda: pair.calls[-1] == "lost")
        assert isinstance(pair.protocol.problem, OSError)

    run(scenario)


@pytest.mark.parametrize("loop", LOOPS)
def test_aiohttp_sends_a_file_over_it(loop: Any, tmp_path: Path) -> None:
    """Over a layer as well, as TLS is one."""
    file = tmp_path / "file"
    file.write_bytes(b"content")

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(file)

    async def scenario() -> None:
        app = web.Application()
        app.router.add_get("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        assert runner.server is not None
        newcomers = TransportFactory()
        for protocols in (lambda _: runner.server(), lambda _: Layered(runner.server())):
            client, accepted = socket.socketpair()
            with client:
                client.setblocking(False)
                newcomers.adopt(accepted, protocols)
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answered = b""
                while read := await asyncio.get_running_loop().sock_recv(client, 1 << 16):
                    answered += read
            assert answered.startswith(b"HTTP/1.1 200 "), answered
            assert answered.endswith(b"\r\n\r\ncontent")
        await runner.cleanup()
        newcomers.close()

    with asyncio.Runner(loop_factory=loop) as ran:
        ran.run(asyncio.wait_for(scenario(), 10))
