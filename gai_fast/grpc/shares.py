"""The choice of what makes room where too many ask: the oldest of the address that has the most."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


def from_the_most(held: Mapping[str, Collection[T]], number: int) -> Iterator[T]:
    """Yields what must go to make room, one at a time: each time one of the address that has the most left.

    Args:
        held: What each address has; not changed while this runs.
        number: The most that are yielded.
    """
    heap = [(-len(each), address, iter(each)) for address, each in held.items() if each]
    heapq.heapify(heap)
    for _ in range(number):
        if not heap:
            return
        count, address, rest = heap[0]
        yield next(rest)
        if count == -1:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (count + 1, address, rest))
