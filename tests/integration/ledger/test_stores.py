"""The states of keys in every store, and ledgers over them. `test_rules.py` compares the stores' answers."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gai_fast.ledger import SharedHome, SharedLedger, SpendEntry, SpendRow
from gai_fast.ledger._base import GRANTED, STREAMS, Caps, Demand
from gai_fast.ledger.home import Report, ReportAnswer
from gai_fast.ledger.redis import RedisHome
from gai_fast.ledger.sqlite import SQLiteHome
from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import KeyLimits, KeySettings, SpendLimit
from tests.conftest import ChangeLimits
from tests.integration.stores.servers import RedisServer
from tests.key_limits import REQUESTS, TOKENS, caps_of
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


def as_answer(answers: object) -> ReportAnswer:
    assert isinstance(answers, list)
    assert isinstance(answers[0], ReportAnswer)
    return answers[0]


async def test_a_usual_output_needs_room_only_beside_other_streams(homes: list[SharedHome]) -> None:
    caps, usual = caps_of(None, 1000, None, None, ""), Demand(900, expected=880)
    first, second = homes[:2]
    answer = as_answer(await first.exchange(1, [], [Report("ann", caps, 0, 500, 0.0, 0, 0, [usual, usual])]))
    assert [verdict.place for verdict in answer.verdicts] == [GRANTED, TOKENS]
    assert as_answer(await second.exchange(1, [], [report(caps, usual)])).verdicts[0].place == TOKENS
    await first.exchange(2, [], [Report("ann", caps, 0, 100 - 900, 0.0, 0, 0, ())])
    assert as_answer(await second.exchange(2, [], [report(caps, usual)])).verdicts[0].place == GRANTED


async def test_what_only_looks_at_the_state_counts_nothing(homes: list[SharedHome]) -> None:
    caps, look = caps_of(10, 1000, 1, 100, "t USD"), Demand(is_counted=False)
    first, second = homes[:2]
    answer = as_answer(await first.exchange(1, [], [report(caps, look, look, Demand(), look)]))
    assert [verdict.place for verdict in answer.verdicts] == [GRANTED, GRANTED, GRANTED, STREAMS]
    assert 0.9 < answer.used.rates[REQUESTS] <= 1
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
    caps = caps_of(None, None, None, 2**53, "t USD")
    await homes[0].exchange(1, [SpendEntry("ann", "m", "up", DAY, "USD", 2**53 - 1)], [])
    answer = as_answer(await homes[0].exchange(2, [], [report(caps, Demand())]))
    assert answer.verdicts[0].place == GRANTED


async def test_a_worker_that_is_gone_has_nothing(make_home: MakeHome) -> None:
    first, second = make_home(), make_home()
    await first.open()
    await second.open()
    caps = caps_of(None, None, 1, None, "")
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
    caps = caps_of(None, None, 1, None, "")
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
    caps = caps_of(1, 10, 2, 100, "t USD")
    answer = as_answer(await first.exchange(1, [], [report(caps, Demand(5))]))
    assert answer.verdicts[0].place == GRANTED
    used = report(caps, live=1)._replace(tokens=2**32 - 1)
    await first.exchange(2, [SpendEntry("ann", "m", "up", DAY, "USD", 100)], [used])
    await second.reset("ann", ["t USD", "m2026-11 USD", f"d{DAY} USD"])
    answer = as_answer(await second.exchange(1, [], [report(caps, Demand(5), Demand())]))
    assert [verdict.place for verdict in answer.verdicts] == [GRANTED, REQUESTS]
    assert (answer.used.rates[REQUESTS], answer.used.rates[TOKENS]) == (
        pytest.approx(1, abs=0.1),
        pytest.approx(5, abs=0.5),
    )
    assert await first.spent("ann", "t USD") == 0
    assert await first.spend("key", None, None) == [SpendRow("ann", "USD", 100, 1)]
    await second.reset("ann", ["t USD"])
    answer = as_answer(await second.exchange(2, [], [report(caps, Demand(), live=1)]))
    assert [verdict.place for verdict in answer.verdicts] == [STREAMS]
    await second.reset("nobody", ["t USD"])


async def test_a_limit_that_changes_leaves_what_was_used(homes: list[SharedHome]) -> None:
    ten, twenty = caps_of(10, None, None, None, ""), caps_of(20, None, None, None, "")
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
