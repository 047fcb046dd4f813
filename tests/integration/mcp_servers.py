"""A server of tools on HTTP that a test scripts, request by request, and a client of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from gai_fast.model.settings import Peer as Host
from gai_fast.net.tools.http_wire import HTTPWire, tool_server_address
from gai_fast.net.tools.message_reader import Beside
from gai_fast.net.tools.protocol import STATELESS
from gai_fast.net.tools.tool_client import ToolClient
from gai_fast.runtime.beside import Beside as Thread
from gai_fast.runtime.timers import TimerWheel
from tests.integration.gateway import LAST_CHUNK, SSE_HEAD, Net, Peer, Upstream
from tests.wire import chunk

JSON = "Content-Type: application/json"
TOOL = {"name": "t", "inputSchema": {"type": "object"}}
DISCOVERED = {"resultType": "complete", "supportedVersions": [STATELESS], "capabilities": {"tools": {}}}

Answer = Callable[[Peer, dict[str, Any]], Awaitable[object]]
"""Answers one request: the connection, and the message."""


def reply(message: dict[str, Any], result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def refusal(message: dict[str, Any], code: int, **error: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message.get("id"), "error": {"code": code, "message": "no", **error}}


def said(text: str) -> dict[str, Any]:
    """Returns the result of a call."""
    return {"content": [{"type": "text", "text": text}]}


def event(value: Any, number: int | None = None) -> bytes:
    """Returns an event in an HTTP chunk."""
    head = b"" if number is None else b"id: %d\n" % number
    return chunk(head + b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n")


def progress(message: dict[str, Any], number: float) -> dict[str, Any]:
    token = message["params"]["_meta"]["progressToken"]
    return {
        "jsonrpc": "2.0",
        "method": "notifications/progress",
        "params": {"progressToken": token, "progress": number},
    }


class ScriptedServer:
    """A server on HTTP, which notes what it is asked.

    Args:
        answer: Answers calls.
        tools: The list.
        session: The protocol of its sessions. None means 2026-07-28.
    """

    def __init__(self, answer: Answer, *tools: dict[str, Any], session: str | None = None) -> None:
        self.answer = answer
        self.tools = [*(tools or (TOOL,))]
        self.session = session
        self.sessions = 0
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.messages: list[dict[str, Any]] = []

    async def handle(self, peer: Peer) -> None:
        """Answers the requests of one connection."""
        while True:
            body = await peer.request()
            head = peer.head.decode("latin-1")
            message = json.loads(body) if body else {}
            self.asked.append(message.get("method") or head.partition(" ")[0])
            self.heads.append(head.lower())
            self.messages.append(message)
            if not await self._handled(peer, message):
                await self.answer(peer, message)

    async def _handled(self, peer: Peer, message: dict[str, Any]) -> bool:
        match message.get("method"):
            case "server/discover" if self.session is None:
                await send(peer, reply(message, DISCOVERED))
            case "server/discover":
                await peer.answer("400 Bad Request", b"")
            case "initialize":
                self.sessions += 1
                begun = {"protocolVersion": self.session, "capabilities": {}, "serverInfo": {"name": "old"}}
                await send(peer, reply(message, begun), f"Mcp-Session-Id: s{self.sessions}")
            case "notifications/initialized" | "notifications/cancelled":
                await peer.answer("202 Accepted", b"")
            case "tools/list" if self.tools:
                await send(peer, reply(message, {"tools": self.tools}))
            case None if not message:
                if peer.head.startswith(b"DELETE"):
                    await peer.answer("200 OK", b"")
                    return True
                return False
            case _:
                return False
        return True


async def send(peer: Peer, message: Any, *headers: str, status: str = "200 OK") -> None:
    """Answers with a message as JSON."""
    await peer.answer(status, json.dumps(message).encode(), JSON, *headers)


async def stream(peer: Peer, *events: bytes, is_whole: bool = True) -> None:
    """Answers with a stream of events."""
    await peer.send(SSE_HEAD, *events, *([LAST_CHUNK] if is_whole else []))


async def started(net: Net, server: ScriptedServer) -> Upstream:
    """Starts a server."""
    return await net.upstream(server.handle)


def client_of(
    net: Net,
    url: str,
    headers: dict[str, str] | None = None,
    kind: type[ToolClient] = ToolClient,
    beside: Beside | None = None,
    **options: Any,
) -> ToolClient:
    """Returns a client of the server at a URL; it is closed with the scenario."""
    loop = asyncio.get_running_loop()
    host, path = tool_server_address(url)
    wire = HTTPWire(Host(host, connect_timeout=5.0), path, headers or {}, timers=TimerWheel(loop), loop=loop)
    wire.beside = beside
    client = kind(wire, **options)
    net.stack.push_async_callback(client.close)
    return client


class Noted:
    """Work beside the loop, in a thread: `do` is as `Streams.beside`.

    Args:
        net: The scenario.
    """

    def __init__(self, net: Net) -> None:
        self.callers: list[str] = []
        self._thread = Thread(asyncio.get_running_loop())
        net.stack.callback(self._thread.close)

    def do(self, caller: str, work: Callable[[], Any]) -> Awaitable[Any]:
        self.callers.append(caller)
        return self._thread.do(work, caller)
