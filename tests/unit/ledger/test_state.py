"""The state of a key, against models that are too simple to be wrong."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.ledger._base import GRANTED, SPEND, STREAMS, Caps, Demand, Reservation, Verdict
from gai_fast.ledger.state import KeyState, Rate
from gai_fast.model.settings import RATE_LIMITS
from tests.key_limits import REQUESTS, TOKENS, caps_of
from tests.limits import LIMITS


def caps(
    requests: int | None = None, tokens: int | None = None, streams: int | None = None, spend: int | None = None
) -> Caps:
    return caps_of(requests, tokens, streams, spend, "t USD")


def decide(state: KeyState, limits: Caps, now: float, tokens: int = 0, worker: str = "") -> int:
    state.use(limits, now)
    return state.decide(worker, limits, Demand(tokens), now).place


def test_twenty_a_minute_are_twenty_at_once_and_then_one_every_three_seconds() -> None:
    state, limits = KeyState(), caps(20)
    assert [decide(state, limits, 5.0) for _ in range(20)] == [GRANTED] * 20
    assert state.decide("", limits, Demand(0), 5.0) == Verdict(REQUESTS, pytest.approx(3.0))
    assert decide(state, limits, 7.99) == REQUESTS
    assert decide(state, limits, 8.0) == GRANTED
    assert decide(state, limits, 8.0) == REQUESTS


@pytest.mark.parametrize("limit", [3, 7, 13, 59, 61, 997])
def test_the_whole_minute_is_a_burst_whatever_the_limit_divides(limit: int) -> None:
    state = KeyState()
    verdicts = [decide(state, caps(limit), 1.8e9) for _ in range(limit + 1)]
    assert verdicts == [GRANTED] * limit + [REQUESTS]


def test_what_is_left_is_reported() -> None:
    state, limits = KeyState(), caps(10, 1000)
    assert decide(state, limits, 0.0, tokens=300) == GRANTED
    assert state.used(limits, 0.0) == ((pytest.approx(1), pytest.approx(300)), 0, 0)


def test_an_estimate_counts_until_the_usage_is_known() -> None:
    state, limits = KeyState(), caps(tokens=1000)
    assert decide(state, limits, 0.0, tokens=900) == GRANTED
    assert decide(state, limits, 0.0, tokens=200) == TOKENS
    state.report("", 0, 100 - 900, 0.0, 0, 0, 0.0)
    assert decide(state, limits, 0.0, tokens=200) == GRANTED


def test_usage_above_the_estimate_makes_the_wait_longer() -> None:
    state, limits = KeyState(), caps(tokens=600)
    assert decide(state, limits, 0.0, tokens=10) == GRANTED
    state.report("", 0, 6000 - 10, 0.0, 0, 0, 0.0)
    assert state.decide("", limits, Demand(10), 0.0) == Verdict(TOKENS, pytest.approx((6000 + 10 - 600) / 10))


def test_a_usual_output_needs_room_only_beside_other_streams() -> None:
    state, limits = KeyState(), caps(tokens=1000)
    usual = Demand(1034, expected=1024)
    state.use(limits, 0.0)
    for _ in range(3):
        assert state.decide("a", limits, usual, 0.0).place == GRANTED
        assert state.decide("b", limits, usual, 0.0).place == TOKENS
        assert state.decide("b", limits, Demand(10), 0.0).place == TOKENS
        state.report("a", 0, 300 - 1000, 0.0, 0, 0, 0.0)
    assert state.used(limits, 0.0).rates[TOKENS] == pytest.approx(900)
    assert state.decide("a", limits, Demand(1034, expected=933), 0.0) == Verdict(TOKENS, pytest.approx(1 * 0.06))


def test_an_estimate_above_the_limit_counts_as_the_limit() -> None:
    state, limits = KeyState(), caps(tokens=100)
    assert decide(state, limits, 0.0, tokens=10**9) == GRANTED
    assert decide(state, limits, 59.0, tokens=10**9) == TOKENS
    assert decide(state, limits, 60.0, tokens=10**9) == GRANTED


@pytest.mark.parametrize(
    ("limits", "place"),
    [(caps(0), REQUESTS), (caps(tokens=0), TOKENS), (caps(streams=0), STREAMS), (caps(spend=0), SPEND)],
)
def test_a_limit_of_zero_admits_nothing_ever(limits: Caps, place: int) -> None:
    state = KeyState()
    assert state.decide("", limits, Demand(0), 1e9) == Verdict(place, 0.0)


def test_a_request_that_is_refused_counts_for_no_limit() -> None:
    state, limits = KeyState(), caps(5, 1000, 5, 10)
    state.spent["t USD"] = 10
    assert [decide(state, limits, 0.0, tokens=10) for _ in range(9)] == [SPEND] * 9
    assert state.used(limits, 0.0) == ((0, 0), 10, 0)
    assert not state.live


def test_streams_are_counted_while_they_live() -> None:
    state, limits = KeyState(), caps(streams=2)
    assert [decide(state, limits, 0.0) for _ in range(3)] == [GRANTED, GRANTED, STREAMS]
    state.report("", 0, 0, 0.0, 1, 0, 0.0)
    assert [decide(state, limits, 0.0) for _ in range(2)] == [GRANTED, STREAMS]
    state.forget("")
    assert [decide(state, limits, 0.0) for _ in range(3)] == [GRANTED, GRANTED, STREAMS]
    state.report("", 0, 0, 0.0, 0, 0, 0.0)
    assert state.is_idle(0.0)


def test_a_stream_of_a_lost_worker_has_its_place_and_is_no_further_request() -> None:
    state, limits = KeyState(), caps(requests=1, tokens=100, streams=1, spend=10)
    state.use(limits, 0.0)
    assert state.decide("lost", limits, Demand(100, Reservation(1, 8)), 0.0).place == GRANTED
    taken = Demand(0, Reservation(1, 8), taken_from="lost")
    assert state.decide("next", limits, taken, 0.0) == Verdict(GRANTED, 0.0, 8)
    assert {name: (each.live, each.reserved) for name, each in state.holders.items()} == {"next": (1, 8)}
    assert state.used(limits, 0.0).rates == (pytest.approx(1), pytest.approx(100))
    assert state.decide("next", limits, Demand(taken_from="next"), 0.0).place == STREAMS, "it lives"


def test_a_stream_that_goes_on_and_asks_later_is_admitted_whatever_is_spent() -> None:
    state, limits = KeyState(), caps(streams=1, spend=10)
    state.charge("2026-11-22", "USD", 11)
    assert state.decide("next", limits, Demand(0, Reservation(1, 8), taken_from=""), 0.0).place == SPEND
    assert state.decide("next", limits, Demand(), 0.0).place == SPEND, "a new request needs something left"
    asks_later = Demand(taken_from="", asks_later=True)
    assert state.decide("next", limits, asks_later, 0.0) == Verdict(GRANTED, 0.0, 0)
    assert state.decide("next", limits, asks_later, 0.0).place == STREAMS


def test_requests_are_admitted_while_less_than_the_amount_is_spent() -> None:
    state, limits = KeyState(), caps(spend=10)
    state.charge("2026-11-22", "USD", 9)
    assert decide(state, limits, 0.0) == GRANTED
    state.charge("2026-11-22", "USD", 9)
    assert decide(state, limits, 0.0) == SPEND


def test_each_period_has_its_own_spend_and_a_clock_that_jumps_back_finds_it() -> None:
    state = KeyState()
    state.charge("2026-11-22", "USD", 5)
    state.charge("2026-11-23", "USD", 7)
    state.charge("2026-12-01", "USD", 1)
    assert state.spent == {
        "d2026-11-22 USD": 5, "d2026-11-23 USD": 7, "d2026-12-01 USD": 1,
        "m2026-11 USD": 12, "m2026-12 USD": 1, "t USD": 13,
    }  # fmt: skip


def test_old_periods_are_forgotten_and_the_total_never_is() -> None:
    state = KeyState()
    for year in range(2000, 2100):
        state.charge(f"{year}-01-01", "USD", 1)
    assert len(state.spent) <= LIMITS.ledger_periods
    assert state.spent["t USD"] == 100
    assert state.spent["d2099-01-01 USD"] == state.spent["m2099-01 USD"] == 1


def test_the_spend_of_a_month_is_kept_until_its_last_day() -> None:
    state, limits = KeyState(), caps_of(None, None, None, 30, "m2026-12 USD")
    for day in range(1, 32):
        assert decide(state, limits, 0.0) == (GRANTED if day <= 30 else SPEND)
        state.charge(f"2026-12-{day:02}", "USD", 1)
        state.charge(f"2026-12-{day:02}", "EUR", 1)
    assert len(state.spent) <= LIMITS.ledger_periods
    assert state.spent["m2026-12 USD"] == state.spent["m2026-12 EUR"] == 31
    assert state.spent["d2026-12-31 USD"] == state.spent["d2026-12-31 EUR"] == 1


def test_spend_in_another_currency_is_kept_apart_and_counts_for_no_limit() -> None:
    state, limits = KeyState(), caps(spend=10)
    state.charge("2026-11-22", "EUR", 99)
    assert decide(state, limits, 0.0) == GRANTED
    assert state.spent["t EUR"] == 99
    for number in range(30):
        state.charge("2026-11-22", f"X{number:02}", 1)
    assert state.spent["t EUR"] == 99


def test_another_limit_does_not_give_back_what_was_used() -> None:
    state = KeyState()
    for _ in range(10):
        decide(state, caps(10), 0.0)
    assert decide(state, caps(20), 0.0) == GRANTED
    assert state.used(caps(20), 0.0).rates[REQUESTS] == pytest.approx(11)
    state.use(caps(5), 0.0)
    assert state.decide("", caps(5), Demand(0), 0.0) == Verdict(REQUESTS, pytest.approx((11 + 1 - 5) * 12))


def test_a_limit_that_was_gone_for_a_while_comes_back_with_what_was_used() -> None:
    state = KeyState()
    for _ in range(10):
        decide(state, caps(10), 0.0)
    assert decide(state, caps(streams=50), 1.0) == GRANTED
    assert decide(state, caps(10), 1.0) == REQUESTS


# ---- models ----------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 60)), max_size=60),
)
def test_a_rate_equals_a_bucket_that_is_refilled_steadily(limit: int, uses: list[tuple[int, int]]) -> None:
    """The model counts in 1/60,000 of a use, and so without rounding."""
    unit = 60_000
    rate, level, now = Rate(RATE_LIMITS[REQUESTS]), 0, 0
    rate.use(limit, 0.0)
    for milliseconds, count in uses:
        now += milliseconds
        level = max(0, level - milliseconds * limit)
        assert math.isclose(rate.used(now / 1e3), level / unit, abs_tol=1e-6)
        rate.add(count, now / 1e3)
        level += count * unit


# ---- spend that is reserved ------------------------------------------------------------------------------------------


def spend(state: KeyState, least: int, amount: int, worker: str = "", *, is_new: bool = True) -> int | None:
    """Returns how much of 100 is reserved. None if the request is refused."""
    verdict = state.decide(worker, caps(spend=100), Demand(0, Reservation(least, amount), is_new), 0.0)
    return None if verdict.place == SPEND else verdict.reserved


def test_a_request_is_admitted_where_what_is_spent_and_reserved_leaves_room_for_it() -> None:
    state = KeyState()
    state.charge("2026-11-22", "USD", 10)
    assert [spend(state, 1, 40, worker) for worker in "aba"] == [40, 40, None]
    assert spend(state, 1, 10, "c") == 10
    assert spend(state, 0, 0) is None
    state.forget("a")
    assert spend(state, 1, 40) == 40


def test_a_request_that_is_alone_may_reserve_what_is_left_if_that_covers_its_input() -> None:
    state = KeyState()
    state.charge("2026-11-22", "USD", 60)
    assert spend(state, 41, 50) is None
    assert spend(state, 40, 10**9) == 40
    assert spend(state, 1, 1) is None


def test_a_stream_gets_what_is_left_and_no_less_than_it_needs() -> None:
    state = KeyState()
    assert (spend(state, 1, 50, "a"), spend(state, 1, 30, "b")) == (50, 30)
    assert spend(state, 5, 10, "a", is_new=False) == 10
    assert spend(state, 5, 50, "a", is_new=False) == 10
    assert spend(state, 1, 1, "b", is_new=False) is None
    assert (state.live, state.reserved) == (2, 100)
    state.report("a", 0, 0, 0.0, 0, 0, 0.0)
    assert spend(state, 71, 90, "b", is_new=False) is None
    assert spend(state, 70, 90, "b", is_new=False) == 70


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.integers(0, 60), st.booleans()), max_size=60))
def test_what_is_spent_and_reserved_never_exceeds_the_limit(steps: list[tuple[str, int, int, bool]]) -> None:
    """Streams begin, grow and end with what they reserved at most; a request that fits is never refused."""
    state = KeyState()
    reserved: dict[str, list[int]] = {name: [] for name in "abc"}
    for name, least, more, ends in steps:
        mine = reserved[name]
        if ends and mine:
            amount = mine.pop()
            state.charge("2026-11-22", "USD", min(amount, least))
            state.report(name, 0, 0, 0.0, len(mine), sum(mine), 0.0)
            continue
        others = state.reserved
        left = 100 - state.spent.get("t USD", 0) - others
        got = spend(state, least, least + more, name)
        if got is not None:
            mine.append(got)
        assert (got is None) == (left <= 0 or (least + more > left and (others > 0 or least > left)))
        assert state.spent.get("t USD", 0) + state.reserved <= 100


def test_the_limits_of_the_ledger_fit_together() -> None:
    assert LIMITS.ledger_flush < LIMITS.ledger_wait < LIMITS.ledger_gone
