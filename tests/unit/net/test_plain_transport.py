"""`PlainTransport` on a pair of sockets, whose other end the test holds."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from gai_fast.limits import LIMITS
from gai_fast.net.plain_transport import PlainTransport
from tests.waiting import SECONDS, until


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

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.lost.append(exc)


class Pair:
    """A transport and the peer's socket; what the loop was told of bugs."""

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
        self.transport = PlainTransport(loop, sock, self.receiver)

    async def come(self, size: int) -> bytes:
        """Returns that many bytes, as the peer reads them."""
        data = b""
        while len(data) < size:
            data += await asyncio.get_running_loop().sock_recv(self.peer, LIMITS.plain_read)
        return data

    def reset(self) -> None:
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Runs a scenario with a pair; at its end the transport is lost, once."""

    def run(scenario: Any) -> None:
        async def main() -> None:
            pair = Pair()
            try:
                async with asyncio.timeout(SECONDS):
                    await scenario(pair)
                    pair.transport.abort()
                    await until(lambda: bool(pair.receiver.lost))
                await asyncio.sleep(0)
                assert pair.receiver.calls.count("lost") == 1
                assert pair.transport.get_extra_info("socket").fileno() == -1
            finally:
                pair.peer.close()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return run


def test_it_hands_on_what_comes_and_the_end(run: Callable[[Any], None]) -> None:
    async def scenario(pair: Pair) -> None:
        assert pair.receiver.calls == ["made"]
        pair.peer.send(b"one")
        await until(lambda: pair.receiver.reads == [b"one"])
        assert not pair.transport.is_closing()
        pair.peer.close()
        await until(lambda: pair.receiver.calls == ["made", "eof", "lost"])
        assert pair.receiver.lost == [None]
        assert pair.transport.is_closing()

    run(scenario)


def test_what_the_socket_does_not_take_follows_in_order(run: Callable[[Any], None]) -> None:
    async def scenario(pair: Pair) -> None:
        pieces = [bytes([n]) * (8 * LIMITS.plain_read) for n in range(16)]
        for piece in pieces:
            pair.transport.write(piece)
        unsent = pair.transport.get_write_buffer_size()
        assert 0 < unsent < len(b"".join(pieces))
        assert await pair.come(len(b"".join(pieces))) == b"".join(pieces)
        assert pair.transport.get_write_buffer_size() == 0
        pair.transport.write(b"more")
        assert await pair.come(4) == b"more"

    run(scenario)


def test_nothing_is_read_while_it_is_paused(run: Callable[[Any], None]) -> None:
    async def scenario(pair: Pair) -> None:
        for _ in range(2):
            pair.transport.pause_reading()
        assert not pair.transport.is_reading()
        pair.peer.send(b"late")
        await asyncio.sleep(0.01)
        assert pair.receiver.reads == []
        for _ in range(2):
            pair.transport.resume_reading()
        assert pair.transport.is_reading()
        await until(lambda: pair.receiver.reads == [b"late"])

    run(scenario)


def test_an_abort_drops_what_is_unsent_and_nothing_follows(run: Callable[[Any], None]) -> None:
    async def scenario(pair: Pair) -> None:
        pair.transport.write(bytes(64 * LIMITS.plain_read))
        assert pair.transport.get_write_buffer_size()
        for _ in range(2):
            pair.transport.abort()
        assert pair.receiver.calls == ["made"]  # the end comes in a later turn
        assert pair.transport.get_write_buffer_size() == 0
        pair.transport.write(b"x")
        pair.transport.resume_reading()
        assert not pair.transport.is_reading()
        await until(lambda: pair.receiver.lost == [None])

    run(scenario)


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_reset_is_told(run: Callable[[Any], None], is_paused: bool) -> None:
    async def scenario(pair: Pair) -> None:
        if is_paused:
            pair.transport.pause_reading()
        pair.reset()
        if is_paused:
            pair.transport.write(b"x")
        await until(lambda: bool(pair.receiver.lost))
        assert isinstance(pair.receiver.lost[0], ConnectionError)

    run(scenario)


def test_a_reset_while_bytes_are_unsent_is_told(run: Callable[[Any], None]) -> None:
    async def scenario(pair: Pair) -> None:
        pair.transport.pause_reading()
        pair.transport.write(bytes(64 * LIMITS.plain_read))
        pair.reset()
        await until(lambda: bool(pair.receiver.lost))
        assert isinstance(pair.receiver.lost[0], ConnectionError)
        assert pair.transport.get_write_buffer_size() == 0

    run(scenario)


def test_a_bug_of_the_receiver_ends_the_connection(run: Callable[[Any], None]) -> None:
    async def scenario(pair: Pair) -> None:
        pair.receiver.on_data = lambda: 1 // 0
        pair.peer.send(b"x")
        await until(lambda: bool(pair.receiver.lost))
        assert isinstance(pair.receiver.lost[0], ConnectionAbortedError)
        assert [type(bug) for bug in pair.bugs] == [ZeroDivisionError]

    run(scenario)


async def test_nothing_waits_for_the_garbage_collector_after_the_end() -> None:
    receiver = Receiver()
    ours, peer = socket.socketpair()
    lost = receiver.lost
    receiver.on_data = PlainTransport(asyncio.get_running_loop(), ours, receiver).abort  # refers to its transport
    gone = weakref.ref(receiver)
    peer.close()
    await until(lambda: bool(lost))
    gc.disable()
    try:
        del receiver
        assert gone() is None
    finally:
        gc.enable()


async def test_a_socket_that_cannot_be_watched_is_closed() -> None:
    class Full:
        """A loop that can watch no more."""

        call_soon = asyncio.get_running_loop().call_soon

        def add_reader(self, *_: Any) -> None:
            raise OSError("full")

    ours, peer = socket.socketpair()
    receiver = Receiver()
    with peer, pytest.raises(OSError, match="full"):
        PlainTransport(Full(), ours, receiver)  # type: ignore[arg-type]  # only what it uses is there
    assert ours.fileno() == -1
    await until(lambda: receiver.calls == ["made", "lost"])
