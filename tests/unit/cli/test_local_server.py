"""`cli/local_server.py`: serving, refusing, cutting and resetting. On both loops: tests run mocks on either."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from aiohttp import web

from gai_fast.cli.local_server import LocalServer, cut, read_body, reset, run_until_signal
from tests.waiting import SECONDS

Scenario = Callable[[], Coroutine[Any, Any, None]]
REQUEST = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
CLOSING = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def on_loop(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    def on_loop(scenario: Scenario) -> None:
        request.param(scenario())

    return on_loop


def app(handler: Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]) -> web.Application:
    made = web.Application()
    made.router.add_get("/", handler)
    return made


async def hello(request: web.Request) -> web.StreamResponse:
    return web.Response(text="hello")


async def half(request: web.Request) -> web.StreamResponse:
    """Returns an answer of which the first half is written."""
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b"half")
    return response


async def ask(server: LocalServer, request: bytes = REQUEST) -> bytes:
    """Returns the bytes that a client reads; raises `ConnectionResetError` if the server resets."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    try:
        writer.write(request)
        async with asyncio.timeout(SECONDS):
            return await reader.read()
    finally:
        writer.close()


def test_connections_are_counted_and_closed_at_the_end(on_loop: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with LocalServer(app(hello)) as server:
            clients = [await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2])) for _ in "ab"]
            for reader, writer in clients:
                writer.write(REQUEST)
                assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK\r\n")
            assert server.connections == 2
        for reader, writer in clients:
            assert await reader.read() == b""
            writer.close()

    on_loop(scenario)


def test_a_handler_is_cancelled_when_its_client_is_gone_or_the_server_stops(
    on_loop: Callable[[Scenario], None],
) -> None:
    async def scenario() -> None:
        begun, cancelled = asyncio.Semaphore(0), asyncio.Semaphore(0)

        async def silent(request: web.Request) -> web.StreamResponse:
            begun.release()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.release()
            raise AssertionError

        async def begin(server: LocalServer) -> asyncio.StreamWriter:
            _, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
            writer.write(REQUEST)
            await begun.acquire()
            return writer

        async with asyncio.timeout(SECONDS):
            async with LocalServer(app(silent)) as server:
                (await begin(server)).close()
                await cancelled.acquire()
                stays = await begin(server)
            await cancelled.acquire()
            stays.close()

    on_loop(scenario)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: h\r\nx: " + b"a" * 20_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\n{}\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\nconnection: close\r\n\r\nnone",
    ],
    ids=["tls", "length", "large head", "chunks", "gzip"],
)
async def test_a_fault_of_the_client_is_refused_and_leaves_no_traceback(
    request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def read(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await read_body(request))

    made = web.Application()
    made.router.add_post("/", read)
    with caplog.at_level("INFO"):
        async with LocalServer(made) as server:
            assert b" 400 Bad Request\r\n" in await ask(server, request_bytes)
    assert not caplog.records


async def test_a_write_to_a_client_that_is_gone_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        assert request.transport is not None
        request.transport.close()
        await response.write(b"y")
        return response

    async with LocalServer(app(late)) as server:
        assert (await ask(server, CLOSING)).startswith(b"HTTP/1.1 200 ")
    assert not caplog.records


async def test_a_bug_of_a_handler_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        raise ZeroDivisionError

    async with LocalServer(app(broken)) as server:
        assert (await ask(server, CLOSING)).startswith(b"HTTP/1.1 500 ")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


async def test_a_body_that_does_not_come_is_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await read_body(request))

    monkeypatch.setattr("gai_fast.cli.local_server.BODY_TIMEOUT", 0.01)
    made = web.Application()
    made.router.add_post("/", read)
    async with LocalServer(made) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        writer.write(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{")
        async with asyncio.timeout(SECONDS):
            assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
        writer.close()


def test_a_cut_answer_has_no_last_chunk_and_a_reset_one_an_rst(on_loop: Callable[[Scenario], None]) -> None:
    async def cut_off(request: web.Request) -> web.StreamResponse:
        response = await half(request)
        cut(request)
        return response

    async def reset_off(request: web.Request) -> web.StreamResponse:
        response = await half(request)
        await reset(request)
        return response

    async def scenario() -> None:
        async with LocalServer(app(cut_off)) as server:
            assert (await ask(server)).endswith(b"\r\n\r\n4\r\nhalf\r\n")
        async with LocalServer(app(reset_off)) as server:
            with pytest.raises(ConnectionResetError):
                await ask(server)

    on_loop(scenario)


def test_a_server_refuses_or_resets_every_connection_where_it_is_reported_to(
    on_loop: Callable[[Scenario], None],
) -> None:
    async def scenario() -> None:
        async with LocalServer(app(hello), listens=False) as server:
            with pytest.raises(ConnectionRefusedError):
                await ask(server)
        async with LocalServer(app(hello)) as server:
            server.resets_all = True
            with pytest.raises(ConnectionResetError):
                await ask(server)
            assert server.connections == 1

    on_loop(scenario)


def test_a_taken_port_is_an_error_and_leaves_nothing_open(on_loop: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
            await LocalServer(app(hello), port=taken.getsockname()[1]).start()

    on_loop(scenario)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_until_a_signal(on_loop: Callable[[Scenario], None], number: signal.Signals) -> None:
    urls: list[str] = []

    def ready(url: str) -> None:
        urls.append(url)
        os.kill(os.getpid(), number)

    async def scenario() -> None:
        async with asyncio.timeout(SECONDS):
            await run_until_signal(LocalServer(app(hello)), ready)

    on_loop(scenario)
    assert urls[0].startswith("http://127.0.0.1:")
