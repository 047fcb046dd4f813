"""One stream of a socket: its messages, its window, its end."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from gai_fast.kernels import Borrower
from gai_fast.model.errors import Error
from gai_fast.runtime.timers import TimerWheel
from gai_fast.server.http.replies import Reply, StreamHead
from gai_fast.server.websocket.formats import EVENTS
from gai_fast.server.websocket.stream import FRAMES, Canceller, SocketStream
from tests.limits import LIMITS
from tests.unit.fake_loop import FakeLoop
from tests.unit.kernels._pure.test_messages import messages
from tests.unit.server.streams import FakeStream

HIGH_WATER = 1000
LENDING = LIMITS.ack_steps * LIMITS.ack_step


class Socket:
    """The session of a socket."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.timers = TimerWheel(cast(Any, self.loop))
        self.is_paused = False
        self.is_draining = False
        self.remote = "192.0.2.1"
        self.written = b""
        self.pings = 0
        self.borrowers: list[Borrower] = []
        self.ends: list[int] = []
        self.finished = True

    def write(self, messages: bytes) -> None:
        self.take_back()
        self.written += messages

    answer = write

    def lend(self, borrower: Borrower) -> int:
        self.borrowers.append(borrower)
        return 7

    def take_back(self) -> None:
        while self.borrowers:
            self.borrowers.pop().end_writing()

    def ping(self) -> None:
        self.pings += 1

    def ended(self, stream: SocketStream, status: int) -> None:
        self.ends.append(status)

    def has_finished(self, stream_id: str) -> bool:
        return self.finished

    def take(self) -> list[Any]:
        written, self.written = self.written, b""
        return [json.loads(message) for message in messages(written)]


class Request:
    """As much of a request as its stream asks for."""

    def refusal(self, error: Error) -> Reply:
        return Reply(error.status, EVENTS.error_body(error, "r"))


def begun(socket: Socket, write_timeout: float = 10.0, high_water: int = HIGH_WATER) -> tuple[SocketStream, FakeStream]:
    stream, fake = SocketStream(socket, "a", b'{"stream":"a",'), FakeStream()
    stream.incoming = Request()
    stream.begin_stream(fake, high_water=high_water, write_timeout=write_timeout)
    assert stream.commit(StreamHead("text/event-stream", "r", "s")) == (b"", FRAMES)
    assert FRAMES.in_chunks
    return stream, fake


def delta(seq: int, size: int = 1) -> bytes:
    return b'event: text.delta\ndata: {"type":"text.delta","seq":%d,"text":"%b"}\n\n' % (seq, b"x" * size)


DONE = b'event: done\ndata: {"type":"done","finished":true}\n\n'


def test_frames_become_messages_until_the_answer_has_ended() -> None:
    socket = Socket()
    stream, fake = begun(socket)
    stream.write(delta(1) + delta(2))
    stream.log_frames(delta(3), 3)
    stream.write(b": ping\n")
    stream.write(b"")
    assert [each["seq"] for each in socket.take()] == [1, 2, 3]
    assert socket.pings == 1
    assert stream.remote == socket.remote
    stream.write(DONE)
    stream.answered(200)
    assert socket.take() == [{"stream": "a", "type": "done", "finished": True}]
    for late in (lambda: stream.write(delta(4)), stream.abort, stream.lose, lambda: stream.send(Reply(500, DONE))):
        late()
    assert (socket.take(), socket.ends, fake.calls) == ([], [200], [])


class Writer:
    """Writes to a borrowed socket, and says what it has written when the loan ends."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self.unnoted: list[tuple[int, int]] = []

    def borrow(self, *unnoted: tuple[int, int]) -> None:
        self.unnoted += unnoted
        assert self.stream.lend(self) == 7

    def end_writing(self) -> None:
        unnoted, self.unnoted = self.unnoted, []
        for last_seq, size in unnoted:
            self.stream.note_sent(last_seq, size)


def test_what_is_written_past_a_stream_counts_as_sent_before_what_comes_next() -> None:
    socket = Socket()
    stream, fake = begun(socket, high_water=LENDING)
    writer = Writer(stream)
    stream.log_frames(delta(1), 1)
    writer.borrow((40, 2 * LENDING))
    stream.log_frames(delta(41), 41)
    assert socket.borrowers == []
    stream.acknowledge(39)
    assert fake.calls == ["pause"]
    stream.acknowledge(40)
    assert fake.calls == ["pause", "resume"]


def test_an_acknowledgement_and_the_end_take_the_socket_back() -> None:
    socket = Socket()
    stream, fake = begun(socket, high_water=LENDING)
    Writer(stream).borrow((3, 2 * LENDING))
    stream.acknowledge(2)
    assert (socket.borrowers, fake.calls) == ([], ["pause"])
    assert stream.lend(Writer(stream)) == -1
    stream, _ = begun(socket, high_water=LENDING)
    Writer(stream).borrow()
    stream.write_messages(b"rest")
    assert (socket.borrowers, socket.written) == ([], b"rest")
    Writer(stream).borrow()
    stream.lose()
    assert socket.borrowers == []
    assert stream.lend(Writer(stream)) == -1
    stream, _ = begun(socket, high_water=LENDING - 1)
    assert stream.lend(Writer(stream)) == -1


@pytest.mark.parametrize("finished", [True, False])
def test_a_stream_of_which_nothing_is_left_is_reported_as_done(finished: bool) -> None:
    socket = Socket()
    socket.finished = finished
    begun(socket)[0].send(Reply(204))
    assert socket.take() == [{"stream": "a", "type": "done", "finished": finished}]
    assert socket.ends == [204]


def test_a_refusal_is_its_frames() -> None:
    socket = Socket()
    begun(socket)[0].send(Request().refusal(Error("not_found", "none")))
    error, done = socket.take()
    assert error["error"]["code"] == "not_found"
    assert done["finished"] is False
    assert socket.ends == [404]


def test_a_stream_that_broke_off_is_reported_unless_the_server_drains() -> None:
    for is_draining in (False, True):
        socket = Socket()
        socket.is_draining = is_draining
        begun(socket)[0].abort()
        assert [each["type"] for each in socket.take()] == ([] if is_draining else ["error", "done"])
        assert socket.ends == [499]


def test_a_client_that_leaves_is_reported_to_the_stream_once() -> None:
    socket = Socket()
    stream, fake = begun(socket)
    stream.lose()
    stream.lose()
    assert (fake.calls, socket.ends) == (["lost"], [499])


def test_the_socket_pauses_its_streams() -> None:
    socket = Socket()
    stream, fake = begun(socket)
    for is_paused in (True, True, False, False):
        socket.is_paused = is_paused
        stream.update_pause()
        assert stream.is_paused is is_paused
    assert fake.calls == ["pause", "resume"]
    socket.is_paused = True
    assert begun(socket)[0].is_paused


def test_of_an_acknowledged_stream_no_more_than_the_window_is_sent() -> None:
    socket = Socket()
    stream, fake = begun(socket)
    stream.acknowledge(0)
    stream.write(b"".join(delta(seq, 300) for seq in range(1, 6)))
    assert [each["seq"] for each in socket.take()] == [1, 2]
    assert fake.calls == ["pause"]
    stream.write(delta(6, 300) + DONE)
    stream.answered(200)
    assert socket.ends == []
    stream.acknowledge(1)
    assert [each["seq"] for each in socket.take()] == [3]
    stream.acknowledge(4)
    assert [each.get("seq") for each in socket.take()] == [4, 5, 6, None]  # `done` has no number
    assert socket.ends == [200]
    assert not len(socket.timers)


def test_an_event_that_is_larger_than_the_window_is_sent_alone() -> None:
    socket = Socket()
    stream, fake = begun(socket)
    stream.acknowledge(0)
    stream.write(delta(1, 5000) + delta(2))
    assert [each["seq"] for each in socket.take()] == [1]
    stream.acknowledge(1)
    assert [each["seq"] for each in socket.take()] == [2]
    assert fake.calls == ["pause", "resume"]


def test_an_acknowledgement_that_comes_late_bounds_what_follows() -> None:
    socket = Socket()
    stream, fake = begun(socket)
    for seq in range(1, 11):
        stream.write(delta(seq, 300))
    assert len(socket.take()) == 10
    stream.acknowledge(2)
    assert fake.calls == ["pause"]
    stream.write(delta(11))
    assert socket.take() == []
    stream.acknowledge(10)
    assert [each["seq"] for each in socket.take()] == [11]
    assert fake.calls == ["pause", "resume"]


def test_a_client_that_acknowledges_nothing_in_time_is_given_up() -> None:
    socket = Socket()
    stream, fake = begun(socket, write_timeout=3.0)
    stream.acknowledge(0)
    stream.write(b"".join(delta(seq, 300) for seq in range(1, 6)))
    socket.take()
    for _ in range(4):
        socket.loop.advance(1.0)
        stream.acknowledge(0)  # again: no progress
    error, done = socket.take()
    assert (error["error"]["code"], error["error"]["reason"]) == ("timeout", "ack")
    assert done["finished"] is False
    assert fake.calls == ["pause", "lost"]
    assert socket.ends == [408]


def test_a_cancel_that_finds_no_stream_ends_it_with_the_error() -> None:
    socket = Socket()
    stream, fake = begun(socket)
    canceller = Canceller(stream)
    canceller.begin_stream(fake, high_water=1, write_timeout=1)
    assert canceller.commit(StreamHead("", "", "")) == (b"", FRAMES)
    assert canceller.lend(cast(Any, None)) == -1
    canceller.send(Reply(202, b"{}"))
    assert socket.ends == []
    canceller.send(Request().refusal(Error("not_found", "none")))
    assert [each["type"] for each in socket.take()] == ["error", "done"]
    assert (fake.calls, socket.ends) == (["lost"], [404])
    for call in (lambda: canceller.write(b""), lambda: canceller.answered(200), canceller.abort):
        call()
