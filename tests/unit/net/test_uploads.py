"""Requests whose body is sent while it arrives: a real pool, and upstreams on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gai_fast.kernels import FastPath
from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS, Peer
from gai_fast.net.upstream.connection import Receiver, Upload
from gai_fast.net.upstream.pool import UpstreamPool
from gai_fast.runtime.timers import TimerWheel
from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PIECE = bytes(range(256)) * 256
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Recorder(Receiver):
    """The receiver of a response; `upload` is the upload of its request. Compiled classes cannot be both."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.body = b""
        self.error: Error | None = None
        self.has_ended = False
        self.upload = Uploading(self.calls)

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        self.calls.append(str(status))

    def body_received(self, data: bytes) -> FastPath | None:
        self.body += data
        return None

    def exchange_ended(self, error: Error | None) -> None:
        self.error = error
        self.has_ended = True

    async def begun(self) -> None:
        await until(lambda: bool(self.calls))

    async def ended(self) -> None:
        await until(lambda: self.has_ended)


class Uploading(Upload):
    """Notes its calls."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def begin(self) -> None:
        self.calls.append("begin")

    def resume(self) -> None:
        self.calls.append("resume")


@asynccontextmanager
async def pool_to(serve: Serve) -> AsyncIterator[UpstreamPool]:
    """Yields a pool of connections to an upstream that answers as `serve` does."""
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=4096)
    host, port = server.sockets[0].getsockname()
    pool = UpstreamPool(Peer(f"http://{host}:{port}/v1"), timers=TimerWheel(loop), max_connections=4, loop=loop)
    try:
        yield pool
    finally:
        await pool.close()
        server.close()


async def head_of(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode()


async def test_a_body_of_known_length_arrives_as_it_is_sent_and_its_connection_is_kept() -> None:
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            heads.append(await head_of(reader))
            assert await reader.readexactly(2 * len(PIECE)) == 2 * PIECE
            writer.write(OK)
        writer.close()

    async with pool_to(serve) as pool:
        for _ in range(2):
            got = Recorder()
            exchange = pool.open_once("POST", "/x", [("a", "b")], PIECE, got, ANONYMOUS, got.upload, 2 * len(PIECE))
            await got.begun()
            exchange.write(PIECE)
            exchange.end_body()
            await got.ended()
            assert (got.error, got.body, got.calls[0]) == (None, b"ok", "begin")
        assert pool.stats.opened == 1
    assert all(f"\r\nContent-Length: {2 * len(PIECE)}\r\n" in head and "\r\na: b\r\n" in head for head in heads)


async def test_an_upstream_that_does_not_read_holds_the_upload_up_and_lets_it_go_on() -> None:
    may_read = asyncio.Event()
    size = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal size
        head = await head_of(reader)
        assert "\r\nTransfer-Encoding: chunked\r\n" in head
        await may_read.wait()
        while size < 200 * len(PIECE):
            size += len(await reader.read(1 << 16))
        writer.write(OK)
        writer.close()

    async with pool_to(serve) as pool:
        got = Recorder()
        exchange = pool.open_once("POST", "/x", [], b"", got, ANONYMOUS, got.upload)
        await until(lambda: bool(got.calls))
        for _ in range(200):  # 13 MB, more than the sockets of both sides hold
            exchange.write(PIECE)
        assert exchange.unsent > len(PIECE)
        may_read.set()
        await until(lambda: "resume" in got.calls)
        assert exchange.unsent == 0
        await until(lambda: got.has_ended)
        assert got.body == b"ok"


async def test_an_answer_before_the_end_of_the_body_ends_its_connection() -> None:
    """What the upstream has not read of the body would be the beginning of the next request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(OK)
        await reader.read()
        writer.close()

    async with pool_to(serve) as pool:
        got = Recorder()
        exchange = pool.open_once("POST", "/x", [], PIECE, got, ANONYMOUS, got.upload, 9 * len(PIECE))
        await until(lambda: got.has_ended)
        exchange.write(PIECE)  # does nothing any more
        assert (got.error, got.body) == (None, b"ok")
        assert pool.stats.idle == 0


@pytest.mark.parametrize("is_written", [False, True])
async def test_on_a_dead_connection_only_what_was_not_written_yet_is_sent_again(is_written: bool) -> None:
    heads = 0
    may_die = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heads
        await head_of(reader)
        heads += 1
        writer.write(OK)
        if heads == 1:
            await reader.readexactly(1)  # of the second request
            await may_die.wait()
        writer.close()

    async with pool_to(serve) as pool:
        first = Recorder()
        pool.open_once("GET", "/x", [], b"", first, ANONYMOUS)
        await until(lambda: first.has_ended)
        got = Recorder()
        exchange = pool.open_once("POST", "/x", [], b"", got, ANONYMOUS, got.upload, len(PIECE))
        await until(lambda: bool(got.calls))
        if is_written:
            exchange.write(PIECE)
        may_die.set()
        await until(lambda: got.has_ended)
        if is_written:
            assert got.error is not None
            assert got.error.code == "network"
        else:
            assert (got.error, got.calls) == (None, ["begin", "begin", "200"])
