"""The private parts of aiohttp that the transport uses, and its paths with a user's signals and middlewares.

`test_transport.py` holds the contract that it shares with the fast lane. A failure here after an update of aiohttp
means that a private part has changed: see the module's docstring.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.http import HttpVersion11, StreamWriter
from aiohttp.web_response import StreamResponse
from multidict import CIMultiDict

from gai_fast.net.logs.writer import ResponseWriter
from gai_fast.runtime.timers import TimerWheel
from gai_fast.server.http.replies import Reply, StreamHead
from gai_fast.server.lanes.aiohttp_transport import AiohttpTransport, is_plain, whole_response
from tests.unit.server.streams import FakeStream
from tests.waiting import SECONDS, until

HEAD = StreamHead("text/event-stream", "req-1", "sid")
GET = b"GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n"


class Site:
    """An application with one route, whose answers the test writes."""

    def __init__(self) -> None:
        self.app = web.Application()
        self.app.router.add_get("/", self.answer)
        self.stream = FakeStream()
        self.write: Callable[[AiohttpTransport, ResponseWriter], Awaitable[None]]
        self.socket: socket.socket
        self.timers: TimerWheel
        self.tasks: list[asyncio.Task[None]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        client = AiohttpTransport(request, self.timers)
        client.begin_stream(self.stream, high_water=1000, write_timeout=SECONDS)
        writer = ResponseWriter(client)
        writer.start(*client.commit(HEAD))

        async def write() -> None:
            await self.write(client, writer)

        self.tasks.append(asyncio.ensure_future(write()))
        return await client.finish()

    async def read(self) -> bytes:
        """Returns all that comes, until the server has been silent for a moment."""
        loop, data = asyncio.get_running_loop(), b""
        await loop.sock_sendall(self.socket, GET)
        while True:
            try:
                more = await asyncio.wait_for(loop.sock_recv(self.socket, 1 << 16), 0.2 if data else SECONDS)
            except TimeoutError:
                return data
            if not more:
                return data
            data += more


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[None]:
    site.timers = TimerWheel(asyncio.get_running_loop())
    runner = web.AppRunner(site.app, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with socket.socket() as site.socket:
        site.socket.setblocking(False)
        await asyncio.get_running_loop().sock_connect(site.socket, runner.addresses[0])
        try:
            yield
        finally:
            await asyncio.gather(*site.tasks)
            await runner.cleanup()
    assert len(site.timers) == 0


async def three(client: AiohttpTransport, writer: ResponseWriter) -> None:
    for piece in (b"one", b"two"):
        writer.write([piece])
        await asyncio.sleep(0)
    writer.end([b"three"])
    client.answered(200)


CHUNKS = b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"


def unchunked(body: bytes) -> bytes:
    data = b""
    while True:
        size, _, rest = body.partition(b"\r\n")
        if size == b"0":
            assert rest == b"\r\n"
            return data
        data, body = data + rest[: int(size, 16)], rest[int(size, 16) + 2 :]


# ---- the parts of aiohttp --------------------------------------------------------------------------------------------


def test_aiohttp_has_the_parts_that_are_used() -> None:
    for method in ("_prepare_headers", "prepare", "write", "write_eof"):
        assert inspect.iscoroutinefunction(getattr(StreamResponse, method)), method
    assert StreamResponse._send_headers_immediately is True
    made = StreamWriter(asyncio.Protocol(), None)
    assert (made.chunked, made.length, made._compress, made._on_chunk_sent) == (False, None, None, None)
    assert (made._headers_buf, made._headers_written, made._eof, made.output_size) == (None, False, False, 0)


async def test_aiohttps_writer_keeps_its_head_until_it_is_sent_and_ends_nothing_twice() -> None:
    written: list[bytes] = []

    class Transport:
        def is_closing(self) -> bool:
            return False

        def write(self, data: bytes) -> None:
            written.append(bytes(data))

    class Protocol:
        transport = Transport()
        _paused = False

    writer = StreamWriter(Protocol(), asyncio.get_running_loop())
    await writer.write_headers("HTTP/1.1 200 OK", CIMultiDict({"a": "b"}))
    assert written == []
    assert writer._headers_buf == b"HTTP/1.1 200 OK\r\na: b\r\n\r\n"
    writer._headers_buf, writer._headers_written, writer._eof = None, True, True
    writer.send_headers()
    await writer.write_eof()
    assert written == []


def test_a_writer_is_plain_only_where_it_does_nothing_but_frame() -> None:
    def made(**changed: Any) -> StreamWriter:
        writer = StreamWriter(asyncio.Protocol(), None)
        writer._headers_buf = b"head"
        for name, value in changed.items():
            setattr(writer, name, value)
        return writer

    assert is_plain(made(chunked=True), chunked=True)
    assert is_plain(made(), chunked=False)
    for changed in ({}, {"length": 3}, {"_headers_buf": None}, {"_compress": object()}, {"_on_chunk_sent": object()}):
        assert not is_plain(made(**changed), chunked=True)
    assert not is_plain(made(chunked=True, _compress=object()), chunked=True)
    assert not is_plain(None, chunked=True)

    class Other(StreamWriter):
        pass

    other = Other(asyncio.Protocol(), None)
    other.chunked, other._headers_buf = True, b"head"
    assert not is_plain(other, chunked=True)


async def test_a_whole_response_says_nothing_of_the_server() -> None:
    site = Site()

    async def whole(request: web.Request) -> web.StreamResponse:
        return whole_response(Reply(200, b"body", [("x-a", "b"), ("content-type", "text/plain")]))

    site.app.router.add_get("/whole", whole)
    async with running(site):
        await asyncio.get_running_loop().sock_sendall(site.socket, GET.replace(b"/ ", b"/whole ", 1))
        data = await asyncio.get_running_loop().sock_recv(site.socket, 1 << 16)
    head = data.lower()
    assert head.startswith(b"http/1.1 200 ok")
    assert b"server:" not in head
    assert b"x-a: b" in head
    assert b"content-length: 4" in head


# ---- signals and middlewares -----------------------------------------------------------------------------------------


async def test_frames_go_out_as_they_are_framed() -> None:
    site = Site()
    site.write = three
    async with running(site):
        head, _, body = (await site.read()).partition(b"\r\n\r\n")
    assert body == CHUNKS
    assert b"server:" not in head.lower()


async def test_a_signal_sees_the_head_and_may_change_it_even_where_it_waits() -> None:
    site = Site()

    async def sign(request: web.BaseRequest, response: web.StreamResponse) -> None:
        await asyncio.sleep(0.05)
        response.headers["X-Signed"] = response.headers["x-gai-stream-id"]

    site.app.on_response_prepare.append(sign)
    site.write = three
    async with running(site):
        head, _, body = (await site.read()).partition(b"\r\n\r\n")
    assert b"x-signed: sid" in head.lower()
    assert body == b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"


async def test_a_signal_that_waits_pauses_a_stream_that_writes_much() -> None:
    site = Site()
    go = asyncio.Event()

    async def wait(request: web.BaseRequest, response: web.StreamResponse) -> None:
        await go.wait()

    async def much(client: AiohttpTransport, writer: ResponseWriter) -> None:
        writer.write([b"x" * 2000])
        assert site.stream.calls == ["pause"]
        assert client.is_paused
        go.set()
        await until(lambda: not client.is_paused)
        writer.end([])
        client.answered(200)

    site.app.on_response_prepare.append(wait)
    site.write = much
    async with running(site):
        body = (await site.read()).partition(b"\r\n\r\n")[2]
    assert unchunked(body) == b"x" * 2000
    assert site.stream.calls == ["pause", "resume"]


async def test_a_signal_that_compresses_is_obeyed() -> None:
    site = Site()

    async def squeeze(request: web.BaseRequest, response: web.StreamResponse) -> None:
        writer = request._payload_writer
        response.headers["Content-Encoding"] = "gzip"
        writer.enable_compression("gzip")

    site.app.on_response_prepare.append(squeeze)
    site.write = three
    async with running(site):
        body = (await site.read()).partition(b"\r\n\r\n")[2]
    assert zlib.decompress(unchunked(body), wbits=31) == b"onetwothree"


async def test_a_signal_that_fails_ends_the_stream() -> None:
    site = Site()

    async def fail(request: web.BaseRequest, response: web.StreamResponse) -> None:
        raise web.HTTPForbidden

    async def nothing(client: AiohttpTransport, writer: ResponseWriter) -> None:
        await until(lambda: site.stream.calls)
        writer.write([b"late"])
        writer.end([])
        client.answered(200)

    site.app.on_response_prepare.append(fail)
    site.write = nothing
    async with running(site):
        await site.read()
    assert site.stream.calls == ["lost"]


async def test_a_middleware_that_cancels_ends_the_stream_without_its_last_chunk() -> None:
    site = Site()

    @web.middleware
    async def hurry(request: web.Request, handler: Any) -> web.StreamResponse:
        async with asyncio.timeout(0.05):
            response: web.StreamResponse = await handler(request)
        return response

    async def forever(client: AiohttpTransport, writer: ResponseWriter) -> None:
        writer.write([b"one"])
        await until(lambda: site.stream.calls)

    site.app.middlewares.append(hurry)
    site.write = forever
    async with running(site):
        body = (await site.read()).partition(b"\r\n\r\n")[2]
    assert site.stream.calls == ["lost"]
    assert body == b"3\r\none\r\n"


async def test_a_client_that_is_gone_when_the_stream_begins_is_noticed() -> None:
    stream = FakeStream()

    class Gone:
        transport = None
        remote = None
        version = HttpVersion11

    client = AiohttpTransport(Gone(), TimerWheel(asyncio.get_running_loop()))
    client.begin_stream(stream, high_water=1, write_timeout=1)
    assert stream.calls == []
    response = await asyncio.wait_for(client.finish(), SECONDS)
    await asyncio.sleep(0)
    assert isinstance(response, web.Response)
    assert stream.calls == ["lost"]
    assert (client.remote, client.status) == ("", 0)


@pytest.mark.parametrize("close", [True, False])
def test_a_reply_that_closes_says_so(close: bool) -> None:
    response = whole_response(Reply(400, close=close))
    assert (response.headers.get("connection") == "close") is close
    assert (response.keep_alive is False) is close
