"""The errors of refusals, and the dates of periods."""

from __future__ import annotations

import pytest

from gai_fast.ledger._base import NAMES, SPEND, STREAMS, Verdict, reset_of
from gai_fast.ledger.ledger import date_of, refusal
from tests.key_limits import REQUESTS, TOKENS, caps_of
from tests.limits import LIMITS

CAPS = caps_of(20, 1000, 5, 10**12, "t USD")
WALL = 1_795_305_600.0  # 2026-11-22T00:00:00Z


@pytest.mark.parametrize("place", [REQUESTS, TOKENS, STREAMS, SPEND])
def test_the_reason_is_the_limits_key(place: int) -> None:
    error = refusal(Verdict(place, 1.5), CAPS, WALL)
    assert error.reason == NAMES[place]
    assert error.status == 429
    assert error.temporary == (place != SPEND)
    assert error.retry_after_ms == (None if place == SPEND else 1500)


def test_a_wait_that_nobody_knows_is_a_second() -> None:
    assert refusal(Verdict(STREAMS, 0.0), CAPS, WALL).retry_after_ms == LIMITS.overloaded_ms


def test_rounding_makes_no_wait_longer() -> None:
    assert refusal(Verdict(REQUESTS, 3.0000000001), CAPS, WALL).retry_after_ms == 3000
    assert refusal(Verdict(REQUESTS, 1e-9), CAPS, WALL).retry_after_ms == 1


def test_days_are_those_of_utc() -> None:
    assert date_of(1_795_305_599.9) == "2026-11-21"
    assert date_of(1_795_305_600.0) == "2026-11-22"


def test_a_refusal_for_spend_names_amount_spent_period_and_reset() -> None:
    day = CAPS._replace(label="d2026-11-22 USD")
    error = refusal(Verdict(SPEND, spent=12 * 10**11), day, WALL + 86_000.5)
    assert error.message == "this key has spent 1.2 of 1 USD this day (spend); the next period begins in 400 s"
    error = refusal(Verdict(SPEND, spent=9 * 10**11), CAPS, WALL)
    rest = "and what is left does not cover this request beside those under way"
    assert error.message == f"this key has spent 0.9 of 1 USD in all, {rest} (spend)"


@pytest.mark.parametrize(
    ("label", "wall", "seconds"),
    [("d2026-11-22 USD", WALL, 86_400), ("d2026-11-22 USD", WALL + 86_399, 1), ("m2026-11 USD", WALL, 9 * 86_400),
     ("m2028-02 USD", 1_834_185_600.0, 15 * 86_400), ("t USD", WALL, None)],
)  # fmt: skip
def test_a_period_ends_at_midnight_utc(label: str, wall: float, seconds: float | None) -> None:
    assert reset_of(label, wall) == seconds
