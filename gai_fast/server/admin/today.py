"""`Today`: the spend of this UTC day by key and by model, for samples.

Owns how often the ledger is asked, and how many rows are shown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gai_fast.ledger import GroupBy, Ledger
from gai_fast.ledger.ledger import date_of
from gai_fast.server.admin.bodies import SpendToday, Spent
from gai_fast.server.admin.spend_report import shown
from gai_fast.server.limits import LIMITS
from gai_fast.stores.backend import StoreError


class Today:
    """Asks the ledger at most every `limits.spend_interval` seconds.

    Args:
        ledger: Has the spend.
        clock: Returns monotonic seconds.
        wall: Returns seconds since the epoch.
    """

    def __init__(
        self, ledger: Ledger, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._wall = wall
        self._known: SpendToday | None = None
        self._due = -float("inf")

    async def spend(self) -> SpendToday | None:
        """Returns the spend. `None` if the store does not answer now."""
        if self._clock() >= self._due:
            self._due = self._clock() + LIMITS.spend_interval
            try:
                async with asyncio.timeout(LIMITS.sample_interval):
                    self._known = await self._ask()
            except (StoreError, TimeoutError):
                self._known = None
        return self._known

    async def _ask(self) -> SpendToday:
        day = date_of(self._wall())
        return SpendToday(day, await self._rows("key", day), await self._rows("model", day))

    async def _rows(self, by: GroupBy, day: str) -> list[Spent]:
        rows = sorted(await self._ledger.spend(by, day, day), key=lambda row: -row.amount)[: LIMITS.spend_sampled]
        return [shown(by, row) for row in rows]
