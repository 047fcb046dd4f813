"""The time of day. Layers below this one get the clock as an argument."""

from __future__ import annotations

from time import time_ns


def now_ms() -> int:
    """Returns the milliseconds since the epoch."""
    return time_ns() // 1_000_000
