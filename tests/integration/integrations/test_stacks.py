"""Streams as responses: every web framework, on real servers, sends the same and cleans up alike."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

import gai_fast
from gai_fast.model.settings import KeySettings, key_digest
from tests.integration.gateway import NEVER, Net, on_both_loops, on_uvloop, settings_for
from tests.integration.integrations.stacks import EVERY_STACK, STACKS, Site, serve
from tests.waiting import until

QUERY = {"query": "Tell me a story"}
QUIET = {"heartbeat": NEVER}
WITH_REQUEST = pytest.mark.parametrize("stack", [name for name in STACKS if name != "django-uvicorn"])
"""Django's responses take no `request`."""


async def texts() -> AsyncIterator[str]:
    yield "Hel"
    await asyncio.sleep(0)
    yield "lo\nworld"


async def objects() -> AsyncIterator[Any]:
    yield {"n": 1}
    yield [2, None]


async def broken() -> AsyncIterator[Any]:
    yield {"type": "text.delta", "text": "Hi"}
    raise KeyError("sk-secret")


async def refused() -> AsyncIterator[Any]:
    raise gai_fast.RateLimited(message="slow down", retry_after_ms=1500)
    yield


class Endless:
    """A source that never ends, and what became of it."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    async def events(self) -> AsyncIterator[str]:
        try:
            yield "first"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.noted.append("cancelled")
            raise
        finally:
            self.noted.append("closed")


def pushed() -> Any:
    stream = gai_fast.Stream()

    async def push() -> None:
        await stream.send("Hello")
        await stream.finish()

    pushed.task = asyncio.create_task(push())
    return stream


@EVERY_STACK
@on_both_loops
async def test_texts_objects_and_events_are_sent_as_they_come(net: Net, stack: str) -> None:
    site = Site(
        {
            "texts": ("sse", texts),
            "lines": ("ndjson", objects),
            "objects": ("sse", objects),
            "events": ("sse", pushed),
            "full": ("ndjson", pushed),
        },
        options=QUIET,
    )
    served = await serve(net, stack, site)
    response = await served.ask("texts")
    assert bytes(response.body) == b"data: Hel\n\ndata: lo\ndata: world\n\n"
    assert response.ended
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache, no-store, no-transform"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers.get("x-own") == (None if stack == "asgi-uvicorn" else "kept")
    assert bytes((await served.ask("objects")).body) == b'data: {"n":1}\n\ndata: [2,null]\n\n'
    lines = await served.ask("lines")
    assert bytes(lines.body) == b'{"n":1}\n[2,null]\n'
    assert lines.headers["content-type"] == "application/x-ndjson"
    events = await served.ask("events")
    assert events.types == ["start", "text.delta", "finish", "done"]
    assert len(events.headers["x-gai-stream-id"]) == 22
    assert events.headers["x-gai-stream-id"] == events.events[0]["stream_id"]
    full = await served.ask("full")
    assert full.types == events.types
    assert all("ts" in event for event in full.events[:-1])


@EVERY_STACK
@on_uvloop
async def test_a_source_that_fails_is_reported(net: Net, stack: str) -> None:
    served = await serve(net, stack, Site({"late": ("sse", broken), "early": ("sse", refused)}, options=QUIET))
    late = await served.ask("late")
    assert late.types == ["text.delta", "error", "done"]
    assert late.events[1]["error"]["code"] == "internal"
    assert b"sk-secret" not in late.body
    assert late.ended
    assert net.warned("the source of a response failed") == 1
    early = await served.ask("early", x_request_id="mine")
    if stack == "django-uvicorn":  # it sends the head before it asks for anything
        assert early.status == 200
        assert b"event: error" in early.body
    else:
        assert early.status == 429
        assert early.error["request_id"] == early.headers["x-request-id"] == "mine"
        assert early.headers["retry-after"] == "2"


@EVERY_STACK
@on_both_loops
async def test_a_client_that_leaves_cancels_the_source(net: Net, stack: str) -> None:
    source = Endless()
    served = await serve(net, stack, Site({"endless": ("sse", source.events)}, options=QUIET))
    client, response = await served.get("endless")
    await response.until(b"first")
    client.close()
    await until(lambda: source.noted == ["cancelled", "closed"])


@EVERY_STACK
@on_uvloop
async def test_a_silent_source_is_kept_alive(net: Net, stack: str) -> None:
    source = Endless()
    served = await serve(net, stack, Site({"endless": ("sse", source.events)}, options={"heartbeat": 0.05}))
    client, response = await served.get("endless")
    await response.until(b"data: first\n\n: ping\n: ping\n")
    client.close()
    await until(lambda: source.noted)


@EVERY_STACK
@on_both_loops
async def test_a_handler_asks_the_gateway_and_resumes(net: Net, stack: str) -> None:
    upstream = await net.mock(deltas=8)
    gateway = await net.stack.enter_async_context(gai_fast.Gateway(settings_for(upstream.url)))

    async def prepare(request: Any) -> dict[str, Any]:
        return {"query": "Tell me a story", "resumable": True}

    site = Site(handlers={"ask": ("sse", prepare), "lines": ("ndjson", prepare)}, gateway=gateway)
    served = await serve(net, stack, site)
    whole = await served.ask("ask", "POST", QUERY)
    assert whole.types == ["start", *["text.delta"] * 8, "finish", "done"]
    stream_id = whole.headers["x-gai-stream-id"]
    ids = [line[4:] for line in whole.body.decode().split("\n") if line.startswith("id: ")]
    assert ids == [f"{stream_id}.{number}" for number in range(1, 11)]
    for at in (1, 5, 9):
        rest = await served.ask("ask", "POST", QUERY, last_event_id=ids[at - 1])
        assert rest.events == whole.events[at:], at
    assert (await served.ask("ask", last_event_id=ids[-1])).status == 204
    assert (await served.ask("lines", last_event_id=ids[4])).types == whole.types[5:]
    assert len(upstream.requests) == 1
    for place, status, reason in ((f"{'A' * 22}.3", 404, "stream"), ("nonsense", 400, "last_event_id")):
        refused = await served.ask("ask", last_event_id=place)
        assert (refused.status, refused.error["reason"]) == (status, reason)


def resumable(request: Any) -> dict[str, Any]:
    return {**QUERY, "resumable": True}


def unknown(request: Any) -> dict[str, Any]:
    return {**QUERY, "model": "nope"}


def raising(request: Any) -> Any:
    raise gai_fast.RateLimited(message="slow down", retry_after_ms=1500)


ROUTES = {
    "ask": ("sse", resumable),
    "lines": ("ndjson", resumable),
    "unknown": ("sse", unknown),
    "raising": ("sse", raising),
    "unnamed": ("sse", lambda request: {**QUERY, "request_id": 7}),
}


@WITH_REQUEST
@on_both_loops
async def test_a_route_that_asks_the_gateway_itself_resumes_by_its_request(net: Net, stack: str) -> None:
    upstream = await net.mock(deltas=8)
    gateway = await net.stack.enter_async_context(gai_fast.Gateway(settings_for(upstream.url)))
    served = await serve(net, stack, Site(answers=ROUTES, gateway=gateway))
    whole = await served.ask("ask", x_request_id="mine")
    assert whole.types == ["start", *["text.delta"] * 8, "finish", "done"]
    assert whole.headers["x-request-id"] == whole.events[0]["request_id"] == "mine"
    stream_id = whole.headers["x-gai-stream-id"]
    for at in (1, 5, 9):
        assert (await served.ask("ask", last_event_id=f"{stream_id}.{at}")).events == whole.events[at:], at
    assert (await served.ask("ask", last_event_id=f"{stream_id}.10")).status == 204
    assert (await served.ask("lines", last_event_id=f"{stream_id}.5")).types == whole.types[5:]
    assert len(upstream.requests) == 1
    for place, status, reason in ((f"{'A' * 22}.3", 404, "stream"), ("nonsense", 400, "last_event_id")):
        refused = await served.ask("ask", last_event_id=place)
        assert (refused.status, refused.error["reason"]) == (status, reason)


@WITH_REQUEST
@on_uvloop
async def test_an_error_of_a_route_is_the_response_with_its_status(net: Net, stack: str) -> None:
    gateway = await net.stack.enter_async_context(gai_fast.Gateway(settings_for((await net.mock()).url)))
    served = await serve(net, stack, Site(answers=ROUTES, gateway=gateway))
    for path, status, code in (("unknown", 404, "not_found"), ("unnamed", 400, "invalid_request")):
        answered = await served.ask(path)
        assert (answered.status, answered.error["code"]) == (status, code)
    raised = await served.ask("raising", x_request_id="mine")
    assert (raised.status, raised.headers["retry-after"]) == (429, "2")
    assert raised.error["request_id"] == raised.headers["x-request-id"] == "mine"


@on_uvloop
async def test_a_route_may_ask_a_server_and_its_own_headers_go_with_the_resumption(net: Net) -> None:
    server = await net.gateway((await net.mock(deltas=8)).url, keys=(KeySettings("a", (key_digest("secret"),)),))
    remote = await net.stack.enter_async_context(gai_fast.connect(f"http://{server.host}"))
    headers = {"authorization": "Bearer secret"}

    class Keyed:
        def stream(self, request: Any) -> Any:
            return remote.stream(request, headers=headers)

    served = await serve(net, "aiohttp", Site(answers=ROUTES, gateway=Keyed()))
    whole = await served.ask("ask")
    assert whole.types[-2:] == ["finish", "done"]
    name = next(line for line in whole.body.decode().split("\n") if line.startswith("id: "))[4:].partition(".")[0]
    assert (await served.ask("ask", last_event_id=f"{name}.5")).events == whole.events[5:]
    assert (await served.ask("ask", last_event_id=f"{name}.10")).status == 204


@pytest.mark.parametrize("name", ["aiohttp", "asgi", "wsgi"])
async def test_only_a_gateways_stream_is_resumed_by_a_request(name: str) -> None:
    module = importlib.import_module(f"gai_fast.integrations.{name}")
    request: Any = {"REQUEST_METHOD": "GET"} if name == "wsgi" else SimpleNamespace(headers={})
    for source in (texts(), iter(["a"]), gai_fast.Stream()):
        with pytest.raises(TypeError, match=f"this is {type(source).__name__}: leave it out"):
            module.sse_response(source, request=request)
    with pytest.raises(TypeError, match="no keyword 'beat'"):
        module.ndjson_response(gai_fast.Gateway().stream(QUERY), request=request, beat=1)
    with pytest.raises(ValueError, match="`heartbeat`"):
        module.ndjson_response(gai_fast.Gateway().stream(QUERY), request=request, heartbeat=-1)


@EVERY_STACK
@on_uvloop
async def test_a_handlers_answer_may_be_compressed_and_a_head_request_asks_nobody(net: Net, stack: str) -> None:
    upstream = await net.mock(deltas=8)
    gateway = await net.stack.enter_async_context(gai_fast.Gateway(settings_for(upstream.url, compression=("gzip",))))
    served = await serve(net, stack, Site(handlers={"ask": ("ndjson", lambda request: dict(QUERY))}, gateway=gateway))
    if stack != "fastapi-hypercorn":  # FastAPI adds no HEAD to a GET
        head = await served.ask("ask", "HEAD", accept_encoding="gzip")
        assert (head.status, head.headers["content-encoding"]) == (200, "gzip")
        assert not upstream.requests
    response = await served.ask("ask", accept_encoding="gzip")
    assert response.headers["content-encoding"] == "gzip"
    lines = gzip.decompress(bytes(response.body)).splitlines()
    assert [json.loads(line)["type"] for line in lines][-2:] == ["finish", "done"]
    plain = await served.ask("ask")
    assert plain.types[-1] == "done"
    assert plain.headers["vary"] == "accept-encoding"


@EVERY_STACK
@on_uvloop
async def test_a_handlers_request_is_refused_with_its_status(net: Net, stack: str) -> None:
    upstream = await net.mock(deltas=8)
    gateway = await net.stack.enter_async_context(gai_fast.Gateway(settings_for(upstream.url)))

    def forbid(request: Any) -> Any:
        raise gai_fast.Forbidden(message="not you")

    async def misspell(request: Any) -> Any:
        return {"qurey": "Hi"}

    site = Site(handlers={"forbidden": ("sse", forbid), "wrong": ("sse", misspell)}, gateway=gateway)
    served = await serve(net, stack, site)
    assert (await served.ask("forbidden")).status == 403
    wrong = await served.ask("wrong")
    assert (wrong.status, wrong.error["reason"]) == (400, "validation")
    assert not upstream.requests


@EVERY_STACK
@on_both_loops
async def test_a_client_that_leaves_a_handler_stops_the_upstream(net: Net, stack: str) -> None:
    gone: list[bool] = []

    async def slow(peer: Any) -> None:
        from tests.integration.gateway import SSE_HEAD, delta

        await peer.request()
        frame = delta("Hi")
        await peer.send(SSE_HEAD, b"%x\r\n%b\r\n" % (len(frame), frame))
        await peer.until_gone()
        gone.append(True)

    upstream = await net.upstream(slow)
    gateway = await net.stack.enter_async_context(gai_fast.Gateway(settings_for(upstream.url)))
    site = Site(handlers={"ask": ("sse", lambda request: {"query": "Hi"})}, gateway=gateway, options=QUIET)
    served = await serve(net, stack, site)
    client, response = await served.get("ask")
    await response.until(b'"text":"Hi"')
    client.close()
    await until(lambda: gone)
