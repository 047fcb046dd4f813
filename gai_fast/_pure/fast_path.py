"""The way of reads that bring only frames that are copied: `FastPath`, and the `ReadBatch` that such reads share.

This one is the definition: everything takes the long way. Knows no socket, and of an exchange what a `Reader` says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from gai_fast._pure.chunked import ChunkedBody
from gai_fast._pure.counters import StreamCounters
from gai_fast._pure.relay import DeltaCopier


class LendingTransport(Protocol):
    """The part of a client's transport that a fast path uses; `gai_fast.server.transport` has the whole interface."""

    def write(self, data: bytes) -> None:
        """Writes bytes; calls `end_writing` of the borrower first."""

    def lend(self, borrower: FastPath) -> int:
        """Lets a fast path write to the socket, until `end_writing` of it is called.

        Returns:
            The socket's descriptor; -1: it may not now, as bytes are unsent, or never, as they are encrypted.
        """


class Reader(Protocol):
    """A connection whose reads wait for a turn: `gai_fast.net.upstream.UpstreamConnection`."""

    def lend(self, borrower: FastPath) -> int:
        """Stops reading the socket, until `end_reading` of the fast path has been called.

        Returns:
            The socket's descriptor; -1: it goes on reading, as nobody may now or what comes is encrypted.
        """

    def take_back(self) -> None:
        """Calls `end_reading` of the borrower, and reads again."""

    def broke(self, problem: OSError) -> None:
        """Closes the socket, as `drop`: reading it, the borrower was told this."""

    def handle(self, exchange: Any, data: bytes, now: float) -> None:
        """A read for an exchange, which may be over by now."""

    def handle_rest(self, exchange: Any, body: bytes, now: float) -> None:
        """What the exchange's fast path has left of a read."""

    def drop(self) -> None:
        """Closes the socket; whom the connection carries is told that it is lost."""


class FastPath:
    """The way of a read that brings nothing but frames that are copied: from one connection to the other, in one call.

    What the stream's other parts must know of such reads they ask for later, with `DeltaCopier.settle`. Whatever else
    a read brings takes the long way. That there is a shorter one must not be visible.

    This one is the definition: everything takes the long way.

    Args:
        copier: Cuts and copies the stream's frames.
        outlet: Writes bytes of a response in HTTP chunks.
        now_ms: Milliseconds since the epoch, for what is written.
        counters: Is told of each read, in seconds of `time.perf_counter`, and of the bytes sent.

    Attributes:
        chunks: Takes apart what comes; `None`: nothing may come this way, as before `follow` and once the exchange has
            ended.
        at: When the last read came that went this way; 0 before.
        wrote_at: Likewise, the last one that brought whole frames: what was written for them has been sent.
    """

    __slots__ = ("at", "chunks", "wrote_at")

    def __init__(
        self,
        copier: DeltaCopier,
        outlet: LendingTransport,
        now_ms: Callable[[], int],
        counters: StreamCounters,
    ) -> None:
        self.at = self.wrote_at = 0.0
        self.chunks: ChunkedBody | None = None

    def follow(self, seq: int, deltas: int) -> None:
        """The long way has been taken up to here.

        Args:
            seq: The number of the stream's last event.
            deltas: Its deltas so far.
        """

    def end_reading(self) -> None:
        """The upstream's connection, which has lent its socket, reads it itself from now on."""

    def end_writing(self) -> None:
        """The client's connection, which has lent its socket, writes to it itself from now on."""

    def feed(self, data: bytes, now: float) -> bytes | None:
        """What one read brought.

        Args:
            data: The bytes, in HTTP chunks.
            now: When it came, in seconds of the loop's clock.

        Returns:
            The bytes of the body that must take the long way, after `settle`; perhaps none are left, but what
            was copied waits there. `None`: nothing need be done.

        Raises:
            ValueError: Nothing may come this way.
        """
        if self.chunks is None:
            raise ValueError("this fast path is closed")
        return self.chunks.feed(data)


class Loop(Protocol):
    """What a turn needs of asyncio's: `call_soon` runs before the loop reads again, and before a connection is lost."""

    def call_soon(self, callback: Callable[[], None], /) -> object: ...

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> object: ...

    def remove_reader(self, fd: int, /) -> object: ...


class ReadBatch:
    """The reads of one turn of a loop that bring more of answers under way, handled together behind the last of them.

    Each alone would find the caches full of what the kernel did for the one before: a token that comes alone costs
    about a tenth less.

    It may borrow the sockets of answers that have been under way for a while, and read them itself. This one, the
    definition, borrows none; nor may that be visible, but in what it costs.

    Args:
        loop: Whose turns.
        clock: That of the exchanges' timers.
    """

    __slots__ = ("_clock", "_loop", "_reads")

    def __init__(self, loop: Loop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._reads: list[tuple[Reader, Any, bytes]] = []

    def add(self, reader: Reader, exchange: Any, fast_path: FastPath, data: bytes) -> None:
        """A connection has read this for an exchange, which may be over when its time comes.

        Args:
            reader: The connection.
            exchange: Whom it carries.
            fast_path: Where the read would go now.
            data: The bytes.
        """
        if not self._reads:
            self._loop.call_soon(self._handle)
        self._reads.append((reader, exchange, data))

    def close(self) -> None:
        """Gives back what it has borrowed."""

    def _handle(self) -> None:
        reads, self._reads = self._reads, []
        handled = 0
        try:
            now = self._clock()
            for reader, exchange, data in reads:
                handled += 1
                reader.handle(exchange, data, now)
        finally:
            if handled < len(reads):  # what one of them raised goes to the loop; the others are none the worse
                self._reads = reads[handled:] + self._reads
                self._loop.call_soon(self._handle)
