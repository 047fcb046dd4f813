"""The bytes of a response, errors as responses, and what a connection tells its stream; without sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from gai_fast.errors import Error
from gai_fast.limits import LIMITS
from gai_fast.net.timers import TimerWheel
from gai_fast.server.connection import (
    Connection,
    Reply,
    Server,
    Written,
    error_headers,
    error_reply,
    head_bytes,
    id_headers,
    may_keep_alive,
)

GET = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"


def parsed(data: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


# ---- bytes -----------------------------------------------------------------------------------------------------------


def test_a_head_has_a_date_and_says_when_the_connection_ends() -> None:
    first, headers, _ = parsed(head_bytes(200, [("x-a", "1")], True))
    assert first == "HTTP/1.1 200 OK"
    assert headers.keys() == {"date", "x-a"}
    assert headers["date"].endswith(" GMT")
    assert parsedate_to_datetime(headers["date"])
    first, headers, _ = parsed(head_bytes(529, [], False))
    assert first == "HTTP/1.1 529 Error"
    assert headers["connection"] == "close"


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\x00", "é", "a\x7f", "\u2028"])
def test_a_header_that_would_break_out_of_its_line_is_an_error(value: str) -> None:
    with pytest.raises(ValueError, match="header 'x-a' cannot be written"):
        head_bytes(200, [("x-a", value)], True)


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_no_length(status: int) -> None:
    assert "content-length" not in parsed(Reply(status).to_bytes(keep_alive=True))[1]


def test_a_reply_has_the_length_of_its_body_also_where_that_is_not_sent() -> None:
    reply = Reply(200, b"body", [("content-type", "text/plain")])
    for head_only, body in ((False, b"body"), (True, b"")):
        _, headers, sent = parsed(reply.to_bytes(keep_alive=True, head_only=head_only))
        assert headers["content-length"] == "4"
        assert sent == body


def test_an_error_reply_tells_the_request_in_body_and_headers() -> None:
    reply = error_reply(Error("invalid_request", "no", reason="json"), "req-1")
    assert reply.status == 400
    assert json.loads(reply.body) == {
        "error": {
            "code": "invalid_request",
            "message": "no",
            "temporary": False,
            "reason": "json",
            "request_id": "req-1",
        }
    }
    headers = dict(reply.headers)
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"] == headers["request-id"] == "req-1"
    assert error_reply(Error("internal"), "r", b"own").body == b"own"


@pytest.mark.parametrize(
    ("error", "retry", "after"),
    [
        (Error("rate_limited", retry_after_ms=1), "true", ("1", "1")),
        (Error("rate_limited", retry_after_ms=1500), "true", ("2", "1500")),
        (Error("rate_limited", retry_after_ms=0), "true", ("0", "0")),
        (Error("rate_limited"), "true", None),
        (Error("rate_limited", temporary=False, retry_after_ms=1500), "false", None),
        (Error("invalid_request"), "false", None),
        (Error("internal"), "false", None),
        (Error("internal", phase="first_event"), None, None),
    ],
)
def test_retry_headers_say_what_the_error_says(error: Error, retry: str | None, after: tuple[str, str] | None) -> None:
    headers = dict(error_headers(error, "r"))
    assert headers.get("x-should-retry") == retry
    told = (headers["retry-after"], headers["retry-after-ms"]) if "retry-after" in headers else None
    assert told == after


def test_written_leaves_nothing_to_do() -> None:
    written = Written(True)
    assert (written.keep_alive, written.status) == (True, 200)


# ---- a connection ----------------------------------------------------------------------------------------------------


class FakeSocket:
    def __init__(self) -> None:
        self.options: dict[int, int] = {}
        self.family = socket.AF_INET
        self.proto = socket.IPPROTO_TCP

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if level == socket.IPPROTO_TCP:
            self.options[option] = value


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.socket = FakeSocket()
        self.written = b""
        self.closed = self.aborted = self.eof = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" else default

    def write(self, data: Any) -> None:
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
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class FakeStream:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def connection_lost(self) -> None:
        self.calls.append("lost")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


class Fixture:
    def __init__(self, **options: Any) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.handled = 0
        self.problem: Exception | None = None
        self.timers = TimerWheel(asyncio.get_running_loop(), tick=0.01)
        times = {"header_timeout": 0.05, "write_timeout": 0.05, "max_body": 100, **options}
        self.server = Server(self.handle, timers=self.timers, **times)
        connection = self.server()
        assert isinstance(connection, Connection)
        self.connection = connection
        self.transport = FakeTransport()

    async def handle(self, request: Any) -> Any:
        self.handled += 1
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return Reply(200, b"hello")

    async def __aenter__(self) -> Fixture:
        self.connection.connection_made(self.transport)
        await settle()
        return self

    async def __aexit__(self, *problem: object) -> None:
        self.gate.set()
        self.connection.connection_lost(None)
        await settle()
        assert len(self.timers) == 0

    async def answer(self, data: bytes) -> tuple[str, dict[str, str], bytes]:
        self.transport.written = b""
        self.connection.data_received(data)
        await settle()
        return parsed(self.transport.written)


async def test_a_request_is_handled_and_the_next_one_too() -> None:
    async with Fixture() as fixture:
        for _ in range(3):
            first, headers, body = await fixture.answer(GET)
            assert (first, body) == ("HTTP/1.1 200 OK", b"hello")
            assert "connection" not in headers
        assert fixture.handled == 3
        assert not fixture.transport.closed


async def test_the_head_timer_runs_only_while_a_head_is_due() -> None:
    async with Fixture() as fixture:
        assert len(fixture.timers) == 1
        await fixture.answer(GET)
        assert len(fixture.timers) == 0
        await fixture.answer(GET[:5])
        assert len(fixture.timers) == 1
        await fixture.answer(GET[5:])
        assert len(fixture.timers) == 0
        fixture.gate.clear()
        await fixture.answer(GET)
        await fixture.answer(GET[:5])
        assert len(fixture.timers) == 0, "while a request is being answered no head is due"


@pytest.mark.parametrize("sent", [b"", GET[:5]])
async def test_a_head_that_is_late_is_a_408_once(sent: bytes) -> None:
    async with Fixture() as fixture:
        if sent:
            await fixture.answer(sent)
        while not fixture.transport.written:
            await asyncio.sleep(0.01)
        first, headers, body = parsed(fixture.transport.written)
        assert first == "HTTP/1.1 408 Request Timeout"
        assert headers["connection"] == "close"
        assert json.loads(body)["error"]["reason"] == "header_timeout"
        assert fixture.transport.eof
        assert await fixture.answer(b"GARBAGE\r\n\r\n") == ("", {}, b"")


async def test_what_a_refused_client_still_sends_is_dropped_until_it_closes() -> None:
    async with Fixture() as fixture:
        first, headers, _ = await fixture.answer(b"\x00\r\n\r\n")
        assert first == "HTTP/1.1 400 Bad Request"
        assert headers["connection"] == "close"
        assert fixture.transport.eof
        assert not fixture.transport.closed
        assert await fixture.answer(GET) == ("", {}, b"")
        assert fixture.handled == 0


async def test_a_refused_client_that_does_not_close_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from gai_fast.server import connection

    monkeypatch.setattr(connection, "LIMITS", dataclasses.replace(LIMITS, lingering=0.01))
    async with Fixture() as fixture:
        await fixture.answer(b"\x00\r\n\r\n")
        while not fixture.transport.closed:
            await asyncio.sleep(0.01)


async def test_a_stream_hears_what_happens_to_its_client() -> None:
    async with Fixture() as fixture:
        stream = fixture.connection.stream = FakeStream()
        fixture.connection.pause_writing()
        fixture.connection.resume_writing()
        assert stream.calls == ["pause", "resume"]
    assert stream.calls == ["pause", "resume", "lost"]
    assert fixture.connection.stream is None


async def test_a_client_that_half_closes_during_a_stream_is_gone() -> None:
    async with Fixture() as fixture:
        fixture.connection.eof_received()
        assert not fixture.transport.aborted
        fixture.gate.clear()
        await fixture.answer(GET)
        fixture.connection.stream = FakeStream()
        fixture.connection.eof_received()
        assert fixture.transport.aborted


async def test_a_bug_is_a_500_that_says_nothing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with Fixture() as fixture:
        fixture.problem = ZeroDivisionError("secret words")
        first, headers, body = await fixture.answer(GET)
        assert first == "HTTP/1.1 500 Internal Server Error"
        assert json.loads(body)["error"]["code"] == "internal"
        assert b"secret" not in body
        assert headers["x-should-retry"] == "false"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.name == "gai_fast.server"


async def test_a_client_that_left_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    async with Fixture() as fixture:
        fixture.problem = ConnectionResetError("gone")
        await fixture.answer(GET)
    assert caplog.records == []


async def test_a_client_that_takes_no_reply_is_given_up() -> None:
    async with Fixture() as fixture:
        fixture.connection.pause_writing()
        await fixture.answer(GET * 2)
        assert fixture.handled == 1, "the second waits until the first answer has been taken"
        while not fixture.transport.aborted:
            await asyncio.sleep(0.01)


async def test_the_kernel_is_told_how_long_and_how_much_a_client_may_leave_unread() -> None:
    async with Fixture(write_timeout=7) as fixture:
        options = fixture.transport.socket.options
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert options[socket.TCP_USER_TIMEOUT] == 7000
            fixture.connection.limit_silence(0.5)
            assert options[socket.TCP_USER_TIMEOUT] == 500
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            assert options[socket.TCP_NOTSENT_LOWAT] == LIMITS.kernel_unsent


async def test_a_server_that_closes_gives_up_clients_that_take_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from gai_fast.server import connection

    monkeypatch.setattr(connection, "LIMITS", dataclasses.replace(LIMITS, closing=0.05))
    async with Fixture() as fixture:
        closing = asyncio.ensure_future(fixture.server.close())
        while not fixture.transport.aborted:
            await asyncio.sleep(0.01)
        fixture.connection.connection_lost(None)
        await asyncio.wait_for(closing, 1)


def test_only_http_1_1_keeps_its_connection() -> None:
    class Request:
        def __init__(self, keep_alive: bool, version: tuple[int, int]) -> None:
            self.keep_alive, self.version = keep_alive, version

    cases: Any = [(True, (1, 1), True), (False, (1, 1), False), (True, (1, 0), False)]
    for keep_alive, version, expected in cases:
        request: Any = Request(keep_alive, version)
        assert may_keep_alive(request) is expected
    assert id_headers("a") == [("x-request-id", "a"), ("request-id", "a")]
