"""Places for pieces of work in the turns of a loop: work that comes for many streams at once leaves room for others."""

from __future__ import annotations

import asyncio

from gai_fast.runtime.turns import CallerTurns


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
        self._waiting: CallerTurns[asyncio.Future[None]] = CallerTurns()

    async def place(self, caller: str) -> None:
        """Returns when a piece of work may begin: at once if there is a place in this turn.

        Args:
            caller: The name of the caller that it is for.
        """
        if self._begun < self._most and not self._waiting.count:
            self._begin()
            return
        place = self._loop.create_future()
        self._waiting.add(caller, place)
        await place

    def _begin(self) -> None:
        if not self._begun:
            self._loop.call_soon(self._next_turn)
        self._begun += 1

    def _next_turn(self) -> None:
        self._begun = 0
        while self._begun < self._most and (place := self._waiting.take()) is not None:
            if not place.done():  # it may be cancelled
                place.set_result(None)
                self._begin()
