"""The limits of keys in the supervisor: the questions of workers, as they come over a link."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from gai_fast.ledger import SpendEntry, SpendRow
from gai_fast.ledger._base import Caps
from gai_fast.ledger.home import Ask, Report
from gai_fast.ledger.state import GRANTED, STREAMS
from gai_fast.model.errors import Error
from gai_fast.server.workers.bus import Bus, WorkerBusy, WorkerGone
from gai_fast.server.workers.shared_limits import LedgerHome, SupervisorHome
from gai_fast.stores.backend import StoreError

CAPS = Caps(16_000, None, 1, None, "")
REPORT = Report("ann", CAPS, (0, 0, 0, 0), 0, 0, 0.0, 0, [Ask(0, 0.0, False)], True)
ENTRY = SpendEntry("ann", "m", "up", "2026-11-22", "USD", 10**15)


class Link:
    """The way to the supervisor: what passes is written and read as by a link."""

    made = 2

    def __init__(self, home: LedgerHome) -> None:
        self.home = home
        self.is_gone = False

    async def ask(self, kind: str, *items: Any) -> Any:
        if self.is_gone:
            raise Error("overloaded", "the supervisor of the workers does not answer in time")
        asked = msgspec.msgpack.decode(msgspec.msgpack.encode(items))
        return msgspec.msgpack.decode(msgspec.msgpack.encode(self.home.answer(kind, asked)))


class FakeBus:
    """Notes what is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def ask(self, worker: int, kind: str, *items: Any, wait: float) -> None:
        self.asked.append((worker, kind, *items))
        raise WorkerGone if worker == 2 else WorkerBusy


def worker(link: Link, number: int, bus: FakeBus | None = None) -> SupervisorHome:
    return SupervisorHome(link, cast("Bus", bus), number)


def verdicts(answers: Sequence[Any] | None) -> list[int]:
    assert answers is not None
    return [verdict for answer in answers for verdict, _ in answer.verdicts]


async def test_a_report_is_answered_and_one_that_comes_again_is_not() -> None:
    home = worker(Link(LedgerHome()), 1)
    await home.open()
    answers = await home.exchange(1, [ENTRY], [REPORT])
    assert answers is not None
    assert (verdicts(answers), answers[0].more[0]) == ([GRANTED], 999)
    assert await home.exchange(1, [ENTRY], [REPORT]) is None
    assert await home.spend("model", None, None) == [SpendRow("m", "USD", 10**15, 1)]
    assert await home.spent("ann", "t USD") == 10**15
    await home.close()


async def test_spend_above_64_bits_is_told_exactly() -> None:
    """In a currency such as the dong 18 million units are 700 dollars."""
    home = worker(Link(LedgerHome()), 1)
    large = ENTRY._replace(currency="VND", amount=(1 << 65) + 1)
    await home.exchange(1, [large], [])
    await home.exchange(2, [large], [])
    assert await home.spend("model", None, None) == [SpendRow("m", "VND", (1 << 66) + 2, 2)]
    assert await home.spent("ann", "t VND") == (1 << 66) + 2


async def test_a_worker_that_is_gone_has_no_streams() -> None:
    supervisor = LedgerHome()
    link = Link(supervisor)
    one, two = worker(link, 1), worker(link, 2)
    assert verdicts(await one.exchange(1, [], [REPORT])) == [GRANTED]
    last = REPORT._replace(asks=[Ask(0, 0.0, True)])
    assert verdicts(await two.exchange(1, [], [last])) == [STREAMS]
    supervisor.forget(1)
    assert verdicts(await two.exchange(2, [], [last])) == [GRANTED]


async def test_workers_that_are_gone_or_busy_hold_nobody_up() -> None:
    bus = FakeBus()
    await worker(Link(LedgerHome()), 1, bus).recall("ann", ["2", "3"], 0.0)
    assert bus.asked == [(2, "recall", ["ann"]), (3, "recall", ["ann"])]


async def test_a_supervisor_that_does_not_answer_is_a_store_that_fails() -> None:
    link = Link(LedgerHome())
    link.is_gone = True
    with pytest.raises(StoreError, match="does not answer"):
        await worker(link, 1).exchange(1, [], [])
