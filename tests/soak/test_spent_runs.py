"""`make spent-runs`, for a few runs, and what its judge finds."""

from __future__ import annotations

import sys
from decimal import Decimal
from random import Random

import pytest

from tests.soak.spent_runs import KEYS, Minute, Run, run_of
from tests.soak.test_outlive import output_of


@pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")
async def test_each_key_is_charged_exactly_what_was_counted_for_its_runs() -> None:
    output = await output_of("tests.soak.spent_runs", "--runs", "12", "--stores", "memory")
    assert "'runs': 17" in output, "12, and one more of each key with a limit"


def run(tokens: int, began: float, ended: float) -> Run:
    made = run_of(Random(0), "r")
    made.counted, made.began, made.ended = [("up", (tokens - 1, 0, 1, 0))], began, ended
    return made


def test_the_price_of_a_run_is_that_of_each_kind_of_token_at_each_upstream() -> None:
    made = Run("r", KEYS[0], "whole", [], [("up", (100, 40, 20, 5)), ("spare", (10, 0, 1, 0))])
    up = 60 * Decimal("2.51") + 40 * Decimal("0.253") + 15 * Decimal("10.07") + 5 * Decimal("12.009")
    spare = 10 * Decimal("3.01") + Decimal("15.1")
    assert made.cost == (up + spare) / 10**6
    assert made.tokens == 131


def test_tokens_count_from_some_moment_of_their_run_on() -> None:
    """600 tokens a minute are ten a second: what was used by 50 and 30 tokens is free eight seconds later."""
    minute = Minute(600, [run(50, 100.0, 101.0), run(30, 102.0, 102.5)])
    assert [minute.has(reset, 103.0, 103.0) for reset in (4.9, 5.0, 6.0, 6.1)] == [False, True, True, False]
    assert Minute(600, [run(50, 100.0, 100.0)]).has(0.0, 109.0, 109.0)
