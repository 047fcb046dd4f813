"""aiohttp's connection as `serve` uses it: time limits, refusals, and the order in which a connection ends."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, BadStatusLine, LineTooLong
from aiohttp.web_protocol import RequestHandler

from gai_fast.model.errors import Error
from gai_fast.model.settings import ServerSettings
from gai_fast.runtime.timers import TimerWheel
from gai_fast.server.http.replies import Reply, error_reply
from gai_fast.server.lanes import handler
from gai_fast.server.lanes.handler import ClientTimeouts, HandlerFactory, error_of
from gai_fast.server.observe.access_log import log_unreadable
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.waiting import SECONDS, until

GET = b"GET /plain HTTP/1.1\r\nHost: h\r\n\r\n"


class Site:
    def __init__(self, *, header: float = SECONDS, write: float = SECONDS) -> None:
        self.times = ClientTimeouts(header=header, write=write, idle=ServerSettings().keep_alive)
        self.app = web.Application()
        self.app.router.add_get("/plain", self.plain)
        self.app.router.add_get("/large", self.large)
        self.app.router.add_get("/last", self.last)
        self.app.router.add_get("/held", self.hold)
        self.app.router.add_get("/crash", self.crash)
        self.app.router.add_post("/body", self.body)
        self.bodies: list[str] = []
        self.held, self.release = asyncio.Event(), asyncio.Event()
        self.factory: HandlerFactory
        self.timers: TimerWheel
        self.address: Any

    async def plain(self, request: web.Request) -> web.Response:
        await asyncio.sleep(0.01)
        return web.Response(text="PLAIN")

    async def large(self, request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 8_000_000)

    async def last(self, request: web.Request) -> web.Response:
        response = web.Response(body=b"x" * 60_000)  # the transport takes it at once
        response.force_close()
        return response

    async def hold(self, request: web.Request) -> web.Response:
        self.held.set()
        await self.release.wait()
        return web.Response(text="HELD")

    async def crash(self, request: web.Request) -> web.Response:
        raise TypeError("canary77")

    async def body(self, request: web.Request) -> web.Response:
        try:
            while data := await request.content.readany():
                self.bodies.append(data.decode())
        except Exception as problem:
            self.bodies.append(type(problem).__name__)
            raise
        return web.Response(text="read")

    def refuse_unreadable(self, remote: str, error: Error) -> Reply:
        log_unreadable(remote, error.status, "our-id")
        return error_reply(error, "our-id", close=True)

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection(*self.address)
        return Client(reader, writer)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read(self, end: bytes | None = None) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await (self.reader.read() if end is None else self.reader.readuntil(end))

    async def error(self) -> tuple[int, str]:
        """Returns the status and reason of the only response, after which the connection ends."""
        head, _, body = (await self.read()).partition(b"\r\n\r\n")
        self.writer.close()
        assert b"connection: close" in head.lower()
        return int(head.split(b" ")[1]), json.loads(body)["error"].get("reason", "")


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    site.timers = TimerWheel(loop)
    runner = web.AppRunner(site.app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    assert runner.server is not None
    site.factory = HandlerFactory(runner.server, site.timers, site.times, site.refuse_unreadable)
    listener = await loop.create_server(site.factory, "127.0.0.1", 0)
    site.address = listener.sockets[0].getsockname()
    try:
        yield
    finally:
        listener.close()
        await runner.cleanup()
        site.factory.connections.abort()
        await asyncio.wait_for(site.factory.connections.emptied.wait(), SECONDS)
        assert len(site.timers) == 0


# ---- the parts of aiohttp --------------------------------------------------------------------------------------------


async def test_aiohttp_has_the_parts_that_are_used() -> None:
    site = Site()
    async with running(site):
        client = await site.connect()
        client.writer.write(GET)
        await client.read(b"PLAIN")
        (handler,) = site.factory.connections
        for name in ("_messages", "_waiter", "_current_request", "_close", "_force_close", "_parser"):
            assert hasattr(handler, name), name
        assert handler._waiter is not None, "idle"
        assert not handler._messages
        assert handler._current_request is None
        client.writer.close()
    for name in (
        "finish_response",
        "handle_error",
        "data_received",
        "eof_received",
        "connection_lost",
        "pause_writing",
    ):
        assert callable(getattr(RequestHandler, name)), name


@pytest.mark.parametrize(
    ("problem", "status", "reason"),
    [
        (LineTooLong(b"canary77", LIMITS.request_line), 414, "uri_too_long"),
        (LineTooLong(b"canary77", LIMITS.key_header), 431, "headers_too_large"),
        (BadHttpMessage("Too many headers received"), 431, "headers_too_large"),
        (BadHttpMessage("Missing 'Host' header in request."), 400, "host"),
        (BadStatusLine("canary77"), 400, "http"),
    ],
)
def test_the_parsers_errors_are_ours(problem: Any, status: int, reason: str) -> None:
    error = error_of(problem)
    assert (error.status, error.reason) == (status, reason)
    assert "canary77" not in str(error.payload())


def test_the_limits_of_targets_and_headers_differ() -> None:
    assert LIMITS.request_line != LIMITS.key_header, "the limit says which of them was passed"


async def test_the_parser_does_not_run_on_no_bytes_for_every_piece_of_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    site, fed = Site(), []
    feed = RequestHandler.data_received

    def count(handler: RequestHandler, data: bytes) -> None:
        fed.append(data)
        feed(handler, data)

    monkeypatch.setattr(RequestHandler, "data_received", count)
    async with running(site):
        client = await site.connect()
        client.writer.write(b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab")
        await client.read(b"read")
        client.writer.close()
    assert b"" not in fed


async def test_a_body_larger_than_the_buffers_is_read_to_its_end() -> None:
    site = Site()
    async with running(site):
        client = await site.connect()
        client.writer.write(b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n" + b"a" * 3_000_000)
        await client.read(b"read")
        client.writer.close()
    assert sum(map(len, site.bodies)) == 3_000_000


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"canary77\r\n\r\n", 400, "http"),
        (b"GET /canary77 HTTP/1.1\r\n\r\n", 400, "host"),
        (b"CONNECT canary77:443 HTTP/1.1\r\nHost: h\r\n\r\n", 400, "http"),
        (b"GET http://xn--/canary77 HTTP/1.1\r\nHost: h\r\n\r\n", 400, "http"),
        (b"GET http://xn--a/canary77 HTTP/1.1\r\nHost: h\r\n\r\n" + GET, 400, "http"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400, "host"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n", 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"/" * 18_000 + b"\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 200, 431, "headers_too_large"),
    ],
)
async def test_what_cannot_be_parsed_is_refused_and_logged_without_a_word_of_it(
    data: bytes, status: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Defect A21: refusals stood in no access log."""
    site = Site()
    async with running(site):
        client = await site.connect()
        with caplog.at_level(logging.INFO, "gai_fast.access"):
            client.writer.write(data)
            assert await client.error() == (status, reason)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "gai_fast.access"]
    assert line.startswith(f"127.0.0.1 - '-' {status} ")


async def test_a_client_that_still_sends_sees_why_it_is_refused() -> None:
    site = Site()
    async with running(site):
        client = await site.connect()
        client.writer.write(b"canary77\r\n\r\n")
        await client.reader.readuntil(b"}}")
        for _ in range(20):  # a connection closed at once would be reset by these
            client.writer.write(b"more")
            await asyncio.sleep(0.001)
        assert await client.read() == b""
        client.writer.close()


async def test_a_bug_of_a_users_handler_is_a_500_in_json(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    async with running(site):
        client = await site.connect()
        client.writer.write(GET.replace(b"plain", b"crash"))
        status, _ = await client.error()
    assert status == 500
    assert any("canary77" in str(record.exc_info) for record in caplog.records)


async def test_a_connection_ends_when_aiohttp_fails_to_make_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp ends its task, and would leave the client waiting for ever."""
    site = Site()
    async with running(site):
        client = await site.connect()
        client.writer.write(GET)
        await client.read(b"PLAIN")
        (handler,) = site.factory.connections

        def fail(*_: object) -> None:
            raise LookupError("a bug")

        task = handler._task_handler
        assert task is not None
        monkeypatch.setattr(handler, "_request_factory", fail)
        client.writer.write(GET)
        assert await client.read() == b""
        client.writer.close()
        assert isinstance(task.exception(), LookupError)


@pytest.mark.parametrize(
    "bad",
    [
        b"zz\r\n",
        b"3\r\nabcdef\r\n",
        b"0\r\n" + b"X: " + b"a" * 18_000 + b"\r\n\r\n",
        b"0\r\n" + b"X: a\r\n" * 400_000,
    ],
    ids=["size", "data", "a long trailer", "2 MiB of trailers"],
)
async def test_framing_that_breaks_amid_a_body_ends_it_at_once(bad: bytes) -> None:
    site = Site()
    async with running(site):
        client = await site.connect()
        client.writer.write(b"POST /body HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        await until(lambda: site.bodies)
        client.writer.write(bad)
        data = await client.read()
        client.writer.close()
        assert site.bodies[0] == "ab"
        assert site.bodies[-1] == "RequestPayloadError"
        assert data.startswith(b"HTTP/1.1 500"), "the handler's own error; ours knows better"


# ---- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", GET])
async def test_a_head_that_does_not_come_in_time_is_a_408(before: bytes) -> None:
    site = Site(header=0.15)
    async with running(site):
        client = await site.connect()
        if before:
            client.writer.write(before)
            await client.read(b"PLAIN")
        client.writer.write(b"GET / HTTP/1.1\r\n")
        assert await client.error() == (408, "header_timeout")


@pytest.mark.parametrize("is_one_read", [True, False])
async def test_a_head_that_begins_behind_a_request_is_due_after_its_answer(is_one_read: bool) -> None:
    """Only the idle time of the connection ended such a head."""
    site, part = Site(header=0.3), b"GET / HTTP/1.1\r\nHo"
    async with running(site):
        client = await site.connect()
        client.writer.write(GET.replace(b"plain", b"held") + (part if is_one_read else b""))
        await site.held.wait()
        if not is_one_read:
            client.writer.write(part)
            await asyncio.sleep(0.4)  # longer than a head may take
        site.release.set()
        await client.read(b"HELD")
        assert await client.error() == (408, "header_timeout")


@pytest.mark.parametrize("late_by", [-0.1, 100.0])
async def test_a_head_that_is_taken_over_incomplete_is_due_from_its_first_byte(late_by: float) -> None:
    """No matter whether its time is over already."""
    site = Site(header=50.0)
    async with running(site):
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        handler = site.factory(loop.time() - 50.0 - late_by)
        await loop.connect_accepted_socket(lambda: handler, theirs)
        handler.data_received(b"GET / HTTP/1.1\r\n")
        assert await Client(reader, writer).error() == (408, "header_timeout")


async def test_a_connection_that_never_sent_a_byte_is_closed_silently() -> None:
    """Defect A23."""
    site = Site(header=0.15)
    async with running(site):
        client = await site.connect()
        assert await client.read() == b""
        client.writer.close()


async def test_an_idle_connection_is_not_taken_for_a_slow_head() -> None:
    site = Site(header=0.1)
    async with running(site):
        client = await site.connect()
        for _ in range(3):
            client.writer.write(GET)
            await client.read(b"PLAIN")
            await asyncio.sleep(0.15)
        client.writer.write(b"\r\n" + GET)  # an empty line before a request means nothing
        await client.read(b"PLAIN")
        client.writer.close()


async def test_a_last_answer_is_sent_to_its_end_however_slowly_the_client_takes_it(
    change_limits: ChangeLimits,
) -> None:
    """It was once cut off when `limits.lingering` was over."""
    change_limits(lingering=0.05)
    site, loop, taken = Site(), asyncio.get_running_loop(), 0
    async with running(site):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, site.address)
            await until(lambda: site.factory.connections.transports)
            (transport,) = site.factory.connections.transports
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            await loop.sock_sendall(client, GET.replace(b"plain", b"last"))
            await asyncio.sleep(0.3)
            async with asyncio.timeout(SECONDS):
                while data := await loop.sock_recv(client, 1 << 16):
                    taken += len(data.partition(b"\r\n\r\n")[2] if data.startswith(b"HTTP/") else data)
    assert taken == 60_000


async def test_a_refusal_behind_an_answer_leaves_that_its_time(change_limits: ChangeLimits) -> None:
    change_limits(lingering=0.05)
    site = Site(header=0.1)
    async with running(site):
        client = await site.connect()
        client.writer.write(GET.replace(b"plain", b"large") + b"GET / HTTP/1.1\r\n")
        await client.read(b"\r\n\r\n")
        await asyncio.sleep(0.5)
        data = await client.read()
        client.writer.close()
    assert data[:8_000_000] == b"x" * 8_000_000
    assert data[8_000_000:].startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
async def test_a_client_that_takes_nothing_is_cut_off(close: bytes) -> None:
    site = Site(write=0.3)
    async with running(site):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, site.address)
            await loop.sock_sendall(client, b"GET /large HTTP/1.1\r\nHost: h\r\n" + close + b"\r\n")
            async with asyncio.timeout(SECONDS):
                await asyncio.sleep(0.05)
                await site.factory.connections.emptied.wait()


# ---- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 5])
async def test_requests_that_came_before_the_client_ended_its_side_are_answered(count: int) -> None:
    """Defect A18: the last of pipelined requests were not."""
    site = Site()
    async with running(site):
        client = await site.connect()
        client.writer.write(GET * count)
        client.writer.write_eof()
        assert (await client.read()).count(b"PLAIN") == count
        client.writer.close()


async def test_the_rest_of_a_body_is_not_waited_for_once_the_client_has_ended_its_side() -> None:
    site = Site()
    async with running(site):
        client = await site.connect()
        client.writer.write(b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab")
        await until(lambda: site.bodies)
        client.writer.write_eof()
        assert (await client.read()).startswith(b"HTTP/1.1 500"), "the handler's own error; ours knows better"
        client.writer.close()
        assert site.bodies == ["ab", "RequestPayloadError"]


HALF = b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab"


@pytest.mark.parametrize(("last", "pause"), [(HALF, 0), (HALF, 0.05), (b"\x00\r\n\r\n", 0.05)])
async def test_the_end_of_the_clients_side_keeps_no_answer_back(last: bytes, pause: float) -> None:
    """The last request is answered too if it is wrong."""
    site = Site()
    async with running(site):
        client = await site.connect()
        client.writer.write(GET)
        await asyncio.sleep(pause)
        client.writer.write(last)
        client.writer.write_eof()
        data = await client.read()
        client.writer.close()
        assert re.findall(rb"HTTP/1\.[01] ([0-9]+)", data) == [b"200", b"500" if last is HALF else b"400"]


async def test_a_connection_that_has_ended_does_not_wait_for_the_garbage_collector() -> None:
    site = Site()
    gc.collect()
    gc.disable()
    try:
        async with running(site):
            client = await site.connect()
            client.writer.write(b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab")
            await client.read(b"read")
            assert handlers() == 1
            client.writer.close()
            await until(lambda: not handlers())
    finally:
        gc.enable()


def handlers() -> int:
    """Returns the connections that are in memory."""
    return sum(isinstance(each, handler.Handler) for each in gc.get_objects())


async def test_a_client_that_ends_its_side_while_it_is_answered_is_not_waited_for() -> None:
    """The head of the answer has promised another one by then."""
    site = Site()
    async with running(site):
        client = await site.connect()
        client.writer.write(GET.replace(b"plain", b"large"))
        head = await client.read(b"\r\n\r\n")
        assert b"connection: close" not in head.lower()
        client.writer.write_eof()
        assert len(await client.read()) == 8_000_000
        client.writer.close()


async def test_a_head_that_will_never_be_whole_is_not_waited_for_right_after_a_hand_over() -> None:
    site = Site()
    async with running(site):
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)

        class HandedOver(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                handler = site.factory()
                transport.set_protocol(handler)
                handler.connection_made(transport)
                handler.data_received(b"GET / HT")
                if not handler.eof_received():
                    transport.close()

        await loop.connect_accepted_socket(HandedOver, theirs)
        said = await Client(reader, writer).read()
        writer.close()
        assert said == b""


async def test_a_handler_that_returns_nothing_is_a_500_after_the_end_of_the_clients_side_too() -> None:
    site = Site()
    site.app.router.add_get("/nothing", nothing)
    async with running(site):
        client = await site.connect()
        client.writer.write(GET.replace(b"plain", b"nothing"))
        client.writer.write_eof()
        said = await client.read()
        client.writer.close()
        assert said.startswith(b"HTTP/1.1 500")


async def nothing(request: web.Request) -> Any:
    await asyncio.sleep(0.01)


# ---- the end of the server -------------------------------------------------------------------------------------------


async def test_a_draining_server_answers_each_connection_once_more() -> None:
    site = Site()
    async with running(site):
        old = await site.connect()
        old.writer.write(GET)
        await old.read(b"PLAIN")
        site.factory.begin_drain()
        new = await site.connect()
        for client in (old, new):
            client.writer.write(GET)
            answer = await client.read()
            assert answer.endswith(b"PLAIN")
            assert b"connection: close" in answer.lower()
            client.writer.close()


async def test_a_draining_server_answers_all_that_a_connection_has_sent() -> None:
    site = Site()
    async with running(site):
        client = await site.connect()
        site.factory.begin_drain()
        client.writer.write(GET * 3)
        answer = await client.read()
        assert (answer.count(b"PLAIN"), answer.lower().count(b"connection: close")) == (3, 1)
        client.writer.close()


async def test_a_draining_server_closes_idle_connections_and_waits_for_an_answer(
    change_limits: ChangeLimits,
) -> None:
    change_limits(drain_idle=0.02)
    site = Site()
    answered = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await answered.wait()
        return web.Response(text="SLOW")

    site.app.router.add_get("/slow", slow)
    async with running(site):
        idle, silent, busy = [await site.connect() for _ in range(3)]
        idle.writer.write(GET)
        await idle.read(b"PLAIN")
        busy.writer.write(GET.replace(b"/plain", b"/slow"))
        await until(lambda: len(site.factory.connections) == 3)
        site.factory.begin_drain()
        assert await idle.read() == b""
        assert await silent.read() == b""
        assert len(site.factory.connections) == 1
        answered.set()
        assert (await busy.read()).endswith(b"SLOW"), "and then it is closed"
        for client in (idle, silent, busy):
            client.writer.close()
