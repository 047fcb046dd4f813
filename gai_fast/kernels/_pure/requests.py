"""The parts of a client's request that cost most before its stream begins: its headers, its id and its body's depth.

An upstream's response is recognised by its headers, as a request is.

Knows no particular header and no route.
"""

from __future__ import annotations

import re
from typing import Final

from gai_fast.model.limits import SHARED

_DRAWN: Final = 10
"""The random bytes of an id."""
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,%d}" % (SHARED.max_body_digits - 1))


def body_start(data: bytes, before: bytes, after: bytes, is_whole: bool) -> int:
    """Returns the offset of the body if the bytes begin with known headers of any length; otherwise -1.

    Args:
        data: The bytes.
        before: The headers up to the digits of `Content-Length`.
        after: The rest of the headers after these digits, with the empty line.
        is_whole: Whether the bytes must end with the body.
    """
    length = _LENGTH.match(data, len(before)) if data.startswith(before) else None
    if length is None or not data.startswith(after, length.end()):
        return -1
    start = length.end() + len(after)
    return start if not is_whole or int(length[0]) == len(data) - start else -1


def count_opening(text: bytes) -> int:
    """Returns the number of opening brackets and braces, including those in strings: JSON has no more levels."""
    return text.count(b"[") + text.count(b"{")


def timed_id(ms: int, drawn: bytes) -> str:
    """Returns a UUIDv7 (RFC 9562, 5.7): 48 bits of time, the version, and 74 random bits; 36 characters.

    Args:
        ms: Milliseconds since the epoch.
        drawn: Ten random bytes; version and variant replace six of their bits.

    Raises:
        ValueError: These are not ten bytes.
    """
    if len(drawn) != _DRAWN:
        raise ValueError("an id has ten random bytes")
    octets = bytearray((ms % (1 << 48)).to_bytes(6, "big") + drawn)
    octets[6] = 0x70 | octets[6] & 0x0F
    octets[8] = 0x80 | octets[8] & 0x3F
    digits = octets.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
