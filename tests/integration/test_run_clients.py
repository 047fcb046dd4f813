"""The official clients for Python over a gateway whose model calls its tools twice, and one of the client's.

None of them makes a gateway's call.
"""

from __future__ import annotations

import json
from typing import Any

import anthropic
from agents import Agent, HostedMCPTool, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled

import gai_fast
from tests.integration.certificates import NO_CERTIFICATES
from tests.integration.gateway import Gateway, Net, Peer, on_both_loops, on_uvloop
from tests.integration.test_openai_sdk import client_of
from tests.integration.tool_runs import Model, gateway_of
from tests.integration.tool_runs import function_tool as tool_of

SAID = "Look. Both. "
FUNCTION = {"name": "show", "parameters": {"type": "object", "properties": {}}}
MESSAGES: Any = [{"role": "user", "content": "Hi"}]


def weather(city: str) -> dict[str, Any]:
    """The weather of a city."""
    if city == "X":
        raise ValueError("no such city")
    return {"city": city, "celsius": 4}


class Guide(Model):
    """A model that answers once it has the client's result: some clients keep none of the gateway's calls."""

    async def _answer(self, peer: Peer, turn: list[Any], number: int) -> None:
        is_shown = any(message["content"] in ("shown", "done") for message in self.asked[-1]["messages"])
        await super()._answer(peer, self.turns[-1] if is_shown else turn, number)


async def a_gateway(net: Net) -> tuple[Gateway, Model]:
    """Returns a gateway, and a model that calls three times, and then answers."""
    model = Guide(
        ["Look. ", ("weather", {"city": "Oslo"}), ("weather", {"city": "X"})],
        ["Both. ", ("weather", {"city": "Rome"}), ("show", {})],
        ["Shown."],
    )
    return await gateway_of(net, model, tool_of(weather)), model


@on_both_loops
async def test_openais_chat_stream(net: Net) -> None:
    gateway, model = await a_gateway(net)
    tools: Any = [{"type": "function", "function": FUNCTION}]
    async with client_of(net, gateway).chat.completions.stream(model="m", messages=MESSAGES, tools=tools) as stream:
        choice = (await stream.get_final_completion()).choices[0]
    assert choice.message.content == SAID
    assert [call.function.name for call in choice.message.tool_calls or ()] == ["show"]
    assert choice.finish_reason == "tool_calls"
    assert len(model.asked) == 2


@on_both_loops
async def test_openais_response_stream_and_what_it_sends_back(net: Net) -> None:
    gateway, model = await a_gateway(net)
    client = client_of(net, gateway)
    tools: Any = [{"type": "mcp", "server_label": "gateway"}, {"type": "function", **FUNCTION}]
    async with client.responses.stream(model="m", input="Hi", tools=tools) as stream:
        response = await stream.get_final_response()
    calls = [item for item in response.output if item.type == "mcp_call"]
    assert [(call.name, call.status) for call in calls] == [
        ("weather", "completed"),
        ("weather", "failed"),
        ("weather", "completed"),
    ]
    [own] = [item for item in response.output if item.type == "function_call"]
    result: Any = {"type": "function_call_output", "call_id": own.call_id, "output": "shown"}
    history: Any = [{"role": "user", "content": "Hi"}, *(item.to_dict() for item in response.output), result]
    for given, more in (([result], {"previous_response_id": response.id}), (history, {})):
        last = await client.responses.create(model="m", input=given, tools=tools, **more)
        assert last.output_text == "Shown."
        assert sorted(model.results()) == sorted(
            ['{"city":"Oslo","celsius":4}', "ValueError: no such city", '{"city":"Rome","celsius":4}', "shown"]
        )


@on_uvloop
async def test_openais_agents_make_their_own_call_alone(net: Net) -> None:
    set_tracing_disabled(True)
    gateway, model = await a_gateway(net)
    made: list[str] = []

    @function_tool(name_override="show")
    def show() -> str:
        """Shows it."""
        made.append("show")
        return "shown"

    @function_tool(name_override="search")
    def other() -> str:
        """Is never called."""
        made.append("search")
        return "found"

    hosted = HostedMCPTool(tool_config={"type": "mcp", "server_label": "gateway", "require_approval": "never"})
    agent = Agent(name="Guide", model=OpenAIResponsesModel("m", client_of(net, gateway)), tools=[show, other, hosted])
    run = Runner.run_streamed(agent, "Hi")
    async for _ in run.stream_events():
        pass
    assert run.final_output == "Shown."
    assert made == ["show"]
    assert len(model.asked) == 3


@on_both_loops
async def test_anthropics_message_stream(net: Net) -> None:
    gateway, model = await a_gateway(net)
    http = anthropic.DefaultAsyncHttpxClient(verify=NO_CERTIFICATES)
    client = anthropic.AsyncAnthropic(base_url=gateway.url, api_key="none", http_client=http, max_retries=0)
    tools: Any = [{"name": "show", "input_schema": {"type": "object"}}]
    async with client, client.messages.stream(model="m", max_tokens=50, messages=MESSAGES, tools=tools) as stream:
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["text", "text", "tool_use"]
    assert "".join(block.text for block in message.content if block.type == "text") == SAID
    assert len(model.asked) == 2


@on_both_loops
async def test_the_client_of_the_library(net: Net) -> None:
    gateway, model = await a_gateway(net)
    ask: Any = {"model": "m", "query": "Hi", "tools": [FUNCTION]}
    async with gai_fast.connect(gateway.url) as client:
        async with client.stream(ask) as stream:
            result = await stream.result()
        assert [call.name for call in result.tool_calls] == ["show"]
        assert result.text == SAID
        roles = [message["role"] for message in result.messages]
        assert roles == ["assistant", "tool", "tool", "assistant", "tool"]
        shown = {"role": "tool", "call_id": result.tool_calls[0].call_id, "content": "shown"}
        last = await client.ask(
            {**ask, "messages": [{"role": "user", "content": "Hi"}, *result.messages, shown], "query": "?"}
        )
    assert last.text == "Shown."
    assert len(model.results()) == 4
    whole = json.loads(bytes((await gateway.ask("POST", "/api/v1/stream", {**ask, "stream": False})).body))
    assert [message["role"] for message in whole["messages"]] == roles
    assert whole["text"] == SAID
