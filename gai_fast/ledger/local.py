"""`LocalLedger`: the ledger of a server with one worker and no store outside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from gai_fast.ledger._base import (
    GRANTED,
    REFUSED,
    Caps,
    Demand,
    GroupBy,
    LimitUsage,
    Period,
    SpendEntry,
    SpendRow,
    labels_of,
)
from gai_fast.ledger.home import Home
from gai_fast.ledger.ledger import Grown, Ledger, Ticket, date_of
from gai_fast.ledger.state import KeyState
from gai_fast.model.money import Amount
from gai_fast.model.settings import figure_label

_HERE: Final = ""
"""The name of the only worker."""


class LocalLedger(Ledger):
    """Decides at once. Its counts end with the process.

    Args:
        clock: Monotonic seconds.
        wall: As for `Ledger`.
    """

    outlives_worker = False

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        super().__init__(wall)
        self._clock = clock
        self._home = Home(clock)

    def charge(self, entry: SpendEntry) -> None:
        """Adds to the spend; as `Ledger.charge`."""
        self._home.charge(entry)

    async def spend(self, by: GroupBy, since: str | None = None, until: str | None = None) -> list[SpendRow]:
        """Returns the spend; as `Ledger.spend`."""
        return self._home.book.rows(by, since, until)

    async def spent(self, key: str, period: Period) -> Amount:
        """Returns the spend of a key; as `Ledger.spent`."""
        return self._home.state(key).spent.get(labels_of(date_of(self._wall()), self.currency)[period], 0)

    async def _reset(self, key: str, labels: Sequence[str]) -> None:
        self._home.state(key).reset(labels)
        limits = self._limits.get(figure_label(key))
        caps = None if limits is None else self._caps_today(key, limits)
        if caps is not None:
            self._state(key, caps)  # streams under way still count their use

    def _try(self, key: str, caps: Caps, demand: Demand) -> Amount | None:
        state, now = self._state(key, caps)
        verdict = state.decide(_HERE, caps, demand, now)
        if verdict.place != GRANTED:
            raise self._refusal(key, verdict, caps)
        return verdict.reserved

    async def _ask(self, key: str, caps: Caps, demand: Demand) -> Amount:
        raise AssertionError("every request is decided at once")

    def _grow(self, key: str, caps: Caps, demand: Demand, then: Grown) -> None:
        state, now = self._state(key, caps)
        verdict = state.decide(_HERE, caps, demand, now)
        then(verdict.reserved if verdict.place == GRANTED else REFUSED)

    def _give_back(self, ticket: Ticket, more: Amount, tokens: int = 0) -> None:
        self._home.state(ticket.key.name).holders[_HERE].reserved -= more

    def _return(self, ticket: Ticket) -> None:
        self._end(ticket, -(ticket.demand.taken_from is None), -ticket.demand.tokens)

    def _settle(self, ticket: Ticket, tokens: int) -> None:
        self._end(ticket, 0, tokens - ticket.demand.tokens)

    def _end(self, ticket: Ticket, requests: int, tokens: int) -> None:
        state = self._home.state(ticket.key.name)
        now = self._clock()
        holder = state.holders[_HERE]
        state.report(_HERE, requests, tokens, now, holder.live - 1, holder.reserved - ticket.reserved, now)

    def _used(self, key: str, caps: Caps) -> LimitUsage:
        state, now = self._state(key, caps)
        return state.used(caps, now)

    def _state(self, key: str, caps: Caps) -> tuple[KeyState, float]:
        """Returns the state of a key, whose limits are these from now on, and the time."""
        state, now = self._home.state(key), self._clock()
        state.use(caps, now)
        return state, now
