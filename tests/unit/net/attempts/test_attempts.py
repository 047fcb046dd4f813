"""The choice of the next upstream, its time, and the continuation of an answer; integration tests cover clients."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.request import Reasoning, Request
from gai_fast.model.settings import BreakerSettings, ModelSettings, Settings, TargetSettings, UpstreamSettings
from gai_fast.net.attempts.balance import Balancer
from gai_fast.net.attempts.retry import Breaker
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.net.limits import LIMITS as NET_LIMITS
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.unit.net.stream.test_session import DONE, ERROR, SSE, Fixture, frame


def failing(stream: Fixture) -> None:
    stream.session.intake.head_received(503, {})
    stream.session.intake.body_received(b"busy")
    stream.session.intake.exchange_ended(None)


def test_a_failed_attempt_is_made_again_after_a_while() -> None:
    stream = Fixture(retries=1).start()
    failing(stream)
    assert (len(stream.targets.asked), stream.client.taken()) == (1, [])
    stream.time.advance(LIMITS.retry_first)
    assert len(stream.targets.asked) == 2
    stream.session.intake.head_received(200, SSE)
    assert stream.receive(frame()) == ["commit", b"<start><text.delta>"]
    assert (stream.session.attempts.count, stream.session.attempts.fallbacks) == (2, 0)


def without_connection(stream: Fixture) -> None:
    stream.session.intake.exchange_ended(Error("overloaded", "full", reason="upstream_pool", phase="connect"))


def test_a_stream_that_was_taken_over_waits_for_connections_and_has_its_retries_once() -> None:
    stream = Fixture(retries=1).start()
    stream.session.attempts.take_over()
    asked = 1
    for retries in range(2):
        for _ in range(3):
            without_connection(stream)
            stream.time.advance(NET_LIMITS.takeover_again)
            asked += 1
            assert (len(stream.targets.asked), stream.session.attempts.retries) == (asked, retries)
        failing(stream)
        stream.time.advance(LIMITS.retry_first)
        asked += 1
    assert stream.runner.ends == ["failed"]


def test_the_last_failure_is_the_response() -> None:
    stream = Fixture(retries=1).start()
    failing(stream)
    stream.time.advance(LIMITS.retry_first)
    failing(stream)
    (error,) = stream.client.taken()
    assert error.code == "provider_unavailable"
    assert stream.runner.ends == ["failed"]
    assert stream.time.armed == 0


def test_each_attempt_has_its_own_time_for_the_first_event_and_waiting_has_none() -> None:
    stream = Fixture(retries=1, first_event_timeout=10, commit_after=100).start()
    stream.time.advance(9)
    failing(stream)
    stream.time.advance(9)
    assert stream.client.taken() == []
    stream.time.advance(2)
    (error,) = stream.client.taken()
    assert (error.code, error.reason) == ("timeout", "first_event")


def test_a_client_that_is_gone_is_not_asked_for_again() -> None:
    stream = Fixture(retries=1).start()
    failing(stream)
    stream.session.client_lost()
    stream.time.advance(10)
    assert len(stream.targets.asked) == 1
    assert stream.time.armed == 0


def test_a_slow_client_pauses_the_next_attempt_too() -> None:
    stream = Fixture(retries=1).start()
    failing(stream)
    stream.session.pause()
    stream.time.advance(LIMITS.retry_first)
    assert stream.exchange.calls == ["pause"]


def test_a_fallback_that_cannot_be_asked_leaves_the_failure_as_it_was() -> None:
    spare = UpstreamSettings("spare", "openai-compatible", "http://y")
    stream = Fixture(model={"fallback": ("backup",)})
    stream.targets.settings = Settings(models={"backup": ModelSettings("backup", spare, "b")})
    stream.targets.refusals["spare"] = Error("unsupported", "no seed", reason="field")
    stream.start()
    failing(stream)
    stream.time.advance(0.1)
    (error,) = stream.client.taken()
    assert error.code == "provider_unavailable"


def test_a_request_that_was_sent_again_on_a_fresh_connection_counts_as_a_retry() -> None:
    stream = Fixture(retries=1).start()
    attempts = stream.session.attempts
    assert attempts.retries == 0
    stream.exchange.resent = True
    assert attempts.retries == 1
    failing(stream)
    assert (attempts.exchange, attempts.retries) == (None, 1)
    stream.time.advance(LIMITS.retry_first)
    assert attempts.retries == 2


def test_the_runner_learns_of_failed_attempts_and_of_an_upstream_that_is_left_alone() -> None:
    stream = Fixture(retries=1)
    stream.targets.breakers["up"] = Breaker(BreakerSettings(failures=2, window=30, open=10))
    stream.start()
    failing(stream)
    assert (stream.targets.failures, stream.targets.opened) == ([("up", "provider_unavailable")], [])
    stream.time.advance(1)
    failing(stream)
    assert (len(stream.targets.failures), stream.targets.opened) == (2, ["up"])


def test_a_breaker_is_notified_of_the_first_content_not_of_the_end() -> None:
    breaker = Breaker(BreakerSettings(failures=1, window=30, open=10))
    breaker.failed(-20.0, "")
    stream = Fixture()
    stream.targets.breakers["up"] = breaker
    stream.start()
    assert not breaker.admits(0.0, ""), "this stream is the probe"
    stream.session.intake.head_received(200, SSE)
    stream.receive(frame())
    assert breaker.admits(0.0, "")


@pytest.mark.parametrize("problem", [Error("unsupported", "no"), ValueError("no path")])
def test_a_probe_that_could_not_be_sent_is_made_anew(problem: Exception) -> None:
    breaker = Breaker(BreakerSettings(failures=1, window=30, open=10))
    breaker.failed(-20.0, "")
    stream = Fixture()
    stream.targets.breakers["up"] = breaker
    stream.targets.refusals["up"] = problem
    with pytest.raises(type(problem)):
        stream.start()
    assert breaker.admits(0.0, "")


def opened(now: float) -> Breaker:
    """Returns a breaker whose next request is its probe."""
    breaker = Breaker(BreakerSettings(failures=1, window=30, open=10))
    breaker.failed(now - 20.0, "")
    return breaker


def test_a_fresh_answer_that_breaks_again_leaves_no_probe_behind() -> None:
    spare = UpstreamSettings("spare", "openai-compatible", "http://y")
    stream = Fixture(on_midstream_failure="restart", retries=1, model={"fallback": ("backup",)})
    stream.targets.settings = Settings(models={"backup": ModelSettings("backup", spare, "b")})
    stream.streaming()
    stream.session.intake.exchange_ended(Error("network", "cut"))
    breaker = stream.targets.breakers["up"] = opened(stream.time.now)
    stream.time.advance(1)
    assert len(stream.targets.asked) == 2
    assert not breaker.admits(stream.time.now, "another"), "the fresh attempt is the probe"
    stream.receive(frame(), ERROR)
    stream.time.advance(1)
    assert stream.targets.asked[-1].model.name == "backup"
    assert breaker.state(stream.time.now) == "closed", "it gave content"


def test_a_client_that_takes_nothing_costs_the_next_attempt_no_time() -> None:
    stream = Fixture(on_midstream_failure="continue", retries=1, first_event_timeout=5, heartbeat=0).streaming()
    stream.session.intake.exchange_ended(Error("network", "cut"))
    stream.session.pause()
    stream.time.advance(20)
    assert stream.exchange.calls == ["pause"]
    assert stream.ends == 0
    stream.session.resume()
    stream.time.advance(4.9)
    assert stream.ends == 0
    stream.time.advance(0.2)
    assert stream.runner.ends == ["failed"]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"retries": 0}, False),
        ({"retries": 0, "model": {"fallback": ("backup",)}}, True),
        ({"retries": 0, "model": {"fallback_on": {"context_length_exceeded": "backup"}}}, True),
        ({"retries": 1}, True),
    ],
)
def test_a_request_is_kept_only_for_who_may_be_asked_again(options: dict[str, Any], kept: bool) -> None:
    stream = Fixture(**options).start()
    assert bool(stream.session.attempts.spec.request) is kept
    stream.session.intake.head_received(200, SSE)
    stream.receive(frame())
    assert not stream.session.attempts.spec.request


def test_a_prefill_that_cannot_be_made_is_a_plain_fresh_attempt() -> None:
    stream = Fixture(on_midstream_failure="continue", retries=1, model={"prefill": True}).streaming()
    ask = stream.targets.open
    refused: list[StreamSpec] = []

    def refuse(spec: StreamSpec, *rest: Any) -> Any:
        if spec.request is not stream.session.attempts.spec.request:
            refused.append(spec)
            raise Error("unsupported", "no prefill", reason="field")
        return ask(spec, *rest)

    stream.targets.open = refuse
    stream.session.intake.exchange_ended(Error("network", "cut"))
    stream.time.advance(1)
    assert (len(refused), len(stream.targets.asked)) == (1, 2)
    stream.session.intake.head_received(200, SSE)
    stream.receive(frame("xy"), frame("", "stop"), DONE)
    assert stream.output.events[-2].get("continued") == "verified"


# ---- after the first content -----------------------------------------------------------------------------------------


def with_fallbacks(wish: str, **prefills: bool) -> Fixture:
    """Returns a stream with one retry, whose model has these fallbacks, each at an upstream of its own."""
    stream = Fixture(on_midstream_failure=wish, retries=1, heartbeat=0, model={"fallback": tuple(prefills)})
    models = {
        name: ModelSettings(
            name, UpstreamSettings(name, "openai-compatible", "http://y", retries=0), name, prefill=prefill
        )
        for name, prefill in prefills.items()
    }
    stream.targets.settings = Settings(models=models)
    return stream.streaming()


def break_off(stream: Fixture) -> None:
    """The attempt that is under way breaks; what follows it, if anything, is asked."""
    stream.session.intake.exchange_ended(Error("network", "reset", reason="reset"))
    stream.time.advance(LIMITS.retry_most)


def repeat(stream: Fixture, *texts: str) -> None:
    stream.session.intake.head_received(200, SSE)
    stream.session.intake.body_received(b"".join(map(frame, texts)))


def asked(stream: Fixture) -> list[tuple[str, Any]]:
    """Returns the model that each attempt asked, and the last message of its request."""
    found = []
    for spec in stream.targets.asked:
        assert isinstance(spec.request, Request)
        messages = spec.request.messages
        found.append((spec.model.name, messages[-1].content if isinstance(messages, list) and messages else None))
    return found


def said(stream: Fixture) -> str:
    return "".join(event["text"] for event in stream.output.events if event["type"] == "text.delta")


def test_continue_asks_a_fallback_by_prefill_when_the_retries_are_used_up() -> None:
    stream = with_fallbacks("continue", other=True)
    break_off(stream)
    break_off(stream)
    assert asked(stream) == [("m", None), ("m", None), ("other", "x")]
    repeat(stream, "y")
    stream.session.intake.body_received(frame("", "stop") + DONE)
    assert said(stream) == "xy"
    assert stream.output.events[-2].get("continued") == "prefill"
    assert (stream.session.attempts.fallbacks, stream.session.attempts.retries) == (1, 1)


def test_continue_verifies_the_answer_of_a_fallback_without_prefill() -> None:
    stream = with_fallbacks("continue", other=False)
    break_off(stream)
    break_off(stream)
    assert asked(stream)[-1] == ("other", None)
    repeat(stream, "x", "y")
    stream.session.intake.body_received(frame("", "stop") + DONE)
    assert said(stream) == "xy"
    assert stream.output.events[-2].get("continued") == "verified"


def test_continue_goes_through_all_fallbacks_and_ends_with_the_first_failure() -> None:
    stream = with_fallbacks("continue", one=False, two=True)
    for _ in range(4):
        break_off(stream)
    assert [name for name, _ in asked(stream)] == ["m", "m", "one", "two", "two"], "a refused prefill is verified"
    break_off(stream)
    error = stream.output.events[-2]["error"]
    assert (error["code"], error["reason"], error["phase"]) == ("network", "reset", "mid_stream")
    assert (said(stream), stream.ends) == ("x", 1)


def test_a_fallback_that_cannot_be_asked_to_continue_is_passed_over() -> None:
    stream = with_fallbacks("continue", one=True, two=True)
    stream.targets.refusals["one"] = Error("unsupported", "no", reason="field")
    break_off(stream)
    break_off(stream)
    assert asked(stream)[-1] == ("two", "x")


def test_restart_asks_a_fallback_when_the_retries_are_used_up() -> None:
    stream = with_fallbacks("restart", other=True)
    break_off(stream)
    break_off(stream)
    assert asked(stream) == [("m", None), ("m", None), ("other", None)]
    repeat(stream, "anew")
    assert [event["type"] for event in stream.output.events if event["type"] != "text.delta"] == [
        "start",
        "stream.reset",
        "start",
    ]


def test_an_answer_that_is_too_long_to_be_kept_is_not_continued(change_limits: ChangeLimits) -> None:
    change_limits(transcript=100)
    stream = with_fallbacks("continue", other=True)
    stream.session.intake.body_received(frame("y" * 100))
    break_off(stream)
    assert len(stream.targets.asked) == 1
    assert stream.output.events[-2]["type"] == "error"


# ---- what one attempt says to others ---------------------------------------------------------------------------------

THINKING = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'


def test_the_first_event_of_a_probe_lets_the_others_pass_while_its_model_thinks() -> None:
    stream = Fixture()
    breaker = stream.targets.breakers["up"] = opened(0.0)
    stream.start()
    stream.session.intake.head_received(200, SSE)
    stream.receive(b": ping\n\n")
    assert not breaker.admits(0.0, "another"), "a comment is no event"
    stream.receive(THINKING)
    assert breaker.admits(0.0, "another")
    stream.receive(ERROR)
    assert not breaker.is_closed, "what follows counts as any failure"


def test_commit_after_does_not_run_while_a_limit_is_waited_for() -> None:
    stream = Fixture(retries=2, commit_after=3.5, heartbeat=0, model={"wait_for_limit": 12.0}).start()
    for _ in range(2):
        stream.time.advance(0.5)
        stream.session.intake.head_received(429, {"retry-after": "4"})
        stream.session.intake.exchange_ended(None)
        assert stream.client.taken() == []
        stream.time.advance(5.1)  # a wait has up to a quarter more
    stream.session.intake.head_received(429, {"retry-after": "4"})
    stream.session.intake.exchange_ended(None)
    (error,) = stream.client.taken()
    assert (error.code, error.status, error.retry_after_ms) == ("rate_limited", 429, 4000)


def test_commit_after_runs_between_and_after_the_waits() -> None:
    stream = Fixture(retries=2, commit_after=2, heartbeat=0, model={"wait_for_limit": 10.0}).start()
    stream.time.advance(1)
    stream.session.intake.head_received(429, {"retry-after": "4"})
    stream.session.intake.exchange_ended(None)
    stream.time.advance(5.0)
    assert stream.client.taken() == []
    stream.time.advance(1.1)
    assert stream.client.taken() == ["commit", "flush"]


def test_a_pause_that_no_limit_asks_for_is_part_of_commit_after() -> None:
    stream = Fixture(retries=2, commit_after=0.4, heartbeat=0).start()
    failing(stream)
    stream.time.advance(LIMITS.retry_first * 0.9)
    assert stream.client.taken() == ["commit", "flush"]


# ---- patience: rule 6 ------------------------------------------------------------------------------------------------


THOUGHTFUL = Request(query="hi", reasoning=Reasoning(effort="high"))


def backed(*, request: Request | None = None, upstream: dict[str, Any] | None = None, **stream: Any) -> Fixture:
    """A stream whose model has a fallback, and whose upstream has no times of its own but these."""
    made = Fixture(first_event_timeout="auto", model={"fallback": ("backup",)}, commit_after=10_000, **stream)
    made.model = made.spec.model = replace(made.model, upstream=replace(made.model.upstream, **(upstream or {})))
    spare = UpstreamSettings("spare", "openai-compatible", "http://y")
    made.targets.settings = Settings(models={"backup": ModelSettings("backup", spare, "b")})
    if request is not None:
        made.spec.request = request
    return made.start()


def test_a_single_upstream_may_think_for_ten_minutes() -> None:
    stream = Fixture(first_event_timeout="auto", commit_after=10_000).start()
    stream.time.advance(599)
    assert stream.client.taken() == []
    stream.time.advance(2)
    (error,) = stream.client.taken()
    assert (error.reason, str(error)) == (
        "first_event",
        "upstream 'up' sent no event within 600 s (first_event_timeout)",
    )


def test_where_a_fallback_is_left_a_silent_upstream_is_given_up_after_a_minute_and_the_fallback_may_think() -> None:
    stream = backed()
    stream.time.advance(59)
    assert len(stream.targets.asked) == 1
    stream.time.advance(2)
    assert [spec.model.name for spec in stream.targets.asked] == ["m", "backup"]
    stream.time.advance(590)
    assert stream.client.taken() == [], "nobody is left to be asked"
    stream.time.advance(11)
    (error,) = stream.client.taken()
    assert (error.code, error.reason) == ("timeout", "first_event")


def test_who_asks_for_reasoning_waits_for_it_though_a_fallback_is_left() -> None:
    stream = backed(request=THOUGHTFUL)
    stream.time.advance(599)
    assert len(stream.targets.asked) == 1
    stream.time.advance(2)
    assert len(stream.targets.asked) == 2


def test_a_time_of_the_operators_holds_in_both_cases() -> None:
    for request in (None, THOUGHTFUL):
        stream = backed(request=request, upstream={"first_event_timeout": 90.0})
        stream.time.advance(89)
        assert len(stream.targets.asked) == 1
        stream.time.advance(2)
        assert len(stream.targets.asked) == 2


@pytest.mark.parametrize(
    ("wish", "request_", "own", "limits"),
    [
        ("error", None, "auto", []),
        ("restart", None, "auto", ["silence 60"]),
        ("continue", None, "auto", ["silence 60"]),
        ("continue", THOUGHTFUL, "auto", []),
        ("continue", None, 90.0, []),
    ],
)
def test_a_silence_amid_an_answer_is_limited_where_another_attempt_can_go_on(
    wish: str, request_: Request | None, own: Any, limits: list[str]
) -> None:
    stream = backed(request=request_, upstream={"idle_timeout": own}, on_midstream_failure=wish)
    assert stream.exchange.calls == limits


@pytest.mark.parametrize(("weight", "seconds"), [(1, 61), (0, 601)])
def test_a_target_of_weight_0_is_nobody_to_ask(weight: int, seconds: int) -> None:
    places = [UpstreamSettings(name, "openai-compatible", "http://x", retries=0) for name in "ab"]
    targets = (TargetSettings(places[0], "m"), TargetSettings(places[1], "m", weight=weight))
    stream = Fixture(model={"targets": targets}, commit_after=10_000)
    stream.model = stream.spec.model = replace(stream.model, upstream=places[0])
    stream.targets.balancer = Balancer(stream.model, Random(1), lambda _: 0.0)
    stream.start()
    stream.time.advance(seconds - 2)
    assert stream.targets.failures == []
    stream.time.advance(2)
    assert stream.targets.failures[0] == ("a", "timeout")


def test_the_model_that_fallback_on_names_for_a_timeout_is_left_to_be_asked() -> None:
    for code, seconds in (("timeout", 61), ("rate_limited", 601)):
        stream = Fixture(first_event_timeout="auto", model={"fallback_on": {code: "backup"}}, commit_after=10_000)
        spare = UpstreamSettings("spare", "openai-compatible", "http://y")
        stream.targets.settings = Settings(models={"backup": ModelSettings("backup", spare, "b")})
        stream.start()
        stream.time.advance(seconds - 2)
        assert stream.targets.failures == []
        stream.time.advance(2)
        assert stream.targets.failures[0] == ("up", "timeout")
