"""The contract of `ClientTransport`, over each implementation: real sockets on loopback, the answer driven by the test.

A further implementation adds a function to `WAYS`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiohttp import web

from gai_fast.model.errors import Error
from gai_fast.model.settings import LimitSettings, ServerSettings
from gai_fast.net.logs.writer import ResponseWriter
from gai_fast.runtime.timers import TimerWheel
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.http.replies import Reply, StreamHead
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.http.transport import ClientTransport
from gai_fast.server.lanes.aiohttp_transport import AiohttpTransport
from gai_fast.server.lanes.lane import FastLane, LaneRoutes
from tests.unit.server.streams import FakeStream
from tests.waiting import SECONDS, until

IDLE = ServerSettings().keep_alive
REQUEST = b"POST /s HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
OLD = REQUEST.replace(b"1.1", b"1.0")
HEAD = StreamHead("text/event-stream", "req-1", "sid", (("vary", "Origin"),))
HIGH_WATER = 64 * 1024


class AnyRoutes(LaneRoutes):
    """Routes of the lane: every request is answered by the test."""

    def __init__(self, handler: Callable[[ClientTransport], None]) -> None:
        self._handler = handler

    def handle(self, http: HTTPRequest) -> None:
        self._handler(http.transport)

    def refuse(self, http: HTTPRequest) -> None:
        raise AssertionError("no request here is refused")

    def refusal(self, http: HTTPRequest, error: Error) -> Reply:
        raise AssertionError("no request here is refused")

    def uploader(self, http: HTTPRequest) -> str:
        raise AssertionError("every body here is whole")

    def refuse_unreadable(self, remote: str, error: Error) -> Reply:
        raise AssertionError("no request here is refused")

    def ended(self, http: HTTPRequest, status: int) -> None: ...


@asynccontextmanager
async def lane(handler: Callable[[ClientTransport], None]) -> AsyncIterator[int]:
    """Yields the fast lane's connection; nothing is handed over."""
    loop = asyncio.get_running_loop()
    server = FastLane(
        AnyRoutes(handler),
        frozenset(("/s",)),
        lambda head_since: asyncio.Protocol(),
        timers=TimerWheel(loop),
        loop=loop,
        keep_alive=IDLE,
        header_timeout=SECONDS,
        body_timeout=SECONDS,
        write_timeout=SECONDS,
        max_body=100,
        server_limits=ServerLimits(LimitSettings()),
    )
    async with listening(server) as port:
        yield port


@asynccontextmanager
async def listening(server: FastLane) -> AsyncIterator[int]:
    listener = await asyncio.get_running_loop().create_server(cast(Any, server), "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        server.connections.abort()
        await asyncio.wait_for(server.connections.emptied.wait(), SECONDS)


@asynccontextmanager
async def aiohttp_server(handler: Callable[[ClientTransport], None]) -> AsyncIterator[int]:
    """aiohttp's own server."""
    loop = asyncio.get_running_loop()
    timers = TimerWheel(loop)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        client = AiohttpTransport(request, timers)
        handler(client)
        return await client.finish()

    server = web.Server(answer)
    listener = await loop.create_server(server, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await server.shutdown(0.05)
        assert not len(timers)


WAYS = {"lane": lane, "aiohttp": aiohttp_server}
ONLY_HTTP_1_1 = {"lane"}
"""The ways that are given no other requests."""


class Borrower:
    def __init__(self) -> None:
        self.ends = 0

    def end_writing(self) -> None:
        self.ends += 1


class Exchange:
    """One client and the transports on which its requests are answered."""

    def __init__(self) -> None:
        self.transports: asyncio.Queue[ClientTransport] = asyncio.Queue()
        self.stream = FakeStream()
        self.socket: socket.socket

    async def ask(self, request: bytes = REQUEST) -> ClientTransport:
        """Sends a request; what answers it."""
        await asyncio.get_running_loop().sock_sendall(self.socket, request)
        return await asyncio.wait_for(self.transports.get(), SECONDS)

    async def begin(self, request: bytes = REQUEST) -> tuple[ClientTransport, ResponseWriter]:
        """Asks, and begins a stream whose head has gone out."""
        client = await self.ask(request)
        client.begin_stream(self.stream, high_water=HIGH_WATER, write_timeout=SECONDS)
        writer = ResponseWriter(client)
        head, framing = client.commit(HEAD)
        writer.start(head, framing)
        writer.flush()
        return client, writer

    async def take(self, end: bytes | None) -> bytes:
        """Returns the bytes up to these; up to the end of the connection for `None`."""
        loop, data = asyncio.get_running_loop(), b""
        async with asyncio.timeout(SECONDS):
            while end is None or end not in data:
                more = await loop.sock_recv(self.socket, 1 << 16)
                if not more:
                    assert end is None
                    break
                data += more
        assert end is None or data.endswith(end)
        return data


@pytest.fixture(params=WAYS)
async def exchange(request: pytest.FixtureRequest) -> AsyncIterator[Exchange]:
    made = Exchange()
    async with WAYS[request.param](made.transports.put_nowait) as port:
        with socket.socket() as made.socket:
            made.socket.setblocking(False)
            await asyncio.get_running_loop().sock_connect(made.socket, ("127.0.0.1", port))
            yield made


async def test_a_stream_may_begin_again_with_other_limits_until_its_head(exchange: Exchange) -> None:
    client = await exchange.ask()
    client.begin_stream(exchange.stream, high_water=1, write_timeout=SECONDS / 2)
    client.begin_stream(exchange.stream, high_water=HIGH_WATER, write_timeout=SECONDS)
    writer = ResponseWriter(client)
    writer.start(*client.commit(HEAD))
    writer.write([b"one"])
    writer.flush()
    await exchange.take(b"one\r\n")
    exchange.socket.close()
    await until(lambda: exchange.stream.calls)
    assert exchange.stream.calls == ["lost"]


async def test_head_and_body_go_out_in_order_and_the_next_request_follows(exchange: Exchange) -> None:
    for _ in range(2):
        client, writer = await exchange.begin()
        assert client.remote == "127.0.0.1"
        writer.write([b"one"])
        writer.write([b"t", b"wo"])
        writer.end([b"three"])
        client.answered(200)
        head, _, body = (await exchange.take(b"\r\n0\r\n\r\n")).partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        assert lines[0] == "http/1.1 200 ok"
        assert {
            "content-type: text/event-stream",
            "cache-control: no-cache, no-store, no-transform",
            "x-request-id: req-1",
            "x-gai-stream-id: sid",
            "vary: origin",
            "transfer-encoding: chunked",
        } <= set(lines)
        assert body == b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"
    assert exchange.stream.calls == []


async def test_an_end_without_bytes_is_the_last_chunk(exchange: Exchange) -> None:
    client, writer = await exchange.begin()
    writer.end([])
    client.answered(200)
    assert (await exchange.take(b"\r\n\r\n0\r\n\r\n")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("exchange", sorted(WAYS.keys() - ONLY_HTTP_1_1), indirect=True)
async def test_a_client_of_http_1_0_gets_no_chunks_and_the_end_of_the_connection(exchange: Exchange) -> None:
    client, writer = await exchange.begin(OLD)
    assert writer.direct is None
    writer.write([b"one"])
    writer.end([b"two"])
    client.answered(200)
    head, _, body = (await exchange.take(None)).partition(b"\r\n\r\n")
    assert body == b"onetwo"
    assert b"transfer-encoding" not in head.lower()


async def test_a_whole_answer_may_stand_for_a_stream_that_has_no_head(exchange: Exchange) -> None:
    for begins in (False, True):
        client = await exchange.ask()
        if begins:
            client.begin_stream(exchange.stream, high_water=HIGH_WATER, write_timeout=SECONDS)
        client.send(Reply(503, b"no", [("content-type", "text/plain")]))
        said = (await exchange.take(b"\r\n\r\nno")).lower()
        assert said.startswith(b"http/1.1 503 ")
        assert b"\r\ncontent-length: 2\r\n" in said
    assert exchange.stream.calls == []


async def test_a_stream_is_paused_above_its_high_water_mark_and_resumed(exchange: Exchange) -> None:
    client, writer = await exchange.begin()
    await exchange.take(b"\r\n\r\n")
    assert not client.is_paused
    piece = b"x" * HIGH_WATER
    sent = 0
    while not exchange.stream.calls:
        writer.write([piece])
        sent += 1
        await asyncio.sleep(0)
    assert client.is_paused
    assert exchange.stream.calls == ["pause"]
    writer.write([b"end"])
    body = await exchange.take(b"3\r\nend\r\n")
    assert len(body) == sent * len(b"10000\r\n" + piece + b"\r\n") + len(b"3\r\nend\r\n")
    await until(lambda: len(exchange.stream.calls) > 1)
    assert exchange.stream.calls == ["pause", "resume"]
    assert not client.is_paused
    writer.end([])
    client.answered(200)


async def test_a_lent_socket_is_given_back_before_anything_else_is_written(exchange: Exchange) -> None:
    client, writer = await exchange.begin()
    await exchange.take(b"\r\n\r\n")
    borrower: Any = Borrower()
    descriptor = client.lend(borrower)
    assert descriptor >= 0
    os.write(descriptor, b"1\r\na\r\n")
    assert borrower.ends == 0
    writer.write([b"b"])
    assert borrower.ends == 1
    writer.end([b"c"])
    client.answered(200)
    assert await exchange.take(b"0\r\n\r\n") == b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"


async def test_a_socket_with_unsent_bytes_is_not_lent(exchange: Exchange) -> None:
    client, writer = await exchange.begin()
    await exchange.take(b"\r\n\r\n")
    while not exchange.stream.calls:
        writer.write([b"x" * HIGH_WATER])
        await asyncio.sleep(0)
    assert client.lend(Borrower()) == -1


async def test_an_answer_that_is_aborted_does_not_look_complete(exchange: Exchange) -> None:
    client, writer = await exchange.begin()
    writer.write([b"part"])
    await exchange.take(b"4\r\npart\r\n")
    borrower: Any = Borrower()
    assert client.lend(borrower) >= 0
    client.abort()
    assert borrower.ends == 1
    assert await exchange.take(None) == b""
    await until(lambda: exchange.stream.calls)
    assert exchange.stream.calls == ["lost"]


@pytest.mark.parametrize("exchange", sorted(WAYS.keys() - ONLY_HTTP_1_1), indirect=True)
async def test_an_aborted_answer_to_http_1_0_is_a_reset(exchange: Exchange) -> None:
    """Its body ends with the connection: after an orderly end it looked complete."""
    client, writer = await exchange.begin(OLD)
    writer.write([b"part"])
    await exchange.take(b"part")
    client.abort()
    with pytest.raises(ConnectionResetError):
        await exchange.take(None)
    await until(lambda: exchange.stream.calls)
    assert exchange.stream.calls == ["lost"]


async def test_a_client_that_goes_is_noticed_at_once_and_only_once(exchange: Exchange) -> None:
    client, writer = await exchange.begin()
    await exchange.take(b"\r\n\r\n")
    borrower: Any = Borrower()
    assert client.lend(borrower) >= 0
    exchange.socket.close()
    await until(lambda: exchange.stream.calls)
    assert borrower.ends == 1
    writer.write([b"x"])
    writer.end([b"y"])
    client.answered(200)
    await asyncio.sleep(0.01)
    assert exchange.stream.calls == ["lost"]
    assert client.lend(borrower) == -1


async def test_a_client_that_says_no_more_during_a_stream_is_gone(exchange: Exchange) -> None:
    await exchange.begin()
    exchange.socket.shutdown(socket.SHUT_WR)
    await until(lambda: exchange.stream.calls)
    assert exchange.stream.calls == ["lost"]


async def test_a_client_that_goes_before_the_head_is_noticed_too(exchange: Exchange) -> None:
    client = await exchange.ask()
    client.begin_stream(exchange.stream, high_water=HIGH_WATER, write_timeout=SECONDS)
    exchange.socket.close()
    await until(lambda: exchange.stream.calls)
    assert exchange.stream.calls == ["lost"]
    client.send(Reply(502))


async def test_after_its_end_a_stream_is_called_no_more(exchange: Exchange) -> None:
    client, writer = await exchange.begin()
    writer.end([])
    client.answered(200)
    client.answered(200)
    await exchange.take(b"0\r\n\r\n")
    again = await exchange.ask()
    exchange.socket.close()
    await asyncio.sleep(0.01)
    again.send(Reply(200))
    assert exchange.stream.calls == []
