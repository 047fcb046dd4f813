"""Conversations by OpenAI's SDK over its socket, and by its Agents SDK both ways, with an upstream of each dialect."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from agents.models.openai_responses import OpenAIResponsesWSModel

from tests.integration.gateway import Net, on_both_loops, on_uvloop
from tests.integration.talking import MODELS, NAME, RESULT, TOOL, talking
from tests.integration.test_openai_sdk import client_of
from tests.waiting import until

BOTH = f"I know {NAME} and {RESULT}"


@on_both_loops
@pytest.mark.parametrize("model", MODELS)
async def test_openais_sdk_goes_on_over_its_socket(net: Net, model: str) -> None:
    gateway, talker = await talking(net)
    client = client_of(net, gateway)
    tools: Any = [{"type": "function", "name": TOOL, "parameters": {"type": "object", "properties": {}}}]
    async with client.responses.connect() as connection:

        async def turn(said: Any, parent: Any = None, **more: Any) -> Any:
            await connection.response.create(
                model=model, input=said, **({"previous_response_id": parent.id} if parent else {}), **more
            )
            async for event in connection:
                if event.type in ("response.completed", "error"):
                    return getattr(event, "response", event)
            raise AssertionError("the socket ended")

        first = await turn(f"My name is {NAME}.", store=False)
        second = await turn("What is my name?", first)
        asked = await turn("How deep is it?", second, tools=tools)
        [call] = [item for item in asked.output if item.type == "function_call"]
        third = await turn([{"type": "function_call_output", "call_id": call.call_id, "output": RESULT}], asked)
        assert [first.output_text, second.output_text, third.output_text] == [f"I know {NAME}"] * 2 + [BOTH]
        assert [first.store, second.store] == [False, True]
        assert [each.previous_response_id for each in (second, third)] == [first.id, asked.id]
        # One that is stored and whose parent lived in the connection alone.
        items: Any = await client.responses.input_items.list(second.id)
        assert [item.content[0].text for item in items.data] == ["What is my name?"]
        assert (await client.responses.retrieve(third.id)).output_text == BOTH
        await client.responses.delete(third.id)
    assert [path for path, _ in talker.asked] == [MODELS[model]] * 4


@function_tool(name_override=TOOL)
def depth() -> str:
    """Returns how deep it is."""
    return RESULT


@on_uvloop
@pytest.mark.parametrize("kind", [OpenAIResponsesModel, OpenAIResponsesWSModel])
async def test_the_agents_sdk_goes_on_from_what_is_kept(net: Net, kind: type[OpenAIResponsesModel]) -> None:
    set_tracing_disabled(True)
    gateway, talker = await talking(net)
    client = client_of(net, gateway)
    sockets = gateway.running.service.sockets.sessions
    for name in MODELS:
        model = kind(name, client)
        agent = Agent(name="Guide", model=model, instructions="Be brief.")
        diver = Agent(name="Diver", model=model, tools=[depth])
        first = await Runner.run(agent, f"My name is {NAME}.")
        second = await Runner.run(agent, "What is my name?", previous_response_id=first.last_response_id)
        third = Runner.run_streamed(diver, "How deep is it?", previous_response_id=second.last_response_id)
        deltas = ""
        async for event in third.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                deltas += event.data.delta
        # Only the new items of each step are sent.
        other = await Runner.run(diver, "How deep is it?", auto_previous_response_id=True)
        last = await Runner.run(diver, "Who am I?", previous_response_id=third.last_response_id)
        found = [each.final_output for each in (first, second, third, other, last)]
        assert found == [f"I know {NAME}"] * 2 + [BOTH, f"I know {RESULT}", BOTH], name
        assert deltas == BOTH
        assert len(sockets) == (kind is OpenAIResponsesWSModel)
        await model.close()
        await until(lambda: not sockets)
    assert [path for path, _ in talker.asked] == [path for path in MODELS.values() for _ in range(7)]
