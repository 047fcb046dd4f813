"""A run of ten steps, followed anew after each of its events: whoever comes back has the whole run."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gai_fast.formats import FORMATS
from tests.integration.gateway import Gateway, Net, on_uvloop
from tests.integration.test_openai_sdk import client_of
from tests.integration.tool_runs import Model, function_tool, gateway_of

M: dict[str, Any] = {"model": "m", "query": "Hi", "resumable": True}
STEPS = 10
NAMES = [*sorted(set(FORMATS) - {"raw"}), "vercel&ui=6", "vercel&ui=7"]


def weather(city: str) -> dict[str, Any]:
    """The weather of a city."""
    if city == "X":
        raise ValueError("no such city")
    return {"city": city, "celsius": 4}


async def a_gateway(net: Net) -> tuple[Gateway, Model]:
    """Returns a gateway, and a model of ten turns: each but the last calls, the third twice, the fifth in vain."""
    turns: list[list[Any]] = [[f"Step {step}. ", ("weather", {"city": f"City {step}"})] for step in range(1, STEPS)]
    turns[2].append(("weather", {"city": "Oslo"}))
    turns[4][1] = ("weather", {"city": "X"})
    model = Model(*turns, ["It is ", "cold."])
    return await gateway_of(net, model, function_tool(weather)), model


def without_retry(body: bytes | bytearray) -> bytes:
    """Returns a body without the field that the first frame of each response has."""
    return bytes(body).replace(b"retry: 3000\n", b"")


@pytest.mark.parametrize("name", NAMES)
@on_uvloop
async def test_after_every_event_exactly_the_rest_of_ten_steps_follows(net: Net, name: str) -> None:
    gateway, model = await a_gateway(net)
    first = await gateway.ask("POST", f"/api/v1/stream?format={name}&framing=sse", M)
    stream_id = first.headers["x-gai-stream-id"]
    whole = without_retry(first.body)
    assert len(model.asked) == STEPS
    assert whole.count(b"cold.") >= 1
    marks = [*re.finditer(rb"^id: %b\.(\d+)\n(?:.+\n)*\n" % re.escape(stream_id.encode()), whole, re.M)]
    assert len(marks) >= STEPS
    for mark in marks:
        after = {"last-event-id": f"{stream_id}.{mark[1].decode()}"}
        rest = await gateway.ask("GET", f"/api/v1/streams/{stream_id}?format={name}&framing=sse", headers=after)
        assert without_retry(rest.body) == whole[mark.end() :] or (rest.status, mark) == (204, marks[-1])
    anew = await gateway.ask("GET", f"/api/v1/streams/{stream_id}?format={name}&framing=sse")
    assert without_retry(anew.body) == whole
    assert len(model.asked) == STEPS


@on_uvloop
async def test_after_every_event_of_a_response_the_rest_follows(net: Net) -> None:
    """The official client reads some of them, as it takes far longer."""
    gateway, model = await a_gateway(net)
    ask = client_of(net, gateway).responses
    tools: Any = [{"type": "mcp", "server_label": "gateway"}]
    stream = await ask.create(model="m", input="Hi", tools=tools, stream=True, background=True)
    whole: list[Any] = [event async for event in stream]
    assert len([event for event in whole if event.type == "response.mcp_call.completed"]) == STEPS - 1
    assert whole[-1].type == "response.completed"
    name = whole[0].response.id
    frames = await gateway.ask("GET", f"/v1/responses/{name}?stream=true")
    assert [event["sequence_number"] for event in frames.events] == [*range(len(whole))]
    for number in range(len(whole)):
        rest = await gateway.ask("GET", f"/v1/responses/{name}?stream=true&starting_after={number}")
        assert rest.events == frames.events[number + 1 :]
        if number % 25 == 0:
            read = await ask.retrieve(name, stream=True, starting_after=number)
            assert [event async for event in read] == whole[number + 1 :]
    assert len(model.asked) == STEPS
