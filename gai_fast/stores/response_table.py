"""Kept responses in the memory of one process: which are kept, and which make room.

Owns the order in which they are dropped. The server's only process has such a table, or the supervisor of its workers.

1. Beyond the budget of a caller, the caller's oldest are dropped, beyond that of all the oldest of all. A response that
   is kept again is the newest.
2. What has expired is not found. It is removed before anything is dropped.
3. Each removal costs a logarithm at most: the orders are linked lists, and a heap of times.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Generic, NamedTuple, TypeVar

from gai_fast.stores.backend import ResponseBudget, ResponseRecord
from gai_fast.stores.limits import LIMITS

Value = TypeVar("Value")


class _Kept(NamedTuple, Generic[Value]):
    """A record, and the time at which it expires, in monotonic seconds."""

    record: ResponseRecord[Value]
    until: float


class ResponseTable(Generic[Value]):
    """The kept responses of one process, lost with it.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, _Kept[Value]] = OrderedDict()  # by name, the oldest first
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
        self._kept[name] = _Kept(record, now + ttl)
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
