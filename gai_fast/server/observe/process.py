"""The figures of a process that all Prometheus client libraries expose: CPU, memory, descriptors, start.

Owns their names and the places from which they are read. The collector of `prometheus_client` lists every descriptor,
which would block the loop for 10 ms with 20,000 open connections.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_STARTED_FIELD = 19
"""The index of the start time among the fields of `/proc/self/stat` after the name, which may hold spaces (proc(5))."""


def process_figures(proc: Path = Path("/proc")) -> dict[str, float]:
    """Returns the figures of this process by metric name, without the `_total` of counters.

    Args:
        proc: The folder of the process information. If it does not exist (macOS), only CPU and `process_max_fds` are
            known.
    """
    figures = {"process_cpu_seconds": time.process_time()}
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY:
        figures["process_max_fds"] = most
    try:
        size, resident = (proc / "self/statm").read_text("ascii").split()[:2]
        status = (proc / "self/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        boot = next(line for line in (proc / "stat").read_text("ascii").splitlines() if line.startswith("btime "))
        open_fds = _entries(proc / "self/fd")
    except OSError:
        return figures
    return {
        **figures,
        "process_resident_memory_bytes": int(resident) * _PAGE,
        "process_virtual_memory_bytes": int(size) * _PAGE,
        "process_open_fds": open_fds,
        "process_start_time_seconds": int(boot.split()[1]) + int(status[_STARTED_FIELD]) / _TICKS,
    }


def _entries(folder: Path) -> int:
    """Returns the number of descriptors. Since Linux 6.2 it is the size of the folder; before, the size is 0."""
    return folder.stat().st_size or sum(1 for _ in folder.iterdir())
