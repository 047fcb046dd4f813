"""The pieces of one write: their size, and their form as one HTTP chunk.

Owns the form of an HTTP chunk (RFC 9112, 7.1). Knows no headers and no connection.
"""

from __future__ import annotations

from collections.abc import Sequence

from gai_fast.kernels._pure.relay import Piece


def size_of(pieces: Sequence[Piece]) -> int:
    """Returns the number of bytes in all pieces."""
    return sum(map(len, pieces))


def frame_chunk(head: bytes, pieces: Sequence[Piece], tail: bytes) -> bytes:
    """Returns the pieces as one HTTP chunk between other bytes. This copies the pieces once.

    Args:
        head: The bytes before the chunk.
        pieces: The data of the chunk. If they are empty, no chunk is written: an empty chunk would end the body.
        tail: The bytes after the chunk.
    """
    size = size_of(pieces)
    return b"".join([head, b"%x\r\n" % size, *pieces, b"\r\n", tail]) if size else head + tail
