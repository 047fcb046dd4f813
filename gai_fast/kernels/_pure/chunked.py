"""Decodes HTTP/1.1 chunked bodies (RFC 9112 §7.1) incrementally.

A model's stream comes as one small chunk per token, so decoding chunks is most of the cost of reading an upstream. The
caller parses the headers and knows that the body is chunked.
"""

from __future__ import annotations

import re
from typing import Final

# Each pattern matches the beginning of a valid line. No stream is so long that a size needs more than 15 digits.
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t;][^\r\n\0]*)?(?:\r(\n)?)?|")
_DATA_END: Final = re.compile(rb"\r?|\r(\n)")
_DECISIVE: Final = 18
_TRAILER: Final = re.compile(rb"[^\r\n\0]*(?:\r(\n)?)?")


class ChunkedBody:
    """Decodes a chunked body. Feed nothing more once it is `complete` or `broken`.

    Attributes:
        broken: Whether the input violates the chunked coding; `feed` has returned the data before the violation.
        complete: Whether the last chunk and its trailers have come.
        rest: Number of bytes of the last feed after the end of the body.
        overhead: Number of bytes since the last byte of data: sizes, extensions, trailers. The caller limits it.
    """

    __slots__ = ("_left", "_line", "_wanted", "broken", "complete", "overhead", "rest")

    def __init__(self) -> None:
        self.broken = False
        self.complete = False
        self.rest = 0
        self.overhead = 0
        self._wanted = _SIZE  # the pattern of the next line, which follows the rest of the chunk's data
        self._left = 0  # bytes of data left in the current chunk
        self._line = b""

    def feed(self, data: bytes, at: int = 0) -> bytes:
        """Returns the data of the chunks in these bytes, from `at` on.

        Raises:
            ValueError: `at` is outside of the bytes.
        """
        if not 0 <= at <= len(data):
            raise ValueError("at is no place in these bytes")
        pieces: list[bytes] = []
        while at < len(data) and not self.complete and not self.broken:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self.overhead = 0
                continue
            end = data.find(b"\n", at) + 1 or len(data)
            self.overhead += end - at
            self._line += data[at:end]
            at = end
            self._parse_line()
        self.rest = len(data) - at
        return b"".join(pieces)

    def _parse_line(self) -> None:
        found = self._wanted.fullmatch(self._line)
        if found is None:
            self.broken = True
            return
        if not found[found.re.groups]:
            # The line is incomplete. Only its beginning (a size and the next byte) and its last byte matter. The rest
            # is dropped, so that a line that comes byte by byte is not scanned again and again.
            if len(self._line) > _DECISIVE:
                self._line = self._line[: _DECISIVE - 1] + self._line[-1:]
            return
        line, self._line = self._line, b""
        if self._wanted is _SIZE:
            self._left = int(found[1], 16)
            self._wanted = _DATA_END if self._left else _TRAILER
        elif self._wanted is _DATA_END:
            self._wanted = _SIZE
        else:
            self.complete = line == b"\r\n"
