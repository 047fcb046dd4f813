"""The records of `memory://`, and how many idempotency keys this process may hold in any store.

Owns the bounds of both. Knows no store outside the process.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from gai_fast.model.errors import Error
from gai_fast.stores.backend import Records, check_size
from gai_fast.stores.limits import LIMITS

_STEPS: Final = 256
"""Steps in which the time of a key is counted: a key counts for at most one step longer than it is taken."""


def no_room_error() -> Error:
    """Returns the error for a record that has no room."""
    return Error("overloaded", "there is no room for another idempotency key", reason="store")


class ClaimBudget:
    """Counts the keys that this process holds, by caller.

    A caller may hold as many keys as are free, so no caller takes the room of the others. A lone caller gets half of
    all keys; a second caller then gets a quarter, and both come to a third as keys expire.

    Args:
        ttl: Seconds for which a key is taken.
        clock: Monotonic seconds.
    """

    def __init__(self, ttl: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.use(ttl)
        self._taken: deque[tuple[float, Counter[str]]] = deque()  # expiry time and keys by caller, for each step
        self._held: Counter[str] = Counter()
        self._count = 0

    def use(self, ttl: float) -> None:
        """Counts each further key for `ttl` seconds. Keys that are counted already keep their time."""
        self._ttl = ttl
        self._step = ttl / _STEPS

    def take(self, caller: str) -> None:
        """Counts one more key.

        Args:
            caller: The caller that holds the key.

        Raises:
            Overloaded: The caller holds as many keys as are free.
        """
        now = self._clock()
        while self._taken and self._taken[0][0] <= now:
            for holder, count in self._taken.popleft()[1].items():
                _lower(self._held, holder, count)
                self._count -= count
        if self._held[caller] >= LIMITS.claims - self._count:
            raise no_room_error()
        due = now + self._ttl
        if not self._taken or due - self._taken[-1][0] >= self._step:
            self._taken.append((due + self._step, Counter()))
        self._taken[-1][1][caller] += 1
        self._held[caller] += 1
        self._count += 1

    def give_back(self, caller: str) -> None:
        """Stops counting the caller's newest key.

        Args:
            caller: The caller that held the key.
        """
        for _, taken in reversed(self._taken):
            if taken[caller]:
                _lower(taken, caller, 1)
                _lower(self._held, caller, 1)
                self._count -= 1
                return


def _lower(counts: Counter[str], caller: str, count: int) -> None:
    counts[caller] -= count
    if not counts[caller]:
        del counts[caller]


class _Kept(NamedTuple):
    """A record in memory.

    Args:
        value: Its value.
        until: The time at which it expires, in monotonic seconds. Infinity if it never does.
        holder: The caller that it is counted for.
    """

    value: bytes
    until: float
    holder: str

    @property
    def cost(self) -> int:
        """The number of records that it counts as."""
        return 1 + len(self.value) // LIMITS.record_unit


class RecordTable:
    """The records of one process, lost with it.

    Each kind has room for `limits.records`. A holder may hold as many records as are free, as in `ClaimBudget`.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._records: dict[tuple[str, str], _Kept] = {}  # by kind and name
        self._due: list[tuple[float, tuple[str, str]]] = []  # a heap of expiry times, also of removed records
        self._held: Counter[tuple[str, str]] = Counter()  # by kind and holder
        self._counts: Counter[str] = Counter()  # by kind

    def __len__(self) -> int:
        return len(self._records)

    def get(self, kind: str, name: str) -> bytes | None:
        """Returns the value of a record; as `Records.get`."""
        record = self._records.get((kind, name))
        return None if record is None or record.until <= self._clock() else record.value

    def put(self, kind: str, name: str, value: bytes, ttl: float | None, holder: str) -> None:
        """Writes a record; as `Records.put`."""
        self._expire()
        record = _Kept(value, math.inf if ttl is None else self._clock() + ttl, holder)
        former = self._records.get((kind, name))
        self._remove(kind, name)
        # The record counts unit by unit. Before each unit, the holder must hold less than what is free.
        if self._held[kind, holder] + self._counts[kind] + 2 * (record.cost - 1) >= LIMITS.records:
            if former is not None:
                self._add(kind, name, former)
            raise no_room_error()
        self._add(kind, name, record)
        if ttl is not None:
            heappush(self._due, (record.until, (kind, name)))
            if len(self._due) > 2 * len(self._records) + LIMITS.record_times:
                self._due = [(each.until, place) for place, each in self._records.items() if each.until < math.inf]
                heapify(self._due)

    def swap(self, kind: str, name: str, old: bytes | None, new: bytes, ttl: float | None, holder: str) -> bytes | None:
        """Writes a record if its value is `old`; as `Records.swap`."""
        found = self.get(kind, name)
        if found == old:
            self.put(kind, name, new, ttl, holder)
        return found

    def delete(self, kind: str, name: str, old: bytes | None) -> bool:
        """Removes a record; as `Records.delete`."""
        found = self.get(kind, name)
        if found is None or (old is not None and found != old):
            return False
        self._remove(kind, name)
        return True

    def _expire(self) -> None:
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            place = heappop(self._due)[1]
            record = self._records.get(place)
            if record is not None and record.until <= now:  # it may have been written again
                self._remove(*place)

    def _add(self, kind: str, name: str, record: _Kept) -> None:
        self._records[kind, name] = record
        self._held[kind, record.holder] += record.cost
        self._counts[kind] += record.cost

    def _remove(self, kind: str, name: str) -> None:
        record = self._records.pop((kind, name), None)
        if record is not None:
            self._counts[kind] -= record.cost
            self._held[kind, record.holder] -= record.cost
            if not self._held[kind, record.holder]:
                del self._held[kind, record.holder]


class MemoryRecords(Records):
    """The records of `memory://` with one process. No call waits.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._table = RecordTable(clock)

    async def get(self, kind: str, name: str) -> bytes | None:
        """Returns the value of a record; as `Records.get`."""
        return self._table.get(kind, name)

    async def put(self, kind: str, name: str, value: bytes, ttl: float | None, holder: str = "") -> None:
        """Writes a record; as `Records.put`."""
        check_size(value)
        self._table.put(kind, name, value, ttl, holder)

    async def swap(
        self,
        kind: str,
        name: str,
        old: bytes | None,
        new: bytes,
        ttl: float | None,
        holder: str = "",
        *,
        is_synced: bool = False,
    ) -> bytes | None:
        """Writes a record if its value is `old`; as `Records.swap`."""
        check_size(new)
        return self._table.swap(kind, name, old, new, ttl, holder)

    async def delete(self, kind: str, name: str, old: bytes | None = None) -> bool:
        """Removes a record; as `Records.delete`."""
        return self._table.delete(kind, name, old)
