"""How long a pattern leaves a text undecided."""

from __future__ import annotations

import contextlib

import pytest

from gai_fast.guards.limits import LIMITS
from gai_fast.guards.syntax import BadPattern
from gai_fast.guards.waits import ENDLESS, longest_chain, read_pattern
from tests.conftest import ChangeLimits


@pytest.mark.parametrize(
    "pattern",
    [
        "sk-[A-Za-z0-9]{20,}",
        "a+",
        "(ab)+",
        r"\d+(\.\d+)*",
        r"(?:[a-z]+\.)*[a-z]+",
        "(a*b|a+)",
        "(?:a?)*a",
        "a.{0,1000}.{0,1000}.{0,1000}.{0,1000}b",
        "(?:a{1000}){4}b{96}c",
        ".+",
        "(?:(?:ab)+c?)+",
    ],
)
def test_a_pattern_that_may_end_while_it_goes_on_is_accepted(pattern: str) -> None:
    read_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "repeat", "wait", "at"),
    [
        ("a[^c]*d", "[^c]*", "without end", 2),
        ('key"[^"]+"', '[^"]+', "without end", 5),
        ("(?:x[a-z]+)*y", "[a-z]+", "without end", 5),
        ("a(?:[^c]{2})*d", "(?:[^c]{2})*", "without end", 2),
        ("a|ab*c", "b*", "without end", 4),
        ("([a-z0-9-]+\\.)+[a-z]{2,}", "[a-z0-9-]+", "without end", 2),
        ("a(?:.{1000}){5}b", ".{1000}", "for 5001 characters", 5),
        ("(?:a{1000}){4}b{97}c", "a{1000}", "for 4097 characters", 4),
    ],
)
def test_a_refusal_names_the_repeat_to_bound(pattern: str, repeat: str, wait: str, at: int) -> None:
    with pytest.raises(BadPattern) as refused:
        read_pattern(pattern)
    message = f"`{repeat}`, with which the pattern may wait {wait} for its end, at character {at}: bound it"
    assert str(refused.value).startswith(message)


def test_a_chain_is_the_longest_one() -> None:
    assert longest_chain([[1, 2], [3], [], []], [1, 1, 1, 1]).length == 3
    assert longest_chain([[1], [0]], [0, 0]).length == 0
    assert longest_chain([[1], [0, 2], []], [0, 0, 5]).length == 5
    assert longest_chain([[1], [2], [1]], [1, 1, 0]).length == ENDLESS
    assert longest_chain([[0]], [1]).length == ENDLESS
    deep = 50_000
    assert longest_chain([[at + 1] for at in range(deep)] + [[]], [1] * (deep + 1)).length == deep + 1


def test_the_proof_has_a_limit(change_limits: ChangeLimits) -> None:
    read_pattern(r"(?:[a-z]+\.)*[a-z]+")
    change_limits(subset_steps=2)
    with pytest.raises(BadPattern):
        read_pattern(r"(?:[a-z]+\.)*[a-z]+")
    assert LIMITS.wait == 4096


@pytest.mark.parametrize(
    ("pattern", "steps"), [("(a{1,1000}b{1,1000}c{1,1000}d{1,1000}){1,4}", 150_000), ("[ab]*a[ab]{15}", 190_000)]
)
def test_reading_a_pattern_pauses_while_its_paths_and_sets_are_walked(pattern: str, steps: int) -> None:
    pauses: list[int] = []
    with contextlib.suppress(BadPattern):
        read_pattern(pattern, pause=lambda: pauses.append(1))
    assert len(pauses) >= steps / LIMITS.built
