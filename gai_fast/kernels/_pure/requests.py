"""The parts of a client's request that cost most before its stream begins: its headers, its id and its body's depth.

Knows no particular header and no route.
"""

from __future__ import annotations

import re
from typing import Final

from gai_fast.model.limits import SHARED

_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,%d}" % (SHARED.max_body_digits - 1))


def body_start(data: bytes, before: bytes, after: bytes) -> int:
    """Returns the offset of the body if the bytes are exactly one request with known headers; otherwise -1.

    Args:
        data: The bytes.
        before: The request up to the digits of `Content-Length`.
        after: The rest of the headers after these digits, with the empty line.
    """
    length = _LENGTH.match(data, len(before)) if data.startswith(before) else None
    if length is None or not data.startswith(after, length.end()):
        return -1
    start = length.end() + len(after)
    return start if int(length[0]) == len(data) - start else -1


def count_opening(text: bytes) -> int:
    """Returns the number of opening brackets and braces, including those in strings: JSON has no more levels."""
    return text.count(b"[") + text.count(b"{")


def timed_id(ms: int, rest: str) -> str:
    """Returns an id that begins with its time: 48 bits in hexadecimal, with a dash after the eighth digit.

    Args:
        ms: Milliseconds since the epoch.
        rest: The rest of the id; ASCII.

    Raises:
        ValueError: `rest` is not ASCII.
    """
    if not rest.isascii():
        raise ValueError("an id is ASCII")
    return (ms % (1 << 48)).to_bytes(6, "big").hex("-", -4) + rest
