"""The npm clients read every recording from a running gateway: straight against through, as `corpus/test_clients.py`.

The AI SDK in its oldest version, which refuses any key that it does not know, and in its newest; AG-UI's `HttpAgent`,
which checks the order of events.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.corpus.clients import answers, check_known, check_message
from tests.corpus.recordings import SECONDS, judge, recordings
from tests.corpus.served import Wrong, decoded_here, upstream_of
from tests.corpus.summary import note_equal
from tests.corpus.test_formats import arguments_of, complete_calls
from tests.integration.gateway import Response
from tests.node.conftest import Run
from tests.readers import ClientState, count_run


def known_by_page(result: dict[str, Any]) -> ClientState:
    """Returns the content of a page's `UIMessage`, without calls that were cut off."""
    state = ClientState(error=result["error"] and result["error"].removeprefix("Error: "))
    message = result["message"] or {"parts": []}
    for part in message["parts"]:
        kind = part["type"]
        if kind == "text":
            state.text += part["text"]
        elif kind == "reasoning":
            state.reasoning += part["text"]
        elif kind.startswith("tool-") and not part.get("providerExecuted") and part["state"] != "input-streaming":
            state.calls[part["toolCallId"]] = [kind.removeprefix("tool-"), part["input"]]
    metadata = message.get("metadata", {})
    state.finish_reason = metadata.get("finish_reason")
    state.count(**metadata.get("usage", {}))
    return state


def known_by_agent(result: dict[str, Any]) -> ClientState:
    """Returns the content of an agent's messages."""
    state = ClientState(error=result["error"], finish_reason=(result["result"] or {}).get("finish_reason"))
    for message in result["messages"]:
        if message["role"] == "reasoning":
            state.reasoning += message["content"]
        else:
            state.text += message.get("content", "")
        for call in message.get("toolCalls", ()):
            state.calls[call["id"]] = [call["function"]["name"], arguments_of(call["function"]["arguments"])]
    count_run(state, result)
    return state


CLIENTS: Final[dict[str, tuple[str, str, Callable[[dict[str, Any]], ClientState], dict[str, str]]]] = {
    "vercel, read by ai 5.0.0": ("vercel", "vercel.mjs", known_by_page, {"sdk": "ai-5.0.0"}),
    "vercel, read by ai 7": ("vercel", "vercel.mjs", known_by_page, {"sdk": "ai-7"}),
    "agui, read by HttpAgent": ("agui", "agui.mjs", known_by_agent, {}),
}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, run_node: Run) -> str:
    """Returns the name of a client whose answers are there; without Node or recordings the test is skipped."""
    judge()
    name: str = request.param
    answers(CLIENTS[name][0])
    return name


@pytest.mark.timeout(SECONDS)
async def test_the_client_knows_what_the_recording_tells(client: str, run_node: Run) -> None:
    form, script, known, more = CLIENTS[client]
    found = answers(form)
    jobs = [{**more, "body": response.body.decode(), "status": response.status} for _, response in found]
    results = await run_node(script, jobs)
    wrong: dict[str, str] = {}
    for (recording, response), result in zip(found, results, strict=True):
        try:
            compare(form, recording, response, result, known(result))
        except Wrong as difference:
            wrong[recording.name] = str(difference)
    note_equal(client, len(results) - len(wrong), len(results))
    assert not wrong
    assert len(results) == len(recordings()) > 0


def compare(form: str, recording: Any, response: Response, result: dict[str, Any], through: ClientState) -> None:
    """Compares what a client knows with what the recording tells.

    Raises:
        Wrong: They differ.
    """
    events = decoded_here(recording)
    if response.status != 200:  # the clients raise with the body
        body = json.loads(result["error"][result["error"].index("{") :])
        check_message(body["error"]["message"], events, upstream_of(recording))
        return
    if form == "vercel":
        complete = complete_calls(events)
        events = [event for event in events if event.get("call_id") is None or event["call_id"] in complete]
    check_known(through, events, form)
