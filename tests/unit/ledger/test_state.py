"""The state of a key, against models that are too simple to be wrong."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.ledger._base import REQUESTS, SPEND, STREAMS, TOKENS, Caps
from gai_fast.ledger.state import GRANTED, UNCLEAR, KeyState, Rate
from tests.limits import LIMITS

NO = (0, 0, 0, 0)


def caps(
    requests: int | None = None, tokens: int | None = None, streams: int | None = None, spend: int | None = None
) -> Caps:
    return Caps(requests, tokens, streams, spend, "t USD")


def decide(state: KeyState, limits: Caps, now: float, tokens: int = 0, worker: str = "") -> int:
    state.use(limits, now)
    return state.decide(worker, limits, tokens, now, now)[0]


def test_twenty_a_minute_are_twenty_at_once_and_then_one_every_three_seconds() -> None:
    state, limits = KeyState(), caps(20)
    assert [decide(state, limits, 5.0) for _ in range(20)] == [GRANTED] * 20
    assert state.decide("", limits, 0, 5.0, 5.0) == (REQUESTS, pytest.approx(3.0))
    assert decide(state, limits, 7.99) == REQUESTS
    assert decide(state, limits, 8.0) == GRANTED
    assert decide(state, limits, 8.0) == REQUESTS


@pytest.mark.parametrize("limit", [3, 7, 13, 59, 61, 997])
def test_the_whole_minute_is_a_burst_whatever_the_limit_divides(limit: int) -> None:
    state = KeyState()
    verdicts = [decide(state, caps(limit), 1.8e9) for _ in range(limit + 1)]
    assert verdicts == [GRANTED] * limit + [REQUESTS]


def test_what_is_left_is_told() -> None:
    state, limits = KeyState(), caps(10, 1000)
    assert decide(state, limits, 0.0, tokens=300) == GRANTED
    left = state.left(limits, 0.0)
    assert left.requests == (10, 9, pytest.approx(6.0))
    assert left.tokens == (1000, 700, pytest.approx(18.0))


def test_an_estimate_counts_until_the_usage_is_known() -> None:
    state, limits = KeyState(), caps(tokens=1000)
    assert decide(state, limits, 0.0, tokens=900) == GRANTED
    assert decide(state, limits, 0.0, tokens=200) == TOKENS
    state.end("", 0, 100 - 900, 0.0)
    assert decide(state, limits, 0.0, tokens=200) == GRANTED


def test_usage_above_the_estimate_makes_the_wait_longer() -> None:
    state, limits = KeyState(), caps(tokens=600)
    assert decide(state, limits, 0.0, tokens=10) == GRANTED
    state.end("", 0, 6000 - 10, 0.0)
    assert state.decide("", limits, 10, 0.0, 0.0) == (TOKENS, pytest.approx((6000 + 10 - 600) / 10))


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
    assert state.decide("", limits, 0, 1e9, 1e9) == (place, 0.0)


def test_a_request_that_is_refused_counts_for_no_limit() -> None:
    state, limits = KeyState(), caps(5, 1000, 5, 10)
    state.spent["t USD"] = 10
    assert [decide(state, limits, 0.0, tokens=10) for _ in range(9)] == [SPEND] * 9
    assert state.left(limits, 0.0) == ((5, 5, 0.0), (1000, 1000, 0.0))
    assert not state.live


def test_streams_are_counted_while_they_live() -> None:
    state, limits = KeyState(), caps(streams=2)
    assert [decide(state, limits, 0.0) for _ in range(3)] == [GRANTED, GRANTED, STREAMS]
    state.end("", 0, 0, 0.0)
    assert [decide(state, limits, 0.0) for _ in range(2)] == [GRANTED, STREAMS]
    state.forget("")
    assert [decide(state, limits, 0.0) for _ in range(3)] == [GRANTED, GRANTED, STREAMS]
    for _ in range(2):
        state.end("", 0, 0, 0.0)
    assert state.is_idle(0.0)


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
    assert state.left(caps(20), 0.0).requests == (20, 9, pytest.approx(33.0))
    state.use(caps(5), 0.0)
    assert state.decide("", caps(5), 0, 0.0, 0.0) == (REQUESTS, pytest.approx((11 + 1 - 5) * 12))


def test_a_limit_that_was_gone_for_a_while_comes_back_with_what_was_used() -> None:
    state = KeyState()
    for _ in range(10):
        decide(state, caps(10), 0.0)
    assert decide(state, caps(streams=50), 1.0) == GRANTED
    assert decide(state, caps(10), 1.0) == REQUESTS


# ---- several workers -------------------------------------------------------------------------------------------------


def test_a_worker_keeps_a_part_of_what_is_free_and_nothing_where_that_is_little() -> None:
    state, limits = KeyState(), caps(1600, 16, 64, 10**6)
    state.use(limits, 0.0)
    assert state.keep("a", limits, 0.0) == (100, 0, 4, 62500)
    assert state.keep("a", limits, 0.0) == NO
    assert state.keep("b", limits, 0.0) == (93, 0, 0, 58593)


def test_what_is_kept_is_free_for_nobody_else() -> None:
    state, limits = KeyState(), caps(1600)
    state.use(limits, 0.0)
    assert state.keep("a", limits, 0.0)[REQUESTS] == 100
    verdicts = [decide(state, limits, 1e-8, worker="b") for _ in range(1501)]
    assert verdicts == [GRANTED] * 1500 + [UNCLEAR]
    state.report("a", NO, 100, 0, 0.0, 0, 2e-8)
    assert decide(state, limits, 3e-8, worker="b") == REQUESTS


def test_a_worker_that_gives_back_what_it_keeps_leaves_it_to_the_others() -> None:
    state, limits = KeyState(), caps(1600)
    state.use(limits, 0.0)
    state.keep("a", limits, 0.0)
    for _ in range(1500):
        decide(state, limits, 0.0, worker="b")
    assert decide(state, limits, 0.1, worker="b") == GRANTED  # a tenth of a second is two requests
    state.report("a", NO, 0, 0, 0.0, 0, 0.2)
    assert [decide(state, limits, 0.2, worker="b") for _ in range(104)] == [GRANTED] * 104


def test_what_workers_that_are_not_heard_keep_counts_in_the_end() -> None:
    state, limits = KeyState(), caps(1600, streams=1)
    state.use(limits, 0.0)
    state.keep("a", limits, 0.0)
    for _ in range(1500):
        state.decide("b", caps(1600), 0, 0.0, 0.0)
    assert state.decide("b", caps(1600), 0, 1.0, 0.9, is_last=True)[0] == GRANTED
    for _ in range(30):
        state.decide("b", caps(1600), 0, 1.0, 0.9, is_last=True)
    verdict, wait = state.decide("b", caps(1600), 0, 1.0, 0.9, is_last=True)
    assert verdict == REQUESTS
    assert 0 < wait <= 100 * 60 / 1600


def test_nothing_is_kept_for_a_while_after_workers_had_to_be_asked() -> None:
    state, limits = KeyState(), caps(1600, streams=1)
    assert decide(state, limits, 0.0, worker="a") == GRANTED
    assert decide(state, limits, 1.0, worker="b") == UNCLEAR
    assert state.keep("b", limits, 1.5) == NO
    assert state.keep("b", limits, 1.0 + LIMITS.ledger_tight) != NO


def test_a_stream_is_refused_only_when_all_workers_with_streams_were_heard() -> None:
    state, limits = KeyState(), caps(streams=2)
    assert decide(state, limits, 0.0, worker="a") == GRANTED
    assert decide(state, limits, 0.0, worker="b") == GRANTED
    assert state.decide("b", limits, 0, 1.0, 1.0)[0] == UNCLEAR
    state.report("a", NO, 0, 0, 0.0, 1, 1.1)
    assert state.decide("b", limits, 0, 1.2, 1.0)[0] == STREAMS
    state.report("a", NO, 0, 0, 0.0, 0, 1.3)
    assert state.decide("b", limits, 0, 1.3, 1.3)[0] == GRANTED


def test_spend_that_others_may_not_have_told_yet_is_asked_for() -> None:
    state, limits = KeyState(), caps(spend=1600)
    assert state.keep("a", limits, 0.0)[SPEND] == 100
    state.charge("2026-11-22", "USD", 1499)
    assert state.decide("b", limits, 0, 1.0, 1.0)[0] == GRANTED
    state.charge("2026-11-22", "USD", 1)
    assert state.decide("b", limits, 0, 1.0, 1.0)[0] == UNCLEAR
    state.charge("2026-11-22", "USD", 99)
    state.report("a", NO, 0, 0, 0.0, 0, 1.1)
    assert state.decide("b", limits, 0, 1.2, 1.0)[0] == GRANTED
    state.charge("2026-11-22", "USD", 1)
    assert state.decide("b", limits, 0, 1.2, 1.0)[0] == SPEND


# ---- models ----------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 60)), max_size=60),
)
def test_a_rate_equals_a_bucket_that_is_refilled_steadily(limit: int, uses: list[tuple[int, int]]) -> None:
    """The model counts in 1/60,000 of a use, and so without rounding."""
    unit = 60_000
    rate, level, now = Rate(), 0, 0
    rate.use(limit, 0.0)
    for milliseconds, count in uses:
        now += milliseconds
        level = max(0, level - milliseconds * limit)
        assert math.isclose(rate.used(now / 1e3), level / unit, abs_tol=1e-6)
        rate.add(count, now / 1e3)
        level += count * unit


STEPS = [(name, action) for name in "abc" for action in ("take", "take", "rush", "report", "end", "ends")]
RUSH = 50
"""Requests of one worker in a row: enough to use up a limit while the others sit on what they keep."""


@given(
    st.sampled_from([40, 70, 300]),
    st.sampled_from([3, 70, 200]),
    # A byte for each step: to draw workers and actions one by one takes ten times as long.
    st.integers(0, 400).flatmap(lambda count: st.binary(min_size=count, max_size=count)),
)
def test_workers_together_never_pass_a_limit_and_none_is_refused_what_is_free(
    limit: int, most_live: int, steps: bytes
) -> None:
    """Three workers use what they keep, report late, and end streams; each verdict is compared with an exact count.

    Time stands still, so nothing is refilled.
    """
    limits = caps(limit, streams=most_live)
    state = KeyState()
    state.use(limits, 0.0)
    workers = {name: Worker(name, state, limits) for name in "abc"}
    total = live = 0
    for step, value in enumerate(steps):
        now = step * 1e-9
        name, action = STEPS[value % len(STEPS)]
        worker = workers[name]
        if action == "report":
            worker.report(now)
            worker.keep_more(now)
        elif action in ("end", "ends"):
            ended = min(worker.live, RUSH if action == "ends" else 1)
            worker.live -= ended
            worker.kept[STREAMS] += ended
            live -= ended
        else:
            for _ in range(RUSH if action == "rush" else 1):
                is_granted = worker.take(now, workers)
                assert is_granted == (total < limit and live < most_live)
                total += is_granted
                live += is_granted


class Worker:
    """One of several: it uses what it keeps, and asks for the rest."""

    def __init__(self, name: str, state: KeyState, limits: Caps) -> None:
        self.name = name
        self.kept = [0, 0, 0, 0]
        self.used = self.live = 0
        self._state = state
        self._limits = limits

    def report(self, now: float) -> None:
        requests, tokens, streams, spend = self.kept
        self._state.report(self.name, (requests, tokens, streams, spend), self.used, 0, 0.0, self.live, now)
        self.used = 0

    def give_back(self, now: float) -> None:
        self.kept = [0, 0, 0, 0]
        self.report(now)

    def keep_more(self, now: float) -> None:
        more = self._state.keep(self.name, self._limits, now)
        self.kept = [a + b for a, b in zip(self.kept, more, strict=True)]

    def take(self, now: float, workers: dict[str, Worker]) -> bool:
        if self.kept[REQUESTS] and self.kept[STREAMS]:
            self.kept[REQUESTS] -= 1
            self.kept[STREAMS] -= 1
            self.used += 1
            self.live += 1
            return True
        self.give_back(now)
        verdict, _ = self._state.decide(self.name, self._limits, 0, now, now)
        if verdict == UNCLEAR:
            later = now + 5e-10
            for other in self._state.others(self.name):
                workers[other].give_back(later)
            verdict, _ = self._state.decide(self.name, self._limits, 0, later, now)
        assert verdict != UNCLEAR
        self.live += verdict == GRANTED
        return verdict == GRANTED


def test_the_limits_of_the_ledger_fit_together() -> None:
    assert LIMITS.ledger_scarce >= 4 * LIMITS.ledger_parts
    assert LIMITS.ledger_flush < LIMITS.ledger_recall < LIMITS.ledger_wait < LIMITS.ledger_gone


@pytest.mark.parametrize(("limits", "place"), [(caps(tokens=100), TOKENS), (caps(spend=100), SPEND)])
def test_others_may_keep_as_much_as_is_left_and_no_more(limits: Caps, place: int) -> None:
    """Rule 6."""
    state = KeyState()
    state.use(limits, 0.0)
    kept = tuple(40 if each == place else 0 for each in range(4))
    state.report("other", kept, 0, 0, 0.0, 0, 0.0)

    def use(count: int) -> None:
        if place == TOKENS:
            state.report("me", NO, 0, count, 0.0, 1, 0.0)
        else:
            state.charge("2026-11-22", "USD", count)

    use(60)
    assert not state.is_overcommitted("me", limits, 0.0)
    use(1)
    assert state.is_overcommitted("me", limits, 0.0)
    assert not state.is_overcommitted("other", limits, 0.0)
    state.report("other", NO, 0, 0, 0.0, 1, 0.0)
    assert not state.is_overcommitted("me", limits, 0.0)
