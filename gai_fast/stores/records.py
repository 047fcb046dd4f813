"""The records and kept responses of `memory://`, and how many idempotency keys this process may hold in any store.

Owns the bounds of all three. Knows no store outside the process.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Final, Generic, NamedTuple, TypeVar

from gai_fast.model.errors import Error
from gai_fast.stores.backend import Records, ResponseBudget, ResponseRecord, check_size
from gai_fast.stores.limits import LIMITS

Value = TypeVar("Value")

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
        holder: The caller for whom it counts.
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
        self, kind: str, name: str, old: bytes | None, new: bytes, ttl: float | None, holder: str = ""
    ) -> bytes | None:
        """Writes a record if its value is `old`; as `Records.swap`."""
        check_size(new)
        return self._table.swap(kind, name, old, new, ttl, holder)

    async def delete(self, kind: str, name: str, old: bytes | None = None) -> bool:
        """Removes a record; as `Records.delete`."""
        return self._table.delete(kind, name, old)


class _KeptResponse(NamedTuple, Generic[Value]):
    """A record, and the time at which it expires, in monotonic seconds."""

    record: ResponseRecord[Value]
    until: float


class ResponseTable(Generic[Value]):
    """The kept responses of one process, lost with it.

    Beyond the budget of a caller, the caller's oldest are dropped, beyond that of all the oldest of all. A response
    that is kept again is the newest. What has expired is not found, and is removed before anything is dropped. Each
    removal costs a logarithm at most: the orders are linked lists, and a heap of times.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, _KeptResponse[Value]] = OrderedDict()  # by name, the oldest first
        self._of_callers: dict[str, OrderedDict[str, None]] = {}  # the names of each caller, the oldest first
        self._sizes: dict[str, int] = {}  # by caller
        self._items: dict[str, OrderedDict[str, None]] = {}  # the names by item, the oldest first
        self._due: list[tuple[float, str]] = []  # a heap of expiry times and names, also of removed ones
        self.size = 0
        """The bytes of all."""

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, record: ResponseRecord[Value], ttl: float, budget: ResponseBudget) -> int:
        """Keeps a response; as `Backend.keep_response`."""
        now = self._clock()
        self._expire(now)
        self._remove(record.name)
        name, caller, size = record.name, record.caller, record.size
        dropped = 0
        while self._sizes.get(caller, 0) + size > budget.of_caller and caller in self._of_callers:
            self._remove(next(iter(self._of_callers[caller])))
            dropped += 1
        while self.size + size > budget.of_all and self._kept:
            self._remove(next(iter(self._kept)))
            dropped += 1
        self._kept[name] = _KeptResponse(record, now + ttl)
        self._of_callers.setdefault(caller, OrderedDict())[name] = None
        self._sizes[caller] = self._sizes.get(caller, 0) + size
        self.size += size
        for item in record.items:
            self._items.setdefault(item, OrderedDict())[name] = None
        heappush(self._due, (now + ttl, name))
        if len(self._due) > 2 * len(self._kept) + LIMITS.response_times:
            self._due = [(each.until, place) for place, each in self._kept.items()]
            heapify(self._due)
        return dropped

    def read(self, names: Sequence[str], turns: int, most: int) -> list[tuple[str, Value]]:
        """Returns responses and those before them; as `Backend.read_responses`."""
        self._expire(self._clock())
        found: list[tuple[str, Value]] = []
        size = 0
        for first in names:
            name = first
            for _ in range(turns):
                kept = self._kept.get(name)
                if kept is None:
                    break
                found.append((name, kept.record.value))
                size += kept.record.size
                if size >= most:
                    return found
                name = kept.record.parent
        return found

    def holding(self, items: Mapping[str, str]) -> dict[str, str]:
        """Returns the names of responses with some items; as `Backend.responses_with`."""
        self._expire(self._clock())
        found: dict[str, str] = {}
        for item, likely in items.items():
            holders = self._items.get(item)
            if holders:
                found[item] = next(reversed(holders))
            elif likely in self._kept:
                found[item] = likely
        return found

    def delete(self, name: str) -> bool:
        """Removes a response; as `Backend.delete_response`."""
        self._expire(self._clock())
        return self._remove(name)

    def _expire(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            name = heappop(self._due)[1]
            kept = self._kept.get(name)
            if kept is not None and kept.until <= now:  # it may have been kept again
                self._remove(name)

    def _remove(self, name: str) -> bool:
        """Removes a response; returns whether it was kept."""
        kept = self._kept.pop(name, None)
        if kept is None:
            return False
        record = kept.record
        own = self._of_callers[record.caller]
        del own[name]
        self._sizes[record.caller] -= record.size
        self.size -= record.size
        if not own:
            del self._of_callers[record.caller], self._sizes[record.caller]
        for item in record.items:
            holders = self._items.get(item)
            if holders is not None:  # a record may name an item twice
                holders.pop(name, None)
                if not holders:
                    del self._items[item]
        return True
