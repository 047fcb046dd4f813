"""What waits for something that callers share: callers take turns; of one caller's, first come, first served.

A room to wait in gives half of itself to a caller with a name. Without keys there is one caller, which is everybody.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from gai_fast.model.settings import ANONYMOUS

_T = TypeVar("_T")


class CallerTurns(Generic[_T]):
    """What waits, in the order of turns.

    Attributes:
        count: How much waits.
    """

    __slots__ = ("_waiting", "count")

    def __init__(self) -> None:
        self.count = 0
        # By caller; the next one first. A dict would look at each place from which one was taken before.
        self._waiting: OrderedDict[str, OrderedDict[_T, None]] = OrderedDict()

    def has_room(self, caller: str, most: int) -> bool:
        """Returns whether one more of a caller may wait.

        Args:
            caller: The caller's name.
            most: The room.
        """
        own = self._waiting.get(caller, ())
        return self.count < most and (caller == ANONYMOUS or len(own) < max(1, most // 2))

    def add(self, caller: str, waits: _T) -> None:
        """Adds what waits, behind the others of its caller."""
        own = self._waiting.get(caller)
        if own is None:
            own = self._waiting[caller] = OrderedDict()
        own[waits] = None
        self.count += 1

    def remove(self, caller: str, waits: _T) -> bool:
        """Removes what waits no longer. Returns whether it was there."""
        own = self._waiting.get(caller)
        if own is None or waits not in own:
            return False
        del own[waits]
        self.count -= 1
        if not own:
            del self._waiting[caller]
        return True

    def take(self, may: Callable[[str], bool] | None = None) -> _T | None:
        """Takes out what is next; its caller is then the last one. None if nothing is.

        Args:
            may: Returns whether it is a caller's turn at all. None if it is each caller's.
        """
        caller = next((each for each in self._waiting if may is None or may(each)), None)
        if caller is None:
            return None
        own = self._waiting.pop(caller)
        waits, _ = own.popitem(last=False)
        if own:
            self._waiting[caller] = own
        self.count -= 1
        return waits


class NoPlace(Exception):
    """There is no room to wait for a place."""


class Places:
    """A number of places. None is empty while somebody waits, and who waits has it in turn. Belongs to one loop.

    Args:
        places: The number.
        room: How many may wait.
    """

    __slots__ = ("_free", "_room", "_turns")

    def __init__(self, places: int, room: int) -> None:
        self._free = places
        self._room = room
        self._turns: CallerTurns[asyncio.Future[None]] = CallerTurns()

    async def take(self, caller: str) -> None:
        """Returns once a caller has a place. `give_back` must follow.

        Raises:
            NoPlace: Too many wait, or half as many of this caller.
        """
        if self._free:
            self._free -= 1
            return
        if not self._turns.has_room(caller, self._room):
            raise NoPlace
        place = asyncio.get_running_loop().create_future()
        self._turns.add(caller, place)
        try:
            await place
        except asyncio.CancelledError:
            if not self._turns.remove(caller, place) and not place.cancelled():
                self.give_back()  # it was given in the same turn of the loop
            raise

    def give_back(self) -> None:
        """Gives a place to the next one that waits."""
        while (place := self._turns.take()) is not None:
            if not place.done():  # it may be cancelled
                place.set_result(None)
                return
        self._free += 1
