"""The client's leg on the wire: one HTTP/1.1 response, written straight to its connection.

Owns chunk framing, and that each turn is one contiguous write: the head goes out with the first bytes, the last chunk
with the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from mypy_extensions import mypyc_attr

from gai_fast._impl import ClientTransport, Piece

_CHUNKED: Final = [("transfer-encoding", "chunked")]


def size_of(pieces: Sequence[Piece]) -> int:
    """The bytes in all of them."""
    size = 0
    for piece in pieces:
        size += len(piece)
    return size


def _as_chunk(head: bytes, size: int, pieces: Sequence[Piece], tail: bytes) -> bytes:
    """Bytes in one HTTP chunk, between others: the only copy of them that is made."""
    return b"".join((head, b"%x\r\n" % size, *pieces, tail))


@mypyc_attr(allow_interpreted_subclasses=True)
class ResponseWriter:
    """Frames one response.

    Args:
        outlet: The connection.
        chunked: Frame the body in HTTP chunks; otherwise the end of the connection ends it (HTTP/1.0).
    """

    __slots__ = ("_chunked", "_head", "_outlet", "_send")

    def __init__(self, outlet: ClientTransport, *, chunked: bool) -> None:
        self._outlet = outlet
        self._send: Callable[[bytes], None] = outlet.write
        self._chunked = chunked
        self._head = b""

    @property
    def framing(self) -> Sequence[tuple[str, str]]:
        """The header that tells the framing."""
        return _CHUNKED if self._chunked else []

    @property
    def direct(self) -> ClientTransport | None:
        """The connection, where the body consists of HTTP chunks and the head has gone out."""
        return None if self._head or not self._chunked else self._outlet

    def start(self, head: bytes) -> None:
        """Begins the response; the head goes out with the first bytes."""
        self._head = head

    def flush(self) -> None:
        """Writes the head alone, where it has not gone out yet."""
        if self._head:
            head, self._head = self._head, b""
            self._send(head)

    def write(self, pieces: Sequence[Piece]) -> None:
        """Bytes of the body, never none: an empty chunk would be the last."""
        head, self._head = self._head, b""
        if self._chunked:
            self._send(_as_chunk(head, size_of(pieces), pieces, b"\r\n"))
        else:
            self._send(b"".join((head, *pieces)))

    def end(self, pieces: Sequence[Piece]) -> None:
        """The last bytes of the body, perhaps none, and its proper end."""
        head, self._head = self._head, b""
        size = size_of(pieces)
        if not self._chunked:
            self._send(b"".join((head, *pieces)))
        elif size:
            self._send(_as_chunk(head, size, pieces, b"\r\n0\r\n\r\n"))
        else:
            self._send(head + b"0\r\n\r\n")
