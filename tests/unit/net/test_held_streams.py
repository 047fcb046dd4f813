"""Streams whose processors end them, or hold their text until a verdict: the upstream, the client and the timers."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.processing.processor import Processor
from gai_fast.model.errors import Error
from gai_fast.processors import Chain
from gai_fast.processors.batch import BatchProcessor
from tests.guarding import Judged, Stopping, failed, stop
from tests.unit.net.attempts.test_hedge import hedged
from tests.unit.net.stream.test_session import DONE, ERROR, SSE, Fixture, frame

CUT = Error("network", "cut", reason="truncated")


def held(*processors: Processor, **options: Any) -> Fixture:
    """Returns a stream with these processors, whose upstream has answered."""
    stream = Fixture(heartbeat=0, **options)
    stream.spec.chain = Chain(processors)
    stream.start().session.intake.head_received(200, SSE)
    return stream


def judged(*texts: str, **options: Any) -> tuple[Fixture, Judged]:
    """Returns a stream whose texts wait for a verdict."""
    judge = Judged(options.pop("due_ms", None))
    stream = held(judge, **options)
    assert stream.receive(*map(frame, texts)) == ["commit", b"<start>"]
    return stream, judge


def over(stream: Fixture) -> bool:
    """Returns whether nothing of a stream is left."""
    return stream.ends == 1 and stream.time.armed == 0


# ---- a stop ----------------------------------------------------------------------------------------------------------


def test_a_stop_closes_the_upstream_at_once_and_ends_the_response_properly() -> None:
    stream = held(Stopping("text.delta"))
    assert stream.receive(frame(), frame()) == ["commit", ("end", b"<start><safety><finish><done>")]
    assert stream.exchange.calls == ["close"]
    assert stream.runner.ends == ["finished"]
    assert over(stream)
    assert stream.targets.failures == []


def test_a_stop_at_the_end_mark_closes_the_upstream_too() -> None:
    stream = held(Stopping("finish"))
    calls = stream.receive(frame(), frame("", "stop"), DONE)
    assert calls == ["commit", ("end", b"<start><text.delta><safety><finish><done>")]
    assert stream.exchange.calls == ["close"]
    assert over(stream)


def test_no_other_attempt_follows_a_stop_or_a_failed_judge() -> None:
    for problem in (stop, failed):
        stream = held(Stopping("text.delta", problem), retries=3, on_midstream_failure="restart")
        stream.receive(frame())
        stream.time.advance(100)
        assert len(stream.targets.asked) == 1
        assert stream.exchange.calls == ["close"]
        assert over(stream)


def test_an_answer_in_one_object_that_is_stopped_is_an_answer() -> None:
    stream = held(Stopping("text.delta"), hold=True)
    assert stream.receive(frame()) == ["commit", ("end", b"<start><safety><finish><done>")]


def test_an_answer_in_one_object_whose_judge_fails_is_refused_with_its_status() -> None:
    stream = held(Stopping("text.delta", failed), hold=True)
    (error,) = stream.receive(frame())
    assert (error.status, error.code, error.reason, error.guard) == (
        503, "provider_unavailable", "guard_failed", "policy",
    )  # fmt: skip
    assert error.temporary


def test_a_stop_in_another_attempt_closes_that_one() -> None:
    stream = held(Stopping("stream.reset"), retries=1, on_midstream_failure="restart")
    stream.receive(frame())
    stream.session.intake.exchange_ended(CUT)
    stream.time.advance(2)
    assert len(stream.targets.asked) == 2
    assert stream.exchange.calls == ["close"]
    assert stream.client.calls[-1] == ("end", b"<stream.reset><start><finish><done>")
    assert over(stream)


def test_a_stop_by_a_verdict_ends_the_stream() -> None:
    stream, judge = judged("a")
    judge.allow(0, stop())
    assert stream.client.taken() == [("end", b"<finish><done>")]
    assert stream.exchange.calls == ["close"]
    assert over(stream)


# ---- verdicts --------------------------------------------------------------------------------------------------------


def test_a_verdict_wakes_the_stream() -> None:
    stream, judge = judged("a", "b")
    judge.allow()
    assert stream.client.taken() == [b"<text.delta>"]
    assert stream.receive(frame("", "stop"), DONE) == []
    judge.allow()
    assert stream.client.taken() == [("end", b"<text.delta><finish><done>")]
    assert judge.wake is None, "nothing refers to the stream any more"
    assert stream.ends == 1


def test_a_verdict_after_the_end_changes_nothing() -> None:
    stream, judge = judged("a")
    wake = judge.wake
    assert wake is not None
    stream.session.cancel()
    calls = list(stream.client.calls)
    judge.free = 1
    wake()
    assert stream.client.calls == calls
    assert over(stream)


def test_what_waits_for_a_time_comes_at_that_time() -> None:
    stream, _ = judged("a", due_ms=500)
    stream.time.advance(0.49)
    assert stream.client.taken() == []
    stream.time.advance(0.02)
    assert stream.client.taken() == [b"<text.delta>"]


def test_an_earlier_time_replaces_a_later_one() -> None:
    """The five seconds of a batch do not put off a verdict that times out sooner."""
    judge = Judged()
    stream = held(judge, BatchProcessor(milliseconds=5000))
    stream.receive(frame("a"), frame("b"), frame("c"))
    judge.allow()  # a batch lets its first text through
    judge.allow()
    assert stream.client.taken() == [b"<text.delta>"]
    judge.due = 400
    stream.receive(frame("d"))
    stream.time.advance(0.41)
    assert (judge.held, stream.client.taken()) == ([], [])
    stream.time.advance(4.6)
    assert stream.client.taken() == [b"<text.delta>"]


def test_a_complete_answer_waits_for_its_verdict_without_a_timer() -> None:
    for ends in (DONE, b""):
        stream, judge = judged("a")
        stream.receive(frame("", "stop"), ends)
        stream.time.advance(60)
        assert stream.exchange.calls == ["close"], "the upstream may end its response for two seconds"
        assert (stream.ends, stream.time.armed) == (0, 0)
        judge.allow()
        assert stream.client.taken() == [("end", b"<text.delta><finish><done>")]
        assert over(stream)


def test_the_heartbeat_goes_on_while_the_end_waits() -> None:
    judge = Judged()
    stream = Fixture(heartbeat=15)
    stream.spec.chain = Chain([judge])
    stream.start().session.intake.head_received(200, SSE)
    stream.receive(frame(), frame("", "stop"), DONE)
    stream.time.advance(15.1)
    assert stream.client.taken() == [b"<ping>"]


def test_an_answer_in_one_object_waits_for_its_verdict() -> None:
    judge = Judged()
    stream = held(judge, hold=True)
    assert stream.receive(frame(), frame("", "stop"), DONE) == []
    judge.allow()
    assert stream.client.taken() == ["commit", ("end", b"<start><text.delta><finish><done>")]


@pytest.mark.parametrize("waits", [False, True], ids=["text waits", "the end waits"])
@pytest.mark.parametrize("end", ["cancel", "drain", "leave", "break", "error"])
def test_whatever_ends_a_stream_drops_what_has_no_verdict(end: str, waits: bool) -> None:
    stream, judge = judged("a")
    if waits:
        stream.receive(frame("", "stop"), DONE)
        if end in ("break", "error"):  # the answer is complete: nothing of the upstream counts any more
            stream.session.intake.exchange_ended(CUT)
            judge.allow()
            assert stream.client.taken() == [("end", b"<text.delta><finish><done>")]
            return
    if end == "cancel":
        stream.session.cancel()
    elif end == "drain":
        stream.session.fail(Error("overloaded", "draining", reason="draining"))
    elif end == "leave":
        stream.session.client_lost()
    elif end == "break":
        stream.session.intake.exchange_ended(CUT)
    else:
        stream.receive(ERROR)
    calls = stream.client.calls
    if end == "leave":
        assert calls == []
    elif end == "error":
        assert calls == []
        assert [event["type"] for event in stream.output.events] == ["start", "error", "done"]
    else:
        assert calls == [("end", b"<finish><done>" if end == "cancel" else b"<error><done>")]
    assert over(stream)
    assert judge.wake is None


# ---- reading the upstream --------------------------------------------------------------------------------------------


def test_the_upstream_is_read_until_more_waits_than_the_clients_buffer() -> None:
    stream, judge = judged("1234", client_buffer=8)
    stream.receive(frame("5678"))
    assert stream.exchange.calls == []
    stream.receive(frame("9"))
    assert stream.exchange.calls == ["pause"]
    stream.receive(frame("0"))
    assert stream.exchange.calls == ["pause"]
    judge.allow(1)
    assert stream.exchange.calls == ["pause", "resume"]


def test_a_slow_client_and_a_slow_judge_are_both_waited_for() -> None:
    stream, judge = judged("12345", client_buffer=4)
    stream.session.pause()
    judge.allow()
    assert stream.exchange.calls == ["pause", "pause"]
    stream.session.resume()
    assert stream.exchange.calls == ["pause", "pause", "resume"]
    stream.receive(frame("12345"))
    stream.session.pause()
    stream.session.resume()
    assert stream.exchange.calls[3:] == ["pause", "pause"]


def test_what_is_void_holds_no_other_attempt_back() -> None:
    stream, judge = judged("12345", client_buffer=4, retries=1, on_midstream_failure="restart")
    assert stream.exchange.calls == ["pause"]
    stream.session.intake.exchange_ended(CUT)
    stream.time.advance(2)
    assert len(stream.targets.asked) == 2
    assert stream.exchange.calls == ["pause", "resume"]
    stream.session.intake.head_received(200, SSE)
    stream.receive(frame("new"), frame("", "stop"), DONE)
    judge.allow()
    assert stream.client.calls[-1] == ("end", b"<text.delta><finish><done>")


def test_the_wait_for_a_verdict_is_not_the_upstreams_silence() -> None:
    stream, judge = judged("12345", client_buffer=4, first_event_timeout=10.0)
    stream.time.advance(1000)
    assert not stream.ends
    judge.allow()
    assert stream.client.taken() == [b"<text.delta>"]


@pytest.mark.parametrize("winner", ["first", "second"])
def test_a_stop_closes_the_request_that_answers_and_its_hedge(winner: str) -> None:
    stream = hedged()
    stream.spec.chain = Chain([Stopping("text.delta")])
    stream.start().time.advance(2.5)
    first, second = stream.targets.exchanges
    receiver: Any = stream.session.intake if winner == "first" else stream.targets.hedges[0]
    receiver.head_received(200, SSE)
    receiver.body_received(frame())
    assert stream.client.calls == ["commit", ("end", b"<start><safety><finish><done>")]
    assert first.calls[-1] == second.calls[-1] == "close"
    assert over(stream)
