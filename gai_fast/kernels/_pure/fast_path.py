"""`FastPath` handles a read of copied frames in one call. `ReadBatch` handles all reads of one iteration of the loop.
`ChunkWriter` writes a piece of a log to a client's connection in one call.

This module is the definition: every read takes the full path. It knows no sockets, and of connections only `Reader`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from gai_fast.kernels._pure.chunked import ChunkedBody
from gai_fast.kernels._pure.counters import StreamCounters
from gai_fast.kernels._pure.limits import LIMITS
from gai_fast.kernels._pure.relay import DeltaCopier
from gai_fast.kernels._pure.socket_set import Loop
from gai_fast.kernels._pure.tls_records import TLSRecords


class Borrower(Protocol):
    """Writes to a client's socket in place of the client's transport: a `FastPath` or a `ChunkWriter`."""

    def end_writing(self) -> None:
        """Ends the loan of the client's socket: from now on the client's connection writes to it."""


class LendingTransport(Protocol):
    """The part of a client's transport that a borrower uses; `server/http/transport.py` has the whole interface."""

    def write(self, data: bytes) -> None:
        """Calls `end_writing` of the borrower, then writes bytes."""

    def lend(self, borrower: Borrower) -> int:
        """Lets a borrower write to the socket, until the transport calls its `end_writing`.

        Returns:
            The socket's descriptor; -1 while bytes are unsent, and always if the connection is encrypted.
        """


class FrameLog(Protocol):
    """Receives the frames of a fast path in place of a client's transport."""

    def log_frames(self, frames: bytes, last_seq: int) -> None:
        """Logs copied frames.

        Args:
            frames: Whole frames, without HTTP's framing.
            last_seq: The number of the last event in them.
        """


class MessageLog(FrameLog, Protocol):
    """Turns frames into WebSocket messages. It may lend its socket to a fast path, which then writes the messages.

    Attributes:
        lead: The beginning of each message, as for `frame_messages`.
    """

    lead: bytes

    def lend(self, borrower: Borrower) -> int:
        """Lets a borrower write to the socket, as `LendingTransport.lend`."""

    def write_messages(self, messages: bytes) -> None:
        """Writes the rest of messages that the socket did not accept."""

    def note_sent(self, last_seq: int, size: int) -> None:
        """Notes the bytes written by the borrower. Called after each `limits.ack_step` bytes, and when the loan ends.

        Args:
            last_seq: The number of the last event written.
            size: The number of bytes written since the last call.
        """


class Reader(Protocol):
    """A connection whose reads are handled in a batch: `gai_fast.net.upstream.connection.UpstreamConnection`.

    Attributes:
        records: The TLS records that read the socket. `None` if the connection does not use TLS.
    """

    @property
    def records(self) -> TLSRecords | None: ...

    def lend(self, borrower: FastPath) -> int:
        """Stops reading the socket until the connection calls `end_reading` of the fast path.

        Returns:
            The socket's descriptor; -1 if the connection keeps reading the socket, because it is paused or only the
            connection can decrypt it.
        """

    def take_back(self) -> None:
        """Calls `end_reading` of the borrower and reads the socket again."""

    def broke(self, problem: OSError) -> None:
        """Closes the socket; the exchange fails with `problem`, the error of the borrower's read."""

    def handle(self, exchange: Any, data: bytes, now: float) -> None:
        """Handles a read for an exchange, which may have ended."""

    def handle_rest(self, exchange: Any, body: bytes, now: float) -> None:
        """Handles the rest of a read, which the exchange's fast path did not copy."""

    def failed(self, exchange: Any, problem: Exception) -> None:
        """Closes the socket and ends the exchange after a bug: one of its reads could not be handled."""


_ALL = (1 << 63) - 1
"""More bytes than any body has."""


class FastPath:
    """Copies the frames of a read from the upstream to the client, in one call.

    It handles reads that hold only copied frames. The other parts of the stream are updated later, with
    `DeltaCopier.settle`. Every other read takes the full path, from its first frame that cannot be copied. The fast
    path must not be visible. This implementation, the definition, leaves every read to the full path.

    Args:
        copier: Cuts and copies the stream's frames.
        transport: Writes bytes of a response in HTTP chunks, or logs its frames. A `MessageLog` may lend its socket.
        now_ms: Returns milliseconds since the epoch, for frames with a time.
        counters: Counts each read, in seconds of `time.perf_counter`, and the bytes sent.

    Attributes:
        chunks: Decodes the chunked body. `None` while the fast path is closed: before `follow`, and once the exchange
            has ended.
        at: The time of the last read on the fast path; 0 before.
        wrote_at: The time of the last read on the fast path whose frames were sent; 0 before.
    """

    __slots__ = ("at", "chunks", "wrote_at")

    def __init__(
        self,
        copier: DeltaCopier,
        transport: LendingTransport | FrameLog | MessageLog,
        now_ms: Callable[[], int],
        counters: StreamCounters,
    ) -> None:
        self.at = self.wrote_at = 0.0
        self.chunks: ChunkedBody | None = None

    def follow(self, seq: int, deltas: int, until: int = _ALL) -> None:
        """Continues after a read on the full path.

        Args:
            seq: The number of the stream's last event.
            deltas: Deltas of the stream so far.
            until: Bytes of the body, as `counters` has received them. A read that may exceed them takes the full path.
        """

    def end_reading(self) -> None:
        """Ends the loan of the upstream's socket: from now on the upstream's connection reads it."""

    def end_writing(self) -> None:
        """Ends the loan of the client's socket: from now on the client's connection writes to it."""

    def feed(self, data: bytes, now: float) -> bytes | None:
        """Handles one read.

        Args:
            data: The bytes, in HTTP chunks.
            now: The time of the read, in seconds of the loop's clock.

        Returns:
            The bytes of the body that must take the full path, after `settle`. They may be empty if only copied frames
            wait for `settle`. `None` if the whole read has been handled.

        Raises:
            ValueError: The fast path is closed.
        """
        if self.chunks is None:
            raise ValueError("this fast path is closed")
        return self.chunks.feed(data)


class ChunkWriter:
    """Writes pieces of a response, each as one HTTP chunk.

    After a few writes it may borrow the socket of the transport. This implementation, the definition, does not.
    Borrowing must not be visible except in its cost.

    Args:
        transport: The client's connection.
    """

    __slots__ = ("_send",)

    def __init__(self, transport: LendingTransport) -> None:
        self._send = transport.write

    def write(self, piece: bytes) -> None:
        """Writes a piece. Ignores an empty piece, because an empty chunk would end the body."""
        if piece:
            self._send(b"%x\r\n%b\r\n" % (len(piece), piece))

    def end_writing(self) -> None:
        """Ends the loan of the client's socket: from now on the client's connection writes to it."""


class ReadBatch:
    """Handles the reads of all fast paths together, once per iteration of the loop, after the last read.

    If each read were handled at once, the CPU's caches would hold the kernel's data of the system call before. In a
    batch a lone token costs about a tenth less.

    A batch may borrow the sockets of streams that have used it for a while, and read them itself. After a read of
    `limits.bulk_read` bytes it may let a socket rest for `limits.bulk_rest`, so that all bytes of this time become one
    read. This implementation, the definition, borrows no sockets. Borrowing must not be visible except in its cost.

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
        """Adds a read. Its exchange may have ended when the batch is handled.

        A read of `limits.batched_read` bytes is handled at once, together with the reads before it.

        Args:
            reader: The connection that read the bytes.
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
            if handled < len(reads):  # the loop gets the exception; the other reads are handled in its next iteration
                self._reads = reads[handled:] + self._reads
                self._loop.call_soon(self._handle)
