"""Limits of timers, files and ids.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    timer_tick: float = 0.05
    """Seconds between two looks at the timers: no timeout here is shorter than a second by default."""

    timer_late: float = 0.1
    """Seconds by which the loop may be late before the timers let the sockets be read first: two ticks, since nobody
    notices a third, and a process that others hold up is late by that much."""

    piped_file: float = 5.0
    """Seconds in which the end of a piped file comes: a command that decrypts it may ask a server for the key. A reload
    holds the streams up for as long for each such file, and finds nothing in one that was read at the start."""


LIMITS: Final = Limits()
