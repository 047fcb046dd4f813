"""The pieces of one write: their size, and the HTTP chunk that they become.

Owns the form of an HTTP chunk (RFC 9112, 7.1). Knows no head and no connection.
"""

from __future__ import annotations

from collections.abc import Sequence

from gai_fast.kernels._pure.relay import Piece


def size_of(pieces: Sequence[Piece]) -> int:
    """Returns the bytes in all of them."""
    return sum(map(len, pieces))


def frame_chunk(head: bytes, pieces: Sequence[Piece], tail: bytes) -> bytes:
    """Returns the pieces as one HTTP chunk between other bytes: the only copy of them that is made.

    Args:
        head: Stands before the chunk.
        pieces: Where they hold nothing there is no chunk, since an empty one would be the last.
        tail: Stands behind the chunk.
    """
    size = size_of(pieces)
    return b"".join([head, b"%x\r\n" % size, *pieces, b"\r\n", tail]) if size else head + tail
