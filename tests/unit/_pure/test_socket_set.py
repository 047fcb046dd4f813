"""`SocketSet` and `receive`: both implementations, under both loops."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import socket
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvloop

from gai_fast.limits import LIMITS
from tests.waiting import until

Run = Callable[[Callable[[Any, list[Any]], Coroutine[Any, Any, None]]], None]


@pytest.fixture(params=itertools.product([asyncio.new_event_loop, uvloop.new_event_loop], [False, True]))
def run(request: pytest.FixtureRequest, kernels: ModuleType) -> Run:
    """Runs a scenario with a set, moderated or not, and with the bugs that the loop has been given."""
    new_loop, moderated = request.param

    async def with_set(scenario: Callable[[Any, list[Any]], Coroutine[Any, Any, None]]) -> None:
        loop, bugs = asyncio.get_running_loop(), list[Any]()
        loop.set_exception_handler(lambda _, context: bugs.append(context["exception"]))
        sockets = kernels.SocketSet(loop, moderated=moderated)
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


def test_a_reset_behind_bytes_is_told(run: Run) -> None:
    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            peer = socket.create_connection(listening.getsockname())
            ours = listening.accept()[0]
        told: list[object] = []

        def read() -> None:
            try:
                told.append(ours.recv(100))
            except OSError as problem:
                told.append(type(problem))
                sockets.remove_reader(ours.fileno())

        sockets.add_reader(ours.fileno(), read)
        peer.send(b"abc")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        await until(lambda: ConnectionResetError in told)
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
    """Sockets that can be read in each turn of the loop, which may have more urgent work all the while."""

    def __init__(self, sockets: Any, count: int, *, defer: bool = True) -> None:
        self.pairs = [socket.socketpair() for _ in range(count)]
        self.called = [0]
        self.first_called = asyncio.Event()
        self.all_called = asyncio.Event()  # in one turn
        self.sockets = sockets
        self.defer = defer
        for ours, peer in self.pairs:
            peer.send(b"x")
            sockets.add_reader(ours.fileno(), self.note)
        self.turn()

    def turn(self) -> None:
        if self.defer:
            self.sockets.defer()
        self.called.append(0)
        self.next = asyncio.get_running_loop().call_soon(self.turn)

    def note(self) -> None:
        self.called[-1] += 1
        self.first_called.set()
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
    """Not only where the machine stands still and nothing is deferred, which seldom happens twenty times."""

    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        async with asyncio.timeout(20 * 10 * LIMITS.deferred_for):
            for _ in range(20):
                turns = Turns(sockets, 10)
                await turns.all_called.wait()
                turns.close()

    run(scenario)


MANY = LIMITS.moderated_sockets


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize(
    ("moderated", "count", "defer", "waits"),
    [
        pytest.param(True, MANY, False, True, id="many"),
        pytest.param(True, MANY - 1, False, False, id="few"),
        pytest.param(True, 100, False, False, id="more than a turn reads"),
        pytest.param(True, MANY, True, False, id="behind more urgent work"),
        pytest.param(False, MANY, False, False, id="not moderated"),
    ],
)
def test_many_sockets_that_are_read_often_wait_for_a_timer_in_a_moderated_set(
    kernels: ModuleType,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    moderated: bool,
    count: int,
    defer: bool,
    waits: bool,
) -> None:
    """Some turns read none of them, though all can be read. The definition leaves that to the loop, which reads all."""

    async def scenario() -> None:
        sockets = kernels.SocketSet(asyncio.get_running_loop(), moderated=moderated)
        turns = Turns(sockets, count, defer=defer)
        await turns.first_called.wait()
        first = len(turns.called)
        if waits and kernels.__name__.endswith("native"):
            await until(lambda: 0 in turns.called[first:-1])
            since = len(turns.called)
            await until(lambda: any(turns.called[since:]))
        else:
            await until(lambda: len(turns.called) > 1000)
            assert 0 not in turns.called[first:-1]
        turns.close()
        sockets.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("spare", range(4))
def test_without_a_descriptor_for_a_set_sockets_are_read_all_the_same(run: Run, spare: int) -> None:
    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        ours, peer = socket.socketpair()
        read: list[bytes] = []
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, limits[1]))
        try:
            sockets.add_reader(ours.fileno(), lambda: read.append(ours.recv(9)))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        peer.send(b"x")
        await until(lambda: read == [b"x"])
        sockets.remove_reader(ours.fileno())
        ours.close()
        peer.close()

    run(scenario)


def test_a_closed_set_serves_what_is_watched_and_then_leaves_no_descriptor(run: Run) -> None:
    async def scenario(sockets: Any, bugs: list[Any]) -> None:
        ours, peer = socket.socketpair()
        before = len(list(Path("/dev/fd").iterdir()))
        read: list[bytes] = []
        for _ in range(2):  # also one that is watched again later
            sockets.add_reader(ours.fileno(), lambda: read.append(ours.recv(9)))
            sockets.close()
            peer.send(b"x")
            await until(lambda: read)
            read.clear()
            sockets.remove_reader(ours.fileno())
            assert len(list(Path("/dev/fd").iterdir())) == before
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
        assert kernels.receive(ours, most) is None
        peer.send(b"0123456789")
        assert kernels.receive(ours, most) == b"0123456789"[:most]
        if most < 10:
            assert kernels.receive(ours, most) == b"9"
        peer.close()
        assert kernels.receive(ours, most) == b""


@pytest.mark.parametrize("most", [9, 256 * 1024])
def test_a_broken_connection_is_an_error(kernels: ModuleType, most: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        peer, _ = listening.accept()
    with ours:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(ConnectionResetError, match="reset"):
            kernels.receive(ours, most)
