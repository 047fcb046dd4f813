"""Twice as much from a caller or an upstream takes at most 2.3 times the work, whatever its shape."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import NoReturn

import pytest

from gai_fast.providers import get_provider
from gai_fast.providers.requests.facts import facts_of
from gai_fast.runtime.breathing import breathe
from tests.linear.cases import QUADRATIC, TABLES, Case, quadratic
from tests.linear.counting import forget, instructions, longest_turn, steps
from tests.linear.kept import KEPT
from tests.linear.tool_servers import SERVERS

LINEAR = 2.3
LONG = 2_500
"""Items of what is kept, whose turns are counted."""
TURN = 2_500
"""Steps of one turn: 0.3 ms, interpreted. C splits an array into texts in one turn, in 1.5 ms a MiB."""
WITHOUT_BREATHS = frozenset({"kept, indexed"})
"""Walks of less than 50 ms by their bounds: `limits.response_items`."""
OF_FEW = frozenset({
    "tool server, a list of one schema", "tool server, a list of alternatives", "tool schema, acceptable",
    "tool schema, references", "tool patterns, that name them",
})  # fmt: skip
"""Of a tool server: walks that breathe for each tool, of 64 KiB at most, and one of names, of 512 tools a server."""
FIXED = 200
"""Steps that do not depend on the input: a check that begins above a size, say."""


def is_linear(n: int, once: int, twice: int, thrice: int) -> bool:
    """Returns whether work is linear in its input: nothing is done for each pair of its n parts.

    The ratio alone would not show one step a pair beside a hundred steps a part. The second difference does: it is
    n · n for it, and nothing for the steps of the parts.
    """
    return twice <= LINEAR * once + FIXED and thrice - 2 * twice + once <= n * n / 2 + FIXED


@pytest.mark.interpreted
@pytest.mark.parametrize("table", ["requests", "answers", "texts", "kept", "tool servers"])
def test_twice_as_much_takes_twice_as_many_steps(table: str) -> None:
    rows = TABLES[table]()
    counted = {name: steps(case) for name, case in rows.items()}
    assert {name: found for name, found in counted.items() if not is_linear(rows[name].n, *found)} == {}


def _breathe(_: int) -> None:
    breathe()


@pytest.mark.interpreted
def test_no_turn_of_a_walk_of_what_is_kept_grows_with_it() -> None:
    """Steps between two breaths, at which the loop goes on (`runtime/breathing.py`)."""
    turns = {name: longest_turn(make(LONG)) for name, make in KEPT.items() if name not in WITHOUT_BREATHS}
    assert {name: steps for name, steps in turns.items() if steps > TURN} == {}


@pytest.mark.interpreted
def test_no_turn_of_a_walk_of_what_a_tool_server_sends_grows_with_it() -> None:
    turns = {name: longest_turn(make(LONG)) for name, make in SERVERS.items() if name not in OF_FEW}
    assert {name: steps for name, steps in turns.items() if steps > TURN} == {}


@pytest.mark.interpreted
def test_a_turn_that_grows_is_noticed() -> None:
    assert longest_turn(lambda: [None for _ in range(LONG)]) > TURN
    assert longest_turn(lambda: [*map(_breathe, range(LONG))]) < TURN


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
