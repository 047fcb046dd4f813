"""The spend of the day in samples."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from gai_fast.ledger import GroupBy, Ledger, SpendRow
from gai_fast.model.money import UNIT
from gai_fast.server.admin.bodies import plain
from gai_fast.server.admin.today import Today
from gai_fast.stores.backend import StoreError
from tests.conftest import ChangeLimits
from tests.limits import LIMITS


class Book:
    """A ledger that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.rows = 2
        self.error: Exception | None = None
        self.is_silent = False

    async def spend(self, by: GroupBy, since: str | None = None, until: str | None = None) -> list[SpendRow]:
        self.asked.append((by, since, until))
        if self.is_silent:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return [SpendRow(f"{by}{number}", "USD", number * UNIT // 2, 3) for number in range(self.rows)]


class Clock:
    """A clock that is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def today(book: Book, clock: Clock) -> Today:
    return Today(cast(Ledger, book), clock, lambda: 86_400.0)


async def test_the_rows_of_one_day_are_shown_the_largest_first(today: Today, book: Book) -> None:
    def row(by: str, number: int, amount: float) -> dict[str, Any]:
        return {by: f"{by}{number}", "amount": amount, "currency": "USD", "requests": 3}

    assert plain(await today.spend()) == {
        "day": "1970-01-02",
        "keys": [row("key", 1, 0.5), row("key", 0, 0.0)],
        "models": [row("model", 1, 0.5), row("model", 0, 0.0)],
    }
    assert {asked[1:] for asked in book.asked} == {("1970-01-02", "1970-01-02")}


async def test_the_ledger_is_asked_once_an_interval(today: Today, book: Book, clock: Clock) -> None:
    first = await today.spend()
    book.rows = 0
    clock.now += LIMITS.spend_interval - 0.1
    assert await today.spend() == first
    clock.now += 0.1
    assert plain(await today.spend())["keys"] == []
    assert len(book.asked) == 4


async def test_many_keys_are_the_largest_of_them(today: Today, book: Book) -> None:
    book.rows = LIMITS.spend_sampled + 5
    spend = plain(await today.spend())
    assert spend is not None
    assert len(spend["keys"]) == len(spend["models"]) == LIMITS.spend_sampled
    assert spend["keys"][0]["key"] == f"key{LIMITS.spend_sampled + 4}"


@pytest.fixture
def hurried(change_limits: ChangeLimits) -> None:
    change_limits(sample_interval=0.01)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("is_silent", [True, False])
async def test_a_store_that_fails_is_no_spend_until_the_next_interval(
    today: Today, book: Book, clock: Clock, is_silent: bool
) -> None:
    book.error, book.is_silent = StoreError("unreachable", "gone"), is_silent
    assert await today.spend() is None
    asked = len(book.asked)
    assert await today.spend() is None
    assert len(book.asked) == asked
    book.error, book.is_silent = None, False
    clock.now += LIMITS.spend_interval
    assert await today.spend() is not None
