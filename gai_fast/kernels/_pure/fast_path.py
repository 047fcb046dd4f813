"""`FastPath`, one call for a read that holds nothing but copied frames, and `ReadBatch`, the reads of one loop turn.
`ChunkWriter`, one call from a piece of a log to a client's connection.

This module is the definition: every read takes the long way. It knows no sockets, and of connections only `Reader`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from gai_fast.kernels._pure.chunked import ChunkedBody
from gai_fast.kernels._pure.counters import StreamCounters
from gai_fast.kernels._pure.limits import LIMITS
from gai_fast.kernels._pure.relay import DeltaCopier
from gai_fast.kernels._pure.tls_records import TLSRecords


class Borrower(Protocol):
    """Writes to the socket of a client in place of its transport: a `FastPath` or a `ChunkWriter`."""

    def end_writing(self) -> None:
        """Ends the loan of the client's socket: its connection writes to it from now on."""


class LendingTransport(Protocol):
    """The part of a client's transport that a borrower uses; `server/http/transport.py` has the whole interface."""

    def write(self, data: bytes) -> None:
        """Writes bytes; calls `end_writing` of the borrower first."""

    def lend(self, borrower: Borrower) -> int:
        """Lets a borrower write to the socket, until the transport calls its `end_writing`.

        Returns:
            The socket's descriptor; -1 while bytes are unsent, and always if they are encrypted.
        """


class FrameLog(Protocol):
    """Takes the frames of a fast path in place of a client's transport."""

    def log_frames(self, frames: bytes, last_seq: int) -> None:
        """Logs copied frames.

        Args:
            frames: Whole frames, without HTTP's framing.
            last_seq: The number of the last event in them.
        """


class MessageLog(FrameLog, Protocol):
    """Makes WebSocket messages of the frames, and may lend its socket to a fast path that makes them itself.

    Attributes:
        lead: The beginning of each message, as for `frame_messages`.
    """

    lead: bytes

    def lend(self, borrower: Borrower) -> int:
        """As `LendingTransport.lend`."""

    def write_messages(self, messages: bytes) -> None:
        """Writes the rest of messages that the socket has not taken."""

    def note_sent(self, last_seq: int, size: int) -> None:
        """Notes what the borrower has written; called after each `limits.ack_step` bytes, and when the loan ends.

        Args:
            last_seq: The number of the last event in it.
            size: The bytes of the messages.
        """


class Reader(Protocol):
    """A connection whose reads are handled in a batch: `gai_fast.net.upstream.connection.UpstreamConnection`.

    Attributes:
        records: Read its socket where it speaks TLS.
    """

    @property
    def records(self) -> TLSRecords | None: ...

    def lend(self, borrower: FastPath) -> int:
        """Stops reading the socket, until it has called `end_reading` of the fast path.

        Returns:
            The socket's descriptor; -1 if the connection keeps reading it, as it is paused, or alone can decrypt it.
        """

    def take_back(self) -> None:
        """Calls `end_reading` of the borrower and reads the socket again."""

    def broke(self, problem: OSError) -> None:
        """Closes the socket; the exchange fails with `problem`, the error that the borrower got when it read."""

    def handle(self, exchange: Any, data: bytes, now: float) -> None:
        """Handles a read for an exchange, which may be over by now."""

    def handle_rest(self, exchange: Any, body: bytes, now: float) -> None:
        """Handles the rest of a read, which the exchange's fast path has not copied."""

    def failed(self, exchange: Any, problem: Exception) -> None:
        """Closes the socket and ends the exchange, a read of which could not be handled: a bug of the gateway."""


class FastPath:
    """Copies the frames of a read from one connection to the other, in one call.

    It handles reads that hold nothing but copied frames. The other parts of the stream are brought up to date later,
    with `DeltaCopier.settle`. Every other read takes the long way, from its first other frame on. The fast path must
    not be visible. This one, the definition, leaves every read to the long way.

    Args:
        copier: Cuts and copies the stream's frames.
        transport: Writes bytes of a response in HTTP chunks, or logs its frames; a `MessageLog` is one that may lend.
        now_ms: Returns milliseconds since the epoch, for frames with a time.
        counters: Counts each read, in seconds of `time.perf_counter`, and the bytes sent.

    Attributes:
        chunks: Decodes the chunked body. `None` closes the fast path: before `follow`, and once the exchange has ended.
        at: The time of the last read that took the fast path; 0 before.
        wrote_at: The time of the last of these that held whole frames, which have been sent.
    """

    __slots__ = ("at", "chunks", "wrote_at")

    def __init__(
        self,
        copier: DeltaCopier,
        transport: LendingTransport | FrameLog,
        now_ms: Callable[[], int],
        counters: StreamCounters,
    ) -> None:
        self.at = self.wrote_at = 0.0
        self.chunks: ChunkedBody | None = None

    def follow(self, seq: int, deltas: int) -> None:
        """Continues after the long way.

        Args:
            seq: The number of the stream's last event.
            deltas: Its deltas so far.
        """

    def end_reading(self) -> None:
        """Ends the loan of the upstream's socket: its connection reads it from now on."""

    def end_writing(self) -> None:
        """Ends the loan of the client's socket: its connection writes to it from now on."""

    def feed(self, data: bytes, now: float) -> bytes | None:
        """Handles one read.

        Args:
            data: The bytes, in HTTP chunks.
            now: The time of the read, in seconds of the loop's clock.

        Returns:
            The bytes of the body that must take the long way, after `settle`; they may be empty if copied frames wait
            to be settled. `None` if the whole read has been handled.

        Raises:
            ValueError: The fast path is closed.
        """
        if self.chunks is None:
            raise ValueError("this fast path is closed")
        return self.chunks.feed(data)


class ChunkWriter:
    """Writes pieces of a response, each as one HTTP chunk.

    It may borrow the socket of a transport that has taken a few. This one, the definition, does not. Borrowing must not
    be visible except in its cost.

    Args:
        transport: The client's connection.
    """

    __slots__ = ("_send",)

    def __init__(self, transport: LendingTransport) -> None:
        self._send = transport.write

    def write(self, piece: bytes) -> None:
        """Writes a piece; nothing for an empty one, as an empty chunk would be the last."""
        if piece:
            self._send(b"%x\r\n%b\r\n" % (len(piece), piece))

    def end_writing(self) -> None:
        """Ends the loan of the client's socket: its connection writes to it from now on."""


class Loop(Protocol):
    """The part of an event loop that a batch uses. Callbacks of `call_soon` run before the loop reads again."""

    def call_soon(self, callback: Callable[[], None], /) -> object: ...

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> object: ...

    def remove_reader(self, fd: int, /) -> object: ...


class ReadBatch:
    """Handles the reads of all fast paths in one turn of a loop together, after the last of them.

    Handled one by one, each would find the CPU's caches full of the system's data for the read before. In a batch a
    lone token costs about a tenth less.

    A batch may borrow the sockets of streams that have used it for a while, and read them itself. After a read of
    `limits.bulk_read` bytes it may leave a socket alone for `limits.bulk_rest`, so that what comes meanwhile is one
    read. This one, the definition, borrows none. Borrowing must not be visible except in its cost.

    Args:
        loop: The event loop.
        clock: The clock of the exchanges' timers.
    """

    __slots__ = ("_clock", "_loop", "_reads")

    def __init__(self, loop: Loop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._reads: list[tuple[Reader, Any, bytes]] = []

    def add(self, reader: Reader, exchange: Any, fast_path: FastPath, data: bytes) -> None:
        """Adds a read. Its exchange may be over when the batch is handled.

        A read of `limits.batched_read` bytes is handled at once, after those before it.

        Args:
            reader: The connection that has read it.
            exchange: The connection's exchange.
            fast_path: The exchange's fast path.
            data: The bytes.
        """
        if not self._reads:
            self._loop.call_soon(self._handle)
        self._reads.append((reader, exchange, data))
        if len(data) >= LIMITS.batched_read:
            self._handle()

    def close(self) -> None:
        """Gives back all borrowed sockets."""

    def _handle(self) -> None:
        reads, self._reads = self._reads, []
        handled = 0
        try:
            now = self._clock()
            for reader, exchange, data in reads:
                handled += 1
                reader.handle(exchange, data, now)
        finally:
            if handled < len(reads):  # the loop gets the exception, and the other reads are handled next
                self._reads = reads[handled:] + self._reads
                self._loop.call_soon(self._handle)
