"""Places for pieces of work in the turns of a loop: work that comes for many streams at once leaves room for others."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque


class Pace:
    """Lets a number of pieces of work begin in a turn of the loop; further ones wait for the next turns, where callers
    take turns: of one caller's work, first come, first served. Sockets are read between turns.

    Args:
        loop: The loop.
        most: The number.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._most = most
        self._begun = 0  # in this turn of the loop
        # By caller; the next one first. A dict would look at each place from which one was taken before.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def place(self, caller: str) -> None:
        """Returns when a piece of work may begin: at once if there is a place in this turn.

        Args:
            caller: The name of the caller that it is for.
        """
        if self._begun < self._most and not self._waiting:
            self._begin()
            return
        place = self._loop.create_future()
        self._waiting.setdefault(caller, deque()).append(place)
        await place

    def _begin(self) -> None:
        if not self._begun:
            self._loop.call_soon(self._next_turn)
        self._begun += 1

    def _next_turn(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < self._most:
            caller, places = self._waiting.popitem(last=False)
            place = places.popleft()
            if places:
                self._waiting[caller] = places
            if not place.done():  # it may be cancelled
                place.set_result(None)
                self._begin()
