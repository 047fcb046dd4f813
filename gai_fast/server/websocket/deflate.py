"""permessage-deflate (RFC 7692): the messages of a server, compressed one by one.

Sans-IO. aiohttp negotiates the extension and inflates the client's messages, no further than a message may have bytes.
The streams of a socket write whole frames, whose payloads are compressed here.
"""

from __future__ import annotations

import zlib
from typing import Final

from gai_fast.core.compression import raw_deflate
from gai_fast.kernels import head_of

_TEXT: Final = 0x81
_COMPRESSED_TEXT: Final = 0xC1
"""A whole message of text in one frame, with the bit that says that it is compressed (RFC 7692, 6)."""
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_FLUSH_END: Final = b"\x00\x00\xff\xff"
"""The end of every flush, which is left out (RFC 7692, 7.2.1)."""


class Deflate:
    """Compresses the messages of one socket.

    Args:
        window: The largest window, in bits, that the client inflates.
        has_context: Messages may refer to earlier ones.
    """

    __slots__ = ("_flush", "_stream")

    def __init__(self, window: int, *, has_context: bool) -> None:
        self._stream = raw_deflate(window)
        self._flush = zlib.Z_SYNC_FLUSH if has_context else zlib.Z_FULL_FLUSH

    def compress(self, frames: bytes) -> bytes:
        """Returns the same frames with compressed messages; control frames stay as they are.

        Args:
            frames: Whole frames without a mask; each message is one frame.
        """
        out: list[bytes] = []
        at = 0
        while at < len(frames):
            begin, end = _payload(frames, at)
            if frames[at] == _TEXT:
                compressed = self._stream.compress(frames[begin:end]) + self._stream.flush(self._flush)
                payload = compressed.removesuffix(_FLUSH_END)
                out += (head_of(len(payload), _COMPRESSED_TEXT), payload)
            else:
                out.append(frames[at:end])
            at = end
        return b"".join(out)


def _payload(frames: bytes, at: int) -> tuple[int, int]:
    """Returns the places at which the payload of the frame at a place begins and ends."""
    size = frames[at + 1]
    begin = at + 2
    if size >= _LENGTH_16:
        begin += 8 if size == _LENGTH_64 else 2
        size = int.from_bytes(frames[at + 2 : begin], "big")
    return begin, begin + size
