"""`SocketSet` and `receive`: both implementations, under both loops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvloop

from tests.limits import LIMITS
from tests.waiting import until

Run = Callable[[Callable[[Any, list[Any]], Coroutine[Any, Any, None]]], None]


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture(params=list(LOOPS))
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Returns a loop's factory."""
    return LOOPS[request.param]


@pytest.fixture
def run(kernels: ModuleType, new_loop: Any) -> Run:
    """Runs a scenario with a set, and with the exceptions reported to the loop."""

    async def with_set(scenario: Callable[[Any, list[Any]], Coroutine[Any, Any, None]]) -> None:
        loop, bugs = asyncio.get_running_loop(), list[Any]()
        loop.set_exception_handler(lambda _, context: bugs.append(context["exception"]))
        sockets = kernels.SocketSet(loop)
        await scenario(sockets, bugs)
        sockets.close()

    def run(scenario: Callable[[Any, list[Any]], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(with_set(scenario))

    return run


def test_it_calls_back_as_long_as_something_is_left_and_at_the_end(run: Run) -> None:
    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        ours, peer = socket.socketpair()
        read: list[bytes] = []
        sockets.add_reader(ours.fileno(), lambda: read.append(ours.recv(2)))
        peer.send(b"abcd")
        await until(lambda: read == [b"ab", b"cd"])
        peer.close()
        await until(lambda: b"" in read)
        sockets.remove_reader(ours.fileno())
        seen = len(read)
        await asyncio.sleep(0.01)
        assert len(read) == seen
        ours.close()

    run(scenario)


def test_a_reset_behind_bytes_is_reported(run: Run) -> None:
    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            peer = socket.create_connection(listening.getsockname())
            ours = listening.accept()[0]
        seen: list[object] = []

        def read() -> None:
            try:
                seen.append(ours.recv(100))
            except OSError as problem:
                seen.append(type(problem))
                sockets.remove_reader(ours.fileno())

        sockets.add_reader(ours.fileno(), read)
        peer.send(b"abc")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        await until(lambda: ConnectionResetError in seen)
        ours.close()

    run(scenario)


def test_a_callback_that_raises_keeps_no_other_waiting(run: Run) -> None:
    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        pairs = [socket.socketpair() for _ in range(3)]
        read: set[int] = set()

        def take(number: int) -> None:
            pairs[number][0].recv(1)
            read.add(number)
            raise LookupError(number)

        for number, (ours, peer) in enumerate(pairs):
            sockets.add_reader(ours.fileno(), lambda number=number: take(number))
            peer.send(b"x")
        await until(lambda: read == {0, 1, 2} and len(bugs) == 3)
        for ours, peer in pairs:
            sockets.remove_reader(ours.fileno())
            ours.close()
            peer.close()

    run(scenario)


def test_a_socket_that_another_callback_removes_is_not_called_back(run: Run) -> None:
    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        pairs = [socket.socketpair() for _ in range(2)]
        called: list[int] = []

        def take(number: int) -> None:
            called.append(number)
            for ours, _ in pairs:
                sockets.remove_reader(ours.fileno())
                ours.close()

        for number, (ours, peer) in enumerate(pairs):
            sockets.add_reader(ours.fileno(), lambda number=number: take(number))
            peer.send(b"x")
        await until(lambda: called)
        await asyncio.sleep(0.01)
        assert len(called) == 1
        assert not bugs
        for _, peer in pairs:
            peer.close()

    run(scenario)


class Transport:
    """A transport that asks to be flushed when its socket is read; it may raise once it is."""

    def __init__(self, sockets: Any, flushed: list[int], number: int, *, raises: bool) -> None:
        self.sockets, self.flushed, self.number, self.raises = sockets, flushed, number, raises
        self.ours, self.peer = socket.socketpair()
        self.is_deferred: bool | None = None
        sockets.add_reader(self.ours.fileno(), self.read)
        self.peer.send(b"x")

    def read(self) -> None:
        self.ours.recv(1)
        self.is_deferred = self.sockets.flush_later(self)
        assert self.number not in self.flushed

    def flush(self) -> None:
        self.flushed.append(self.number)
        if self.raises:
            raise LookupError(self.number)

    def close(self) -> None:
        self.sockets.remove_reader(self.ours.fileno())
        self.ours.close()
        self.peer.close()


@pytest.mark.parametrize("count", [1, 4, 3 * LIMITS.unflushed_transports])
def test_a_turn_that_reads_several_sockets_flushes_their_transports_at_its_end(
    run: Run, kernels: ModuleType, count: int
) -> None:
    """Whichever of them raise. The definition flushes none, as a turn that reads one socket, or nothing."""

    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        flushed: list[int] = []
        transports = [Transport(sockets, flushed, number, raises=number % 2 == 1) for number in range(count)]
        await until(lambda: all(each.is_deferred is not None for each in transports))
        is_deferred = count > 1 and kernels.__name__.endswith("native")
        assert {each.is_deferred for each in transports} == {is_deferred}
        await until(lambda: len(flushed) == (count if is_deferred else 0))
        assert sorted(flushed) == (list(range(count)) if is_deferred else [])
        assert bool(bugs) == is_deferred
        assert sockets.flush_later(transports[0]) is False
        for each in transports:
            each.close()

    run(scenario)


class Turns:
    """Sockets that can be read in each turn of the loop, which has more urgent work all the while."""

    def __init__(self, sockets: Any, count: int) -> None:
        self.pairs = [socket.socketpair() for _ in range(count)]
        self.called = [0]
        self.all_called = asyncio.Event()  # in one turn
        self.sockets = sockets
        for ours, peer in self.pairs:
            peer.send(b"x")
            sockets.add_reader(ours.fileno(), self.note)
        self.turn()

    def turn(self) -> None:
        self.sockets.defer()
        self.called.append(0)
        self.next = asyncio.get_running_loop().call_soon(self.turn)

    def note(self) -> None:
        self.called[-1] += 1
        if self.called[-1] >= len(self.pairs):
            self.all_called.set()

    def close(self) -> None:
        self.next.cancel()
        for ours, peer in self.pairs:
            self.sockets.remove_reader(ours.fileno())
            ours.close()
            peer.close()


def test_a_turn_with_more_urgent_work_reads_a_few_sockets(run: Run, kernels: ModuleType) -> None:
    """The definition leaves it to the loop, which reads all."""

    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        firsts: set[int] = set()
        for _ in range(20):  # a machine that stands still for 2 ms has no turn that is deferred
            turns = Turns(sockets, 10)
            called = turns.called
            await until(lambda called=called: sum(called) >= LIMITS.deferred_reads)
            firsts.add(next(filter(None, called)))
            turns.close()
            await asyncio.sleep(0.03)  # nothing is deferred any more
        assert min(firsts) == (LIMITS.deferred_reads if kernels.__name__.endswith("native") else 10)

    run(scenario)


def test_sockets_that_have_waited_for_a_while_are_read_whatever_is_more_urgent(run: Run) -> None:
    """Not only if the machine stands still and nothing is deferred, which seldom happens twenty times."""

    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        async with asyncio.timeout(20 * 10 * LIMITS.deferred_for):
            for _ in range(20):
                turns = Turns(sockets, 10)
                await turns.all_called.wait()
                turns.close()

    run(scenario)


def test_a_set_may_be_closed_and_used_again_by_a_callback(run: Run) -> None:
    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        before = descriptors()
        ours, peer = socket.socketpair()
        read: list[bytes] = []

        def close() -> None:
            read.append(ours.recv(9))
            sockets.remove_reader(ours.fileno())
            sockets.close()

        for data in (b"x", b"y"):
            sockets.add_reader(ours.fileno(), close)
            peer.send(data)
            await until(lambda data=data: read[-1:] == [data])
        ours.close()
        peer.close()
        assert descriptors() == before

    run(scenario)


@contextlib.contextmanager
def scarce_descriptors(spare: int) -> Iterator[None]:
    """Lets the process open this many at most."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("spare", range(4))
def test_without_a_descriptor_for_a_set_sockets_are_read_all_the_same(run: Run, spare: int) -> None:
    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        ours, peer = socket.socketpair()
        read: list[bytes] = []
        before = descriptors()
        with scarce_descriptors(spare):
            sockets.add_reader(ours.fileno(), lambda: read.append(ours.recv(9)))
        peer.send(b"x")
        await until(lambda: read == [b"x"])
        sockets.remove_reader(ours.fileno())
        sockets.close()
        assert descriptors() == before
        ours.close()
        peer.close()

    run(scenario)


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize("arguments", [(), (None, True)])
def test_what_cannot_be_made_closes_no_descriptor_of_others(native: ModuleType, arguments: tuple[object, ...]) -> None:
    before = descriptors()
    with pytest.raises(TypeError):
        native.SocketSet(*arguments)
    assert descriptors() == before


def test_a_closed_set_that_watches_nothing_in_the_end_leaves_no_descriptor(run: Run, tmp_path: Path) -> None:
    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        with (tmp_path / "file").open("w") as file:
            before = descriptors()
            sockets.close()
            with pytest.raises(OSError, match="not permitted"):
                sockets.add_reader(file.fileno(), print)
            assert descriptors() == before

    run(scenario)


def test_a_closed_set_serves_what_is_watched_and_then_leaves_no_descriptor(run: Run) -> None:
    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        ours, peer = socket.socketpair()
        before = descriptors()
        read: list[bytes] = []
        for _ in range(2):  # also a socket that is watched again later
            sockets.add_reader(ours.fileno(), lambda: read.append(ours.recv(9)))
            sockets.close()
            peer.send(b"x")
            await until(lambda: read)
            read.clear()
            sockets.remove_reader(ours.fileno())
            assert descriptors() == before
        ours.close()
        peer.close()

    run(scenario)


def test_a_second_reader_of_a_socket_replaces_the_first(run: Run) -> None:
    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        ours, peer = socket.socketpair()
        read: list[str] = []
        sockets.add_reader(ours.fileno(), lambda: read.append("first" + ours.recv(1).decode()))
        peer.send(b"a")
        await until(lambda: read == ["firsta"])
        sockets.add_reader(ours.fileno(), lambda: read.append("second" + ours.recv(1).decode()))
        peer.send(b"b")
        await until(lambda: read == ["firsta", "secondb"])
        sockets.remove_reader(ours.fileno())
        peer.send(b"c")
        await asyncio.sleep(0.01)
        assert len(read) == 2
        assert not bugs
        ours.close()
        peer.close()

    run(scenario)


def test_a_second_reader_replaces_the_first_though_a_set_could_be_opened_in_between(run: Run) -> None:
    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        ours, peer = socket.socketpair()
        read: list[str] = []
        with scarce_descriptors(0):
            sockets.add_reader(ours.fileno(), lambda: read.append("first" + ours.recv(1).decode()))
        sockets.add_reader(ours.fileno(), lambda: read.append("second" + ours.recv(1).decode()))
        peer.send(b"b")
        await until(lambda: read == ["secondb"])
        sockets.remove_reader(ours.fileno())
        peer.send(b"c")
        await asyncio.sleep(0.01)
        assert len(read) == 1
        assert not bugs
        ours.close()
        peer.close()

    run(scenario)


def test_what_cannot_be_watched_is_an_error(run: Run, tmp_path: Any) -> None:
    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match="not permitted"):
            sockets.add_reader(file.fileno(), print)

    run(scenario)


@pytest.mark.parametrize("most", [9, 64 * 1024, 256 * 1024])
def test_a_socket_is_received_from(kernels: ModuleType, most: int) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        assert kernels.receive(ours.fileno(), most) is None
        peer.send(b"0123456789")
        assert kernels.receive(ours.fileno(), most) == b"0123456789"[:most]
        if most < 10:
            assert kernels.receive(ours.fileno(), most) == b"9"
        peer.close()
        assert kernels.receive(ours.fileno(), most) == b""


@pytest.mark.parametrize("most", [9, 256 * 1024])
def test_a_broken_connection_is_an_error(kernels: ModuleType, most: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        peer, _ = listening.accept()
    with ours:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(ConnectionResetError, match="reset"):
            kernels.receive(ours.fileno(), most)


def test_a_socket_is_sent_to_until_it_is_full(kernels: ModuleType) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        for data in (b"0123456789", memoryview(b"0123456789")[2:], memoryview(b"")):
            assert kernels.send(ours.fileno(), data) == len(data)
        assert peer.recv(100) == b"012345678923456789"
        while sent := kernels.send(ours.fileno(), bytes(1 << 16)):
            assert 0 < sent <= 1 << 16
        peer.close()
        with pytest.raises(BrokenPipeError):
            kernels.send(ours.fileno(), b"x")


def test_a_closed_descriptor_is_an_error(kernels: ModuleType) -> None:
    for call in (lambda: kernels.receive(-1, 9), lambda: kernels.send(-1, b"x")):
        with pytest.raises(OSError, match="Bad file descriptor"):
            call()
