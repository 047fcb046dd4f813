"""`LastHour`: the figures of one process over the last hour, for a dashboard that has just been opened.

Owns how the slots of several processes are added up.

1. A slot has `limits.history_slot` seconds of wall time. All processes of a machine have the same slots.
2. A slot is taken by a timer: a request costs nothing. There are at most `limits.history_slots`, in memory, which end
   with the process.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from gai_fast.model.figures import FIRST_TOKEN_BOUNDS, GAP_BOUNDS
from gai_fast.server.admin.bodies import HistorySlot
from gai_fast.server.admin.running_streams import RunningSums, timestamp
from gai_fast.server.admin.samples import bucket_counts, error_kinds, totals
from gai_fast.server.limits import LIMITS
from gai_fast.server.observe.counts import ErrorLabels
from gai_fast.server.observe.metrics import PrometheusSink

Running = Callable[[], RunningSums]
"""Returns the sums over the running streams."""
Slot = dict[str, Any]
"""The figures of one slot, as MessagePack has them: its `number`, sums, and `kinds`, labels of errors with a count."""

_SUMS: Final = ("requests", "errors", "client_errors", "deltas", "input_tokens", "output_tokens", "bytes")
_COUNTS: Final = {"first_token_seconds": FIRST_TOKEN_BOUNDS, "gap_seconds": GAP_BOUNDS}
_SOURCES: Final = {"first_token_seconds": "time_to_first_token", "gap_seconds": "gaps"}


class LastHour:
    """Takes a slot's figures at its end, from `begin` to `close`.

    Args:
        counts: The counts of this process.
        running: As `Running`.
        wall: Returns seconds since the epoch.
    """

    def __init__(self, counts: PrometheusSink, running: Running, wall: Callable[[], float] = time.time) -> None:
        self._counts = counts
        self._running = running
        self._wall = wall
        self._slots: deque[Slot] = deque(maxlen=LIMITS.history_slots)
        self._timer: asyncio.TimerHandle | None = None
        self._number = self._slot_number()
        self._last = self._sums()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Takes the slots from now on.

        Args:
            loop: Runs the timer.
        """
        wait = LIMITS.history_slot - self._wall() % LIMITS.history_slot
        self._timer = loop.call_later(wait, self._end_slot, loop)

    def close(self) -> None:
        """Takes no more; idempotent."""
        if self._timer is not None:
            self._timer.cancel()

    def slots(self) -> list[Slot]:
        """Returns the slots, the oldest first; the last one is not over yet."""
        return [*self._slots, self._since_last()[0]]

    def _end_slot(self, loop: asyncio.AbstractEventLoop) -> None:
        slot, sums = self._since_last()
        self._slots.append(slot)
        self._last = sums
        # A timer may be early by the clock's resolution, and a suspended machine is late: the next slot is another one.
        self._number = max(self._number + 1, self._slot_number())
        self.begin(loop)

    def _slot_number(self) -> int:
        return int(self._wall() // LIMITS.history_slot)

    def _since_last(self) -> tuple[Slot, _Sums]:
        sums, last = self._sums(), self._last
        slot: Slot = {"number": self._number, "active": self._running().streams}
        # Deltas and bytes of running streams become those of ended ones one by one: the sum may fall for a moment.
        slot |= {name: max(0, sums.totals[name] - last.totals[name]) for name in _SUMS}
        for name, counts in sums.counts.items():
            slot[name] = [now - before for now, before in zip(counts, last.counts[name], strict=True)]
        limited = {name: number - last.limited.get(name, 0) for name, number in sums.limited.items()}
        slot["limited"] = {name: number for name, number in limited.items() if number > 0}
        rows = [[*labels, number - last.errors.get(labels, 0)] for labels, number in sums.errors.items()]
        slot["kinds"] = sorted((row for row in rows if row[-1]), key=_most)[: LIMITS.errors_sampled]
        return slot, sums

    def _sums(self) -> _Sums:
        return _Sums(self._counts, self._running())


class _Sums:
    """The sums of a process since its start."""

    def __init__(self, counts: PrometheusSink, running: RunningSums) -> None:
        self.totals = totals(counts, running.deltas, running.sent)
        self.counts = {name: bucket_counts(counts, _SOURCES[name], bounds) for name, bounds in _COUNTS.items()}
        self.errors: dict[ErrorLabels, int] = dict(counts.errors)
        self.limited = dict(counts.gauges["limited"]()) if "limited" in counts.gauges else {}


def together(parts: Iterable[Sequence[Slot]]) -> list[HistorySlot]:
    """Returns the slots of several processes as the admin API shows them, the oldest first.

    Args:
        parts: The result of `LastHour.slots` in each process.
    """
    by_number: dict[int, list[Slot]] = {}
    for part in parts:
        for slot in part:
            by_number.setdefault(slot["number"], []).append(slot)
    newest = sorted(by_number)[-LIMITS.history_slots - 1 :]
    return [_added(number, by_number[number]) for number in newest]


def _added(number: int, slots: Sequence[Slot]) -> HistorySlot:
    kinds: dict[ErrorLabels, int] = {}
    limited: dict[str, float] = {}
    for slot in slots:
        for name, number in slot["limited"].items():
            limited[name] = limited.get(name, 0) + number
        for code, provider, upstream, count in slot["kinds"]:
            labels = (code, provider, upstream)
            kinds[labels] = kinds.get(labels, 0) + count
    sums: dict[str, Any] = {name: sum(slot[name] for slot in slots) for name in ("active", *_SUMS)}
    for name in _COUNTS:
        sums[name] = [sum(each) for each in zip(*(slot[name] for slot in slots), strict=True)]
    return HistorySlot(
        at=timestamp(number * LIMITS.history_slot),
        **sums,
        limited=limited,
        kinds=error_kinds(kinds),
    )


def _most(row: Sequence[Any]) -> int:
    return -int(row[-1])
