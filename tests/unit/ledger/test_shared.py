"""The ledgers of several workers over one state, whose exchanges a test may hold up, lose and fail."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from gai_fast.ledger import Demand, GroupBy, Reservation, SharedHome, SharedLedger, SpendEntry, SpendRow, shared
from gai_fast.ledger.home import Home, Report, ReportAnswer
from gai_fast.ledger.limits import Limits
from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.money import UNIT, Amount
from gai_fast.model.settings import KeyLimits, KeySettings, SpendLimit
from gai_fast.stores.backend import StoreError
from tests.waiting import SECONDS, until

FAST = Limits(ledger_flush=0.002, ledger_retry=0.01, ledger_wait=0.2)
DAY = "2026-11-22"


class Time:
    """A clock that stands still for the limits, so that nothing is refilled."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self) -> float:
        self.steps += 1
        return 1000.0 + self.steps * 1e-9


class WorkerHome(SharedHome):
    """One worker's way to the state."""

    def __init__(self, home: Home, workers: dict[str, SharedLedger], name: str) -> None:
        self.home = home
        self.workers = workers
        self.name = name
        self.exchanges = 0
        self.held = 0  # the most streams that the state counted after an exchange
        self.fails = False
        self.loses = 0
        self.damaged: set[str] = set()  # keys of which the next exchange finds nothing
        self.gate = asyncio.Event()
        self.gate.set()

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def exchange(
        self, number: int, entries: Sequence[SpendEntry], reports: Sequence[Report]
    ) -> Sequence[ReportAnswer | None] | None:
        self.exchanges += 1
        await asyncio.sleep(0)
        await self.gate.wait()
        if self.fails:
            raise StoreError("unreachable", "the store is away")
        answers: Sequence[ReportAnswer | None] | None = self.home.exchange(self.name, number, entries, reports)
        self.held = max((self.held, *(self.home.state(report.key).live for report in reports)))
        if self.loses:
            self.loses -= 1
            raise StoreError("unreachable", "the answer is lost")
        if answers is not None and self.damaged:
            answers = [
                None if report.key in self.damaged else one for report, one in zip(reports, answers, strict=True)
            ]
            self.damaged.clear()
        return answers

    async def spend(self, by: GroupBy, since: str | None, until: str | None) -> list[SpendRow]:
        return self.home.book.rows(by, since, until)

    async def spent(self, key: str, label: str) -> Amount:
        return self.home.state(key).spent.get(label, 0)

    async def reset(self, key: str, labels: Sequence[str]) -> None:
        self.home.state(key).reset(labels)


class Site:
    """Some workers, and their state."""

    def __init__(self, count: int, *, fails_open: bool = True) -> None:
        self.clock = Time()
        self.home = Home(self.clock)
        self.ledgers: dict[str, SharedLedger] = {}
        self.ways: list[WorkerHome] = []
        for number in range(count):
            way = WorkerHome(self.home, self.ledgers, str(number))
            self.ways.append(way)
            ledger = SharedLedger(way, fails_open=fails_open, clock=self.clock, wall=lambda: 1_795_305_600.0)
            self.ledgers[str(number)] = ledger

    def __getitem__(self, number: int) -> SharedLedger:
        return self.ledgers[str(number)]


@asynccontextmanager
async def site(count: int = 2, *, fails_open: bool = True) -> AsyncIterator[Site]:
    made = Site(count, fails_open=fails_open)
    for ledger in made.ledgers.values():
        await ledger.open()
    yield made
    for ledger in made.ledgers.values():
        await ledger.close()


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "LIMITS", FAST)


def key(**limits: object) -> KeySettings:
    return KeySettings("ann", (), limits=KeyLimits(**limits))


async def taken(ledger: SharedLedger, caller: KeySettings, stream_id: str, tokens: int = 0) -> str:
    """`""`, or the limit that refuses."""
    try:
        await ledger.take(caller, stream_id, Demand(tokens))
    except Error as error:
        return str(error.reason)
    return ""


def end(ledger: SharedLedger, stream_id: str, tokens: int = 0) -> None:
    usage = {"input_tokens": 0, "output_tokens": tokens}
    ledger.stream_ended(StreamMetrics(duration=1.0, usage=usage, stream_id=stream_id))


def charge(ledger: SharedLedger, amount: int) -> None:
    ledger.charge(SpendEntry("ann", "m", "up", DAY, "USD", amount))


async def next_report(ledger: SharedLedger) -> None:
    """Waits as the end of a stream does."""
    reported = ledger.reported("ann")
    if reported is not None:
        await reported


async def test_workers_share_the_requests_of_a_minute() -> None:
    async with site() as on:
        caller = key(requests_per_minute=20)
        verdicts = [await taken(on[number % 2], caller, str(number)) for number in range(25)]
        assert verdicts == [""] * 20 + ["requests_per_minute"] * 5
        assert remaining(on[0], caller) == [0]


async def test_a_stream_that_ends_on_one_worker_makes_room_on_another_at_once() -> None:
    async with site() as on:
        caller = key(streams=2)
        assert await taken(on[0], caller, "a") == await taken(on[1], caller, "b") == ""
        for number in range(20):
            assert await taken(on[1], caller, "c") == "streams"
            end(on[number % 2], "a" if number % 2 == 0 else "b")
            await next_report(on[number % 2])
            other = on[(number + 1) % 2]
            assert await taken(other, caller, "x") == ""
            assert await taken(on[number % 2], caller, "y") == "streams"
            end(other, "x")
            await next_report(other)
            assert await taken(on[number % 2], caller, "a" if number % 2 == 0 else "b") == ""


async def looked(ledger: SharedLedger, caller: KeySettings) -> str:
    """As `taken`, of a look."""
    try:
        await ledger.look(caller)
    except Error as error:
        return str(error.reason)
    return ""


async def test_looks_refuse_what_would_be_refused_and_never_one_another() -> None:
    """Up to thirty-four of forty invalid large bodies were refused at once, although there were no streams."""
    async with site() as on:
        caller = key(streams=1, requests_per_minute=2)
        looks = [looked(on[number % 2], caller) for number in range(40)]
        assert {*await asyncio.gather(*looks)} == {""}
        assert on.home.state("ann").holders == {}
        assert await taken(on[0], caller, "a") == ""
        assert await looked(on[1], caller) == "streams"
        end(on[0], "a")
        await next_report(on[0])
        assert await looked(on[1], caller) == await taken(on[1], caller, "b") == ""
        assert await looked(on[0], caller) == "requests_per_minute"
        assert on[0].refused["requests_per_minute"] == 1
        assert await looked(on[0], key()) == ""


@pytest.mark.parametrize("fails_open", [True, False])
async def test_a_look_whose_client_leaves_or_whose_state_is_away_counts_nothing(fails_open: bool) -> None:
    async with site(1, fails_open=fails_open) as on:
        caller, way = key(streams=1), on.ways[0]
        way.gate.clear()
        left = asyncio.create_task(looked(on[0], caller))
        await until(lambda: way.exchanges > 0)
        left.cancel()
        way.gate.set()
        assert await looked(on[0], caller) == ""
        way.fails = True
        assert await looked(on[0], caller) == ("" if fails_open else "store")
        way.fails = False
        await until(lambda: on[0].problem is None)
        assert on.home.state("ann").holders == {}
        assert await taken(on[0], caller, "a") == ""


async def test_spend_of_all_workers_counts() -> None:
    async with site() as on:
        caller = key(spend=SpendLimit(1000, "day"))
        for number in range(10):
            ledger = on[number % 2]
            assert await taken(ledger, caller, str(number)) == ""
            charge(ledger, 100)
            end(ledger, str(number))
            await next_report(ledger)
        assert await taken(on[0], caller, "x") == await taken(on[1], caller, "x") == "spend"
        assert await on[0].spend("key") == [SpendRow("ann", "USD", 1000, 10)]
        assert await on[1].spent("ann", "day") == 1000


async def test_tokens_beyond_the_estimate_are_reported_before_their_stream_ends() -> None:
    async with site() as on:
        caller = key(tokens_per_minute=160)
        assert await taken(on[1], caller, "a", 10) == ""
        assert await taken(on[0], caller, "b", 10) == ""
        end(on[0], "b", tokens=500)
        await next_report(on[0])
        assert await taken(on[1], caller, "c", 1) == "tokens_per_minute"
        assert round(on.home.state("ann").rates[1].used(1000.0)) == 510


async def test_tokens_that_are_given_back_count_for_others_before_their_stream_ends() -> None:
    async with site() as on:
        caller = key(tokens_per_minute=100)
        assert await taken(on[0], caller, "a", 100) == ""
        assert await taken(on[1], caller, "b", 50) == "tokens_per_minute"
        end(on[0], "a", tokens=50)
        await next_report(on[0])
        assert await taken(on[1], caller, "b", 50) == ""


@pytest.mark.parametrize("how", ["hangs", "fails", "is closed", "breaks"])
async def test_no_end_waits_for_a_store_that_cannot_be_reached(how: str, caplog: pytest.LogCaptureFixture) -> None:
    async with site(1) as on:
        assert await taken(on[0], key(spend=SpendLimit(16_000, "day")), "a") == ""
        way, home = on.ways[0], on.home
        if how == "hangs":
            way.gate.clear()
        elif how == "fails":
            way.fails = True
        elif how == "breaks":
            way.home = None
        charge(on[0], 16_001)
        end(on[0], "a")
        reported = on[0].reported("ann")
        assert reported is not None
        if how == "is closed":
            await on[0].close()
            assert reported.done()
            assert on[0].reported("ann") is None
            return
        await reported
        assert await taken(on[0], key(spend=SpendLimit(16_000, "day")), "c") == ""
        end(on[0], "c")
        assert on[0].reported("ann") is None  # it is known to be away
        way.gate.set()
        way.fails, way.home = False, home
        await until(lambda: on[0].problem is None)
        assert await taken(on[0], key(spend=SpendLimit(16_000, "day")), "b") == "spend"
    caplog.clear()


async def test_after_a_lost_answer_ends_wait_again() -> None:
    async with site(1) as on:
        for name in "ab":
            assert await taken(on[0], key(spend=SpendLimit(16_000, "day")), name) == ""
        on.ways[0].loses = 1
        charge(on[0], 2000)
        end(on[0], "a")
        await next_report(on[0])
        assert on[0].problem is not None
        await until(lambda: on[0].problem is None)
        on.ways[0].gate.clear()
        charge(on[0], 2000)
        end(on[0], "b")
        reported = on[0].reported("ann")
        assert reported is not None
        assert not reported.done()
        on.ways[0].gate.set()
        await reported
        assert on.home.state("ann").spent[f"d{DAY} USD"] == 4000


async def test_an_end_waits_for_all_entries_of_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "LIMITS", replace(FAST, ledger_batch=1))
    async with site(1) as on:
        assert await taken(on[0], key(spend=SpendLimit(160, "day")), "a") == ""
        for number in range(5):
            on[0].charge(SpendEntry("ann", f"m{number}", "up", DAY, "USD", 100))
        end(on[0], "a")
        await next_report(on[0])
        assert on.home.state("ann").spent[f"d{DAY} USD"] == 500


async def test_a_client_that_leaves_while_it_waits_takes_nothing() -> None:
    async with site(1) as on:
        caller = key(requests_per_minute=5, streams=5)
        on.ways[0].gate.clear()
        waiting = [asyncio.ensure_future(taken(on[0], caller, str(number))) for number in range(5)]
        await until(lambda: on.ways[0].exchanges)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        on.ways[0].gate.set()
        assert [await taken(on[0], caller, str(number)) for number in range(6)] == [""] * 5 + ["requests_per_minute"]


async def test_an_exchange_whose_answer_is_lost_counts_once() -> None:
    async with site(1) as on:
        caller = key(requests_per_minute=16_000)
        assert await taken(on[0], caller, "first") == ""
        on.ways[0].loses = 2
        on[0].charge(SpendEntry("ann", "m", "up", DAY, "USD", 7))
        end(on[0], "first")
        await until(lambda: on.ways[0].loses == 0 and on[0].problem is None)
        assert await on[0].spend("key") == [SpendRow("ann", "USD", 7, 1)]
        assert round(on.home.state("ann").rates[0].used(1000.0)) == 1
        assert on.home.state("ann").live == 0


@pytest.mark.parametrize("fails_open", [True, False])
async def test_while_the_store_fails_requests_are_treated_as_configured(fails_open: bool) -> None:
    async with site(1, fails_open=fails_open) as on:
        caller = key(requests_per_minute=2, streams=100)
        on.ways[0].fails = True
        expected = "" if fails_open else "store"
        assert [await taken(on[0], caller, str(number)) for number in range(5)] == [expected] * 5
        assert on[0].problem == "the store is away"
        if not fails_open:
            with pytest.raises(Error) as refused:
                await on[0].take(caller, "told")
            assert (refused.value.code, refused.value.temporary, refused.value.retry_after_ms) == (
                "overloaded",
                True,
                1000,
            )
        on[0].charge(SpendEntry("ann", "m", "up", DAY, "USD", 7))
        with pytest.raises(StoreError):
            await on[0].spend("key")
        on.ways[0].fails = False
        await until(lambda: on[0].problem is None)
        assert await on[0].spend("key") == [SpendRow("ann", "USD", 7, 1)]
        assert on.home.state("ann").live == (5 if fails_open else 0)
        assert await taken(on[0], caller, "later") == ("requests_per_minute" if fails_open else "")


@pytest.mark.parametrize("fails_open", [True, False])
async def test_of_a_damaged_key_one_exchange_is_decided_as_configured(fails_open: bool) -> None:
    async with site(1, fails_open=fails_open) as on:
        ann, bob = key(streams=1), replace(key(streams=1), name="bob")
        on.ways[0].damaged.add("ann")
        verdicts = await asyncio.gather(taken(on[0], ann, "a"), taken(on[0], bob, "b"), taken(on[0], bob, "c"))
        assert verdicts == ["" if fails_open else "store", "", "streams"]
        assert on[0].problem is None
        on.home.state("ann").holders.clear()  # as the store has done
        await next_report(on[0])
        assert await taken(on[0], ann, "d") == ("streams" if fails_open else "")


async def test_what_is_not_charged_yet_stays_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more entries of spend than an exchange has room for, some are charged after their stream is reported to have
    ended: until then others were admitted with what it had spent."""
    monkeypatch.setattr(shared, "LIMITS", replace(FAST, ledger_batch=2))
    async with site(1) as on:
        caller = key(spend=SpendLimit(100, "day"))
        await on[0].take(caller, "a", Demand(0, Reservation(10, 90)))
        for number in range(9):
            on[0].charge(SpendEntry("ann", f"m{number}", "up", DAY, "USD", 10))
        on[0].charge(SpendEntry("ann", "m", "up", DAY, "EUR", 10))
        end(on[0], "a")
        state = on.home.state("ann")
        counted = []
        while state.reserved or not counted:
            await on[0].report()
            counted.append(state.spent.get(f"d{DAY} USD", 0) + state.reserved)
        assert set(counted) == {90}
        assert len(counted) >= 4


async def test_what_was_charged_late_is_reserved_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stream under way had spent, as on a failed attempt, counted twice for a minute."""
    monkeypatch.setattr(shared, "LIMITS", replace(FAST, ledger_batch=2))
    async with site(1) as on:
        await on[0].take(key(spend=SpendLimit(100, "day")), "a", Demand(0, Reservation(10, 90)))
        for number in range(5):
            on[0].charge_running(SpendEntry("ann", f"m{number}", "up", DAY, "USD", 10), "a")
        state = on.home.state("ann")
        await until(lambda: state.spent.get(f"d{DAY} USD") == 50 and not on[0]._has_news)
        assert state.reserved == 40


async def test_a_store_that_hangs_is_one_that_fails() -> None:
    async with site(1) as on:
        on.ways[0].gate.clear()
        assert await taken(on[0], key(requests_per_minute=1), "a") == ""
        assert "in time" in str(on[0].problem)
        on.ways[0].gate.set()
        await until(lambda: on[0].problem is None)
        assert on.home.state("ann").live == 1


@pytest.mark.parametrize("fails_open", [True, False])
async def test_an_answer_that_comes_too_late_counts_for_nothing(
    fails_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The store was slow, and admitted a request that had been decided without it."""
    async with site(1, fails_open=fails_open) as on:
        caller = key(requests_per_minute=10, tokens_per_minute=1000, streams=10)
        on.ways[0].gate.clear()
        assert await taken(on[0], caller, "a", 100) == ("" if fails_open else "store")
        on.ways[0].gate.set()
        await until(lambda: on[0].problem is None)
        assert await taken(on[0], caller, "b", 100) == ""
        state = on.home.state("ann")
        assert [round(rate.used(1000.0)) for rate in state.rates] == ([2, 200] if fails_open else [1, 100])
        assert state.live == (2 if fails_open else 1)
        assert on.ways[0].exchanges >= 2
    assert "a bug" not in caplog.text


async def test_an_answer_that_comes_late_ends_the_failure_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "LIMITS", replace(FAST, ledger_wait=0.02, ledger_retry=3600.0))
    async with site(1) as on:
        on.ways[0].gate.clear()
        assert await taken(on[0], key(requests_per_minute=1), "a") == ""  # as configured
        assert on[0].problem is not None
        on.ways[0].gate.set()
        await until(lambda: on[0].problem is None)
        assert await taken(on[0], key(requests_per_minute=1), "b") == "requests_per_minute"


async def test_a_stream_that_only_a_lost_answer_admitted_is_given_back() -> None:
    """The home has counted a stream; the worker has refused the request."""
    async with site(2, fails_open=False) as on:
        caller = key(requests_per_minute=16_000, streams=1)
        on.ways[0].loses = 1
        assert await taken(on[0], caller, "first") == "store"
        await until(lambda: on[0].problem is None and not on.home.state("ann").holders)
        assert await taken(on[1], caller, "second") == ""


async def test_a_bug_of_ours_leaves_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    async with site(1) as on:
        broken, on.ways[0].home = on.ways[0].home, None
        assert await taken(on[0], key(requests_per_minute=1), "a") == ""
        on.ways[0].home = broken
        await until(lambda: on[0].problem is None)
    assert "a bug" in caplog.text
    caplog.clear()


async def test_a_bug_of_ours_in_an_answer_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(1) as on:
        caller = key(spend=SpendLimit(16_000, "day"), requests_per_minute=10)
        assert await taken(on[0], caller, "a") == ""
        exchange = on.ways[0].exchange

        async def without_answers(*sent: object) -> Sequence[ReportAnswer] | None:
            await exchange(*sent)
            return []

        monkeypatch.setattr(on.ways[0], "exchange", without_answers)
        charge(on[0], 16_000)
        end(on[0], "a")
        reported = on[0].reported("ann")
        assert reported is not None
        admitted = asyncio.ensure_future(taken(on[0], caller, "b"))
        assert await asyncio.wait_for(admitted, 5) == ""  # as configured
        await asyncio.wait_for(reported, 5)
        monkeypatch.setattr(on.ways[0], "exchange", exchange)
        await until(lambda: on[0].problem is None)
        assert await taken(on[0], caller, "c") == "spend"
    assert "a bug" in caplog.text
    caplog.clear()


async def test_who_asks_for_the_spend_while_the_ledger_closes_does_not_wait_for_ever() -> None:
    async with site(1) as on:
        ledger = on[0]
        ledger.charge(SpendEntry("ann", "m", "up", DAY, "USD", 7))
        on.ways[0].gate.clear()
        asked = asyncio.ensure_future(ledger.spend("key"))
        await until(lambda: on.ways[0].exchanges == 1)
        closing = asyncio.ensure_future(ledger.close())
        late = asyncio.ensure_future(ledger.spend("key"))
        await asyncio.wait_for(closing, 5)
        await asyncio.wait_for(asyncio.gather(asked, late, ledger.spend("key"), return_exceptions=True), 5)


async def test_a_state_that_has_forgotten_a_worker_is_reported_its_streams_again() -> None:
    async with site() as on:
        caller = key(streams=1)
        assert await taken(on[0], caller, "a") == ""
        await until(lambda: not on[0]._keys["ann"].is_dirty)
        on.ways[0].fails = True
        await on[0].report()
        on.home.forget("0")
        on.ways[0].fails = False
        await until(lambda: on.home.state("ann").live == 1)
        assert await taken(on[1], caller, "b") == "streams"


async def test_a_refusal_names_the_limit_that_was_asked_for() -> None:
    async with site(1) as on:
        assert await taken(on[0], key(requests_per_minute=1), "first") == ""
        on.ways[0].gate.clear()
        asked = asyncio.ensure_future(on[0].take(key(requests_per_minute=1), "second"))
        await until(lambda: on.ways[0].exchanges == 2)
        assert on[0].limit_status(key(streams=5)) is None  # a reload has taken the limit away
        assert not on[0].try_take(key(streams=5), "third")
        on.ways[0].gate.set()
        with pytest.raises(Error, match=r"requests_per_minute = 1\)"):
            await asked


async def test_an_orderly_end_reports_everything() -> None:
    async with site(2) as on:
        caller = key(requests_per_minute=16_000)
        assert await taken(on[0], caller, "first") == ""
        on[0].charge(SpendEntry("ann", "m", "up", DAY, "USD", 7))
        end(on[0], "first")
        await on[0].close()
        assert on.home.book.rows("key", None, None) == [SpendRow("ann", "USD", 7, 1)]
        assert not on.home.state("ann").holders


async def test_spend_that_a_worker_takes_to_its_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A store was out of reach when a server was stopped, and nothing said what it lacked."""
    async with site() as on:
        on.ways[0].fails = True
        for amount in (UNIT, UNIT // 2):
            on[0].charge(SpendEntry("ann", "m", "up", DAY, "USD", amount))
            await on[0].report()
        await on[0].close()
        await on[1].close()
    lost = f"the store may lack spend of {DAY}: 1.5 USD of 2 requests could not be reported before the end"
    assert [each.message for each in caplog.records if "lack" in each.message] == [lost]
    caplog.clear()


def remaining(ledger: SharedLedger, caller: KeySettings) -> list[int]:
    """Returns the rest of the limits a minute, as the headers of answers show it."""
    status = ledger.limit_status(caller)
    assert status is not None
    return [each.remaining for each in status.rates]


async def test_answers_of_a_worker_that_admitted_nothing_tell_what_others_did() -> None:
    async with site() as on:
        caller = key(requests_per_minute=20)
        for number in range(5):
            assert await taken(on[0], caller, str(number)) == ""
        await until(lambda: remaining(on[1], caller) == [15])


async def test_answers_tell_what_counts_until_it_counts_no_more() -> None:
    async with site() as on:
        caller = key(requests_per_minute=20)
        assert await taken(on[0], caller, "one") == ""
        end(on[0], "one")
        await on[0].report()
        on[0]._look()
        assert remaining(on[0], caller) == [19]
        on.clock.steps += 4 * 10**9

        def is_forgotten() -> bool:
            on[0]._look()  # which leaves a key alone while an exchange about it is under way
            return not on[0]._keys

        await until(is_forgotten)
        assert remaining(on[0], caller) == [20]


async def test_a_key_with_a_limit_of_spend_is_not_forgotten_while_it_has_spent() -> None:
    """Its answers said that all of the limit is left."""
    async with site(1) as on:
        await on[0].take(key(spend=SpendLimit(1000, "total")), "one", Demand(0, Reservation(1, 1)))
        on[0].charge(SpendEntry("ann", "m", "up", DAY, "USD", 100))
        end(on[0], "one")
        await on[0].report()
        await until(lambda: on[0]._unsent is None)
        on[0]._look()
        assert on[0]._keys


async def test_of_many_keys_some_are_looked_at_each_time_and_all_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site(1) as on:
        for number in range(5):
            await on[0].take(KeySettings(str(number), (), limits=KeyLimits(streams=1)), str(number))
            end(on[0], str(number))
        await on[0].report()
        await until(lambda: on[0]._unsent is None)
        monkeypatch.setattr(shared, "LIMITS", replace(FAST, ledger_batch=2))
        left = []
        for _ in range(3):
            on[0]._look()
            left.append(len(on[0]._keys))
        assert left == [3, 1, 0]


async def test_an_answer_that_another_stream_has_asked_for_uses_no_tokens() -> None:
    async with site(1) as on:
        caller = key(tokens_per_minute=1000)
        assert await taken(on[0], caller, "hit", 100) == ""
        on[0].stream_ended(StreamMetrics(duration=1.0, usage={"output_tokens": 90}, stream_id="hit", cache="hit"))
        assert remaining(on[0], caller) == [1000]


async def test_no_more_is_left_than_the_limit() -> None:
    async with site() as on:
        caller = key(tokens_per_minute=1000)
        assert await taken(on[0], caller, "one", 100) == ""
        on.clock.steps += 30 * 10**9
        end(on[0], "one", 1)
        assert remaining(on[0], caller) == [1000]


async def test_other_limits_hold_from_the_next_request_on() -> None:
    async with site(1) as on:
        assert await taken(on[0], key(requests_per_minute=16_000), "first") == ""
        assert await taken(on[0], key(requests_per_minute=1), "second") == "requests_per_minute"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("stalls", [0, 100])
async def test_under_load_all_limits_are_exact(seed: int, stalls: int) -> None:
    """Three workers, 2,000 requests in random order that end at random times; the model counts what is admitted.

    A stream has its place until its worker has reported its end. If the loop stands still, as on a busy machine, the
    state is thus full while fewer streams run.
    """
    chance = random.Random(seed)
    limit, most = chance.choice([(1000, 40), (300, 200), (1500, 100)])
    caller = key(requests_per_minute=limit, streams=most)
    live = peak = admitted = 0
    async with site(3) as on:

        async def request(number: int) -> str:
            nonlocal live, peak, admitted
            ledger = on[chance.randrange(3)]
            await asyncio.sleep(chance.random() * 0.3)
            if number < stalls:
                time.sleep(0.006)  # noqa: ASYNC251  # the loop stands still
            name = str(number)
            refused = await taken(ledger, caller, name)
            if not refused:
                admitted += 1
                live += 1
                peak = max(peak, live)
                await asyncio.sleep(chance.random() * 0.03)
                live -= 1
                end(ledger, name)
            return refused

        verdicts = await asyncio.gather(*(request(number) for number in range(2000)))
        held = max(way.held for way in on.ways)
        assert peak <= held <= most
        assert admitted <= limit
        assert set(verdicts) <= {"", "requests_per_minute", "streams"}
        if "requests_per_minute" in verdicts:
            assert admitted == limit
        if "streams" in verdicts:
            assert held == most
        await until(lambda: on.home.state("ann").live == 0)


async def test_no_request_waits_for_a_ledger_that_is_closed() -> None:
    """Neither a request whose exchange begins while the ledger is closed, and does not end, nor a later request."""
    caller = key(requests_per_minute=5)
    async with site(1, fails_open=False) as on:
        on.ways[0].gate.clear()
        first = asyncio.ensure_future(taken(on[0], caller, "first"))
        await until(lambda: on.ways[0].exchanges == 1)
        closing = asyncio.ensure_future(on[0].close())
        second = asyncio.ensure_future(taken(on[0], caller, "second"))
        await asyncio.sleep(0)
        on.ways[0].gate.set()
        assert await first == ""
        on.ways[0].gate.clear()
        assert await asyncio.wait_for(second, SECONDS) == "store"
        await closing
        assert await asyncio.wait_for(taken(on[0], caller, "third"), SECONDS) == "store"


# ---- spend that is reserved ------------------------------------------------------------------------------------------


async def reserved(ledger: SharedLedger, stream_id: str, least: int, amount: int) -> bool:
    try:
        await ledger.take(key(spend=SpendLimit(100, "day")), stream_id, Demand(0, Reservation(least, amount)))
    except Error as error:
        return error.reason != "spend"
    return True


async def test_what_a_key_has_used_is_reset_with_what_a_worker_has_not_reported() -> None:
    async with site() as two:
        caller = key(requests_per_minute=1, spend=SpendLimit(100, "day"))
        assert await taken(two[0], caller, "a") == ""
        charge(two[0], 100)
        await two[0].reset("ann")
        assert await two[1].spent("ann", "day") == 0
        assert remaining(two[0], caller) == [1]
        assert await taken(two[1], caller, "b") == ""
        assert await taken(two[0], caller, "c") == "requests_per_minute"
        assert await two[0].spend("key") == [SpendRow("ann", "USD", 100, 1)], "reports keep it"
        two.ways[0].fails = True
        charge(two[0], 100)
        with pytest.raises(StoreError):
            await two[0].reset("ann")
        two.ways[0].fails = False


async def test_the_streams_of_all_workers_reserve_of_one_sum() -> None:
    async with site(3) as on:
        verdicts = await asyncio.gather(*(reserved(on[number % 3], str(number), 1, 20) for number in range(30)))
        assert sum(verdicts) == 5
        for number, is_admitted in enumerate(verdicts):
            if is_admitted:
                end(on[number % 3], str(number))
                await next_report(on[number % 3])
        assert await reserved(on[0], "x", 1, 100)


async def test_a_stream_over_midnight_grows_by_what_the_new_day_leaves() -> None:
    async with site(1) as on:
        on[0].charge(SpendEntry("ann", "m", "up", DAY, "USD", 60))
        assert await reserved(on[0], "a", 1, 40)
        on[0]._wall = lambda: 1_795_305_600.0 + 24 * 60 * 60
        got: list[int] = []
        on[0].grow("a", Reservation(1, 30), got.append)
        await until(lambda: got == [30])


async def test_a_stream_that_grows_gets_what_others_leave() -> None:
    async with site() as on:
        assert await reserved(on[0], "a", 1, 60)
        assert await reserved(on[1], "b", 1, 20)
        got: list[int] = []
        on[0].grow("a", Reservation(1, 60), got.append)
        await until(lambda: got == [20])
        on[1].grow("b", Reservation(1, 20), got.append)
        await until(lambda: got == [20, 0])
        end(on[0], "a")
        await next_report(on[0])
        on[1].grow("b", Reservation(1, 60), got.append)
        await until(lambda: got == [20, 0, 60])
        assert on.home.state("ann").reserved == 80


async def test_what_a_stream_gets_after_its_end_is_given_back() -> None:
    async with site(1) as on:
        assert await reserved(on[0], "a", 1, 60)
        on.ways[0].gate.clear()
        on[0].grow("a", Reservation(1, 40), lambda more: pytest.fail("it has ended"))
        await until(lambda: on.ways[0].exchanges == 2)
        end(on[0], "a")
        on.ways[0].gate.set()
        await until(lambda: not on.home.state("ann").holders)
        assert await reserved(on[0], "b", 1, 100)


@pytest.mark.parametrize("fails_open", [True, False])
async def test_a_stream_goes_on_while_the_store_is_away(fails_open: bool) -> None:
    async with site(1, fails_open=fails_open) as on:
        assert await reserved(on[0], "a", 1, 100)
        got: list[int] = []
        on.ways[0].fails = True
        on[0].grow("a", Reservation(1, 50), got.append)
        await until(lambda: got == [50])
        on[0].grow("a", Reservation(1, 40), got.append)
        assert got == [50, 40]
        end(on[0], "a")
        on.ways[0].fails = False
        await until(lambda: on[0].problem is None and not on.home.state("ann").holders)


async def test_a_worker_that_is_gone_has_reserved_nothing() -> None:
    async with site() as on:
        assert await reserved(on[0], "a", 1, 100)
        assert not await reserved(on[1], "b", 1, 1)
        on.home.forget("0")
        assert await reserved(on[1], "b", 1, 100)


async def test_what_a_running_stream_is_charged_is_no_longer_reserved() -> None:
    async with site() as two:
        caller = key(spend=SpendLimit(100, "total"))
        await two[0].take(caller, "a", Demand(0, Reservation(10, 60)))
        two[0].charge_running(SpendEntry("ann", "m", "up", DAY, "USD", 50, 0), "a")
        await two[0].report()
        state = two.home.state("ann")
        assert (state.reserved, await two[1].spent("ann", "total")) == (10, 50)
        two[0].charge_running(SpendEntry("ann", "m", "up", DAY, "USD", 20, 0), "a")
        await two[0].report()
        assert (state.reserved, await two[1].spent("ann", "total")) == (0, 70), "never below zero"
        two.home.forget("0")
        assert (state.reserved, await two[1].spent("ann", "total")) == (0, 70)
