"""`ReadBatch`, `ChunkWriter`, and a `FastPath` that is closed, on both implementations; what streams make of them is
`tests/unit/net/test_fast_path.py`.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest

from tests.limits import LIMITS


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
    """A connection that notes what it is given; if it is `broken`, it raises instead."""

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


def test_one_that_raises_is_reported_to_the_loop_and_the_others_are_handled_in_the_next_turn(
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


# ---- pieces as HTTP chunks -------------------------------------------------------------------------------------------


class Connection:
    """A client's connection with a socket, which it lends while nothing is unsent; `taken` is what its client got."""

    def __init__(self) -> None:
        self.taken = b""
        self.unsent = b""
        self.borrower: Any = None
        self.loans = 0
        self.lends = True
        self.socket, self.other = socket.socketpair()
        for end in (self.socket, self.other):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    def close(self) -> None:
        self.socket.close()
        self.other.close()

    def end_loan(self) -> None:
        borrower, self.borrower = self.borrower, None
        if borrower is not None:
            borrower.end_writing()

    def write(self, data: bytes) -> None:
        self.end_loan()
        self.unsent += data
        self.send()

    def lend(self, borrower: Any) -> int:
        self.end_loan()
        if self.unsent or not self.lends:
            return -1
        self.loans += 1
        self.borrower = borrower
        return self.socket.fileno()

    def send(self) -> None:
        with suppress(BlockingIOError):
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]

    def take(self, size: int = 1 << 20) -> None:
        with suppress(BlockingIOError):
            self.taken += self.other.recv(size)

    def take_all(self, size: int) -> bytes:
        """Returns the first bytes that the client gets: so many, all of which have been written."""
        while len(self.taken) < size:
            self.send()
            before = len(self.taken)
            self.take()
            assert len(self.taken) > before
        return self.taken


@pytest.fixture
def connection() -> Iterator[Connection]:
    made = Connection()
    yield made
    made.close()


def as_chunks(pieces: Sequence[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)


@pytest.mark.parametrize("lends", [True, False])
def test_each_piece_is_one_http_chunk(kernels: ModuleType, connection: Connection, *, lends: bool) -> None:
    connection.lends = lends
    writer = kernels.ChunkWriter(connection)
    pieces = [bytes([65 + size % 26]) * size for size in (*range(1, 40), *range(250, 260), *range(4060, 4110), 65_536)]
    taken = b""
    for piece in pieces:
        writer.write(piece)
        taken += as_chunks([piece])
        assert connection.take_all(len(taken)) == taken
    assert bool(connection.loans) == (lends and kernels.__name__.endswith("native"))


def test_an_empty_piece_writes_nothing_as_its_chunk_would_be_the_last(
    kernels: ModuleType, connection: Connection
) -> None:
    writer = kernels.ChunkWriter(connection)
    pieces = [b"x"] * 9
    for piece in pieces:
        writer.write(piece)
        writer.write(b"")
    assert connection.take_all(len(pieces) * 6) == as_chunks(pieces)


@pytest.mark.parametrize("seed", range(20))
def test_a_client_that_takes_any_part_at_any_moment_gets_every_byte_in_order(
    kernels: ModuleType, connection: Connection, seed: int
) -> None:
    """The socket is full after any byte, is lent again later, and others write to the connection in between."""
    chance = random.Random(seed)
    writer = kernels.ChunkWriter(connection)
    written = b""
    for number in range(500):
        piece = bytes([97 + number % 26]) * chance.choice((1, 30, 200, 1_000, 1_000, 5_000))
        if chance.random() < 0.02:
            connection.write(piece)
            written += piece
        else:
            writer.write(piece)
            written += as_chunks([piece])
        connection.take(chance.choice((1, 100, 3_000, *[1 << 20] * 9)))
        connection.send()
    assert connection.take_all(len(written)) == written
    assert (connection.loans > 4) == kernels.__name__.endswith("native")


def test_a_client_that_is_gone_ends_the_loan_and_is_reported_by_its_connection(
    kernels: ModuleType, connection: Connection
) -> None:
    writer = kernels.ChunkWriter(connection)
    for _ in range(9):
        writer.write(b"x")
    connection.take_all(9 * 6)
    connection.other.close()
    with pytest.raises(ConnectionError):
        writer.write(b"late")
    assert connection.borrower is None


def test_a_connection_that_lends_nothing_is_rarely_asked(kernels: ModuleType, connection: Connection) -> None:
    asked = 0

    def lend(borrower: Any) -> int:
        nonlocal asked
        asked += 1
        return -1

    connection.lend = lend
    writer = kernels.ChunkWriter(connection)
    for _ in range(200):
        writer.write(b"x")
    assert asked <= 4
