"""One timer wheel per loop: every heartbeat and every timeout of every stream.

Owns the time at which a callback runs. Knows nothing about streams. A stream has one or two timers, most of which never
fire: setting and cancelling must be cheap, firing need not be. An active stream does not reset its timer; it reads the
clock when the timer fires (`upstream.Exchange`).

1. A timer never fires early; it fires at most one tick and the loop's own delay late.
2. Without a timer nothing runs: the loop has at most one handle of the wheel, for the earliest tick with a timer.
3. If the loop was blocked (a blocking call, SIGSTOP), sockets are read before timers fire: the wheel waits one tick
   more, so that an upstream that has sent data does not count as silent. uvloop runs timers before it reads.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from mypy_extensions import mypyc_attr

from gai_fast.runtime.limits import LIMITS


def _nothing() -> None: ...


_NOTHING: Final = _nothing  # a constant, because a name lookup costs 30 ns


# Classes, not protocols: compiled code calls a protocol's methods through the interpreter, 300 instructions per call.


@mypyc_attr(allow_interpreted_subclasses=True)
class Timer(ABC):
    """A callback that waits for its time."""

    @abstractmethod
    def cancel(self) -> None:
        """Cancels the callback; idempotent."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Timers(ABC):
    """The part of `TimerWheel` that streams and connections use.

    Attributes:
        clock: Returns monotonic seconds.
    """

    clock: Callable[[], float]

    @abstractmethod
    def schedule(self, deadline: float, callback: Callable[[], object]) -> Timer:
        """Runs a callback once the clock shows `deadline`."""
        raise NotImplementedError


class TimerHandle(Timer):
    """A callback that waits for its time. Created by `TimerWheel.schedule`."""

    def __init__(self, wheel: TimerWheel, slot: _Slot, callback: Callable[[], object]) -> None:
        self._wheel = wheel
        self._slot: _Slot | None = slot  # None after it has run or was cancelled
        self._before: TimerHandle | None = None
        self._after = slot.first
        self._callback = callback

    def cancel(self) -> None:
        """Cancels the callback; does nothing if it has run or is already cancelled."""
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.remove(self)
            self._wheel._removed()
        self._callback = _NOTHING  # breaks a reference cycle: the callback's owner usually refers to this handle


class _Slot:
    """The timers of one tick: a linked list, which costs a timer 500 instructions less than a dict.

    Attributes:
        first: The timer that was added last. None if there is none.
    """

    def __init__(self) -> None:
        self.first: TimerHandle | None = None

    def add(self, timer: TimerHandle) -> None:
        """Adds a timer made for this slot, before the first."""
        if self.first is not None:
            self.first._before = timer
        self.first = timer

    def remove(self, timer: TimerHandle) -> None:
        """Removes one of the timers."""
        before, after = timer._before, timer._after
        if before is None:
            self.first = after
        else:
            before._after = after
        if after is not None:
            after._before = before
        timer._before = timer._after = None


class TimerWheel(Timers):
    """All timers of one loop; belongs to its thread.

    Args:
        loop: The loop on which callbacks run.
        tick: Resolution, in seconds.
        clock: Returns monotonic seconds; by default the loop's clock. The loop's `call_at` must follow this clock.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tick: float = LIMITS.timer_tick,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.clock = clock or loop.time
        self._loop = loop
        self._tick = tick
        self._slots: dict[int, _Slot] = {}  # tick number → its timers
        self._numbers: list[int] = []  # a heap of the keys of _slots
        self._first = 0  # the lowest tick that a new timer may get
        self._count = 0
        self._handle: asyncio.TimerHandle | None = None
        self._armed = 0  # the tick of _handle
        self._waited = False  # whether the wheel has waited the extra tick of rule 3

    def __len__(self) -> int:
        return self._count

    def schedule(self, deadline: float, callback: Callable[[], object]) -> TimerHandle:
        """Runs a callback once the clock shows at least `deadline` (seconds); if that is past, with the next tick.

        An exception in the callback goes to the loop's exception handler and affects no other timer.
        """
        number = math.ceil(deadline / self._tick)
        if number * self._tick < deadline:  # the quotient was rounded down
            number += 1
        number = max(number, self._first)
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = _Slot()
            heapq.heappush(self._numbers, number)
        timer = TimerHandle(self, slot, callback)
        slot.add(timer)
        self._count += 1
        if self._handle is None or number < self._armed:
            self._arm(number)
        return timer

    def _removed(self) -> None:
        self._count -= 1
        if not self._count:
            self._slots.clear()
            self._numbers.clear()
            self._disarm()

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, number: int) -> None:
        self._disarm()
        self._armed = number
        self._handle = self._loop.call_at(number * self._tick, self._wake)

    def _wake(self) -> None:
        self._handle = None
        now = self.clock()
        if now - self._armed * self._tick > LIMITS.timer_late and not self._waited:
            self._waited = True
            self._handle = self._loop.call_at(now + self._tick, self._wake)
            return
        self._waited = False
        # A timer that a callback sets for the past gets the next tick, so this loop ends.
        self._first = math.floor(now / self._tick) + 1
        try:
            while self._numbers and self._numbers[0] * self._tick <= now:
                slot = self._slots[self._numbers[0]]
                timer = slot.first
                if timer is None:
                    del self._slots[heapq.heappop(self._numbers)]
                    continue
                slot.remove(timer)
                timer._slot = None
                self._count -= 1
                timer._callback()
        finally:
            if self._count:
                self._arm(self._numbers[0])
            else:
                self._slots.clear()
                self._numbers.clear()
