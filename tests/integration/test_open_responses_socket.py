"""What the compliance suite of Open Responses asks for over a WebSocket and of compaction, with four dialects.

Written from the suite's facts (github.com/openresponses/openresponses, version 2026-04-24): the names of its tests,
what each sends, and what it wants to see. It shares no code with it. `tests/requests/test_open_responses.py` has the
rest.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.gateway import Net, on_uvloop
from tests.integration.talking import MODELS, NAME, talking
from tests.integration.test_responses_socket import EVENT, PATH, not_found, opened, turn
from tests.integration.websocket import Socket
from tests.requests.test_open_responses import DELTA, faults, said

OWN = [model for model in MODELS if not model.startswith("native")]
MINE = f"My name is {NAME}."


async def answered(socket: Socket, model: str, given: Any, **members: Any) -> dict[str, Any]:
    """Asks for a turn, whose events and last response the suite's schemas take; returns that."""
    events = await turn(socket, model=model, input=given, **members)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENT.validate_python(event)
        assert [*faults(event["response"])] == [] if "response" in event else True, event["type"]
        assert event["type"] != "response.output_text.delta" or {*DELTA} <= event.keys()
    response: dict[str, Any] = events[-1]["response"]
    assert (events[-1]["type"], response["status"]) == ("response.completed", "completed")
    assert response["output"]
    return response


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content") or ())


@on_uvloop
@pytest.mark.parametrize("model", MODELS)
async def test_websocket_response_and_sequential_responses(net: Net, model: str) -> None:
    gateway, _ = await talking(net)
    socket = await opened(gateway)
    await answered(socket, model, [said("user", "Count to three.")])
    first, second = [await answered(socket, model, text, store=False) for text in ("Say one.", "Say two.")]
    assert first["id"] != second["id"]


@on_uvloop
@pytest.mark.parametrize("model", MODELS)
async def test_websocket_continuation(net: Net, model: str) -> None:
    gateway, _ = await talking(net)
    socket = await opened(gateway)
    first = await answered(socket, model, MINE, store=False)
    second = await answered(socket, model, "What is it?", store=False, previous_response_id=first["id"])
    assert text_of(second) == f"I know {NAME}"


@on_uvloop
@pytest.mark.parametrize("model", MODELS)
async def test_websocket_reconnect_store_false_recovery_and_previous_response_not_found(net: Net, model: str) -> None:
    gateway, _ = await talking(net)
    socket = await opened(gateway)
    first = await answered(socket, model, MINE, store=False)
    socket.client.close()
    again = await opened(gateway)
    for identifier in (first["id"], "resp_openresponses_missing_1"):
        assert not_found(await turn(again, model=model, input="?", store=False, previous_response_id=identifier))
    await answered(again, model, [said("user", "Begin again.")], store=False)


@on_uvloop
@pytest.mark.parametrize("model", MODELS)
async def test_websocket_failed_continuation_evicts_cache(net: Net, model: str) -> None:
    gateway, _ = await talking(net)
    socket = await opened(gateway)
    first = await answered(socket, model, MINE, store=False)
    wrong = [{"type": "function_call_output", "call_id": "call_missing", "output": "There was no call."}]
    [error] = await turn(socket, model=model, input=wrong, store=False, previous_response_id=first["id"])
    assert (error["type"], error["error"]["code"]) == ("error", "invalid_request")
    assert not_found(await turn(socket, model=model, input="?", store=False, previous_response_id=first["id"]))


@on_uvloop
async def test_compact_response_and_websocket_compact_new_chain(net: Net) -> None:
    """By an upstream that compacts; what it has made goes back to it as it came."""
    gateway, talker = await talking(net, native_lane=(f"{PATH}/compact",))
    conversation = [said("user", MINE), said("assistant", "Hello."), said("user", "Compress this.")]
    asked = {"model": "native/gpt-x", "input": conversation, "prompt_cache_key": "a-key"}
    answer = await gateway.ask("POST", f"{PATH}/compact", asked)
    assert (answer.status, answer.json.get("object")) == (200, "response.compaction")
    assert [item["type"] for item in answer.json["output"]] == ["compaction"]
    socket = await opened(gateway)
    given = [*answer.json["output"], said("user", "What is my name?")]
    response = await answered(socket, "native/gpt-x", given, store=False, tools=[])
    assert text_of(response) == f"I know {NAME}"
    assert talker.asked[-1][1]["input"] == given
    for model in OWN:
        answer = await gateway.ask("POST", f"{PATH}/compact", {**asked, "model": model})
        assert (answer.status, answer.error["code"]) == (400, "unsupported")
