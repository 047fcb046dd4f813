"""The clients for JavaScript read a run, and make the calls that are theirs: none of the gateway's."""

from __future__ import annotations

from typing import Any, Final

import pytest

import gai_fast
from gai_fast.formats import get_format
from gai_fast.model.events import Event
from tests.node.conftest import Run
from tests.node.test_vercel import SDKS
from tests.unit.formats.run_events import GATEWAY_CALLS, RUN_EVENTS, TEXT
from tests.unit.formats.streams import DONE, START, USAGE, context, encoded, finish, text

OURS: Final = str(gai_fast.__path__[0]) + "/client/gai-fast.js"
SHOWN: Final = ["show(Away)", "show(Home)"]
CLIENTS: Final = {
    "openai chat": "openai",
    "openai responses": "responses",
    "anthropic": "anthropic",
    "streamText chat": "openai",
    "streamText responses": "responses",
    "useChat 5": "vercel:5",
    "useChat 6": "vercel:6",
    "useChat 7": "vercel:7",
    "agui": "agui",
    "gai-fast.js": "gai",
}
"""The format of each client."""
GOES_ON: Final = {"openai chat", "anthropic", "streamText chat", "streamText responses"}
"""The clients that make the calls themselves, and ask again with the results."""


def body(name: str, events: list[Event]) -> str:
    form, _, version = name.partition(":")
    found = get_format(form).version(version) if version else get_format(form)
    return encoded(found.encoder("sse", context()), events).decode()


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_run_is_read_and_no_call_of_the_gateways_is_made(run_node: Run, client: str) -> None:
    name = CLIENTS[client]
    last = [START, text("Shown."), finish(usage=USAGE), DONE]
    job = {"client": client, "bodies": [body(name, RUN_EVENTS), body(name, last)], "ours": OURS}
    (result,) = await run_node("runs.mjs", [job])
    assert result["error"] is None
    assert sorted(result["made"]) == SHOWN
    assert result["text"] == (TEXT + "Shown." if client in GOES_ON else TEXT)
    if client.startswith("useChat"):
        check_message(result["message"], client)
        assert result["found"] == ["approval-1", "approval-1"]
    elif client == "agui":
        roles = [message["role"] for message in result["message"]]
        assert roles == ["user", "reasoning", "assistant", "tool", "tool", "assistant", "tool", "assistant", "tool"]
        assert result["found"] == ["1", "2", "3"]
    elif client == "gai-fast.js":
        assert result["found"] == [event["type"] for event in RUN_EVENTS]
    elif client == "openai responses":
        assert result["found"].count("response.mcp_call.completed") == 3
        assert result["found"].count("response.mcp_call.failed") == 1
    elif client == "streamText responses":
        executed = [name for name, is_executed in result["found"] if is_executed]
        assert len(executed) == 4, "the provider's, for the SDK: it makes none of them"


@pytest.mark.parametrize("client", ["openai chat", "anthropic", "streamText chat", "useChat 7", "gai-fast.js"])
async def test_the_same_calls_are_made_if_they_are_the_clients(run_node: Run, client: str) -> None:
    """The control: these clients do make the calls that they believe to be theirs."""
    name = CLIENTS[client]
    given: list[Any] = [{key: value for key, value in event.items() if key != "executed_by"} for event in RUN_EVENTS]
    last = [START, text("Shown."), finish(usage=USAGE), DONE]
    job = {"client": client, "bodies": [body(name, given), body(name, last), body(name, last)], "ours": OURS}
    (result,) = await run_node("runs.mjs", [job])
    assert len(result["made"]) == len(GATEWAY_CALLS) + len(SHOWN)


@pytest.mark.parametrize("sdk", SDKS)
async def test_arguments_that_are_no_json_are_a_failed_call(run_node: Run, sdk: str) -> None:
    events: list[Any] = []
    for event in RUN_EVENTS:
        is_bad = event["type"] == "tool.call" and event["call_id"] == "weather_1"
        events.append({**event, "tool_call": {"name": "weather", "input": "[{"}} if is_bad else event)
    (result,) = await run_node("vercel.mjs", [{"sdk": sdk, "body": body(f"vercel:{SDKS[sdk]}", events)}])
    assert result["error"] is None
    [part] = [part for part in result["message"]["parts"] if part.get("toolCallId") == "weather_1"]
    assert (part["type"], part["state"], part["errorText"]) == ("dynamic-tool", "output-error", "no such city")


def check_message(message: Any, client: str) -> None:
    """The page shows the calls with their outputs; sent back, they are part of the conversation."""
    parts = [part for part in message["parts"] if part["type"] == "dynamic-tool"]
    assert [part["toolName"] for part in parts] == ["docs__search", "weather", "docs__write", "docs__search"]
    states = [part["state"] for part in parts]
    assert states == ["output-available", "output-error", "output-available", "output-available"]
    assert parts[1]["errorText"] == "no such city"
    assert sum(part["type"] == "step-start" for part in message["parts"]) == 3, client
    request, lost = get_format("vercel").parse_request({"messages": [message]})
    assert lost == []
    results = [each for each in request.messages if each.__struct_config__.tag == "tool"]
    assert len(results) == len(parts)
