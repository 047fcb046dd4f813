"""The processor time of this process, for the commands that measure and are measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

BUSY: Final = 0.9
"""The share of a core above which a process of one thread may be the bottleneck."""
MOCK_HEADER: Final = "x-gai-mock-cpu"
"""The header with a mock's share of a core."""
_SECONDS: Final = 1.0
"""The time over which a share is taken: shorter ones are those of single requests."""


class ProcessorShare:
    """Measures the share of a core that this process used in the last whole second in which it was asked.

    Args:
        clock: Monotonic seconds.
        used: Seconds of processor time.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, used: Callable[[], float] = time.process_time
    ) -> None:
        self._clock = clock
        self._used = used
        self._at = clock()
        self._before = used()
        self._share = 0.0

    def share(self) -> float:
        """Returns the share, 0 before the first second."""
        passed = self._clock() - self._at
        if passed >= _SECONDS:
            used = self._used()
            self._share = (used - self._before) / passed
            self._at, self._before = self._at + passed, used
        return self._share
