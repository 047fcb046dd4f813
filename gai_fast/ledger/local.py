"""`LocalLedger`: the ledger of a server with one worker and no store outside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from gai_fast.ledger._base import By, Caps, Left, Period, SpendEntry, SpendRow, label_of
from gai_fast.ledger.home import Home
from gai_fast.ledger.ledger import Ledger, Ticket, date_of, refusal
from gai_fast.ledger.state import GRANTED
from gai_fast.model.money import Amount

_HERE: Final = ""
"""The name of the only worker."""


class LocalLedger(Ledger):
    """Decides at once. What it holds ends with the process.

    Args:
        clock: Monotonic seconds.
        wall: As for `Ledger`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        super().__init__(wall)
        self._clock = clock
        self._home = Home(clock)

    def charge(self, entry: SpendEntry) -> None:
        """Adds to the spend; as `Ledger.charge`."""
        self._home.charge(entry)

    async def spend(self, by: By, since: str | None = None, until: str | None = None) -> list[SpendRow]:
        """Returns the spend; as `Ledger.spend`."""
        return self._home.book.rows(by, since, until)

    async def spent(self, key: str, period: Period) -> Amount:
        """Returns the spend of a key; as `Ledger.spent`."""
        return self._home.state(key).spent.get(label_of(period, date_of(self._wall()), self.currency), 0)

    def _try(self, key: str, caps: Caps, tokens: int) -> bool:
        state = self._home.state(key)
        now = self._clock()
        state.use(caps, now)
        verdict, wait = state.decide(_HERE, caps, tokens, now, now)
        if verdict != GRANTED:
            raise refusal(verdict, wait, caps)
        return True

    async def _ask(self, key: str, caps: Caps, tokens: int) -> None:
        raise AssertionError("every request is decided at once")

    def _return(self, ticket: Ticket) -> None:
        now = self._clock()
        self._home.state(ticket.key).end(_HERE, -1, -ticket.tokens, now)

    def _settle(self, ticket: Ticket, tokens: int) -> None:
        now = self._clock()
        self._home.state(ticket.key).end(_HERE, 0, tokens - ticket.tokens, now)

    def _left(self, key: str, caps: Caps) -> Left:
        state = self._home.state(key)
        now = self._clock()
        state.use(caps, now)
        return state.left(caps, now)
