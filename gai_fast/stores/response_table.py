"""The kept responses of one process in memory, and the form in which any store has one.

Owns the names of responses and of their items, what counts for the size of one, and which are dropped in memory.

1. The names outside this process are digests of the caller and the id. In memory they are not, which would cost time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from gai_fast.stores.backend import ResponseBudget, ResponseRecord
from gai_fast.stores.limits import LIMITS

if TYPE_CHECKING:
    from gai_fast.stores.responses import KeptResponse

Value = TypeVar("Value")

_DIGEST: Final = 16
"""Bytes of a digest."""
_PERSON: Final = b"gai-fast resp"


def record_of(caller: str, kept: KeptResponse, most: int, *, is_here: bool) -> ResponseRecord[KeptResponse] | None:
    """Returns the record of a response. None if it is too large.

    Args:
        caller: The name of its caller.
        kept: The response.
        most: The bytes that it may count for.
        is_here: It is kept in the memory of this process: rule 1.
    """
    items = kept.items[-LIMITS.response_items :]
    octets = len(kept.input) + len(kept.response)
    size = octets + LIMITS.response_cost + LIMITS.response_item_cost * len(items)
    if octets > LIMITS.response or size > most:
        return None
    name = name_of(caller, kept.identifier, is_here=is_here)
    parent = name_of(caller, kept.parent, is_here=is_here) if kept.parent else ""
    places = [name_of(caller, each, is_here=is_here) for each in items]
    return ResponseRecord(name, caller, parent, kept, size, places)


def name_of(caller: str, identifier: str, *, is_here: bool) -> str:
    """Returns the name of a response or an item: rule 1. No other caller or id has it, whatever their characters are.

    Args:
        caller: The name of its caller.
        identifier: Its id.
        is_here: It is kept in the memory of this process.
    """
    place = f"{len(caller)} {caller} {identifier}"
    return place if is_here else digest(place)


def digest(text: str) -> str:
    """Returns the digest of a name in a store."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST, person=_PERSON).hexdigest()


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
        # By name, the oldest first: the record, and the time at which it expires, in monotonic seconds.
        self._kept: OrderedDict[str, tuple[ResponseRecord[Value], float]] = OrderedDict()
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
        until = now + ttl
        self._expire(now)
        name, caller, size = record.name, record.caller, record.size
        self._remove(name)
        dropped = 0
        while self._sizes.get(caller, 0) + size > budget.of_caller and caller in self._of_callers:
            self._remove(next(iter(self._of_callers[caller])))
            dropped += 1
        while self.size + size > budget.of_all and self._kept:
            self._remove(next(iter(self._kept)))
            dropped += 1
        self._kept[name] = record, until
        self._of_callers.setdefault(caller, OrderedDict())[name] = None
        self._sizes[caller] = self._sizes.get(caller, 0) + size
        self.size += size
        for item in record.items:
            self._items.setdefault(item, OrderedDict())[name] = None
        heappush(self._due, (until, name))
        if len(self._due) > 2 * len(self._kept) + LIMITS.response_times:
            self._due = [(time, place) for place, (_, time) in self._kept.items()]
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
                record = kept[0]
                found.append((name, record.value))
                size += record.size
                if size >= most:
                    return found
                name = record.parent
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
            if kept is not None and kept[1] <= now:  # it may have been kept again
                self._remove(name)

    def _remove(self, name: str) -> bool:
        """Removes a response; returns whether it was kept."""
        kept = self._kept.pop(name, None)
        if kept is None:
            return False
        record = kept[0]
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
