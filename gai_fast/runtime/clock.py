"""The time of day. Layers below this one get the clock as an argument."""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import Final


class _Source:
    """Where the time of day comes from; a test sets the clock here. A look-up of `time` costs 160 instructions more.

    Attributes:
        read: Returns the seconds since the epoch.
    """

    def __init__(self) -> None:
        self.read: Callable[[], float] = time


SOURCE: Final = _Source()


def now_ms() -> int:
    """Returns the milliseconds since the epoch."""
    return int(SOURCE.read() * 1000.0)  # of `time_ns`, a division of large integers, it would be 250 instructions more
