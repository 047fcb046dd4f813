"""The limits of keys in the supervisor: the questions of workers, as they come over a link."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from gai_fast.ledger import OF_KEYS, OF_SERVER, SharedLedger, SpendEntry, SpendRow
from gai_fast.ledger._base import GRANTED, STREAMS, Demand, LimitUsage, Reservation, Verdict
from gai_fast.ledger.home import Report
from gai_fast.model.errors import Error
from gai_fast.model.settings import KeyLimits, KeySettings, SpendLimit
from gai_fast.server.workers.shared_limits import LedgerHome, SupervisorHome
from gai_fast.stores.backend import StoreError
from tests.key_limits import TOKENS, caps_of

CAPS = caps_of(16_000, None, 1, None, "")
REPORT = Report("ann", CAPS, 0, 0, 0.0, 0, 0, [Demand()])
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


def worker(link: Link, number: int, whose: str = OF_KEYS) -> SupervisorHome:
    return SupervisorHome(link, number, whose)


def verdicts(answers: Sequence[Any] | None) -> list[int]:
    assert answers is not None
    return [verdict.place for answer in answers for verdict in answer.verdicts]


async def test_a_report_is_answered_and_one_that_comes_again_is_not() -> None:
    home = worker(Link(LedgerHome()), 1)
    await home.open()
    answers = await home.exchange(1, [ENTRY], [REPORT])
    assert answers is not None
    assert answers[0].verdicts == [Verdict(GRANTED)]
    assert isinstance(answers[0].used, LimitUsage)
    assert await home.exchange(1, [ENTRY], [REPORT]) is None
    assert await home.spend("model", None, None) == [SpendRow("m", "USD", 10**15, 1)]
    assert await home.spent("ann", "t USD") == 10**15
    await home.close()


async def test_what_a_key_has_used_is_reset_for_all_workers() -> None:
    link = Link(LedgerHome())
    one, two = worker(link, 1), worker(link, 2)
    await one.exchange(1, [ENTRY], [REPORT])
    await two.reset("ann", ["t USD"])
    assert await one.spent("ann", "t USD") == 0
    assert await one.spend("model", None, None) == [SpendRow("m", "USD", 10**15, 1)]


async def test_spend_above_64_bits_is_reported_exactly() -> None:
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
    assert verdicts(await two.exchange(1, [], [REPORT])) == [STREAMS]
    supervisor.forget(1)
    assert verdicts(await two.exchange(2, [], [REPORT])) == [GRANTED]


async def test_the_states_of_keys_and_of_the_server_are_apart() -> None:
    """A server with a store has the state of its keys there, and the state of `[limits]` here."""
    supervisor = LedgerHome()
    link = Link(supervisor)
    keys, server, other = worker(link, 1), worker(link, 1, OF_SERVER), worker(link, 2, OF_SERVER)
    assert verdicts(await keys.exchange(1, [], [REPORT])) == [GRANTED]
    assert verdicts(await server.exchange(1, [], [REPORT])) == [GRANTED]
    assert verdicts(await other.exchange(1, [], [REPORT])) == [STREAMS]
    supervisor.forget(1)
    assert verdicts(await other.exchange(2, [], [REPORT])) == [GRANTED]


async def test_spend_is_reserved_and_reported() -> None:
    home = worker(Link(LedgerHome()), 1)
    demands = [Demand(0, Reservation(1, 2**62)), Demand(0, Reservation(1, 5), is_new=False)]
    report = REPORT._replace(caps=caps_of(None, None, None, 2**62, "t USD"), demands=demands)
    answers = await home.exchange(1, [ENTRY._replace(amount=2**64)], [report])
    assert answers is not None
    assert [verdict[:1] + verdict[2:] for verdict in answers[0].verdicts] == [(3, 0, 2**64)] * 2
    assert answers[0].used == ((0, 0), 2**64, 0)
    answers = await home.exchange(2, [], [report._replace(caps=caps_of(None, None, None, 2**62, "t EUR"))])
    assert answers is not None
    assert [verdict.reserved for verdict in answers[0].verdicts] == [2**62, 0]


async def test_the_usual_output_needs_room_only_beside_other_streams() -> None:
    home = worker(Link(LedgerHome()), 1)
    report = REPORT._replace(caps=caps_of(None, 100, None, None, ""), demands=[Demand(90, expected=80)] * 2)
    assert verdicts(await home.exchange(1, [], [report._replace(tokens=50)])) == [GRANTED, TOKENS]


async def test_a_supervisor_that_does_not_answer_is_a_store_that_fails() -> None:
    link = Link(LedgerHome())
    link.is_gone = True
    with pytest.raises(StoreError, match="does not answer"):
        await worker(link, 1).exchange(1, [], [])


@pytest.mark.parametrize("limits", [KeyLimits(spend=SpendLimit(10**12, "month")), KeyLimits(tokens_per_minute=9)])
async def test_a_request_may_name_any_number_of_tokens(limits: KeyLimits) -> None:
    """A number above 64 bits cannot be sent to the supervisor: the limits of all keys were out of reach since."""
    ledger = SharedLedger(worker(Link(LedgerHome()), 1), fails_open=False)
    await ledger.open()
    for number in range(2):
        await ledger.take(
            KeySettings(f"ann {number}", (), limits=limits), f"stream-{number}", Demand(10**30, expected=number)
        )
        ledger.settle(f"stream-{number}", 5)
    assert ledger.problem is None
    await ledger.close()
