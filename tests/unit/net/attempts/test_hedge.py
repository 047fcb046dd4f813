"""A second target that is asked while the first is silent: one answer for the client, whatever the two do."""

from __future__ import annotations

import dataclasses
import gc
import random
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import BreakerSettings, Price, TargetSettings, UpstreamSettings
from gai_fast.net.attempts.balance import Balancer
from gai_fast.net.attempts.hedge import Hedge
from gai_fast.net.attempts.retry import Breaker
from gai_fast.net.attempts.spec import Clock
from gai_fast.net.stream.intake import Intake
from gai_fast.net.stream.session import Session
from gai_fast.providers import get_provider
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeExchange
from tests.unit.net.stream.test_session import DONE, ERROR, SSE, Fixture, frame


def hedged(names: str = "ab", *, weights: dict[str, int] | None = None) -> Fixture:
    """Returns a stream of a model with a target for each name, the first of which is asked first."""
    fixture = Fixture(commit_after=100)
    upstreams = [UpstreamSettings(name, "openai-compatible", f"http://{name}", retries=0) for name in names]
    targets = tuple(TargetSettings(one, one.name, (weights or {}).get(one.name, 1)) for one in upstreams)
    price = Price(1_000_000, 2_000_000, 0, 0, 0)
    more = {"targets": targets, "hedge_after": 2.0, "price": price}
    fixture.model = dataclasses.replace(fixture.model, upstream=upstreams[0], id=names[0], **more)
    fixture.spec.model = fixture.model
    fixture.targets.balancer = Balancer(fixture.model, random.Random(1))
    return fixture


class Two:
    """A stream whose first target is silent, and the receivers of both."""

    def __init__(self, **options: Any) -> None:
        self.stream = hedged(**options).start()
        self.stream.time.advance(2.5)

    @property
    def asked(self) -> list[str]:
        return [spec.model.upstream.name for spec in self.stream.targets.asked]

    @property
    def hedge(self) -> Hedge:
        return self.stream.targets.hedges[0]

    @property
    def receivers(self) -> tuple[Intake, Hedge]:
        return self.stream.session.intake, self.hedge

    @property
    def first(self) -> FakeExchange:
        return self.stream.targets.exchanges[0]

    @property
    def second(self) -> FakeExchange:
        return self.stream.targets.exchanges[1]

    def written(self) -> bytes:
        """Returns the bytes that the client has got since the last call."""
        calls = self.stream.client.taken()
        return b"".join(
            call if isinstance(call, bytes) else call[1] if isinstance(call, tuple) else b"" for call in calls
        )

    def live(self) -> list[int]:
        return [target.live for target in self.stream.targets.balancer.targets.values()]

    def fail(self, receiver: Any, status: int = 503) -> None:
        receiver.head_received(status, {})
        receiver.body_received(b"busy")
        receiver.exchange_ended(None)


WHOLE = b"<start><text.delta><finish><done>"


def end(receiver: Any) -> None:
    receiver.head_received(200, SSE)
    receiver.body_received(frame())
    receiver.body_received(frame("", "stop") + DONE)
    receiver.exchange_ended(None)


def test_a_second_target_is_asked_only_after_the_silence() -> None:
    stream = hedged().start()
    stream.time.advance(1.9)
    assert (len(stream.targets.asked), stream.targets.tallies.hedges) == (1, 0)
    stream.time.advance(0.3)
    assert [spec.model.upstream.name for spec in stream.targets.asked] == ["a", "b"]
    assert stream.targets.tallies.hedges == 1
    stream.time.advance(50)
    assert len(stream.targets.asked) == 2, "once"


def test_the_first_event_in_time_leaves_the_second_target_alone() -> None:
    stream = hedged().start()
    stream.session.intake.head_received(200, SSE)
    stream.receive(frame())
    stream.time.advance(50)
    assert (len(stream.targets.asked), stream.targets.tallies.hedges) == (1, 0)


def test_the_second_answer_wins_and_the_first_is_closed_at_once() -> None:
    two = Two()
    two.hedge.head_received(200, SSE)
    assert two.first.calls == []
    two.hedge.body_received(frame())
    assert two.first.calls == ["close"]
    assert two.written() == b"<start><text.delta>"
    two.hedge.body_received(frame("", "stop") + DONE)
    two.hedge.exchange_ended(None)
    assert two.written() == b"<finish><done>"
    assert (two.stream.runner.ends, two.live(), two.stream.time.armed) == (["finished"], [0, 0], 0)
    assert two.stream.session.attempts.upstream.name == "b"
    start, *_ = two.stream.output.events
    assert start["provider_metadata"]["upstream"] == "b"


def test_the_first_answer_wins_and_the_second_is_closed_at_once() -> None:
    two = Two()
    two.hedge.head_received(200, SSE)
    two.stream.session.intake.head_received(200, SSE)
    two.stream.session.intake.body_received(frame())
    assert (two.second.calls, two.first.calls) == (["close"], [])
    assert two.written() == b"<start><text.delta>"
    end_of = two.stream.session.intake
    end_of.body_received(frame("", "stop") + DONE)
    end_of.exchange_ended(None)
    assert (two.written(), two.stream.runner.ends, two.live()) == (b"<finish><done>", ["finished"], [0, 0])


def test_comments_and_pings_are_no_event() -> None:
    two = Two()
    two.hedge.head_received(200, SSE)
    two.hedge.body_received(b": processing\n\n: processing\n\n")
    assert two.first.calls == []
    two.hedge.body_received(frame()[:10])
    two.hedge.body_received(frame()[10:])
    assert (two.first.calls, two.written()) == (["close"], b"<start><text.delta>")


def test_a_whole_answer_in_one_read_is_reported_once() -> None:
    two = Two()
    end(two.hedge)
    assert two.written() == WHOLE
    assert (two.stream.runner.ends, two.live(), two.stream.time.armed) == (["finished"], [0, 0], 0)


def test_an_answer_that_ends_in_the_turn_of_its_first_event_is_reported_once() -> None:
    two = Two()
    two.hedge.head_received(200, SSE)
    two.hedge.body_received(frame() + frame("", "stop") + DONE)
    two.hedge.exchange_ended(None)
    assert (two.written(), two.stream.runner.ends) == (WHOLE, ["finished"])


@pytest.mark.parametrize("winner", [0, 1])
def test_where_both_answer_in_one_turn_the_first_read_counts(winner: int) -> None:
    two = Two()
    receivers = two.receivers
    for receiver in receivers:
        receiver.head_received(200, SSE)
    receivers[winner].body_received(frame())
    loser = (two.second, two.first)[winner]
    assert loser.calls == ["close"], "a closed exchange calls no receiver"
    assert two.written() == b"<start><text.delta>"


def test_an_answer_after_its_cancel_reaches_nobody() -> None:
    """A closed exchange calls no receiver; a hedge that is called nevertheless keeps silent."""
    two = Two()
    two.stream.session.intake.head_received(200, SSE)
    two.stream.session.intake.body_received(frame())
    two.written()
    two.hedge.head_received(200, SSE)
    assert two.hedge.body_received(frame("late")) is None
    two.hedge.exchange_ended(None)
    assert two.written() == b""
    assert two.stream.runner.ends == []


def test_a_hedge_that_answers_twice_is_one_answer() -> None:
    two = Two()
    two.hedge.head_received(200, SSE)
    two.hedge.body_received(frame() + frame("", "stop") + DONE + frame("again") + DONE)
    two.hedge.exchange_ended(None)
    assert (two.written(), two.stream.runner.ends) == (WHOLE, ["finished"])


def test_a_hedge_that_fails_leaves_the_first_one_alone() -> None:
    two = Two()
    two.fail(two.hedge)
    assert (two.written(), two.first.calls, two.live()) == (b"", [], [1, 0])
    assert two.stream.targets.failures == [("b", "provider_unavailable")]
    end(two.stream.session.intake)
    assert (two.written(), two.stream.runner.ends) == (WHOLE, ["finished"])


def test_a_limited_hedge_cools_its_target() -> None:
    two = Two()
    two.hedge.head_received(429, {"retry-after": "7"})
    two.hedge.body_received(b"slow down")
    two.hedge.exchange_ended(None)
    target = two.stream.targets.balancer.targets["b", "b"]
    assert target.condition(two.stream.time.now, None) == "cooling"


def test_where_the_first_fails_the_second_goes_on() -> None:
    two = Two()
    two.hedge.head_received(200, SSE)
    two.fail(two.stream.session.intake)
    assert two.written() == b""
    two.stream.time.advance(0.01)
    two.hedge.body_received(frame())
    assert two.written() == b"<start><text.delta>"
    two.hedge.body_received(frame("", "stop") + DONE)
    two.hedge.exchange_ended(None)
    assert (two.written(), two.stream.runner.ends, two.live()) == (b"<finish><done>", ["finished"], [0, 0])


def test_what_the_second_brings_in_the_turn_of_the_firsts_failure_is_kept() -> None:
    two = Two()
    two.fail(two.stream.session.intake)
    end(two.hedge)
    assert two.written() == b""
    two.stream.time.advance(0.01)
    assert (two.written(), two.stream.runner.ends) == (WHOLE, ["finished"])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_where_both_fail_in_one_turn_the_client_is_reported_at_once(order: tuple[int, int]) -> None:
    two = Two()
    for at in order:
        two.fail(two.receivers[at])
    two.stream.time.advance(0.01)
    [error] = two.stream.client.taken()
    assert (error.code, two.stream.runner.ends) == ("provider_unavailable", ["failed"])
    assert (two.live(), two.stream.time.armed) == ([0, 0], 0)


def test_where_both_fail_other_targets_are_asked() -> None:
    two = Two(names="abc")
    two.fail(two.hedge)
    two.fail(two.stream.session.intake)
    two.stream.time.advance(0.01)
    assert sorted(two.asked) == ["a", "b", "c"]
    assert len(two.stream.targets.exchanges) == 3
    end(two.stream.session.intake)
    assert two.stream.runner.ends == ["finished"]


def test_while_a_retry_is_awaited_there_is_nothing_to_hedge() -> None:
    stream = hedged()
    patient = dataclasses.replace(stream.model.upstream, retries=1)
    targets = tuple(
        dataclasses.replace(one, upstream=patient) if one.id == "a" else one for one in stream.model.targets
    )
    stream.spec.model = dataclasses.replace(stream.model, upstream=patient, targets=targets)
    stream.targets.balancer = Balancer(stream.spec.model, random.Random(1))
    stream.start()
    stream.time.advance(1.9)
    session = stream.session
    session.intake.head_received(503, {})
    session.intake.body_received(b"busy")
    session.intake.exchange_ended(None)
    stream.time.advance(0.3)
    assert (stream.targets.hedges, len(stream.targets.asked)) == ([], 1)
    stream.time.advance(0.3)
    end(session.intake)
    stream.time.advance(5)
    assert [spec.model.upstream.name for spec in stream.targets.asked] == ["a", "a"]
    assert [event["type"] for event in stream.output.events] == ["start", "text.delta", "finish", "done"]


def test_where_the_first_runs_into_its_time_limit_the_second_goes_on() -> None:
    two = Two()
    two.stream.time.advance(58)
    assert two.first.calls == ["close"]
    assert two.stream.targets.failures == [("a", "timeout")]
    end(two.hedge)
    assert (two.written(), two.stream.runner.ends, two.live()) == (WHOLE, ["finished"], [0, 0])


def test_where_both_run_into_their_time_limits_the_client_is_notified() -> None:
    two = Two()
    two.stream.time.advance(61)
    assert two.stream.runner.ends == [], "no other target is left: the second one may think"
    two.stream.time.advance(540)
    error = two.stream.relay.error
    assert error is not None
    assert (error.code, error.reason, two.stream.runner.ends) == ("timeout", "first_event", ["failed"])
    assert (two.second.calls, two.live(), two.stream.time.armed) == (["close"], [0, 0], 0)


def test_a_client_that_leaves_closes_both() -> None:
    two = Two()
    two.stream.session.client_lost()
    assert (two.first.calls, two.second.calls) == (["close"], ["close"])
    assert (two.live(), two.stream.time.armed, two.stream.runner.ends) == ([0, 0], 0, ["disconnected"])


def test_a_client_that_leaves_between_the_failure_and_the_joining_closes_both() -> None:
    two = Two()
    two.fail(two.stream.session.intake)
    two.stream.session.client_lost()
    two.stream.time.advance(5)
    assert two.second.calls == ["close"]
    assert (two.live(), two.stream.time.armed) == ([0, 0], 0)


def test_a_cancel_closes_both_and_ends_the_stream_once() -> None:
    two = Two()
    two.stream.session.cancel()
    assert (two.first.calls, two.second.calls) == (["close"], ["close"])
    assert two.written().endswith(b"<finish><done>")
    assert two.stream.runner.ends == ["cancelled"]


def test_an_answer_that_waits_for_a_slow_client_is_not_read_on() -> None:
    two = Two()
    two.hedge.head_received(200, SSE)
    two.fail(two.stream.session.intake)
    two.stream.session.pause()
    two.stream.time.advance(0.01)
    assert "pause" in two.second.calls


def test_what_a_hedge_may_keep_has_a_limit() -> None:
    two = Two()
    two.hedge.head_received(200, SSE)
    piece = b": " + b"x" * 65_000 + b"\n\n"
    for _ in range(LIMITS.hedged // len(piece) + 1):
        two.hedge.body_received(piece)
    assert (two.second.calls, two.first.calls) == (["close"], [])
    end(two.stream.session.intake)
    assert two.stream.runner.ends == ["finished"]


def test_a_bug_in_the_second_request_leaves_the_first_one_alone() -> None:
    two = Two()
    two.hedge.exchange_ended(Error("internal", "a bug"))
    assert two.first.calls == []
    end(two.stream.session.intake)
    assert two.stream.runner.ends == ["finished"]


def test_an_answer_that_cannot_be_joined_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Two()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no output")

    monkeypatch.setattr(two.stream.output, "event", broken)
    two.hedge.head_received(200, SSE)
    two.hedge.body_received(frame())
    assert two.stream.runner.ends == ["failed"]
    assert (two.first.calls, two.second.calls, two.live()) == (["close"], ["close"], [0, 0])


def test_no_other_target_no_hedge() -> None:
    stream = hedged(weights={"b": 0}).start()
    stream.time.advance(5)
    assert (len(stream.targets.asked), stream.targets.tallies.hedges) == (1, 0)
    end(stream.session.intake)
    assert stream.runner.ends == ["finished"]


def test_a_second_target_that_cannot_be_asked_is_no_hedge() -> None:
    stream = hedged().start()
    stream.targets.refusals["b"] = Error("unsupported", "no seed", reason="field")
    stream.time.advance(5)
    assert (len(stream.targets.asked), stream.targets.tallies.hedges) == (1, 0)
    assert [target.live for target in stream.targets.balancer.targets.values()] == [1, 0]


def test_the_losers_prompt_is_charged() -> None:
    """Eight characters are two tokens, at 10^-12 of a dollar each; the answer's are counted by their text."""
    two = Two()
    end(two.hedge)
    bill = two.stream.session.attempts.bill
    assert [(charge.upstream, charge.amount) for charge in bill.charges] == [("a", 2), ("b", 2 + 2)]


def test_a_dropped_hedge_is_charged_for_its_prompt_if_that_was_sent() -> None:
    for sent, amounts in ((True, [("b", 2), ("a", 4)]), (False, [("a", 4)])):
        two = Two()
        two.second.sent = sent
        end(two.stream.session.intake)
        bill = two.stream.session.attempts.bill
        assert [(charge.upstream, charge.amount) for charge in bill.charges] == amounts


def test_a_first_request_that_never_connected_costs_nothing_where_the_hedge_wins() -> None:
    two = Two()
    two.first.sent = False
    end(two.hedge)
    bill = two.stream.session.attempts.bill
    assert [(charge.upstream, charge.amount) for charge in bill.charges] == [("b", 4)]


@pytest.mark.parametrize("how", ["one read", "cancel", "hedge", "fails"])
def test_the_cost_at_the_end_of_a_hedged_stream_is_all_that_is_charged(how: str) -> None:
    two = Two()
    session = two.stream.session
    match how:
        case "one read":
            session.intake.head_received(200, SSE)
            session.intake.body_received(frame() + frame("", "stop") + DONE)
        case "cancel":
            session.cancel()
        case "hedge":
            end(two.hedge)
        case _:
            two.fail(two.hedge)
            end(session.intake)
    assert two.stream.runner.ends == ["cancelled" if how == "cancel" else "finished"]
    metrics = session.measured_at_end("finished")
    result = two.stream.output.events[-2]["usage"]["cost"]["amount"]
    assert result == sum(charge.amount for charge in metrics.charges) / 1e12
    assert len(metrics.charges) == (1 if how == "fails" else 2), "a hedge that failed before any content is free"


def test_a_breaker_learns_nothing_of_a_loser() -> None:
    two = Two()
    breakers = two.stream.targets.breakers
    breakers["a"] = Breaker(BreakerSettings(failures=1, window=30, open=10))
    end(two.hedge)
    assert breakers["a"].state(two.stream.time.now) == "closed"


@pytest.mark.parametrize("wins", [False, True])
def test_a_hedged_stream_that_has_ended_does_not_wait_for_the_garbage_collector(wins: bool) -> None:
    def sessions() -> int:
        return sum(type(each) is Session for each in gc.get_objects())

    two = Two()
    gc.collect()
    gc.disable()
    try:
        end(two.hedge if wins else two.stream.session.intake)
        assert two.stream.runner.ends == ["finished"]
        two.stream.time.waiting.clear()
        two.stream.targets.hedges.clear()  # an exchange that has ended refers to its receiver no more
        two.stream.client.calls.clear()
        before = sessions()
        del two.stream.session
        assert sessions() == before - 1
    finally:
        gc.enable()


def test_a_hedge_reports_once() -> None:
    calls: list[str] = []
    adapter = get_provider("openai-compatible").adapter("m")
    hedge = Hedge(adapter, lambda: calls.append("started"), lambda error: calls.append(error.code), Clock(lambda: 0))
    hedge.head_received(200, SSE)
    hedge.body_received(ERROR)
    assert calls == ["overloaded"]
    hedge.decide()
    hedge.body_received(frame())
    hedge.exchange_ended(None)
    assert calls == ["overloaded"]
