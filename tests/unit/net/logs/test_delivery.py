"""The start, the writes and the end of a response, without the rest of a session."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gai_fast.core.meter import StreamMeter
from gai_fast.model.errors import Error
from gai_fast.model.settings import StreamSettings
from gai_fast.net.logs.delivery import Delivery
from tests.unit.net.fakes import FakeClient, FakeOutput, FakeTime

ERROR = Error("network", "reset")


class Case:
    """A delivery, its client, and what it has to write."""

    def __init__(self, *, whole: bool = False, **stream: Any) -> None:
        self.time, self.client, self.output = FakeTime(), FakeClient(), FakeOutput()
        self.counters = StreamMeter(0.0).counters
        self.delivery = Delivery(
            self.client,
            self.output,
            StreamSettings(**stream),
            self.counters,
            self.time,
            self.time.time(),
            whole=whole,
        )
        self.sent: list[bool] = []

    def say(self, text: bytes = b"x") -> bool:
        self.output.bytes += text
        return self.delivery.gather_or_send(lambda: self.sent.append(self.delivery.send()))


def test_the_first_bytes_commit_the_head() -> None:
    case = Case()
    assert not case.delivery.is_committed
    assert case.say()
    assert case.delivery.is_committed
    assert case.client.taken() == ["commit", b"x"]
    assert case.say(b"") is False
    assert case.client.taken() == []
    assert case.counters.sent == 1


def test_bytes_are_gathered_for_flush_interval_and_no_longer() -> None:
    case = Case(flush_interval=0.5, client_buffer=10)
    assert not case.say()
    assert not case.say()
    assert case.client.taken() == ["commit"]
    case.time.advance(0.6)
    assert (case.client.taken(), case.sent) == ([b"xx"], [True])
    case.delivery.gathered = 11
    assert case.say()
    assert case.time.armed == 0


def test_stop_cancels_what_is_gathered() -> None:
    case = Case(flush_interval=0.5)
    case.say()
    case.delivery.stop()
    assert case.time.armed == 0


def test_due_is_the_heads_time_then_that_of_each_heartbeat() -> None:
    case = Case(commit_after=2, heartbeat=15)
    assert case.delivery.due() == 2
    case.time.now = 2
    case.delivery.look(2)
    assert case.client.taken() == ["commit", "flush"]
    assert case.delivery.due() == 17
    case.delivery.look(16)
    assert case.client.taken() == []
    case.delivery.look(17)
    assert case.client.taken() == [b"<ping>"]


def test_without_a_heartbeat_nothing_is_due_after_the_head() -> None:
    case = Case(heartbeat=0)
    case.say()
    assert case.delivery.due() == math.inf
    assert Case(heartbeat=0, whole=True).delivery.due() == math.inf
    Case(whole=True).delivery.look(100)


def test_a_client_that_takes_nothing_is_not_pinged() -> None:
    case = Case(heartbeat=1)
    case.say()
    case.client.taken()
    case.delivery.is_paused = True
    case.delivery.look(5)
    assert case.client.taken() == []
    assert case.delivery.due() == 6


@pytest.mark.parametrize(
    ("whole", "committed", "delivered", "error", "calls"),
    [
        (False, False, False, None, ["commit", ("end", b"z")]),
        (False, True, True, None, [("end", b"z")]),
        (False, False, False, ERROR, [ERROR]),
        (False, False, True, ERROR, ["commit", ("end", b"z")]),
        (False, True, False, ERROR, [("end", b"z")]),
        (True, False, True, ERROR, [ERROR]),
        (True, False, True, None, ["commit", ("end", b"z")]),
    ],
)
def test_the_end(whole: bool, committed: bool, delivered: bool, error: Error | None, calls: list[Any]) -> None:
    case = Case(whole=whole)
    if committed:
        case.say()
        case.client.taken()
    case.output.bytes = b"z"
    pieces = case.delivery.take_last()
    case.delivery.end(pieces, error, delivered=delivered)
    assert case.client.taken() == calls


@pytest.mark.parametrize(("committed", "calls"), [(False, [ERROR]), (True, [("abort", ERROR)])])
def test_a_response_is_cut_if_its_end_cannot_be_found(committed: bool, calls: list[Any]) -> None:
    case = Case()
    if committed:
        case.say()
        case.client.taken()
    case.delivery.cut(ERROR)
    assert case.client.taken() == calls


def test_a_piece_may_be_passed_on_past_the_output() -> None:
    case = Case(heartbeat=15)
    case.delivery.commit()
    case.time.advance(10)
    case.delivery.pass_on(b"piece")
    assert case.client.taken() == ["commit", b"piece"]
    assert (case.counters.sent, case.delivery.last_write) == (5, 10)
