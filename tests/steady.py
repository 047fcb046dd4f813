"""Event loops for tests of time limits, whose time does not depend on how fast the machine is.

While a process stands still, because others have the processor or because it was stopped, timers become due whose
events wait in the sockets: a test of what comes first would fail. On `SteadyLoop` such time does not pass. On
`JumpingLoop` minutes of silence pass at once.
"""

from __future__ import annotations

import asyncio
import selectors
import time

STEP = 0.005
"""The most seconds that pass in one turn of the loop, besides those for which it waits for a timer."""


class _Selector(selectors.DefaultSelector):
    """The system's selector, with a clock: if nothing happens, time passes until the next timer and no further."""

    def __init__(self) -> None:
        super().__init__()
        self._seen = self._time = time.monotonic()

    def time(self) -> float:
        return self._time + min(time.monotonic() - self._seen, STEP)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._pass(STEP)
        events: list[tuple[selectors.SelectorKey, int]] = super().select(timeout)
        self._pass(STEP if events or timeout is None else max(timeout, STEP))
        return events

    def _pass(self, most: float) -> None:
        now = time.monotonic()
        self._time += min(now - self._seen, most)
        self._seen = now


class SteadyLoop(asyncio.SelectorEventLoop):
    """asyncio's loop on that clock."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Seconds of the loop's own, monotonic clock."""
        return self._clock.time()


class _JumpingSelector(selectors.DefaultSelector):
    """The system's selector, with a clock: if nothing has happened, time jumps to the next timer.

    What one socket of a machine sends, another has at once: nothing is on its way.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ahead = 0.0

    def time(self) -> float:
        return time.monotonic() + self._ahead

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(timeout)
        events: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not events:
            self._ahead += max(timeout, 0.0)
        return events


class JumpingLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, whose time jumps where nothing happens: minutes of silence take milliseconds."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Seconds of the loop's own, monotonic clock."""
        return self._clock.time()
