"""The official clients read a run: two calls of the gateway, of which one fails, a question, and calls of the client.

None of them makes a gateway's call, or believes that it must.
"""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest
from agents import (
    Agent,
    HostedMCPTool,
    MCPToolApprovalFunctionResult,
    MCPToolApprovalRequest,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)

from gai_fast.formats import get_format
from gai_fast.model.events import Event
from tests.unit.formats import chat_reader, messages_reader, responses_reader
from tests.unit.formats.run_events import ASKS, CLIENT_CALLS, GATEWAY_CALLS, RUN_EVENTS, TEXT
from tests.unit.formats.streams import DONE, START, USAGE, context, encoded, finish, text


def body(name: str, events: list[Event] = RUN_EVENTS) -> bytes:
    return encoded(get_format(name).encoder("sse", context()), events)


def test_openais_chat_stream() -> None:
    sent = body("openai")
    message = chat_reader.accumulated_by_sdk(sent).choices[0].message
    assert message.content == TEXT
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls] == [
        ("show_1", "show", '{"page":"Home"}'),
        ("show_2", "show", '{"page":"Away"}'),
    ]
    chunks = chat_reader.read_by_sdk(sent)
    assert {call.index for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()} == {
        0,
        1,
    }
    asked = chat_reader.accumulated_by_sdk(body("openai", ASKS)).choices[0]
    assert (asked.finish_reason, asked.message.tool_calls) == ("stop", None)


def test_openais_response_stream() -> None:
    sent = body("responses")
    responses_reader.checked(sent)
    response = responses_reader.accumulated_by_sdk(sent)
    calls = [item for item in response.output if item.type == "mcp_call"]
    assert [(call.server_label, call.name, call.status) for call in calls] == [
        ("docs", "search", "completed"),
        ("gateway", "weather", "failed"),
        ("docs", "write", "completed"),
        ("docs", "search", "completed"),
    ]
    assert [call.output for call in calls] == ['{"hits":[20000000000000000000]}', None, "written", "y"]
    assert calls[1].error.content[0]["text"] == "no such city"
    assert [item.call_id for item in response.output if item.type == "function_call"] == CLIENT_CALLS
    assert response.output_text == TEXT
    responses_reader.whole(*RUN_EVENTS[1:-1])
    asked = responses_reader.accumulated_by_sdk(body("responses", ASKS))
    assert (asked.status, asked.output[-1].type, asked.output[-1].id) == (
        "completed",
        "mcp_approval_request",
        "approval-1",
    )


def test_anthropics_message_stream() -> None:
    message = messages_reader.accumulated_by_sdk(body("anthropic"))
    assert "".join(block.text for block in message.content if block.type == "text") == TEXT
    calls = [(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"]
    assert calls == [("show_1", "show", {"page": "Home"}), ("show_2", "show", {"page": "Away"})]
    assert message.stop_reason == "tool_use"
    assert messages_reader.accumulated_by_sdk(body("anthropic", ASKS)).stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("kind", "name"), [(OpenAIChatCompletionsModel, "openai"), (OpenAIResponsesModel, "responses")]
)
async def test_openais_agents_make_their_own_calls_alone(kind: Any, name: str) -> None:
    set_tracing_disabled(True)
    made: list[str] = []
    # A question ends a response: the run of a client that was asked goes on in the next one.
    events = RUN_EVENTS if name == "openai" else [event for event in RUN_EVENTS if "approval" not in event]
    last = body(name, [START, text("Shown."), finish(usage=USAGE), DONE])
    bodies = [body(name, events), last] if name == "openai" else [body(name, ASKS), body(name, events), last]
    questions: list[str] = []
    asked: list[bytes] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(await request.aread())
        return httpx2.Response(200, content=bodies.pop(0), headers={"content-type": "text/event-stream"})

    def tool_named(tool: str) -> Any:
        @function_tool(name_override=tool, strict_mode=False)
        def make(page: str = "") -> str:
            """Makes a call."""
            made.append(f"{tool}({page})")
            return "done"

        return make

    def allow(request: MCPToolApprovalRequest) -> MCPToolApprovalFunctionResult:
        questions.append(request.data.id)
        return {"approve": True}

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    client = openai.AsyncOpenAI(api_key="k", base_url="http://sdk.test/v1", http_client=http, max_retries=0)
    tools = [tool_named(each) for each in ("show", "docs__search", "search", "weather", "docs__write", "write")]
    if name == "responses":
        for label in ("docs", "gateway"):
            config: Any = {"type": "mcp", "server_label": label, "require_approval": "always"}
            tools.append(HostedMCPTool(tool_config=config, on_approval_request=allow))
    run = Runner.run_streamed(Agent(name="Guide", model=kind("m", client), tools=tools), "Hello")
    async for _ in run.stream_events():
        pass
    assert sorted(made) == ["show(Away)", "show(Home)"]
    assert run.final_output == "Shown."
    if name == "responses":  # the agent sends back what it got: a gateway's call is a call and its output
        assert questions == ["approval-1"]
        answered = _parsed(asked[1])["input"][-1]
        assert answered == {"type": "mcp_approval_response", "approval_request_id": "approval-1", "approve": True}
        items = [item for item in _parsed(asked[2])["input"] if not item.get("type", "").startswith("mcp_approval_")]
        request, lost = get_format("responses").parse_request({"model": "m", "input": items})
        assert lost == []
        results = [each for each in request.messages if each.__struct_config__.tag == "tool"]
        assert len(results) == len(GATEWAY_CALLS) + len(CLIENT_CALLS)


def _parsed(body: bytes) -> Any:
    return httpx2.Response(200, content=body).json()
