"""`LoopLag`: how late the event loop is.

A callback is due every `limits.loop_check` seconds; the time by which the loop is late for it is one value of the
histogram. Ten checks a second take 0.1 % of a core if nothing else runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gai_fast.server.limits import LIMITS


class LoopLag:
    """Looks at a loop until it is closed.

    Args:
        loop: The loop.
        observe: Gets the seconds of each look.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, observe: Callable[[float], None]) -> None:
        self._loop = loop
        self._observe = observe
        self._wait()

    def _wait(self) -> None:
        # The loop's own clock may stand still within a turn, and its timers may be early by its resolution.
        self._due = time.monotonic() + LIMITS.loop_check
        self._handle = self._loop.call_later(LIMITS.loop_check, self._look)

    def _look(self) -> None:
        self._observe(max(0.0, time.monotonic() - self._due))
        self._wait()

    def close(self) -> None:
        """Looks no more; idempotent."""
        self._handle.cancel()
