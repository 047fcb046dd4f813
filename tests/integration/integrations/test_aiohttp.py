"""`gai_fast/integrations/aiohttp.py`: what is aiohttp's own about a streamed response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import gai_fast
from gai_fast.integrations.aiohttp import application, sse_handler, sse_response
from tests.integration.gateway import (
    END,
    NEVER,
    SSE_HEAD,
    Client,
    Net,
    Peer,
    delta,
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.integration.integrations.stacks import Site, serve
from tests.waiting import until
from tests.wire import chunk


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
    stream = gai_fast.Stream()
    served = await serve(net, "aiohttp", Site({"x": ("sse", flood.events), "y": ("sse", lambda: stream)}))
    response = await served.ask("x", "HEAD")
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert flood.made == 0
    await served.ask("y", "HEAD")
    with pytest.raises(gai_fast.Network):  # whoever pushes must not wait for a reader
        await stream.send("a")


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
        raise web.HTTPForbidden

    async def handle(request: web.Request) -> web.StreamResponse:
        return sse_response(flood.events())

    client = await connect(net, handle, fail)
    client.request("GET", "/")
    assert await client.is_closed() or flood.made
    await until(lambda: flood.is_closed)


async def mounted(net: Net, gateway_or_config: Any, prefix: str = "/ai") -> str:
    outer = web.Application()
    outer.add_subapp(prefix, application(gateway_or_config))
    runner = web.AppRunner(outer, access_log=None)
    await runner.setup()
    net.stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}"


@on_both_loops
async def test_a_gateway_is_served_and_not_closed(net: Net) -> None:
    upstream = await net.mock(deltas=8)
    async with gai_fast.Gateway(settings_for(upstream.url)) as gateway:
        async with AsyncExitStack() as stack:
            inner = Net(stack)
            async with gai_fast.connect(await mounted(inner, gateway)) as client:
                async with client.stream({"query": "Hi", "resumable": True}) as stream:
                    there = [event async for event in stream]
                assert [event async for event in gateway.follow(stream.id)] == there
        assert (await gateway.ask("Hi")).text == gai_fast.collect(there).text
        assert gateway.engine().limits is None
        assert gateway.engine().sinks == []


@on_both_loops
async def test_a_programs_own_streams_outlive_the_application_over_its_gateway(net: Net) -> None:
    go_on = asyncio.Event()

    async def in_two_parts(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD + chunk(delta("One ")))
        await go_on.wait()
        await peer.send(chunk(delta("two")), *END)

    upstream = await net.upstream(in_two_parts)
    async with gai_fast.Gateway(settings_for(upstream.url)) as gateway, gateway.stream({"query": "Hi"}) as own:
        assert (await anext(own))["type"] == "start"
        async with AsyncExitStack() as stack:
            url = await mounted(Net(stack), gateway)
            client = await net.connect(url.removeprefix("http://").partition("/")[0])
            client.request("POST", "/ai/api/v1/stream", {"query": "Hi"})
            response = await (await client.response()).until(b"One")
        await response.rest()
        assert response.events[-2]["error"]["reason"] == "draining"
        go_on.set()
        assert [event["type"] async for event in own] == ["text.delta", "text.delta", "finish", "done"]
    client.close()


@on_uvloop
async def test_a_configuration_is_served(net: Net, tmp_path: Path) -> None:
    upstream = await net.mock(deltas=8)
    settings = settings_for(upstream.url)
    file = tmp_path / "gai-fast.toml"
    file.write_text('[server]\ndefault_model = "demo"\n')
    for config, model in ((settings, "m"), (file, "demo"), (str(file), "demo")):
        url = await mounted(net, config)
        async with gai_fast.connect(url) as client, client.stream({"query": "Hi", "model": model}) as stream:
            assert (await anext(stream))["type"] == "start"


def test_what_is_no_configuration_is_refused() -> None:
    with pytest.raises(TypeError, match="this is dict"):
        application({})


async def test_a_gateway_must_be_open_when_its_application_starts() -> None:
    with pytest.raises(RuntimeError, match="not open"):
        await web.AppRunner(application(gai_fast.Gateway())).setup()


@on_uvloop
async def test_a_servers_client_is_a_gateway_too(net: Net) -> None:
    upstream = await net.gateway(await net.mock(deltas=8))
    async with gai_fast.connect(upstream.url) as remote:

        async def prepare(request: web.Request) -> dict[str, Any]:
            return {"query": "Hi", "resumable": True}

        client = await connect(net, sse_handler(remote, prepare))
        whole = await client.ask("GET", "/")
        ids = [line[4:] for line in whole.body.decode().split("\n") if line.startswith("id: ")]
        assert len(ids) == 10
        rest = await client.ask("GET", "/", headers={"last-event-id": ids[4]})
        assert rest.events == whole.events[5:]
        assert (await client.ask("GET", "/", headers={"last-event-id": ids[-1]})).status == 204


@on_uvloop
async def test_prepare_may_answer_by_itself(net: Net) -> None:
    async def prepare(request: web.Request) -> web.Response:
        return web.Response(status=401, text="who are you?")

    client = await connect(net, sse_handler(gai_fast.Gateway(), prepare))
    response = await client.ask("GET", "/")
    assert (response.status, bytes(response.body)) == (401, b"who are you?")
