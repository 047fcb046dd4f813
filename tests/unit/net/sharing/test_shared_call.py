"""`gai_fast/net/sharing/shared_call.py`: what a call logs, what its readers are given, and when it ends."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import StoreSettings
from gai_fast.net.sharing.shared_call import SharedCall, SharedReader, first_line, is_whole, last_line
from gai_fast.net.upstream.connection import Receiver
from gai_fast.stores import LogHeader, StreamLog
from gai_fast.stores._base import CALLS
from gai_fast.stores.memory import LogMemory
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeTime

HEADER = LogHeader("AbCdEfGhIjKlMnOpQrStUv", "answers anna", "m", CALLS, "ndjson")
ABOUT = {"provider": "openai", "upstream": "up", "id": "gpt"}


class FakeExchange:
    is_complete = False
    is_waiting = sent = resent = True

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def close(self) -> None:
        self.calls.append("close")


class Runner:
    """The answers, as a call sees them."""

    def __init__(self, time: FakeTime) -> None:
        self.timers = cast(Any, time)
        self.noted: list[str] = []
        self.is_shared = False
        self.elsewhere = float("inf")

    def look_elsewhere(self, log: StreamLog, found: Any) -> None:
        found(self.elsewhere)

    def may_drain(self) -> bool:
        return False

    def drained(self) -> None:
        raise AssertionError("none is")

    def failed(self, call: SharedCall) -> None:
        self.noted.append("failed")

    def kept(self, call: SharedCall) -> None:
        self.noted.append("kept")

    def ended(self, call: SharedCall) -> None:
        self.noted.append("ended")


class Stream(Receiver):
    """A receiver that notes what it is given."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.reader: SharedReader | None = None
        self.pauses_at: bytes | None = None

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        self.given.append((status, headers))

    def body_received(self, data: bytes) -> None:
        self.given.append(data)
        if data == self.pauses_at and self.reader is not None:
            self.reader.pause_reading()

    def exchange_ended(self, error: Error | None) -> None:
        self.given.append("end" if error is None else error)


class World:
    def __init__(self, **store: Any) -> None:
        self.time = FakeTime()
        self.memory = LogMemory(StoreSettings(**store), cast(Any, self.time))
        self.runner = Runner(self.time)
        self.exchange = FakeExchange()
        self.log = self.memory.create(HEADER)
        self.call = SharedCall(self.runner, "key", self.log, cast(Any, self.time))
        self.call.open(ABOUT, lambda _: self.exchange)

    def stream(self, *, is_local: bool = True, **options: Any) -> Stream:
        stream = Stream()
        call = self.call if is_local else None
        stream.reader = SharedReader(self.log, cast(Any, stream), call, cast(Any, self.time), **options)
        return stream

    def turn(self) -> None:
        self.time.advance(0.0)


@pytest.fixture
def world() -> World:
    return World()


def test_readers_are_given_what_comes_whenever_they_come(world: World) -> None:
    first = world.stream()
    world.turn()
    world.call.head_received(200, {"content-type": "text/event-stream", "set-cookie": "a"})
    world.call.body_received(b"one \xc3")
    world.call.body_received(b"\xa4")
    late = world.stream()
    world.turn()
    world.call.body_received(b"two")
    world.call.approve()
    world.call.exchange_ended(None)
    seen = [(200, {"content-type": "text/event-stream"}), b"one \xc3", b"\xa4", b"two", "end"]
    assert first.given == late.given == seen
    assert first_line(world.log).provider == "openai"
    assert is_whole(world.log)


def test_nothing_is_given_while_the_exchange_is_opened(world: World) -> None:
    world.call.head_received(200, {})
    stream = world.stream()
    assert stream.given == []
    world.turn()
    assert stream.given == [(200, {})]


def test_an_answer_is_kept_once_a_stream_has_finished_with_it(world: World) -> None:
    stream = world.stream()
    world.turn()
    world.call.head_received(200, {})
    world.call.approve()
    assert world.log.ending is None
    world.call.exchange_ended(None)
    assert world.log.ending is not None
    assert world.log.ending.state == "finished"
    assert world.runner.noted == ["ended", "kept"]
    assert stream.given[-1] == "end"


def test_an_answer_that_nobody_finished_with_is_not_kept(world: World) -> None:
    world.stream()
    world.turn()
    world.call.head_received(200, {})
    world.call.exchange_ended(None)
    assert world.log.ending is not None
    assert world.log.ending.state == "cancelled"
    assert world.runner.noted == ["ended", "failed"]


def test_the_failure_of_a_response_reaches_every_reader_with_its_cause(world: World) -> None:
    local, remote = world.stream(), world.stream(is_local=False)
    world.turn()
    problem = Error("internal", "broken")
    problem.__cause__ = ValueError("a bug")
    world.call.exchange_ended(problem)
    assert local.given[-1] is problem
    assert (remote.given[-1].code, str(remote.given[-1])) == ("internal", str(problem))
    assert world.runner.noted[0] == "failed"
    assert not is_whole(world.log)


def test_nobody_joins_a_refusal(world: World) -> None:
    world.stream()
    world.call.head_received(503, {})
    assert world.runner.noted == ["failed"]


def test_the_last_reader_that_leaves_ends_the_call(world: World) -> None:
    one, other = world.stream(), world.stream()
    world.turn()
    for stream in (one, other):
        assert world.exchange.calls.count("close") == 0
        assert stream.reader is not None
        stream.reader.close()
        stream.reader.close()
    assert world.exchange.calls.count("close") == 1
    assert world.runner.noted == ["ended", "failed"]
    world.turn()
    assert one.given == other.given == []


def test_a_call_goes_on_for_readers_of_other_processes(world: World) -> None:
    world.runner.elsewhere = 0.0
    stream = world.stream()
    assert stream.reader is not None
    stream.reader.close()
    assert world.log.ending is None
    world.runner.elsewhere = LIMITS.note_life + 1
    world.time.advance(LIMITS.note_life + 1)
    assert world.log.ending is not None


def test_an_answer_whose_end_is_known_is_kept_though_the_upstream_holds_it_open(world: World) -> None:
    stream = world.stream()
    world.turn()
    world.call.body_received(b"all")
    world.call.approve()
    assert stream.reader is not None
    stream.reader.close()
    assert world.runner.noted == ["ended", "kept"]
    assert last_line(world.log).ends
    assert world.exchange.calls[-1] == "close"


def test_a_slow_reader_leaves_the_rest_in_the_log(world: World) -> None:
    slow, other = world.stream(), world.stream()
    slow.pauses_at = b"one"
    world.turn()
    for data in (b"one", b"two", b"three"):
        world.call.body_received(data)
    assert slow.given == [b"one"]
    assert other.given == [b"one", b"two", b"three"]
    assert "pause" not in world.exchange.calls
    assert slow.reader is not None
    slow.reader.resume_reading()
    world.turn()
    assert slow.given == other.given
    world.call.body_received(b"four")
    assert slow.given[-1] == b"four"


def test_the_upstream_waits_while_all_readers_are_slow(world: World) -> None:
    one, other = world.stream(), world.stream()
    assert one.reader is not None
    assert other.reader is not None
    one.reader.pause_reading()
    assert world.exchange.calls[-1] == "resume"
    other.reader.pause_reading()
    assert world.exchange.calls[-1] == "pause"
    world.stream()
    assert world.exchange.calls[-1] == "resume"


def test_the_upstream_of_a_call_that_others_may_read_does_not_wait(world: World) -> None:
    world.runner.is_shared = True
    stream = world.stream()
    assert stream.reader is not None
    stream.reader.pause_reading()
    assert "pause" not in world.exchange.calls


def kept(world: World) -> None:
    """Keeps an answer with pauses of 1, 2 and 100 seconds."""
    world.stream()
    world.turn()
    world.time.advance(1.0)
    world.call.head_received(200, {"x-ratelimit-remaining-requests": "3", "openai-version": "1"})
    world.time.advance(2.0)
    world.call.body_received(b"one")
    world.call.body_received(b"two")
    world.time.advance(100.0)
    world.call.body_received(b"three")
    world.call.approve()
    world.call.exchange_ended(None)


def test_a_kept_answer_comes_at_once(world: World) -> None:
    kept(world)
    stream = world.stream(is_local=False, is_stale=True)
    world.turn()
    assert stream.given == [(200, {"openai-version": "1"}), b"one", b"two", b"three", "end"]


def test_a_kept_answer_comes_with_its_pauses_but_no_long_ones(world: World) -> None:
    kept(world)
    stream = world.stream(is_local=False, is_paced=True)
    counts = []
    for seconds in (0.0, 0.99, 0.02, 2.0, LIMITS.replay_gap - 0.1, 0.2):
        world.time.advance(seconds)
        counts.append(len(stream.given))
    assert counts == [0, 0, 1, 3, 3, 5]


def test_a_paced_answer_waits_for_its_client(world: World) -> None:
    kept(world)
    stream = world.stream(is_local=False, is_paced=True)
    world.time.advance(1.0)
    assert stream.reader is not None
    stream.reader.pause_reading()
    world.time.advance(500.0)
    assert len(stream.given) == 1
    stream.reader.resume_reading()
    world.time.advance(LIMITS.replay_gap + 2.0)
    assert stream.given[-1] == "end"


def test_a_log_that_was_trimmed_ends_a_late_reader() -> None:
    world = World(max_stream_bytes=8192)
    late = world.stream()
    assert late.reader is not None
    late.reader.pause_reading()
    for _ in range(100):
        world.call.body_received(b"x" * 1000)
    assert world.log.lost
    late.reader.resume_reading()
    world.turn()
    error = late.given[-1]
    assert (error.code, error.reason, error.status) == ("timeout", "slow_client", 408)
    world.call.approve()
    world.call.exchange_ended(None)
    assert "kept" not in world.runner.noted


def test_the_upstream_waits_for_a_reader_that_catches_up_and_would_lose_what_it_has_not_been_given() -> None:
    world = World(max_stream_bytes=2 * LIMITS.log_headroom)
    first = world.stream()
    world.turn()
    piece = b"x" * (LIMITS.follower_read // 2)
    for _ in range(28):
        world.call.body_received(piece)
    assert "pause" not in world.exchange.calls
    late = world.stream()
    assert world.exchange.calls[-1] == "pause"
    world.turn()
    assert world.exchange.calls[-1] == "resume"
    world.call.body_received(piece)
    assert first.given == late.given == [piece] * 29
    assert not world.log.lost


def late_reader(world: World) -> SharedReader:
    """Returns a reader of a log that drops its beginning with the next read of the upstream."""
    world.stream()
    world.turn()
    for _ in range(28):
        world.call.body_received(b"x" * (LIMITS.follower_read // 2))
    reader = world.stream().reader
    assert reader is not None
    assert world.exchange.calls[-1] == "pause"
    return reader


def test_a_reader_that_leaves_while_it_catches_up_holds_no_upstream_back() -> None:
    world = World(max_stream_bytes=2 * LIMITS.log_headroom)
    late_reader(world).close()
    assert world.exchange.calls[-1] == "resume"


def test_a_reader_that_catches_up_holds_the_upstream_back_for_short_pauses_only() -> None:
    world = World(max_stream_bytes=2 * LIMITS.log_headroom)
    reader = late_reader(world)
    reader.pause_reading()
    world.time.advance(0.6 * LIMITS.shared_patience)
    assert world.exchange.calls[-1] == "pause"
    reader.resume_reading()
    reader.pause_reading()
    world.time.advance(0.3 * LIMITS.shared_patience)
    assert world.exchange.calls[-1] == "pause"
    world.time.advance(0.2 * LIMITS.shared_patience)
    assert world.exchange.calls[-1] == "resume", "its pauses were too long in all: it is slow"
    reader.resume_reading()
    assert world.exchange.calls[-1] == "pause", "its client takes what it is given again"
    reader.pause_reading()
    assert world.exchange.calls[-1] == "resume"
    reader.close()
    world.time.advance(10.0)


def test_a_log_that_was_made_room_of_is_not_the_fault_of_a_client_that_is_not_slow() -> None:
    world = World()
    world.stream()
    world.turn()
    world.call.body_received(b"x" * 1000)
    late = world.stream(is_local=False)
    world.log.trim(0)
    world.turn()
    (error,) = late.given
    assert (error.code, error.reason) == ("network", "shared_call")


def test_readers_of_a_log_that_is_broken_off_end(world: World) -> None:
    stream = world.stream(is_local=False)
    world.turn()
    world.log.break_off(Error("internal", "the copy is damaged", reason="log_damaged"))
    assert [stream.given[-1].code, stream.given[-1].reason] == ["network", "shared_call"]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"7\n",
        b"[]\n",
        b'{"seq":9}\n',
        b'{"seq":9,"at":null}\n',
        b'{"seq":1,"at":0}\n',
        b'{"seq":9,"at":0,"status":"200"}\n',
        b'{"seq":9,"at":0,"status":200,"headers":[]}\n',
        b'{"seq":9,"at":0,"status":200,"headers":{"a":1}}\n',
        b'{"seq":9,"at":0,"data":7}\n',
        b'{"seq":9,"at":0,"base64":"?"}\n',
        b'{"seq":9,"at":0,"ends":true,"error":"no"}\n',
        b"\n",
    ],
)
@pytest.mark.parametrize("is_late", [False, True])
def test_a_line_that_cannot_be_read_ends_the_reader(world: World, line: bytes, is_late: bool) -> None:
    stream = world.stream(is_local=False)
    if not is_late:
        world.turn()
    world.log.append(line, 9)
    for _ in range(3):
        world.turn()
    assert [each.reason for each in stream.given] == ["shared_call"]
    assert not is_whole(world.log)


def test_a_request_that_cannot_be_made_ends_the_log() -> None:
    world = World()
    log = world.memory.create(HEADER._replace(stream_id="BbCdEfGhIjKlMnOpQrStUv"))
    call = SharedCall(world.runner, "other", log, cast(Any, world.time))

    def refuse(_: object) -> FakeExchange:
        raise Error("unsupported", "no place for this")

    with pytest.raises(Error):
        call.open(ABOUT, refuse)
    assert log.ending is not None
    assert log.ending.state == "failed"


def test_a_reader_that_does_not_count_keeps_no_call_alive(world: World) -> None:
    reading, counted = world.stream(counts=False), world.stream()
    world.turn()
    assert reading.reader is not None
    reading.reader.pause_reading()
    reading.reader.resume_reading()
    assert counted.reader is not None
    counted.reader.close()
    assert world.log.ending is not None
    world.turn()
    assert [each.reason for each in reading.given] == ["shared_call"]


def test_a_call_tells_whether_it_waits_and_is_complete(world: World) -> None:
    stream = world.stream()
    assert stream.reader is not None
    assert (stream.reader.is_waiting, stream.reader.is_complete) == (True, False)
    world.call.exchange_ended(None)
    assert (stream.reader.is_waiting, stream.reader.is_complete) == (False, True)


def test_a_request_that_was_written_twice_is_reported_to_the_stream_that_made_it(world: World) -> None:
    first, joined = world.stream(is_first=True), world.stream()
    for _ in range(2):
        assert first.reader is not None
        assert joined.reader is not None
        assert (first.reader.resent, joined.reader.resent) == (True, False)
        world.call.exchange_ended(None)
