"""The states of keys in every store: one model, the state in memory, for all of them."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gai_fast.ledger import SharedHome, SharedLedger, SpendEntry, SpendRow
from gai_fast.ledger._base import GRANTED, MINUTE, REQUESTS, STREAMS, TOKENS, Caps, Demand, Reservation
from gai_fast.ledger.home import Answer, Home, Report
from gai_fast.ledger.redis import RedisHome
from gai_fast.ledger.sqlite import SQLiteHome
from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import KeyLimits, KeySettings, SpendLimit
from tests.conftest import ChangeLimits
from tests.integration.stores.servers import RedisServer
from tests.waiting import until, until_answered

MakeHome = Callable[[], SharedHome]
DAY = "2026-11-22"


@pytest.fixture(params=["redis", "sqlite"])
def make_home(request: pytest.FixtureRequest, tmp_path: Path) -> MakeHome:
    if request.param == "sqlite":
        return lambda: SQLiteHome(tmp_path / "gai-fast.db")
    server: RedisServer = request.getfixturevalue("redis_server")
    return lambda: RedisHome(server.url)


@pytest.fixture
async def homes(make_home: MakeHome) -> AsyncIterator[list[SharedHome]]:
    made = [make_home() for _ in range(3)]
    for home in made:
        await home.open()
    yield made
    for home in made:
        await home.close()


def report(caps: Caps, *demands: Demand, live: int = 0) -> Report:
    return Report("ann", caps, 0, 0, 0.0, live, 0, demands)


def as_answer(answers: object) -> Answer:
    assert isinstance(answers, list)
    assert isinstance(answers[0], Answer)
    return answers[0]


async def test_a_store_decides_as_the_model_does(make_home: MakeHome, change_limits: ChangeLimits) -> None:
    """600 random reports of three workers. The store sees a report a moment after the model, so that only limits which
    do not refill refuse here. Of the others, what counts differs by at most what refills in the longest such moment.
    """
    change_limits(ledger_gone=3600.0)  # a machine that stands still makes no worker count as gone
    homes = [make_home() for _ in range(3)]
    for home in homes:
        await home.open()
    longest = 1e-3  # more than a store's clock, in seconds since the epoch, is off by rounding
    chance = random.Random(7)
    model = Home(time.monotonic)
    names = {id(home): str(number) for number, home in enumerate(homes)}
    live = {id(home): 0 for home in homes}
    reserved = {id(home): 0 for home in homes}
    for number in range(1, 601):
        home = chance.choice(homes)
        me = id(home)
        key = chance.choice(["ann", "bob"])
        caps = Caps(7000, 50_000, 6, 10**13, "t USD") if key == "bob" else Caps(2000, 200_000, 80, 10**12, "t USD")
        entries = []
        if chance.random() < 0.3:
            entries = [SpendEntry(key, f"m{number % 3}", "up", DAY, "USD", chance.randrange(10**10))]
        if key == "bob":
            sent = Report(key, caps, 0, chance.randrange(-5, 5), 0.0, 0, 0, [Demand(20)])
        else:
            demands = []
            for _ in range(chance.randrange(3)):
                least = chance.randrange(10**10)
                wanted = Reservation(least, least + chance.randrange(10**11))
                tokens = chance.randrange(50)
                is_new = live[me] == 0 or chance.random() < 0.7
                demands.append(Demand(tokens, wanted, is_new, expected=chance.randrange(tokens + 1)))
            ended = chance.randrange(3)
            reserved[me] = 0 if live[me] <= ended else reserved[me] * (live[me] - ended) // live[me]
            live[me] = max(0, live[me] - ended)
            sent = Report(key, caps, 0, 0, 0.0, live[me], reserved[me], demands)
        began = time.monotonic()
        expected = model.exchange(names[me], number, entries, [sent])
        got = await home.exchange(number, entries, [sent])
        longest = max(longest, time.monotonic() - began)
        assert got is not None
        assert expected is not None
        decided = [(verdict.place, verdict.reserved, verdict.place == GRANTED) for verdict in got[0].verdicts]
        assert decided == [(each.place, each.reserved, each.place == GRANTED) for each in expected[0].verdicts]
        assert got[0].used[2:] == expected[0].used[2:]
        for place in (REQUESTS, TOKENS):
            refilled = longest * (caps[place] or 0) / MINUTE
            assert got[0].used[place] == pytest.approx(expected[0].used[place], rel=0, abs=refilled)
        if key == "ann":
            for demand, verdict in zip(sent.demands, got[0].verdicts, strict=True):
                live[me] += demand.is_new and verdict.place == GRANTED
                reserved[me] += verdict.reserved
    assert await homes[0].spend("model", None, None) == model.book.rows("model", None, None)
    assert await homes[1].spend("key", DAY, DAY) == model.book.rows("key", DAY, DAY)
    for key in ("ann", "bob"):
        for label in ("t USD", f"d{DAY} USD", "m2026-11 USD"):
            assert await homes[2].spent(key, label) == model.state(key).spent[label]
    for home in homes:
        await home.close()


async def test_a_usual_output_needs_room_only_beside_other_streams(homes: list[SharedHome]) -> None:
    caps, usual = Caps(None, 1000, None, None, ""), Demand(900, expected=880)
    first, second = homes[:2]
    answer = as_answer(await first.exchange(1, [], [Report("ann", caps, 0, 500, 0.0, 0, 0, [usual, usual])]))
    assert [verdict.place for verdict in answer.verdicts] == [GRANTED, TOKENS]
    assert as_answer(await second.exchange(1, [], [report(caps, usual)])).verdicts[0].place == TOKENS
    await first.exchange(2, [], [Report("ann", caps, 0, 100 - 900, 0.0, 0, 0, ())])
    assert as_answer(await second.exchange(2, [], [report(caps, usual)])).verdicts[0].place == GRANTED


async def test_what_only_looks_at_the_state_counts_nothing(homes: list[SharedHome]) -> None:
    caps, look = Caps(10, 1000, 1, 100, "t USD"), Demand(is_counted=False)
    first, second = homes[:2]
    answer = as_answer(await first.exchange(1, [], [report(caps, look, look, Demand(), look)]))
    assert [verdict.place for verdict in answer.verdicts] == [GRANTED, GRANTED, GRANTED, STREAMS]
    assert 0.9 < answer.used.requests <= 1
    assert as_answer(await second.exchange(1, [], [report(caps, look)])).verdicts[0].place == STREAMS
    await first.exchange(2, [], [report(caps)])
    assert as_answer(await second.exchange(2, [], [report(caps, look)])).verdicts[0].place == GRANTED
    assert as_answer(await first.exchange(3, [], [report(caps, Demand())])).verdicts[0].place == GRANTED


async def test_an_exchange_that_is_sent_again_counts_once(homes: list[SharedHome]) -> None:
    entry = SpendEntry("ann", "m", "up", DAY, "USD", 2**60)
    for _ in range(2):
        await homes[0].exchange(1, [entry], [])
    assert await homes[1].spend("day", None, None) == [SpendRow(DAY, "USD", 2**60, 1)]
    assert await homes[1].spend("day", "2026-11-23", None) == []
    assert await homes[1].spent("ann", "t USD") == 2**60


async def test_callers_of_an_issuer_count_as_the_issuer_if_a_day_has_no_more_rows(
    make_home: MakeHome, change_limits: ChangeLimits
) -> None:
    """An issuer has any number of callers. Their limits of spend are still their own."""
    change_limits(spend_entries=3)
    home = make_home()
    await home.open()
    entries = [SpendEntry(f"staff:{number}", "m", "up", DAY, "USD", 1) for number in range(20)]
    await home.exchange(1, entries, [])
    rows = [SpendRow(f"staff:{number}", "USD", 1, 1) for number in range(3)]
    assert await home.spend("key", None, None) == [SpendRow("staff", "USD", 17, 17), *rows]
    assert await home.spent("staff:19", "t USD") == 1
    await home.close()


async def test_a_limit_of_spend_is_exact_beyond_what_a_double_holds(homes: list[SharedHome]) -> None:
    caps = Caps(None, None, None, 2**53, "t USD")
    await homes[0].exchange(1, [SpendEntry("ann", "m", "up", DAY, "USD", 2**53 - 1)], [])
    answer = as_answer(await homes[0].exchange(2, [], [report(caps, Demand())]))
    assert answer.verdicts[0].place == GRANTED


async def test_a_worker_that_is_gone_has_nothing(make_home: MakeHome) -> None:
    first, second = make_home(), make_home()
    await first.open()
    await second.open()
    caps = Caps(None, None, 1, None, "")
    assert as_answer(await first.exchange(1, [], [report(caps, Demand())])).verdicts[0][0] == GRANTED
    assert as_answer(await second.exchange(1, [], [report(caps, Demand())])).verdicts[0][0] == STREAMS
    await first.close()
    assert as_answer(await second.exchange(2, [], [report(caps, Demand())])).verdicts[0][0] == GRANTED
    assert not second.has_forgotten
    await second.close()


async def test_a_worker_that_stood_still_and_was_taken_for_gone_finds_out(
    make_home: MakeHome, change_limits: ChangeLimits
) -> None:
    """Others have given back its streams and their reservations: it reports them again."""
    change_limits(ledger_gone=0.5)
    first, second = make_home(), make_home()
    await first.open()
    await second.open()
    caps = Caps(None, None, 1, None, "")
    assert as_answer(await first.exchange(1, [], [report(caps, Demand())])).verdicts[0].place == GRANTED
    numbers = itertools.count(1)

    async def is_gone() -> bool:
        return (
            as_answer(await second.exchange(next(numbers), [], [report(caps, Demand())])).verdicts[0].place == GRANTED
        )

    await until_answered(is_gone)
    await first.exchange(2, [], [])
    assert first.has_forgotten
    await first.close()
    await second.close()


async def test_what_a_key_has_used_is_reset_and_its_streams_still_count(homes: list[SharedHome]) -> None:
    first, second, _ = homes
    caps = Caps(1, 10, 2, 100, "t USD")
    answer = as_answer(await first.exchange(1, [], [report(caps, Demand(5))]))
    assert answer.verdicts[0].place == GRANTED
    used = report(caps, live=1)._replace(tokens=2**32 - 1)
    await first.exchange(2, [SpendEntry("ann", "m", "up", DAY, "USD", 100)], [used])
    await second.reset("ann", ["t USD", "m2026-11 USD", f"d{DAY} USD"])
    answer = as_answer(await second.exchange(1, [], [report(caps, Demand(5), Demand())]))
    assert [verdict.place for verdict in answer.verdicts] == [GRANTED, REQUESTS]
    assert (answer.used.requests, answer.used.tokens) == (pytest.approx(1, abs=0.1), pytest.approx(5, abs=0.5))
    assert await first.spent("ann", "t USD") == 0
    assert await first.spend("key", None, None) == [SpendRow("ann", "USD", 100, 1)]
    await second.reset("ann", ["t USD"])
    answer = as_answer(await second.exchange(2, [], [report(caps, Demand(), live=1)]))
    assert [verdict.place for verdict in answer.verdicts] == [STREAMS]
    await second.reset("nobody", ["t USD"])


async def test_a_limit_that_changes_leaves_what_was_used(homes: list[SharedHome]) -> None:
    ten, twenty = Caps(10, None, None, None, ""), Caps(20, None, None, None, "")
    demands = [Demand()] * 11
    verdicts = as_answer(await homes[0].exchange(1, [], [report(ten, *demands)])).verdicts
    assert [verdict.place for verdict in verdicts] == [GRANTED] * 10 + [REQUESTS]
    assert verdicts[-1][1] == pytest.approx(6, abs=0.5)
    verdicts = as_answer(await homes[1].exchange(1, [], [report(twenty, *demands)])).verdicts
    assert [verdict.place for verdict in verdicts] == [GRANTED] * 10 + [REQUESTS]


# ---- ledgers over it -------------------------------------------------------------------------------------------------


def key(**limits: object) -> KeySettings:
    return KeySettings("ann", (), limits=KeyLimits(**limits))


async def taken(ledger: SharedLedger, caller: KeySettings, stream_id: str) -> str:
    try:
        await ledger.take(caller, stream_id)
    except Error as error:
        return str(error.reason)
    return ""


def end(ledger: SharedLedger, stream_id: str) -> None:
    ledger.stream_ended(StreamMetrics(duration=1.0, stream_id=stream_id))


@pytest.fixture
async def ledgers(make_home: MakeHome) -> AsyncIterator[list[SharedLedger]]:
    clock = asyncio.get_running_loop().time
    made = [SharedLedger(make_home(), fails_open=True, clock=clock) for _ in range(2)]
    for ledger in made:
        await ledger.open()
    yield made
    for ledger in made:
        await ledger.close()


async def test_a_stream_that_ends_on_one_worker_makes_room_on_another_at_once(ledgers: list[SharedLedger]) -> None:
    here, there = ledgers
    caller = key(streams=1)
    for number in range(10):
        assert await taken(here, caller, f"a{number}") == ""
        assert await taken(there, caller, f"b{number}") == "streams"
        end(here, f"a{number}")
        await (here.reported("ann") or asyncio.sleep(0))
        here, there = there, here


async def test_spend_of_all_workers_counts(ledgers: list[SharedLedger]) -> None:
    caller = key(spend=SpendLimit(1000, "total"))
    for number in range(10):
        ledger = ledgers[number % 2]
        assert await taken(ledger, caller, str(number)) == ""
        ledger.charge(SpendEntry("ann", "m", "up", DAY, "USD", 100))
        end(ledger, str(number))
        await (ledger.reported("ann") or asyncio.sleep(0))
        assert await ledger.spend("key") == [SpendRow("ann", "USD", 100 * (number + 1), number + 1)]
    assert await taken(ledgers[0], caller, "x") == await taken(ledgers[1], caller, "x") == "spend"


async def test_random_load_is_exact(ledgers: list[SharedLedger]) -> None:
    caller, most = key(streams=20), 20
    chance = random.Random(1)
    live = peak = 0
    refusals = 0

    async def request(number: int) -> None:
        nonlocal live, peak, refusals
        await asyncio.sleep(chance.random() * 0.5)
        ledger = chance.choice(ledgers)
        if await taken(ledger, caller, str(number)):
            refusals += 1
            return
        live += 1
        peak = max(peak, live)
        await asyncio.sleep(chance.random() * 0.1)
        live -= 1
        end(ledger, str(number))

    await asyncio.gather(*(request(number) for number in range(400)))
    assert peak <= most
    assert refusals
    assert peak == most
    await until(lambda: not live)
    assert await taken(ledgers[0], caller, "x") == ""
