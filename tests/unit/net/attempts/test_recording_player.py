"""A recording plays with its own timing, waits while it is paused, and stops when it is closed."""

from __future__ import annotations

from typing import Any

from gai_fast.model.errors import Error
from gai_fast.net.attempts.recording_player import PlayedExchange, Recording, load_recording
from gai_fast.net.upstream import connection as upstream
from gai_fast.providers import get_provider
from tests.unit.net.fakes import FakeTime

RECORDING = Recording([(1.0, b"a"), (1.0, b"b"), (3.0, b"c")])


class Receiver(upstream.Receiver):
    def __init__(self, time: FakeTime) -> None:
        self.time = time
        self.calls: list[tuple[float, Any]] = []
        self.exchange: PlayedExchange | None = None
        self.pause_at: bytes | None = None

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        self.calls.append((self.time.now, status))
        assert headers == {"content-type": "text/event-stream"}

    def body_received(self, data: bytes) -> None:
        self.calls.append((self.time.now, data))
        if data == self.pause_at and self.exchange is not None:
            self.exchange.pause_reading()

    def exchange_ended(self, error: Error | None) -> None:
        self.calls.append((self.time.now, error))


def play() -> tuple[FakeTime, Receiver, PlayedExchange]:
    time = FakeTime()
    receiver = Receiver(time)
    receiver.exchange = PlayedExchange(RECORDING, receiver, time)
    return time, receiver, receiver.exchange


def test_it_keeps_the_time_of_the_recording() -> None:
    time, receiver, _ = play()
    assert receiver.calls == [], "nothing is called before the caller has the exchange"
    time.advance(10)
    assert receiver.calls == [(0, 200), (1, b"a"), (1, b"b"), (3, b"c"), (3, None)]
    assert time.armed == 0


def test_a_pause_puts_the_rest_off() -> None:
    time, receiver, exchange = play()
    time.advance(2)
    exchange.pause_reading()
    exchange.pause_reading()
    time.advance(5)
    assert receiver.calls[-1] == (1, b"b")
    exchange.resume_reading()
    exchange.resume_reading()
    time.advance(0.5)
    assert receiver.calls[-1] == (1, b"b")
    time.advance(1)
    assert receiver.calls[-2:] == [(8, b"c"), (8, None)]


def test_a_pause_before_the_first_byte_is_no_end() -> None:
    time, receiver, exchange = play()
    exchange.pause_reading()
    time.advance(5)
    assert receiver.calls == [(0, 200)]
    exchange.resume_reading()
    time.advance(10)
    assert receiver.calls[1:] == [(6, b"a"), (6, b"b"), (8, b"c"), (8, None)]


def test_pausing_and_resuming_within_one_moment_plays_nothing_twice() -> None:
    time, receiver, exchange = play()
    for _ in range(20):
        exchange.pause_reading()
        exchange.resume_reading()
        time.advance(0.3)
    assert [data for _, data in receiver.calls] == [200, b"a", b"b", b"c", None]


def test_a_receiver_may_pause_while_it_receives() -> None:
    time, receiver, exchange = play()
    receiver.pause_at = b"a"
    time.advance(2)
    assert receiver.calls[-1] == (1, b"a")
    exchange.resume_reading()
    time.advance(0.1)
    assert receiver.calls[-1][1] == b"b"


def test_a_receiver_that_pauses_at_the_last_byte_hears_of_the_end_later() -> None:
    time, receiver, exchange = play()
    receiver.pause_at = b"c"
    time.advance(10)
    assert receiver.calls[-1] == (3, b"c")
    exchange.resume_reading()
    assert receiver.calls[-1] == (10, None)


def test_closed_it_plays_no_more_and_never_ends() -> None:
    for moment in (0, 0.5, 1, 2, 3):
        time, receiver, exchange = play()
        time.advance(moment)
        had = list(receiver.calls)
        exchange.close()
        exchange.close()
        exchange.resume_reading()
        time.advance(10)
        assert receiver.calls == had
        assert time.armed == 0


def test_the_demo_is_a_real_stream_in_order() -> None:
    name = get_provider("demo").recording
    recording = load_recording(name)
    assert recording is load_recording(name)
    times = [at for at, _ in recording.chunks]
    assert times == sorted(times)
    assert 0 < times[-1] < 10
    body = b"".join(data for _, data in recording.chunks)
    assert body.startswith(b"data: {")
    assert body.endswith(b"data: [DONE]\n\n")
