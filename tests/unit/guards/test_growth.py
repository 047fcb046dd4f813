"""`gai_fast/guards/growth.py`: which patterns need a state a character."""

from __future__ import annotations

import pytest

from gai_fast.guards import growth
from gai_fast.guards.automaton import Automaton, compile_rules
from gai_fast.guards.program import Rule
from gai_fast.model.settings import GuardSettings
from tests.conftest import ChangeLimits


def patterns(*found: str) -> GuardSettings:
    return GuardSettings("secrets", "patterns", patterns=found)


def growing(*guards: GuardSettings) -> list[str]:
    """Returns the patterns of some guards that a warning names."""
    return [warning.split("`")[1] for warning in growth.warnings(guards) if warning.startswith("guard ")]


@pytest.mark.parametrize(
    "pattern",
    [
        "token.{0,500}[a-f0-9]{20}",
        "(?i)(token|secret).{0,500}[A-Za-z0-9]{20}",
        "a[ab]{0,500}b{20}c",
        "a.{0,99}b.{0,99}c",
        "key.{0,40}[A-Za-z0-9]{32}",
    ],
)
def test_a_pattern_that_needs_a_state_a_character_grows(pattern: str) -> None:
    assert growing(patterns("sk-[a-z]{4,}", pattern)) == [pattern]


@pytest.mark.parametrize(
    "pattern",
    [
        "a",
        ".",
        "(?i)project nightingale",
        "sk-[A-Za-z0-9]{20,200}",
        r"[A-Za-z0-9._%+-]{1,64}@([A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}",
        r"password\s{0,20}[:=]\s{0,20}\S{1,100}",
        "(x{1,9}x{1,9}){1,9}y",
        r"\d+(\.\d+)*",
    ],
)
def test_usual_patterns_do_not_grow(pattern: str) -> None:
    assert growing(patterns(pattern)) == []


def test_a_warning_names_guard_and_pattern() -> None:
    [warning] = growth.warnings([patterns("a.{0,99}b.{0,99}c"), GuardSettings("people", "pii", kinds=("email",))])
    assert warning.startswith("guard secrets: `a.{0,99}b.{0,99}c` needs much work")


def test_a_trial_ends_where_it_takes_too_much(change_limits: ChangeLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    change_limits(trial_steps=20_000)
    made: list[Automaton] = []

    def noted(rules: list[Rule]) -> Automaton:
        made.append(compile_rules(rules))
        return made[-1]

    monkeypatch.setattr(growth, "compile_rules", noted)
    large = "(a{0,100}b?){0,40}c"
    assert growing(patterns(large)) == [large]
    assert made[0].steps < 100_000


def test_the_trials_of_all_guards_have_one_bound_and_what_is_not_tried_is_said(change_limits: ChangeLimits) -> None:
    change_limits(trial_steps=1)
    grows = "a.{0,99}b.{0,99}c"
    guards = patterns(grows, grows), patterns(grows)
    assert growing(*guards) == [grows]
    assert growth.warnings(guards)[-1].startswith("guards: 2 patterns were not tried for their work")
    assert len(growth.warnings([patterns("a")])) == 0
