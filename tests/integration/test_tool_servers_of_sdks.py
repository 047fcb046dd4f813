"""What the servers of the public SDKs send, as their sources have it: each row is an answer, and what is read of it.

A row names its source: the repository, the commit or version, and the file. `mcp` (Python) runs as a peer in
`test_tool_client.py`.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.net.tools.tool_results import ResultPart, ToolResult
from gai_fast.net.tools.wire import ToolProgress
from tests.integration.gateway import Net, Peer, on_uvloop
from tests.integration.mcp_servers import TOOL, ScriptedServer, client_of, started
from tests.integration.test_tool_client import BEGIN, OFFERED
from tests.wire import chunk

OLD = "2025-06-18"
JSON = "application/json"
EVENTS = "text/event-stream"

GO = "go-sdk 3d6450f"
RUST = "rust-sdk 4a738b9d"
JAVA = "java-sdk 305e4cbd"
CSHARP = "csharp-sdk 609499b2"
TYPESCRIPT = "typescript-sdk 1.32.2"
PYTHON = "python-sdk 1.9.0"


class Said(NamedTuple):
    """A response; `ID` in its body is the request's id, and so is the token of its progress."""

    body: str
    media_type: str = JSON
    status: str = "200 OK"
    headers: tuple[str, ...] = ()


def result(value: Any, **more: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": "@", "result": value, **more}).replace('"@"', "ID")


def notice(method: str, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).replace('"@"', "ID")


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


HELLO = result({"content": [text("hello")]})
READ = ToolResult("hello")
BOTH = {"content": [text('{"result": 3}')], "structuredContent": {"result": 3}, "isError": False}

CALLS: dict[str, tuple[str, Said, ToolResult]] = {
    "an event with its name first, then its id": (
        f"{TYPESCRIPT} server/webStandardStreamableHttp.js writeSSEEvent",
        Said(f"event: message\nid: s_1\ndata: {HELLO}\n\n", EVENTS),
        READ,
    ),
    "an event without data, with an id and a time, begins the stream": (
        f"{TYPESCRIPT} server/webStandardStreamableHttp.js writePrimingEvent",
        Said(f"id: s_0\nretry: 1000\ndata: \n\nevent: message\ndata: {HELLO}\n\n", EVENTS),
        READ,
    ),
    "a comment keeps the stream alive": (
        f"{TYPESCRIPT} server/sseKeepAlive.js, server/webStandardStreamableHttp.js",
        Said(f": keepalive\n\n: keepalive\n\nevent: message\ndata: {HELLO}\n\n", EVENTS),
        READ,
    ),
    "a result says one thing twice: as text, and structured": (
        f"{TYPESCRIPT} examples/server/mcpServerOutputSchema.js; {PYTHON} server/lowlevel/server.py",
        Said(result(BOTH)),
        ToolResult({"result": 3}),
    ),
    "a tool that throws is a result that is an error": (
        f"{TYPESCRIPT} server/mcp.js createToolError",
        Said(result({"content": [text("Input validation error")], "isError": True})),
        ToolResult("Input validation error", is_error=True),
    ),
    "lines of the stream end with CRLF, and comments have a date": (
        f"{PYTHON} server/streamable_http.py by sse_starlette (DEFAULT_SEPARATOR, _ping)",
        Said(f": ping - 2026-08-20 10:00:00+00:00\r\n\r\nevent: message\r\ndata: {HELLO}\r\n\r\n", EVENTS),
        READ,
    ),
    "each item of a list is a text of its own": (
        f"{PYTHON} server/fastmcp/server.py _convert_to_content",
        Said(result({"content": [text("a"), text("b")], "isError": False})),
        ToolResult("a\nb"),
    ),
    "an event of another name begins the stream": (
        f"{GO} mcp/streamable.go (Event prime), mcp/event.go writeEvent",
        Said(f"event: prime\nid: s_0\ndata: \n\nevent: message\nid: s_1\ndata: {HELLO}\n\n", EVENTS),
        READ,
    ),
    "content that is nil": (
        f"{GO} mcp/protocol.go CallToolResult.Content, mcp/content_nil_test.go",
        Said(result({"content": None})),
        ToolResult(""),
    ),
    "content that is empty, beside structured content": (
        f"{GO} mcp/protocol.go CallToolResult, mcp/server.go",
        Said(result({"content": [], "structuredContent": [1, 2]})),
        ToolResult([1, 2]),
    ),
    "an event without a name, which has an id with a slash": (
        f"{RUST} crates/rmcp/src/transport/common/server_side_http.rs sse_stream_response",
        Said(f"data:\nretry: 3000\n\nid: 0/0\ndata: {HELLO}\n\n", EVENTS, headers=("X-Accel-Buffering: no",)),
        READ,
    ),
    "a comment without a text": (
        f"{RUST} crates/rmcp/src/transport/common/server_side_http.rs (KeepAlive)",
        Said(f":\n\n:\n\ndata: {HELLO}\n\n", EVENTS),
        READ,
    ),
    "a stream whose type has a charset in capitals, the id before the name": (
        f"{JAVA} HttpServletStreamableServerTransportProvider.java setCharacterEncoding, sendEvent",
        Said(f"id: 7f3c\nevent: message\ndata: {HELLO}\n\n", "text/event-stream;charset=UTF-8"),
        READ,
    ),
    "JSON whose type has a charset": (
        f"{JAVA} HttpServletStreamableServerTransportProvider.java doPost",
        Said(HELLO, "application/json;charset=UTF-8"),
        READ,
    ),
    "structured content that is null, as mappers write all members": (
        f"{JAVA} McpSchema.java CallToolResult, written without its JsonInclude",
        Said(result({"content": [text("hello")], "isError": None, "structuredContent": None, "_meta": None})),
        READ,
    ),
    "an error that is null beside the result, and an id that is a number with a point": (
        f"{JAVA} McpSchema.java JSONRPCResponse, written without its JsonInclude by Gson",
        Said(HELLO.replace("ID", "ID.0").replace('"result"', '"error": null, "result"')),
        READ,
    ),
    "a coding that is none is named": (
        f"{CSHARP} StreamableHttpHandler.cs InitializeSseResponse",
        Said(f"event: message\ndata: {HELLO}\n\n", EVENTS, headers=("Content-Encoding: identity",)),
        READ,
    ),
    "an event with an id in Base64": (
        f"{CSHARP} StreamableHttpPostTransport.cs, SseEventWriter.cs",
        Said(f"event: message\nid: MTIz:NA==:MQ==\ndata: {HELLO}\n\n", EVENTS),
        READ,
    ),
    "a resource, a link, an image": (
        f"{TYPESCRIPT} examples/server/simpleStreamableHttp.js list-files; {GO} mcp/content.go",
        Said(
            result(
                {
                    "content": [
                        {"type": "resource_link", "uri": "file:///a", "name": "a", "size": 3, "mimeType": "text/plain"},
                        {"type": "resource", "resource": {"uri": "file:///b", "text": "bee", "mimeType": "text/plain"}},
                        {"type": "image", "data": "iVBORw0KGgo=", "mimeType": "image/png", "annotations": None},
                    ]
                }
            )
        ),
        ToolResult(
            "file:///a\nbee",
            (
                ResultPart("text", "file:///a"),
                ResultPart("text", "bee"),
                ResultPart("image", "iVBORw0KGgo=", "image/png"),
            ),
        ),
    ),
    "notices and a question between": (
        f"{TYPESCRIPT} examples/server/simpleStreamableHttp.js start-notification-stream; {GO} mcp/server.go",
        Said(
            "".join(
                f"event: message\ndata: {each}\n\n"
                for each in (
                    notice("notifications/message", level="info", data={"a": 1}, logger=None),
                    notice("notifications/tools/list_changed"),
                    '{"jsonrpc":"2.0","method":"notifications/resources/list_changed"}',
                    '{"jsonrpc":"2.0","id":"srv-1","method":"roots/list","params":null}',
                    HELLO,
                )
            ),
            EVENTS,
        ),
        READ,
    ),
    "a type of result that is null": (
        f"{CSHARP} Protocol/Result.cs, as serializers write it that keep nulls",
        Said(result({"resultType": None, "content": [text("hello")]})),
        READ,
    ),
}


class Server(ScriptedServer):
    """A server in sessions that answers as a row says."""

    def __init__(self, said: Said) -> None:
        super().__init__(self.say, session=OLD)
        self.tools = []
        self.said = said

    async def say(self, peer: Peer, message: dict[str, Any]) -> None:
        await tell(peer, message, self.said)


async def tell(peer: Peer, message: dict[str, Any], said: Said) -> None:
    if message.get("method") is None:
        await peer.answer("202 Accepted", b"")
        return
    body = said.body.replace("ID", str(message["id"])).encode()
    if said.media_type.startswith(EVENTS):
        lines = "".join(f"{each}\r\n" for each in (f"Content-Type: {said.media_type}", *said.headers))
        head = f"HTTP/1.1 {said.status}\r\nTransfer-Encoding: chunked\r\n{lines}\r\n".encode()
        await peer.send(head, chunk(body), b"0\r\n\r\n")
    else:
        await peer.answer(said.status, body, f"Content-Type: {said.media_type}", *said.headers)


@pytest.mark.parametrize("name", CALLS)
@on_uvloop
async def test_a_call_is_answered_as_a_server_of_an_sdk_does(net: Net, name: str) -> None:
    source, said, read = CALLS[name]
    client = client_of(net, (await started(net, Server(said))).url)
    assert await client.call(OFFERED, {}) == read, source


LISTS: dict[str, tuple[str, list[Any], list[str]]] = {
    "without a cursor": (f"{TYPESCRIPT} server/mcp.js setToolRequestHandlers", [{"tools": [TOOL]}], ["t"]),
    "with an empty cursor": (
        f"{GO} mcp/protocol.go ListToolsResult.NextCursor, as servers write it that keep empty members",
        [{"tools": [TOOL], "nextCursor": ""}],
        ["t"],
    ),
    "with a cursor that is null": (
        f"{JAVA} McpSchema.java ListToolsResult(tools, null), written without its JsonInclude",
        [{"tools": [TOOL], "nextCursor": None, "_meta": None}],
        ["t"],
    ),
    "with a last page that is empty": (
        f"{GO} mcp/server.go paginateList, mcp/shared.go",
        [{"tools": [TOOL], "nextCursor": "Ag=="}, {"tools": []}],
        ["t"],
    ),
    "without tools: nil": (f"{GO} mcp/protocol.go ListToolsResult.Tools", [{"tools": None}], []),
    "with members that are null": (
        f"{JAVA} McpSchema.java Tool; {RUST} crates/rmcp/src/model/tool.rs",
        [{"tools": [{**TOOL, "title": None, "description": None, "annotations": None, "outputSchema": None}]}],
        ["t"],
    ),
    "with a time of 0": (
        f"{RUST} crates/rmcp/src/model.rs ttl_ms; {GO} mcp/protocol.go TTLMs",
        [{"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": [TOOL]}],
        ["t"],
    ),
    "with a schema of Zod": (
        f"{TYPESCRIPT} server/mcp.js EMPTY_OBJECT_JSON_SCHEMA, execution",
        [{"tools": [{"name": "t", "inputSchema": {"type": "object", "properties": {}}, "execution": {}}]}],
        ["t"],
    ),
}


@pytest.mark.parametrize("name", LISTS)
@on_uvloop
async def test_a_list_ends_as_a_server_of_an_sdk_ends_it(net: Net, name: str) -> None:
    source, pages, names = LISTS[name]

    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await tell(peer, message, Said(result(pages[server.asked.count("tools/list") - 1])))

    server = ScriptedServer(answer, session=OLD)
    server.tools = []
    client = client_of(net, (await started(net, server)).url)
    assert [*(await client.list_tools()).tools] == names, source
    assert server.asked.count("tools/list") == len(pages)


ENDS: dict[str, tuple[str, Said]] = {
    "typescript": (
        f"{TYPESCRIPT} examples/server/simpleStreamableHttp.js: of another transport",
        Said(
            '{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}',
            status="400 Bad Request",
        ),
    ),
    "typescript, not initialized": (
        f"{TYPESCRIPT} server/webStandardStreamableHttp.js validateSession",
        Said(
            '{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}',
            status="400 Bad Request",
        ),
    ),
    "python": (
        f"{PYTHON} server/streamable_http.py _create_error_response: an id of its own",
        Said(
            '{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Session has been terminated"}}',
            status="404 Not Found",
        ),
    ),
    "python, of the manager": (
        f"{PYTHON} server/streamable_http_manager.py: a text",
        Said("Bad Request: No valid session ID provided", "text/plain", "400 Bad Request"),
    ),
    "go": (f"{GO} mcp/streamable.go http.Error", Said("session not found\n", "text/plain", "404 Not Found")),
    "go, another user": (f"{GO} mcp/streamable.go", Said("session user mismatch\n", "text/plain", "403 Forbidden")),
    "rust": (f"{RUST} streamable_http_server/tower.rs", Said("Not Found: Session not found", "", "404 Not Found")),
    "java": (
        f"{JAVA} HttpServletStreamableServerTransportProvider.java responseError: an exception as JSON",
        Said(
            '{"message":"Session not found: 1","jsonRpcError":{"code":-32603}}',
            "application/json;charset=UTF-8",
            "404 X",
        ),
    ),
    "java, the id is missing": (
        f"{JAVA} HttpServletStreamableServerTransportProvider.java: an exception as JSON",
        Said('{"message":"Session ID required in mcp-session-id header"}', "application/json;charset=UTF-8", "400 X"),
    ),
    "csharp": (
        f"{CSHARP} StreamableHttpHandler.cs GetSessionAsync",
        Said(
            '{"error":{"code":-32001,"message":"Session not found"},"id":ID,"jsonrpc":"2.0"}',
            "application/json; charset=utf-8",
            "404 Not Found",
        ),
    ),
    "csharp, another user": (
        f"{CSHARP} StreamableHttpHandler.cs GetSessionAsync",
        Said('{"error":{"code":-32000,"message":"Forbidden"},"id":null,"jsonrpc":"2.0"}', JSON, "403 Forbidden"),
    ),
}


@pytest.mark.parametrize("name", ENDS)
@on_uvloop
async def test_a_session_is_lost_as_a_server_of_an_sdk_loses_it(net: Net, name: str) -> None:
    source, said = ENDS[name]

    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await tell(peer, message, said if b"mcp-session-id: s1\r\n" in peer.head.lower() else Said(HELLO))

    server = ScriptedServer(answer, session=OLD)
    client = client_of(net, (await started(net, server)).url)
    assert await client.call(OFFERED, {}) == READ, source
    assert server.asked == [*BEGIN, "tools/call", *BEGIN, "tools/call"]


DISCOVERIES: dict[str, tuple[str, Said]] = {
    "typescript": ENDS["typescript, not initialized"],
    "python": (
        f"{PYTHON} server/streamable_http.py _validate_session",
        Said(
            '{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Bad Request: Missing session ID"}}',
            status="400 Bad Request",
        ),
    ),
    "rust": (
        f"{RUST} before 2026: streamable_http_server/tower.rs",
        Said("Unexpected message, expect initialize request", "", "422 Unprocessable Entity"),
    ),
    "java": ENDS["java, the id is missing"],
    "csharp": (
        f"{CSHARP} StreamableHttpHandler.cs: method not found is 404",
        Said(
            '{"error":{"code":-32601,"message":"Method not found"},"id":ID,"jsonrpc":"2.0"}',
            "application/json; charset=utf-8",
            "404 Not Found",
        ),
    ),
    "go": (
        "go-sdk 1.0 mcp/server.go: an error in a stream",
        Said(
            'event: message\ndata: {"jsonrpc":"2.0","id":ID,"error":{"code":0,"message":"method \\"server/discover\\" '
            'is invalid during session initialization"}}\n\n',
            EVENTS,
        ),
    ),
}


@pytest.mark.parametrize("name", DISCOVERIES)
@on_uvloop
async def test_an_older_server_of_an_sdk_gets_a_session(net: Net, name: str) -> None:
    source, said = DISCOVERIES[name]

    class Older(ScriptedServer):
        async def _handled(self, peer: Peer, message: dict[str, Any]) -> bool:
            if message.get("method") != "server/discover":
                return await super()._handled(peer, message)
            await tell(peer, message, said)
            return True

    async def answer(peer: Peer, message: dict[str, Any]) -> None:
        await tell(peer, message, Said(HELLO))

    client = client_of(net, (await started(net, Older(answer, session=OLD))).url)
    assert await client.call(OFFERED, {}) == READ, source


PROGRESS: dict[str, tuple[str, dict[str, Any], ToolProgress]] = {
    "a number with a point, no total": (
        f"{RUST} crates/rmcp/src/model.rs",
        {"progress": 1.0},
        ToolProgress(1.0, None, ""),
    ),
    "members that are null": (
        f"{JAVA} McpSchema.java ProgressNotification, written without its JsonInclude",
        {"progress": 0.5, "total": None, "message": None},
        ToolProgress(0.5, None, ""),
    ),
    "a message": (
        f"{GO} mcp/protocol.go ProgressNotificationParams; {TYPESCRIPT} examples/server/progressExample.js",
        {"progress": 2, "total": 4, "message": "half"},
        ToolProgress(2, 4, "half"),
    ),
}


@pytest.mark.parametrize("name", PROGRESS)
@on_uvloop
async def test_progress_is_told_as_a_server_of_an_sdk_does(net: Net, name: str) -> None:
    source, params, read = PROGRESS[name]
    told = notice("notifications/progress", progressToken="@", **params)
    said = Said(f"event: message\ndata: {told}\n\nevent: message\ndata: {HELLO}\n\n", EVENTS)
    client = client_of(net, (await started(net, Server(said))).url)
    seen: list[ToolProgress] = []
    assert await client.call(OFFERED, {}, on_progress=seen.append) == READ, source
    assert seen == [read]


@on_uvloop
async def test_an_unknown_tool_ends_no_session(net: Net) -> None:
    """rust-sdk and go-sdk answer invalid parameters by 400, which is the status of a lost session elsewhere."""
    body = '{"jsonrpc":"2.0","id":ID,"error":{"code":-32602,"message":"unknown tool \\"t\\""}}'
    server = Server(Said(body, status="400 Bad Request"))
    client = client_of(net, (await started(net, server)).url)
    for _ in range(2):
        with pytest.raises(ToolServerError, match="unknown tool"):
            await client.call(OFFERED, {})
    assert server.asked == [*BEGIN, "tools/call", "tools/call"]
