"""`net/tools/tool_client.py`: protocols, sessions that are lost, streams that are resumed, lists that change; servers
of the package `mcp` as peers, over HTTP and as processes.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gai_fast.net.tools.protocol import STATELESS, Agreement
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.net.tools.stdio_wire import StdioWire
from gai_fast.net.tools.tool_client import ToolClient
from gai_fast.net.tools.tool_list import OfferedTool
from gai_fast.net.tools.tool_results import ResultPart, ToolResult
from gai_fast.net.tools.wire import ToolProgress
from tests.conftest import ChangeLimits
from tests.integration.gateway import SSE_HEAD, Net, Peer, on_both_loops, on_uvloop
from tests.integration.mcp_servers import (
    DISCOVERED,
    TOOL,
    Noted,
    ScriptedServer,
    client_of,
    event,
    progress,
    refusal,
    reply,
    said,
    send,
    started,
    stream,
)
from tests.ports import free_port
from tests.waiting import until, until_answered
from tests.wire import chunk

HERE = Path(__file__).parent
OLD = "2025-06-18"
BEGIN = ["server/discover", "initialize", "notifications/initialized"]


async def ok(peer: Peer, message: dict[str, Any]) -> None:
    await send(peer, reply(message, said("ok")))


async def tool_of(client: ToolClient) -> Any:
    return (await client.list_tools()).tools["t"]


# ---- sessions --------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_an_older_server_gets_a_session_and_its_end(net: Net) -> None:
    server = ScriptedServer(ok, session=OLD)
    client = client_of(net, (await started(net, server)).url)
    assert await client.connect() == Agreement(OLD, "old", "s1")
    assert await client.call(await tool_of(client), {}) == ToolResult("ok")
    await client.close()
    assert server.asked == [*BEGIN, "tools/list", "tools/call", "DELETE"]
    for head in server.heads[2:]:
        assert "\r\nmcp-session-id: s1\r\n" in head
        assert f"\r\nmcp-protocol-version: {OLD}\r\n" in head
        assert "mcp-method" not in head
    assert server.messages[-2]["params"]["_meta"] == {"progressToken": server.messages[-2]["id"]}


@on_both_loops
async def test_a_lost_session_is_begun_anew_once(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        if b"mcp-session-id: s1\r\n" in peer.head:
            await send(peer, refusal(message, -32600), status="404 Not Found")
        else:
            await ok(peer, message)

    server = ScriptedServer(answer, session=OLD)
    client = client_of(net, (await started(net, server)).url)
    tool = await tool_of(client)
    both = await asyncio.gather(client.call(tool, {}), client.call(tool, {}))
    assert both == [ToolResult("ok"), ToolResult("ok")]
    assert server.asked.count("tools/call") == 4
    assert server.sessions == 2


LOSSES: dict[str, tuple[str, Any]] = {
    "400": ("400 Bad Request", {"code": -32000, "message": "Bad Request: No valid session ID provided"}),
    "400 without a body": ("400 Bad Request", None),
    "401": ("401 Unauthorized", None),
    "403": ("403 Forbidden", None),
    "409": ("409 Conflict", None),
    "410": ("410 Gone", None),
    "422": ("422 Unprocessable Entity", None),
    "an invalid request": ("200 OK", {"code": -32600, "message": "Bad Request: Missing session ID"}),
    "an error of the server": ("200 OK", {"code": -32001, "message": "Session not found"}),
    "not initialized": ("200 OK", {"code": -32602, "message": "Server not initialized"}),
}
"""How servers say that a session is not there, and have not handled the request."""

DOUBTS: dict[str, tuple[str, Any]] = {
    "408": ("408 Request Timeout", None),
    "500": ("500 Internal Server Error", None),
    "503": ("503 Service Unavailable", None),
    "an internal error": ("200 OK", {"code": -32603, "message": "cannot read properties of undefined"}),
    "an error that names another session": ("200 OK", {"code": -32000, "message": "the database session not found"}),
}
"""Refusals after which the session may be lost, and the call may have run."""

OFFERED = OfferedTool("t", "", {"type": "object"}, 0)


class Forgetful:
    """Refuses requests of the first session."""

    def __init__(self, status: str, error: Any) -> None:
        self.status, self.error = status, error
        self.server = ScriptedServer(self.answer, session=OLD)
        self.server.tools = []

    async def answer(self, peer: Peer, message: dict[str, Any]) -> None:
        if b"mcp-session-id: s1\r\n" not in peer.head.lower():
            result = said("ok") if message["method"] == "tools/call" else {"tools": [TOOL]}
            await send(peer, reply(message, result))
        elif self.error is None:
            await peer.answer(self.status, b"gone")
        else:
            await send(peer, {"jsonrpc": "2.0", "id": message["id"], "error": self.error}, status=self.status)


@pytest.mark.parametrize("name", LOSSES)
@on_uvloop
async def test_however_a_lost_session_is_told_the_call_is_made_in_a_new_one(net: Net, name: str) -> None:
    forgetful = Forgetful(*LOSSES[name])
    client = client_of(net, (await started(net, forgetful.server)).url)
    assert await client.call(OFFERED, {}) == ToolResult("ok")
    assert await client.call(OFFERED, {}) == ToolResult("ok")
    assert forgetful.server.asked == [*BEGIN, "tools/call", *BEGIN, "tools/call", "tools/call"]


@pytest.mark.parametrize("name", DOUBTS)
@on_uvloop
async def test_a_call_that_may_have_run_is_not_made_again_and_the_next_one_begins_a_session(
    net: Net, name: str
) -> None:
    forgetful = Forgetful(*DOUBTS[name])
    client = client_of(net, (await started(net, forgetful.server)).url)
    with pytest.raises(ToolServerError):
        await client.call(OFFERED, {})
    assert await client.call(OFFERED, {}) == ToolResult("ok")
    pings = ["ping"] * DOUBTS[name][0].startswith("200")
    assert forgetful.server.asked == [*BEGIN, "tools/call", *pings, *BEGIN, "tools/call"]


@pytest.mark.parametrize("code", [-32603, -32000, 0])
@on_uvloop
async def test_a_tool_that_fails_by_an_error_keeps_the_session(net: Net, code: int) -> None:
    """So tools of Rust's SDK and of low-level servers in Python and TypeScript tell their failures."""

    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        if message["method"] == "ping":
            await send(peer, reply(message, {}))
        else:
            await send(peer, {"jsonrpc": "2.0", "id": message["id"], "error": {"code": code, "message": "no file"}})

    server = ScriptedServer(answer, session=OLD)
    client = client_of(net, (await started(net, server)).url)
    for _ in range(3):
        with pytest.raises(ToolServerError, match="no file"):
            await client.call(OFFERED, {})
    assert server.asked == [*BEGIN, "tools/call", "ping", "tools/call", "ping", "tools/call"]
    assert server.sessions == 1


@on_uvloop
async def test_calls_at_once_ask_one_ping(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        if message["method"] == "ping":
            await send(peer, reply(message, {}))
        elif message["params"]["arguments"]:
            await send(peer, refusal(message, -32603))
        else:
            await ok(peer, message)

    server = ScriptedServer(answer, session=OLD)
    client = client_of(net, (await started(net, server)).url)
    with pytest.raises(ToolServerError):
        await client.call(OFFERED, {"fail": 1})
    assert await asyncio.gather(*(client.call(OFFERED, {}) for _ in range(3))) == [ToolResult("ok")] * 3
    assert server.asked == [*BEGIN, "tools/call", "ping", *["tools/call"] * 3]


@pytest.mark.parametrize("name", [*LOSSES, *DOUBTS])
@on_uvloop
async def test_a_list_whose_session_is_lost_is_read_in_a_new_one(net: Net, name: str) -> None:
    forgetful = Forgetful(*{**LOSSES, **DOUBTS}[name])
    client = client_of(net, (await started(net, forgetful.server)).url)
    assert [*(await client.list_tools()).tools] == ["t"]
    assert forgetful.server.asked == [*BEGIN, "tools/list", *BEGIN, "tools/list"]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("200 OK", {"code": -32602, "message": "Unknown tool: t"}),
        ("200 OK", {"code": -32601, "message": "Method not found"}),
        ("429 Too Many Requests", None),
        ("413 Content Too Large", None),
    ],
)
@on_uvloop
async def test_a_refusal_of_one_request_ends_no_session(net: Net, status: str, error: Any) -> None:
    forgetful = Forgetful(status, error)
    client = client_of(net, (await started(net, forgetful.server)).url)
    for _ in range(2):
        with pytest.raises(ToolServerError):
            await client.call(OFFERED, {})
    assert forgetful.server.asked == [*BEGIN, "tools/call", "tools/call"]


@on_uvloop
async def test_a_server_of_another_protocol_than_before_is_asked_anew(net: Net) -> None:
    """A server without sessions is replaced by one of before."""

    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        if b"mcp-session-id: s1\r\n" in peer.head.lower():
            await ok(peer, message)
        else:
            await peer.answer("400 Bad Request", b"Mcp-Session-Id header is required")

    server = ScriptedServer(answer)
    client = client_of(net, (await started(net, server)).url)
    await client.connect()
    server.session = OLD
    with pytest.raises(ToolServerError, match="status 400"):
        await client.call(OFFERED, {})
    assert await client.call(OFFERED, {}) == ToolResult("ok")
    assert server.asked == ["server/discover", "tools/call", *BEGIN, "tools/call"]


@on_uvloop
async def test_a_server_that_loses_every_session_is_an_error(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await peer.answer("404 Not Found", b"")

    server = ScriptedServer(answer, session=OLD)
    client = client_of(net, (await started(net, server)).url)
    tool = await tool_of(client)
    with pytest.raises(ToolServerError, match="its session has ended"):
        await client.call(tool, {})
    assert server.asked.count("tools/call") == 2


@on_both_loops
async def test_a_cut_stream_is_resumed_after_the_time_that_the_server_names(
    net: Net, change_limits: ChangeLimits
) -> None:
    change_limits(resumption_least=0.001)
    asked: dict[str, Any] = {}

    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        last = peer.head.lower().partition(b"last-event-id: ")[2].partition(b"\r\n")[0]
        if message:
            asked.update(message)
            await stream(peer, chunk(b"retry: 1\n"), event(b"", 7))
        elif last == b"7":
            await stream(peer, event(progress(asked, 1), 8))
        elif server.asked.count("GET") < 4:
            raise EOFError  # the connection breaks before a response
        else:
            assert last == b"8"
            await stream(peer, event(reply(asked, said("ok")), 9))

    server = ScriptedServer(answer, session=OLD)
    client = client_of(net, (await started(net, server)).url)
    found: list[ToolProgress] = []
    tool = await tool_of(client)
    assert await client.call(tool, {}, on_progress=found.append) == ToolResult("ok")
    assert [each.progress for each in found] == [1]
    assert server.asked.count("tools/call") == 1
    assert all("mcp-session-id: s1" in head for head in server.heads if head.startswith("get "))


@on_uvloop
async def test_a_stream_that_cannot_be_resumed_leaves_the_outcome_unknown(
    net: Net, change_limits: ChangeLimits
) -> None:
    change_limits(resumption=0.001, resumption_least=0.001)

    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        if message:
            await stream(peer, event(b"", 7))
        else:
            await peer.answer("404 Not Found", b"")  # the session as well: the call is not made again

    server = ScriptedServer(answer, session=OLD)
    client = client_of(net, (await started(net, server)).url)
    tool = await tool_of(client)
    with pytest.raises(ToolServerError, match=r"its stream cannot be resumed: it answers with status 404") as raised:
        await client.call(tool, {})
    assert (raised.value.fault, raised.value.may_have_run) == ("lost", True)
    assert server.asked.count("tools/call") == 1


@on_both_loops
async def test_a_cancelled_call_of_a_session_is_told_to_the_server(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await peer.send(SSE_HEAD, event(progress(message, 1)))
        await peer.until_gone()

    server = ScriptedServer(answer, session=OLD)
    client = client_of(net, (await started(net, server)).url)
    found: list[ToolProgress] = []
    tool = await tool_of(client)
    task = asyncio.ensure_future(client.call(tool, {}, on_progress=found.append))
    await until(lambda: found)
    number = server.messages[-1]["id"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: server.asked[-1] == "notifications/cancelled")
    assert server.messages[-1]["params"] == {"requestId": number}


@on_both_loops
async def test_a_ping_of_the_server_is_answered(net: Net) -> None:
    pinged = asyncio.Event()

    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        if "method" not in message:
            assert message == {"jsonrpc": "2.0", "id": "p", "result": {}}
            await peer.answer("202 Accepted", b"")
            pinged.set()
            return
        await peer.send(SSE_HEAD, event({"jsonrpc": "2.0", "id": "p", "method": "ping"}))
        await pinged.wait()
        await peer.send(event(reply(message, said("ok"))), b"0\r\n\r\n")

    server = ScriptedServer(answer, session=OLD)
    client = client_of(net, (await started(net, server)).url)
    assert await client.call(await tool_of(client), {}) == ToolResult("ok")


# ---- protocols -------------------------------------------------------------------------------------------------------


@on_uvloop
async def test_a_refused_version_is_asked_for_once_more(net: Net) -> None:
    async def handle(peer: Peer) -> None:
        for number in range(2):
            await peer.request()
            message = {"id": number + 1}
            if not number:
                refused = refusal(message, -32022, data={"supported": [STATELESS]})
                await send(peer, refused, status="400 Bad Request")
        await send(peer, reply(message, DISCOVERED))

    upstream = await net.upstream(handle)
    assert await client_of(net, upstream.url).connect() == Agreement(STATELESS)


@on_uvloop
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "500 Oh"])
async def test_an_error_of_an_older_server_begins_a_session(net: Net, status: str) -> None:
    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            if b'"initialize"' in peer.body:
                await send(peer, reply({"id": 2}, {"protocolVersion": "2025-03-26"}))
            elif b"discover" in peer.body:
                await send(peer, refusal({"id": 1}, -32601), status=status)
            else:
                await peer.answer("202 Accepted", b"")

    upstream = await net.upstream(handle)
    assert await client_of(net, upstream.url).connect() == Agreement("2025-03-26")


# ---- lists -----------------------------------------------------------------------------------------------------------


def paged(*pages: Any) -> Any:
    """Returns an answer to `tools/list` that gives these pages, one after the other; an error for None."""
    left = [*pages]

    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        page = left.pop(0)
        if page is None:
            await send(peer, refusal(message, -32602), status="400 Bad Request")
        else:
            await send(peer, reply(message, page))

    return answer


@on_uvloop
async def test_a_list_that_changes_is_begun_anew_once(net: Net) -> None:
    first = {"tools": [{**TOOL, "name": "old"}], "nextCursor": "2"}
    server = ScriptedServer(paged(first, None, {**first, "tools": [TOOL]}, {"tools": [{**TOOL, "name": "u"}]}))
    server.tools = []
    client = client_of(net, (await started(net, server)).url)
    assert [*(await client.list_tools()).tools] == ["t", "u"]
    assert [message["params"].get("cursor") for message in server.messages[1:]] == [None, "2", None, "2"]
    server.answer = paged(first, None, first, None)
    with pytest.raises(ToolServerError, match="code -32602"):
        await client.list_tools()


@on_uvloop
async def test_calls_that_need_a_connection_share_one_attempt_and_their_time(net: Net) -> None:
    class Slow(ScriptedServer):
        async def _handled(self, peer: Peer, message: dict[str, Any]) -> bool:
            await asyncio.sleep(wait_of[message["method"]])
            return await super()._handled(peer, message)

    wait_of = {"server/discover": 600.0, "tools/call": 0.7}
    server = Slow(ok)
    upstream = await started(net, server)
    tool = OfferedTool("t", "", {}, 2)
    client = client_of(net, upstream.url, timeout=0.5)
    for problem in await asyncio.gather(*(client.call(tool, {}) for _ in range(5)), return_exceptions=True):
        assert isinstance(problem, ToolServerError)
        assert (str(problem), problem.may_have_run) == ("it does not answer within 0.5 s", False)
    assert server.asked == ["server/discover"]

    wait_of["server/discover"] = 0.7
    client = client_of(net, upstream.url, timeout=1.0)
    with pytest.raises(ToolServerError, match="it does not answer within 1 s"):
        await client.call(tool, {})
    assert server.asked[1:] == ["server/discover", "tools/call"]


@on_uvloop
async def test_a_list_has_one_bound_of_time(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await asyncio.sleep(0.2)
        await send(peer, reply(message, {"tools": [], "nextCursor": "more"}))

    server = ScriptedServer(answer)
    server.tools = []
    client = client_of(net, (await started(net, server)).url, timeout=0.4)
    with pytest.raises(ToolServerError, match=r"its list of tools is not there within 1.6 s"):
        await client.list_tools()
    assert server.asked.count("tools/list") <= 8


@on_uvloop
async def test_a_call_that_lacks_a_header_is_made_by_a_new_list(net: Net) -> None:
    header = {"type": "string", "x-mcp-header": "Region"}
    changed = {**TOOL, "inputSchema": {"type": "object", "properties": {"region": header}}}

    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        if b"mcp-param-region: eu" in peer.head.lower():
            await ok(peer, message)
        else:
            server.tools = [changed]
            await send(peer, refusal(message, -32020), status="400 Bad Request")

    server = ScriptedServer(answer)
    client = client_of(net, (await started(net, server)).url)
    tool = await tool_of(client)
    assert await client.call(tool, {"region": "eu"}) == ToolResult("ok")
    with pytest.raises(ToolServerError, match="code -32020"):  # the new list says nothing new
        await client.call(await tool_of(client), {})
    assert server.asked.count("tools/call") == 3


# ---- servers of the package `mcp` ------------------------------------------------------------------------------------


class OfSessions(ToolClient):
    """A client of before 2026-07-28."""

    async def _discovered(self) -> None:
        return None


async def try_peer(client: ToolClient, version: str) -> None:
    assert (await client.connect()).version == version
    listed = await client.list_tools()
    assert ([*listed.tools], listed.left_out) == (["add", "steps", "picture", "fails"], ())
    assert [tool.name for tool in listed.tools.values() if tool.is_read_only] == ["add"]
    assert await client.call(listed.tools["add"], {"a": 2, "b": 3}) == ToolResult({"result": 5})
    found: list[ToolProgress] = []
    assert (await client.call(listed.tools["steps"], {"count": 3}, on_progress=found.append)).value == {
        "result": "done"
    }
    assert found == [ToolProgress(number, 3, f"step {number}") for number in range(3)]
    picture = await client.call(listed.tools["picture"], {})
    assert picture.parts == (ResultPart("image", "iVBORw==", "image/png"),)
    failed = await client.call(listed.tools["fails"], {})
    assert failed.is_error
    assert "fails" in failed.value


@asynccontextmanager
async def peer_on_http() -> AsyncIterator[str]:
    """Yields the URL of a server in a process of its own."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, str(HERE / "mcp_peer.py"), str(port))
    try:
        async with aiohttp.ClientSession() as session:

            async def answers() -> bool:
                try:
                    async with session.get(f"http://127.0.0.1:{port}/"):
                        return True
                except aiohttp.ClientConnectionError:
                    return False

            await until_answered(answers)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        await process.wait()


@on_uvloop
async def test_a_server_of_the_package_mcp_on_http(net: Net) -> None:
    async with peer_on_http() as url:
        await try_peer(client_of(net, url), STATELESS)
        older = client_of(net, url, kind=OfSessions)
        await try_peer(older, "2025-11-25")
        await older.close()


@on_uvloop
@pytest.mark.parametrize(("kind", "version"), [(ToolClient, STATELESS), (OfSessions, "2025-11-25")])
async def test_a_process_of_the_package_mcp(net: Net, kind: type[ToolClient], version: str) -> None:
    command = [sys.executable, str(HERE / "mcp_peer.py")]
    client = kind(StdioWire(command, shows_errors=True, loop=asyncio.get_running_loop()))
    net.stack.push_async_callback(client.close)
    await try_peer(client, version)


def test_serve_without_tools_imports_nothing_of_them() -> None:
    code = (
        "import sys\n"
        "import gai_fast.cli.serve, gai_fast.server.serving, gai_fast.library.gateway\n"
        "print([name for name in sys.modules if name.startswith('gai_fast.net.tool')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


# ---- beside the loop -------------------------------------------------------------------------------------------------

LARGE = "x" * 300_000


@on_both_loops
@pytest.mark.parametrize("way", ["json", "events", "events without an end"])
async def test_a_large_result_is_read_beside_the_loop_in_the_turn_of_its_caller(net: Net, way: str) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        answered = reply(message, said(LARGE))
        if way == "json":
            await send(peer, answered)
        else:
            events = progress(message, 1), answered, progress(message, 2), reply(message, said("another"))
            await stream(peer, *map(event, events), is_whole=way == "events")

    beside, found = Noted(net), list[ToolProgress]()
    client = client_of(net, (await started(net, ScriptedServer(answer))).url, beside=beside.do, max_result=1 << 20)
    tool = await tool_of(client)
    assert beside.callers == [], "what is small is read in the loop"
    assert await client.call(tool, {}, caller="ann", on_progress=found.append) == ToolResult(LARGE)
    assert beside.callers == ["ann", "ann"], "the message, and its result"
    assert [each.progress for each in found] == ([] if way == "json" else [1, 2])[: len(found)]
    assert await client.call(tool, {}, caller="bob") == ToolResult(LARGE)


@on_both_loops
async def test_a_large_list_is_read_beside_the_loop_in_turns(net: Net) -> None:
    tools = [{"name": f"t{at}", "inputSchema": {"title": "\\ud800 \ud83d\ude00" + "x" * 40_000}} for at in range(9)]
    half = {"name": "half", "inputSchema": {"title": "\ud800"}}
    beside = Noted(net)
    url = (await started(net, ScriptedServer(ok, *tools, half))).url
    listed = await client_of(net, url, beside=beside.do).list_tools()
    assert [*listed.tools] == [f"t{at}" for at in range(9)]
    assert listed.left_out == (("half", "it has half of a surrogate pair"),)
    assert len(beside.callers) > 4


@on_both_loops
async def test_a_call_that_is_cancelled_while_its_result_is_read_leaves_nothing(net: Net) -> None:
    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await stream(peer, event(reply(message, said(LARGE))), is_whole=False)

    asked = asyncio.Event()
    never = asyncio.get_running_loop().create_future()

    def beside(caller: str, work: Callable[[], Any]) -> Awaitable[Any]:
        asked.set()
        return never

    client = client_of(net, (await started(net, ScriptedServer(answer))).url, beside=beside)
    tool = await tool_of(client)
    call = asyncio.create_task(client.call(tool, {}))
    await asked.wait()
    call.cancel()
    await asyncio.wait((call,))
    await until(never.cancelled)
