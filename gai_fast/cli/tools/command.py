"""`gai-fast tools probe`: which protocol a server of tools speaks, what it offers, and whether its tools answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import click

from gai_fast.cli import Failure, option
from gai_fast.cli.tools.configured import call, list_tools
from gai_fast.cli.tools.ending import run_to_its_end
from gai_fast.cli.tools.samples import arguments_for
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import Peer
from gai_fast.net.tools.http_wire import HTTPWire, tool_server_address
from gai_fast.net.tools.rpc import ToolServerError, readable
from gai_fast.net.tools.stdio_wire import StdioWire
from gai_fast.net.tools.tool_client import ToolClient
from gai_fast.net.tools.tool_list import OfferedTool
from gai_fast.net.tools.wire import Wire
from gai_fast.runtime.timers import TimerWheel


@click.group()
def command() -> None:
    """List and call tools, and look at servers of tools (MCP)."""


command.add_command(list_tools)
command.add_command(call)


@command.command()
@option("--all", "calls_all", is_flag=True, help="Call all tools, with arguments made from their schemas.")
@click.argument("target", metavar="URL|-- COMMAND…", nargs=-1, required=True)
def probe(calls_all: bool, target: tuple[str, ...]) -> None:
    """Print the protocol of a server and its tools, and call those that are read-only and need no arguments.

    The server is a URL, or a command that speaks over its standard input and output. Exit code 1: something failed.
    """
    tried = _Probe(target, calls_all)
    run_to_its_end(tried.run())
    if tried.failures:
        raise Failure("\n".join(tried.failures))


class _Probe:
    """One probe.

    Attributes:
        failures: What has failed.
    """

    def __init__(self, target: Sequence[str], calls_all: bool) -> None:
        self.failures: list[str] = []
        self._target = target
        self._calls_all = calls_all
        self._width = 0
        self._shown = target[0]  # of a URL its host alone: a path or a query may be a secret

    async def run(self) -> None:
        """Asks the server. A failure is in `failures`."""
        client = ToolClient(self._wire(asyncio.get_running_loop()))
        try:
            await self._ask(client)
        except ToolServerError as problem:
            self.failures.append(f"{self._shown}: {problem}")
        finally:
            await client.close()

    def _wire(self, loop: asyncio.AbstractEventLoop) -> Wire:
        """Returns the way to the server.

        Raises:
            UsageError: The target is none.
        """
        first = self._target[0]
        if "://" not in first:
            return StdioWire(self._target, shows_errors=True, loop=loop)
        if len(self._target) > 1:
            raise click.UsageError("a URL stands alone")
        try:
            host, path = tool_server_address(first)
        except ValueError as problem:
            raise click.BadParameter(str(problem), param_hint="URL") from None
        self._shown = host
        peer = Peer(host, connect_timeout=SHARED.tool_connect)
        return HTTPWire(peer, path, {}, timers=TimerWheel(loop), loop=loop)

    async def _ask(self, client: ToolClient) -> None:
        agreed = await client.connect()
        click.echo(f"protocol {agreed.version}{f' ({agreed.server})' if agreed.server else ''}")
        offered = await client.list_tools()
        count = len(offered.tools)
        click.echo(f"{count} tool{'' if count == 1 else 's'}")
        self._width = max(map(len, offered.tools), default=0)
        for tool in offered.tools.values():
            hints = [word for word, holds in _hints(tool) if holds]
            click.echo(f"  {tool.name.ljust(self._width)}  {tool.schema_bytes} bytes  {' '.join(hints)}".rstrip())
        for name, reason in offered.left_out:
            click.echo(f"left out: {name}: {reason}")
        for tool in offered.tools.values():
            if self._calls_all or (tool.is_read_only and not tool.schema.get("required")):
                await self._call(client, tool)

    async def _call(self, client: ToolClient, tool: OfferedTool) -> None:
        began = time.monotonic()
        try:
            result = await client.call(tool, arguments_for(tool.schema))
        except ToolServerError as problem:
            self.failures.append(f"{tool.name}: {problem}")
            return
        if result.is_error:
            self.failures.append(f"{tool.name}: the tool reports an error: {readable(str(result.value))}")
            return
        kinds = sorted({part.kind for part in result.parts if part.kind != "text"})
        more = "".join(f", {kind}" for kind in (*kinds, *(["cut"] if result.is_truncated else [])))
        click.echo(f"called {tool.name.ljust(self._width)}  {(time.monotonic() - began) * 1000:.0f} ms{more}")


def _hints(tool: OfferedTool) -> list[tuple[str, bool]]:
    return [("read-only", tool.is_read_only), ("idempotent", tool.is_idempotent and not tool.is_read_only)]
