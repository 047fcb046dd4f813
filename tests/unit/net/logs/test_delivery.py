"""The beginning, the writes and the end of a response, without the rest of a session."""

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


class Way:
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
            whole=whole,
        )
        self.sent: list[bool] = []

    def say(self, text: bytes = b"x") -> bool:
        self.output.bytes += text
        return self.delivery.gather_or_send(lambda: self.sent.append(self.delivery.send()))


def test_the_first_bytes_commit_the_head() -> None:
    way = Way()
    assert not way.delivery.is_committed
    assert way.say()
    assert way.delivery.is_committed
    assert way.client.taken() == ["commit", b"x"]
    assert way.say(b"") is False
    assert way.client.taken() == []
    assert way.counters.sent == 1


def test_bytes_are_gathered_for_flush_interval_and_no_longer() -> None:
    way = Way(flush_interval=0.5, client_buffer=10)
    assert not way.say()
    assert not way.say()
    assert way.client.taken() == ["commit"]
    way.time.advance(0.6)
    assert (way.client.taken(), way.sent) == ([b"xx"], [True])
    way.delivery.gathered = 11
    assert way.say()
    assert way.time.armed == 0


def test_stop_cancels_what_is_gathered() -> None:
    way = Way(flush_interval=0.5)
    way.say()
    way.delivery.stop()
    assert way.time.armed == 0


def test_due_is_the_heads_time_then_that_of_each_heartbeat() -> None:
    way = Way(commit_after=2, heartbeat=15)
    assert way.delivery.due() == 2
    way.time.now = 2
    way.delivery.look(2)
    assert way.client.taken() == ["commit", "flush"]
    assert way.delivery.due() == 17
    way.delivery.look(16)
    assert way.client.taken() == []
    way.delivery.look(17)
    assert way.client.taken() == [b"<ping>"]


def test_without_a_heartbeat_nothing_is_due_after_the_head() -> None:
    way = Way(heartbeat=0)
    way.say()
    assert way.delivery.due() == math.inf
    assert Way(heartbeat=0, whole=True).delivery.due() == math.inf
    Way(whole=True).delivery.look(100)


def test_a_client_that_takes_nothing_is_not_pinged() -> None:
    way = Way(heartbeat=1)
    way.say()
    way.client.taken()
    way.delivery.is_paused = True
    way.delivery.look(5)
    assert way.client.taken() == []
    assert way.delivery.due() == 6


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
    way = Way(whole=whole)
    if committed:
        way.say()
        way.client.taken()
    way.output.bytes = b"z"
    pieces = way.delivery.take_last()
    way.delivery.end(pieces, error, delivered=delivered)
    assert way.client.taken() == calls


@pytest.mark.parametrize(("committed", "calls"), [(False, [ERROR]), (True, [("abort", ERROR)])])
def test_a_response_is_cut_where_its_end_cannot_be_told(committed: bool, calls: list[Any]) -> None:
    way = Way()
    if committed:
        way.say()
        way.client.taken()
    way.delivery.cut(ERROR)
    assert way.client.taken() == calls


def test_a_piece_may_be_passed_on_past_the_output() -> None:
    way = Way(heartbeat=15)
    way.delivery.commit()
    way.time.advance(10)
    way.delivery.pass_on(b"piece")
    assert way.client.taken() == ["commit", b"piece"]
    assert (way.counters.sent, way.delivery.last_write) == (5, 10)
