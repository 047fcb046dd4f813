"""`gai-fast tools list` and `tools call`: the tools of a configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

import click

from gai_fast.cli import ConfigFailure, Failure, config_option, json_option, load_config, log_bugs_only, print_json
from gai_fast.cli.tools.ending import run_to_its_end
from gai_fast.config.problems import nearest, shown
from gai_fast.kernels import parse_exact
from gai_fast.model.settings import Settings
from gai_fast.model.tool_functions import ToolMeta
from gai_fast.net.toolbox.tool_source import GatewayTool, ToolSource
from gai_fast.net.toolbox.toolbox import Toolbox
from gai_fast.net.tools.rpc import ToolServerError, readable
from gai_fast.net.tools.tool_results import ToolResult
from gai_fast.net.tools.wire import ToolProgress
from gai_fast.runtime.timers import TimerWheel


@click.command("list")
@config_option
@json_option
def list_tools(config_path: Path | None, json: bool) -> None:
    """Print the tools of a configuration: name, bytes of the schema, whether calls wait for a person, whether they may
    be made again.

    Exit code 1: a server has no list.
    """
    listing = _Listing(_settings(config_path))
    log_bugs_only()
    run_to_its_end(listing.run())
    if json:
        print_json([_members(each) for each in listing.tools])
    else:
        width = max((len(each.address) for each in listing.tools), default=0)
        for each in listing.tools:
            words = " ".join(word for word in ("approve", "idempotent") if getattr(each, word))
            click.echo(f"{each.address.ljust(width)}  {each.offered.schema_bytes} bytes  {words}".rstrip())
    for line in listing.left_out:
        click.echo(f"left out: {line}", err=True)
    if listing.failures:
        raise Failure("\n".join(listing.failures))


@click.command()
@config_option
@click.argument("tool", metavar="SERVER.TOOL|TOOL")
@click.argument("arguments", metavar="[JSON]", default="{}")
def call(config_path: Path | None, tool: str, arguments: str) -> None:
    """Call a tool of a configuration, and print its result.

    No approval is waited for. Exit code 1: it has failed; 2: there is no such tool, or the arguments are no JSON.
    """
    try:
        read = parse_exact(arguments)
    except ValueError as problem:
        raise click.BadParameter(f"they are no JSON: {problem}", param_hint="JSON") from None
    settings = _settings(config_path)
    log_bugs_only()
    run_to_its_end(_call(settings, tool, read))


def _settings(path: Path | None) -> Settings:
    settings = load_config(path).settings
    if not settings.tool_servers and not settings.tools:
        raise ConfigFailure(
            "there is no [[tool_server]] and no [[tool]]: name a configuration that has one by --config"
        )
    return settings


def _toolbox(settings: Settings) -> Toolbox:
    loop = asyncio.get_running_loop()
    try:
        return Toolbox(settings, TimerWheel(loop), loop)
    except ValueError as problem:
        raise ConfigFailure(str(problem)) from None


def _members(tool: GatewayTool) -> dict[str, Any]:
    return {
        "name": tool.address,
        "schema_bytes": tool.offered.schema_bytes,
        "approve": tool.approve,
        "idempotent": tool.idempotent,
    }


class _Listing:
    """One listing.

    Attributes:
        tools: The tools that can be called.
        left_out: The others, with their reasons.
        failures: The servers without a list, with what has failed.
    """

    def __init__(self, settings: Settings) -> None:
        self.tools: list[GatewayTool] = []
        self.left_out: list[str] = []
        self.failures: list[str] = []
        self._settings = settings

    async def run(self) -> None:
        """Asks all servers at once."""
        toolbox = _toolbox(self._settings)
        try:
            await self._ask(toolbox.sources)
        finally:
            await toolbox.close()

    async def _ask(self, sources: Sequence[ToolSource]) -> None:
        lists = await asyncio.gather(*[source.list_tools() for source in sources], return_exceptions=True)
        for source, listed in zip(sources, lists, strict=True):
            if isinstance(listed, ToolServerError):
                self.failures.append(f"{source.name}: {listed}")
            elif isinstance(listed, BaseException):
                raise listed
            else:
                self.tools += listed.tools
                self.left_out += [f"{source.name}.{name}: {reason}" for name, reason in listed.left_out]


async def _call(settings: Settings, address: str, arguments: Any) -> None:
    """Calls a tool and prints its result.

    Raises:
        Failure: There is none, or it is an error.
    """
    toolbox = _toolbox(settings)
    try:
        source = toolbox.source_of(address)
        if source is None:
            known = [*(f"{label}.*" for label in toolbox.servers), *toolbox.own]
            raise ConfigFailure(f"no tool is named {shown(address)}{nearest(address, known)}")
        whole = await source.list_tools()
        listed = whole.tools
        tool = next((each for each in listed if each.address == address), None)
        if tool is None:
            for name, reason in whole.left_out:
                if address == f"{source.name}.{name}":
                    raise ConfigFailure(f"{shown(address)} is left out: {reason}")
            known = [each.address for each in listed]
            raise ConfigFailure(f"no tool is named {shown(address)}{nearest(address, known)}")
        meta = ToolMeta(f"tools-call-{token_hex(8)}", call_id="call_1", idempotency_key=token_hex(32))
        result = await source.call(tool, arguments, meta, on_progress=_show_progress)
    except ToolServerError as problem:
        raise Failure(f"{address}: {problem}") from None
    finally:
        await toolbox.close()
    _show(address, result)


def _show_progress(progress: ToolProgress) -> None:
    total = "" if progress.total is None else f" of {progress.total:g}"
    click.echo(f"progress {progress.progress:g}{total} {readable(progress.text)}".rstrip(), err=True)


def _show(address: str, result: ToolResult) -> None:
    if result.is_error:
        raise Failure(f"{address}: {readable(str(result.value))}")
    if isinstance(result.value, str):
        click.echo(result.value)
    else:
        print_json(result.value)
    for part in result.parts:
        if part.kind != "text":
            click.echo(f"{part.kind} {readable(part.media_type)}: {len(part.text)} bytes of Base64", err=True)
    if result.is_truncated:
        click.echo("the result was cut (max_result)", err=True)
