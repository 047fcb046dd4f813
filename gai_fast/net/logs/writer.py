"""The client's side of a stream on the wire: one response, written directly to its transport.

Owns body framing, and joins the bytes of each turn into one contiguous write: the headers are sent with the first
bytes, and the end of the body with the last. Has the interfaces through which a stream and its response call each
other, `Client` and `ClientCallbacks`. Does not build headers, and knows no connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from mypy_extensions import mypyc_attr

from gai_fast.core.compression import Compressor
from gai_fast.kernels import FrameLog, LendingTransport, Piece, frame_chunk
from gai_fast.model.errors import Error
from gai_fast.model.metrics import AnswerSource, StreamMetrics

Headers = Sequence[tuple[str, str]]

_frame_chunk: Final = frame_chunk  # a constant, because a global lookup costs 30 ns


@mypyc_attr(allow_interpreted_subclasses=True)
class BodyFraming:
    """The framing of a response body. Has no state, so all responses share one instance.

    This class leaves the body unchanged: the end of the connection ends it (HTTP/1.0), or the transport frames it.

    Attributes:
        headers: The response headers that announce the framing.
        in_chunks: Whether the body is written in HTTP chunks, or the transport accepts whole frames (`FrameLog`), so
            that a fast path may write it too.
    """

    headers: ClassVar[Headers] = ()
    in_chunks: ClassVar[bool] = False

    def frame(self, head: bytes, pieces: Sequence[Piece]) -> bytes:
        """Frames one write of the body.

        Args:
            head: The response headers, or empty.
            pieces: Bytes of the body, at least one.
        """
        return b"".join([head, *pieces])

    def last(self, head: bytes, pieces: Sequence[Piece]) -> bytes:
        """Frames the last bytes of the body, perhaps none, and its end."""
        return b"".join([head, *pieces])


@mypyc_attr(allow_interpreted_subclasses=True)
class HTTPChunks(BodyFraming):
    """Each write is one chunk (RFC 9112, 7.1)."""

    headers: ClassVar[Headers] = (("transfer-encoding", "chunked"),)
    in_chunks: ClassVar[bool] = True

    def frame(self, head: bytes, pieces: Sequence[Piece]) -> bytes:
        """Frames one write; as `BodyFraming.frame`. An empty chunk would end the body."""
        return _frame_chunk(head, pieces, b"")

    def last(self, head: bytes, pieces: Sequence[Piece]) -> bytes:
        """Frames the last write; as `BodyFraming.last`."""
        return _frame_chunk(head, pieces, b"0\r\n\r\n")


PLAIN: Final = BodyFraming()
HTTP_CHUNKS: Final = HTTPChunks()


@mypyc_attr(allow_interpreted_subclasses=True)
class Client:
    """The response of a stream. Every method is synchronous; no method raises if the client is gone.

    A class, not a protocol, like `Timers`.
    """

    @property
    def direct(self) -> LendingTransport | FrameLog | None:
        """The transport (for HTTP chunks) or log (for frames) that a fast path may write to. None if there is none."""
        raise NotImplementedError

    def commit(self) -> None:
        """Begins the response: its headers are sent with the next bytes."""
        raise NotImplementedError

    def flush(self) -> None:
        """Sends the headers alone: no bytes follow in this turn."""
        raise NotImplementedError

    def write(self, pieces: Sequence[Piece]) -> None:
        """Writes bytes of the stream, at least one, after `commit`."""
        raise NotImplementedError

    def end(self, pieces: Sequence[Piece]) -> None:
        """Writes the last bytes, perhaps none, and the proper end of the response."""
        raise NotImplementedError

    def fail(self, error: Error, pieces: Sequence[Piece]) -> None:
        """Responds with an error: the stream failed before `commit`.

        Args:
            error: The reason.
            pieces: The error as the end of a stream, for a client that stores streams. Empty if it cannot be written.
        """
        raise NotImplementedError

    def abort(self, error: Error) -> None:
        """Cuts the response off, so that it does not look complete: no event can report how the stream ended."""
        raise NotImplementedError

    def replaces(self, error: Error) -> bool:
        """Returns whether `fail` would send another answer in place of the error, so that the stream has not failed."""
        return False

    def put_off(self, seconds: float) -> None:
        """Holds the headers for longer, if `commit` is the client's own decision; as `Delivery.put_off`."""


@mypyc_attr(allow_interpreted_subclasses=True)
class ClientCallbacks:
    """The part of a session or a follower that its stream's response calls. A class, not a protocol, like `Timers`.

    Attributes:
        metrics: The figures of the stream, once it has ended.
    """

    metrics: StreamMetrics | None

    @property
    def upstream_headers(self) -> Headers:
        """The headers of the upstream's response that are passed on to the client."""
        raise NotImplementedError

    @property
    def answered_by(self) -> AnswerSource | None:
        """The names of the answer's origin, and the changes of its request. None if they are not known."""
        raise NotImplementedError

    def measured(self) -> StreamMetrics:
        """Returns the figures so far."""
        raise NotImplementedError

    def client_lost(self) -> None:
        """Called when the client has disconnected."""
        raise NotImplementedError

    def pause(self) -> None:
        """Called when the client reads slowly."""
        raise NotImplementedError

    def resume(self) -> None:
        """Called when the client has caught up."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class ResponseWriter(Client):
    """Writes the headers and the body of one response.

    Args:
        transport: Receives the bytes.
    """

    def __init__(self, transport: LendingTransport) -> None:
        self._transport = transport
        self._framing: BodyFraming = PLAIN
        self._compressor: Compressor | None = None
        self._head = b""

    @property
    def direct(self) -> LendingTransport | None:
        """The transport that a fast path may write the body to.

        None before the headers are sent, if the framing has no chunks, or if the body is compressed: all of it must
        then pass through `write`.
        """
        if self._head or self._compressor is not None or not self._framing.in_chunks:
            return None
        return self._transport

    def start(self, head: bytes, framing: BodyFraming, compressor: Compressor | None = None) -> None:
        """Begins the response.

        Args:
            head: The response headers, sent with the first bytes. Empty if the transport has sent them.
            framing: The framing of the body.
            compressor: The content coding that the headers name. None if the body is not compressed.
        """
        self._head = head
        self._framing = framing
        self._compressor = compressor

    def put(self, data: bytes) -> None:
        """Writes bytes to the transport."""
        self._transport.write(data)

    def flush(self) -> None:
        """Writes the headers alone, if they have not been sent."""
        if self._head:
            head, self._head = self._head, b""
            self.put(head)

    def write(self, pieces: Sequence[Piece]) -> None:
        """Writes bytes of the body, at least one."""
        if self._compressor is not None:
            pieces = (self._compressor.write(pieces),)
        head, self._head = self._head, b""
        self.put(self._framing.frame(head, pieces))

    def end(self, pieces: Sequence[Piece]) -> None:
        """Writes the last bytes of the body, perhaps none, and its end."""
        if self._compressor is not None:
            pieces = (self._compressor.end(pieces),)
        head, self._head = self._head, b""
        last = self._framing.last(head, pieces)
        if last:
            self.put(last)
