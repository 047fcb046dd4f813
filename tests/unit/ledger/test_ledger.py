"""The errors of refusals, and the dates of periods."""

from __future__ import annotations

import pytest

from gai_fast.ledger._base import NAMES, REQUESTS, SPEND, STREAMS, TOKENS, Caps
from gai_fast.ledger.ledger import date_of, refusal
from tests.limits import LIMITS

CAPS = Caps(20, 1000, 5, 10**12, "t USD")


@pytest.mark.parametrize("place", [REQUESTS, TOKENS, STREAMS, SPEND])
def test_the_reason_is_the_limits_key(place: int) -> None:
    error = refusal(place, 1.5, CAPS)
    assert error.reason == NAMES[place]
    assert error.status == 429
    assert error.temporary == (place != SPEND)
    assert error.retry_after_ms == (None if place == SPEND else 1500)


def test_a_wait_that_nobody_knows_is_a_second() -> None:
    assert refusal(STREAMS, 0.0, CAPS).retry_after_ms == LIMITS.overloaded_ms


def test_rounding_makes_no_wait_longer() -> None:
    assert refusal(REQUESTS, 3.0000000001, CAPS).retry_after_ms == 3000
    assert refusal(REQUESTS, 1e-9, CAPS).retry_after_ms == 1


def test_days_are_those_of_utc() -> None:
    assert date_of(1_795_305_599.9) == "2026-11-21"
    assert date_of(1_795_305_600.0) == "2026-11-22"
