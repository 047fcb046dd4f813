"""The commit of the head, the times of writes, and the end of a stream that one side leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from typing import Any

import pytest

from gai_fast.core.relay import Relay
from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.metrics import Outcome, Tallies
from gai_fast.model.settings import (
    ANONYMOUS,
    ModelSettings,
    Patience,
    Price,
    Secret,
    Settings,
    StreamSettings,
    UpstreamSettings,
)
from gai_fast.net.attempts.attempt import AttemptRunner
from gai_fast.net.attempts.balance import Balancer, TargetKey, TargetRequest, target_key
from gai_fast.net.attempts.hedge import Hedge
from gai_fast.net.attempts.key_ring import KeyRing
from gai_fast.net.attempts.retry import Breaker, RetryPolicy
from gai_fast.net.attempts.spec import Clock, StreamSpec
from gai_fast.net.stream.session import EngineCallbacks, Session
from gai_fast.net.upstream.connection import Receiver
from gai_fast.providers import get_provider
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeClient, FakeExchange, FakeOutput, FakeTime

SSE = {"content-type": "text/event-stream"}


def frame(content: str = "x", finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()


ERROR = b'data: {"error":{"message":"Overloaded","type":"overloaded_error"}}\n\n'
DONE = b"data: [DONE]\n\n"


class FakeTargets(AttemptRunner):
    """Targets that open one exchange after the other."""

    def __init__(self, time: FakeTime) -> None:
        self._time = time
        self.settings = Settings()
        self.policy = RetryPolicy()
        self.breakers: dict[str, Breaker] = {}
        self.asked: list[StreamSpec] = []
        self.exchanges: list[FakeExchange] = []
        self.refusals: dict[str, Exception] = {}
        self.failures: list[tuple[str, str]] = []
        self.opened: list[str] = []
        self.tallies = Tallies()
        self.balancer: Balancer
        self.rings: dict[str, KeyRing] = {}
        self.hedges: list[Hedge] = []
        self.keys: list[str | None] = []

    def choose_target(
        self, model: ModelSettings, home: str, without: Container[TargetKey], caller: str = ANONYMOUS
    ) -> ModelSettings | None:
        return self.balancer.choose(home, self._time.now, self.breaker_wait, without)

    def with_target(self, model: ModelSettings, home: str, caller: str = ANONYMOUS) -> ModelSettings:
        return (self.choose_target(model, home, ()) or model) if model.targets else model

    def begin_request(self, model: ModelSettings, now: float) -> TargetRequest | None:
        return self.balancer.begin(model, now)

    def is_premature(self, model: ModelSettings, now: float) -> bool:
        return False

    def target_wait(self, model: ModelSettings, *, any_target: bool) -> float:
        if any_target:
            return self.balancer.wait(self._time.now, self.breaker_wait)
        return self.balancer.targets[target_key(model)].wait(self._time.now, self.breaker_wait(model.upstream))

    def key_ring(self, upstream: UpstreamSettings, credential: Any = None) -> KeyRing:
        return self.rings.setdefault(upstream.name, KeyRing(upstream))

    def breaker_wait(self, upstream: UpstreamSettings) -> float:
        breaker = self.breakers.get(upstream.name)
        return 0.0 if breaker is None else breaker.wait(self._time.now)

    def failure_hidden(self, upstream: UpstreamSettings, error: Error, credential: Any = None) -> None:
        pass

    def attempt_failed(self, upstream: UpstreamSettings, error: Error, credential: Any = None) -> None:
        self.failures.append((upstream.name, error.code))

    def breaker_opened(self, upstream: UpstreamSettings, error: Error) -> None:
        self.opened.append(upstream.name)

    def breaker(self, upstream: UpstreamSettings) -> Breaker | None:
        return self.breakers.get(upstream.name)

    def open(
        self, spec: StreamSpec, receiver: Receiver, stream_id: str, number: int, key: Secret | None
    ) -> tuple[Any, Any, Any]:
        if spec.model.upstream.name in self.refusals:
            raise self.refusals[spec.model.upstream.name]
        self.asked.append(spec)
        if isinstance(receiver, Hedge):
            self.hedges.append(receiver)
        self.keys.append(None if key is None else key.reveal())
        self.exchanges.append(FakeExchange())
        return get_provider("openai-compatible").adapter("m"), lambda error, _: error, self.exchanges[-1]


class FakeRunner(EngineCallbacks):
    """An engine that keeps how streams end."""

    def __init__(self, time: FakeTime) -> None:
        self.timers = time
        self.ends: list[str] = []
        self.faults: list[Exception] = []
        self.counted: FakeFuture | None = None

    def broke(self, session: Session, fault: Exception) -> None:
        self.faults.append(fault)

    def record_ids(self, session: Session) -> None: ...

    def ended(self, session: Session, outcome: str) -> FakeFuture | None:
        self.ends.append(outcome)
        return self.counted


class FakeFuture:
    """Something that is awaited."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[Any], object]] = []

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self.callbacks.append(callback)

    def done(self) -> None:
        for callback in self.callbacks:
            callback(self)


class Fixture:
    def __init__(
        self,
        *,
        hold: bool = False,
        first_event_timeout: Patience = 60.0,
        model: dict[str, Any] | None = None,
        **stream: Any,
    ) -> None:
        self.time = FakeTime()
        self.client, self.output = FakeClient(), FakeOutput()
        self.runner, self.targets = FakeRunner(self.time), FakeTargets(self.time)
        upstream = UpstreamSettings(
            "up",
            "openai-compatible",
            "http://x",
            first_event_timeout=first_event_timeout,
            retries=stream.pop("retries", 0),
        )
        self.model = ModelSettings("m", upstream, "m", StreamSettings(**stream), **(model or {}))
        request = parse_request(b'{"query":"hi"}')
        self.spec = StreamSpec(self.model, request, self.output, hold=hold, can_reset=True, prompt_characters=8)
        self.session: Session

    def start(self) -> Fixture:
        self.session = Session(
            self.runner,
            self.targets,
            self.spec,
            self.client,
            stream_id="s1",
            clock=Clock(lambda: int(self.time.now * 1000)),
            loop=self.time,
        )
        return self

    @property
    def relay(self) -> Relay:
        return self.session.relay

    @property
    def exchange(self) -> FakeExchange:
        return self.targets.exchanges[-1]

    @property
    def ends(self) -> int:
        return len(self.runner.ends)

    def receive(self, *frames: bytes) -> list[Any]:
        """Returns one read of the upstream; returns the calls that the client gets then."""
        self.session.intake.body_received(b"".join(frames))
        return self.client.taken()

    def streaming(self) -> Fixture:
        """Past the head and the first event."""
        self.start().session.intake.head_received(200, SSE)
        assert self.receive(frame()) == ["commit", b"<start><text.delta>"]
        return self


# ---- the head --------------------------------------------------------------------------------------------------------


def test_the_head_waits_for_the_first_event_and_goes_out_with_it() -> None:
    stream = Fixture().start()
    stream.session.intake.head_received(200, SSE)
    assert stream.client.taken() == []
    assert stream.receive(b": comment\n\n", frame()[:9]) == []
    assert stream.receive(frame()[9:]) == ["commit", b"<start><text.delta>"]
    stream.time.advance(5)
    assert stream.client.taken() == []


def test_the_head_goes_out_alone_after_commit_after() -> None:
    stream = Fixture(commit_after=2).start()
    stream.time.advance(1.9)
    assert stream.client.taken() == []
    stream.time.advance(0.2)
    assert stream.client.taken() == ["commit", "flush"]
    stream.session.intake.head_received(200, SSE)
    assert stream.receive(frame()) == [b"<start><text.delta>"]


def test_a_failure_before_the_head_is_the_response() -> None:
    stream = Fixture().start()
    stream.session.intake.head_received(429, {})
    stream.session.intake.body_received(b"slow down")
    stream.session.intake.exchange_ended(None)
    (error,) = stream.client.taken()
    assert (error.code, error.phase, error.status) == ("rate_limited", "first_event", 429)
    assert stream.ends == 1
    assert stream.time.armed == 0


def test_a_failure_after_the_head_is_reported_in_band_and_ends_the_response() -> None:
    stream = Fixture(commit_after=2).start()
    stream.time.advance(3)
    stream.client.taken()
    stream.session.intake.exchange_ended(Error("network", "gone", reason="reset"))
    assert stream.client.taken() == [("end", b"<error><done>")]
    assert stream.time.armed == 0


def test_an_error_as_the_first_event_is_the_response_and_closes_the_upstream() -> None:
    stream = Fixture().start()
    stream.session.intake.head_received(200, SSE)
    (error,) = stream.receive(ERROR)
    assert error.code == "overloaded"
    assert stream.exchange.calls == ["close"]


def test_an_error_behind_content_is_reported_in_band_even_where_both_came_in_one_read() -> None:
    stream = Fixture().start()
    stream.session.intake.head_received(200, SSE)
    assert stream.receive(frame(), ERROR) == ["commit", ("end", b"<start><text.delta><error><done>")]


def test_an_answer_that_is_one_object_is_committed_only_at_its_end() -> None:
    stream = Fixture(hold=True, heartbeat=1, commit_after=1).start()
    stream.session.intake.head_received(200, SSE)
    assert stream.receive(frame()) == []
    stream.time.advance(10)
    assert stream.receive(frame("", "stop"), DONE) == ["commit", ("end", b"<start><text.delta><finish><done>")]


def test_an_answer_that_is_one_object_fails_with_its_status_whenever_that_is() -> None:
    stream = Fixture(hold=True).start()
    stream.session.intake.head_received(200, SSE)
    (error,) = stream.receive(frame(), ERROR)
    assert error.code == "overloaded"


def test_an_answer_that_is_one_object_is_not_gathered_without_end(change_limits: ChangeLimits) -> None:
    change_limits(held_answer=500)
    stream = Fixture(hold=True).start()
    stream.session.intake.head_received(200, SSE)
    assert stream.receive(frame()) == []
    (error,) = stream.receive(frame("x" * 500))
    assert (error.code, error.reason) == ("provider_unavailable", "answer_too_large")
    assert stream.exchange.calls == ["close"]


# ---- time ------------------------------------------------------------------------------------------------------------


def test_a_heartbeat_comes_after_so_much_silence_and_again() -> None:
    stream = Fixture(heartbeat=15).streaming()
    stream.time.advance(14.9)
    assert stream.client.taken() == []
    stream.time.advance(0.2)
    assert stream.client.taken() == [b"<ping>"]
    stream.time.advance(15)
    assert stream.client.taken() == [b"<ping>"]


def test_whatever_is_written_puts_the_heartbeat_off() -> None:
    stream = Fixture(heartbeat=15).streaming()
    stream.time.advance(10)
    stream.receive(frame())
    stream.time.advance(14.9)
    assert stream.client.taken() == []
    stream.time.advance(0.2)
    assert stream.client.taken() == [b"<ping>"]


def test_before_the_head_there_is_no_heartbeat_and_after_it_there_is() -> None:
    stream = Fixture(heartbeat=1, commit_after=5).start()
    stream.time.advance(4.9)
    assert stream.client.taken() == []
    stream.time.advance(0.2)
    assert stream.client.taken() == ["commit", "flush"]
    stream.time.advance(2)
    assert set(stream.client.taken()) == {b"<ping>"}


def test_a_heartbeat_shorter_than_the_wait_for_the_head_is_in_time_too() -> None:
    stream = Fixture(heartbeat=0.5, commit_after=2).start()
    stream.time.advance(0.3)
    stream.session.intake.head_received(200, SSE)
    stream.receive(frame())
    stream.time.advance(0.4)
    assert stream.client.taken() == []
    stream.time.advance(0.2)
    assert stream.client.taken() == [b"<ping>"]
    stream.session.client_lost()
    assert stream.time.armed == 0


def test_a_heartbeat_of_zero_is_none() -> None:
    stream = Fixture(heartbeat=0).streaming()
    stream.time.advance(1000)
    assert stream.client.taken() == []


def test_a_client_that_takes_nothing_gets_no_heartbeat() -> None:
    stream = Fixture(heartbeat=1).streaming()
    stream.session.pause()
    stream.time.advance(10)
    assert stream.client.taken() == []
    stream.session.resume()
    stream.time.advance(2)
    assert b"<ping>" in stream.client.taken()


def test_the_first_event_has_a_time_limit() -> None:
    stream = Fixture(first_event_timeout=10, commit_after=60).start()
    stream.session.intake.head_received(200, SSE)
    stream.time.advance(9)
    stream.receive(b": ping\n\n")
    stream.time.advance(1.1)
    (error,) = stream.client.taken()
    assert (error.code, error.reason, error.phase) == ("timeout", "first_event", "first_event")
    assert "'up'" in str(error)
    assert stream.exchange.calls == ["close"]


def test_after_the_first_event_that_limit_is_none() -> None:
    stream = Fixture(first_event_timeout=10, heartbeat=0).streaming()
    stream.time.advance(100)
    assert stream.client.taken() == []
    assert stream.ends == 0


def test_output_is_gathered_for_flush_interval() -> None:
    stream = Fixture(flush_interval=0.5, heartbeat=0).start()
    stream.session.intake.head_received(200, SSE)
    assert stream.receive(frame()) == ["commit"]
    assert stream.receive(frame()) == []
    stream.time.advance(0.6)
    assert stream.client.taken() == [b"<start><text.delta><text.delta>"]
    assert stream.receive(frame()) == []
    assert stream.receive(frame("", "stop"), DONE) == [("end", b"<text.delta><finish><done>")]
    assert stream.time.armed == 1, "only the end of the upstream's response is waited for"


def test_gathering_ends_where_client_buffer_does() -> None:
    stream = Fixture(flush_interval=10, client_buffer=1000, heartbeat=0).start()
    stream.session.intake.head_received(200, SSE)
    stream.receive(frame())
    assert stream.receive(frame("x" * 1000)) == [b"<start><text.delta><text.delta>"]
    assert stream.receive(frame()) == []


# ---- the client ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepare", [Fixture.start, Fixture.streaming])
def test_a_client_that_is_gone_closes_the_upstream_and_hears_nothing(prepare: Callable[[Fixture], Fixture]) -> None:
    stream = prepare(Fixture(heartbeat=1))
    stream.session.client_lost()
    assert stream.exchange.calls == ["close"]
    assert stream.ends == 1
    assert stream.time.armed == 0
    stream.session.client_lost()
    stream.session.cancel()
    stream.session.fail(Error("internal"))
    stream.session.intake.body_received(frame())
    stream.session.intake.exchange_ended(None)
    assert stream.client.taken() == []
    assert stream.ends == 1


def test_a_slow_client_pauses_the_upstream() -> None:
    stream = Fixture().streaming()
    stream.session.pause()
    stream.session.resume()
    assert stream.exchange.calls == ["pause", "resume"]
    stream.session.intake.exchange_ended(None)
    stream.session.pause()
    stream.session.resume()
    assert stream.exchange.calls == ["pause", "resume"]


def test_cancelling_closes_the_upstream_and_tells_the_client() -> None:
    stream = Fixture().streaming()
    stream.session.cancel()
    assert stream.client.taken() == [("end", b"<finish><done>")]
    assert stream.output.events[-2]["finish_reason"] == "cancelled"
    assert stream.output.events[-2]["usage"]["source"] == "partial"
    assert stream.exchange.calls == ["close"]
    assert stream.time.armed == 0


def test_cancelling_before_the_first_event_is_a_whole_stream() -> None:
    stream = Fixture().start()
    stream.session.cancel()
    assert stream.client.taken() == ["commit", ("end", b"<start><finish><done>")]


# ---- the end, if it must be counted first ----------------------------------------------------------------------------


def counted_later(**stream: Any) -> tuple[Fixture, FakeFuture]:
    made = Fixture(**stream).streaming()
    counted = made.runner.counted = FakeFuture()
    return made, counted


@pytest.mark.interpreted
def test_a_response_ends_when_the_stream_has_been_counted() -> None:
    stream, counted = counted_later(heartbeat=1)
    assert stream.receive(frame("bye")) == [b"<text.delta>"]
    assert stream.receive(frame("", "stop"), DONE) == []
    assert stream.ends == 1
    assert stream.exchange.calls == ["resume"]
    stream.time.advance(5)
    stream.session.cancel()
    assert stream.client.taken() == []
    counted.done()
    assert stream.client.taken() == [("end", b"<finish><done>")]


@pytest.mark.interpreted
def test_a_failure_is_reported_when_the_stream_has_been_counted() -> None:
    stream, counted = counted_later()
    stream.session.intake.exchange_ended(Error("network"))
    assert stream.client.taken() == []
    counted.done()
    assert stream.client.taken() == [("end", b"<error><done>")]


@pytest.mark.interpreted
def test_a_client_that_leaves_meanwhile_hears_nothing() -> None:
    stream, counted = counted_later()
    assert stream.receive(frame("", "stop"), DONE) == []
    stream.session.client_lost()
    counted.done()
    assert stream.client.taken() == []
    assert stream.ends == 1


@pytest.mark.interpreted
def test_a_bug_while_the_response_ends_later_cuts_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, counted = counted_later()
    stream.receive(frame("", "stop"), DONE)

    def end(pieces: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(stream.client, "end", end)
    counted.done()
    assert [type(fault) for fault in stream.runner.faults] == [ZeroDivisionError]
    ((kind, error),) = stream.client.taken()
    assert (kind, error.code) == ("abort", "internal")


# ---- the upstream ----------------------------------------------------------------------------------------------------


def test_somebody_who_watches_is_shown_the_events_from_then_on() -> None:
    stream = Fixture().streaming()
    watcher = FakeOutput()
    stream.session.watch(watcher)
    stream.receive(frame("more"))
    stream.session.watch(None)
    stream.receive(frame("unseen"))
    assert b"".join(watcher.take_pieces()) == b"<text.delta>"
    stream.session.client_lost()
    stream.session.watch(watcher)  # late: nothing happens


@pytest.mark.interpreted
def test_a_bug_when_somebody_begins_to_watch_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(relay: Relay, watcher: Any) -> None:
        raise ZeroDivisionError

    stream = Fixture().streaming()
    monkeypatch.setattr(Relay, "watch", broken)
    stream.session.watch(None)
    assert [type(fault) for fault in stream.runner.faults] == [ZeroDivisionError]
    assert stream.runner.ends == ["failed"]


def test_a_stream_ends_once_and_leaves_no_timer() -> None:
    stream = Fixture(heartbeat=1).streaming()
    assert stream.receive(frame("", "stop"), DONE) == [("end", b"<finish><done>")]
    assert stream.ends == 1
    stream.session.intake.body_received(frame())
    stream.session.intake.exchange_ended(None)
    stream.session.client_lost()
    assert stream.client.taken() == []
    assert stream.exchange.calls == ["resume"]
    assert stream.time.armed == 0


def test_an_upstream_may_end_its_response_after_its_last_event_for_a_moment() -> None:
    stream = Fixture(heartbeat=0).streaming()
    stream.receive(frame("", "stop"), DONE)
    stream.session.client_lost()
    assert stream.exchange.calls == ["resume"], "closing now would cost a connection that can be used again"
    stream.time.advance(LIMITS.upstream_tail + 0.1)
    assert stream.exchange.calls == ["resume", "close"]


def test_an_upstream_that_cannot_be_asked_leaves_no_timer() -> None:
    stream = Fixture()
    stream.targets.refusals["up"] = ValueError("no path")
    with pytest.raises(ValueError, match="no path"):
        stream.start()
    assert stream.time.armed == 0


# ---- after the finish reason -----------------------------------------------------------------------------------------


def test_an_answer_with_its_finish_reason_waits_for_its_end_mark_for_a_moment() -> None:
    stream = Fixture(heartbeat=0).streaming()
    assert stream.receive(frame("", "stop")) == []
    stream.time.advance(LIMITS.late_events - 0.1)
    assert stream.receive(b": comment\n\n") == []
    stream.time.advance(0.2)
    assert stream.client.taken() == [("end", b"<finish><done>")]
    assert (stream.exchange.calls, stream.ends, stream.time.armed) == (["close"], 1, 0)


def test_an_end_mark_in_the_read_of_the_finish_reason_is_not_waited_for() -> None:
    stream = Fixture(heartbeat=0).streaming()
    before = len(stream.time.waiting)
    assert stream.receive(frame("", "stop") + DONE) == [("end", b"<finish><done>")]
    assert len(stream.time.waiting) == before + 1, "only the end of the upstream's response is waited for"


def test_usage_does_not_lengthen_the_wait_and_text_does() -> None:
    usage = b'data: {"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
    stream = Fixture(heartbeat=0).streaming()
    stream.receive(frame("", "stop"))
    stream.time.advance(LIMITS.late_events - 0.1)
    stream.receive(frame("more"))
    stream.time.advance(LIMITS.late_events - 0.1)
    stream.receive(usage)
    assert stream.ends == 0
    stream.time.advance(0.2)
    assert stream.client.taken() == [("end", b"<finish><done>")]


def test_one_choice_of_two_that_has_its_finish_reason_ends_no_answer() -> None:
    stream = Fixture(heartbeat=0).streaming()
    other = frame().replace(b'"index": 0', b'"index": 1')
    stream.receive(other, frame("", "stop"))
    stream.time.advance(LIMITS.late_events * 2)
    assert stream.ends == 0
    stream.receive(other.replace(b"null", b'"stop"'))
    stream.time.advance(LIMITS.late_events + 0.1)
    assert stream.ends == 1


def test_a_slow_client_has_time_for_late_events_too() -> None:
    stream = Fixture(heartbeat=0).streaming()
    stream.receive(frame("", "stop"))
    stream.session.pause()
    stream.time.advance(LIMITS.late_events * 3)
    assert stream.ends == 0, "nothing was read meanwhile"
    stream.session.resume()
    stream.time.advance(LIMITS.late_events + 0.1)
    assert stream.ends == 1


# ---- behind the end --------------------------------------------------------------------------------------------------


class FakeBody(FakeOutput):
    """Copies frames as they come, up to the end of the body."""

    whole = True
    opens_parts = False
    copies_body = True
    commits = False

    def frame(self, raw: bytes, last: bool) -> None:
        self.bytes += raw

    def event(self, event: Event) -> None:
        self.events.append(event)


def copying(**how: Any) -> Fixture:
    stream = Fixture(heartbeat=0, **how)
    stream.output = output = FakeBody()
    stream.spec.output = stream.spec.frames = output
    stream.start().session.intake.head_received(200, SSE)
    return stream


BEHIND = b"data: behind\n\n"


@pytest.mark.parametrize("end", [frame("", "stop") + DONE, ERROR], ids=["finish", "error"])
def test_a_copy_of_the_body_ends_where_the_body_does(end: bytes) -> None:
    stream = copying()
    assert stream.receive(frame() + end + BEHIND) == ["commit", frame() + end + BEHIND]
    assert (stream.receive(BEHIND), stream.ends) == ([BEHIND], 0)
    stream.session.intake.exchange_ended(None)
    assert (stream.client.taken(), stream.ends, stream.time.armed) == ([("end", b"")], 1, 0)
    assert stream.exchange.calls == []


def test_a_copy_of_a_body_that_does_not_end_ends_after_a_while() -> None:
    stream = copying()
    stream.receive(frame() + frame("", "stop") + DONE)
    stream.receive(b"data: half")
    stream.time.advance(LIMITS.upstream_tail + 0.1)
    assert stream.client.taken() == [("end", b"data: half")]
    assert (stream.exchange.calls, stream.ends, stream.time.armed) == (["close"], 1, 0)


def test_a_slow_client_gets_the_end_of_the_body_too() -> None:
    stream = copying()
    stream.session.pause()
    stream.receive(frame() + frame("", "stop") + DONE)
    stream.time.advance(LIMITS.upstream_tail * 3)
    assert stream.ends == 0, "nothing was read meanwhile"
    stream.session.resume()
    assert stream.receive(BEHIND) == [BEHIND]
    stream.time.advance(LIMITS.upstream_tail + 0.1)
    assert (stream.client.taken(), stream.exchange.calls) == ([("end", b"")], ["pause", "resume", "close"])


@pytest.mark.parametrize("leave", [Session.cancel, Session.client_lost])
def test_a_copy_of_the_body_can_be_left(leave: Callable[[Session], None]) -> None:
    stream = copying()
    stream.receive(frame() + frame("", "stop") + DONE)
    leave(stream.session)
    assert (stream.exchange.calls, stream.ends, stream.time.armed) == (["close"], 1, 0)


def test_a_failure_before_the_head_is_the_response_of_a_copy_too() -> None:
    stream = copying()
    calls = stream.receive(ERROR + BEHIND)
    assert [type(call) for call in calls] == [type(Error("overloaded"))]
    assert (stream.exchange.calls, stream.ends) == (["close"], 1)


def test_a_bug_behind_the_end_ends_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = copying()
    stream.receive(frame() + frame("", "stop") + DONE)
    monkeypatch.setattr(stream.output, "frame", None)
    assert stream.receive(BEHIND) == [("end", b"")]
    assert (len(stream.runner.faults), stream.ends) == (1, 1)


def test_a_whole_copy_is_as_long_as_the_body_within_its_limit(change_limits: ChangeLimits) -> None:
    stream = copying(hold=True)
    assert stream.receive(frame() + frame("", "stop") + DONE) == []
    assert stream.receive(BEHIND) == []
    change_limits(held_answer=len(BEHIND))
    assert stream.receive(BEHIND) == ["commit", ("end", frame() + frame("", "stop") + DONE + BEHIND + BEHIND)]


# ---- what it costs ---------------------------------------------------------------------------------------------------

PRICE = Price(1_000_000, 2_000_000, 0, 0, 0)
"""Of a prompt of eight characters, two tokens: 2. Of a token of the answer: 2."""


def priced(**options: Any) -> Fixture:
    return Fixture(model={"price": PRICE}, **options).start()


def costs(stream: Fixture, outcome: Outcome = "disconnected") -> list[int]:
    """What the figures say that the attempts have cost."""
    return [charge.amount for charge in stream.session.measured(outcome).charges]


def test_a_look_at_a_stream_that_waits_for_a_connection_does_not_make_its_answer_free() -> None:
    stream = priced()
    stream.exchange.sent = False
    assert costs(stream) == []
    stream.exchange.sent = True
    stream.session.intake.head_received(200, SSE)
    stream.receive(frame("four"), frame("", "stop"), DONE)
    assert (costs(stream, "finished"), stream.output.events[-2]["usage"]["cost"]["amount"]) == ([4], 4e-12)


def test_a_look_at_a_stream_charges_nothing_that_then_fails_before_its_content() -> None:
    stream = priced()
    assert costs(stream) == [2], "the client would pay for the prompt"
    stream.session.intake.head_received(400, {})
    stream.session.intake.exchange_ended(None)
    assert stream.runner.ends == ["failed"]
    assert [charge.amount for charge in stream.session.measured_at_end("failed").charges] == []


def test_a_refused_attempt_that_was_looked_at_is_not_charged_beside_the_one_before() -> None:
    stream = priced(on_midstream_failure="restart", retries=1)
    stream.session.intake.head_received(200, SSE)
    stream.receive(frame("four"))
    stream.session.intake.exchange_ended(Error("network", "cut", reason="truncated"))
    stream.time.advance(1)
    assert len(stream.targets.exchanges) == 2
    assert costs(stream) == [4, 2]
    stream.session.intake.head_received(400, {})
    stream.session.intake.exchange_ended(None)
    assert stream.runner.ends == ["failed"]
    assert [charge.amount for charge in stream.session.measured_at_end("failed").charges] == [4]


@pytest.mark.parametrize(("sent", "amounts"), [(True, [2]), (False, [])])
def test_a_client_that_leaves_pays_for_a_prompt_that_was_sent_also_if_it_is_not_the_queue_that_it_waits_in(
    sent: bool, amounts: list[int]
) -> None:
    for leave, outcome in ((Session.client_lost, "disconnected"), (Session.cancel, "cancelled")):
        stream = priced()
        stream.exchange.sent = sent
        leave(stream.session)
        assert stream.runner.ends == [outcome]
        metrics = stream.session.measured_at_end(outcome)
        assert [charge.amount for charge in metrics.charges] == amounts


def test_an_end_past_all_parts_is_charged_for_what_was_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = priced()
    stream.session.intake.head_received(200, SSE)
    stream.receive(frame("four"))

    def broken(*_: object) -> None:
        raise RuntimeError("no output")

    monkeypatch.setattr(stream.output, "event", broken)
    stream.receive(frame("four"))
    assert stream.runner.ends == ["failed"]
    assert [charge.amount for charge in stream.session.measured_at_end("failed").charges] == [2 + 4]


def test_a_count_of_tokens_costs_nothing_also_if_its_client_leaves() -> None:
    stream = Fixture(model={"price": PRICE})
    stream.spec.counts = True
    stream.start().session.client_lost()
    assert stream.session.measured_at_end("disconnected").charges == ()
