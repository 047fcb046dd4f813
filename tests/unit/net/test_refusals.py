"""Failures that another attempt cannot mend are reported in the same turn: no time passes, and nothing waits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import BreakerSettings
from gai_fast.net.attempts.retry import Breaker
from tests.unit.net.stream.test_session import Fixture

JSON = {"content-type": "application/json"}


def refused(status: int, headers: dict[str, str] | None = None, **said: Any) -> Fixture:
    """Returns a stream with two retries, answered so."""
    fixture = Fixture(retries=2).start()
    fixture.session.intake.head_received(status, {**JSON, **(headers or {})})
    fixture.session.intake.body_received(json.dumps({"error": {"message": "no", **said}}).encode())
    fixture.session.intake.exchange_ended(None)
    return fixture


@pytest.mark.parametrize(
    "fixture",
    [
        pytest.param(lambda: refused(429, {"retry-after": "7"}), id="a long Retry-After"),
        pytest.param(lambda: refused(429, code="insufficient_quota"), id="a spent quota"),
        pytest.param(lambda: refused(400), id="a bad request"),
        pytest.param(lambda: refused(401), id="our key"),
        pytest.param(lambda: refused(404), id="no such model"),
        pytest.param(lambda: refused(307, {"location": "http://x"}), id="a redirect"),
    ],
)
def test_it_is_reported_in_the_same_turn(fixture: Any) -> None:
    stream: Fixture = fixture()
    (result,) = stream.client.calls
    assert isinstance(result, Error)
    assert (stream.time.now, stream.time.armed, len(stream.targets.exchanges), stream.ends) == (0.0, 0, 1, 1)


def test_so_is_an_open_breaker_with_the_time_that_is_left() -> None:
    fixture = Fixture(retries=2)
    breaker = fixture.targets.breakers["up"] = Breaker(BreakerSettings(failures=1, open=8))
    breaker.failed(0.0, None)
    with pytest.raises(Error) as result:
        fixture.start()
    assert (result.value.reason, result.value.retry_after_ms) == ("breaker_open", 8000)
    assert (fixture.time.armed, fixture.targets.exchanges) == (0, [])


def test_but_what_may_pass_waits() -> None:
    stream = refused(503)
    assert stream.client.calls == []
    stream.time.advance(1)
    assert len(stream.targets.exchanges) == 2


POOL = Error("overloaded", "full", reason="upstream_pool", phase="connect")


def test_a_full_pool_of_ours_leaves_a_breaker_as_it_is() -> None:
    fixture = Fixture()
    breaker = fixture.targets.breakers["up"] = Breaker(BreakerSettings(failures=2, open=8))
    breaker.failed(0.0, None)
    fixture.start().session.intake.exchange_ended(POOL)
    assert breaker.state(0.0) == "closed"
    assert breaker.failed(1.0, None), "what failed before still counts"


def test_a_probe_that_met_a_full_pool_of_ours_is_made_anew() -> None:
    fixture = Fixture()
    breaker = fixture.targets.breakers["up"] = Breaker(BreakerSettings(failures=1, open=8))
    breaker.failed(-10.0, None)
    fixture.start().session.intake.exchange_ended(POOL)
    assert breaker.state(0.0) == "probing"
    assert breaker.admits(0.0, "another")


def test_who_still_waits_for_a_connection_is_not_informed_that_the_upstream_is_silent() -> None:
    fixture = Fixture(first_event_timeout=5).start()
    fixture.exchange.is_waiting = True
    fixture.time.advance(6)
    result = fixture.client.calls[-1]
    assert b"<error>" in result[1]
    error = fixture.output.events[0]["error"]
    assert (error["code"], error["reason"], error["phase"]) == ("overloaded", "upstream_pool", "connect")
