"""What `gai_fast.server.connection` relies on in aiohttp beyond its public interface.

A release of aiohttp that changes any of it fails here, with a name, and not in a stream.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import http_parser, web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from yarl import URL

from gai_fast.server.connection import _TOO_MANY_HEADERS

HEAD = b"POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Answer:
    """A reply that has nothing of aiohttp's."""

    def __init__(self, log: list[str], keep_alive: bool) -> None:
        self.log = log
        self.keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        self.log.append("prepare")

    async def write_eof(self, data: bytes = b"") -> None:
        self.log.append("write_eof")


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Handler(RequestHandler):
    """As `Connection`: a subclass, because instances have slots."""

    __slots__ = ("errors", "log")

    def handle_error(self, request: Any, status: int = 500, exc: Any = None, message: Any = None) -> Any:
        self.errors.append((status, exc, message))
        return Answer(self.log, False)


class Fixture:
    def __init__(self, **options: Any) -> None:
        self.log: list[str] = []
        self.requests: list[web.BaseRequest] = []
        self.errors: list[tuple[Any, ...]] = []
        self.server = web.Server(self.handle, access_log=None, **options)
        self.handler = Handler(self.server, loop=self.server._loop, **self.server._kwargs)
        self.handler.errors, self.handler.log = self.errors, self.log
        self.transport = FakeTransport()
        self.keep_alive = True
        self.gate = asyncio.Event()
        self.gate.set()

    async def handle(self, request: web.BaseRequest) -> Any:
        self.requests.append(request)
        await self.gate.wait()
        return Answer(self.log, self.keep_alive)

    async def __aenter__(self) -> Fixture:
        self.handler.connection_made(self.transport)
        await settle()
        return self

    async def __aexit__(self, *problem: object) -> None:
        self.gate.set()
        self.handler.connection_lost(None)
        await settle()


def test_the_version_is_the_range_that_is_relied_on() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '"aiohttp>=3.14.5,<3.15"' in project
    assert aiohttp.__version__.startswith("3.14.")


def test_the_parser_is_the_compiled_one() -> None:
    """The one in Python reads other things into a request."""
    assert http_parser.HttpRequestParser.__module__ == "aiohttp._http_parser"


def test_signatures() -> None:
    constructor = inspect.signature(RequestHandler.__init__).parameters
    assert [*constructor][:2] == ["self", "manager"]
    names = "loop keepalive_timeout access_log max_line_size max_headers max_field_size lingering_time auto_decompress"
    assert set(names.split()) <= constructor.keys()
    assert constructor["max_headers"].default == 128
    assert [*inspect.signature(RequestHandler.handle_error).parameters] == [
        "self",
        "request",
        "status",
        "exc",
        "message",
    ]
    assert [*inspect.signature(_ErrInfo).parameters] == ["status", "exc", "message"]
    assert [*inspect.signature(web.Server.__call__).parameters] == ["self"]
    assert [*inspect.signature(web.Server.shutdown).parameters] == ["self", "timeout"]
    factory = inspect.signature(web.BaseRequest.__init__).parameters
    assert [*factory][1:7] == ["message", "payload", "protocol", "payload_writer", "task", "loop"]
    assert "client_max_size" in factory


async def test_the_attributes_are_there_from_the_start() -> None:
    server = web.Server(Fixture.handle, access_log=None)  # type: ignore[arg-type]  # never called
    handler = server()
    assert handler._loop is asyncio.get_running_loop() is server._loop
    assert server._kwargs == {"access_log": None}
    assert handler._request_count == 0
    assert handler._current_request is handler._waiter is handler.transport is None
    assert handler._messages == deque()
    assert handler.writing_paused is False
    assert EMPTY_PAYLOAD.is_eof()


async def test_a_handler_may_return_any_object_that_can_prepare_and_write_eof() -> None:
    async with Fixture() as fixture:
        fixture.gate.clear()
        fixture.handler.data_received(HEAD + b"abc")
        await settle()
        assert fixture.handler._request_count == 1
        request = fixture.requests[0]
        assert request.protocol is fixture.handler
        assert request.transport is fixture.transport
        assert (request.method, request.raw_path, request.version) == ("POST", "/a?b", (1, 1))
        assert request.keep_alive
        assert await request.read() == b"abc"
        fixture.gate.set()
        await settle()
        assert fixture.log == ["prepare", "write_eof"]
        assert fixture.transport.written == b""
        assert not fixture.transport.closed


async def test_keep_alive_of_the_reply_decides_over_the_connection() -> None:
    async with Fixture() as fixture:
        fixture.keep_alive = False
        fixture.handler.data_received(HEAD + b"abc")
        await settle()
        assert fixture.transport.closed


async def test_waiter_current_request_and_messages_say_what_a_connection_is_at() -> None:
    async with Fixture() as fixture:
        handler = fixture.handler
        assert handler._waiter is not None
        fixture.gate.clear()
        handler.data_received(HEAD)
        assert (handler._request_count, len(handler._messages)) == (1, 1)
        await settle()
        assert handler._waiter is None
        assert handler._current_request is fixture.requests[0]
        assert not handler._messages
        assert not fixture.requests[0].content.is_eof()
        handler.data_received(b"abc")
        assert fixture.requests[0].content.is_eof()
        handler.data_received(HEAD + b"abc")
        assert (handler._request_count, len(handler._messages)) == (2, 1)
        fixture.gate.set()
        await settle()
        assert handler._current_request is None
        assert handler._waiter is not None


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"GET /" + b"a" * 200 + b" HTTP/1.1\r\n", LineTooLong, None),
        (b"GET / HTTP/1.1\r\nHost: " + b"a" * 300 + b"\r\n", LineTooLong, None),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", BadHttpMessage, _TOO_MANY_HEADERS),
        (b"\x00\r\n\r\n", BadHttpMessage, None),
    ],
)
async def test_what_cannot_be_parsed_comes_to_handle_error(data: bytes, kind: type, message: str | None) -> None:
    async with Fixture(max_line_size=100, max_field_size=200) as fixture:
        fixture.handler.data_received(data)
        assert isinstance(fixture.handler._messages[-1][0], _ErrInfo)
        await settle()
        ((status, exc, told),) = fixture.errors
        assert status == 400
        assert isinstance(exc, kind)
        if message is not None:
            assert told == message
        if isinstance(exc, LineTooLong):
            # Which of the two limits it was.
            assert exc.args[1] == (100 if b"GET /a" in data else 200)


async def test_an_error_of_ours_in_the_queue_is_answered() -> None:
    async with Fixture() as fixture:
        handler = fixture.handler
        problem = TimeoutError()
        handler._messages.append((_ErrInfo(408, problem, ""), EMPTY_PAYLOAD))
        assert handler._waiter is not None
        handler._waiter.set_result(None)
        await settle()
        assert fixture.errors == [(408, problem, "")]
        assert fixture.transport.closed


async def test_a_body_that_breaks_is_told_to_nobody_but_us() -> None:
    """When this fails aiohttp does it itself, and `Connection._end_broken_body` can go."""
    async with Fixture() as fixture:
        fixture.gate.clear()
        fixture.handler.data_received(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        await settle()
        fixture.handler.data_received(b"nonsense\r\n")
        content = fixture.requests[0].content
        assert isinstance(content, StreamReader)
        assert isinstance(fixture.handler._messages[-1][0], _ErrInfo)
        assert not content.is_eof()
        assert content.exception() is None
        content.set_exception(web.RequestPayloadError())
        with pytest.raises(web.RequestPayloadError):
            await fixture.requests[0].read()


async def test_a_body_at_the_limit_is_read_and_one_above_it_is_not() -> None:
    for size, fits in ((3, True), (2, False)):
        server = web.Server(Fixture.handle, access_log=None)  # type: ignore[arg-type]  # never called
        handler = server()
        reader = StreamReader(handler, 2**16, loop=asyncio.get_running_loop())
        reader.feed_data(b"abc")
        reader.feed_eof()
        url = URL("/")
        message: Any = http_parser.RawRequestMessage("POST", "/", (1, 1), {}, (), False, None, False, False, url)
        request = web.BaseRequest(message, reader, handler, None, None, server._loop, client_max_size=size)  # type: ignore[arg-type]
        if fits:
            assert await request.read() == b"abc"
        else:
            with pytest.raises(web.HTTPRequestEntityTooLarge):
                await request.read()


async def test_pausing_and_losing_reach_the_protocol() -> None:
    async with Fixture() as fixture:
        fixture.handler.pause_writing()
        assert fixture.handler.writing_paused
        fixture.gate.clear()
        fixture.handler.data_received(HEAD)
        await settle()
        draining = asyncio.ensure_future(fixture.requests[0].writer.drain())
        await settle()
        assert not draining.done()
        fixture.handler.resume_writing()
        await draining
        assert not fixture.handler.writing_paused


async def test_closing_and_shutting_down() -> None:
    async with Fixture() as fixture:
        fixture.server.pre_shutdown()
        fixture.handler.data_received(HEAD + b"abc")
        await settle()
        assert fixture.requests == []
        await fixture.server.shutdown(1.0)
        assert fixture.transport.closed
        assert fixture.handler.transport is None
