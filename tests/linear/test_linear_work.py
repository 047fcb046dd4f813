"""Twice as much from a caller or an upstream takes at most 2.3 times the work, whatever its shape."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import NoReturn

import pytest

from tests.linear.cases import QUADRATIC, TABLES, Case, quadratic
from tests.linear.counting import instructions, steps

LINEAR = 2.3
FIXED = 200
"""Steps that do not depend on the input: a check that begins above a size, say. A quadratic walk of 64 takes 4,096."""


@pytest.mark.interpreted
@pytest.mark.parametrize("table", ["requests", "answers", "texts"])
def test_twice_as_much_takes_twice_as_many_steps(table: str) -> None:
    # A chain of definitions may be known from an earlier row, or be longer than a provider takes: its steps jump.
    rows = {name: case for name, case in TABLES[table]().items() if not name.endswith("chained schema")}
    counted = {name: steps(case) for name, case in rows.items()}
    assert {name: both for name, both in counted.items() if both[1] > LINEAR * both[0] + FIXED} == {}


def test_a_walk_that_is_not_linear_is_noticed() -> None:
    once, twice = steps(Case(quadratic))
    assert twice > LINEAR * once + FIXED


@pytest.mark.long
@pytest.mark.native
@pytest.mark.timeout(1500)
def test_twice_as_much_takes_twice_as_many_instructions(unavailable: Callable[[str], NoReturn]) -> None:
    """What C copies is no step."""
    for program in ("valgrind", "cc"):
        if shutil.which(program) is None:
            unavailable(program)
    counted = instructions("volumes", 1400)
    growths = {name: twice / once for name, (once, twice) in counted.items()}
    assert growths.pop(QUADRATIC) > LINEAR
    assert {name: growth for name, growth in growths.items() if growth > LINEAR} == {}
