"""`net/toolbox/http_tool.py`: what a server of aiohttp is sent, and what becomes of its answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from gai_fast.model.settings import Secret, ToolSettings
from gai_fast.model.tool_functions import ToolMeta
from gai_fast.net.toolbox.http_tool import HTTPTool
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.net.tools.tool_results import ToolResult
from gai_fast.runtime.timers import TimerWheel
from tests.integration.gateway import Net, Peer, on_both_loops, on_uvloop
from tests.limits import LIMITS
from tests.ports import free_port
from tests.waiting import until

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
META = ToolMeta("request-1", "stream-1", 2, "call ü", 3, "ab" * 32, f"00-{'1' * 32}-{'2' * 16}-01")
KEY = "sk-canary-0123456789"


class Server:
    """A server whose requests are noted."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[web.Request] = []
        self.bodies: list[Any] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.json())
        return await self.answer(request)


async def served(net: Net, answer: Answer, **settings: Any) -> tuple[Server, HTTPTool]:
    """Returns a server, and the tool at its path `/tool?v=1`."""
    server = Server(answer)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    net.stack.push_async_callback(runner.cleanup)
    port = runner.addresses[0][1]
    return server, tool_of(net, f"http://127.0.0.1:{port}/tool?v=1", **settings)


def tool_of(net: Net, url: str, **settings: Any) -> HTTPTool:
    loop = asyncio.get_running_loop()
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    made = ToolSettings("weather", "The weather", schema, Secret(url), {"x-key": Secret(KEY)}, **settings)
    tool = HTTPTool(made, Secret(url), TimerWheel(loop), loop)
    net.stack.push_async_callback(tool.close)
    return tool


async def called(source: HTTPTool, meta: ToolMeta = META) -> ToolResult:
    [tool] = (await source.list_tools()).tools
    return await source.call(tool, {"city": "Rome"}, meta)


@on_both_loops
async def test_a_call_is_one_post_that_says_which_it_is(net: Net) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"degrees": 21})

    server, source = await served(net, answer)
    assert await called(source) == ToolResult({"degrees": 21})
    [request] = server.requests
    assert (request.method, request.path_qs, server.bodies) == ("POST", "/tool?v=1", [{"city": "Rome"}])
    expected = {
        "Content-Type": "application/json",
        "X-Key": KEY,
        "Idempotency-Key": "ab" * 32,
        "X-Request-Id": "request-1",
        "X-Gai-Call-Id": "=?base64?Y2FsbCDDvA==?=",
        "X-Gai-Attempt": "3",
        "traceparent": META.traceparent,
    }
    assert {name: request.headers[name] for name in expected} == expected
    assert await called(source, ToolMeta()) == ToolResult({"degrees": 21})
    assert {"Idempotency-Key", "X-Request-Id", "X-Gai-Call-Id", "traceparent"} & server.requests[
        1
    ].headers.keys() == set()


@on_uvloop
@pytest.mark.parametrize(
    ("body", "media_type", "result"),
    [
        (f"key {KEY}!".encode(), "text/plain", ToolResult("key ***!")),
        (
            json.dumps({"headers": [KEY], KEY: 1}).encode(),
            "application/json",
            ToolResult({"headers": ["***"], "***": 1}),
        ),
        (json.dumps([KEY]).replace("k", "\\u006b").encode(), "application/json", ToolResult(["***"])),
        (b"x" * 30 + KEY.encode(), "text/plain", ToolResult("x" * 30 + "***")),
        (b"x" * 30 + KEY.encode() * 9, "text/plain", ToolResult("x" * 30 + "***", is_truncated=True)),
        (b"x" * 29 + KEY.encode() * 2, "text/plain", ToolResult("x" * 29 + "****", is_truncated=True)),
        (
            json.dumps(["x" * 300_000, KEY] * 9).encode(),
            "application/json",
            ToolResult(f'["{"x" * 31}', is_truncated=True),
        ),
        (json.dumps(["x" * 30, KEY]).encode(), "application/json", ToolResult(f'["{"x" * 30}"', is_truncated=True)),
    ],
    ids=range(8),
)
async def test_its_own_credential_is_in_no_result(net: Net, body: bytes, media_type: str, result: ToolResult) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"content-type": media_type})

    _, source = await served(net, answer, max_result=33)
    assert await called(source) == result


@on_uvloop
async def test_a_credential_that_is_cut_in_two_is_in_no_result(net: Net) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"a" + KEY[:9].encode())
        await asyncio.sleep(0.02)
        await response.write(KEY[9:].encode() + b"b")
        return response

    _, source = await served(net, answer, max_result=5)
    assert await called(source) == ToolResult("a***b")
    _, source = await served(net, answer, max_result=4)
    assert await called(source) == ToolResult("a***", is_truncated=True)


@on_uvloop
@pytest.mark.parametrize(
    ("body", "media_type", "result"),
    [
        (b"[1, null]", "application/json; charset=utf-8", ToolResult([1, None])),
        (b'{"title": "no"}', "application/problem+json", ToolResult({"title": "no"})),
        (b"21 degrees", "text/plain", ToolResult("21 degrees")),
        (b"[1]", "text/plain", ToolResult("[1]")),
        (b'["\\ud800", "\\uD83D\\uDE00"]', "application/json", ToolResult(["\ufffd", "\U0001f600"])),
        (b"\xff", "application/octet-stream", ToolResult("\ufffd")),
        (b"", "text/plain", ToolResult("")),
        ("ä".encode() * 40, "text/plain", ToolResult("ä" * 16, is_truncated=True)),
        (json.dumps(["x" * 90]).encode(), "application/json", ToolResult(f'["{"x" * 31}', is_truncated=True)),
    ],
)
async def test_json_is_the_value_and_all_else_is_text(
    net: Net, body: bytes, media_type: str, result: ToolResult
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"content-type": media_type})

    _, source = await served(net, answer, max_result=33)
    assert await called(source) == result


@on_uvloop
@pytest.mark.parametrize(
    ("body", "result"),
    [
        (b'{"celsius": 4}', ToolResult({"celsius": 4})),
        (b"21 degrees", ToolResult("21 degrees")),
        (b'{"celsius": 4', ToolResult('{"celsius": 4')),
        (b'"' + b"x" * 40 + b'"', ToolResult('"' + "x" * 32, is_truncated=True)),
        (b"", ToolResult("")),
    ],
)
async def test_a_body_without_a_type_is_json_if_it_can_be(net: Net, body: bytes, result: ToolResult) -> None:
    """RFC 9110, 8.3: "the recipient MAY … examine the data to determine its type". Scripts of operators name none."""

    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.answer("200 OK", body)

    upstream = await net.upstream(answer)
    assert await called(tool_of(net, f"{upstream.url}/look", max_result=33)) == result


@on_uvloop
async def test_a_text_that_never_ends_is_cut_and_its_connection_closed(net: Net) -> None:
    closed = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        finally:
            closed.set()

    _, source = await served(net, answer)
    assert await called(source) == ToolResult("x" * LIMITS.tool_result, is_truncated=True)
    await closed.wait()


@on_uvloop
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{", "its result is called JSON, and is none"),
        (b"[" * 99 + b"]" * 99, "its result is JSON that is nested too deep"),
        (b'"' + b"x" * (9 << 20) + b'"', r"more than 8388608 bytes \(limit tool_message\)"),
    ],
    ids=["no JSON", "deep", "large"],
)
async def test_what_is_called_json_and_cannot_be_read_is_a_failure(net: Net, body: bytes, problem: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"content-type": "application/json"})

    _, source = await served(net, answer)
    with pytest.raises(ToolServerError, match=problem) as raised:
        await called(source)
    assert (raised.value.fault, raised.value.may_have_run) == ("form", True)


@on_uvloop
@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
async def test_of_a_refusal_the_status_alone_is_seen(net: Net, status: int) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"secret": KEY}, status=status)

    _, source = await served(net, answer)
    assert await called(source) == ToolResult(f"it answers with status {status}", is_error=True)


@on_uvloop
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(net: Net, status: int) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"location": "/elsewhere"})

    server, source = await served(net, answer)
    with pytest.raises(ToolServerError, match="a redirect, which is not followed: check its URL"):
        await called(source)
    assert len(server.requests) == 1


@on_uvloop
async def test_after_retry_after_nothing_is_asked(net: Net) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"retry-after": "60"})

    server, source = await served(net, answer)
    assert (await called(source)).is_error
    with pytest.raises(ToolServerError, match="it has asked for a pause, which ends in 60 s") as raised:
        await called(source)
    assert (raised.value.fault, raised.value.may_have_run, len(server.requests)) == ("wait", False, 1)


@on_uvloop
@pytest.mark.parametrize("status", [400, 404, 500])
async def test_retry_after_of_a_call_that_is_refused_for_itself_keeps_nobody(net: Net, status: int) -> None:
    async def answer(request: web.Request) -> web.Response:
        if len(server.requests) > 1:
            return web.json_response(1)
        return web.Response(status=status, headers={"retry-after": "60"})

    server, source = await served(net, answer)
    assert (await called(source)).is_error
    assert await called(source) == ToolResult(1)


@on_uvloop
async def test_a_pause_ends_where_the_call_of_another_caller_succeeds(net: Net) -> None:
    refused = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if len(server.requests) == 2:
            return web.Response(status=429, headers={"retry-after": "60"})
        await refused.wait()
        return web.json_response(1)

    server, source = await served(net, answer)
    [offered] = (await source.list_tools()).tools
    running = asyncio.create_task(source.call(offered, {"city": "Oslo"}, META, caller="bob"))
    await until(lambda: len(server.requests) == 1)
    assert (await source.call(offered, {"city": "Oslo"}, META, caller="hostile")).is_error
    with pytest.raises(ToolServerError, match="it has asked for a pause"):
        await source.call(offered, {"city": "Oslo"}, META, caller="carol")
    refused.set()
    assert await running == ToolResult(1)
    assert await source.call(offered, {"city": "Oslo"}, META, caller="carol") == ToolResult(1)


@on_uvloop
async def test_a_kept_connection_that_is_closed_sends_no_call_again(net: Net) -> None:
    async def answer(request: web.Request) -> web.Response:
        if len(server.requests) > 1:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(1)

    server, source = await served(net, answer)
    assert await called(source) == ToolResult(1)
    with pytest.raises(ToolServerError) as raised:
        await called(source)
    assert (raised.value.fault, raised.value.may_have_run) == ("lost", True)
    assert len(server.requests) == 2


@on_uvloop
async def test_a_late_or_cancelled_call_closes_its_connection(net: Net) -> None:
    closed: list[int] = []

    async def answer(request: web.Request) -> web.Response:
        while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110  # aiohttp sets none
            await asyncio.sleep(0.01)
        closed.append(1)
        return web.Response()

    server, source = await served(net, answer, timeout=0.2)
    with pytest.raises(ToolServerError, match=r"it does not answer within 0.2 s") as raised:
        await called(source)
    assert (raised.value.fault, raised.value.may_have_run) == ("late", True)
    await until(lambda: len(closed) == 1)
    call = asyncio.ensure_future(called(source))
    await until(lambda: len(server.requests) == 2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: len(closed) == 2)


@on_uvloop
async def test_a_server_out_of_reach_is_named_by_its_own_key(net: Net) -> None:
    source = tool_of(net, f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(ToolServerError, match="check `url`") as raised:
        await called(source)
    assert (raised.value.fault, raised.value.may_have_run) == ("unreachable", False)
    assert "base_url" not in str(raised.value)


@on_uvloop
async def test_a_wrong_url_is_refused_at_once_and_not_shown(net: Net) -> None:
    for url in ("ftp://a/", f"http://a/{KEY} x"):
        with pytest.raises(ValueError, match=r"\w") as raised:
            tool_of(net, url)
        assert KEY not in str(raised.value)
