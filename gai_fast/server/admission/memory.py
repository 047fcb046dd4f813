"""The memory of the process: how much it may have, how much it has, and what is done above `memory_high_water`.

1. Above it no stream is begun (`ServerLimits`).
2. If that is not enough by the next look, WebSockets forget the responses that they remember, and then clients that
   read slowest are cut off, those with the most unsent bytes first, until as many bytes are freed as are too many.
3. Freed memory may stay with the C library; it is given back before anybody is refused, and then now and then, or as
   soon as so much was freed again that giving it back might be enough.

Only Linux tells a process how much memory it has now; elsewhere nothing is watched.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from gai_fast.model.limits import MIB, SHARED
from gai_fast.model.settings import LimitSettings
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.limits import LIMITS

_log = logging.getLogger("gai_fast.server")

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def memory_limit(root: Path = Path("/")) -> int:
    """Returns the bytes that this process may have: the machine's memory, or the limit of its control groups.

    Args:
        root: Where `proc` and `sys` are.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * _PAGE]
    for file in _limit_files(root):
        try:
            text = file.read_text("ascii").strip()
        except OSError:
            continue  # the group has no such limit, or this process may not see it
        if text.isdigit():  # else "max"
            limits.append(int(text))
    return min(limits)


def _limit_files(root: Path) -> Iterator[Path]:
    """Yields the files that may hold a limit of this process: of its groups and the groups above them (cgroups(7))."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        for each in (group, *group.parents):
            yield base / each / name


def high_water(limits: LimitSettings) -> int:
    """Returns the bytes of memory above which no stream begins.

    Args:
        limits: `[limits]`.
    """
    return limits.memory_high_water or int(memory_limit() * LIMITS.memory_share)


class Resident:
    """The size of the process's memory. The file stays open: there may be no descriptor when it is needed most.

    Raises:
        OSError: The system has no `/proc`.
    """

    def __init__(self) -> None:
        self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> int:
        """Returns the bytes of memory that the process has now."""
        return int(os.pread(self._file, 128, 0).split()[1]) * _PAGE

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def give_back() -> None:
    """Gives freed memory back to the system, if the C library can (glibc): some 50 ms for each GiB in use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class _Heap(ctypes.Structure):
    """The result of `mallinfo2` (mallinfo(3))."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks"))
    _fields_ += tuple((name, ctypes.c_size_t) for name in ("fsmblks", "uordblks", "fordblks", "keepcost"))


def freed() -> int:
    """Returns the freed bytes that the C library holds. 0 if it does not say (glibc before 2.33, others)."""
    tell = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if tell is None:
        return 0
    tell.restype = _Heap
    return int(tell().fordblks)


FreeMemory = Callable[[int], int]
"""Frees so many bytes of clients that read slowly; returns how many clients have been cut off."""


def watch_memory(
    limits: LimitSettings, server_limits: ServerLimits, shed: FreeMemory, timers: Timers
) -> MemoryWatch | None:
    """Begins to watch the memory of this process. Returns None if the system does not report it.

    Args:
        limits: `[limits]`.
        server_limits: Gets `is_short_of_memory` at every look.
        shed: Called if refusing new streams is not enough.
        timers: The timers of the loop.
    """
    try:
        resident = Resident()
    except OSError:
        if limits.memory_high_water is not None:
            text = "memory_high_water is not watched: this system does not tell how much memory a process has"
            _log.warning(text, extra={"once": inf})
        return None
    return MemoryWatch(limits, server_limits, resident, shed, timers)


class Memory(Protocol):
    """The size of the process's memory."""

    def read(self) -> int:
        """Returns the bytes of memory that the process has now."""

    def close(self) -> None:
        """Reads no more."""


class MemoryWatch:
    """Checks the memory every `limits.memory_check` seconds.

    Args:
        limits: `[limits]`.
        server_limits: As for `watch_memory`.
        resident: The memory; closed with the watch.
        shed: Called if refusing new streams is not enough.
        timers: The timers of the loop.
    """

    def __init__(
        self, limits: LimitSettings, server_limits: ServerLimits, resident: Memory, shed: FreeMemory, timers: Timers
    ) -> None:
        self.use(limits)
        self._server_limits = server_limits
        self._resident = resident
        self._shed = shed
        self._timers = timers
        self._freed = 0
        """Freed bytes that were there when memory was given back last."""
        self._given_back = self._silent_until = timers.clock() - SHARED.warning_interval
        self._timer: Timer = timers.schedule(timers.clock(), self._look)

    def use(self, limits: LimitSettings) -> None:
        """Goes by other limits from now on.

        Args:
            limits: `[limits]`.
        """
        self._high_water = high_water(limits)

    def close(self) -> None:
        """Looks no more."""
        self._timer.cancel()
        self._resident.close()

    def _look(self) -> None:
        now = self._timers.clock()
        self._timer = self._timers.schedule(now + LIMITS.memory_check, self._look)
        used = self._resident.read()
        if used > self._high_water and self._may_give_back(now, used - self._high_water):
            self._given_back = now
            give_back()
            self._freed = freed()
            used = self._resident.read()
        was_short = self._server_limits.is_short_of_memory
        is_short = self._server_limits.is_short_of_memory = used > self._high_water
        if not is_short:
            return
        cut = self._shed(used - self._high_water) if was_short else 0
        if cut or now >= self._silent_until:
            self._silent_until = now + SHARED.warning_interval
            text = "%d MiB of memory are used, memory_high_water is %d MiB: no stream begins; slow clients cut off: %d"
            _log.warning(text, used // MIB, self._high_water // MIB, cut)

    def _may_give_back(self, now: float, excess: int) -> bool:
        """Returns whether giving memory back may help: rule 3."""
        return now - self._given_back >= LIMITS.memory_given_back or freed() - self._freed >= excess
