"""Limits of timers, files, threads, ids and memory.

Only this folder uses them; limits that several folders share are in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are in bytes and times in seconds, unless the name has another unit."""

    timer_tick: float = 0.05
    """Seconds between two checks of the timers: no timeout is shorter than a second by default."""

    timer_late: float = 0.1
    """Seconds by which the loop may be late before sockets are read before timers fire: two ticks, because a busy
    machine makes a process late by that much, and a third tick of delay is not noticeable."""

    breath: float = 0.002
    """Seconds of work beside the loop after which the loop may go on. It may then take as long as the interpreter's
    switch interval, 5 ms: with more breaths a loop that is never idle would hold up the work for minutes."""

    json_piece: int = 64 * KIB
    """Bytes of a JSON text that are parsed at once beside the loop, in 2 ms."""

    beside_waiting: int = 1024
    """Pieces of work that wait to be done beside the loop; half as many of one caller with a name. A large request has
    two, of 5 ms as a rule and of 0.6 s at most: after 5 seconds of waiting clients would send more."""

    piped_file: float = 5.0
    """Seconds in which a piped file must end: a command that decrypts it may ask a server for the key. A reload blocks
    all streams for as long for each such file, and a pipe that was read at the start is empty at a reload."""

    source_threads: int = 1000
    """Plain iterators that are iterated at a time, each in a thread of its own: 10 MB of memory for their threads."""

    heap_block: int = 4 * MIB
    """Freed blocks up to this size stay in the process: the largest read is 256 KiB."""

    heap_kept: int = 64 * MIB
    """Freed memory that the process keeps at the end of its heap: a burst of some hundred streams."""

    collected_objects: int = 50_000
    """New objects between two runs of the garbage collector: some MiB if all of them are garbage. If none is, a run
    takes 2.5 ms for 20,000, and 200 clients that arrive at once create as many."""


LIMITS: Final = Limits()
