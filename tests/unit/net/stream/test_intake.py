"""How the bytes of an upstream reach the relay; the fast path is in `tests/unit/net/test_fast_path.py`."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from gai_fast.ledger import Reservation
from gai_fast.model.errors import Error
from gai_fast.model.settings import Price
from gai_fast.net.stream.session import Session
from tests.unit.net.stream.test_session import DONE, ERROR, SSE, FakeRunner, Fixture, frame

TOKEN = Price(10**6, 10**6, 0, 0, 0)
"""A token costs 1."""


class LedgerRunner(FakeRunner):
    """An engine whose ledger answers when the test does."""

    def __init__(self, time: Any) -> None:
        super().__init__(time)
        self.asked: list[Callable[[int], None]] = []

    def grow(self, session: Session, wanted: Reservation, then: Callable[[int], None]) -> None:
        self.asked.append(then)


def limited(reserved: int, **options: Any) -> tuple[Fixture, LedgerRunner]:
    """Returns a stream whose prompt of eight characters is two tokens."""
    stream = Fixture(model={"price": TOKEN}, **options)
    stream.runner = runner = LedgerRunner(stream.time)
    stream.start().session.allow(reserved)
    stream.session.intake.head_received(200, SSE)
    return stream, runner


def asking() -> tuple[Fixture, LedgerRunner]:
    """A stream whose first attempt has used up the reservation: the first bytes of the second wait for the ledger."""
    options = {"retries": 1, "on_midstream_failure": "restart", "first_event_timeout": 10.0, "heartbeat": 0.0}
    stream, runner = limited(2 + 1, **options)
    stream.receive(frame())
    stream.session.intake.exchange_ended(Error("network", "cut", reason="truncated"))
    stream.time.advance(1)
    assert len(stream.targets.asked) == 2
    stream.session.intake.head_received(200, SSE)
    stream.time.advance(9)
    stream.receive(b": no event yet\n\n")
    assert (len(runner.asked), stream.exchange.calls) == (1, ["pause"])
    return stream, runner


def test_the_time_for_the_first_event_does_not_run_while_the_ledger_is_asked() -> None:
    stream, runner = asking()
    stream.time.advance(100)
    assert not stream.ends
    runner.asked.pop()(1000)
    assert stream.exchange.calls == ["pause", "resume"]
    assert stream.relay.awaits_first_event
    stream.time.advance(9.5)
    assert not stream.ends
    stream.time.advance(1)
    assert stream.runner.ends == ["failed"]


def test_the_time_to_ask_a_second_target_does_not_run_while_the_ledger_is_asked() -> None:
    stream, runner = asking()
    attempt = stream.session.attempts.attempt
    assert attempt is not None
    attempt.hedge_at = attempt.at + 9.9
    stream.time.advance(100)
    assert attempt.hedge_at is not None
    runner.asked.pop()(1000)
    assert attempt.hedge_at == pytest.approx(stream.time.now + 9.9)


def test_bytes_after_the_failure_of_an_attempt_ask_for_no_spend_and_do_not_reach_the_next_one() -> None:
    stream, runner = limited(2 + 1, retries=1)
    stream.receive(ERROR + frame("of the failed attempt") * 20)
    assert not runner.asked
    stream.time.advance(1)
    assert len(stream.targets.asked) == 2
    stream.session.intake.head_received(200, SSE)
    stream.session.allow(1000)
    stream.receive(frame("next"), frame("", "stop"), DONE)
    assert [event.get("text") for event in stream.output.events if event["type"] == "text.delta"] == ["next"]
    assert stream.runner.ends == ["finished"]


def test_a_client_and_a_ledger_that_hold_bytes_back_are_both_waited_for() -> None:
    stream, runner = asking()
    stream.session.pause()
    stream.session.resume()
    assert stream.exchange.calls == ["pause", "pause"]
    stream.session.pause()
    runner.asked.pop()(1000)
    assert "resume" not in stream.exchange.calls
    stream.session.resume()
    assert stream.exchange.calls[-1] == "resume"


def test_an_end_that_waits_for_the_ledger_ends_the_stream_when_it_answers() -> None:
    for more, ends in ((1000, "failed"), (0, "finished")):
        stream, runner = limited(2)
        stream.receive(frame())
        stream.receive(frame())
        stream.session.intake.exchange_ended(Error("network", "cut", reason="truncated"))
        assert not stream.ends
        runner.asked.pop()(more)
        assert stream.runner.ends == [ends]


@pytest.mark.parametrize("end", ["finish", "client_lost"])
def test_a_limited_stream_that_has_ended_does_not_wait_for_the_garbage_collector(end: str) -> None:
    stream, _ = limited(1000)
    gc.collect()
    gc.disable()
    try:
        if end == "finish":
            stream.receive(frame(), frame("", "stop"), DONE)
        else:
            stream.session.client_lost()
        stream.time.waiting.clear()
        stream.client.calls.clear()
        before = sum(type(each) is Session for each in gc.get_objects())
        del stream.session
        assert sum(type(each) is Session for each in gc.get_objects()) == before - 1
    finally:
        gc.enable()
