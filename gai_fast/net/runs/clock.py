"""The time of one run, which stands still while it waits for approvals (RUNS §3: `seconds`).

Owns the timer of the run's end. Knows neither the run's calls nor its stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gai_fast.runtime.timers import Timer, Timers


class RunClock:
    """The time that a run has left.

    Args:
        timers: The loop's timers.
        seconds: The time of the whole run.
        on_over: Called once, when none is left.
    """

    __slots__ = ("_began", "_is_over", "_left", "_on_over", "_timer", "_timers", "_waited_until")

    def __init__(self, timers: Timers, seconds: float, on_over: Callable[[], object]) -> None:
        self._timers = timers
        self._left = seconds
        self._on_over = on_over
        self._timer: Timer | None = None  # None while the time stands still
        self._began = 0.0
        self._waited_until = -math.inf
        self._is_over = False

    def left(self) -> float:
        """Returns the seconds that are left; below 0 if the loop was late."""
        return self._left if self._timer is None else self._left - (self._timers.clock() - self._began)

    def set_left(self, seconds: float) -> None:
        """Sets what a run that goes on has left, before its clock goes."""
        self._left = seconds

    def since_wait(self) -> float:
        """Returns the seconds since the run last waited; infinite if it never has."""
        return self._timers.clock() - self._waited_until

    def go_on(self) -> None:
        """Lets the time go on. Time that is used up, by a loop that was late, ends at the next tick."""
        if self._timer is None and not self._is_over:
            self._began = now = self._timers.clock()
            self._timer = self._timers.schedule(now + max(0.0, self._left), self._end)

    def wait(self) -> None:
        """Stops the time: the run waits for an approval."""
        self.stop()
        self._waited_until = self._timers.clock()

    def stop(self) -> None:
        """Stops the time; idempotent."""
        if self._timer is not None:
            self._left = self.left()
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Ends before its time: nothing is called any more."""
        self.stop()
        self._is_over = True
        self._on_over = _nothing

    def _end(self) -> None:
        self._timer = None
        self._is_over = True
        self._left = 0.0
        self._on_over()


def _nothing() -> None:
    """Does nothing."""
