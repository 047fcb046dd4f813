"""A gateway with tools before an upstream whose model says and calls, turn by turn, what a test writes down."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from gai_fast.model.settings import FunctionSettings, Secret, Settings, ToolServerSettings, ToolSettings
from gai_fast.net.toolbox.function_schema import read_function
from gai_fast.server.serving import start
from tests.integration.gateway import DONE, LAST_CHUNK, SSE_HEAD, Gateway, Net, Peer, delta, settings_for
from tests.wire import chunk

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
MODULE = "tools_of_a_test"
NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})

Call = tuple[str, Any]
"""A call of a tool: its name and its arguments."""
Turn = Iterable[str | Call | Callable[[Peer], Awaitable[object]]]
"""What a model says in a turn: texts, calls, and what a test does meanwhile."""


class Model:
    """An upstream of the chat dialect; the n-th request of a conversation gets the n-th turn.

    Args:
        turns: The turns.

    Attributes:
        asked: The bodies of its requests.
        connections: How many these have come over.
        end_mark: What stands between an answer and the end of its body.
        before_end: What is awaited between both. None if nothing is.
        usage: What it counts for each turn. None if it counts nothing.
    """

    def __init__(self, *turns: Turn) -> None:
        self.turns = [[*turn] for turn in turns]
        self.asked: list[dict[str, Any]] = []
        self.connections = 0
        self.end_mark = chunk(DONE)
        self.before_end: asyncio.Event | None = None
        self.usage: dict[str, Any] | None = USAGE

    async def handle(self, peer: Peer) -> None:
        self.connections += 1
        while True:
            body = json.loads(await peer.request())
            self.asked.append(body)
            said = [message for message in body["messages"] if message["role"] == "assistant"]
            await self._answer(peer, self.turns[min(len(said), len(self.turns) - 1)], len(said))

    async def _answer(self, peer: Peer, turn: list[Any], number: int) -> None:
        await peer.send(SSE_HEAD)
        at = 0
        for each in turn:
            if isinstance(each, str):
                await peer.send(chunk(delta(each)))
            elif callable(each):
                await each(peer)
            else:
                name, given = each
                written = given if isinstance(given, str) else json.dumps(given)
                function = {"name": name, "arguments": written}
                called = {"index": at, "id": f"call_{number}{at}", "type": "function", "function": function}
                await peer.send(chunk(delta("", delta={"tool_calls": [called]})))
                at += 1
        reason = "tool_calls" if at else "stop"
        last = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": []}
        usage = b"data: %b\n\n" % json.dumps({**last, "usage": self.usage}).encode()
        end = delta("", delta={}, finish_reason=reason)
        await peer.send(chunk(end), *([chunk(usage)] if self.usage else []), self.end_mark)
        if self.before_end is not None:
            await self.before_end.wait()
        await peer.send(LAST_CHUNK)

    def results(self, request: int = -1) -> list[str]:
        """Returns the results that a request has, in order."""
        messages = self.asked[request]["messages"]
        return [message["content"] for message in messages if message["role"] == "tool"]


def function_tool(function: Callable[..., Any], **options: Any) -> ToolSettings:
    """Returns the settings of a function that is a tool."""
    module = sys.modules.setdefault(MODULE, ModuleType(MODULE))
    setattr(module, function.__name__, function)
    reference = FunctionSettings(f"{MODULE}:{function.__name__}", str(Path(__file__).parent))
    read = read_function(function)
    return ToolSettings(function.__name__, read.description, read.schema, function=reference, **options)


def http_tool(name: str, url: str, **options: Any) -> ToolSettings:
    return ToolSettings(name, "A tool", SCHEMA, Secret(url), **options)


def with_tools(
    settings: Settings, *tools: ToolSettings | ToolServerSettings, patterns: tuple[str, ...] = ("*",), **options: Any
) -> Settings:
    """Returns a configuration whose models may use these tools; the options are those of the models."""
    models = {name: dataclasses.replace(model, tools=patterns, **options) for name, model in settings.models.items()}
    return dataclasses.replace(
        settings,
        models=models,
        tools=tuple(each for each in tools if isinstance(each, ToolSettings)),
        tool_servers=tuple(each for each in tools if isinstance(each, ToolServerSettings)),
    )


async def gateway_of(
    net: Net,
    model: Model,
    *tools: ToolSettings | ToolServerSettings,
    of_stream: dict[str, Any] | None = None,
    of_gateway: Mapping[str, Any] = NO_SETTINGS,
    **options: Any,
) -> Gateway:
    """Returns a gateway before a model.

    Args:
        net: The scenario's servers.
        model: The model.
        tools: The tools.
        of_stream: As for `settings_for`.
        of_gateway: More of its `Settings`.
        options: As for `with_tools`.
    """
    upstream = await net.upstream(model.handle)
    settings = with_tools(settings_for(upstream.url, **(of_stream or {})), *tools, **options)
    running = await start(dataclasses.replace(settings, **of_gateway))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1]


class Gate:
    """A tool that waits until a test lets it go, and whether it was cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def wait(self) -> None:
        self.begun.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
