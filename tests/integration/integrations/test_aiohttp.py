"""`gai_fast/integrations/aiohttp.py`: what is aiohttp's own about a streamed response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

import gai_fast
from gai_fast.integrations.aiohttp import sse_handler, sse_response
from tests.integration.gateway import NEVER, Client, Net, on_both_loops, on_uvloop
from tests.integration.integrations.stacks import Site, serve
from tests.waiting import until


async def texts() -> AsyncIterator[str]:
    yield "Hello"


class Flood:
    """A source without an end, and how it was left."""

    def __init__(self) -> None:
        self.made = 0
        self.is_closed = False

    async def events(self) -> AsyncIterator[str]:
        try:
            while True:
                self.made += 1
                yield "x" * 65536
                await asyncio.sleep(0)
        finally:
            self.is_closed = True


async def connect(net: Net, handle: Callable[..., Any], *signals: Callable[..., Any], **options: Any) -> Client:
    app = web.Application(**options)
    app.on_response_prepare.extend(signals)
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    net.stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return await net.connect(f"127.0.0.1:{runner.addresses[0][1]}", receive_buffer=16384)


@on_both_loops
async def test_the_connection_goes_on_to_the_next_request(net: Net) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        return sse_response(texts())

    client = await connect(net, handle)
    client.request("GET", "/")
    client.request("GET", "/")  # comes while the first is answered
    for _ in range(2):
        assert bytes((await (await client.response()).rest()).body) == b"data: Hello\n\n"
    assert bytes((await client.ask("GET", "/")).body) == b"data: Hello\n\n"


@on_uvloop
async def test_a_head_request_runs_no_source(net: Net) -> None:
    flood = Flood()
    served = await serve(net, "aiohttp", Site({"x": ("sse", flood.events)}))
    response = await served.ask("x", "HEAD")
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert flood.made == 0


@on_both_loops
async def test_a_client_that_takes_nothing_is_cut_off(net: Net) -> None:
    flood = Flood()

    async def handle(request: web.Request) -> web.StreamResponse:
        return sse_response(flood.events(), write_timeout=0.5, client_buffer=1024)

    client = await connect(net, handle)
    client.request("GET", "/")
    await client.response()
    client.pause()
    await until(lambda: flood.is_closed)


@on_uvloop
async def test_a_slow_client_slows_the_source_down(net: Net) -> None:
    flood = Flood()

    async def handle(request: web.Request) -> web.StreamResponse:
        return sse_response(flood.events(), write_timeout=NEVER)

    client = await connect(net, handle)
    client.request("GET", "/")
    await client.response()
    client.pause()
    seen = -1
    while seen != flood.made:
        seen = flood.made
        await asyncio.sleep(0.1)
    assert flood.made * 65536 < 16 << 20, "what the kernel and the buffers hold"
    client.close()
    await until(lambda: flood.is_closed)


@on_uvloop
async def test_a_signal_that_fails_closes_the_source(net: Net) -> None:
    flood = Flood()

    async def fail(request: web.Request, response: web.StreamResponse) -> None:
        raise web.HTTPTeapot

    async def handle(request: web.Request) -> web.StreamResponse:
        return sse_response(flood.events())

    client = await connect(net, handle, fail)
    client.request("GET", "/")
    assert await client.is_closed() or flood.made
    await until(lambda: flood.is_closed)


@on_uvloop
async def test_prepare_may_answer_by_itself(net: Net) -> None:
    async def prepare(request: web.Request) -> web.Response:
        return web.Response(status=401, text="who are you?")

    client = await connect(net, sse_handler(gai_fast.Gateway(), prepare))
    response = await client.ask("GET", "/")
    assert (response.status, bytes(response.body)) == (401, b"who are you?")
