"""All tools of one configuration: which source has a tool, what a run is offered, and their ends."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import is_
from pathlib import Path
from typing import Any, Final

from gai_fast.model.limits import SHARED
from gai_fast.model.settings import Settings, ToolSettings
from gai_fast.model.tool_rules import AllowedTools, ToolPatterns, server_and_name
from gai_fast.net.toolbox.function_schema import read_function
from gai_fast.net.toolbox.function_tool import FunctionTool, settings_of
from gai_fast.net.toolbox.http_tool import HTTPTool
from gai_fast.net.toolbox.known_list import KnownList
from gai_fast.net.toolbox.model_names import by_model_name
from gai_fast.net.toolbox.server_source import ServerSource
from gai_fast.net.toolbox.tool_source import GatewayTool, SourceList, ToolSource
from gai_fast.net.tools.message_reader import Beside
from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.functions import import_function
from gai_fast.runtime.timers import Timers

_log: Final = logging.getLogger("gai_fast.tools")


@dataclass(frozen=True, slots=True, eq=False)
class OfferedTools:
    """What runs that may use the same offer.

    Attributes:
        toolbox: Where the tools are.
        sources: The names of their sources.
        lists: The lists of these.
        tools: The tools, by the names that models see.
    """

    toolbox: Toolbox
    sources: Sequence[str]
    lists: Sequence[SourceList | None]
    tools: Mapping[str, GatewayTool]


class Toolbox:
    """The sources of tools of one configuration, on one loop. After use, `close` must be awaited.

    Args:
        settings: The configuration.
        timers: The loop's timers.
        loop: The running loop.
        functions: Functions of the program that are tools.
        beside: Reads what is large. None if all is read at once.

    Attributes:
        functions: Their names.
        servers: The servers, by label.
        own: The gateway's own tools, by name.

    Raises:
        ValueError: A source cannot be made. The text names it.
    """

    def __init__(
        self,
        settings: Settings,
        timers: Timers,
        loop: asyncio.AbstractEventLoop,
        functions: Sequence[Callable[..., Any]] = (),
        beside: Beside | None = None,
    ) -> None:
        servers: dict[str, ServerSource] = {}
        own: dict[str, ToolSource] = {}
        try:
            for server in settings.tool_servers:
                name = server.name
                servers[name] = ServerSource(server, timers, loop, beside)
            for tool in settings.tools:
                name = tool.name
                own[name] = _own(tool, timers, loop, beside)
            for each in functions:
                name = getattr(each, "__name__", str(each))
                read = read_function(each)
                made = FunctionTool(settings_of(read), read)
                if made.name in own or made.name in servers:
                    raise ValueError("another tool has its name")
                own[made.name] = made
        except ValueError as problem:
            raise ValueError(f"tools {name!r}: {problem}") from None
        self.functions = tuple(own)[len(settings.tools) :]
        self.servers: Mapping[str, ServerSource] = servers
        self.own: Mapping[str, ToolSource] = own
        patience = {server.name: server.connect_timeout for server in settings.tool_servers}
        self._lists = {
            each.name: KnownList(each, patience.get(each.name, SHARED.tool_connect)) for each in self.sources
        }
        self._logged: frozenset[str] = frozenset()  # tools that are left out for their names, in the last list

    @property
    def sources(self) -> list[ToolSource]:
        """All sources, in the order of the configuration."""
        return [*self.servers.values(), *self.own.values()]

    def source_of(self, address: str) -> ToolSource | None:
        """Returns the source of a tool, or None if there is none.

        Args:
            address: `<server>.<tool>`, or the name of a tool of the gateway's own.
        """
        label, name = server_and_name(address)
        return self.servers.get(label) if label else self.own.get(name)

    async def offered(
        self,
        allowed: AllowedTools,
        former: OfferedTools | None = None,
        beside: Callable[[Callable[[], Any]], Awaitable[Any]] | None = None,
    ) -> OfferedTools:
        """Returns the tools that a run offers. A server out of reach offers none.

        Args:
            allowed: What its request may use.
            former: What another run has offered that may use the same. It is returned if it is still so.
            beside: Does work of its caller beside the loop. None if the patterns of the request are few.
        """
        if former is not None and former.toolbox is not self:
            former = None
        names = [*allowed.servers(self.servers), *allowed.own(self.own)] if former is None else former.sources
        lists = [self._lists[name].known() for name in names]
        if any(each is None for each in lists):
            lists = [*await asyncio.gather(*[self._lists[name].current() for name in names])]
        if former is not None and all(map(is_, lists, former.lists)):
            return former
        chosen = partial(_chosen, lists, allowed)
        kept, left_out = chosen() if beside is None else await beside(chosen)
        self._log_left_out(frozenset(tool.address for tool in left_out))
        return OfferedTools(self, names, lists, kept)

    def run_ended(self, caller: str, run: str) -> None:
        """Ends the sessions that a run has at servers.

        Args:
            caller: The name of its caller.
            run: The id of its stream.
        """
        for server in self.servers.values():
            server.run_ended(caller, run)

    def unknown(self, patterns: Sequence[str], allowed: AllowedTools) -> str | None:
        """Returns the first pattern that names no tool that a request may use, by all lists that it concerns.

        Args:
            patterns: The patterns.
            allowed: What the request may use.
        """
        if not patterns:
            return None
        own, servers = allowed.own(self.own), allowed.servers(self.servers)
        return next((each for each in patterns if self._has_none(ToolPatterns([each]), allowed, own, servers)), None)

    def _has_none(self, named: ToolPatterns, allowed: AllowedTools, own: list[str], servers: list[str]) -> bool:
        if any(name in named for name in own):
            return False
        for name in filter(named.may_name, servers):
            listed = self._lists[name].read
            if listed is None or any(_is_in(tool, named) and tool.address in allowed for tool in listed.tools):
                return False
        return True

    def _log_left_out(self, addresses: frozenset[str]) -> None:
        new = sorted(addresses - self._logged)
        self._logged = addresses
        if new:
            text = "tools %r: left out: its name for models is also that of another (%d such tools)"
            _log.warning(text, new[0], len(new), extra={"once": math.inf})

    async def close(self) -> None:
        """Ends running calls, connections and processes."""
        await asyncio.gather(*[known.close() for known in self._lists.values()])
        await asyncio.gather(*[source.close() for source in self.sources])


def _chosen(
    lists: Sequence[SourceList | None], allowed: AllowedTools
) -> tuple[Mapping[str, GatewayTool], list[GatewayTool]]:
    """Returns the tools that may be used, as `by_model_name`."""
    return by_model_name(
        tool for listed in lists if listed is not None for tool in listed.tools if _is_in(tool, allowed)
    )


def _is_in(tool: GatewayTool, allowed: AllowedTools | ToolPatterns) -> bool:
    breathe()
    return tool.address in allowed


def _own(tool: ToolSettings, timers: Timers, loop: asyncio.AbstractEventLoop, beside: Beside | None) -> ToolSource:
    if tool.function is not None:
        function = import_function(tool.function.reference, Path(tool.function.folder))
        return FunctionTool(tool, read_function(function))
    if tool.url is None:
        raise ValueError("it has neither a url nor a function")
    return HTTPTool(tool, tool.url, timers, loop, beside)


class HeldToolbox:
    """A toolbox for as long as a configuration or a run needs it.

    Args:
        toolbox: The toolbox.
        unused: Called once, when nothing needs it any more.
    """

    def __init__(self, toolbox: Toolbox, unused: Callable[[Toolbox], object]) -> None:
        self.toolbox = toolbox
        self._unused = unused
        self._users = 1  # the configuration

    @property
    def is_unused(self) -> bool:
        """Whether nothing needs it any more: it is closed."""
        return not self._users

    def take(self) -> None:
        """Counts one more that needs it."""
        self._users += 1

    def give_back(self) -> None:
        """Counts one less."""
        self._users -= 1
        if not self._users:
            self._unused(self.toolbox)
