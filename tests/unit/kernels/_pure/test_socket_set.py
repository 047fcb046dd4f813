"""`SocketSet` and `receive`: both implementations, under both loops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
import socket
import struct
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
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
MANY = 2 * LIMITS.coalesced_sockets  # some of which are counted as one
CALLS = LIMITS.coalescing_calls


@pytest.fixture(params=list(LOOPS))
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Returns a loop's factory."""
    return LOOPS[request.param]


@pytest.fixture(params=[False, True], ids=["", "coalesces"])
def run(request: pytest.FixtureRequest, kernels: ModuleType, new_loop: Any) -> Run:
    """Runs a scenario with a set, which may coalesce reads, and with the exceptions reported to the loop."""

    async def with_set(scenario: Callable[[Any, list[Any]], Coroutine[Any, Any, None]]) -> None:
        loop, bugs = asyncio.get_running_loop(), list[Any]()
        loop.set_exception_handler(lambda _, context: bugs.append(context["exception"]))
        sockets = kernels.SocketSet(loop, coalesces=request.param)
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


class Calls:
    """A loop that the test is: it calls back when the test says so, if what the set has it watch is readable."""

    def __init__(self, kernels: ModuleType, *, coalesces: bool = True) -> None:
        self.sockets = kernels.SocketSet(self, coalesces=coalesces)
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.read: list[int] = []
        self.watched: int | None = None

    def add_reader(self, descriptor: int, callback: Callable[[], object]) -> None:
        self.watched, self.callback = descriptor, callback

    def remove_reader(self, descriptor: int) -> None:
        assert descriptor == self.watched
        self.watched = None

    def add(self, count: int, read: Callable[[int], object] = lambda _: None) -> None:
        """Adds sockets that can be read, until `drain`: `read`, called with their numbers, leaves their bytes."""
        for number in range(len(self.pairs), len(self.pairs) + count):
            ours, peer = socket.socketpair()
            self.pairs.append((ours, peer))
            peer.send(b"x")
            self.sockets.add_reader(ours.fileno(), partial(self.called, number, read))

    def called(self, number: int, read: Callable[[int], object]) -> object:
        self.read.append(number)
        return read(number)

    def call(self, times: int = 1, *, wait_ms: int = 10_000) -> int:
        """Returns how often it has called back."""
        for called in range(times):
            if not self.is_readable(wait_ms):
                return called
            self.callback()
        return times

    def is_readable(self, wait_ms: int) -> bool:
        assert self.watched is not None
        look = select.poll()
        look.register(self.watched, select.POLLIN)
        return bool(look.poll(wait_ms))

    def drain(self) -> None:
        for ours, _ in self.pairs:
            ours.recv(9)

    def close(self) -> None:
        for ours, peer in self.pairs:
            self.sockets.remove_reader(ours.fileno())
            ours.close()
            peer.close()
        self.pairs.clear()
        self.sockets.close()


@pytest.fixture
def calls(native: ModuleType) -> Iterator[Calls]:
    """Calls of a set that coalesces."""
    calls = Calls(native)
    yield calls
    calls.close()


def test_reads_of_many_sockets_are_coalesced(calls: Calls) -> None:
    calls.add(MANY)
    assert calls.call(CALLS - 1) == CALLS - 1
    assert not calls.sockets.is_coalescing
    calls.call()
    assert calls.sockets.is_coalescing
    calls.read.clear()
    assert calls.call() == 1, "the timer wakes the loop"
    assert sorted(calls.read) == list(range(MANY))


def test_coalesced_reads_come_once_in_an_interval(calls: Calls) -> None:
    """Which a machine that stands still makes longer, never shorter."""
    calls.add(MANY)
    calls.call(CALLS + 1)
    began = time.monotonic()
    calls.call(CALLS // 2)
    assert time.monotonic() - began >= (CALLS // 2 - 2) * LIMITS.coalescing_interval
    timer = next(each for each in Path("/proc/self/fd").iterdir() if is_timer(each))
    interval = f"it_interval: (0, {round(LIMITS.coalescing_interval * 1e9)})"
    assert interval in (Path("/proc/self/fdinfo") / timer.name).read_text()


def is_timer(descriptor: Path) -> bool:
    try:
        return "timerfd" in str(descriptor.readlink())
    except FileNotFoundError:  # the descriptor of the folder itself
        return False


def test_it_is_the_reads_that_are_often_not_the_calls(calls: Calls) -> None:
    calls.add(MANY)
    for _ in range(CALLS):
        calls.call()
        time.sleep(1.5 / LIMITS.coalesced_reads)
    assert calls.sockets.is_coalescing


def test_only_the_last_calls_count(calls: Calls) -> None:
    calls.add(MANY)
    time.sleep(1.5 * MANY * CALLS / LIMITS.coalesced_reads)  # since the set was opened
    calls.call(CALLS)
    assert not calls.sockets.is_coalescing
    calls.call(CALLS)
    assert calls.sockets.is_coalescing
    for ours, _ in calls.pairs[4:]:
        ours.recv(9)
    calls.call(CALLS)
    assert not calls.sockets.is_coalescing, "four sockets are few"


def test_reads_stay_coalesced_at_half_of_the_rate_from_which_they_are(calls: Calls) -> None:
    calls.add(MANY)
    calls.call(CALLS)
    for _ in range(CALLS):
        calls.call()
        time.sleep(1.5 * MANY / LIMITS.coalesced_reads)
    assert calls.sockets.is_coalescing


def test_reads_are_not_coalesced_any_more_once_they_are_few(calls: Calls) -> None:
    """Then nothing wakes the loop but the sockets."""
    calls.add(MANY)
    calls.call(CALLS)
    calls.drain()
    assert calls.call(CALLS) == CALLS
    assert not calls.sockets.is_coalescing
    assert not calls.is_readable(20)
    calls.pairs[3][1].send(b"y")
    calls.read.clear()
    assert calls.call() == 1
    assert calls.read == [3]


def test_reads_of_few_sockets_are_not_coalesced(calls: Calls) -> None:
    calls.add(LIMITS.coalesced_sockets - 1)
    calls.call(3 * CALLS)
    assert not calls.sockets.is_coalescing


def test_reads_that_are_seldom_are_not_coalesced(calls: Calls) -> None:
    calls.add(MANY)
    calls.drain()
    for number in range(2 * CALLS):
        ours, peer = calls.pairs[number % MANY]
        peer.send(b"y")
        assert calls.call() == 1
        ours.recv(9)
        time.sleep(1 / LIMITS.coalesced_reads)
    assert not calls.sockets.is_coalescing


def test_a_set_that_does_not_coalesce_does_not(native: ModuleType) -> None:
    calls = Calls(native, coalesces=False)
    calls.add(MANY)
    calls.call(3 * CALLS)
    assert not calls.sockets.is_coalescing
    calls.close()


def more_than_a_turn_reads(calls: Calls) -> None:
    calls.add(100)


def more_than_a_read_takes(calls: Calls) -> None:
    calls.add(1, lambda _: True)


def a_bug(calls: Calls) -> None:
    def fail(number: int) -> None:
        raise LookupError(number)

    calls.add(1, fail)


@pytest.mark.parametrize("happens", [more_than_a_turn_reads, more_than_a_read_takes, a_bug])
def test_what_keeps_sockets_from_being_read_makes_them_read_at_once(
    calls: Calls, happens: Callable[[Calls], None]
) -> None:
    """Whether reads are coalesced when it happens, or would be from then on."""
    calls.add(MANY)
    calls.call(CALLS)
    assert calls.sockets.is_coalescing
    happens(calls)
    for _ in range(CALLS):
        with contextlib.suppress(LookupError):
            calls.call()
        assert not calls.sockets.is_coalescing
        assert calls.is_readable(0)


def test_a_set_may_be_closed_and_used_again_by_a_callback(calls: Calls) -> None:
    before = descriptors()
    calls.add(MANY, lambda _: calls.close())
    for ours, _ in calls.pairs[1:]:
        calls.sockets.remove_reader(ours.fileno())
        calls.sockets.add_reader(ours.fileno(), lambda: None)
    calls.pairs[0][0].recv(9)
    calls.call(CALLS)
    assert calls.sockets.is_coalescing
    calls.pairs[0][1].send(b"y")
    calls.call()
    assert calls.watched is None
    assert descriptors() == before
    calls.add(1)
    assert calls.call() == 1
    assert calls.read[-1] == 0
    assert not calls.sockets.is_coalescing


def test_coalesced_sockets_are_read_under_a_loop(kernels: ModuleType, new_loop: Any) -> None:
    async def scenario() -> None:
        sockets = kernels.SocketSet(asyncio.get_running_loop(), coalesces=True)
        pairs = [socket.socketpair() for _ in range(MANY)]
        called = [0] * MANY

        def note(number: int) -> None:
            called[number] += 1

        for number, (ours, peer) in enumerate(pairs):
            peer.send(b"x")
            sockets.add_reader(ours.fileno(), lambda number=number: note(number))
        is_native = kernels.__name__.endswith("native")
        await until(lambda: sockets.is_coalescing == is_native and min(called))
        before = list(called)
        await until(lambda: all(now > then for now, then in zip(called, before, strict=True)))
        for ours, _ in pairs:
            ours.recv(9)
        await until(lambda: not sockets.is_coalescing)
        before = list(called)
        pairs[5][1].send(b"y")
        await until(lambda: called[5] > before[5])
        for ours, peer in pairs:
            sockets.remove_reader(ours.fileno())
            ours.close()
            peer.close()
        sockets.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("spare", [1, 2])
def test_without_descriptors_for_it_reads_are_not_coalesced(calls: Calls, spare: int) -> None:
    calls.pairs.append(socket.socketpair())
    with scarce_descriptors(spare):
        calls.sockets.add_reader(calls.pairs[0][0].fileno(), lambda: None)
    calls.add(MANY)
    calls.call(2 * CALLS)
    assert not calls.sockets.is_coalescing
    assert calls.is_readable(0)


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
