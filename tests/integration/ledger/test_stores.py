"""The states of keys in every store: one model, the state in memory, for all of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gai_fast.ledger import SharedHome, SharedLedger, SpendEntry, SpendRow
from gai_fast.ledger._base import REQUESTS, STREAMS, Caps
from gai_fast.ledger.home import Answer, Ask, Home, Report
from gai_fast.ledger.redis import RedisHome
from gai_fast.ledger.sqlite import SQLiteHome
from gai_fast.ledger.state import GRANTED, UNCLEAR
from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import KeyLimits, KeySettings, SpendLimit
from tests.integration.stores.servers import RedisServer
from tests.waiting import until

MakeHome = Callable[[], SharedHome]
NO = (0, 0, 0, 0)
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


def report(caps: Caps, *asks: Ask, kept: tuple[int, int, int, int] = NO, live: int = 0) -> Report:
    return Report("ann", caps, kept, 0, 0, 0.0, live, asks, False)


def told(answers: object) -> Answer:
    assert isinstance(answers, list)
    assert isinstance(answers[0], Answer)
    return answers[0]


async def test_a_store_decides_as_the_model_does(homes: list[SharedHome]) -> None:
    """600 random reports of three workers. Each clock sees a report at another moment, so that only limits which do not
    refill refuse here; what counts for the others is compared with that in mind.
    """
    chance = random.Random(7)
    model = Home(time.monotonic)
    names = {id(home): str(number) for number, home in enumerate(homes)}
    kept = {id(home): NO for home in homes}
    live = {id(home): 0 for home in homes}
    for number in range(1, 601):
        home = chance.choice(homes)
        me = id(home)
        key = chance.choice(["ann", "bob"])
        caps = Caps(7000, 50_000, 6, 10**13, "t USD") if key == "bob" else Caps(2000, 200_000, 80, 10**12, "t USD")
        entries = []
        if chance.random() < 0.3:
            entries = [SpendEntry(key, f"m{number % 3}", "up", DAY, "USD", chance.randrange(10**10))]
        if key == "bob":
            sent = Report(key, caps, NO, 0, chance.randrange(-5, 5), 0.0, 0, [Ask(20, 0.0, True)], False)
        else:
            asks = [Ask(chance.randrange(50), 0.0, True) for _ in range(chance.randrange(3))]
            gives_back = NO if asks or chance.random() < 0.3 else kept[me]
            live[me] = max(0, live[me] - chance.randrange(3))
            sent = Report(key, caps, gives_back, 0, 0, 0.0, live[me], asks, chance.random() < 0.5)
        expected = model.exchange(names[me], number, entries, [sent])
        got = await home.exchange(number, entries, [sent])
        assert got is not None
        assert expected is not None
        assert [verdict for verdict, _ in got[0].verdicts] == [verdict for verdict, _ in expected[0].verdicts]
        assert got[0].used == pytest.approx(expected[0].used, abs=0.1 * 200_000 / 60)
        if key == "ann":
            assert got[0].more == pytest.approx(expected[0].more, rel=0.01, abs=40)
            # Both go on with the same: the model is given what the store has granted.
            more = got[0].more
            kept[me] = tuple(a + b for a, b in zip(sent.kept, more, strict=True))
            holder = model.state(key).holders.get(names[me])
            if holder is not None:
                holder.kept = kept[me]
            live[me] += sum(verdict == GRANTED for verdict, _ in got[0].verdicts)
    assert await homes[0].spend("model", None, None) == model.book.rows("model", None, None)
    assert await homes[1].spend("key", DAY, DAY) == model.book.rows("key", DAY, DAY)
    for key in ("ann", "bob"):
        for label in ("t USD", f"d{DAY} USD", "m2026-11 USD"):
            assert await homes[2].spent(key, label) == model.state(key).spent[label]


async def test_an_exchange_that_is_sent_again_counts_once(homes: list[SharedHome]) -> None:
    entry = SpendEntry("ann", "m", "up", DAY, "USD", 2**60)
    for _ in range(2):
        await homes[0].exchange(1, [entry], [])
    assert await homes[1].spend("day", None, None) == [SpendRow(DAY, "USD", 2**60, 1)]
    assert await homes[1].spend("day", "2026-11-23", None) == []
    assert await homes[1].spent("ann", "t USD") == 2**60


async def test_a_limit_of_spend_is_exact_beyond_what_a_double_holds(homes: list[SharedHome]) -> None:
    caps = Caps(None, None, None, 2**53, "t USD")
    await homes[0].exchange(1, [SpendEntry("ann", "m", "up", DAY, "USD", 2**53 - 1)], [])
    answer = told(await homes[0].exchange(2, [], [report(caps, Ask(0, 0.0, False))]))
    assert answer.verdicts[0][0] == GRANTED


async def test_a_worker_that_is_gone_has_nothing(make_home: MakeHome) -> None:
    first, second = make_home(), make_home()
    await first.open()
    await second.open()
    caps = Caps(None, None, 1, None, "")
    assert told(await first.exchange(1, [], [report(caps, Ask(0, 0.0, False))])).verdicts[0][0] == GRANTED
    assert told(await second.exchange(1, [], [report(caps, Ask(0, 0.0, False))])).verdicts[0][0] == UNCLEAR
    assert await first.recalled() == ["ann"]
    assert told(await second.exchange(2, [], [report(caps, Ask(0, 0.0, True))])).verdicts[0][0] == STREAMS
    await first.close()
    assert told(await second.exchange(3, [], [report(caps, Ask(0, 0.0, False))])).verdicts[0][0] == GRANTED
    await second.close()


async def test_a_limit_that_changes_leaves_what_was_used(homes: list[SharedHome]) -> None:
    ten, twenty = Caps(10, None, None, None, ""), Caps(20, None, None, None, "")
    asks = [Ask(0, 0.0, True)] * 11
    verdicts = told(await homes[0].exchange(1, [], [report(ten, *asks)])).verdicts
    assert [verdict for verdict, _ in verdicts] == [GRANTED] * 10 + [REQUESTS]
    assert verdicts[-1][1] == pytest.approx(6, abs=0.5)
    verdicts = told(await homes[1].exchange(1, [], [report(twenty, *asks)])).verdicts
    assert [verdict for verdict, _ in verdicts] == [GRANTED] * 10 + [REQUESTS]


# ---- ledgers over it -------------------------------------------------------------------------------------------------


def key(**limits: object) -> KeySettings:
    return KeySettings("ann", (), limits=KeyLimits(**limits))


async def taken(ledger: SharedLedger, caller: KeySettings, stream_id: str) -> str:
    try:
        await ledger.take(caller, stream_id, 0)
    except Error as error:
        return str(error.reason)
    return ""


def end(ledger: SharedLedger, stream_id: str) -> None:
    ledger.stream_ended(StreamMetrics(duration=1.0, stream_id=stream_id))


@pytest.fixture
async def ledgers(make_home: MakeHome) -> AsyncIterator[list[SharedLedger]]:
    # On the loop's clock: where the machine stands still, workers are not late for `limits.ledger_recall`.
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
        here, there = there, here


async def test_what_another_worker_keeps_is_given_back(ledgers: list[SharedLedger]) -> None:
    here, there = ledgers
    caller = key(requests_per_minute=320)
    began = time.monotonic()  # the stores' clock: that of the test's loop stands still while the machine is busy
    assert await taken(here, caller, "first") == ""
    verdicts = [await taken(there, caller, str(number)) for number in range(340)]
    passed = time.monotonic() - began
    assert 319 <= verdicts.count("") <= 319 + passed * 320 / 60
    assert set(verdicts) <= {"", "requests_per_minute"}


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


@pytest.mark.parametrize("costs", [[(0, 999)] * 4 + [(1, 4)], [(0, 1500)] * 3, [(1, 9000)], [(0, 1999), (1, 2001)]])
async def test_what_others_keep_is_given_back_before_a_dear_stream_ends(
    ledgers: list[SharedLedger], costs: list[tuple[int, int]]
) -> None:
    caller = key(spend=SpendLimit(4000, "total"))
    for ledger in ledgers:
        assert await taken(ledger, caller, "first") == ""
        assert ledger.try_take(caller, "second", 0)
    for number, cost in costs:
        ledger = ledgers[number]
        assert await taken(ledgers[1 - number], caller, "more") == ""
        ledger.charge(SpendEntry("ann", "m", "up", DAY, "USD", cost))
        await (ledger.reported("ann") or asyncio.sleep(0))
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
