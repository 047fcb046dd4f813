"""Tunes a process that only serves.

Owns its memory, its garbage collector and its limit of files, for as long as the process lives.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource

from gai_fast.runtime.limits import LIMITS

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)


def tune_process() -> None:
    """Tunes a process that only serves: keeps freed memory, and runs the garbage collector seldom.

    Streams leave no cycles, so their memory is freed without the collector, while each of its runs may visit every open
    stream. With 4,000 streams the setting saves 7 % of the CPU.

    Reads and writes of a burst are 64 to 256 KiB each. Mapping, clearing and unmapping their pages took 30 % of the CPU
    of a burst of 1,000 deltas. Only glibc has a call for the setting; with other C libraries nothing changes.

    The process may open as many files as the system allows: the usual soft limit of 1,024 is for programs that use
    `select`.
    """
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # macOS allows fewer than it reports
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    gc.collect()
    gc.freeze()
    gc.set_threshold(LIMITS.collected_objects, *gc.get_threshold()[1:])
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LIMITS.heap_block)
        mallopt(_M_TRIM_THRESHOLD, LIMITS.heap_kept)
