"""The time of day, for whatever has to tell it; nothing below the product reads a clock of its own."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
