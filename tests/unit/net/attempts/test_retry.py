"""The decision whether a failed attempt is made again, at which model, and after how long."""

from __future__ import annotations

import random
import ssl
from typing import Any

import pytest

from gai_fast.model.errors import CLASSES, Code, Error
from gai_fast.model.settings import BreakerSettings
from gai_fast.net.attempts.retry import (
    AttemptFailure,
    Breaker,
    RetryBudget,
    RetryPolicy,
    RetryVerdict,
    is_fault_of_upstream,
)
from tests.limits import LIMITS

NEXT, END = RetryVerdict("next"), RetryVerdict("end")


def failure(code: Code, attempts: int = 1, **changes: Any) -> AttemptFailure:
    result = {"retry_after_ms", "temporary", "reason"}
    error = Error(code, "no", **{key: changes.pop(key) for key in result & changes.keys()})
    given = {"is_silence": False, "retries": 2, "seconds_to_commit": 2.0, "is_clients_retry": False} | changes
    return AttemptFailure(error, attempts=attempts, **given)


class TestPolicy:
    @pytest.mark.parametrize("code", ["rate_limited", "overloaded", "timeout", "network", "provider_unavailable"])
    def test_what_may_pass_is_asked_again_then_the_next_model_is(self, code: Code) -> None:
        actions = [RetryPolicy().decide(failure(code, attempts), 0.0).action for attempts in (1, 2, 3)]
        assert actions == ["again", "again", "next"]

    def test_an_internal_error_is_asked_again_once(self) -> None:
        actions = [RetryPolicy().decide(failure("internal", attempts), 0.0).action for attempts in (1, 2)]
        assert actions == ["again", "next"]

    @pytest.mark.parametrize("code", ["unauthorized", "forbidden", "not_found", "unsupported"])
    def test_what_another_upstream_may_do_goes_to_the_next_model_at_once(self, code: Code) -> None:
        assert RetryPolicy().decide(failure(code), 0.0) == NEXT

    @pytest.mark.parametrize("code", ["invalid_request", "content_filtered", "context_length_exceeded"])
    def test_what_speaks_of_the_request_goes_nowhere(self, code: Code) -> None:
        assert RetryPolicy().decide(failure(code), 0.0) == END

    def test_a_spent_quota_is_not_asked_again(self) -> None:
        assert RetryPolicy().decide(failure("rate_limited", temporary=False), 0.0) == NEXT

    def test_an_upstream_that_stayed_silent_is_not_asked_again(self) -> None:
        assert RetryPolicy().decide(failure("timeout", is_silence=True), 0.0) == NEXT

    def test_a_clients_own_retry_is_not_made_again(self) -> None:
        assert RetryPolicy().decide(failure("network", is_clients_retry=True), 0.0) == NEXT

    def test_no_retries_are_none(self) -> None:
        assert RetryPolicy().decide(failure("network", retries=0), 0.0) == NEXT
        assert RetryPolicy().decide(failure("internal", retries=0), 0.0) == NEXT

    @pytest.mark.parametrize(("attempts", "most"), [(1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (9, 8.0)])
    def test_the_wait_doubles_and_is_jittered(self, attempts: int, most: float) -> None:
        policy = RetryPolicy(chance=random.Random(1))
        delays = [policy.decide(failure("network", attempts, retries=9), 100.0 * n).delay for n in range(50)]
        assert most * (1 - LIMITS.retry_jitter) <= min(delays) < max(delays) <= most

    def test_retry_after_is_honoured_and_never_shortened(self) -> None:
        policy = RetryPolicy(chance=random.Random(1))
        delays = [
            policy.decide(failure("overloaded", retry_after_ms=700, seconds_to_commit=1.8), 100.0 * n).delay
            for n in range(50)
        ]
        assert 0.7 <= min(delays) < max(delays) <= 0.7 * (1 + LIMITS.retry_jitter)

    def test_a_retry_after_that_comes_too_late_for_the_head_goes_to_the_next_model(self) -> None:
        assert RetryPolicy().decide(failure("rate_limited", retry_after_ms=7000), 0.0) == NEXT

    @pytest.mark.parametrize("reason", ["redirect", "forbidden_address"])
    def test_what_lies_in_a_configuration_is_not_asked_again(self, reason: str) -> None:
        assert RetryPolicy().decide(failure("provider_unavailable", reason=reason), 0.0) == NEXT

    def test_a_certificate_is_not_asked_for_again_and_a_cut_handshake_is(self) -> None:
        for cause, action in ((ssl.SSLCertVerificationError(), "next"), (ConnectionResetError(), "again")):
            failed = failure("network", reason="tls")
            failed.error.__cause__ = cause
            assert RetryPolicy().decide(failed, 0.0).action == action

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            ("overloaded", "upstream_pool"),
            ("overloaded", "descriptors"),
            ("overloaded", "large_requests"),
            ("timeout", "total"),
        ],
    )
    def test_who_got_no_connection_of_ours_does_not_wait_for_one_again(self, code: Code, reason: str) -> None:
        failed = failure(code, reason=reason)
        assert RetryPolicy().decide(failed, 0.0).action == "again", "an upstream's own word"
        failed.error.phase = "connect"
        assert RetryPolicy().decide(failed, 0.0) == NEXT

    def test_a_spent_budget_goes_to_the_next_model(self) -> None:
        policy = RetryPolicy()
        actions = [policy.decide(failure("network"), 0.0).action for _ in range(LIMITS.retry_floor + 1)]
        assert actions == ["again"] * LIMITS.retry_floor + ["next"]

    def test_every_code_has_a_verdict(self) -> None:
        for code in CLASSES:
            assert RetryPolicy().decide(failure(code), 0.0).action in ("again", "next", "end")


class TestBudget:
    def test_a_tenth_of_the_requests(self) -> None:
        budget = RetryBudget()
        for _ in range(500):
            budget.request(100.0)
        assert sum(budget.take(100.0) for _ in range(100)) == 50

    def test_a_few_are_always_allowed(self) -> None:
        budget = RetryBudget()
        assert sum(budget.take(5.0) for _ in range(100)) == LIMITS.retry_floor

    def test_what_was_spent_comes_back_with_time(self) -> None:
        budget = RetryBudget()
        taken = [sum(budget.take(at) for _ in range(100)) for at in (100.0, 109.9, 120.0, 200.0)]
        assert taken[0] == LIMITS.retry_floor
        assert taken[1] == 0
        assert taken[2] == LIMITS.retry_floor
        assert taken[3] == LIMITS.retry_floor

    def test_requests_of_the_window_before_count_for_as_long_as_it_reaches_back(self) -> None:
        budget = RetryBudget()
        for tick in range(1000):
            budget.request(100.0 + tick / 100)
        assert sum(budget.take(114.9) for _ in range(200)) == 50

    def test_no_window_has_more_wherever_it_begins(self) -> None:
        budget = RetryBudget()
        times = [at / 10 for at in range(1000, 1400) if budget.take(at / 10)]
        most = max(sum(at <= other < at + LIMITS.retry_window for other in times) for at in times)
        assert most == LIMITS.retry_floor
        assert len(times) == 4 * LIMITS.retry_floor

    def test_one_caller_gets_at_most_half_and_what_it_took_comes_back(self) -> None:
        budget = RetryBudget()
        for start in (100.0, 100.0 + LIMITS.retry_window):
            assert sum(budget.take(start, "hostile") for _ in range(100)) == LIMITS.retry_floor // 2
            assert sum(budget.take(start, "b") for _ in range(100)) == LIMITS.retry_floor // 2
            assert not budget.take(start, "c"), "all are taken"
        for _ in range(500):
            budget.request(130.0)
        assert sum(budget.take(130.0, "hostile") for _ in range(100)) == 25

    def test_each_upstream_has_one_of_its_own(self) -> None:
        policy = RetryPolicy()
        actions = [policy.decide(failure("network", upstream="one"), 0.0).action for _ in range(20)]
        assert actions.count("again") == LIMITS.retry_floor
        assert policy.decide(failure("network", upstream="other"), 0.0).action == "again"
        policy.keep({"one"})
        assert [*policy.budgets] == ["one"]
        assert policy.decide(failure("network", upstream="one"), 0.0) == NEXT, "a reload gives none back"


class TestBreaker:
    SETTINGS = BreakerSettings(failures=3, window=30, open=10)

    def test_it_opens_after_so_many_failures_and_admits_one_probe(self) -> None:
        breaker = Breaker(self.SETTINGS)
        assert [breaker.failed(at, "a") for at in (1.0, 2.0, 3.0)] == [False, False, True]
        assert not breaker.admits(3.0, "a")
        assert breaker.wait(5.0) == 8.0
        assert not breaker.admits(12.9, "a")
        assert [breaker.admits(13.0, "a"), breaker.admits(13.0, "a")] == [True, False]

    def test_it_says_in_which_state_it_is(self) -> None:
        breaker = self.opened()
        assert [breaker.state(at) for at in (3.0, 12.9, 13.0)] == ["open", "open", "probing"]
        assert breaker.admits(13.0, "a")
        assert breaker.state(13.0) == "probing"
        breaker.succeeded()
        assert breaker.state(13.0) == "closed"

    def test_its_wait_ends_early_for_a_sign_that_the_upstream_is_back(self) -> None:
        breaker = self.opened()
        breaker.end_wait(5.0)
        assert (breaker.state(5.0), breaker.wait(5.0)) == ("probing", 0.0)
        assert [breaker.admits(5.0, "a"), breaker.admits(5.0, "b")] == [True, False]
        assert breaker.failed(6.0, "a")
        assert breaker.wait(6.0) == 10.0
        breaker.end_wait(20.0)
        assert breaker.admits(16.0, "b"), "a sign that comes late makes no wait longer"
        breaker.succeeded()
        breaker.end_wait(21.0)
        assert breaker.state(21.0) == "closed"

    def test_a_probe_that_succeeds_closes_it(self) -> None:
        breaker = self.opened()
        assert breaker.admits(20.0, "a")
        breaker.succeeded()
        assert breaker.admits(20.0, "a")
        assert breaker.admits(20.0, "a")
        assert not breaker.failed(21.0, "a")

    def test_a_probe_that_fails_opens_it_again(self) -> None:
        breaker = self.opened()
        assert breaker.admits(20.0, "a")
        assert breaker.failed(21.0, "a")
        assert not breaker.admits(30.9, "a")
        assert breaker.admits(31.0, "a")

    def test_a_probe_that_went_away_is_made_anew(self) -> None:
        breaker = self.opened()
        assert breaker.admits(20.0, "a")
        breaker.abandoned("a")
        assert breaker.admits(20.0, "a")

    def test_failures_that_lie_too_far_apart_do_not_open_it(self) -> None:
        breaker = Breaker(self.SETTINGS)
        assert not any(breaker.failed(at, "a") for at in (0.0, 20.0, 40.0, 60.0, 80.0))
        assert breaker.admits(80.0, "a")

    def test_a_success_between_them_starts_the_count_anew(self) -> None:
        breaker = Breaker(self.SETTINGS)
        breaker.failed(1.0, "a")
        breaker.failed(2.0, "a")
        breaker.succeeded()
        assert not breaker.failed(3.0, "a")

    def test_what_was_under_way_when_it_opened_does_not_keep_it_open_for_longer(self) -> None:
        breaker = self.opened()
        assert not breaker.failed(9.0, "a")
        assert breaker.admits(13.0, "a")

    @pytest.mark.parametrize(
        ("error", "counts"),
        [
            (Error("network", "no"), True),
            (Error("timeout", "no"), True),
            (Error("overloaded", "no"), True),
            (Error("provider_unavailable", "no"), True),
            (Error("internal", "no"), True),
            (Error("provider_unavailable", "no", reason="upstream_credentials", temporary=False), False),
            (Error("overloaded", "no", reason="upstream_pool", phase="first_event"), True),
            (Error("overloaded", "no", reason="upstream_pool", phase="connect"), False),
            (Error("overloaded", "no", reason="descriptors", phase="connect"), False),
            (Error("timeout", "no", reason="total", phase="connect"), False),
            (Error("timeout", "no", reason="connect", phase="connect"), True),
            (Error("timeout", "no", reason="slow_client"), False),
            (Error("network", "no", reason="shared_call"), False),
            (Error("rate_limited", "no"), False),
            (Error("invalid_request", "no"), False),
            (Error("content_filtered", "no"), False),
        ],
    )
    def test_only_what_speaks_of_the_upstream_counts(self, error: Error, counts: bool) -> None:
        assert is_fault_of_upstream(error) is counts

    def test_a_request_from_before_it_opened_is_not_taken_for_the_probe(self) -> None:
        breaker = self.opened()
        assert breaker.admits(20.0, "probe")
        breaker.abandoned("old")
        assert not breaker.failed(21.0, "old")
        assert not breaker.admits(22.0, "another")
        assert breaker.failed(23.0, "probe")
        assert breaker.wait(23.0) == 10.0

    def test_the_failures_of_one_caller_do_not_open_it(self) -> None:
        breaker = Breaker(self.SETTINGS)
        assert not any(breaker.failed(at / 10, "x", "hostile") for at in range(200))
        assert breaker.admits(20.0, "y", "b")
        assert breaker.failed(20.0, "y", "b"), "another caller has seen it too"

    def test_they_do_once_they_have_lasted_the_whole_window(self) -> None:
        breaker = Breaker(self.SETTINGS)
        assert [breaker.failed(at, "x", "one") for at in (0.0, 10.0, 20.0, 29.0, 30.0)] == [False] * 4 + [True]

    def test_one_that_a_caller_alone_has_opened_admits_another_caller_at_once(self) -> None:
        """At an upstream that nobody else asked meanwhile, a caller opened it for all, as long as it liked."""
        breaker = Breaker(self.SETTINGS)
        for at in (0.0, 30.0, 30.1, 30.2):
            breaker.failed(at, "x", "hostile")
        assert not breaker.admits(31.0, "x", "hostile")
        assert breaker.admits(31.0, "y", "b")
        breaker.succeeded()
        assert breaker.is_closed

    def test_a_success_of_anybody_begins_the_window_anew(self) -> None:
        breaker = Breaker(self.SETTINGS)
        for at in (0.0, 10.0, 20.0):
            breaker.failed(at, "x", "one")
        breaker.succeeded()
        assert not any(breaker.failed(at, "x", "one") for at in (21.0, 30.0, 40.0, 50.0))
        assert breaker.failed(51.0, "x", "one")

    def test_another_caller_whose_failure_is_older_than_the_window_is_none(self) -> None:
        breaker = Breaker(BreakerSettings(failures=1, window=30, open=10))
        assert not breaker.failed(0.0, "x", "b")
        assert breaker.failed(1.0, "x", "hostile")
        breaker.succeeded()
        breaker.failed(100.0, "x", "b")
        breaker.failed(101.0, "x", "hostile")
        breaker.succeeded()
        assert not breaker.failed(200.0, "x", "hostile")

    def test_a_caller_whose_probes_fail_keeps_it_open_for_no_other(self) -> None:
        breaker = self.opened()
        assert breaker.admits(13.0, "x", "hostile")
        assert breaker.failed(13.0, "x", "hostile")
        assert not breaker.admits(14.0, "x", "hostile")
        assert breaker.admits(14.0, "y", "b")
        assert breaker.failed(15.0, "y", "b"), "it is down indeed"
        assert not breaker.admits(16.0, "z", "c")
        assert not breaker.admits(16.0, "x", "hostile")
        assert breaker.admits(25.0, "x", "hostile")
        breaker.failed(25.0, "x", "hostile")
        assert breaker.admits(25.0, "y", "b")
        breaker.succeeded()
        assert breaker.is_closed

    def test_the_first_event_of_its_probe_closes_it_and_of_no_other_request(self) -> None:
        breaker = self.opened()
        assert breaker.admits(20.0, "probe")
        breaker.answered("another")
        assert not breaker.is_closed
        breaker.answered("probe")
        assert breaker.admits(20.0, "another")
        assert not breaker.failed(21.0, "probe"), "a failure afterwards counts as any other"

    def opened(self) -> Breaker:
        breaker = Breaker(self.SETTINGS)
        for at in (1.0, 2.0, 3.0):
            breaker.failed(at, "a")
        return breaker
