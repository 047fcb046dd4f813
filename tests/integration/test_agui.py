"""`?format=agui`: a `RunAgentInput` in, and what comes out is read by the protocol's own models."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ag_ui.core import RunAgentInput
from ag_ui.core.events import Event
from pydantic import TypeAdapter

from gai_fast.formats import get_format
from tests.integration.gateway import (
    LAST_CHUNK,
    QUERY,
    SSE_HEAD,
    Net,
    Peer,
    delta,
    on_both_loops,
    on_uvloop,
    weather_tool,
)
from tests.unit.formats.every_event import EVERY_EVENT
from tests.unit.formats.streams import ERROR, NOT_DONE, START, USAGE, context, encoded, finish, objects_of, text
from tests.wire import chunk

EVENTS: TypeAdapter[Any] = TypeAdapter(Event)
STREAM = "/api/v1/stream?format=agui"
ASK = {
    "threadId": "thread-1",
    "runId": "run-1",
    "state": {},
    "messages": [{"id": "1", "role": "user", "content": "Hi"}],
    "tools": [],
    "context": [],
    "forwardedProps": {},
}


def check(received: list[dict[str, Any]]) -> None:
    """Every event is one of the protocol's, with its members alone."""
    for event in received:
        read = EVENTS.validate_python(event)
        assert json.loads(read.model_dump_json(by_alias=True)) == event
        assert not read.model_extra


@pytest.mark.parametrize(
    "events",
    [
        EVERY_EVENT,
        [START, text("Hi"), finish("cancelled", usage=USAGE)],
        [START, text("Hi"), {**ERROR, "usage": USAGE}, NOT_DONE],
        [ERROR, NOT_DONE],
    ],
)
def test_every_event_is_one_of_the_protocols(events: Any) -> None:
    check(objects_of(encoded(get_format("agui").encoder("sse", context()), events)))


@on_both_loops
async def test_a_run(net: Net) -> None:
    RunAgentInput.model_validate(ASK)
    gateway = await net.gateway(await net.mock(deltas=3))
    response = await gateway.ask("POST", STREAM, ASK)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    check(response.events)
    assert response.types[0] == "RUN_STARTED"
    assert response.types[-1] == "RUN_FINISHED"
    assert {(event["threadId"], event["runId"]) for event in (response.events[0], response.events[-1])} == {
        ("thread-1", "run-1")
    }
    assert "".join(event.get("delta", "") for event in response.events) == "Once upon a"
    assert (await gateway.ask("POST", STREAM, QUERY)).types == response.types, "a native request is taken, too"


@on_uvloop
async def test_the_model_comes_from_the_forwarded_properties_or_the_query(net: Net) -> None:
    mock = await net.mock(deltas=3)
    gateway = await net.gateway(mock)
    assert (await gateway.ask("POST", f"{STREAM}&model=claude", ASK)).status == 200
    forwarded = {**ASK, "forwardedProps": {"model": "m", "temperature": 0.5}}
    assert (await gateway.ask("POST", f"{STREAM}&model=claude", forwarded)).status == 200
    claude, m = mock.requests
    assert "max_tokens" in claude.body
    assert m.body["temperature"] == 0.5
    assert "max_tokens" not in m.body


@on_uvloop
async def test_a_whole_run_is_one_object(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3))
    response = await gateway.ask("POST", STREAM, {**ASK, "forwardedProps": {"stream": False}})
    assert (response.json["threadId"], response.json["newMessages"][0]["content"]) == ("thread-1", "Once upon a")


@on_uvloop
async def test_the_same_run_again_is_the_same_stream(net: Net) -> None:
    mock = await net.mock(deltas=3)
    gateway = await net.gateway(mock)
    first, again = [await gateway.ask("POST", STREAM, ASK, {"idempotency-key": "k"}) for _ in range(2)]
    assert again.headers["idempotent-replayed"] == "true"
    assert again.events == first.events
    assert first.events[0]["runId"] == "run-1", "though it is kept as native events"
    assert len(mock.requests) == 1


@on_uvloop
async def test_a_run_that_breaks_ends_with_its_error(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("One ")), LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler))
    response = await gateway.ask("POST", STREAM, ASK)
    check(response.events)
    assert (response.ended, response.events[-1]["type"], response.events[-1]["code"]) == (True, "RUN_ERROR", "network")


@on_uvloop
async def test_a_tool_of_the_page(net: Net) -> None:
    asked: list[Any] = []
    gateway = await net.gateway(await net.upstream(weather_tool(asked)))
    tools = [{"name": "weather", "description": "W", "parameters": {"type": "object"}}]
    first = await gateway.ask("POST", STREAM, {**ASK, "tools": tools})
    check(first.events)
    call = next(event for event in first.events if event["type"] == "TOOL_CALL_START")
    function = {"name": call["toolCallName"], "arguments": "{}"}
    assistant = {
        "id": call["parentMessageId"],
        "role": "assistant",
        "toolCalls": [{"id": call["toolCallId"], "type": "function", "function": function}],
    }
    result = {"id": "3", "role": "tool", "toolCallId": call["toolCallId"], "content": "4"}
    second = await gateway.ask("POST", STREAM, {**ASK, "messages": [*ASK["messages"], assistant, result]})
    assert second.types[-1] == "RUN_FINISHED"
    assert asked[0]["tools"][0]["function"]["name"] == "weather"
    assert [message["role"] for message in asked[1]["messages"]] == ["user", "assistant", "tool"]


@on_uvloop
@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({**ASK, "threadId": 5}, 400, "validation"),
        ({**ASK, "messages": []}, 400, "validation"),
        ({**ASK, "state": {"a": 1}}, 400, "field"),
        ({**ASK, "forwardedProps": {"mode": "x"}}, 400, "field"),
        ({**ASK, "forwardedProps": {"temperature": "hot"}}, 400, "validation"),
    ],
)
async def test_refusals(net: Net, body: Any, status: int, reason: str) -> None:
    gateway = await net.gateway(await net.mock())
    response = await gateway.ask("POST", STREAM, body)
    assert (response.status, response.error["reason"]) == (status, reason)


@on_uvloop
async def test_it_has_one_framing(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    assert (await gateway.ask("POST", f"{STREAM}&framing=ndjson", ASK)).status == 406
    assert (await gateway.ask("POST", "/api/v1/stream", ASK)).status == 400
