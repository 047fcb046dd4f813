"""The time of day. Layers below this one get the clock as an argument."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Returns the milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
