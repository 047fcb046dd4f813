"""`ReadBatch`, and a `FastPath` that is closed, on both implementations; what streams make of them is
`tests/unit/net/test_fast_path.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from gai_fast.limits import LIMITS


class Loop:
    """Callbacks that wait for the next turn, and what is watched."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.watched: dict[int, Callable[[], None]] = {}
        self.now = 1.5

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.watched[fd] = callback

    def remove_reader(self, fd: int) -> None:
        del self.watched[fd]

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)

    def turn(self) -> None:
        due, self.waiting = self.waiting, []
        for callback in due:
            callback()


class Reader:
    """A connection that notes what it is given; one that is `broken` raises instead."""

    def __init__(self, *, broken: bool = False) -> None:
        self.given: list[tuple[Any, ...]] = []
        self.broken = broken

    def handle(self, exchange: str, data: bytes, now: float) -> None:
        if self.broken:
            raise ZeroDivisionError
        self.given.append((exchange, data, now))

    def handle_rest(self, exchange: str, body: bytes, now: float) -> None:
        self.given.append(("rest of", exchange, body, now))

    def failed(self, exchange: str, problem: Exception) -> None:
        self.given.append(("failed", exchange, type(problem)))


class Transport:
    """A client's connection that lends nothing."""

    def write(self, data: bytes) -> None: ...

    def lend(self, borrower: Any) -> int:
        return -1


def fast_path(kernels: ModuleType) -> Any:
    copier = kernels.DeltaCopier(kernels.SSEFramer(), False)
    return kernels.FastPath(copier, Transport(), lambda: 0, kernels.StreamCounters(kernels.Bounds(()), 0.0))


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def batch(kernels: ModuleType, loop: Loop) -> Any:
    return kernels.ReadBatch(loop, lambda: loop.now)


def test_a_closed_fast_path_takes_nothing(kernels: ModuleType) -> None:
    with pytest.raises(ValueError, match="closed"):
        fast_path(kernels).feed(b"1\r\na\r\n", 0.0)


def test_reads_wait_for_the_end_of_their_turn_and_are_then_handled_in_order(
    kernels: ModuleType, loop: Loop, batch: Any
) -> None:
    one, other = Reader(), Reader()
    for reader, data in [(one, b"1"), (other, b"2"), (one, b"3")]:
        batch.add(reader, "x", fast_path(kernels), data)
    assert len(loop.waiting) == 1
    loop.turn()
    assert one.given == [("x", b"1", 1.5), ("x", b"3", 1.5)]
    assert other.given == [("x", b"2", 1.5)]
    batch.add(one, "y", fast_path(kernels), b"4")
    loop.turn()
    assert one.given[2:] == [("y", b"4", 1.5)]
    assert not loop.waiting


def test_a_large_read_is_handled_at_once_after_those_before_it(kernels: ModuleType, loop: Loop, batch: Any) -> None:
    """A socket that was read 32 times in a turn could not be paused: megabytes came for a client that did not read."""
    one, other = Reader(), Reader()
    large = b"x" * LIMITS.batched_read
    for reader, data in [(one, b"1"), (other, large[1:]), (one, large)]:
        batch.add(reader, "x", fast_path(kernels), data)
    assert one.given == [("x", b"1", 1.5), ("x", large, 1.5)]
    assert other.given == [("x", large[1:], 1.5)]
    batch.add(one, "x", fast_path(kernels), b"2")
    loop.turn()
    assert one.given[2:] == [("x", b"2", 1.5)]
    assert not loop.waiting


def test_what_an_open_fast_path_leaves_of_a_read_goes_to_the_exchange(
    kernels: ModuleType, loop: Loop, batch: Any
) -> None:
    reader, way = Reader(), fast_path(kernels)
    way.chunks = kernels.ChunkedBody()
    batch.add(reader, "x", way, b"6\r\n: hi\n\n\r\n")
    loop.turn()
    # The definition copies nothing, so all of it takes the long way.
    assert reader.given in ([("rest of", "x", b": hi\n\n", 1.5)], [("x", b"6\r\n: hi\n\n\r\n", 1.5)])


def test_one_that_raises_is_told_to_the_loop_and_the_others_are_handled_in_the_next_turn(
    kernels: ModuleType, loop: Loop, batch: Any
) -> None:
    well = Reader()
    batch.add(Reader(broken=True), "x", fast_path(kernels), b"1")
    batch.add(well, "y", fast_path(kernels), b"2")
    with pytest.raises(ZeroDivisionError):
        loop.turn()
    assert not well.given
    batch.add(well, "y", fast_path(kernels), b"3")
    loop.turn()
    assert well.given == [("y", b"2", 1.5), ("y", b"3", 1.5)]


def test_a_clock_that_raises_loses_no_read(kernels: ModuleType, loop: Loop) -> None:
    loop.now = 0.0
    batch = kernels.ReadBatch(loop, lambda: loop.now * (1 / loop.now))
    reader = Reader()
    batch.add(reader, "x", fast_path(kernels), b"1")
    with pytest.raises(ZeroDivisionError):
        loop.turn()
    loop.now = 2.0
    loop.turn()
    assert reader.given == [("x", b"1", 1.0)]
