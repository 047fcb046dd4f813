"""Processes of the suite: their cores, readiness, cost and end.

CPU is the kernel's own accounting of a process and all its descendants, from `/proc` (Linux): it holds on a noisy
machine where wall time does not. Knows no scenario.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

STOP_SECONDS: Final = 10.0
CPU_CLOCK: Final = 2
"""With a process's id above it: the clock of its CPU time, as clock_getcpuclockid(3) gives it."""
PAGE_KIB: Final = os.sysconf("SC_PAGE_SIZE") // 1024


class Fault(Exception):
    """A process failed; the text holds the reason."""


def cores() -> tuple[int, int] | None:
    """The core of the relay, and the one that upstream and client share; `None` where processes cannot be pinned."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[-1]) if len(usable) > 1 and shutil.which("taskset") else None


def pinned(command: Sequence[str], *, relay: bool, priority: int = 0) -> list[str]:
    """A command on its core; with a priority, ahead of all that has a lower one or none, where that is allowed."""
    pair = cores()
    ahead = ("chrt", "--fifo", str(priority)) if priority and may_go_ahead() else ()
    return [*ahead, *(("taskset", "-c", str(pair[0 if relay else 1])) if pair else ()), *command]


@functools.cache
def may_go_ahead() -> bool:
    """Whether processes may have a real-time priority (`SCHED_FIFO`): root's may, elsewhere than in some containers."""
    if shutil.which("chrt") is None:
        return False
    return not subprocess.run(["chrt", "--fifo", "1", "true"], capture_output=True, check=False).returncode


PORTS: Final = itertools.cycle(random.sample(range(10_000, 30_000), 10_000))
"""Below the range from which Linux takes the ports of outgoing connections, which would block a listener's."""


def free_port() -> int:
    """A free port on loopback, given only once."""
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):  # in use: the next one
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a cycle does not end")


class Process:
    """A process with its descendants, in a group of its own.

    Args:
        name: For messages.
        command: The command.
        log: The file of its output.
        environment: Variables besides this process's own.
        folder: Its working directory.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path
    ) -> None:
        self.name = name
        self._log = log
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment},
                    cwd=folder,
                    process_group=0,
                )
        except OSError as problem:
            raise Fault(f"{name} cannot be started: {problem}") from None

    def wait_until_it_listens(self, port: int, seconds: float) -> None:
        """Returns when the port is open.

        Raises:
            Fault: The process ended, or the port stayed closed.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise Fault(f"{self.name} does not listen after {seconds:g} s: {self._last_words()}")

    def check(self) -> None:
        """Raises:
        Fault: The process has ended.
        """
        if self._process.poll() is not None:
            raise Fault(f"{self.name} ended with code {self._process.returncode}: {self._last_words()}")

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it said nothing"

    @property
    def cpu_seconds(self) -> float:
        """User and system time of the whole tree so far, by the clocks of its processes: `stat` counts hundredths."""
        spent = 0.0
        for pid in self._stats():
            with contextlib.suppress(OSError):  # it has just ended
                spent += time.clock_gettime(~pid << 3 | CPU_CLOCK)
        return spent

    @property
    def resident_kib(self) -> int:
        """Resident memory of the whole tree."""
        return sum(int(fields[21]) * PAGE_KIB for fields in self._stats().values())

    def _stats(self) -> dict[int, list[str]]:
        """By process of the tree, the fields of `/proc/PID/stat` from the state on (proc(5))."""
        everybody = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it has just ended
                    everybody[int(entry.name)] = (entry / "stat").read_text().rpartition(") ")[2].split()
        tree = {self._process.pid}
        size = 0
        while len(tree) != size:
            size = len(tree)
            tree |= {pid for pid, fields in everybody.items() if int(fields[1]) in tree}
        return {pid: everybody[pid] for pid in tree if pid in everybody}

    @property
    def children(self) -> list[int]:
        """The processes that it has made itself."""
        pid = self._process.pid
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def stop(self) -> None:
        """Ends the whole group: SIGTERM, then SIGKILL."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self.signal(signal.SIGKILL)
        self._process.wait()

    def signal(self, number: int) -> None:
        """Sends a signal to the whole group."""
        with contextlib.suppress(ProcessLookupError):  # the group has ended
            os.killpg(self._process.pid, number)
