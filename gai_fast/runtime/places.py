"""Places that callers share: none is empty while somebody waits, and who waits has it in turn (`turns.py`)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from gai_fast.model.settings import ANONYMOUS
from gai_fast.runtime.turns import CallerTurns


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


class HalvedPlaces:
    """A number of places, of which a caller has at most half. Belongs to one loop.

    Those without a name (everybody's, or the gateway's own) are bound by all places alone.

    Args:
        places: The number.
    """

    __slots__ = ("_free", "_half", "_running", "_turns")

    def __init__(self, places: int) -> None:
        self._free = places
        self._half = places // 2
        self._running: Counter[str] = Counter()  # by caller
        self._turns: CallerTurns[asyncio.Future[None]] = CallerTurns()

    async def take(self, caller: str) -> None:
        """Returns once a caller has a place. `give_back` must follow.

        Raises:
            Exception: What `fail` was given.
        """
        if self._free and self._may_run(caller):  # those who wait have half of the places
            self._begin(caller)
            return
        place = asyncio.get_running_loop().create_future()
        self._turns.add(caller, place)
        try:
            await place
        except asyncio.CancelledError:
            if not self._turns.remove(caller, place) and not place.cancelled() and place.exception() is None:
                self.give_back(caller)  # it was given in the same turn of the loop
            raise

    def give_back(self, caller: str) -> None:
        """Gives the place of a caller to the next one that waits."""
        self._free += 1
        self._running[caller] -= 1
        if not self._running[caller]:
            del self._running[caller]
        while self._free and (found := self._turns.take_with_caller(self._may_run)) is not None:
            following, place = found
            if not place.done():  # it may be cancelled
                self._begin(following)
                place.set_result(None)

    def fail(self, caller: str, problem: Exception) -> None:
        """Fails all that waits of a caller."""
        for place in self._turns.drop(caller):
            if not place.done():
                place.set_exception(problem)

    def _may_run(self, caller: str) -> bool:
        return caller in _UNBOUND or self._running[caller] < self._half

    def _begin(self, caller: str) -> None:
        self._free -= 1
        self._running[caller] += 1


_UNBOUND: Final = ("", ANONYMOUS)
