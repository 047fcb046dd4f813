"""Breaths of work beside the loop, at which the loop goes on; `beside.py` does the work.

A module of its own: the code that reads and writes requests imports it, also without a loop.
"""

from __future__ import annotations

from threading import get_ident
from time import perf_counter, sleep
from typing import Final

from gai_fast.runtime.limits import LIMITS

_BREATH: Final[float] = LIMITS.breath


class _Work:
    """The threads of this process that work beside a loop."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.breathed_at = 0.0


_work: Final = _Work()


def begin_work() -> None:
    """Notes that this thread works beside a loop."""
    _work.threads.add(get_ident())


def end_work() -> None:
    """Notes that this thread works no more."""
    _work.threads.discard(get_ident())


def breathe() -> None:
    """Lets the loop go on, if this thread works beside it and has not breathed for `limits.breath`."""
    if _work.threads and perf_counter() - _work.breathed_at >= _BREATH and get_ident() in _work.threads:
        sleep(0)
        _work.breathed_at = perf_counter()
