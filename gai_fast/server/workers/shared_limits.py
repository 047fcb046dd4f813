"""The limits and the spend of keys with `memory://` and several workers: the supervisor has their state.

Owns the questions of workers to the supervisor, and its answers. It outlives every worker, and is one.

1. A worker reports, and asks, over its link (`worker.py`).
2. The workers that must be heard before the supervisor can decide are asked over the bus (`bus.py`); they answer when
   they have reported. One that is gone has nothing.
3. The supervisor reads what a worker has sent before its end, and then gives back all that it kept.
4. Amounts of spend are decimal text on the way: MessagePack has whole numbers of 64 bits, which hold 18 million units.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from gai_fast.ledger import By, SharedHome, SpendEntry, SpendRow
from gai_fast.ledger._base import Caps
from gai_fast.ledger.home import Answer, Ask, Home, Report
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.money import Amount
from gai_fast.server.workers.bus import Bus
from gai_fast.server.workers.peers import SupervisorQuestions
from gai_fast.stores.backend import StoreError

EXCHANGE: Final = "exchange"
SPEND: Final = "spend"
SPENT: Final = "spent"
QUESTIONS: Final = (EXCHANGE, SPEND, SPENT)
"""The kinds of questions to the supervisor."""

RECALL: Final = "recall"
"""The kind of question to another worker; its argument: names of keys."""


class SupervisorHome(SharedHome):
    """The state of keys in the supervisor, as a worker reaches it.

    Args:
        supervisor: Has the state.
        bus: Carries questions to other workers.
        number: The number of this worker.
    """

    def __init__(self, supervisor: SupervisorQuestions, bus: Bus, number: int) -> None:
        self._supervisor = supervisor
        self._bus = bus
        self._number = number

    async def open(self) -> None:
        """Does nothing: the link is there."""

    async def close(self) -> None:
        """Does nothing: the link is the worker's."""

    async def exchange(
        self, number: int, entries: Sequence[SpendEntry], reports: Sequence[Report]
    ) -> Sequence[Answer] | None:
        """Reports; as `SharedHome.exchange`."""
        sent = [(*entry[:5], str(entry.amount), entry.requests) for entry in entries]
        answers = await self._ask(EXCHANGE, str(self._number), number, sent, reports)
        return None if answers is None else [Answer(*answer) for answer in answers]

    async def recall(self, key: str, holders: Sequence[str], waited: float) -> None:
        """Asks the workers that have anything of a key; as `SharedHome.recall`."""
        asked = (self._bus.ask(int(worker), RECALL, [key], wait=SHARED.ledger_recall) for worker in holders)
        await asyncio.gather(*asked, return_exceptions=True)  # one that is gone, or busy, is not waited for

    async def recalled(self) -> Sequence[str]:
        """Waits for ever: other workers ask over the bus."""
        await asyncio.Event().wait()
        return ()

    async def spend(self, by: By, since: str | None, until: str | None) -> list[SpendRow]:
        """Returns the spend; as `SharedHome.spend`."""
        rows = await self._ask(SPEND, by, since, until)
        return [SpendRow(value, currency, int(amount), requests) for value, currency, amount, requests in rows]

    async def spent(self, key: str, label: str) -> Amount:
        """Returns the spend of a key; as `SharedHome.spent`."""
        return int(await self._ask(SPENT, key, label))

    async def _ask(self, kind: str, *items: Any) -> Any:
        try:
            return await self._supervisor.ask(kind, *items)
        except Error as problem:
            raise StoreError("unreachable", str(problem)) from None


class LedgerHome:
    """The state of keys, in the supervisor."""

    def __init__(self) -> None:
        self._home = Home(time.monotonic)

    def answer(self, kind: str, items: Sequence[Any]) -> Any:
        """Answers a worker.

        Args:
            kind: One of `QUESTIONS`.
            items: As `SupervisorHome` sends them.
        """
        if kind == EXCHANGE:
            worker, number, entries, reports = items
            spend = [_entry(*entry) for entry in entries]
            return self._home.exchange(worker, number, spend, [_report(*report) for report in reports])
        if kind == SPEND:
            by, since, until = items
            rows = self._home.book.rows(by, since, until)
            return [(row.value, row.currency, str(row.amount), row.requests) for row in rows]
        key, label = items
        return str(self._home.state(key).spent.get(label, 0))

    def forget(self, worker: int) -> None:
        """Gives back all that a worker has: it is gone."""
        self._home.forget(str(worker))


def _entry(key: str, model: str, upstream: str, day: str, currency: str, amount: str, requests: int) -> SpendEntry:
    return SpendEntry(key, model, upstream, day, currency, int(amount), requests)


def _report(key: str, caps: Any, kept: Any, requests: int, tokens: int, age: float, *rest: Any) -> Report:
    live, asks, wants_more = rest
    asked = [Ask(*ask) for ask in asks]
    return Report(key, Caps(*caps), tuple(kept), requests, tokens, age, live, asked, wants_more)
