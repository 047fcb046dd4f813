"""Random ids: request ids and stream ids.

Every id comes fresh from the operating system: nothing is kept that a fork could hand to two processes.
"""

from __future__ import annotations

import os
import time
from base64 import urlsafe_b64encode


def new_request_id() -> str:
    """A UUIDv7 (RFC 9562, 5.7): 48 bits of milliseconds, then random; 36 characters, sorts by time."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76  # version 7
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant 10
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_stream_id() -> str:
    """128 random bits in 22 characters of `[A-Za-z0-9_-]`."""
    return urlsafe_b64encode(os.urandom(16))[:22].decode("ascii")
