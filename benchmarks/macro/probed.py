"""`python -m benchmarks.macro.probed FILE serve …`: `gai-fast serve` whose loop is looked at.

A timer of the loop fires every millisecond. Each second a line is added to `FILE`: the longest time between two of them
in milliseconds, and the longest one of the processor's own. The former leaves out what the kernel says that the process
waited for a processor, since a busy machine is none of the loop's stalls.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import uvloop

from gai_fast.cli import main

TICK: Final = 0.001
"""Seconds."""
REPORT: Final = 1.0
"""Seconds between two lines."""


class Probe:
    """Looks at the running loop.

    Args:
        file: Gets the lines.
    """

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", buffering=1)
        self._waits = os.open("/proc/self/schedstat", os.O_RDONLY)
        self._loop = asyncio.get_running_loop()
        self._stall = self._work = 0.0
        self._reported = time.monotonic()
        self._last = self._times()
        self._next = self._loop.call_later(TICK, self._tick)

    def close(self) -> None:
        """Looks no more."""
        self._next.cancel()
        self._file.close()
        os.close(self._waits)

    def _times(self) -> tuple[float, float]:
        """Returns the seconds that passed, except waits for a processor, and the seconds of the processor."""
        waited = int(os.pread(self._waits, 64, 0).split()[1]) / 1e9
        return time.monotonic() - waited, time.thread_time()

    def _tick(self) -> None:
        times = self._times()
        self._stall = max(self._stall, times[0] - self._last[0])
        self._work = max(self._work, times[1] - self._last[1])
        self._last = times
        now = time.monotonic()
        if now >= self._reported + REPORT:
            self._file.write(f"{self._stall * 1000:.2f} {self._work * 1000:.2f}\n")
            self._stall = self._work = 0.0
            self._reported = now
        self._next = self._loop.call_later(TICK, self._tick)


def _main(file: Path, arguments: list[str]) -> None:
    run = uvloop.run

    def probed(work: Coroutine[Any, Any, None]) -> None:
        async def both() -> None:
            probe = Probe(file)
            try:
                await work
            finally:
                probe.close()

        run(both())

    uvloop.run = probed
    sys.argv = ["gai-fast", *arguments]
    main()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
