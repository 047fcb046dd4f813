"""The limits of keys in a file: restarts, of a worker and of the machine, and how much is kept."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from gai_fast.ledger import SpendEntry, SpendRow, sqlite
from gai_fast.ledger._base import GRANTED, Caps, Demand
from gai_fast.ledger.book import Sums
from gai_fast.ledger.home import Report, ReportAnswer
from gai_fast.ledger.sqlite import SQLiteHome
from gai_fast.model.limits import OTHER
from tests.conftest import ChangeLimits
from tests.key_limits import REQUESTS, caps_of
from tests.limits import LIMITS

TEN = caps_of(10, None, None, None, "")
DEMANDS = [Demand()] * 11


class Clock:
    """The machine's monotonic time."""

    now = 5000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sqlite, "time", clock)
    return clock


def report(caps: Caps, demands: list[Demand]) -> Report:
    return Report("ann", caps, 0, 0, 0.0, 0, 0, demands)


def verdicts(answers: object) -> list[int]:
    assert isinstance(answers, list)
    assert isinstance(answers[0], ReportAnswer)
    return [verdict.place for verdict in answers[0].verdicts]


async def opened(folder: Path) -> SQLiteHome:
    home = SQLiteHome(folder / "gai-fast.db")
    await home.open()
    return home


async def test_what_was_used_and_spent_outlives_the_server(tmp_path: Path, clock: Clock) -> None:
    home = await opened(tmp_path)
    entry = SpendEntry("ann", "m", "up", "2026-11-22", "USD", 10**20)
    assert verdicts(await home.exchange(1, [entry], [report(TEN, DEMANDS)])) == [GRANTED] * 10 + [REQUESTS]
    await home.close()
    home = await opened(tmp_path)
    assert verdicts(await home.exchange(1, [], [report(TEN, DEMANDS[:1])])) == [REQUESTS]
    assert await home.spend("key", None, None) == [SpendRow("ann", "USD", 10**20, 1)]
    assert await home.spent("ann", "t USD") == 10**20
    clock.now += 6
    assert verdicts(await home.exchange(2, [], [report(TEN, DEMANDS[:2])])) == [GRANTED, REQUESTS]
    await home.close()


async def test_after_a_restart_of_the_machine_what_counted_still_counts(tmp_path: Path, clock: Clock) -> None:
    home = await opened(tmp_path)
    await home.exchange(1, [], [report(caps_of(10, None, 5, None, ""), DEMANDS[:5])])
    clock.now = 10.0
    again = await opened(tmp_path)
    assert verdicts(await again.exchange(1, [], [report(TEN, DEMANDS)])) == [GRANTED] * 5 + [REQUESTS] * 6
    clock.now += 6
    assert verdicts(await again.exchange(2, [], [report(TEN, DEMANDS[:1])])) == [GRANTED]
    await home.close()
    await again.close()


async def test_a_worker_that_is_not_heard_has_nothing(tmp_path: Path, clock: Clock) -> None:
    first, second = await opened(tmp_path), await opened(tmp_path)
    one = caps_of(None, None, 1, None, "")
    assert verdicts(await first.exchange(1, [], [report(one, DEMANDS[:1])])) == [GRANTED]
    clock.now += LIMITS.ledger_gone + 1
    assert verdicts(await second.exchange(1, [], [report(one, DEMANDS[:1])])) == [GRANTED]
    await first.close()
    await second.close()


async def test_a_key_of_which_nothing_counts_has_no_row(tmp_path: Path, clock: Clock) -> None:
    """An issuer has any number of callers, and each had a row for ever."""
    first, second = await opened(tmp_path), await opened(tmp_path)
    entry = SpendEntry("spends", "m", "up", "2026-11-22", "USD", 5)
    await first.exchange(1, [entry], [Report("streams", TEN, 0, 0, 0.0, 1, 0, [])])
    for number in range(50):
        own = report(TEN, [])._replace(key=f"issuer:{number}")
        await second.exchange(2 * number + 1, [], [own._replace(demands=DEMANDS[:1])])
        await second.exchange(2 * number + 2, [], [own])
        clock.now += 1
        await first.exchange(number + 2, [], [])

    def rows() -> list[str]:
        with sqlite3.connect(tmp_path / "gai-fast.db") as connection:
            return [key for (key,) in connection.execute("SELECT key FROM limit_keys")]

    assert len(rows()) <= 20, "a use counts for 6 s"
    assert {"issuer:49", "spends", "streams"} <= {*rows()}
    clock.now += LIMITS.ledger_gone + 1  # the first one is gone
    for number in range(20):
        await second.exchange(number + 101, [], [])
    assert rows() == ["spends"]
    await first.close()
    await second.close()


async def test_a_day_has_a_bounded_number_of_rows_and_loses_no_money(
    tmp_path: Path, change_limits: ChangeLimits
) -> None:
    change_limits(spend_entries=3)
    home = await opened(tmp_path)
    entries = [SpendEntry("ann", f"m{number}", "up", "2026-11-22", "USD", 1) for number in range(20)]
    await home.exchange(1, entries, [])
    assert await home.spend("key", None, None) == [SpendRow("ann", "USD", 20, 20)]
    assert SpendRow(OTHER, "USD", 17, 17) in await home.spend("model", None, None)
    await home.close()


async def test_the_rows_of_a_day_are_not_counted_for_each_new_one(tmp_path: Path, change_limits: ChangeLimits) -> None:
    """Counting 100,000 took 20 ms: a full exchange of new ones took 10 s, and the limits wait for 2 s."""
    change_limits(spend_entries=1000)
    one, other = await opened(tmp_path), await opened(tmp_path)
    counted: list[str] = []

    def watch(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(lambda text: counted.append(text) if "COUNT(*)" in text else None)

    await one._backend.transact(watch)
    entries = [SpendEntry("ann", f"m{number}", "up", "2026-11-22", "USD", 1) for number in range(3000)]
    for number, start in enumerate(range(0, 3000, 500), 1):
        await one.exchange(number, entries[start : start + 500], [])
    assert len(counted) < 300
    rows = await one.spend("model", None, None)
    assert (len(rows), sum(row.amount for row in rows)) == (1001, 3000)
    await other.exchange(1, [entries[0]._replace(model="new")], [])
    assert SpendRow(OTHER, "USD", 2001, 2001) in await one.spend("model", None, None)
    for home in (one, other):
        await home.close()


async def test_spend_is_kept_for_its_days_and_a_clock_that_was_set_ahead_drops_none(tmp_path: Path) -> None:
    """The first charge of a machine that began in 2099 dropped all spend in the file."""
    home = await opened(tmp_path)
    days = ["2026-11-22", "2026-11-23", "2099-01-01", "2026-11-24", "2028-11-22"]
    for number, day in enumerate(days, 1):
        await home.exchange(number, [SpendEntry("ann", "m", "up", day, "USD", 1)], [])
    assert [row.value for row in await home.spend("day", None, None)] == sorted(days)
    await home.exchange(6, [SpendEntry("ann", "m", "up", "2028-11-23", "USD", 1)], [])
    assert [row.value for row in await home.spend("day", None, None)] == ["2028-11-22", "2028-11-23", "2099-01-01"]
    await home.close()


async def test_spend_is_added_up_off_the_loop_and_only_of_the_days_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = await opened(tmp_path)
    days = ["2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23"]
    await home.exchange(1, [SpendEntry("ann", "m", "up", day, "USD", 10**20) for day in days], [])
    added: list[tuple[int, str]] = []

    def add(sums: Sums, entries: Iterable[SpendEntry]) -> None:
        entries = [*entries]
        added.extend((threading.get_ident(), entry.day) for entry in entries)
        summed(sums, entries)

    summed = Sums.add
    monkeypatch.setattr(Sums, "add", add)
    assert await home.spend("key", days[1], days[2]) == [SpendRow("ann", "USD", 2 * 10**20, 2)]
    assert [day for _, day in added] == days[1:3]
    assert threading.get_ident() not in {thread for thread, _ in added}
    assert [row.value for row in await home.spend("day", days[3], None)] == days[3:]
    assert [row.value for row in await home.spend("day", None, days[0])] == days[:1]
    await home.close()


@pytest.mark.parametrize("text", ["", "[]", "[1,2,3,4]", "[1,[[0]],{},{}]", '[1,[[0,1],[0,1]],{"w":1},{}]', 7])
async def test_a_damaged_row_concerns_its_key_alone_and_is_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: object
) -> None:
    """It failed each exchange of each key, for good."""
    home = await opened(tmp_path)
    ann = SpendEntry("ann", "m", "up", "2026-11-22", "USD", 100)
    asking = [report(TEN, DEMANDS), report(TEN, DEMANDS)._replace(key="bob")]
    await home.exchange(1, [ann], asking)

    def damage(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE limit_keys SET state = ? WHERE key = 'ann'", (text,))

    await home._backend.transact(damage)
    assert await home.spent("ann", "t USD") == 100
    damaged, other = await home.exchange(2, [ann], asking) or ()
    assert damaged is None
    assert verdicts([other]) == [REQUESTS] * 11
    assert "what key ann has used of its limits is damaged in the store: it is counted from zero again" in caplog.text
    assert verdicts(await home.exchange(3, [], asking)) == [GRANTED] * 10 + [REQUESTS]
    assert await home.spent("ann", "t USD") == 200, "of the sums of its days"
    await home.close()


@pytest.mark.parametrize("damage", ["number = 'x'", "number = x'00'", "heard = 'x'"])
async def test_a_damaged_row_of_a_worker_ends_no_exchange(tmp_path: Path, damage: str) -> None:
    """It failed each exchange of the worker, for as long as that ran."""
    home = await opened(tmp_path)
    await home.exchange(1, [], [report(TEN, DEMANDS[:1])])
    await home._backend.transact(lambda connection: connection.execute(f"UPDATE limit_workers SET {damage}"))
    assert verdicts(await home.exchange(2, [], [report(TEN, DEMANDS[:1])])) == [GRANTED]
    await home.close()


@pytest.mark.parametrize(
    "damage", ["amount = 'x'", "amount = x'00'", "amount = '1.5'", "requests = 'many'", "requests = 0.5"]
)
async def test_a_damaged_sum_of_spend_is_counted_anew_and_keeps_no_other_from_being_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """It was a `ValueError`, of each report and of each exchange that charged the same sum: nothing was charged."""
    home = await opened(tmp_path)
    ann, bob = (SpendEntry(key, "m", "up", "2026-11-22", "USD", 100) for key in ("ann", "bob"))
    await home.exchange(1, [ann, bob], [])
    with sqlite3.connect(tmp_path / "gai-fast.db") as connection:
        connection.execute(f"UPDATE spend SET {damage} WHERE key = 'ann'")
    connection.close()
    assert await home.spend("key", None, None) == [SpendRow("bob", "USD", 100, 1)]
    assert "1 sums of spend in the store are damaged, and are not in the report" in caplog.text
    caplog.clear()
    await home.exchange(2, [ann, bob], [])
    assert "the spend of ann on 2026-11-22 is damaged in the store: it is counted from zero again" in caplog.text
    assert sorted(await home.spend("key", None, None)) == [
        SpendRow("ann", "USD", 100, 1),
        SpendRow("bob", "USD", 200, 2),
    ]
    assert await home.spent("ann", "t USD") == 200, "the key's limit is not lowered"
    await home.close()
