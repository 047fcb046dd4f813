"""Breaths of work beside the loop, at which the loop goes on; `beside.py` does the work.

A module of its own, since whoever reads or writes requests imports it, also without a loop.
"""

from __future__ import annotations

from time import sleep
from typing import Final


class _Work:
    """The pieces of work in this process, beside any loop."""

    def __init__(self) -> None:
        self.running = 0


_work: Final = _Work()


def begin_work() -> None:
    """Counts a piece of work."""
    _work.running += 1


def end_work() -> None:
    """Counts a piece of work no more."""
    _work.running -= 1


def breathe() -> None:
    """Lets other threads go on, if there is work beside the loop."""
    if _work.running:
        sleep(0)
