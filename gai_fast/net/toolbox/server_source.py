"""`[[tool_server]]`: the tools of a server that speaks MCP, by `ToolClient`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from gai_fast.model.settings import Peer, ToolServerSettings
from gai_fast.model.tool_functions import ToolMeta
from gai_fast.net.identity.token_source import TokenSource
from gai_fast.net.toolbox.tool_sessions import ToolSessions
from gai_fast.net.toolbox.tool_source import GatewayTool, SourceList, ToolSource
from gai_fast.net.tools.http_wire import HTTPWire, tool_server_address
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.message_reader import Beside
from gai_fast.net.tools.result_redaction import credentials_of
from gai_fast.net.tools.stdio_wire import StdioWire
from gai_fast.net.tools.tool_client import ToolClient
from gai_fast.net.tools.tool_results import ToolResult
from gai_fast.net.tools.wire import OnProgress, Wire
from gai_fast.runtime.timers import Timers

_OURS: Final = "gai-fast/"


class ServerSource(ToolSource):
    """A server of tools.

    Args:
        settings: The server.
        timers: The loop's timers.
        loop: The running loop.
        beside: Reads large messages. None if all are read at once.

    Raises:
        ValueError: Its URL, a TLS file or a header is not acceptable. No text has the value of a header.
    """

    def __init__(
        self,
        settings: ToolServerSettings,
        timers: Timers,
        loop: asyncio.AbstractEventLoop,
        beside: Beside | None = None,
    ) -> None:
        super().__init__(settings.name, settings.max_calls)
        self._settings = settings
        self.is_process = settings.url is None
        shared = None if self.is_process else _wire(settings, timers, loop)

        def client() -> ToolClient:
            wire = shared or _wire(settings, timers, loop)
            wire.beside = beside
            return ToolClient(wire, timeout=settings.timeout, max_result=settings.max_result)

        kind = settings.session or ("shared" if self.is_process else "caller")
        self._sessions = ToolSessions(kind, client, is_process=self.is_process, timers=timers)

    async def protocol(self) -> str:
        """Returns the version of MCP that the server speaks.

        Raises:
            ToolServerError: It cannot be reached.
        """
        return (await self._sessions.first.connect()).version

    async def list_tools(self) -> SourceList:
        """As `ToolSource.list_tools`: the tools that the configuration offers."""
        listed = await self._sessions.first.list_tools()
        settings = self._settings
        tools = [
            GatewayTool(
                self.name,
                each,
                _matches(name, settings.approve),
                each.is_idempotent or _matches(name, settings.idempotent),
            )
            for name, each in listed.tools.items()
            if _matches(name, settings.tools)
        ]
        return SourceList(
            tuple(tools), listed.left_out, LIMITS.list_ttl if listed.ttl is None else listed.ttl, listed.digest
        )

    async def close(self) -> None:
        """As `ToolSource.close`."""
        await self._sessions.close()

    def run_ended(self, caller: str, run: str) -> None:
        """Ends the session of a run, if each has one.

        Args:
            caller: The name of its caller.
            run: The id of its stream.
        """
        self._sessions.run_ended(caller, run)

    async def _called(
        self,
        tool: GatewayTool,
        arguments: Mapping[str, Any],
        meta: ToolMeta,
        on_progress: OnProgress | None,
        caller: str,
    ) -> ToolResult:
        async with self._sessions.client(caller, meta.stream_id) as client:
            return await client.call(
                tool.offered, arguments, meta=_members(meta), on_progress=on_progress, caller=caller
            )

    def _end_pause(self) -> None:
        self._sessions.first.end_pause()  # the way to a server on HTTP, which may ask for pauses, is that of all


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _members(meta: ToolMeta) -> dict[str, Any]:
    """Returns the members of `_meta` that say which call it is."""
    members: dict[str, Any] = {
        f"{_OURS}request-id": meta.request_id,
        f"{_OURS}call-id": meta.call_id,
        f"{_OURS}idempotency-key": meta.idempotency_key,
        f"{_OURS}attempt": meta.attempt,
    }
    return {**members, "traceparent": meta.traceparent} if meta.traceparent else members


def _wire(settings: ToolServerSettings, timers: Timers, loop: asyncio.AbstractEventLoop) -> Wire:
    if settings.url is None:
        own = {name: value.reveal() for name, value in settings.env.items()}
        env = {**settings.inherited, **own}
        credentials = credentials_of(settings.env, settings.plain)
        return StdioWire(settings.command, env, secrets=own.values(), credentials=credentials, loop=loop)
    host, path = tool_server_address(settings.url.reveal())
    credentials = credentials_of(settings.headers, settings.plain, path)
    headers = {name: value.reveal() for name, value in settings.headers.items()}
    tokens = None if settings.identity is None else TokenSource(settings.identity, loop)
    peer = peer_of(host, settings.timeout, settings.connect_timeout, settings.ca_file)
    return HTTPWire(
        peer,
        path,
        headers,
        credentials=credentials,
        tokens=tokens,
        max_calls=settings.max_calls,
        timers=timers,
        loop=loop,
    )


def peer_of(host: str, timeout: float, connect_timeout: float, ca_file: str | None = None) -> Peer:
    """Returns the way to a host whose calls have times of their own: those of the connection stand above them.

    Args:
        host: The host's URL.
        timeout: Seconds of a call, from its start or the last notice of progress.
        connect_timeout: Seconds to connect.
        ca_file: As in `Peer`.
    """
    longest = timeout * (LIMITS.tool_progress + 2)
    return Peer(host, connect_timeout=connect_timeout, idle_timeout=2 * timeout, total_timeout=longest, ca_file=ca_file)
