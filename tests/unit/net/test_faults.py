"""A bug in whatever a session drives ends its stream for the client, the engine and the upstream; nothing hangs."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import BreakerSettings, Settings
from gai_fast.net.attempts.retry import Breaker
from gai_fast.net.stream.session import Session
from gai_fast.processors import Chain, Processor
from tests.limits import LIMITS
from tests.unit.net.stream.test_session import DONE, ERROR, SSE, Fixture, frame


class Bug(Exception):
    """An unexpected exception."""


def fail(*_: Any, **__: Any) -> Any:
    raise Bug


class Timed(Processor):
    """Holds each delta for a second."""

    def __init__(self) -> None:
        self.held: list[Any] = []

    def process(self, event: Any, now_ms: int = 0) -> Any:
        if event["type"] == "text.delta":
            self.held.append(event)
            return []
        return [*self.flush(), event]

    @property
    def due_ms(self) -> int | None:
        return 1000 if self.held else None

    def flush(self, now_ms: int = 0) -> Any:
        held, self.held = self.held, []
        return held


def beginning(stream: Fixture) -> None:
    stream.session.intake.head_received(200, SSE)
    stream.session.intake.body_received(frame())


def ending(stream: Fixture) -> None:
    beginning(stream)
    stream.session.intake.body_received(frame("", "stop") + DONE)


def cut(stream: Fixture) -> None:
    beginning(stream)
    stream.session.intake.exchange_ended(Error("network", "reset", reason="reset"))


def refused(stream: Fixture) -> None:
    stream.session.intake.head_received(500, {})
    stream.session.intake.exchange_ended(None)


def cancelled(stream: Fixture) -> None:
    beginning(stream)
    stream.session.cancel()


def stopped(stream: Fixture) -> None:
    beginning(stream)
    stream.session.fail(Error("overloaded", "this server is being stopped"))


def left_alone(stream: Fixture) -> None:
    beginning(stream)
    stream.time.advance(100)


def silent(stream: Fixture) -> None:
    stream.time.advance(200)


DRIVES = [beginning, ending, cut, refused, cancelled, stopped, left_alone, silent]
PARTS: list[tuple[str, str]] = [
    *(("output", name) for name in ("event", "heartbeat", "take_pieces")),
    *(("client", name) for name in ("commit", "flush", "write", "end", "fail")),
    *(("targets", name) for name in ("attempt_failed", "breaker")),
    ("adapter", "receive"), ("adapter", "finish"), ("adapter", "abort"), ("chain", "process"), ("chain", "flush"),
]  # fmt: skip


def broken(part: str, name: str, drive: Callable[[Fixture], None], **options: Any) -> tuple[Fixture, list[int]]:
    """Returns a stream whose part fails from the moment on when the upstream has been asked."""
    stream = Fixture(heartbeat=7, commit_after=3, **options)
    chain = Chain([Timed()])
    if part == "chain":
        stream.spec.chain = chain
    stream.start()
    made = {
        "output": stream.output,
        "client": stream.client,
        "targets": stream.targets,
        "adapter": stream.relay._answer.adapter,
        "chain": chain,
    }
    hits = [0]

    def hit(*arguments: Any, **named: Any) -> Any:
        hits[0] += 1
        raise Bug

    target: Any = made[part]
    if part == "chain":
        target = chain._processors[0]
    setattr(target, name, hit)
    drive(stream)
    return stream, hits


@pytest.mark.parametrize("drive", DRIVES, ids=lambda drive: drive.__name__)
@pytest.mark.parametrize(("part", "name"), PARTS, ids=lambda value: value)
def test_a_bug_ends_the_stream_for_everybody(part: str, name: str, drive: Callable[[Fixture], None]) -> None:
    stream, hits = broken(part, name, drive)
    if not hits[0]:
        return  # this stream does not come to it; that some do is tried below
    assert stream.ends == 1, "the engine knows that the stream is over"
    assert stream.time.armed <= 1, "at most the end of the upstream's response is waited for"
    result = stream.client.calls[-1]
    assert isinstance(result, Error) or result[0] in ("end", "abort"), result
    if drive not in (cut, refused):
        assert {"close", "resume"} & set(stream.exchange.calls)
    assert any(isinstance(fault, Exception) for fault in stream.runner.faults)
    # Later calls change nothing.
    calls = list(stream.client.calls)
    stream.session.intake.body_received(frame())
    stream.session.intake.exchange_ended(None)
    stream.session.cancel()
    stream.session.client_lost()
    assert (stream.client.calls, stream.ends) == (calls, 1)


@pytest.mark.interpreted
@pytest.mark.parametrize(("part", "name"), PARTS, ids=lambda value: value)
def test_each_of_these_is_come_to_by_some_stream(part: str, name: str) -> None:
    assert any(broken(part, name, drive)[1][0] for drive in DRIVES)


@pytest.mark.interpreted
def test_a_bug_is_no_failure_of_the_upstream() -> None:
    breaker = Breaker(BreakerSettings(failures=1, window=30, open=10))
    stream = Fixture(retries=2)
    stream.targets.breakers["up"] = breaker
    stream.start()
    stream.relay._answer.adapter.receive = fail
    stream.session.intake.head_received(200, SSE)
    stream.session.intake.body_received(frame())
    (error,) = stream.client.taken()
    assert (error.code, error.phase, error.temporary) == ("internal", None, False)
    assert breaker.state(0.0) == "closed"
    assert (stream.targets.failures, len(stream.targets.exchanges), stream.ends) == ([], 1, 1)


@pytest.mark.parametrize("begins", [True, False], ids=["streaming", "connecting"])
def test_a_bug_of_an_exchange_is_neither_counted_nor_retried(begins: bool) -> None:
    """As one while a connection is made, or in the fast path: breakers counted it, and it was retried."""
    breaker = Breaker(BreakerSettings(failures=1, window=30, open=10))
    stream = Fixture(retries=2)
    stream.targets.breakers["up"] = breaker
    stream.start()
    if begins:
        stream.session.intake.head_received(200, SSE)
    error = Error("internal", "a bug")
    error.__cause__ = bug = Bug()
    stream.session.intake.exchange_ended(error)
    stream.time.advance(30)
    (result,) = stream.client.taken()
    assert (result.code, result.phase) == ("internal", None)
    assert breaker.state(0.0) == "closed"
    assert (stream.targets.failures, len(stream.targets.exchanges), stream.ends) == ([], 1, 1)
    assert stream.runner.faults == [bug]


@pytest.mark.parametrize("where", ["retry", "fallback"])
def test_a_request_that_cannot_be_built_for_a_later_attempt_ends_the_stream(where: str) -> None:
    """As for a `provider_options` that one provider refuses with a `TypeError`: the client waited for ever."""
    stream = Fixture(retries=1, model={"fallback": ("other",)} if where == "fallback" else {})
    stream.targets.settings = Settings(models={"other": stream.model}) if where == "fallback" else Settings()
    stream.start()
    stream.targets.open = fail
    stream.session.intake.exchange_ended(Error("network", "reset", reason="reset"))
    stream.time.advance(30)
    (error,) = [result for result in stream.client.calls if result not in ("commit", "flush")]
    result = error if isinstance(error, Error) else error[0]
    assert result == "end" or result.code == "internal"
    assert stream.output.events[-2]["error"]["code"] == "internal"
    assert (stream.ends, stream.time.armed) == (1, 0)


def test_a_stream_whose_end_cannot_be_written_is_cut_off() -> None:
    stream = Fixture().streaming()
    stream.output.event = fail
    stream.session.intake.body_received(frame())
    ((kind, error),) = stream.client.taken()
    assert (kind, error.code) == ("abort", "internal")
    assert stream.exchange.calls == ["close"]
    assert [type(fault) for fault in stream.runner.faults] == [Bug]


def test_a_stream_whose_end_cannot_be_written_before_its_head_is_an_error_response() -> None:
    stream = Fixture().start()
    stream.output.event = fail
    stream.session.intake.head_received(200, SSE)
    stream.session.intake.body_received(frame())
    (error,) = stream.client.taken()
    assert error.code == "internal"


def test_a_bug_while_a_lost_client_is_left_closes_the_upstream_all_the_same() -> None:
    stream = Fixture().streaming()
    stream.runner.ended = fail
    with pytest.raises(Bug):
        stream.session.client_lost()
    assert stream.exchange.calls == ["close"]


@pytest.mark.interpreted
def test_a_stream_that_cannot_be_made_leaves_no_request_and_no_probe_behind() -> None:
    stream = Fixture()
    breaker = stream.targets.breakers["up"] = Breaker(BreakerSettings(failures=1, window=30, open=10))
    breaker.failed(-20.0, None)
    opened = stream.targets.open
    stream.targets.open = lambda *each: (None, *opened(*each)[1:])
    with pytest.raises(AttributeError):
        stream.start()
    assert stream.exchange.calls == ["close"]
    assert breaker.admits(0.0, "another"), "the next request is the probe"


def sent_an_error(stream: Fixture) -> None:
    beginning(stream)
    stream.session.intake.body_received(ERROR)


def truncated(stream: Fixture) -> None:
    beginning(stream)
    stream.session.intake.exchange_ended(None)


def flooded(stream: Fixture) -> None:
    beginning(stream)
    stream.session.intake.body_received(b"data: " + b"x" * LIMITS.event)


def answered_by_a_page(stream: Fixture) -> None:
    stream.session.intake.head_received(200, {"content-type": "text/html"})
    stream.session.intake.body_received(b"<html>")
    stream.session.intake.exchange_ended(None)


def broken_at_a_frame(stream: Fixture) -> None:
    beginning(stream)
    stream.output.event = fail
    stream.session.intake.body_received(frame())


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize(
    "drive",
    [
        *(ending, cut, refused, cancelled, stopped, silent),
        *(sent_an_error, truncated, flooded, answered_by_a_page, broken_at_a_frame),
    ],
    ids=lambda drive: drive.__name__,
)
def test_a_stream_that_has_ended_does_not_wait_for_the_garbage_collector(
    drive: Callable[[Fixture], None], retries: int
) -> None:
    """An error that is kept, or a bug, referred to the stream by the frames of its traceback."""
    stream = Fixture(retries=retries).start()
    gc.collect()
    gc.disable()
    try:
        for _ in range(1 + retries):  # if the upstream is asked again, it fails in the same way
            drive(stream)
            stream.time.advance(30)
        assert stream.ends == 1
        stream.time.waiting.clear()
        stream.client.calls.clear()
        stream.runner.faults.clear()
        before = sessions()
        del stream.session
        assert sessions() == before - 1
    finally:
        gc.enable()


def sessions() -> int:
    """Returns the streams that are in memory."""
    return sum(type(each) is Session for each in gc.get_objects())
