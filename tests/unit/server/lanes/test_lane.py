"""The lane's connection: order, limits, times, what its stream is called with, and the hand-over; without sockets."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.model.errors import Error
from gai_fast.model.settings import LimitSettings, ServerSettings
from gai_fast.net.logs.writer import HTTP_CHUNKS
from gai_fast.runtime.timers import TimerWheel
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.http.replies import Reply, StreamHead, error_reply
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.lanes.lane import FastLane, LaneConnection, LaneRoutes
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeTime
from tests.unit.server.incoming_requests import post
from tests.unit.server.streams import FakeStream
from tests.waiting import SECONDS

HEADER, BODY, WRITE = 10, 20, 40
"""Seconds that the fixture gives a client."""


A, B = post(b"a"), post(b"b")
IDLE = ServerSettings().keep_alive
STREAM = post(b"s", target="/s")
OTHER = b"GET /other HTTP/1.1\r\nHost: h\r\n\r\n"


NO_DESCRIPTOR = 1 << 24
"""No process has so many."""


class FakeSocket:
    def __init__(self) -> None:
        self.options: dict[int, int] = {}

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert level == socket.IPPROTO_TCP
        self.options[option] = value

    def fileno(self) -> int:
        return NO_DESCRIPTOR


class FakeTransport(asyncio.Transport):
    """Takes all that is written at once, but for what the test makes `unsent`."""

    def __init__(self) -> None:
        super().__init__()
        self.socket = FakeSocket()
        self.protocol: Any = None
        self.written = b""
        self.unsent = self.high = 0
        self.closed = self.aborted = self.eof = False
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"socket": self.socket, "peername": ("192.0.2.1", 9)}.get(name, default)

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += bytes(data)

    def write_eof(self) -> None:
        self.eof = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high or 0

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


class FakeLoop(FakeTime):
    def __init__(self) -> None:
        super().__init__()
        self.problems: list[dict[str, Any]] = []

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.problems.append(context)


class General(asyncio.Protocol):
    """The general server: notes its calls, in order."""

    def __init__(self, held: Callable[[], int]) -> None:
        self.calls: list[Any] = []
        self.data = b""
        self._held = held

    def connection_made(self, transport: Any) -> None:
        assert transport.protocol is self
        assert self._held() == 1, "one of both holds the connection at any time"
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        assert self._held() == 0
        self.calls.append("data")
        self.data += data

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return True

    def pause_writing(self) -> None:
        self.calls.append("pause")


class Fixture(LaneRoutes):
    """A connection whose routes answer with the request's target and body; `/s` is a stream."""

    def __init__(self, *, max_body: int = 100, refusal: Reply | None = None) -> None:
        self.loop = FakeLoop()
        self.handled: list[HTTPRequest] = []
        self.logged: list[tuple[str, int]] = []
        self.stream = FakeStream()
        self.refusal_of_head = refusal
        self.answer: Callable[[HTTPRequest], Reply | None] = self.echo
        self.lane = FastLane(
            self,
            frozenset(("/a", "/s")),
            self.make_general,
            timers=cast(Any, self.loop),
            loop=cast(Any, self.loop),
            keep_alive=IDLE,
            header_timeout=HEADER,
            body_timeout=BODY,
            write_timeout=WRITE,
            max_body=max_body,
            server_limits=ServerLimits(LimitSettings()),
        )
        self.general: General | None = None
        self.head_since: float | None = None
        self.connection = self.lane()
        self.transport = FakeTransport()
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)

    def make_general(self, head_since: float | None) -> General:
        assert self.general is None
        self.head_since = head_since
        self.general = General(lambda: len(self.lane.connections))
        return self.general

    # -- Routes --

    def refuse(self, http: HTTPRequest) -> Reply | None:
        return self.refusal_of_head

    def handle(self, http: HTTPRequest) -> Reply | None:
        self.handled.append(http)
        return self.answer(http)

    def refusal(self, http: HTTPRequest, error: Error) -> Reply:
        return error_reply(error, http.headers.get("x-request-id", "own"))

    def uploader(self, http: HTTPRequest) -> str:
        return http.headers.get("caller", "")

    def refuse_unreadable(self, remote: str, error: Error) -> Reply:
        self.logged.append((remote, error.status))
        return error_reply(error, "own", close=True)

    def ended(self, http: HTTPRequest, status: int) -> None:
        self.logged.append((http.target, status))

    # -- the test's side --

    def echo(self, request: HTTPRequest) -> Reply | None:
        if request.target == "/s":
            request.transport.begin_stream(self.stream, high_water=7, write_timeout=WRITE)
            return None
        return Reply(200, request.target.encode() + request.body)

    def feed(self, data: bytes) -> None:
        """Passes bytes on as the transport does: those after the hand-over are the general server's."""
        if self.transport.reading:
            self.transport.protocol.data_received(data)
            self.loop.advance(0)

    def send(self, data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
        """Returns the responses to these bytes."""
        self.feed(data)
        return self.taken()

    def taken(self) -> list[tuple[int, dict[str, str], bytes]]:
        data, self.transport.written = self.transport.written, b""
        responses = []
        while data:
            head, _, rest = data.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            size = int(headers.get("content-length", 0))
            responses.append((int(first.split()[1]), headers, rest[:size]))
            data = rest[size:]
        return responses

    def bodies(self, data: bytes) -> list[bytes]:
        return [body for _, _, body in self.send(data)]

    def refusal_sent(self) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Returns the one response that was sent, after which the connection reads no more."""
        ((status, headers, body),) = self.taken()
        assert headers["connection"] == "close"
        assert self.transport.eof
        assert not self.transport.closed, "closing at once would take the answer back"
        handled = len(self.handled)
        assert self.send(A) == []
        assert len(self.handled) == handled
        self.loop.advance(LIMITS.lingering)
        assert self.transport.aborted
        return status, headers, json.loads(body)["error"]

    def lose(self) -> None:
        self.transport.protocol.connection_lost(None)
        assert self.loop.armed == 0
        assert len(self.lane.connections) == 0


def begin_stream(fixture: Fixture, *headers: str) -> FakeStream:
    assert fixture.send(post(b"s", *headers, target="/s")) == []
    assert fixture.connection.stream is fixture.stream
    return fixture.stream


def handed_over(fixture: Fixture) -> General:
    """Returns the general server, which holds the connection alone."""
    assert fixture.general is not None
    assert fixture.transport.protocol is fixture.general
    assert fixture.loop.armed == 0
    assert len(fixture.lane.connections) == 0
    assert fixture.lane.connections.emptied.is_set()
    assert fixture.transport.reading
    return fixture.general


# ---- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_requests_are_answered_in_order_on_one_connection(size: int) -> None:
    fixture = Fixture()
    data = A + B + post(b"hello", "X-A: 1")
    answers = [body for at in range(0, len(data), size) for body in fixture.bodies(data[at : at + size])]
    assert answers + fixture.bodies(b"") == [b"/aa", b"/ab", b"/ahello"]
    assert fixture.logged == [("/a", 200)] * 3
    assert fixture.general is None
    assert not fixture.transport.closed
    fixture.lose()


def test_a_client_that_keeps_no_connection_is_reported_so() -> None:
    fixture = Fixture()
    ((status, headers, _),) = fixture.send(post(b"x", "Connection: close") + A)
    assert (status, headers["connection"]) == (200, "close")
    assert fixture.transport.closed
    assert not fixture.transport.aborted
    fixture.lose()


def test_a_stream_is_waited_for_and_no_more_is_read_ahead_than_allowed() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    assert fixture.send(post(b"x" * 100) * (LIMITS.read_ahead // 200)) == []
    assert fixture.transport.reading
    sent = LIMITS.read_ahead // 200
    while fixture.transport.reading:
        assert fixture.send(post(b"x" * 100)) == []
        sent += 1
    fixture.connection.answered(200)
    fixture.loop.advance(0)
    assert fixture.transport.reading
    assert len(fixture.taken()) == sent
    fixture.lose()


def test_no_more_is_read_ahead_from_a_client_that_takes_no_answer() -> None:
    """A key with three requests a minute sent 300 MiB in 0.6 s, and the server held them."""
    fixture = Fixture()
    fixture.feed(A)
    fixture.connection.pause_writing()
    one = post(b"x" * 100)
    sent = 0
    while fixture.transport.reading and sent <= 2 * LIMITS.read_ahead:
        fixture.feed(one)
        sent += len(one)
    assert LIMITS.read_ahead < sent <= LIMITS.read_ahead + len(one)
    assert len(fixture.handled) == 1
    fixture.connection.resume_writing()
    fixture.loop.advance(0)
    assert fixture.transport.reading
    assert len(fixture.handled) == 1 + sent // len(one)
    fixture.lose()


def test_a_request_that_its_head_refuses_is_answered_without_its_body() -> None:
    fixture = Fixture(refusal=error_reply(Error("unauthorized", "no"), "own"))
    fixture.feed(post(b"x", length=2))
    status, _, error = fixture.refusal_sent()
    assert (status, error["code"]) == (401, "unauthorized")
    assert fixture.logged == [("/a", 401)]
    fixture.lose()


def test_the_rest_of_a_large_request_is_read_once_the_answer_before_it_has_ended() -> None:
    fixture = Fixture(max_body=2 * LIMITS.read_ahead)
    begin_stream(fixture)
    large = post(b"x" * fixture.lane.max_body)
    fixture.feed(large[:-1])
    assert not fixture.transport.reading
    fixture.connection.answered(200)
    fixture.loop.advance(0)
    fixture.feed(large[-1:])
    assert [request.target for request in fixture.handled] == ["/s", "/a"]
    fixture.lose()


def test_a_client_that_takes_nothing_gets_no_further_answer() -> None:
    fixture = Fixture()
    fixture.connection.pause_writing()
    fixture.transport.unsent = 1
    assert fixture.send(A + B) == []
    fixture.transport.unsent = 0
    fixture.connection.resume_writing()
    assert fixture.bodies(b"") == [b"/aa", b"/ab"]


# ---- the hand-over ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_a_request_that_is_not_hot_is_handed_over_with_all_that_comes_behind_it(size: int) -> None:
    fixture = Fixture()
    data = A + OTHER + B
    for at in range(0, len(data), size):
        fixture.feed(data[at : at + size])
    assert [body for _, _, body in fixture.taken()] == [b"/aa"]
    general = handed_over(fixture)
    assert general.data == OTHER + B
    assert general.calls[:2] == ["made", "data"]
    assert fixture.transport.socket.options == {}
    fixture.connection.connection_lost(None)
    assert fixture.logged == [("/a", 200)]


def test_a_connection_is_handed_over_after_the_answer_that_is_under_way() -> None:
    fixture = Fixture()
    stream = begin_stream(fixture)
    fixture.feed(OTHER[:9])
    fixture.feed(OTHER[9:])
    assert fixture.general is None
    fixture.connection.answered(200)
    fixture.loop.advance(0)
    assert handed_over(fixture).data == OTHER
    assert stream.calls == []


def test_a_connection_whose_reading_was_paused_reads_again_when_it_is_handed_over() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    data = OTHER + b"x" * LIMITS.read_ahead
    fixture.feed(data)
    assert not fixture.transport.reading
    fixture.connection.answered(200)
    fixture.loop.advance(0)
    assert handed_over(fixture).data == data


def test_what_a_stream_has_set_on_the_connection_is_set_back() -> None:
    fixture = Fixture()

    def begin(request: HTTPRequest) -> None:
        request.transport.begin_stream(fixture.stream, high_water=7, write_timeout=1)

    fixture.answer = begin
    fixture.feed(STREAM + OTHER)
    assert fixture.transport.high == 7
    fixture.connection.answered(200)
    fixture.loop.advance(0)
    handed_over(fixture)
    assert fixture.transport.high == 0
    assert fixture.transport.socket.options == (
        {socket.TCP_USER_TIMEOUT: WRITE * 1000} if hasattr(socket, "TCP_USER_TIMEOUT") else {}
    )


def test_a_borrowed_socket_is_returned_before_the_hand_over() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    _, borrower = lend(fixture)
    fixture.feed(OTHER)
    assert borrower.is_writing
    fixture.connection.answered(200)
    fixture.loop.advance(0)
    handed_over(fixture)
    assert not borrower.is_writing


def test_a_client_that_has_ended_its_side_is_handed_over_with_that() -> None:
    fixture = Fixture()
    fixture.connection.data_received(A + OTHER)
    assert fixture.connection.eof_received()
    fixture.loop.advance(0)
    general = handed_over(fixture)
    assert general.calls == ["made", "data", "eof"]
    assert not fixture.transport.closed


def test_a_general_server_that_does_not_go_on_after_the_end_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    fixture = Fixture()
    fixture.connection.data_received(A + OTHER)
    fixture.connection.eof_received()
    monkeypatch.setattr(General, "eof_received", lambda self: None)
    fixture.loop.advance(0)
    assert fixture.transport.closed


REQUESTS = {
    "hot": A,
    "a stream": STREAM,
    "hot and the last": post(b"x", "Connection: close"),
    "a large body": post(b"x" * 100),
    "not hot": OTHER,
    "malformed": b"POST /a HTTP/1.1\r\nHost : h\r\n\r\n",
    "too large": post(b"x" * 101),
    "no HTTP": b"\x00\r\n\r\n",
    "incomplete": post(b"x", length=2),
}


@given(st.data())
def test_no_cut_changes_the_answers_nor_the_bytes_that_are_handed_over(data: st.DataObject) -> None:
    """The reads that the bytes come in, and the moments when streams end, make no difference."""
    names = data.draw(st.lists(st.sampled_from(sorted(REQUESTS)), min_size=1, max_size=5))
    sent = b"".join(REQUESTS[name] for name in names)
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=8).map(sorted))
    assert outcome(sent, cuts, data.draw(st.booleans())) == outcome(sent, [], False)


def outcome(sent: bytes, cuts: list[int], ends_streams_at_once: bool) -> Any:
    fixture = Fixture()
    answers: list[Any] = []

    def answer(request: HTTPRequest) -> Reply | None:
        answers.append((request.target, request.body))
        reply = fixture.echo(request)
        if ends_streams_at_once and reply is None:
            fixture.connection.answered(200)
        return reply

    fixture.answer = answer
    for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        if not fixture.transport.closed and start < stop:
            fixture.feed(sent[start:stop])
    while fixture.connection.stream is not None:
        fixture.connection.answered(200)
        fixture.loop.advance(0)
    bodies = [body for _, _, body in fixture.taken()]
    general = None if fixture.general is None else handed_over(fixture).data
    return answers, bodies, general, fixture.transport.closed, fixture.logged


# ---- a client that ends its side -------------------------------------------------------------------------------------


def test_requests_that_came_before_the_end_are_answered_and_then_the_connection_is_closed() -> None:
    fixture = Fixture()
    fixture.connection.data_received(A + B + A)
    assert fixture.connection.eof_received()
    assert not fixture.transport.closed
    fixture.loop.advance(0)
    assert [body for _, _, body in fixture.taken()] == [b"/aa", b"/ab", b"/aa"]
    assert fixture.transport.closed
    fixture.lose()


@pytest.mark.parametrize("sent", [b"", A, A + B])
def test_a_client_that_ends_its_side_with_nothing_to_answer_is_closed(sent: bytes) -> None:
    fixture = Fixture()
    fixture.feed(sent)
    assert not fixture.connection.eof_received(), "the transport closes"


@pytest.mark.parametrize("incomplete", [b"P", A[:9], post(b"x", length=2)])
@pytest.mark.parametrize("before", [b"", A, A + B])
def test_a_request_that_will_never_be_whole_is_handed_over(before: bytes, incomplete: bytes) -> None:
    fixture = Fixture()
    fixture.connection.data_received(before + incomplete)
    assert fixture.connection.eof_received()
    fixture.loop.advance(0)
    assert len(fixture.taken()) == before.count(b"POST")
    general = handed_over(fixture)
    assert general.data == incomplete
    assert general.calls == ["made", "data", "eof"]


def test_a_client_that_ends_its_side_during_a_stream_is_gone() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    assert not fixture.connection.eof_received()
    assert fixture.transport.aborted


def test_a_stream_that_would_begin_after_the_end_is_lost_at_once_and_what_was_answered_is_sent() -> None:
    fixture = Fixture()
    fixture.connection.data_received(A + B + STREAM)
    assert fixture.connection.eof_received()
    fixture.loop.advance(0)
    assert [body for _, _, body in fixture.taken()] == [b"/aa", b"/ab"]
    assert fixture.stream.calls == ["lost"]
    assert fixture.transport.closed
    assert not fixture.transport.aborted, "that would take back what is unsent"
    fixture.lose()
    assert fixture.stream.calls == ["lost"]
    assert fixture.logged[-1] == ("/s", 499)


def test_a_refused_client_that_ends_its_side_is_not_lingered_for() -> None:
    fixture = Fixture()
    fixture.answer = broken
    fixture.feed(A)
    assert fixture.transport.eof
    assert not fixture.connection.eof_received()


# ---- bugs ------------------------------------------------------------------------------------------------------------


def broken(request: HTTPRequest) -> Reply | None:
    request.request_id = "req-1"
    raise ZeroDivisionError("secret words")


def test_a_handler_that_raises_is_a_500_that_says_nothing() -> None:
    fixture = Fixture()
    fixture.answer = broken
    fixture.feed(A + B)
    status, headers, error = fixture.refusal_sent()
    assert (status, headers["x-request-id"], error["code"]) == (500, "req-1", "internal")
    assert headers["x-should-retry"] == "false"
    assert "secret" not in json.dumps(error)
    (problem,) = fixture.loop.problems
    assert isinstance(problem["exception"], ZeroDivisionError)
    assert fixture.logged == [("/a", 500)]
    fixture.lose()


def test_a_reply_that_cannot_be_written_is_a_500() -> None:
    fixture = Fixture()
    fixture.answer = lambda request: Reply(200, headers=[("x-a", "\r\n")])
    ((status, _, _),) = fixture.send(A)
    assert status == 500
    assert len(fixture.loop.problems) == 1


def test_a_stream_that_fails_to_begin_is_let_go() -> None:
    fixture = Fixture()

    def begin(request: HTTPRequest) -> Reply | None:
        fixture.echo(request)
        return broken(request)

    fixture.answer = begin
    ((status, _, _),) = fixture.send(STREAM)
    assert status == 500
    assert fixture.stream.calls == ["lost"]
    assert fixture.connection.stream is None


@pytest.mark.parametrize("is_over", [True, False])
def test_an_answer_is_never_followed_by_another(is_over: bool) -> None:
    fixture = Fixture()

    def begin(request: HTTPRequest) -> Reply | None:
        fixture.connection.write(b"HTTP/1.1 200 OK\r\n\r\n")
        if is_over:
            fixture.connection.answered(200)
        return broken(request)

    fixture.answer = begin
    assert len(fixture.send(A)) == 1
    assert fixture.transport.aborted
    assert len(fixture.loop.problems) == 1


# ---- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_learns_what_happens_to_its_client_until_it_has_ended() -> None:
    fixture = Fixture()
    stream = begin_stream(fixture)
    assert fixture.transport.high == 7
    assert fixture.connection.remote == "192.0.2.1"
    assert not fixture.connection.is_paused
    fixture.connection.pause_writing()
    assert fixture.connection.is_paused
    fixture.connection.resume_writing()
    fixture.connection.answered(200)
    fixture.connection.pause_writing()
    fixture.connection.resume_writing()
    fixture.lose()
    assert stream.calls == ["pause", "resume"]


def test_a_stream_learns_once_that_its_client_is_lost() -> None:
    fixture = Fixture()
    stream = begin_stream(fixture)
    fixture.send(A)
    fixture.lose()
    assert stream.calls == ["lost"]
    assert len(fixture.handled) == 1
    assert fixture.logged == [("/s", 499)]


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_stream_may_end_before_its_handler_returns(is_whole: bool) -> None:
    fixture = Fixture()

    def begin(request: HTTPRequest) -> Reply | None:
        fixture.echo(request)
        if is_whole:
            fixture.connection.send(Reply(502))
        else:
            fixture.connection.write(b"HTTP/1.1 502 Bad\r\n\r\n")
            fixture.connection.answered(502)
        fixture.answer = fixture.echo
        return None

    fixture.answer = begin
    assert [status for status, _, _ in fixture.send(STREAM + B)] == [502, 200]
    assert fixture.connection.stream is None
    assert fixture.logged == [("/s", 502), ("/a", 200)]


def test_an_answer_ends_once() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    fixture.connection.answered(200)
    fixture.connection.answered(200)
    fixture.connection.send(Reply(200, b"late"))
    fixture.connection.abort()
    assert not fixture.transport.aborted
    assert fixture.taken() == []
    assert fixture.logged == [("/s", 200)]


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_streams_head_says_how_its_body_and_the_connection_end(keep_alive: bool) -> None:
    fixture = Fixture()
    begin_stream(fixture, *([] if keep_alive else ["Connection: close"]))
    head, framing = fixture.connection.commit(StreamHead("text/event-stream", "r", "s"))
    assert framing is HTTP_CHUNKS
    assert b"\r\ntransfer-encoding: chunked\r\n" in head
    assert (b"\r\nconnection: close\r\n" in head) is not keep_alive


def test_a_stream_without_keep_alive_closes_and_its_last_bytes_are_watched() -> None:
    fixture = Fixture()
    begin_stream(fixture, "Connection: close")
    fixture.send(A)
    fixture.transport.unsent = 5
    fixture.connection.answered(200)
    assert fixture.transport.closed
    assert fixture.send(A) == []
    assert len(fixture.handled) == 1
    fixture.loop.advance(2 * WRITE)
    assert fixture.transport.aborted
    fixture.lose()


def test_a_model_of_its_own_patience_tells_the_kernel_so() -> None:
    fixture = Fixture()
    assert not fixture.transport.socket.options, "its own are inherited"
    fixture.connection.begin_stream(fixture.stream, high_water=1, write_timeout=0.5)
    assert fixture.transport.socket.options == (
        {socket.TCP_USER_TIMEOUT: 500} if hasattr(socket, "TCP_USER_TIMEOUT") else {}
    )


def test_of_a_lost_connection_nothing_is_left() -> None:
    fixture = Fixture()
    fixture.send(STREAM + A + post(b"x", length=2))
    fixture.lose()
    gc.disable()
    try:
        gone = weakref.ref(fixture.stream)
        fixture.stream = FakeStream()
        assert gone() is None
    finally:
        gc.enable()
    assert fixture.connection.answering is None
    fixture.connection.data_received(A)
    fixture.connection.resume_writing()
    assert fixture.loop.armed == 0


# ---- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [A[:5], A[:-6], A + B[:5]])
def test_a_head_that_is_late_is_a_408(sent: bytes) -> None:
    fixture = Fixture()
    fixture.feed(sent)
    fixture.taken()
    fixture.loop.advance(HEADER - 1)
    assert fixture.taken() == []
    fixture.loop.advance(1)
    status, _, error = fixture.refusal_sent()
    assert (status, error["reason"]) == (408, "header_timeout")
    assert fixture.logged[-1] == ("192.0.2.1", 408)
    fixture.lose()


def test_a_head_that_comes_by_drops_is_late_as_well() -> None:
    fixture = Fixture()
    fixture.send(A)
    for byte in A[:HEADER]:
        fixture.send(bytes([byte]))
        fixture.loop.advance(1)
    assert fixture.refusal_sent()[2]["reason"] == "header_timeout"


def test_the_first_head_is_due_from_the_beginning_of_its_connection() -> None:
    fixture = Fixture()
    fixture.loop.advance(HEADER - 1)
    fixture.feed(A[:5])
    fixture.loop.advance(1)
    assert fixture.refusal_sent()[2]["reason"] == "header_timeout"


@pytest.mark.parametrize("before", [b"", A])
def test_a_head_that_is_handed_over_incomplete_is_due_no_later(before: bytes) -> None:
    fixture = Fixture()
    fixture.feed(before + A[:5])
    began = fixture.loop.time()
    fixture.loop.advance(HEADER - 1)
    fixture.feed(b"/other HTTP/1.1\r\n")
    handed_over(fixture)
    assert fixture.head_since == began


def test_a_head_that_comes_behind_an_answer_has_its_whole_time_where_it_is_handed_over() -> None:
    fixture = Fixture()
    fixture.loop.advance(HEADER - 1)
    fixture.feed(A + OTHER[:5])
    handed_over(fixture)
    assert fixture.head_since is None


def test_a_client_that_never_sent_a_byte_is_closed_without_a_word() -> None:
    fixture = Fixture()
    fixture.loop.advance(HEADER - 1)
    assert not fixture.transport.closed
    fixture.loop.advance(1)
    assert fixture.transport.closed
    assert fixture.taken() == []
    assert fixture.logged == []


def test_a_body_that_is_late_is_a_408_in_the_shape_of_its_route_with_its_request_id() -> None:
    fixture = Fixture()
    fixture.feed(post(b"x", "X-Request-Id: mine", length=2))
    fixture.loop.advance(BODY - 1)
    assert fixture.taken() == []
    fixture.loop.advance(1)
    status, headers, error = fixture.refusal_sent()
    assert (status, error["reason"], headers["x-request-id"]) == (408, "body_timeout", "mine")
    assert fixture.logged == [("/a", 408)]


def test_a_bug_in_the_refusal_of_a_late_request_leaves_no_client_waiting() -> None:
    fixture = Fixture()

    def refusal(http: HTTPRequest, error: Error) -> Reply:
        raise RuntimeError("a bug")

    fixture.refusal = refusal
    fixture.feed(post(b"x", length=2))
    with pytest.raises(RuntimeError):
        fixture.loop.advance(BODY)
    assert fixture.loop.armed
    fixture.loop.advance(LIMITS.lingering)
    assert fixture.transport.closed
    fixture.lose()


def test_a_body_may_take_any_time_as_long_as_it_comes() -> None:
    fixture = Fixture(max_body=10**7)
    fixture.feed(post(length=20 * BODY * LIMITS.body_rate + 1))
    for _ in range(20):
        fixture.loop.advance(BODY - 1)
        fixture.feed(b"x" * BODY * LIMITS.body_rate)
    assert fixture.bodies(b"y")[0].startswith(b"/axxx")


def test_a_body_that_comes_by_drops_is_late() -> None:
    fixture = Fixture()
    fixture.feed(post(length=100))
    for _ in range(BODY + 1):
        fixture.feed(b"x")
        fixture.loop.advance(1)
    assert fixture.refusal_sent()[2]["reason"] == "body_timeout"


def test_an_idle_connection_is_closed_without_a_word() -> None:
    fixture = Fixture()
    fixture.send(A)
    fixture.loop.advance(IDLE - 1)
    assert not fixture.transport.closed
    fixture.loop.advance(1)
    assert fixture.transport.closed
    assert fixture.taken() == []


def test_a_request_does_not_set_a_timer_of_its_own() -> None:
    fixture = Fixture()
    for _ in range(100):
        fixture.send(A)
    assert fixture.loop.armed == 1
    fixture.lose()


def test_no_head_is_due_while_a_stream_runs_and_a_fresh_one_after_it() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    fixture.send(A[:5])
    fixture.loop.advance(10 * WRITE)
    assert not fixture.transport.closed, "a silent stream is no slow client"
    fixture.connection.answered(200)
    fixture.loop.advance(0)
    fixture.loop.advance(HEADER - 1)
    assert fixture.taken() == []
    assert fixture.bodies(A[5:]) == [b"/aa"]


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_takes_nothing_is_cut_off_after_the_write_timeout(streams: bool) -> None:
    fixture = Fixture()
    fixture.loop.advance(HEADER - 1)
    fixture.send(A)
    fixture.loop.advance(IDLE - 10)
    fixture.connection.data_received(STREAM if streams else A)
    fixture.connection.write(b"x" * 100)
    fixture.transport.unsent = 100
    fixture.loop.advance(WRITE - 1)
    assert not fixture.transport.aborted
    fixture.loop.advance(1 + WRITE / 4)
    assert fixture.transport.aborted
    fixture.lose()


def test_a_refusal_behind_an_answer_leaves_that_its_time() -> None:
    """The connection was cut off once the client had been lingered for."""
    fixture = Fixture()
    fixture.answer = lambda request: Reply(400, close=request.body == b"b")
    fixture.connection.data_received(A + B)
    fixture.loop.advance(0)
    assert [status for status, _, _ in fixture.taken()] == [400, 400]
    for fixture.transport.unsent in range(100, 0, -1):
        fixture.loop.advance(WRITE / 2)
        assert not fixture.transport.aborted
    fixture.transport.unsent = 0
    fixture.loop.advance(WRITE)
    assert fixture.transport.aborted
    fixture.lose()


def test_the_first_answer_has_its_whole_time_too() -> None:
    fixture = Fixture()
    fixture.loop.advance(HEADER - 1)
    fixture.connection.data_received(A)
    fixture.transport.unsent = len(fixture.transport.written)
    fixture.loop.advance(WRITE - 1)
    assert not fixture.transport.aborted
    fixture.loop.advance(1 + WRITE / 4)
    assert fixture.transport.aborted


def test_a_client_that_takes_one_byte_is_kept() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    fixture.connection.write(b"x" * 100)
    fixture.transport.unsent = 100
    for _ in range(20):
        fixture.loop.advance(WRITE / 2)
        fixture.transport.unsent -= 1
    assert not fixture.transport.aborted


def test_a_client_that_took_its_answer_late_is_idle_for_no_less_time() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    fixture.connection.write(b"x")
    fixture.transport.unsent = 1
    fixture.connection.answered(200)
    fixture.loop.advance(IDLE - WRITE)
    fixture.transport.unsent = 0
    fixture.loop.advance(WRITE - 1)
    assert not fixture.transport.closed
    fixture.loop.advance(2)
    assert fixture.transport.closed


# ---- the lane --------------------------------------------------------------------------------------------------------


def test_the_lane_counts_and_ends_the_connections_that_it_holds() -> None:
    fixture = Fixture()
    assert len(fixture.lane.connections) == 1
    assert not fixture.lane.connections.emptied.is_set()
    fixture.lane.connections.close()
    assert fixture.transport.closed
    assert not fixture.transport.aborted
    fixture.lane.connections.abort()
    assert fixture.transport.aborted
    fixture.lose()
    assert fixture.lane.connections.emptied.is_set()


def test_a_connection_that_was_closed_gives_no_more_answers() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    fixture.send(A)
    fixture.transport.close()
    fixture.connection.write(b"x")
    fixture.connection.answered(200)
    fixture.loop.advance(0)
    assert fixture.transport.written == b""
    assert len(fixture.handled) == 1
    fixture.lose()
    assert isinstance(fixture.connection, LaneConnection)


# ---- a socket that is lent -------------------------------------------------------------------------------------------


class Borrower:
    """Writes to the socket; what else is written then is written behind that."""

    def __init__(self) -> None:
        self.is_writing = True

    def end_writing(self) -> None:
        self.is_writing = False


def lend(fixture: Fixture) -> tuple[int, Any]:
    borrower: Any = Borrower()
    return fixture.connection.lend(borrower), borrower


def test_a_socket_is_lent_until_anybody_else_writes() -> None:
    fixture = Fixture()
    descriptor, borrower = lend(fixture)
    assert descriptor == NO_DESCRIPTOR
    assert borrower.is_writing
    fixture.connection.write(b"x")
    assert not borrower.is_writing
    assert fixture.transport.written == b"x"


def test_a_socket_is_lent_to_one_at_a_time() -> None:
    fixture = Fixture()
    (_, first), (_, second) = lend(fixture), lend(fixture)
    assert (first.is_writing, second.is_writing) == (False, True)


def test_a_socket_is_not_lent_while_bytes_are_unsent_or_it_is_closed() -> None:
    fixture = Fixture()
    fixture.transport.unsent = 1
    assert lend(fixture)[0] == -1
    fixture.transport.unsent = 0
    fixture.transport.close()
    assert lend(fixture)[0] == -1


def test_nobody_writes_to_the_socket_of_a_client_that_is_gone() -> None:
    fixture = Fixture()
    _, borrower = lend(fixture)
    fixture.connection.connection_lost(None)
    assert not borrower.is_writing


# ---- over real sockets, aiohttp behind it ----------------------------------------------------------------------------


async def test_aiohttp_goes_on_where_the_lane_hands_over() -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=f"{request.method} {request.path} ".encode() + await request.read())

    loop = asyncio.get_running_loop()
    fixture = Fixture()
    general = web.Server(answer)
    lane = FastLane(
        fixture,
        frozenset(("/a", "/s")),
        lambda head_since: general(),
        timers=TimerWheel(loop),
        loop=loop,
        keep_alive=IDLE,
        header_timeout=SECONDS,
        body_timeout=SECONDS,
        write_timeout=SECONDS,
        max_body=100,
        server_limits=ServerLimits(LimitSettings()),
    )
    listener = await loop.create_server(cast(Any, lane), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    data = A + B + OTHER + post(b"by aiohttp") + post(b"", "Connection: close")
    expected = [b"/aa", b"/ab", b"GET /other ", b"POST /a by aiohttp", b"POST /a "]
    try:
        async with asyncio.timeout(SECONDS):
            for cut in (len(data), *range(1, len(data), 17)):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(data[:cut])
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                writer.write(data[cut:])
                said = await reader.read()
                writer.close()
                bodies = []
                while said:
                    head = said.lower().partition(b"\r\n\r\n")[0]
                    assert head.startswith(b"http/1.1 200 ")
                    size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                    bodies.append(said[len(head) + 4 :][:size])
                    said = said[len(head) + 4 + size :]
                assert bodies == expected
            await asyncio.wait_for(lane.connections.emptied.wait(), SECONDS)
    finally:
        listener.close()
        lane.connections.abort()
        await general.shutdown(0)


# ---- the end of the server -------------------------------------------------------------------------------------------


def test_a_draining_server_answers_once_more_and_closes() -> None:
    fixture = Fixture()
    fixture.send(A)
    fixture.lane.begin_drain()
    assert not fixture.transport.closed
    ((status, headers, body),) = fixture.send(A)
    assert (status, headers["connection"], body) == (200, "close", b"/aa")
    assert fixture.transport.closed
    fixture.lose()


def test_a_draining_server_answers_all_that_a_connection_has_sent() -> None:
    fixture = Fixture()
    fixture.lane.begin_drain()
    answers = [*fixture.send(A * 3 + A[:-1]), *fixture.send(A[-1:])]
    assert [(status, headers.get("connection"), body) for status, headers, body in answers] == [
        *[(200, None, b"/aa")] * 3,
        (200, "close", b"/aa"),
    ]
    assert fixture.transport.closed
    fixture.lose()


@pytest.mark.parametrize("before", [b"", A])
def test_a_draining_server_closes_a_connection_that_stays_idle(before: bytes) -> None:
    fixture = Fixture()
    fixture.send(before)
    fixture.lane.begin_drain()
    fixture.loop.advance(LIMITS.drain_idle / 2)
    assert not fixture.transport.closed
    fixture.loop.advance(LIMITS.drain_idle / 2)
    assert fixture.transport.closed
    fixture.lose()


def test_a_draining_server_waits_for_a_stream_and_for_a_request_that_has_begun() -> None:
    streaming, sending = Fixture(), Fixture()
    begin_stream(streaming)
    sending.send(A[:-1])
    for fixture in (streaming, sending):
        fixture.lane.begin_drain()
        fixture.loop.advance(LIMITS.drain_idle)
        assert not fixture.transport.closed
    streaming.connection.answered(200)
    streaming.loop.advance(LIMITS.drain_idle)
    assert streaming.transport.closed, "its head did not say that no request may follow"
    ((status, headers, _),) = sending.send(A[-1:])
    assert (status, headers["connection"]) == (200, "close")
    streaming.lose()
    sending.lose()


def test_a_client_that_connects_to_a_draining_server_is_answered() -> None:
    fixture = Fixture()
    fixture.lane.begin_drain()
    connection = fixture.lane()
    fixture.transport = FakeTransport()
    fixture.transport.protocol = connection
    connection.connection_made(fixture.transport)
    ((status, headers, _),) = fixture.send(A)
    assert (status, headers["connection"]) == (200, "close")
    connection.connection_lost(None)
