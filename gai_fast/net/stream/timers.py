"""`StreamTimers`: the timers of one stream.

Owns which of them run, and their end. The session decides what is due, and when.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from gai_fast.runtime.timers import Timer, Timers


class StreamTimers:
    """The timers of one stream.

    Args:
        timers: The loop's timers.
        loop: The loop. It is precise to the millisecond, as retries and processors need it.
    """

    def __init__(self, timers: Timers, loop: asyncio.AbstractEventLoop) -> None:
        self._timers = timers
        self._loop = loop
        self._due: Timer | None = None
        self._attempt: asyncio.TimerHandle | None = None
        self._tick: asyncio.TimerHandle | None = None
        self.late_due = math.inf
        """The time at which a complete answer ends without its end mark. Infinite before its finish reason."""
        self.tick_ms = 0
        """The time for which `wait_for_tick` was called last, in milliseconds."""

    @property
    def awaits_attempt(self) -> bool:
        """Whether the next attempt has been planned, and not been made."""
        return self._attempt is not None

    @property
    def awaits_tick(self) -> bool:
        """Whether processors hold events back until a time."""
        return self._tick is not None

    def now(self) -> float:
        """Returns monotonic seconds."""
        return self._loop.time()

    def wait_until(self, due: float, call: Callable[[], object]) -> None:
        """Calls at a due time, in place of the one before. No time is due at infinity.

        The timer is armed lazily: events only change the due times, and the session reads them when it fires.
        """
        if self._due is not None:
            self._due.cancel()
        self._due = self._timers.schedule(due, call) if due < math.inf else None

    def wait_for_attempt(self, delay: float, call: Callable[[], object]) -> None:
        """Calls after a delay, for the next attempt."""
        self._attempt = self._loop.call_later(delay, call)

    def wait_for_tick(self, due_ms: int, delay: float, call: Callable[[], object]) -> None:
        """Calls after a delay, for events that processors hold back, in place of the call before.

        Args:
            due_ms: The time of the call, on the clock of the processors.
            delay: The seconds until then.
            call: The function.
        """
        if self._tick is not None:
            self._tick.cancel()
        self.tick_ms = due_ms
        self._tick = self._loop.call_later(delay, call)

    def attempt_begins(self) -> None:
        """Notes that the next attempt's delay is over."""
        self._attempt = None

    def ticks(self) -> None:
        """Notes that the delay of processors is over."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def stop(self) -> None:
        """Cancels all timers; idempotent."""
        if self._due is not None:  # each by itself: a tuple of them costs 200 instructions a stream
            self._due.cancel()
            self._due = None
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
