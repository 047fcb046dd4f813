"""Amounts, the cost of tokens, and the charges of a stream."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from gai_fast.model.money import UNIT, amount_of, cost_member, cost_of, decimal_text, units
from gai_fast.model.settings import Price, PriceSettings, Settings
from tests.limits import LIMITS

MICRO = UNIT // 10**6
PRICE = Price(
    input=3 * UNIT, output=15 * UNIT, cached_input=UNIT * 3 // 10, cache_write=UNIT * 375 // 100, reasoning=20 * UNIT
)
"""In dollars for a million tokens, so in micro-dollars for one."""


def usage(into: Any = 0, out: Any = 0, cached: Any = 0, new: Any = 0, reasoning: Any = 0) -> dict[str, Any]:
    return {
        "input_tokens": into,
        "output_tokens": out,
        "cached_input_tokens": cached,
        "cache_write_input_tokens": new,
        "reasoning_tokens": reasoning,
    }


@pytest.mark.parametrize(
    ("tokens", "micros"),
    [
        (usage(1000, 200), "6000"),
        (usage(1000, 200, cached=400), "4920"),
        (usage(1000, 200, cached=400, new=100), "4995"),
        (usage(1000, 200, reasoning=150), "6750"),
        (usage(), "0"),
        ({}, "0"),
        ({"output_tokens": 1}, "15"),
        # Counts that contradict each other: no part is negative, and none is paid twice.
        (usage(10, 0, cached=50), "3"),
        (usage(10, 0, cached=8, new=50), "9.9"),
        (usage(0, 10, reasoning=99), "200"),
        (usage(-5, -5, cached=-5, new=-5, reasoning=-5), "0"),
        (usage("9", 1.5, cached=None), "0"),
    ],
)
def test_tokens_cost_what_their_kind_costs(tokens: dict[str, Any], micros: str) -> None:
    assert cost_of(tokens, PRICE) == int(Decimal(micros) * MICRO)


@pytest.mark.parametrize(
    ("searches", "micros"), [(3, 6030), (0, 6000), (-3, 6000), ("3", 6000), (1.0, 6000), (None, 6000)]
)
def test_searches_cost_beside_the_tokens(searches: Any, micros: int) -> None:
    counted = {**usage(1000, 200), "web_search_requests": searches}
    assert cost_of(counted, replace(PRICE, web_search=UNIT // 100)) == micros * MICRO
    assert cost_of(counted, PRICE) == 6000 * MICRO


def test_input_that_is_cached_for_an_hour_costs_twice_the_input_unless_a_price_is_given() -> None:
    counted = {**usage(into=1000, new=500), "cache_write_1h_input_tokens": 200}
    assert cost_of(counted, PRICE) == (500 * 3 + 200 * 6) * UNIT // 10**6 + 300 * 375 * UNIT // 10**8
    own = replace(PRICE, cache_write_1h=5 * UNIT)
    assert cost_of(counted, own) == (500 * 3 + 200 * 5) * UNIT // 10**6 + 300 * 375 * UNIT // 10**8


def test_input_that_is_cached_for_an_hour_is_part_of_the_written_input() -> None:
    counted = {**usage(into=10, new=5), "cache_write_1h_input_tokens": 50}
    assert cost_of(counted, PRICE) == (5 * 3 + 5 * 6) * UNIT // 10**6
    assert cost_of({**usage(into=10), "cache_write_1h_input_tokens": 50}, PRICE) == 30 * UNIT // 10**6


def test_a_cost_is_rounded_half_to_even_at_the_smallest_amount() -> None:
    half = Price(input=500_000, output=0, cached_input=0, cache_write=0, reasoning=0)
    assert [cost_of(usage(tokens), half) for tokens in (1, 2, 3, 4, 5)] == [0, 1, 2, 2, 2]


def test_an_absurd_count_costs_no_more_than_the_limit() -> None:
    absurd = usage(2**53, 2**53)
    assert cost_of(absurd, PRICE) == LIMITS.priced_tokens * 18 * MICRO
    dear = LIMITS.price * UNIT
    assert cost_of(absurd, Price(dear, dear, dear, dear, dear)) == LIMITS.charge * UNIT


@pytest.mark.parametrize(
    ("figure", "amount"),
    [
        (0, 0),
        (0.0, 0),
        (-0.0, 0),
        (0.0066, 6_600_000_000),
        (0.00002445, 24_450_000),
        (6e-7, 600_000),
        (0.0076509169000000005, 7_650_916_900),
        (1e-12, 1),
        (5e-13, 0),
        (1.5e-12, 2),
        (12, 12 * UNIT),
        (Decimal("0.1"), UNIT // 10),
        (LIMITS.charge, LIMITS.charge * UNIT),
        (LIMITS.charge + 1, None),
        (1e30, None),
        (10**400, None),
        (-0.01, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        ("0.01", None),
        (None, None),
        ({"total_cost": 1}, None),
    ],
)
def test_a_figure_of_a_provider_is_an_exact_amount_or_none(figure: Any, amount: int | None) -> None:
    assert amount_of(figure) == amount


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"),
        (6_600_000_000, "0.0066"),
        (1, "0.000000000001"),
        (12 * UNIT, "12"),
        (10 * UNIT + UNIT // 2, "10.5"),
        (-1, "-0.000000000001"),
        (-3 * UNIT // 2, "-1.5"),
    ],
)
def test_an_amount_is_written_with_all_digits(amount: int, text: str) -> None:
    assert decimal_text(amount) == text
    assert cost_member(amount, "EUR") == {"amount": float(text), "currency": "EUR"}


def test_an_amount_in_units_is_the_nearest_number() -> None:
    assert (units(0), units(UNIT // 2), units(66 * UNIT // 10**4)) == (0.0, 0.5, 0.0066)


def test_prices_pass_between_processes() -> None:
    settings = Settings(prices=PriceSettings({("openai", "m"): PRICE}, {}, "2026-11-20"))
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert copy.deepcopy(PRICE) == PRICE
