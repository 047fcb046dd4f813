"""Twice as much from a caller or an upstream takes at most 2.3 times the work, whatever its shape."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import NoReturn

import pytest

from gai_fast.providers import get_provider
from gai_fast.providers.requests.facts import facts_of
from tests.linear.cases import QUADRATIC, TABLES, Case, quadratic
from tests.linear.counting import forget, instructions, steps

LINEAR = 2.3
FIXED = 200
"""Steps that do not depend on the input: a check that begins above a size, say."""


def is_linear(n: int, once: int, twice: int, thrice: int) -> bool:
    """Returns whether work is linear in its input: nothing is done for each pair of its n parts.

    The ratio alone would not show one step a pair beside a hundred steps a part. The second difference does: it is
    n · n for it, and nothing for the steps of the parts.
    """
    return twice <= LINEAR * once + FIXED and thrice - 2 * twice + once <= n * n / 2 + FIXED


@pytest.mark.interpreted
@pytest.mark.parametrize("table", ["requests", "answers", "texts"])
def test_twice_as_much_takes_twice_as_many_steps(table: str) -> None:
    rows = TABLES[table]()
    counted = {name: steps(case) for name, case in rows.items()}
    assert {name: found for name, found in counted.items() if not is_linear(rows[name].n, *found)} == {}


@pytest.mark.parametrize("beside", [0, 100])
def test_a_walk_that_is_not_linear_is_noticed(beside: int) -> None:
    case = Case(lambda n: lambda: [quadratic(n)(), [None for _ in range(beside * n)]])
    assert not is_linear(case.n, *steps(case))
    case = Case(lambda n: lambda: [None for _ in range((beside + 1) * n)])
    assert is_linear(case.n, *steps(case))


def test_no_walk_counts_on_what_an_earlier_one_has_left() -> None:
    facts_of("openai", "m")
    get_provider("openai")
    assert facts_of.cache_info().currsize
    forget()
    assert not facts_of.cache_info().currsize
    assert get_provider.cache_info().currsize  # what the software itself has


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
