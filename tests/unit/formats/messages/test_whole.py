"""Anthropic's whole message, built or the upstream's own."""

from __future__ import annotations

import json

import pytest

from gai_fast.model.events import Event, JSONText
from tests.unit.formats.messages_reader import ANSWER, ANTHROPIC, CLAUDE, accumulated_by_sdk, client, streamed, whole
from tests.unit.formats.streams import (
    DONE,
    ERROR,
    NOT_DONE,
    START,
    STREAM_ID,
    USAGE,
    call,
    context,
    encoded,
    finish,
    text,
)

REASONED: list[Event] = [
    {"type": "reasoning.delta", "text": "Hm"},
    {"type": "reasoning.signature", "block": 0, "signature": "sig"},
    {"type": "reasoning.signature", "block": 1, "signature": "opaque", "redacted": True},
]


def test_a_whole_text_answer() -> None:
    assert whole(text("Hi"), text("!"), finish(usage=USAGE)) == {
        "id": f"msg_{STREAM_ID}",
        "type": "message",
        "role": "assistant",
        "model": "test-model",
        "content": [{"type": "text", "text": "Hi!"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 20,
        },
    }


def test_the_whole_message_is_the_one_that_the_sdk_puts_together_from_the_stream() -> None:
    events = [*REASONED, text("Hi"), call(), finish("tool_calls", usage=USAGE, provider="anthropic")]
    body = encoded(ANTHROPIC.whole(context()), [CLAUDE, *events, DONE])
    with client(body, "application/json") as sdk:
        message = sdk.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "?"}])
    assert message.to_dict() == accumulated_by_sdk(streamed(*events, DONE, start=CLAUDE)).to_dict()


def test_only_an_answer_with_a_call_ends_for_one() -> None:
    assert whole(call(), finish("tool_calls"))["stop_reason"] == "tool_use"
    ended = whole(text("Hi"), finish("tool_calls"))
    assert (ended["stop_reason"], ended["x_gai"]) == ("end_turn", {"finish_reason": "tool_calls"})


def test_an_answer_with_a_signature_behind_its_text_ends_in_its_text() -> None:
    signed: Event = {"type": "reasoning.signature", "block": 1, "signature": "sig"}
    gemini: Event = {"type": "start", "provider": "gemini"}
    answer = whole({"type": "text.delta", "text": "Hi"}, signed, finish(provider="gemini"), start=gemini)
    assert answer["content"] == [{"type": "text", "text": "Hi"}]


def test_signatures_of_others_say_whose_they_are() -> None:
    gemini: Event = {**START, "provider": "gemini"}
    content = whole(*REASONED, call(signature="s"), finish("tool_calls", provider="gemini"), start=gemini)["content"]
    assert content[0]["signature"] == 'gai:{"provider":"gemini","signature":"sig"}'
    assert content[1] == {"type": "redacted_thinking", "data": 'gai:{"provider":"gemini","signature":"opaque"}'}
    assert content[2] == {
        "type": "redacted_thinking",
        "data": 'gai:{"provider":"gemini","signature":"s","call_id":"call_1"}',
    }
    assert content[3]["type"] == "tool_use"


def test_arguments_that_are_no_object_are_wrapped_in_one() -> None:
    odd: Event = {"type": "tool.call", "call_id": "c", "tool_call": {"name": "sql", "input": "SELECT 1"}}
    assert whole(odd, finish("tool_calls"))["content"][0]["input"] == {"arguments": "SELECT 1"}


def test_arguments_that_are_null_are_an_empty_object() -> None:
    null: Event = {"type": "tool.call", "call_id": "c", "tool_call": {"name": "now", "input": JSONText("null", None)}}
    assert whole(null, finish("tool_calls"))["content"][0]["input"] == {}


def test_citations_stand_in_the_block_of_their_span() -> None:
    cites: Event = {
        "type": "citations",
        "citations": [{"uri": "a", "start": 0, "end": 2}, {"uri": "b", "start": 2, "end": 5}, {"uri": "c"}, {}],
    }
    first, _, second = whole(text("Hi"), call(), text("you"), cites, finish())["content"]
    assert [one["url"] for one in first["citations"]] == ["a", "c"]
    assert [one["url"] for one in second["citations"]] == ["b"]


def test_what_has_no_place_stands_in_x_gai() -> None:
    warning: Event = {"type": "warning", "reason": "malformed_chunk"}
    safety: Event = {"type": "safety", "safety": {"category": "bio", "action": "refused"}}
    answer = whole(warning, safety, finish("other", usage={**USAGE, "source": "counted"}))
    assert answer["x_gai"] == {
        "finish_reason": "other",
        "usage_source": "counted",
        "warnings": [{"reason": "malformed_chunk"}],
        "events": [safety],
    }
    refused = whole(safety, finish("content_filter"))
    assert refused["stop_details"]["category"] == "bio"
    assert "x_gai" not in refused


TOOL: list[Event] = [
    {"type": "server_tool", "server_tool": {"id": "s", "name": "web_search", "status": "started", "input": {"q": "x"}}},
    {"type": "server_tool", "server_tool": {"id": "s", "name": "web_search", "status": "completed", "output": []}},
]


def test_tools_that_anthropic_ran_stand_in_their_place() -> None:
    events = [text("a"), *TOOL, text("b"), finish(provider="anthropic", usage=USAGE)]
    answer = whole(*events, start=CLAUDE)
    assert answer["content"] == accumulated_by_sdk(streamed(*events, DONE, start=CLAUDE)).to_dict()["content"]
    assert [one["type"] for one in answer["content"]] == ["text", "server_tool_use", "web_search_tool_result", "text"]
    assert "x_gai" not in answer


def test_events_that_a_message_has_no_place_for_are_kept_as_they_are() -> None:
    image: Event = {"type": "image", "image": {"data": "aGk=", "media_type": "image/png"}}
    result: Event = {"type": "tool.result", "call_id": "c", "tool_result": 4}
    flagged: Event = {"type": "safety", "safety": {"category": "violence", "action": "flagged"}}
    answer = whole(text("a"), *TOOL, image, text("b"), result, flagged, finish())
    assert answer["content"] == [{"type": "text", "text": "ab"}]
    assert answer["x_gai"]["events"] == [*TOOL, image, result, flagged]


def test_after_an_error_there_is_no_message() -> None:
    assert encoded(ANTHROPIC.whole(context()), [START, text("Hi"), ERROR, NOT_DONE]) == b""


def test_the_upstreams_own_message_is_unchanged() -> None:
    own = b' {"id": "msg_theirs", "content": []}'
    encoder = ANTHROPIC.passthrough("sse", context(), whole=True)
    assert encoder is not None
    encoder.frame(own, last=True)
    assert encoded(encoder, [START, finish(), DONE]) == own


def test_a_stream_to_a_whole_request_becomes_a_message() -> None:
    encoder = ANTHROPIC.passthrough("sse", context(), whole=True)
    assert encoder is not None
    encoder.frame(ANSWER, last=False)
    encoder.heartbeat()
    body = encoded(encoder, [START, text("Hi"), finish(), DONE])
    assert json.loads(body)["content"] == [{"type": "text", "text": "Hi"}]
    assert encoder.take_pieces() == []


@pytest.mark.timeout(100)
def test_citations_find_their_blocks_in_linear_time() -> None:
    """Each block of text looked through all citations of those that come later."""
    cited: list[Event] = [{"type": "citations", "citations": [{"uri": "u", "end": 40_000}] * 80_000}]
    thought: Event = {"type": "reasoning.delta", "text": "Hm"}
    said = [event for _ in range(40_000) for event in (text("a"), thought)]
    blocks = [block for block in whole(*said, *cited, finish())["content"] if block["type"] == "text"]
    assert [len(block.get("citations", ())) for block in blocks] == [0] * 39_999 + [80_000]
