"""The client's side of a stream on the wire: one response, written straight to its transport.

Owns body framing, and joins the bytes of each turn into one contiguous write: the head goes out with the first bytes,
the end of the body with the last. Knows no HTTP head and no connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from mypy_extensions import mypyc_attr

from gai_fast.core.compression import Compressor
from gai_fast.kernels import LendingTransport, Piece, frame_chunk

Headers = Sequence[tuple[str, str]]

_frame_chunk: Final = frame_chunk  # a constant, because to look a name up costs 30 ns


@mypyc_attr(allow_interpreted_subclasses=True)
class BodyFraming:
    """The framing of a response body. Has no state, so all responses share one instance.

    This one leaves the body as it is: the end of the connection ends it (HTTP/1.0), or the transport frames it.

    Attributes:
        headers: The response headers that announce the framing.
        in_chunks: The body is written in HTTP chunks, or the transport takes whole frames (`FrameLog`), so that a fast
            path may write it too.
    """

    headers: ClassVar[Headers] = ()
    in_chunks: ClassVar[bool] = False

    def frame(self, head: bytes, pieces: Sequence[Piece]) -> bytes:
        """Frames one write of the body.

        Args:
            head: Bytes before it, perhaps none.
            pieces: Bytes of the body, never none.
        """
        return b"".join([head, *pieces])

    def last(self, head: bytes, pieces: Sequence[Piece]) -> bytes:
        """Frames the last bytes of the body, perhaps none, and its proper end."""
        return b"".join([head, *pieces])


@mypyc_attr(allow_interpreted_subclasses=True)
class HTTPChunks(BodyFraming):
    """Each write is one chunk (RFC 9112, 7.1)."""

    headers: ClassVar[Headers] = (("transfer-encoding", "chunked"),)
    in_chunks: ClassVar[bool] = True

    def frame(self, head: bytes, pieces: Sequence[Piece]) -> bytes:
        """As `BodyFraming.frame`; an empty chunk would be the last."""
        return _frame_chunk(head, pieces, b"")

    def last(self, head: bytes, pieces: Sequence[Piece]) -> bytes:
        """As `BodyFraming.last`."""
        return _frame_chunk(head, pieces, b"0\r\n\r\n")


PLAIN: Final = BodyFraming()
HTTP_CHUNKS: Final = HTTPChunks()


@mypyc_attr(allow_interpreted_subclasses=True)
class ResponseWriter:
    """Writes the body of one response, its head in front.

    Args:
        transport: Where the bytes go.
    """

    __slots__ = ("_compressor", "_framing", "_head", "_transport")

    def __init__(self, transport: LendingTransport) -> None:
        self._transport = transport
        self._framing: BodyFraming = PLAIN
        self._compressor: Compressor | None = None
        self._head = b""

    @property
    def direct(self) -> LendingTransport | None:
        """The transport, where a fast path may write the body and the head has gone out; otherwise `None`.

        A body that is compressed has none: all of it must pass through here.
        """
        if self._head or self._compressor is not None or not self._framing.in_chunks:
            return None
        return self._transport

    def start(self, head: bytes, framing: BodyFraming, compressor: Compressor | None = None) -> None:
        """Begins the response.

        Args:
            head: Goes out with the first bytes; empty where the transport has sent it.
            framing: How the body is framed.
            compressor: Its content coding, which the head names.
        """
        self._head = head
        self._framing = framing
        self._compressor = compressor

    def flush(self) -> None:
        """Writes the head alone, where it has not gone out yet."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def write(self, pieces: Sequence[Piece]) -> None:
        """Writes bytes of the body, never none."""
        if self._compressor is not None:
            pieces = (self._compressor.write(pieces),)
        head, self._head = self._head, b""
        self._transport.write(self._framing.frame(head, pieces))

    def end(self, pieces: Sequence[Piece]) -> None:
        """Writes the last bytes of the body, perhaps none, and its proper end."""
        if self._compressor is not None:
            pieces = (self._compressor.end(pieces),)
        head, self._head = self._head, b""
        last = self._framing.last(head, pieces)
        if last:
            self._transport.write(last)
