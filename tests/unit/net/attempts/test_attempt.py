"""One request for an answer, and what it takes and gives back at its upstream."""

from __future__ import annotations

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import BreakerSettings, Price
from gai_fast.net.attempts.retry import Breaker
from tests.unit.net.stream.test_session import Fixture


def test_the_next_decision_is_a_second_target_or_the_end_of_the_wait_whichever_comes_first() -> None:
    stream = Fixture(first_event_timeout=10.0).start()
    attempt = stream.session.attempts.attempt
    assert attempt is not None
    assert (attempt.due, attempt.takes_hedge(100.0)) == (10.0, False)
    for hedge_at, due in ((3.0, 3.0), (30.0, 10.0)):
        attempt.hedge_at = hedge_at
        assert attempt.due == due
    attempt.hedge_at = 3.0
    attempt.restart_wait(5.0)
    assert (attempt.hedge_at, attempt.first_event_due) == (8.0, 15.0)
    assert [attempt.takes_hedge(now) for now in (7.0, 8.0, 9.0)] == [False, True, False]


def test_an_attempt_that_an_open_breaker_refuses_names_the_wait_and_is_no_probe() -> None:
    stream = Fixture()
    breaker = stream.targets.breakers["up"] = Breaker(BreakerSettings(failures=1, window=30, open=10))
    breaker.failed(0.0, None)
    with pytest.raises(Error, match="its breaker is open") as refused:
        stream.start()
    assert (refused.value.reason, refused.value.retry_after_ms) == ("breaker_open", 10_000)
    assert not stream.targets.asked


def test_an_attempt_reports_its_end_once() -> None:
    stream = Fixture()
    breaker = stream.targets.breakers["up"] = Breaker(BreakerSettings(failures=2, window=30, open=10))
    stream.start()
    attempt = stream.session.attempts.attempt
    assert attempt is not None
    attempt.failed(Error("network", "cut", reason="truncated"), 0.0)
    attempt.failed(Error("network", "cut", reason="truncated"), 0.0)
    attempt.leave(0.0, is_finished=True)
    assert breaker.state(0.0) == "closed"
    assert breaker.failed(0.0, None), "one failure has been counted before"


def test_an_attempt_that_is_abandoned_is_closed_and_pays_for_its_prompt() -> None:
    stream = Fixture(model={"price": Price(1_000_000, 0, 0, 0, 0)}).start()
    attempt = stream.session.attempts.attempt
    assert attempt is not None
    attempt.abandon(0.0)
    attempt.abandon(0.0)
    assert (stream.exchange.calls, attempt.exchange) == (["close"], None)
    assert (attempt.account.is_closed, attempt.account.charge.amount) == (True, 2)
