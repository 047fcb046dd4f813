"""Servers of tools on HTTP that fail: `net/tools/http_wire.py` over real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gai_fast.net.tools.http_wire import tool_server_address
from gai_fast.net.tools.protocol import STATELESS
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.net.tools.tool_client import ToolClient
from gai_fast.net.tools.tool_results import ToolResult
from gai_fast.net.tools.wire import ToolProgress
from tests.conftest import ChangeLimits
from tests.integration.gateway import SSE_HEAD, Net, Peer, on_both_loops, on_uvloop
from tests.integration.mcp_servers import (
    JSON,
    Answer,
    ScriptedServer,
    client_of,
    event,
    progress,
    reply,
    said,
    send,
    started,
    stream,
)
from tests.limits import LIMITS
from tests.ports import free_port
from tests.waiting import until
from tests.wire import chunk

SECRET = "Bearer sk-canary-0123456789"
MIB = 1 << 20


async def called(client: ToolClient, **options: Any) -> ToolResult:
    tools = (await client.list_tools()).tools
    return await client.call(tools["t"], {}, **options)


async def failed(net: Net, answer: Answer, **options: Any) -> tuple[ToolServerError, ScriptedServer]:
    """Returns how a call fails; no text shows the secret."""
    server = ScriptedServer(answer)
    upstream = await started(net, server)
    client = client_of(net, upstream.url, {"authorization": SECRET}, **options)
    with pytest.raises(ToolServerError) as raised:
        await called(client)
    assert "sk-canary" not in str(raised.value)
    assert all("authorization: bearer sk-canary-0123456789" in head for head in server.heads)
    assert server.asked.count("tools/call") == 1
    return raised.value, server


# ---- what a good server gets -----------------------------------------------------------------------------------------


@on_both_loops
async def test_a_call_has_its_headers_and_its_metadata_on_one_connection(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await send(peer, reply(message, said("ok")))

    header = {"type": "string", "x-mcp-header": "Region"}
    named = {"name": "t", "inputSchema": {"type": "object", "properties": {"region": header}}}
    server = ScriptedServer(answer, named)
    upstream = await started(net, server)
    client = client_of(net, f"{upstream.url}/mcp?team=blue")
    tool = (await client.list_tools()).tools["t"]
    assert await client.call(tool, {"region": "é"}, meta={"traceparent": "00-1"}) == ToolResult("ok")
    assert server.asked == ["server/discover", "tools/list", "tools/call"]
    assert len(upstream.peers) == 1
    head, meta = server.heads[-1], server.messages[-1]["params"]["_meta"]
    assert head.startswith("post /mcp?team=blue http/1.1\r\n")
    for line in ("mcp-protocol-version: 2026-07-28", "mcp-method: tools/call", "mcp-name: t", "mcp-param-region: =?ba"):
        assert f"\r\n{line}" in head
    assert meta["io.modelcontextprotocol/protocolVersion"] == STATELESS
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {}
    assert (meta["traceparent"], meta["progressToken"]) == ("00-1", server.messages[-1]["id"])


@on_both_loops
async def test_a_stream_brings_progress_and_its_connection_is_kept(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        events = [event(progress(message, number)) for number in (1, 2.5)]
        await stream(peer, chunk(b": alive\n\n"), *events, event(reply(message, said("ok"))))

    upstream = await started(net, ScriptedServer(answer))
    client = client_of(net, upstream.url)
    found: list[ToolProgress] = []
    assert await called(client, on_progress=found.append) == ToolResult("ok")
    assert await called(client) == ToolResult("ok")
    assert found == [ToolProgress(1, None, ""), ToolProgress(2.5, None, "")]
    assert len(upstream.peers) == 1


@on_both_loops
async def test_a_cancelled_call_closes_its_connection(net: Net) -> None:
    gone = asyncio.Event()

    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await peer.send(SSE_HEAD, event(progress(message, 1)))
        await peer.until_gone()
        gone.set()

    upstream = await started(net, ScriptedServer(answer))
    client = client_of(net, upstream.url)
    found: list[ToolProgress] = []
    task = asyncio.ensure_future(called(client, on_progress=found.append))
    await until(lambda: found)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone.wait()


@on_uvloop
async def test_progress_renews_the_time_of_a_call(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await peer.send(SSE_HEAD)
        for number in range(4):
            await peer.send(event(progress(message, number)))
            await asyncio.sleep(0.25)
        await stream_end(peer, message)

    upstream = await started(net, ScriptedServer(answer))
    assert await called(client_of(net, upstream.url, timeout=0.8)) == ToolResult("ok")


async def stream_end(peer: Peer, message: dict[str, Any]) -> None:
    await peer.send(event(reply(message, said("ok"))), b"0\r\n\r\n")


@on_uvloop
async def test_a_tool_that_fails_shows_no_secret(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await send(peer, reply(message, {**said(f"refused: {SECRET}"), "isError": True}))

    upstream = await started(net, ScriptedServer(answer))
    client = client_of(net, upstream.url, {"authorization": SECRET})
    assert await called(client) == ToolResult("refused: ***", is_error=True)


# ---- faults ----------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_dead_server_is_unreachable(net: Net) -> None:
    client = client_of(net, f"http://127.0.0.1:{free_port()}/mcp")
    with pytest.raises(ToolServerError, match="cannot connect") as raised:
        await client.connect()
    assert (raised.value.fault, raised.value.may_have_run) == ("unreachable", False)


SILENT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"


@on_uvloop
@pytest.mark.parametrize("sent", [b"", SILENT, SSE_HEAD], ids=["at all", "after the head", "in a stream"])
async def test_a_silent_server_is_late(net: Net, sent: bytes) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await peer.send(sent)
        await peer.until_gone()

    problem, _ = await failed(net, answer, timeout=0.3)
    assert (str(problem), problem.fault) == ("it does not answer within 0.3 s", "late")
    assert problem.may_have_run


@on_both_loops
async def test_a_kept_connection_that_breaks_under_a_call_does_not_repeat_it(net: Net) -> None:
    """A list on a dead kept connection is asked for again, by the pool."""
    is_bad = False

    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        if is_bad:
            raise EOFError
        await send(peer, reply(message, said("ok")))

    server = ScriptedServer(answer)
    upstream = await started(net, server)
    client = client_of(net, upstream.url)
    assert await called(client) == ToolResult("ok")
    is_bad = True
    with pytest.raises(ToolServerError) as raised:
        await called(client)
    assert (raised.value.fault, raised.value.may_have_run) == ("lost", True)
    assert server.asked.count("tools/call") == 2


@on_both_loops
@pytest.mark.parametrize("is_stream", [True, False])
async def test_the_first_of_two_answers_counts(net: Net, is_stream: bool) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        both = [reply(message, said("one")), reply(message, said("two"))]
        if is_stream:
            await peer.send(SSE_HEAD, event(both[0]), event(both[1]), event(both[1]))
            await peer.until_gone()
        else:
            await send(peer, both)

    upstream = await started(net, ScriptedServer(answer))
    assert await called(client_of(net, upstream.url)) == ToolResult("one")


@on_uvloop
async def test_100_000_notices_harm_nothing(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        log = b"data: " + json.dumps({"method": "notifications/message", "params": {"data": "x"}}).encode() + b"\n\n"
        step = b"data: " + json.dumps(progress(message, 1)).encode() + b"\n\n"
        await peer.send(SSE_HEAD, *[chunk((log + step) * 1000) for _ in range(50)])
        await stream_end(peer, message)

    upstream = await started(net, ScriptedServer(answer))
    found: list[ToolProgress] = []
    assert await called(client_of(net, upstream.url), on_progress=found.append) == ToolResult("ok")
    assert len(found) == LIMITS.tool_progress


async def another_id(peer: Peer, message: dict[str, Any]) -> None:
    await send(peer, {**reply(message, said("ok")), "id": 10_000})


async def another_id_in_a_stream(peer: Peer, message: dict[str, Any]) -> None:
    await stream(peer, event({**reply(message, said("ok")), "id": str(message["id"])}))


async def large_body(peer: Peer, message: dict[str, Any]) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    await large(peer)


async def announced(peer: Peer, message: dict[str, Any]) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50000000\r\n\r\n")
    await peer.until_gone()


async def large_event(peer: Peer, message: dict[str, Any]) -> None:
    await peer.send(SSE_HEAD, chunk(b"data: "))
    await large(peer)


async def large(peer: Peer) -> None:
    for _ in range(50):
        await peer.send(chunk(b"x" * MIB))


def body(data: bytes, *headers: str, status: str = "200 OK") -> Answer:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await peer.answer(status, data, *headers)

    return answer


TOO_LARGE = "it sends a message of more than 8388608 bytes (limit tool_message)"
HTML = b"<html>sk-canary-0123456789</html>"
FAULTS: dict[str, tuple[Answer, str, str, bool]] = {
    "another id": (another_id, "it answers another request", "form", True),
    "another id in a stream": (another_id_in_a_stream, "it ends its stream without an answer", "lost", True),
    "50 MB": (large_body, TOO_LARGE, "form", True),
    "50 MB, announced": (announced, TOO_LARGE, "form", True),
    "50 MB in a stream": (large_event, TOO_LARGE, "form", True),
    "invalid JSON": (body(b'{"a":', JSON), "it sends what is not JSON", "form", True),
    "deep JSON": (body(b"[" * 9999, JSON), "it sends JSON that is nested too deep", "form", True),
    "HTML": (
        body(HTML, "Content-Type: text/html"),
        "it answers with text/html, neither JSON nor a stream of events: check its URL",
        "form",
        True,
    ),
    "no body": (body(b""), "it answers without a body", "form", True),
    "202": (body(b"", JSON, status="202 Accepted"), "it answers without a body", "form", True),
    "401": (body(HTML, JSON, status="401 No"), "it answers with status 401: check its credential", "status", False),
    "403 and JSON": (
        body(b'{"id":null,"error":{"code":1,"message":"x"}}', JSON, status="403 No"),
        "it answers with status 403: check its credential",
        "status",
        False,
    ),
    "404": (body(HTML, status="404 No"), "it answers with status 404", "status", False),
    "500 and no message": (body(b"{}", JSON, status="500 No"), "it answers with status 500", "status", True),
    "redirect": (
        body(b"", "Location: http://127.0.0.1:1/sk-canary-0123456789", status="307 Elsewhere"),
        "it answers with a redirect, which is not followed: check its URL",
        "status",
        False,
    ),
    "an error that quotes the secret": (
        body(json.dumps({"id": None, "error": {"code": -32000, "message": f"bad {SECRET}"}}).encode(), JSON,
             status="400 No"),
        "it answers: bad *** (code -32000)",
        "refused",
        False,
    ),
}  # fmt: skip


@on_uvloop
@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_of_a_server_is_named_and_asked_for_once(net: Net, name: str) -> None:
    answer, text, fault, may_have_run = FAULTS[name]
    problem, _ = await failed(net, answer)
    assert (str(problem), problem.fault, problem.may_have_run) == (text, fault, may_have_run)


@on_uvloop
async def test_after_429_nothing_is_asked_before_its_time(net: Net) -> None:
    server = ScriptedServer(body(b"", "Retry-After: 1", status="429 Slow"))
    upstream = await started(net, server)
    client = client_of(net, upstream.url)
    tool = (await client.list_tools()).tools["t"]
    texts = []
    for _ in range(3):
        with pytest.raises(ToolServerError) as raised:
            await client.call(tool, {})
        texts.append((str(raised.value), raised.value.fault))
    assert texts == [
        ("it answers with status 429", "status"),
        *[("it has asked for a pause, which ends in 1 s", "wait")] * 2,
    ]
    assert server.asked.count("tools/call") == 1
    server.answer = body(b"", status="404 No")
    while server.asked.count("tools/call") == 1:  # its time has come
        with pytest.raises(ToolServerError):
            await client.call(tool, {})
        await asyncio.sleep(0.05)


@on_uvloop
async def test_a_stream_that_goes_on_after_its_answer_is_closed(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(stream_end=0.1)
    gone = asyncio.Event()

    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await peer.send(SSE_HEAD, event(reply(message, said("ok"))))
        await peer.until_gone()
        gone.set()

    upstream = await started(net, ScriptedServer(answer))
    assert await called(client_of(net, upstream.url)) == ToolResult("ok")
    await gone.wait()


@on_uvloop
async def test_a_body_that_nothing_asked_for_is_not_read_for_ever(net: Net) -> None:
    server = ScriptedServer(stream_end, session="2025-06-18")
    is_gone = False

    handled = server._handled

    async def endless(peer: Peer, message: dict[str, Any]) -> bool:
        nonlocal is_gone
        if message.get("method") != "notifications/initialized":
            return await handled(peer, message)
        try:
            await peer.send(b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(1000):
                await peer.send(chunk(b"x" * 65_536))
        except OSError:
            is_gone = True
        raise EOFError

    server._handled = endless
    client = client_of(net, (await started(net, server)).url)
    await client.connect()
    await until(lambda: is_gone)


@on_uvloop
async def test_secrets_of_its_url_are_cut_out(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        said = "no route /services/PATHkey12 with QUERYkey1 or 'two words12' in a=QUERYkey1&b=two+words12"
        await send(peer, {"id": message["id"], "error": {"code": -1, "message": said}})

    upstream = await started(net, ScriptedServer(answer))
    client = client_of(net, f"{upstream.url}/services/PATHkey12?a=QUERYkey1&b=two+words12")
    with pytest.raises(ToolServerError) as raised:
        await called(client)
    assert str(raised.value) == "it answers: no route /services/*** with *** or '***' in *** (code -1)"


@on_uvloop
async def test_arguments_that_break_a_bound_are_not_sent(net: Net) -> None:
    server = ScriptedServer(another_id)
    upstream = await started(net, server)
    client = client_of(net, upstream.url)
    tool = (await client.list_tools()).tools["t"]
    deep: dict[str, Any] = {}
    for _ in range(LIMITS.tool_depth):
        deep = {"a": deep}
    for arguments in (deep, {"a": "x" * LIMITS.tool_arguments}):
        with pytest.raises(ToolServerError, match="the arguments") as raised:
            await client.call(tool, arguments)
        assert raised.value.fault == "argument"
    assert "tools/call" not in server.asked


@on_uvloop
async def test_a_header_of_the_client_cannot_be_set(net: Net) -> None:
    for name in ("Mcp-Session-Id", "accept", "mcp-param-x", "MCP-Name"):
        with pytest.raises(ValueError, match="is set by the client itself"):
            client_of(net, "http://127.0.0.1:1/mcp", {name: "x"})
    with pytest.raises(ValueError, match="line break") as raised:
        client_of(net, "http://127.0.0.1:1/mcp", {"authorization": "a\r\nsk-canary"})
    assert "sk-canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://tools.example.com/mcp", ("https://tools.example.com", "/mcp")),
        ("http://[::1]:8000", ("http://[::1]:8000", "/")),
        ("http://a/b/?c=d", ("http://a", "/b/?c=d")),
    ],
)
def test_an_address_is_split(url: str, address: tuple[str, str]) -> None:
    assert tool_server_address(url) == address


@pytest.mark.parametrize("url", ["ftp://a/", "http://u:sk-canary@a/", "http://a/#sk-canary", "a/b", "http://a:x/"])
def test_an_address_that_cannot_be_used_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="it must") as raised:
        tool_server_address(url)
    assert "sk-canary" not in str(raised.value)
