from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gai_fast.core.usage import Known, absurd_count, completed, most_tokens
from tests.limits import LIMITS

KNOWN = Known(prompt=400, answer=40)
"""By length, 100 tokens of input and 10 of output."""


def usage(into: Any, out: Any, **more: Any) -> dict[str, Any]:
    total = {"total_tokens": into + out} if isinstance(into, int) and isinstance(out, int) else {}
    counts = {"input_tokens": into, "output_tokens": out}
    return {name: count for name, count in counts.items() if count is not None} | total | more


def estimated(into: int, out: int, **more: Any) -> dict[str, Any]:
    return {**usage(into, out), **more, "source": "estimated"}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (usage(7, 5), usage(7, 5)),
        (usage(7, 5, source="counted"), usage(7, 5, source="counted")),
        ({}, estimated(100, 10)),
        (usage(None, 5), estimated(100, 5)),
        (usage(7, None), estimated(7, 10)),
        (usage(7, None, source="partial"), usage(7, 10, source="partial")),
        (usage(None, 5, cached_input_tokens=300), estimated(300, 5, cached_input_tokens=300)),
        (usage(7, None, reasoning_tokens=30), estimated(7, 30, reasoning_tokens=30)),
        (usage(0, 5), usage(0, 5)),
        (usage(0, 0), estimated(100, 10)),
        (usage(7, 0), estimated(7, 10)),
        (usage(2**32 - 1, 5, cached_input_tokens=2**31), estimated(100, 5)),
        (usage(7, 2**32 - 1), estimated(7, 10)),
        (usage("7", True), estimated(100, 10)),
    ],
)
def test_an_estimate_stands_for_each_count_that_is_not_measured(said: dict[str, Any], told: dict[str, Any]) -> None:
    assert completed(said, KNOWN, "estimated") == told
    assert [*completed(said, KNOWN, "estimated")] == [*told], "the keys are in order"
    assert completed(told, KNOWN, "estimated") == told


def test_no_output_is_measured_where_there_is_no_text_or_the_provider_names_the_cost() -> None:
    assert completed(usage(7, 0), replace(KNOWN, answer=0), "estimated") == usage(7, 0)
    assert completed(usage(7, 0), replace(KNOWN, zero_counts=True), "estimated") == usage(7, 0)


def test_a_total_that_is_not_the_sum_is_replaced() -> None:
    assert completed({**usage(7, 5), "total_tokens": 99}, KNOWN, "estimated") == usage(7, 5)


def test_the_cost_stays_last() -> None:
    assert [*completed(usage(7, None, cost={"amount": 1}), KNOWN, "estimated")][-2:] == ["source", "cost"]


def test_a_count_is_absurd_only_above_the_window_and_above_the_text() -> None:
    short, long = Known(400, 40, window=1000), Known(400, 4000, window=1000)
    assert (most_tokens(short), most_tokens(long)) == (440 * LIMITS.tokens_per_character, 4400 * 8)
    assert most_tokens(replace(short, window=10_000)) == 10_000
    assert most_tokens(replace(short, window=None)) == LIMITS.window
    assert absurd_count(usage(7, 3520), 3520) == 0
    assert absurd_count(usage(3521, 2**32 - 1), 3520) == 2**32 - 1
    assert absurd_count(usage(None, "x"), 3520) == 0
