"""The ledger state that the workers of a server share, in the supervisor.

Owns the requests of workers to the supervisor, and its answers. There is one supervisor, and it outlives every worker.
It has the limits of the server with every store, and the limits and the spend of keys with `memory://`.

1. A worker sends reports and requests over its link (`worker.py`).
2. After a worker's end the supervisor reads the worker's last messages, and then releases all that it had reserved.
3. Amounts are sent as decimal text: an integer of MessagePack has 64 bits, which is at most 18 million units.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gai_fast.ledger import OF_KEYS, OF_SERVER, GroupBy, SharedHome, SpendEntry, SpendRow
from gai_fast.ledger.home import Home, Report, ReportAnswer
from gai_fast.model.errors import Error
from gai_fast.model.money import Amount
from gai_fast.server.workers.peers import SupervisorQuestions
from gai_fast.stores.backend import StoreError

EXCHANGE: Final = "exchange"
SPEND: Final = "spend"
SPENT: Final = "spent"
RESET: Final = "reset"
QUESTIONS: Final = (EXCHANGE, SPEND, SPENT, RESET)
"""The kinds of requests to the supervisor."""


class SupervisorHome(SharedHome):
    """A worker's access to one state in the supervisor.

    Args:
        supervisor: Has the state.
        number: The number of this worker.
        scope: `OF_KEYS` or `OF_SERVER`.
    """

    def __init__(self, supervisor: SupervisorQuestions, number: int, scope: str) -> None:
        self._supervisor = supervisor
        self._number = number
        self._scope = scope

    async def open(self) -> None:
        """Does nothing: the link is open."""

    async def close(self) -> None:
        """Does nothing: the worker closes the link."""

    async def exchange(
        self, number: int, entries: Sequence[SpendEntry], reports: Sequence[Report]
    ) -> Sequence[ReportAnswer] | None:
        """Reports; as `SharedHome.exchange`."""
        sent = [(*entry[:5], str(entry.amount), entry.requests) for entry in entries]
        answers = await self._ask(EXCHANGE, self._scope, str(self._number), number, sent, reports)
        return None if answers is None else msgspec.convert(answers, list[ReportAnswer], strict=False)

    async def spend(self, by: GroupBy, since: str | None, until: str | None) -> list[SpendRow]:
        """Returns the spend; as `SharedHome.spend`."""
        return msgspec.convert(await self._ask(SPEND, by, since, until), list[SpendRow], strict=False)

    async def spent(self, key: str, label: str) -> Amount:
        """Returns the spend of a key; as `SharedHome.spent`."""
        return int(await self._ask(SPENT, key, label))

    async def reset(self, key: str, labels: Sequence[str]) -> None:
        """Counts from zero again; as `SharedHome.reset`."""
        await self._ask(RESET, key, labels)

    async def _ask(self, kind: str, *items: Any) -> Any:
        try:
            return await self._supervisor.ask(kind, *items)
        except Error as problem:
            raise StoreError("unreachable", str(problem)) from None


class LedgerHome:
    """The states in the supervisor."""

    def __init__(self) -> None:
        self._homes = {OF_KEYS: Home(time.monotonic), OF_SERVER: Home(time.monotonic)}

    def answer(self, kind: str, items: Sequence[Any]) -> Any:
        """Answers a worker's request.

        Args:
            kind: One of `QUESTIONS`.
            items: The arguments that `SupervisorHome` sends.
        """
        if kind == EXCHANGE:
            scope, worker, number, entries, reports = items
            spend = msgspec.convert(entries, list[SpendEntry], strict=False)
            answers = self._homes[scope].exchange(worker, number, spend, msgspec.convert(reports, list[Report]))
            return None if answers is None else [_plain(answer) for answer in answers]
        home = self._homes[OF_KEYS]
        if kind == SPEND:
            by, since, until = items
            rows = home.book.rows(by, since, until)
            return [(row.value, row.currency, str(row.amount), row.requests) for row in rows]
        if kind == RESET:
            key, labels = items
            return home.state(key).reset(labels)
        key, label = items
        return str(home.state(key).spent.get(label, 0))

    def forget(self, worker: int) -> None:
        """Releases all that a gone worker had reserved: rule 2."""
        for home in self._homes.values():
            home.forget(str(worker))


def _plain(answer: ReportAnswer) -> Any:
    """Returns an answer in MessagePack types: rule 3."""
    verdicts = [(*verdict[:3], str(verdict.spent)) for verdict in answer.verdicts]
    rates, spent, reserved = answer.used
    return verdicts, (rates, str(spent), str(reserved))
