"""One client connection: parsing, order, limits, times, and what its stream hears; without sockets."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import socket
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest

from gai_fast.errors import Error
from gai_fast.limits import LIMITS
from gai_fast.net.writer import HTTP_CHUNKS, PLAIN
from gai_fast.server import app
from gai_fast.server.connection import Connection, Server
from gai_fast.server.replies import Reply, StreamHead, error_reply
from gai_fast.server.request_reader import HTTPRequest
from tests.unit.net.fakes import FakeTime

HEADER, BODY, WRITE = 10, 20, 40
"""Seconds that the fixture gives a client."""

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
NEXT = b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n"


def post(body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    lines = ["POST /p HTTP/1.1", "Host: h", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*lines: str) -> bytes:
    return "\r\n".join(["POST /p HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", *lines]).encode() + b"\r\n\r\n"


class FakeSocket:
    def __init__(self) -> None:
        self.options: dict[int, int] = {}

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert level == socket.IPPROTO_TCP
        self.options[option] = value

    def fileno(self) -> int:
        return 7


class FakeTransport(asyncio.Transport):
    """Takes all that is written at once; what the test says is `unsent`."""

    def __init__(self) -> None:
        super().__init__()
        self.socket = FakeSocket()
        self.written = b""
        self.unsent = self.high = 0
        self.closed = self.aborted = self.eof = False
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" else default

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


class FakeStream:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def connection_lost(self) -> None:
        self.calls.append("lost")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


class Fixture:
    """A connection whose handler answers with the request's method, target and body; `/s` is a stream."""

    def __init__(self, *, refuse: Callable[[HTTPRequest], Reply | None] | None = None, max_body: int = 100) -> None:
        self.loop = FakeLoop()
        self.handled: list[HTTPRequest] = []
        self.logged: list[tuple[str, int]] = []
        self.stream = FakeStream()
        self.answer: Callable[[HTTPRequest], Reply | None] = self.echo
        self.server = Server(
            self.handle,
            refuse or (lambda request: None),
            lambda request, status: self.logged.append((request.target, status)),
            timers=cast(Any, self.loop),
            loop=cast(Any, self.loop),
            header_timeout=HEADER,
            body_timeout=BODY,
            write_timeout=WRITE,
            max_body=max_body,
        )
        self.connection = self.server()
        self.transport = FakeTransport()
        self.connection.connection_made(self.transport)

    def handle(self, request: HTTPRequest) -> Reply | None:
        self.handled.append(request)
        return self.answer(request)

    def echo(self, request: HTTPRequest) -> Reply | None:
        if request.target == "/s":
            request.connection.begin_stream(self.stream, high_water=7, write_timeout=WRITE)
            return None
        return Reply(200, f"{request.method} {request.target} ".encode() + request.body)

    def send(self, data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
        """The responses to these bytes."""
        self.connection.data_received(data)
        self.loop.advance(0)
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

    def refusal(self, data: bytes) -> tuple[int, str]:
        """The one response to these bytes, after which the connection hears no more."""
        ((status, headers, body),) = self.send(data)
        assert headers["connection"] == "close"
        self.assert_deaf()
        return status, json.loads(body)["error"]["reason"]

    def assert_deaf(self) -> None:
        handled = len(self.handled)
        assert self.transport.eof
        assert not self.transport.closed, "closing at once would take the answer back"
        assert self.send(GET) == []
        assert len(self.handled) == handled
        self.loop.advance(LIMITS.lingering)
        assert self.transport.aborted

    def lose(self) -> None:
        self.connection.connection_lost(None)
        assert self.loop.armed == 0


def begin_stream(fixture: Fixture, *headers: str) -> FakeStream:
    lines = "".join(f"{header}\r\n" for header in headers)
    assert fixture.send(GET.replace(b"/a", b"/s")[:-2] + lines.encode() + b"\r\n") == []
    assert fixture.connection.stream is fixture.stream
    return fixture.stream


# ---- requests --------------------------------------------------------------------------------------------------------

REQUESTS: dict[str, tuple[bytes, bytes]] = {
    "no body": (GET, b"GET /a "),
    "a length": (post(b"hello"), b"POST /p hello"),
    "no length": (post(), b"POST /p "),
    "chunks": (chunked() + b"3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\nTrailer: x\r\n\r\n", b"POST /p hello"),
    "no chunk": (chunked() + b"0\r\n\r\n", b"POST /p "),
    "an upgrade": (GET[:-2] + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"GET /a "),
    "an upgrade with a length": (post(NEXT, "Upgrade: h2c", "Connection: Upgrade"), b"POST /p " + NEXT),
    "an upgrade of no length": (post(b"", "Upgrade: h2c", "Connection: Upgrade"), b"POST /p "),
    "an upgrade with chunks": (
        chunked("Upgrade: h2c", "Connection: Upgrade") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(NEXT), NEXT),
        b"POST /p " + NEXT,
    ),
    "an upgrade without a chunk": (chunked("Upgrade: h2c", "Connection: Upgrade") + b"0\r\n\r\n", b"POST /p "),
    "no upgrade by half": (post(b"hello", "Upgrade: h2c"), b"POST /p hello"),
    "no upgrade by another name": (chunked("Upgrade: h2c", "Connection: upgrades") + b"0\r\n\r\n", b"POST /p "),
    "a CONNECT with a length": (post(NEXT).replace(b"POST", b"CONNECT"), b"CONNECT /p " + NEXT),
    "blank lines before": (b"\r\n\r\n" + GET, b"GET /a "),
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_a_request_is_the_same_however_it_is_cut_and_the_next_one_is_its_own(name: str, size: int) -> None:
    data, expected = REQUESTS[name]
    fixture = Fixture()
    data += NEXT
    answers = [body for at in range(0, len(data), size) for body in fixture.bodies(data[at : at + size])]
    assert answers == [expected, b"GET /b "]
    assert fixture.transport.reading
    assert not fixture.transport.closed
    fixture.lose()


def test_headers_are_joined_by_lower_case_names() -> None:
    fixture = Fixture()
    fixture.send(b"GET /a?b=%20 HTTP/1.1\r\nHost: h\r\nX-A:  1 \r\nx-a: 2\r\nX-B: \xe9\r\n\r\n")
    (request,) = fixture.handled
    assert request.headers == {"host": "h", "x-a": "1, 2", "x-b": "\xe9"}
    assert (request.method, request.target, request.is_http_1_1) == ("GET", "/a?b=%20", True)


def test_a_trailer_is_no_header() -> None:
    fixture = Fixture()
    fixture.send(chunked() + b"0\r\nHost: evil\r\n\r\n")
    assert fixture.handled[0].headers["host"] == "h"


def test_a_head_request_gets_the_length_without_the_body() -> None:
    fixture = Fixture()
    fixture.connection.data_received(GET.replace(b"GET", b"HEAD"))
    assert b"content-length: 8\r\n" in fixture.transport.written
    assert fixture.transport.written.endswith(b"\r\n\r\n")
    assert not fixture.transport.closed


@pytest.mark.parametrize(
    "data",
    [GET.replace(b"1.1", b"1.0"), GET[:-2] + b"Connection: close\r\n\r\n", GET[:-2] + b"Connection: x, Close\r\n\r\n"],
)
def test_a_client_that_keeps_no_connection_is_told_so(data: bytes) -> None:
    fixture = Fixture()
    ((status, headers, _),) = fixture.send(data + NEXT)
    assert (status, headers["connection"]) == (200, "close")
    assert fixture.transport.closed
    assert not fixture.transport.aborted
    assert fixture.logged == [("/a", 200)]
    fixture.lose()


# ---- heads that come again -------------------------------------------------------------------------------------------

AGAIN = {
    "the same": [post(b"one"), post(b"two"), post(b"three and more"), post(b"")],
    "a length in other digits": [post(b"one"), post(b"two").replace(b": 3", b": 003"), post(b"x" * 10)],
    "another case": [post(b"one"), post(b"two").replace(b"Content-Length", b"content-LENGTH"), post(b"two")],
    "blanks": [post(b"one").replace(b": 3", b":  \t3 "), post(b"two").replace(b": 3", b":  \t3 "), post(b"two")],
    "other headers": [post(b"one", "X-A: 1"), post(b"two", "X-A: 1"), post(b"two", "X-A: 2"), post(b"two")],
    "another method between": [post(b"one"), GET, post(b"two"), GET, GET, post(b"two")],
    "more than one": [post(b"one"), post(b"two") + post(b"three"), post(b"two") + GET, post(b"two")],
    "an empty line between": [post(b"one"), b"\r\n" + post(b"two"), b"\r\n", post(b"two"), post(b"two")],
    "a length that is none": [post(b"one"), post(b"two"), post(b"two").replace(b": 3", b": +3")],
    "a negative length": [post(b"one"), post(b"two"), post(b"two", length=-3)],
    "digits of another script": [post(b"one"), post(b"two"), post(b"two").replace(b": 3", b": \xd9\xa3")],
    "two lengths": [post(b"one"), post(b"two"), post(b"two", "Content-Length: 3")],
    "two lengths at first": [post(b"one", "Content-Length: 3"), post(b"one", "Content-Length: 3")],
    "a length in a value": [post(b"one", "X: content-length: 9"), post(b"one", "X: content-length: 9"), post(b"two")],
    "a body that is too large": [post(b"one"), post(b"two"), post(b"x" * 101)],
    "a length of a million digits": [
        post(b"one"),
        post(b"two"),
        post(b"two").replace(b": 3", b": " + b"0" * 10**6 + b"3"),
    ],
    "chunks": [chunked() + b"3\r\none\r\n0\r\n\r\n", chunked() + b"3\r\ntwo\r\n0\r\n\r\n", post(b"one")],
    "both framings": [post(b"one"), post(b"two"), post(b"two", "Transfer-Encoding: chunked")],
    "an expectation": [post(b"one", "Expect: 100-continue"), post(b"two", "Expect: 100-continue")],
    "an upgrade": [post(b"one", "Connection: upgrade", "Upgrade: h2c")] * 3,
    "the last one": [post(b"one"), post(b"two"), post(b"two", "Connection: close"), post(b"two")],
    "HTTP/1.0": [post(b"one").replace(b"1.1", b"1.0"), post(b"two")],
    "a long head": [post(b"one", "X: " + "x" * LIMITS.known_head)] * 3,
}


@pytest.mark.parametrize("requests", AGAIN.values(), ids=AGAIN.keys())
def test_a_head_that_comes_again_is_taken_as_it_was_at_first(requests: list[bytes]) -> None:
    whole, cut = Fixture(), Fixture()
    for request in requests:
        # What comes in two reads is always parsed.
        said = cut.send(request[:1]) + cut.send(request[1:])
        assert without_dates(whole.send(request)) == without_dates(said)
    assert [told(request) for request in whole.handled] == [told(request) for request in cut.handled]
    assert (whole.transport.closed, whole.transport.eof) == (cut.transport.closed, cut.transport.eof)
    assert whole.connection._wait is cut.connection._wait


def told(request: HTTPRequest) -> tuple[Any, ...]:
    facts = request.method, request.target, request.headers, request.body, request.is_http_1_1, request.keep_alive
    return (*facts, request.is_welcome)


def without_dates(said: list[tuple[int, dict[str, str], bytes]]) -> list[Any]:
    volatile = {"date", "x-request-id", "request-id"}
    return [
        (status, {k: v for k, v in headers.items() if k not in volatile}, b"" if status >= 400 else body)
        for status, headers, body in said
    ]


def test_a_head_that_comes_again_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Fixture()
    client.send(post(b"one"))
    client.send(post(b"two"))
    monkeypatch.setattr(client.connection, "_parser", None)
    assert client.bodies(post(b"and three")) == [b"POST /p and three"]


def test_with_a_head_no_body_is_kept() -> None:
    client = Fixture()
    for _ in range(3):
        client.send(post(b"body"))
    known = client.connection._known
    assert known is not None
    assert known._request.body == b""


# ---- order -----------------------------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_their_order() -> None:
    fixture = Fixture()
    assert fixture.bodies(GET + post(b"x") + NEXT) == [b"GET /a ", b"POST /p x", b"GET /b "]


def test_a_stream_is_waited_for_and_no_more_is_read_than_may_wait() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    assert fixture.send(GET * LIMITS.pipelined) == []
    assert fixture.transport.reading
    assert fixture.send(NEXT) == []
    assert not fixture.transport.reading
    fixture.connection.answered(200)
    assert fixture.bodies(b"") == [b"GET /a "] * LIMITS.pipelined + [b"GET /b "]
    assert fixture.transport.reading
    assert fixture.logged[0] == ("/s", 200)
    fixture.lose()


def test_no_more_bytes_wait_than_one_body_may_have() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    fixture.send(post(b"x" * 100))
    assert fixture.transport.reading
    fixture.send(post(b"x"))
    assert not fixture.transport.reading
    fixture.connection.answered(200)
    fixture.loop.advance(0)
    assert fixture.transport.reading
    assert len(fixture.taken()) == 2


def test_a_client_that_takes_nothing_gets_no_further_answer() -> None:
    fixture = Fixture()
    fixture.connection.pause_writing()
    fixture.transport.unsent = 1
    assert fixture.send(GET + NEXT) == []
    fixture.transport.unsent = 0
    fixture.connection.resume_writing()
    assert fixture.bodies(b"") == [b"GET /a ", b"GET /b "]


def test_what_is_no_request_is_told_after_what_was_asked_before() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    assert fixture.send(NEXT + b"\x00\r\n\r\n") == []
    assert fixture.transport.reading
    fixture.connection.answered(200)
    (_, _, first), (status, _, _) = fixture.send(b"")
    assert (first, status) == (b"GET /b ", 400)
    fixture.assert_deaf()


# ---- refusals --------------------------------------------------------------------------------------------------------

MANY = b"GET /a HTTP/1.1\r\n%b\r\n" % b"".join(b"x-%d: a\r\n" % n for n in range(LIMITS.request_headers + 1))
LARGE = b"GET /a HTTP/1.1\r\n%b\r\n" % b"".join(b"x-%d: %b\r\n" % (n, b"a" * 8000) for n in range(9))

REFUSED: dict[str, tuple[bytes, int, str]] = {
    "no HTTP": (b"\x00\r\n\r\n", 400, "http"),
    "a long target": (b"GET /" + b"a" * LIMITS.request_line, 414, "uri_too_long"),
    "many headers": (MANY, 431, "headers_too_large"),
    "a large header": (GET[:-2] + b"x: " + b"a" * LIMITS.header_field + b"\r\n\r\n", 431, "headers_too_large"),
    "large headers": (LARGE, 431, "headers_too_large"),
    "a header without an end": (GET[:-2] + b"x: " + b"a" * LIMITS.request_head, 431, "headers_too_large"),
    "many trailers": (chunked() + b"0\r\n" + MANY[17:], 431, "headers_too_large"),
    "a large body": (post(length=101), 413, "max_body"),
    "a length of many digits": (post(length=10**18), 413, "max_body"),
    "a large chunk": (chunked() + b"65\r\n" + b"a" * 101, 413, "max_body"),
    "a large body of an upgrade": (
        chunked("Upgrade: h2c", "Connection: Upgrade") + b"65\r\n" + b"a" * 101,
        413,
        "max_body",
    ),
    "no chunk of an upgrade": (chunked("Upgrade: h2c", "Connection: Upgrade") + b"x\r\n", 400, "http"),
    "no chunk": (chunked() + b"x\r\n", 400, "http"),
    "chunks without data": (
        chunked("Upgrade: h2c", "Connection: Upgrade") + b"1;" + b"a" * LIMITS.request_head,
        400,
        "http",
    ),
    "another coding": (chunked().replace(b"chunked", b"gzip, chunked"), 400, "http"),
    "no coding": (chunked().replace(b"chunked", b""), 400, "http"),
    "a length and a coding": (post(b"", "Transfer-Encoding: chunked"), 400, "http"),
    "two lengths": (post(b"", "Content-Length: 1"), 400, "http"),
    "an expectation": (post(b"x", "Expect: something"), 417, "expect"),
    "another version": (b"GET /a HTTP/2.0\r\nHost: h\r\n\r\n", 505, "http_version"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_what_is_refused_is_told_once_and_nothing_after_it_is_a_request(name: str, size: int) -> None:
    data, status, reason = REFUSED[name]
    fixture = Fixture()
    *before, last = [data[at : at + size] for at in range(0, len(data), size)]
    for piece in before:
        fixture.connection.data_received(piece)
    assert fixture.refusal(last) == (status, reason)
    assert fixture.handled == []
    fixture.lose()


def test_as_many_and_as_large_headers_as_allowed_are_taken() -> None:
    fixture = Fixture()
    lines = MANY.split(b"\r\n")
    assert fixture.send(b"\r\n".join(lines[: LIMITS.request_headers + 1]) + b"\r\n\r\n")[0][0] == 200
    assert fixture.send(GET[:-2] + b"x: " + b"a" * (LIMITS.header_field - 1) + b"\r\n\r\n")[0][0] == 200
    assert fixture.send(b"GET /" + b"a" * (LIMITS.request_line - 1) + b" HTTP/1.1\r\nHost: h\r\n\r\n")[0][0] == 200
    assert fixture.send(post(b"x" * 100))[0][0] == 200


def early(request: HTTPRequest) -> Reply | None:
    if request.target == "/p":
        return error_reply(Error("not_found", reason="route"), "r", close=True)
    return None


def test_a_body_is_not_waited_for_where_the_head_is_reason_enough() -> None:
    fixture = Fixture(refuse=early)
    assert fixture.refusal(post(b"x", length=2)) == (404, "route")
    fixture = Fixture(refuse=early)
    assert fixture.refusal(post(b"", "Expect: 100-continue", length=2)) == (404, "route")
    fixture = Fixture(refuse=early)
    assert fixture.bodies(post(b"xy")) == [b"POST /p xy"], "what is whole is answered, and the connection kept"


def test_a_head_is_looked_at_once() -> None:
    seen: list[str] = []
    fixture = Fixture(refuse=lambda request: seen.append(request.target))
    for byte in post(b"hello"):
        fixture.send(bytes([byte]))
    assert seen == ["/p"]


def test_a_client_that_asks_whether_to_go_on_is_told() -> None:
    fixture = Fixture()
    fixture.connection.data_received(post(b"", "Expect: 100-Continue", length=2))
    assert fixture.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    fixture.transport.written = b""
    assert fixture.bodies(b"xy") == [b"POST /p xy"]
    begin_stream(fixture)
    assert fixture.send(post(b"", "Expect: 100-continue", length=2)) == [], "not in the middle of another answer"
    old = Fixture()
    assert old.send(post(b"", "Expect: x", length=2).replace(b"1.1", b"1.0")) == [], "HTTP/1.0 has no expectations"


# ---- bugs ------------------------------------------------------------------------------------------------------------


def broken(request: HTTPRequest) -> Reply | None:
    request.request_id = "req-1"
    raise ZeroDivisionError("secret words")


def test_a_handler_that_raises_is_a_500_that_says_nothing() -> None:
    fixture = Fixture()
    fixture.answer = broken
    ((status, headers, body),) = fixture.send(GET + NEXT)
    assert (status, headers["connection"], headers["x-request-id"]) == (500, "close", "req-1")
    assert headers["x-should-retry"] == "false"
    assert json.loads(body)["error"]["code"] == "internal"
    assert b"secret" not in body
    (problem,) = fixture.loop.problems
    assert isinstance(problem["exception"], ZeroDivisionError)
    assert fixture.logged == [("/a", 500)]
    fixture.assert_deaf()
    fixture.lose()


def test_a_reply_that_cannot_be_written_is_a_500() -> None:
    fixture = Fixture()
    fixture.answer = lambda request: Reply(200, headers=[("x-a", "\r\n")])
    ((status, _, _),) = fixture.send(GET)
    assert status == 500
    assert len(fixture.loop.problems) == 1


def test_a_stream_that_fails_to_begin_is_let_go() -> None:
    fixture = Fixture()

    def begin(request: HTTPRequest) -> Reply | None:
        fixture.echo(request)
        return broken(request)

    fixture.answer = begin
    ((status, _, _),) = fixture.send(GET.replace(b"/a", b"/s"))
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
    assert len(fixture.send(GET)) == 1
    assert fixture.transport.aborted
    assert len(fixture.loop.problems) == 1


# ---- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_hears_what_happens_to_its_client_until_it_has_ended() -> None:
    fixture = Fixture()
    stream = begin_stream(fixture)
    assert fixture.transport.high == 7
    assert not fixture.connection.is_paused
    fixture.connection.pause_writing()
    assert fixture.connection.is_paused
    fixture.connection.resume_writing()
    fixture.connection.answered(200)
    fixture.connection.pause_writing()
    fixture.connection.resume_writing()
    fixture.lose()
    assert stream.calls == ["pause", "resume"]


def test_a_stream_hears_that_its_client_is_lost_once() -> None:
    fixture = Fixture()
    stream = begin_stream(fixture)
    fixture.send(NEXT)
    fixture.lose()
    assert stream.calls == ["lost"]
    assert len(fixture.handled) == 1


def test_a_client_that_half_closes_during_a_stream_is_gone() -> None:
    fixture = Fixture()
    fixture.send(GET)
    fixture.connection.eof_received()
    assert not fixture.transport.aborted
    begin_stream(fixture)
    fixture.connection.eof_received()
    assert fixture.transport.aborted


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
    assert [status for status, _, _ in fixture.send(GET.replace(b"/a", b"/s") + NEXT)] == [502, 200]
    assert fixture.connection.stream is None
    assert fixture.logged == [("/s", 502), ("/b", 200)]


def test_a_stream_without_keep_alive_closes_and_its_last_bytes_are_watched() -> None:
    fixture = Fixture()
    begin_stream(fixture, "Connection: close")
    fixture.send(NEXT)
    fixture.transport.unsent = 5
    fixture.connection.answered(200)
    assert fixture.transport.closed
    assert fixture.send(GET) == []
    assert len(fixture.handled) == 1
    fixture.loop.advance(2 * WRITE)
    assert fixture.transport.aborted
    fixture.lose()


@pytest.mark.parametrize("is_http_1_1", [True, False])
def test_a_streams_head_says_how_its_body_and_the_connection_end(is_http_1_1: bool) -> None:
    fixture = Fixture()
    request = GET.replace(b"/a", b"/s")
    assert fixture.send(request if is_http_1_1 else request.replace(b"1.1", b"1.0")) == []
    head, framing = fixture.connection.commit(StreamHead("text/event-stream", "r", "s"))
    assert (b"\r\ntransfer-encoding: chunked\r\n" in head) is is_http_1_1
    assert (b"\r\nconnection: close\r\n" in head) is not is_http_1_1
    assert framing is (HTTP_CHUNKS if is_http_1_1 else PLAIN)
    fixture.connection.answered(200)
    assert fixture.transport.closed is not is_http_1_1


def test_a_stream_does_not_keep_its_requests_body() -> None:
    fixture = Fixture()
    fixture.send(post(b"x" * 50).replace(b"/p", b"/s"))
    assert fixture.handled[0].body == b""


def test_a_model_of_its_own_patience_tells_the_kernel_so() -> None:
    fixture = Fixture()
    assert not fixture.transport.socket.options, "its own are inherited"
    fixture.connection.begin_stream(fixture.stream, high_water=1, write_timeout=0.5)
    assert fixture.transport.socket.options == (
        {socket.TCP_USER_TIMEOUT: 500} if hasattr(socket, "TCP_USER_TIMEOUT") else {}
    )


def test_of_a_lost_connection_nothing_is_left() -> None:
    fixture = Fixture()
    fixture.send(GET.replace(b"/a", b"/s") + NEXT + post(b"x", length=2))
    fixture.lose()
    gc.disable()
    try:
        gone = weakref.ref(fixture.stream)
        fixture.stream = FakeStream()
        assert gone() is None
    finally:
        gc.enable()
    assert fixture.connection.answering is None
    assert not fixture.server._open
    fixture.connection.data_received(GET)
    fixture.connection.resume_writing()
    assert fixture.loop.armed == 0


# ---- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", GET[:5], GET[:-1], GET + NEXT[:5]])
def test_a_head_that_is_late_is_a_408(sent: bytes) -> None:
    fixture = Fixture()
    fixture.send(sent)
    fixture.loop.advance(HEADER - 1)
    assert fixture.taken() == []
    fixture.loop.advance(1)
    assert fixture.refusal(b"") == (408, "header_timeout")
    fixture.lose()


def test_a_head_that_comes_by_drops_is_late_as_well() -> None:
    fixture = Fixture()
    fixture.send(GET)
    for byte in GET[:HEADER]:
        fixture.send(bytes([byte]))
        fixture.loop.advance(1)
    assert fixture.refusal(b"") == (408, "header_timeout")


@pytest.mark.parametrize("sent", [post(b"x", length=2), chunked() + b"1\r\nx\r\n"])
def test_a_body_that_is_late_is_a_408(sent: bytes) -> None:
    fixture = Fixture()
    fixture.send(sent)
    fixture.loop.advance(BODY - 1)
    assert fixture.taken() == []
    fixture.loop.advance(1)
    assert fixture.refusal(b"") == (408, "body_timeout")


def test_an_idle_connection_is_closed_without_a_word() -> None:
    fixture = Fixture()
    fixture.send(GET + b"\r\n")
    fixture.loop.advance(LIMITS.client_idle - 1)
    assert not fixture.transport.closed
    fixture.loop.advance(1)
    assert fixture.transport.closed
    assert fixture.taken() == []


def test_a_request_does_not_set_a_timer_of_its_own() -> None:
    fixture = Fixture()
    for _ in range(100):
        fixture.send(GET)
    assert fixture.loop.armed == 1
    fixture.lose()


def test_no_head_is_due_while_a_stream_runs_and_a_fresh_one_after_it() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    fixture.send(NEXT[:5])
    fixture.loop.advance(10 * WRITE)
    assert not fixture.transport.closed, "a silent stream is no slow client"
    fixture.connection.answered(200)
    fixture.loop.advance(HEADER - 1)
    assert fixture.taken() == []
    assert fixture.bodies(NEXT[5:]) == [b"GET /b "]


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_takes_nothing_is_cut_off_after_the_write_timeout(streams: bool) -> None:
    fixture = Fixture()
    fixture.loop.advance(HEADER - 1)
    fixture.send(GET)
    fixture.loop.advance(LIMITS.client_idle - 10)
    fixture.connection.data_received(GET.replace(b"/a", b"/s") if streams else GET)
    fixture.connection.write(b"x" * 100)
    fixture.transport.unsent = 100
    fixture.loop.advance(WRITE - 1)
    assert not fixture.transport.aborted
    fixture.loop.advance(1 + WRITE / 4)
    assert fixture.transport.aborted
    fixture.lose()


def test_the_first_answer_has_its_whole_time_too() -> None:
    fixture = Fixture()
    fixture.loop.advance(HEADER - 1)
    fixture.connection.data_received(GET)
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


def test_who_took_its_answer_late_is_idle_for_no_less_time() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    fixture.connection.write(b"x")
    fixture.transport.unsent = 1
    fixture.connection.answered(200)
    fixture.loop.advance(LIMITS.client_idle - WRITE)
    fixture.transport.unsent = 0
    fixture.loop.advance(WRITE - 1)
    assert not fixture.transport.closed
    fixture.loop.advance(2)
    assert fixture.transport.closed


def test_an_answer_that_is_not_taken_is_watched_before_the_connection_counts_as_idle() -> None:
    fixture = Fixture()
    fixture.send(GET)
    fixture.transport.unsent = 5
    fixture.loop.advance(WRITE + WRITE / 2)
    assert fixture.transport.aborted


# ---- the server ------------------------------------------------------------------------------------------------------


async def test_a_server_that_closes_gives_up_clients_that_take_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "LIMITS", dataclasses.replace(LIMITS, closing=0.02))
    fixture = Fixture()
    closing = asyncio.ensure_future(app.close_connections(fixture.server))
    await asyncio.sleep(0)
    assert fixture.transport.closed
    assert not fixture.transport.aborted
    while not fixture.transport.aborted:
        await asyncio.sleep(0.01)
    assert not closing.done()
    fixture.lose()
    await asyncio.wait_for(closing, 1)
    await app.close_connections(fixture.server)


async def test_a_connection_that_was_closed_gives_no_more_answers() -> None:
    fixture = Fixture()
    begin_stream(fixture)
    fixture.send(NEXT)
    fixture.transport.close()
    fixture.connection.write(b"x")
    fixture.connection.answered(200)
    fixture.loop.advance(0)
    assert fixture.transport.written == b""
    assert len(fixture.handled) == 1
    fixture.lose()
    assert isinstance(fixture.connection, Connection)


# ---- a socket that is lent -------------------------------------------------------------------------------------------


class Borrower:
    """Who writes to the socket; what else is written then is written behind that."""

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
    assert descriptor == 7
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
