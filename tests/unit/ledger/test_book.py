"""The book of spend."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

import pytest

from gai_fast.ledger import SpendEntry, SpendRow
from gai_fast.ledger.book import SpendBook, Sums
from gai_fast.ledger.limits import Limits
from gai_fast.model.limits import OTHER
from tests.conftest import ChangeLimits

DAY = "2026-11-22"


def entry(key: str = "ann", model: str = "fast", upstream: str = "up", day: str = DAY, amount: int = 1) -> SpendEntry:
    return SpendEntry(key, model, upstream, day, "USD", amount)


def test_sums_are_exact_and_in_order() -> None:
    spend = SpendBook()
    for amount in (10**18, 1, 2):
        spend.add(entry(amount=amount))
    spend.add(entry("bob", "slow", "down", "2026-11-23", 5))
    assert spend.rows("key", None, None) == [SpendRow("ann", "USD", 10**18 + 3, 3), SpendRow("bob", "USD", 5, 1)]
    assert spend.rows("model", None, None) == [SpendRow("fast", "USD", 10**18 + 3, 3), SpendRow("slow", "USD", 5, 1)]
    assert [row.value for row in spend.rows("upstream", None, None)] == ["down", "up"]
    assert [row.value for row in spend.rows("day", None, None)] == [DAY, "2026-11-23"]


@pytest.mark.parametrize(("since", "until", "days"), [(DAY, None, 2), (None, DAY, 2), (DAY, DAY, 1), ("2027", None, 0)])
def test_both_dates_belong_to_the_time_that_is_asked_for(since: str | None, until: str | None, days: int) -> None:
    spend = SpendBook()
    for day in ("2026-11-21", DAY, "2026-11-23"):
        spend.add(entry(day=day))
    assert len(spend.rows("day", since, until)) == days


def test_a_report_looks_at_the_entries_of_its_days_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 100,000 entries the dashboard held the loop for 60 ms, twice in five seconds."""
    spend = SpendBook()
    for day in ("2026-11-21", DAY, "2026-11-23"):
        for number in range(100):
            spend.add(entry(model=f"m{number}", day=day))
    looked_at: list[str] = []
    add = Sums.add

    def looking(sums: Sums, entries: Iterable[SpendEntry]) -> None:
        found = [*entries]
        looked_at.extend(each.day for each in found)
        add(sums, found)

    monkeypatch.setattr(Sums, "add", looking)
    assert spend.rows("key", DAY, DAY) == [SpendRow("ann", "USD", 100, 100)]
    assert looked_at == [DAY] * 100


def test_entries_of_several_days_are_taken_day_by_day() -> None:
    spend = SpendBook()
    days = ["2026-11-21", DAY, "2026-11-21"]
    for number, day in enumerate(days):
        spend.add(entry(model=f"m{number}", day=day))
    assert [(each.day, each.model) for each in spend.take(2)] == [("2026-11-21", "m0"), ("2026-11-21", "m2")]
    assert len(spend) == 1
    assert [(each.day, each.model) for each in spend.take(2)] == [(DAY, "m1")]
    assert len(spend) == 0
    assert spend.rows("day", None, None) == []


def test_entries_are_taken_once() -> None:
    spend = SpendBook()
    spend.add(entry(amount=2))
    spend.add(entry(amount=3))
    spend.add(entry("bob"))
    assert spend.take(1) == [SpendEntry("ann", "fast", "up", DAY, "USD", 5, 2)]
    assert spend.take(5) == [SpendEntry("bob", "fast", "up", DAY, "USD", 1, 1)]
    assert spend.take(5) == []


@pytest.fixture
def small(change_limits: ChangeLimits) -> None:
    change_limits(spend_entries=3)


@pytest.mark.usefixtures("small")
def test_the_book_is_bounded_and_loses_no_money() -> None:
    spend = SpendBook()
    for number in range(50):
        spend.add(entry(model=f"m{number}"))
    assert len(spend) == 4
    assert spend.rows("key", None, None) == [SpendRow("ann", "USD", 50, 50)]
    assert SpendRow(OTHER, "USD", 47, 47) in spend.rows("model", None, None)


@pytest.mark.usefixtures("small")
def test_days_that_are_too_old_make_room() -> None:
    spend = SpendBook()
    old = (date.fromisoformat(DAY) - timedelta(Limits().spend_days + 1)).isoformat()
    for number in range(3):
        spend.add(entry(model=f"m{number}", day=old))
    spend.add(entry())
    assert spend.rows("model", None, None) == [SpendRow("fast", "USD", 1, 1)]


def test_amounts_of_two_currencies_are_rows_of_their_own() -> None:
    spend = SpendBook()
    spend.add(entry(amount=5))
    spend.add(entry(amount=7)._replace(currency="EUR"))
    assert spend.rows("key", None, None) == [SpendRow("ann", "EUR", 7, 1), SpendRow("ann", "USD", 5, 1)]
