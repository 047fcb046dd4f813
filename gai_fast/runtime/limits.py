"""Limits of timers, files, threads and ids.

Only this folder uses them; limits that several folders share are in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are in bytes and times in seconds, unless the name has another unit."""

    timer_tick: float = 0.05
    """Seconds between two checks of the timers: no timeout is shorter than a second by default."""

    timer_late: float = 0.1
    """Seconds by which the loop may be late before sockets are read before timers fire: two ticks, because a busy
    machine makes a process late by that much, and a third tick of delay is not noticeable."""

    piped_file: float = 5.0
    """Seconds in which a piped file must end: a command that decrypts it may ask a server for the key. A reload blocks
    all streams for as long for each such file, and a pipe that was read at the start is empty at a reload."""

    source_threads: int = 1000
    """Plain iterators that are iterated at a time, each in a thread of its own: 10 MB of memory for their threads."""


LIMITS: Final = Limits()
