"""What each format writes of a run: its text, the client's calls as calls, the gateway's as none of the client's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.formats import FORMATS, Format, get_format
from gai_fast.library.collecting import collect
from gai_fast.model.events import Event
from tests.legal import check_legal
from tests.unit.formats.run_events import ASKS, CLIENT_CALLS, GATEWAY_CALLS, RUN_EVENTS, TEXT, VOIDED
from tests.unit.formats.streams import STREAM_ID, USAGE, context, encoded

RESULTS = {
    "search_1": '{"hits":[20000000000000000000]}',
    "weather_1": "no such city",
    "write_1": "written",
    "search_2": "y",
}


def objects(form: Format, events: list[Event]) -> list[dict[str, Any]]:
    """Returns the objects of a stream."""
    lines = encoded(form.encoder("sse", context()), events).decode().splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def whole(name: str, events: list[Event]) -> dict[str, Any]:
    encoder = get_format(name).whole(context())
    answer: dict[str, Any] = json.loads(encoded(encoder, events))
    return answer


def test_the_events_are_legal() -> None:
    check_legal(RUN_EVENTS)
    check_legal(ASKS)
    check_legal(VOIDED)


# ---- results ---------------------------------------------------------------------------------------------------------


def test_a_result_has_all_messages_and_the_clients_calls_alone() -> None:
    result = collect(RUN_EVENTS)
    assert result.text == TEXT
    assert [call.call_id for call in result.tool_calls] == CLIENT_CALLS
    roles = [message["role"] for message in result.messages]
    assert roles == ["assistant", "tool", "tool", "assistant", "tool", "assistant", "tool"]
    tools = [message for message in result.messages if message["role"] == "tool"]
    assert {message["call_id"]: message["content"] for message in tools} == RESULTS
    assert [message["call_id"] for message in tools] == GATEWAY_CALLS, "in the calls' order, not in that of their ends"
    assert [message.get("is_error") for message in tools] == [None, True, None, None]
    assert result.message is result.messages[-2]
    assert [part["type"] for part in result.message["content"]] == ["text", "tool_call", "tool_call", "tool_call"]
    assert result.messages[0]["content"][0] == {
        "type": "reasoning",
        "text": "Hm",
        "signature": "signed",
        "provider": "test",
    }


def test_a_void_step_leaves_nothing() -> None:
    assert collect(VOIDED) == collect(RUN_EVENTS)


@pytest.mark.parametrize("name", ["gai", "vercel", "agui", "openai", "anthropic", "responses", "completions", "simple"])
def test_a_void_step_leaves_nothing_in_a_whole_answer(name: str) -> None:
    assert whole(name, VOIDED) == whole(name, RUN_EVENTS)


def test_an_answer_that_is_no_run_adds_its_message() -> None:
    plain = [event for event in RUN_EVENTS if event["type"] in ("start", "text.delta", "done")]
    result = collect(plain)
    assert result.messages == [result.message]


def test_a_gap_replaces_the_text_and_keeps_the_steps() -> None:
    first = RUN_EVENTS[: RUN_EVENTS.index(next(event for event in RUN_EVENTS if event.get("step") == 2))]
    said = "Let me look. I will wr"
    gap: Event = {"type": "stream.gap", "from": 2, "to": 9, "text": said}
    begun: list[Event] = [{"type": "step.start", "step": 2}, gap]
    assert collect([*first, *begun]).text == said
    assert collect([*first, *begun]).messages[-1]["content"] == [{"type": "text", "text": "I will wr"}]
    reset: Event = {"type": "step.reset", "step": 2}
    assert collect([*first, *begun, reset]).text == "Let me look. "
    other: Event = {**gap, "text": "Another text"}
    assert collect([*first, begun[0], other]).text == "Another text"
    assert collect([*first, begun[0], other, reset]).text == "Another text"
    assert collect([*first, other, {**reset, "step": 9}]).text == "Another text", "its beginning was missed"


def test_the_result_of_a_call_of_nobody_is_no_message() -> None:
    plain = [event for event in RUN_EVENTS if event["type"] in ("start", "text.delta", "tool.result", "done")]
    assert [message["role"] for message in collect(plain).messages] == ["assistant"]


def test_parts_are_the_content_of_a_result_that_is_not_only_text() -> None:
    parts = [{"type": "image", "data": "aGk=", "media_type": "image/png"}]
    events: list[Any] = [{**event, "parts": parts} if event["type"] == "tool.result" else event for event in RUN_EVENTS]
    tools = [message for message in collect(events).messages if message["role"] == "tool"]
    assert all(message["content"] == parts for message in tools)


# ---- streams ---------------------------------------------------------------------------------------------------------


def test_gai_has_them_as_they_are() -> None:
    written = objects(get_format("gai"), RUN_EVENTS)
    assert [event["type"] for event in written] == [event["type"] for event in RUN_EVENTS]
    progress = next(event for event in written if event["type"] == "tool.progress")
    assert [*progress] == ["type", "seq", "step", "call_id", "text", "progress", "total"]
    assert progress["progress"] == 0
    assert [event["is_error"] for event in written if event["type"] == "tool.result"] == [True, False, False, False]


def test_chat_counts_the_clients_calls_alone() -> None:
    chunks = objects(get_format("openai"), RUN_EVENTS)
    calls = [call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", ())]
    assert [(call["id"], call["index"]) for call in calls if "id" in call] == [("show_1", 0), ("show_2", 1)]
    assert {call["index"] for call in calls} == {0, 1}
    beside = [chunk["x_gai"] for chunk in chunks if "x_gai" in chunk]
    assert all(chunk["choices"][0]["delta"] == {} for chunk in chunks if "x_gai" in chunk and chunk["choices"])
    assert [one["call_id"] for one in beside if "tool_call" in one] == GATEWAY_CALLS
    assert [one["call_id"] for one in beside if "tool_result" in one] == ["weather_1", *RESULTS][:2] + GATEWAY_CALLS[2:]
    assert [one["approval"].get("decision") for one in beside if "approval" in one] == [None, "approve"]
    first = beside[0]
    assert first["tool_call"] == {"name": "docs__search", "input": {"q": "x"}}
    assert (first["executed_by"], first["server"]) == ("gateway", "docs")
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert reasons == ["tool_calls"]
    assert [step["tool_calls"] for one in beside for step in one.get("steps", ())] == [2, 1, 1]


def test_chat_does_not_say_that_calls_follow_if_only_the_gateway_has_made_some() -> None:
    chunks = objects(get_format("openai"), ASKS)
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]][-1] == "stop"
    assert not any("tool_calls" in choice["delta"] for chunk in chunks for choice in chunk["choices"])


def test_messages_has_no_block_of_a_gateways_call() -> None:
    events = objects(get_format("anthropic"), RUN_EVENTS)
    blocks = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [block["type"] for block in blocks] == ["thinking", "text", "text", "text", "tool_use", "tool_use"]
    assert [block["id"] for block in blocks if block["type"] == "tool_use"] == CLIENT_CALLS
    pings = [event["x_gai"] for event in events if event["type"] == "ping"]
    assert [ping["call_id"] for ping in pings if "tool_call" in ping] == GATEWAY_CALLS
    assert sum("tool_result" in ping for ping in pings) == len(RESULTS)
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_gateways_call_is_an_mcp_call_with_the_events_of_one() -> None:
    events = objects(get_format("responses"), RUN_EVENTS)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    added = [event for event in events if event["type"] == "response.output_item.added"]
    assert [event["output_index"] for event in added] == list(range(len(added)))
    kinds = [event["item"]["type"] for event in added]
    assert kinds == [
        *("reasoning", "message", "mcp_call", "mcp_call", "message", "mcp_call", "mcp_approval_request"),
        *("message", "mcp_call", "function_call", "function_call"),
    ]
    identifier = added[2]["item"]["id"]
    assert identifier == f"mcp_{STREAM_ID}_2"
    own = [event["type"] for event in events if identifier in (event.get("item_id"), event.get("item", {}).get("id"))]
    assert own == [
        "response.output_item.added",
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.mcp_call.completed",
        "response.output_item.done",
    ]
    assert [event["type"] for event in events].count("response.completed") == 1
    output = events[-1]["response"]["output"]
    calls = [item for item in output if item["type"] == "mcp_call"]
    shown = [(item["server_label"], item["name"], item["arguments"], item["status"]) for item in calls]
    assert shown == [
        ("docs", "search", '{"q":"x"}', "completed"),
        ("gateway", "weather", "{}", "failed"),
        ("docs", "write", '{"page":"Home"}', "completed"),
        ("docs", "search", '{"q":"y"}', "completed"),
    ]
    assert [item["output"] for item in calls] == ['{"hits":[20000000000000000000]}', None, "written", "y"]
    assert calls[1]["error"]["content"] == [{"type": "text", "text": "no such city"}]
    assert events[-1]["response"]["usage"]["total_tokens"] == USAGE["total_tokens"]


def test_a_question_is_the_last_item_of_its_response() -> None:
    response = objects(get_format("responses"), ASKS)[-1]["response"]
    assert response["status"] == "completed"
    call, question = response["output"]
    assert (call["type"], call["status"]) == ("mcp_call", "incomplete")
    assert question == {
        "id": "approval-1",
        "type": "mcp_approval_request",
        "server_label": "docs",
        "name": "write",
        "arguments": '{"page":"Home"}',
    }


def test_a_whole_response_has_the_items_of_the_stream() -> None:
    assert (
        whole("responses", RUN_EVENTS)["output"]
        == objects(get_format("responses"), RUN_EVENTS)[-1]["response"]["output"]
    )


@pytest.mark.parametrize("version", ["5", "6", "7"])
def test_ai_sdk_gets_steps_and_calls_that_no_page_makes(version: str) -> None:
    parts = objects(get_format("vercel").version(version), RUN_EVENTS)
    kinds = [part["type"] for part in parts]
    assert kinds.count("start-step") == kinds.count("finish-step") == 3
    started = [part for part in parts if part["type"] == "tool-input-start"]
    executed = [part["toolCallId"] for part in started if part.get("providerExecuted") and part.get("dynamic")]
    assert executed == GATEWAY_CALLS
    assert [part["toolCallId"] for part in started if "providerExecuted" not in part] == CLIENT_CALLS
    outputs = {part["toolCallId"]: part for part in parts if part["type"].startswith("tool-output-")}
    assert {key: part["type"] for key, part in outputs.items()} == {
        key: "tool-output-error" if key == "weather_1" else "tool-output-available" for key in RESULTS
    }
    assert outputs["weather_1"]["errorText"] == "no such city"
    asked = [part for part in parts if part["type"] == "tool-approval-request"]
    expected = {"type": "tool-approval-request", "approvalId": "approval-1", "toolCallId": "write_1"}
    assert asked == ([] if version == "5" else [expected])
    shown = [part for part in parts if part["type"] == "data-approval"]
    assert [part["id"] for part in shown] == ["approval-1", "approval-1"]
    assert shown[0]["data"]["digest"] == "d1"
    assert shown[1]["data"]["decision"] == "approve"


def test_ai_sdk_drops_a_void_step() -> None:
    kinds = [part["type"] for part in objects(get_format("vercel").version("7"), VOIDED)]
    assert kinds.count("reset-step") == 1
    assert kinds.count("start-step") == 3, "the step that was reset is still open"


def test_agui_has_steps_and_the_results_of_calls() -> None:
    events = objects(get_format("agui"), RUN_EVENTS)
    steps = [(event["type"], event["stepName"]) for event in events if event["type"].startswith("STEP_")]
    assert steps == [(kind, str(step)) for step in (1, 2, 3) for kind in ("STEP_STARTED", "STEP_FINISHED")]
    results = {event["toolCallId"]: event["content"] for event in events if event["type"] == "TOOL_CALL_RESULT"}
    assert results == RESULTS
    custom = [event["name"] for event in events if event["type"] == "CUSTOM"]
    assert custom == ["tool.progress", "approval.required", "approval.decided"]
    texts = {event["messageId"] for event in events if event["type"] == "TEXT_MESSAGE_START"}
    parents = {event["parentMessageId"] for event in events if event["type"] == "TOOL_CALL_START"}
    assert parents == texts
    assert len(texts) == 3


def test_agui_closes_the_step_of_a_run_that_is_cancelled() -> None:
    cut: list[Event] = [*RUN_EVENTS[:5], {"type": "finish", "finish_reason": "cancelled"}, RUN_EVENTS[-1]]
    kinds = [event["type"] for event in objects(get_format("agui"), cut)]
    assert kinds[-2:] == ["STEP_FINISHED", "RUN_FINISHED"]


@pytest.mark.parametrize("name", ["simple", "completions"])
def test_others_have_the_text(name: str) -> None:
    form = get_format(name)
    texts = [event for event in RUN_EVENTS if event["type"] in ("start", "text.delta", "finish", "done")]
    assert encoded(form.encoder("sse", context()), RUN_EVENTS) == encoded(form.encoder("sse", context()), texts)
    assert encoded(form.whole(context()), RUN_EVENTS) == encoded(form.whole(context()), texts)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("gai", "raw")])
def test_a_format_that_cannot_void_a_step_says_so(name: str) -> None:
    for version in ("5", "6", "7") if name == "vercel" else ("",):
        form = get_format(name).version(version) if version else get_format(name)
        reset = [*RUN_EVENTS[:2], VOIDED[-1]]
        with_reset: list[Event] = [*RUN_EVENTS[:2], {"type": "step.reset", "step": 1}, VOIDED[-1]]
        writes = encoded(form.encoder("sse", context()), with_reset) != encoded(form.encoder("sse", context()), reset)
        assert writes == form.can_reset_step, version


# ---- whole answers ---------------------------------------------------------------------------------------------------


def test_a_whole_native_answer_has_its_messages() -> None:
    answer, result = whole("gai", RUN_EVENTS), collect(RUN_EVENTS)
    assert answer["text"] == TEXT
    assert answer["messages"] == result.messages
    assert answer["message"] == result.message
    assert [call["call_id"] for call in answer["tool_calls"]] == CLIENT_CALLS
    assert "messages" not in whole("gai", [event for event in RUN_EVENTS if not event["type"].startswith("step.")])


def test_a_whole_chat_completion_has_the_clients_calls() -> None:
    answer = whole("openai", RUN_EVENTS)
    message = answer["choices"][0]["message"]
    assert message["content"] == TEXT
    assert [call["id"] for call in message["tool_calls"]] == CLIENT_CALLS
    assert [detail["signature"] for detail in message["reasoning_details"]] == ["signed"], "of an earlier turn"
    kinds = [event["type"] for event in answer["x_gai"]["events"]]
    assert kinds.count("tool.call") == kinds.count("tool.result") == len(GATEWAY_CALLS)


def test_a_whole_message_has_the_clients_calls() -> None:
    answer = whole("anthropic", RUN_EVENTS)
    assert [block["type"] for block in answer["content"]] == [
        "thinking",
        "text",
        "text",
        "text",
        "tool_use",
        "tool_use",
    ]
    assert [block["id"] for block in answer["content"] if block["type"] == "tool_use"] == CLIENT_CALLS


def test_a_whole_ui_message_is_that_of_the_stream() -> None:
    message = whole("vercel", RUN_EVENTS)
    parts = message["parts"]
    assert sum(part["type"] == "step-start" for part in parts) == 3
    gateways = [part for part in parts if part["type"] == "dynamic-tool"]
    assert [part["toolCallId"] for part in gateways] == GATEWAY_CALLS
    assert [part["state"] for part in gateways] == ["output-available", "output-error"] + 2 * ["output-available"]
    assert [part["data"]["decision"] for part in parts if part["type"] == "data-approval"] == ["approve"]
    request, lost = get_format("vercel").parse_request({"messages": [message]})
    assert lost == []
    roles = [each.__struct_config__.tag for each in request.messages]
    assert roles == ["assistant", "tool", "tool", "assistant", "tool", "assistant", "tool"]


def test_a_whole_run_has_the_messages_of_all_turns() -> None:
    answer = whole("agui", RUN_EVENTS)
    roles = [message["role"] for message in answer["newMessages"]]
    assert roles == ["reasoning", "assistant", "tool", "tool", "assistant", "tool", "assistant", "tool"]
    assert {each["toolCallId"]: each["content"] for each in answer["newMessages"] if each["role"] == "tool"} == RESULTS
    assert [event["type"] for event in answer["result"]["events"]] == ["approval.required", "approval.decided"]
