"""Whom a limit of an upstream keeps from a target or a key."""

from __future__ import annotations

import pytest

from gai_fast.model.errors import Error
from gai_fast.net.attempts.limited import Limited, is_untimed
from tests.conftest import ChangeLimits
from tests.limits import LIMITS

TOO_LARGE = "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 36278."


@pytest.mark.parametrize(
    ("error", "untimed"),
    [
        (Error("rate_limited", "slow down"), True),
        (Error("rate_limited", "slow down", retry_after_ms=0), False),
        (Error("rate_limited", "slow down", retry_after_ms=7000), False),
        (Error("rate_limited", TOO_LARGE), False),
        (Error("overloaded", "busy"), False),
    ],
)
def test_a_limit_without_a_time_is_a_429_that_names_none(error: Error, untimed: bool) -> None:
    assert is_untimed(error) is untimed


def test_a_limit_without_a_time_is_its_callers_for_a_while() -> None:
    limited = Limited()
    assert not limited.passes_over("a", 0.0)
    assert not limited.note("a", 0.0)
    assert limited.passes_over("a", LIMITS.cooling - 0.1)
    assert not limited.passes_over("b", 0.0)
    assert not limited.passes_over("a", LIMITS.cooling)


def test_a_limit_that_two_callers_meet_is_of_all() -> None:
    limited = Limited()
    limited.note("a", 0.0)
    assert limited.note("b", 3.0)
    assert limited.note("a", 4.0)


def test_a_limit_that_one_caller_meets_for_a_whole_window_is_of_all() -> None:
    limited = Limited()
    assert [limited.note("a", at) for at in (0.0, 30.0, 59.0, LIMITS.limited_alone)] == [False, False, False, True]


def test_what_one_caller_meets_leaves_others_requests_to_be_tried() -> None:
    """One caller that goes on would else keep the target from those that come later, for ever."""
    limited = Limited()
    said = [limited.note("a", float(at)) for at in range(0, 300, 5)]
    assert said.count(True) <= 300 / LIMITS.limited_alone
    assert limited.note("b", 300.0), "two callers"


def test_a_request_that_is_served_ends_the_count() -> None:
    limited = Limited()
    limited.note("a", 0.0)
    limited.served()
    assert not limited.note("b", 1.0)
    assert limited.note("c", 2.0)


def test_a_limit_of_long_ago_counts_for_nothing() -> None:
    limited = Limited()
    limited.note("a", 0.0)
    assert limited.is_over(LIMITS.limited_alone)
    assert not limited.note("b", LIMITS.limited_alone)


def test_the_callers_that_are_passed_over_have_a_bound(change_limits: ChangeLimits) -> None:
    change_limits(limited_callers=2)
    limited = Limited()
    for caller in "abc":
        limited.note(caller, 0.0)
    assert [limited.passes_over(caller, 1.0) for caller in "abc"] == [False, True, True]
