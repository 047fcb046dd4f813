"""Anthropic's stream: the events of a message, and what the official SDK makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gai_fast
from gai_fast.formats import get_format
from gai_fast.formats.limits import LIMITS
from gai_fast.formats.messages import stream as module
from gai_fast.model.events import TYPES, Event, JSONText
from tests.unit.formats.every_event import EVERY_EVENT
from tests.unit.formats.messages_reader import (
    ANTHROPIC,
    CLAUDE,
    accumulated_by_sdk,
    objects_of,
    streamed,
    whole,
    written,
)
from tests.unit.formats.streams import (
    DONE,
    ERROR,
    NOT_DONE,
    START,
    STREAM_ID,
    USAGE,
    call,
    call_delta,
    call_start,
    context,
    encoded,
    finish,
    reasoning,
    text,
)


def signature(signed: str, **keys: Any) -> Event:
    more: Any = keys
    return {"type": "reasoning.signature", "signature": signed, "block": 0, **more}


def kinds(objects: list[Any]) -> list[str]:
    return [one["type"] for one in objects]


def test_a_text_is_one_block_of_a_message() -> None:
    body = streamed(text("Hi"), text(' "you"\n'), finish(usage=USAGE), DONE)
    head = (
        f'event: message_start\ndata: {{"type":"message_start","message":{{"id":"msg_{STREAM_ID}","type":"message",'
        '"role":"assistant","model":"test-model","content":[],"stop_reason":null,"stop_sequence":null,'
        '"usage":{"input_tokens":0,"output_tokens":0}}}\n\n'
    )
    rest = (
        'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        '"content_block":{"type":"text","text":""}}\n\n'
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        '"delta":{"type":"text_delta","text":"Hi"}}\n\n'
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        '"delta":{"type":"text_delta","text":" \\"you\\"\\n"}}\n\n'
        'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null,'
        '"stop_details":null},"usage":{"input_tokens":10,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,'
        '"output_tokens":20}}\n\n'
        'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )
    assert body.decode() == head + rest


def test_ndjson_has_the_same_objects_one_a_line() -> None:
    events = [text("Hi"), finish(), DONE]
    lines = streamed(*events, framing="ndjson").decode().splitlines()
    assert [json.loads(line) for line in lines] == objects_of(streamed(*events))
    encoder = ANTHROPIC.encoder("ndjson", context())
    encoder.heartbeat()
    assert encoder.take() == b'{"type":"ping"}\n'


def test_the_keep_alive_is_a_ping_event() -> None:
    encoder = ANTHROPIC.encoder("sse", context())
    encoder.heartbeat()
    assert encoder.take() == b'event: ping\ndata: {"type":"ping"}\n\n'


def test_each_kind_of_content_has_blocks_of_its_own() -> None:
    events = [reasoning("Hm"), signature("sig"), text("Hi"), call_start(), call_delta("{}"), call(arguments="{}")]
    objects = written(*events, text("Bye"), finish("tool_calls"), DONE, start=CLAUDE)
    opened = [one for one in objects if one["type"] == "content_block_start"]
    assert [one["content_block"]["type"] for one in opened] == ["thinking", "text", "tool_use", "text"]
    assert [one["index"] for one in opened] == [0, 1, 2, 3]
    assert [one["index"] for one in objects if one["type"] == "content_block_stop"] == [0, 1, 2, 3]
    deltas = [one["delta"] for one in objects if one["type"] == "content_block_delta"]
    assert deltas == [
        {"type": "thinking_delta", "thinking": "Hm"},
        {"type": "signature_delta", "signature": "sig"},
        {"type": "text_delta", "text": "Hi"},
        {"type": "input_json_delta", "partial_json": "{}"},
        {"type": "text_delta", "text": "Bye"},
    ]


def test_the_sdk_reads_text_thinking_calls_and_usage() -> None:
    usage = {
        **USAGE,
        "input_tokens": 10,
        "cached_input_tokens": 4,
        "cache_write_input_tokens": 1,
        "reasoning_tokens": 7,
    }
    message = accumulated_by_sdk(
        streamed(
            reasoning("Let me "),
            reasoning("see."),
            signature("sig=="),
            signature("opaque", redacted=True),
            text("Hi"),
            call_start(),
            call_delta('{"city":'),
            call_delta('"Oslo"}'),
            call(),
            finish("tool_calls", usage=usage),
            DONE,
            start=CLAUDE,
        )
    )
    thinking, redacted, said, use = message.content
    assert (thinking.thinking, thinking.signature, redacted.data) == ("Let me see.", "sig==", "opaque")
    assert (said.text, use.id, use.name, use.input) == ("Hi", "call_1", "weather", {"city": "Oslo"})
    assert (message.id, message.model, message.stop_reason) == (f"msg_{STREAM_ID}", "test-model", "tool_use")
    counted = message.usage
    assert (counted.input_tokens, counted.output_tokens) == (5, 20)
    assert (counted.cache_read_input_tokens, counted.cache_creation_input_tokens) == (4, 1)
    assert counted.output_tokens_details.thinking_tokens == 7


def test_a_refusal_is_text_and_names_its_category() -> None:
    safety: Event = {"type": "safety", "safety": {"category": "bio", "action": "refused"}}
    message = accumulated_by_sdk(
        streamed({"type": "refusal.delta", "refusal": "", "text": "No."}, safety, finish("content_filter"), DONE)
    )
    assert message.content[0].text == "No."
    assert (message.stop_reason, message.stop_details.category) == ("refusal", "bio")


def test_every_category_of_an_answer_has_a_place_whatever_its_stop_reason() -> None:
    first, last = ({"category": category, "action": "refused"} for category in ("bio", "cyber"))
    events: list[Event] = [{"type": "safety", "safety": safety} for safety in (first, last)]
    for reason, aside in (("stop", {"safety": last}), ("content_filter", None)):
        frames = objects_of(streamed(text("Hi"), *events, finish(reason), DONE))
        assert [frame["x_gai"] for frame in frames if frame["type"] == "ping"] == [{"safety": first}]
        (end,) = [frame for frame in frames if frame["type"] == "message_delta"]
        assert end.get("x_gai") == aside
        assert (end["delta"]["stop_details"] is None) is (aside is not None)


@pytest.mark.parametrize(
    ("reason", "raw", "word"),
    [
        ("stop", None, "end_turn"),
        ("stop", "stop_sequence", "stop_sequence"),
        ("length", "max_tokens", "max_tokens"),
        ("length", "model_context_window_exceeded", "model_context_window_exceeded"),
        ("content_filter", "SAFETY", "refusal"),
        ("pause", "pause_turn", "pause_turn"),
    ],
)
def test_each_finish_reason_has_its_word(reason: str, raw: str | None, word: str) -> None:
    end = written(finish(reason, **({"finish_reason_raw": raw} if raw else {})))[-1]
    assert end["delta"]["stop_reason"] == word
    assert "x_gai" not in end


def test_only_an_answer_with_a_call_ends_for_one() -> None:
    """Anthropic's tool runners ask again after `tool_use`, with no result to send."""
    called = written(call(), finish("tool_calls", finish_reason_raw="stop_sequence"))[-1]
    assert (called["delta"]["stop_reason"], called.get("x_gai")) == ("tool_use", None)
    for said in ([text("Hi")], []):
        ended = written(*said, finish("tool_calls"))[-1]
        assert (ended["delta"]["stop_reason"], ended["x_gai"]) == ("end_turn", {"finish_reason": "tool_calls"})


def test_what_the_end_has_no_place_for_stands_in_x_gai() -> None:
    warning: Event = {"type": "warning", "reason": "malformed_chunk"}
    end = written(warning, finish("cancelled", usage={**USAGE, "source": "partial"}, continued="verified"))[-1]
    assert end["delta"]["stop_reason"] == "end_turn"
    assert end["x_gai"] == {
        "finish_reason": "cancelled",
        "continued": "verified",
        "usage_source": "partial",
        "warnings": [{"reason": "malformed_chunk"}],
    }


def test_an_error_is_the_last_event_and_the_sdk_raises_it() -> None:
    overloaded: Event = {"type": "error", "error": {"code": "overloaded", "message": "busy", "temporary": True}}
    body = streamed(text("Hi"), overloaded, NOT_DONE)
    assert objects_of(body)[-1] == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "busy", "details": {"error_code": "overloaded"}},
        "request_id": "req_1",
    }
    with pytest.raises(anthropic.APIStatusError) as raised:
        accumulated_by_sdk(body)
    assert (raised.value.type, raised.value.api_message) == ("overloaded_error", "busy")


def test_parallel_calls_are_blocks_one_after_the_other() -> None:
    second = {"call_id": "call_2", "index": 1}
    events = [call_start(), call_delta('{"a":1}'), call_start(**second), call_delta('{"b":2}', **second)]
    ends = [call(arguments='{"a":1}'), call(arguments='{"b":2}', call_id="call_2")]
    objects = written(*events, *ends, finish("tool_calls"))
    assert kinds(objects) == [
        *["content_block_start", "content_block_delta", "content_block_stop"] * 2,
        "message_delta",
    ]
    message = accumulated_by_sdk(streamed(*events, *ends, finish("tool_calls"), DONE))
    assert [use.input for use in message.content] == [{"a": 1}, {"b": 2}]


def closed_inputs(objects: list[dict[str, Any]]) -> list[Any]:
    """Returns the input that each call has when its block is closed: clients run it then."""
    inputs: dict[int, str] = {}
    closed: list[Any] = []
    for one in objects:
        if one["type"] == "content_block_start" and one["content_block"]["type"] == "tool_use":
            inputs[one["index"]] = ""
        elif one["type"] == "content_block_delta" and one["index"] in inputs:
            inputs[one["index"]] += one["delta"]["partial_json"]
        elif one["type"] == "content_block_stop" and one["index"] in inputs:
            closed.append(json.loads(inputs.pop(one["index"]) or "{}"))
    return closed


SECOND: dict[str, Any] = {"call_id": "call_2", "index": 1}
THIRD: dict[str, Any] = {"call_id": "call_3", "index": 2}


def test_calls_whose_fragments_alternate_are_complete_when_their_blocks_close() -> None:
    events = [call_start(), call_start(**SECOND), call_start(**THIRD)]
    events += [call_delta('{"a":'), call_delta('{"b":', **SECOND), call_delta('{"c":', **THIRD)]
    events += [text("Now."), call_delta("1}"), call_delta("3}", **THIRD), call_delta("2}", **SECOND)]
    events += [call(arguments='{"a":1}'), call(arguments='{"b":2}', call_id="call_2")]
    events += [call(arguments='{"c":3}', call_id="call_3"), finish("tool_calls"), DONE]
    body = streamed(*events)
    assert closed_inputs(objects_of(body)) == [{"a": 1}, {"b": 2}, {"c": 3}]
    content = accumulated_by_sdk(body).content
    assert [getattr(block, "input", None) or block.text for block in content] == [{"a": 1}, {"b": 2}, {"c": 3}, "Now."]


def test_a_call_that_begins_behind_a_complete_one_does_not_wait() -> None:
    events = [call_start(), call_delta('{"a":'), call_delta("1}"), call_start(**SECOND), call_delta("{", **SECOND)]
    assert kinds(written(*events))[-2:] == ["content_block_start", "content_block_delta"]


def test_arguments_that_the_kernel_has_written_count_too() -> None:
    encoder = ANTHROPIC.encoder("sse", context())
    for event in (START, call_start(), call_delta('{"a":')):
        encoder.event(event)
    encoder.copied(call_delta(""), "1}")
    encoder.take()
    encoder.event(call_start(**SECOND))
    assert kinds(objects_of(encoder.take())) == ["content_block_stop", "content_block_start"]


def test_while_events_wait_the_fragments_of_the_open_call_come_as_events() -> None:
    encoder = ANTHROPIC.encoder("sse", context())
    for event in (START, call_start(), call_delta('{"a":'), text("Now.")):
        encoder.event(event)
    assert encoder.delta_parts(call_delta("1}"), "arguments") is None


def test_arguments_that_begin_blank_are_not_written_twice() -> None:
    encoder = ANTHROPIC.encoder("sse", context())
    for event in (START, call_start(), call_delta(" ")):
        encoder.event(event)
    assert encoder.delta_parts(call_delta("{}"), "arguments") is None


@pytest.mark.parametrize("end", [[finish("length"), DONE], [ERROR, NOT_DONE]], ids=["finish", "error"])
def test_what_waits_for_a_call_that_is_never_complete_is_written_before_the_end(end: list[Event]) -> None:
    objects = written(call_start(), call_delta('{"a":'), text("Now."), *end)
    texts = [one["delta"]["text"] for one in objects if one.get("delta", {}).get("type") == "text_delta"]
    assert texts == ["Now."]


def test_more_than_the_limit_does_not_wait() -> None:
    events = [call_start(), call_delta('{"a":'), call_start(**SECOND), call_delta("{}", **SECOND)]
    assert kinds(written(*events)) == ["content_block_start", "content_block_delta"]
    much = text("x" * LIMITS.delayed_events)
    body = streamed(*events, much, call_delta("1}"), finish("tool_calls"), DONE)
    assert kinds(objects_of(body))[-4:-2] == ["content_block_delta", "content_block_stop"]
    assert [getattr(block, "input", None) for block in accumulated_by_sdk(body).content] == [{"a": 1}, {}, None]


@pytest.mark.parametrize("fragments", [[], [" "]], ids=["none", "blank"])
def test_arguments_without_fragments_come_with_the_call(fragments: list[str]) -> None:
    events = [call_start(), *map(call_delta, fragments), call()]
    message = accumulated_by_sdk(streamed(*events, finish("tool_calls"), DONE))
    assert message.content[0].input == {"city": "Oslo"}


def test_arguments_that_are_no_object_are_wrapped_in_one() -> None:
    odd: Event = {"type": "tool.call", "call_id": "call_1", "tool_call": {"name": "sql", "input": "SELECT 1"}}
    encoder = ANTHROPIC.encoder("sse", context())
    for event in (START, call_start(), call_delta("SELECT ")):
        encoder.event(event)
    assert encoder.delta_parts(call_delta("1"), "arguments") is None
    body = encoder.take() + encoded(encoder, [call_delta("1"), odd, finish("tool_calls"), DONE])
    assert accumulated_by_sdk(body).content[0].input == {"arguments": "SELECT 1"}


def test_arguments_that_are_null_are_an_empty_object() -> None:
    null_call: Any = {"name": "now", "input": JSONText("null", None)}
    null: Event = {"type": "tool.call", "call_id": "call_1", "tool_call": null_call}
    body = streamed(call_start(), call_delta("null"), null, finish("tool_calls"), DONE)
    assert accumulated_by_sdk(body).content[0].input == {}


def test_a_call_without_a_start_is_opened_by_its_end_and_its_fragments_are_left_out() -> None:
    objects = written(call_delta('{"x":'), call(), finish("tool_calls"))
    assert kinds(objects)[:3] == ["content_block_start", "content_block_delta", "content_block_stop"]
    assert objects[1]["delta"]["partial_json"] == '{"city":"Oslo"}'


def test_signatures_of_other_providers_say_whose_they_are() -> None:
    start: Event = {**START, "provider": "gemini"}
    objects = written(reasoning("Hm"), signature("s1"), signature("s2", redacted=True), start=start)
    assert objects[2]["delta"] == {"type": "signature_delta", "signature": 'gai:{"provider":"gemini","signature":"s1"}'}
    assert objects[4]["content_block"] == {
        "type": "redacted_thinking",
        "data": 'gai:{"provider":"gemini","signature":"s2"}',
    }


@pytest.mark.parametrize("late", [False, True])
def test_the_signature_of_a_call_is_a_redacted_block_beside_it(late: bool) -> None:
    start: Event = {**START, "provider": "gemini"}
    signed = signature("sig", call_id="call_1")
    events = [call_start(), signed, call_delta("{}")] if late else [signed, call_start(), call_delta("{}")]
    objects = written(*events, call(arguments="{}", signature="sig"), finish("tool_calls"), start=start)
    blocks = [one["content_block"] for one in objects if one["type"] == "content_block_start"]
    redacted = {"type": "redacted_thinking", "data": 'gai:{"provider":"gemini","signature":"sig","call_id":"call_1"}'}
    assert [block for block in blocks if block["type"] != "tool_use"] == [redacted]
    assert [block["type"] for block in blocks].index("tool_use") == (0 if late else 1)


def test_of_the_signatures_of_a_call_that_come_within_it_the_last_is_written() -> None:
    """An upstream may repeat them without end; the block of the call is closed first."""
    signed = [signature(str(number), call_id="call_1") for number in range(50)]
    objects = written(call_start(), *signed, call_delta("{}"), call(arguments="{}"), finish("tool_calls"), start=CLAUDE)
    blocks = [one["content_block"] for one in objects if one["type"] == "content_block_start"]
    assert [block["type"] for block in blocks] == ["tool_use", "redacted_thinking"]
    assert '"signature":"49"' in blocks[1]["data"]


def test_an_answer_with_a_signature_behind_its_text_ends_in_its_text() -> None:
    objects = written(text("Hi"), signature("sig"), finish(), start={**CLAUDE, "provider": "gemini"})
    assert [one["content_block"]["type"] for one in objects if one["type"] == "content_block_start"] == ["text"]
    assert not any("signature_delta" in str(one) for one in objects)


def test_a_signature_behind_text_is_written_before_the_block_that_follows() -> None:
    objects = written(
        text("Hi"), signature("sig"), call_start(), call(arguments="{}"), finish("tool_calls"), start=CLAUDE
    )
    blocks = [one["content_block"]["type"] for one in objects if one["type"] == "content_block_start"]
    assert blocks == ["text", "thinking", "tool_use"]
    assert [one["index"] for one in objects if "signature_delta" in str(one)] == [1]


def test_a_signature_without_reasoning_is_a_block_of_its_own() -> None:
    objects = written(signature("sig"), start=CLAUDE)
    assert kinds(objects) == ["content_block_start", "content_block_delta", "content_block_stop"]


def test_tools_that_anthropic_runs_have_their_blocks() -> None:
    use = {"id": "srv_1", "name": "web_search", "status": "started", "input": {"query": "x"}}
    page = {"type": "web_search_result", "url": "u", "title": "T", "encrypted_content": "e", "page_age": None}
    found = {"id": "srv_1", "name": "web_search", "status": "completed", "output": [page]}
    events: list[Event] = [{"type": "server_tool", "server_tool": one} for one in (use, found)]
    message = accumulated_by_sdk(streamed(*events, text("Hi"), finish(), DONE, start=CLAUDE))
    assert [block.type for block in message.content] == ["server_tool_use", "web_search_tool_result", "text"]
    assert message.content[0].input == {"query": "x"}
    assert message.content[1].tool_use_id == "srv_1"
    search: Event = {"type": "server_tool", "server_tool": {**found, "name": "tool_search_tool_bm25"}}
    assert written(search, start=CLAUDE)[0]["content_block"]["type"] == "tool_search_tool_result"


@pytest.mark.parametrize("raw", ["stop_sequence", "stop"])
def test_the_stop_sequence_and_the_cited_text_are_those_of_the_provider(raw: str) -> None:
    end = finish(finish_reason_raw=raw, provider_metadata={"stop_sequence": "END"})
    cited: Event = {"type": "citations", "citations": [{"uri": "https://a.example", "cited_text": "It is so."}]}
    message = accumulated_by_sdk(streamed(text("Hi"), cited, end, DONE, start=CLAUDE))
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
    assert message.content[0].citations[0].cited_text == "It is so."
    whole = json.loads(encoded(ANTHROPIC.whole(context()), [CLAUDE, text("Hi"), cited, end, DONE]))
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", "END")
    assert whole["content"][0]["citations"][0]["cited_text"] == "It is so."


def test_the_container_of_an_answer_is_in_its_end() -> None:
    container = {"id": "c1", "expires_at": "2026-11-25T00:00:00Z"}
    end = finish(provider_metadata={"container": container})
    message = accumulated_by_sdk(streamed(text("Hi"), end, DONE, start=CLAUDE))
    assert message.container is not None
    assert message.container.id == "c1"
    assert whole(text("Hi"), end)["container"] == container


def test_anthropics_own_blocks_are_written_once_and_unchanged() -> None:
    use = {
        "type": "server_tool_use",
        "id": "s",
        "name": "web_search",
        "input": {"query": "x"},
        "caller": {"type": "direct"},
    }
    result = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [], "caller": {"type": "direct"}}
    summary = {"type": "compaction", "content": "All of it.", "encrypted_content": "e"}
    runs = [
        {"id": "s", "name": "web_search", "status": "started", "input": {"query": "x"}},
        {"id": "s", "name": "web_search", "status": "completed"},
    ]
    events: list[Event] = [text("a")]
    for at, block in enumerate([use, result, summary]):
        events.append({"type": "provider.block", "provider": "anthropic", "block": block, "index": at})
        events += [{"type": "server_tool", "server_tool": run} for run in runs[at : at + 1]]
    events += [text("b"), finish(provider="anthropic"), DONE]
    said = [{"type": "text", "text": each} for each in "ab"]
    blocks = [said[0], use, result, summary, said[1]]
    begun = [one["content_block"] for one in written(*events, start=CLAUDE) if one["type"] == "content_block_start"]
    assert begun == [{**said[0], "text": ""}, {**use, "input": {}}, result, summary, {**said[1], "text": ""}]
    message = accumulated_by_sdk(streamed(*events, start=CLAUDE))
    assert message.content[1].input == {"query": "x"}
    whole = json.loads(encoded(ANTHROPIC.whole(context()), [CLAUDE, *events]))
    assert whole["content"] == blocks
    assert "x_gai" not in whole


def test_blocks_of_other_providers_stand_on_a_ping() -> None:
    block: Event = {"type": "provider.block", "provider": "gemini", "block": {"executableCode": {}}, "index": 0}
    own = {"provider": "gemini", "block": {"executableCode": {}}}
    assert written(block) == [{"type": "ping", "x_gai": {"provider_block": own}}]


def test_tools_of_other_providers_stand_on_a_ping() -> None:
    run = {"id": "ws_1", "name": "web_search", "status": "completed"}
    assert written({"type": "server_tool", "server_tool": run}) == [{"type": "ping", "x_gai": {"server_tool": run}}]


def test_citations_stand_in_the_block_of_their_text() -> None:
    cited = [{"uri": "https://a.example", "title": "A", "start": 0, "end": 2}, {"uri": "document:3", "title": "D"}]
    events: list[Event] = [text("Hi"), {"type": "citations", "citations": cited}, finish(), DONE]
    first, second = accumulated_by_sdk(streamed(*events)).content[0].citations
    assert (first.type, first.url, first.title) == ("web_search_result_location", "https://a.example", "A")
    assert (second.type, second.document_index, second.document_title) == ("char_location", 3, "D")


@pytest.mark.parametrize("order", [("citations", "text"), ("reasoning", "citations"), ("text", "call", "citations")])
def test_citations_outside_a_text_begin_one(order: tuple[str, ...]) -> None:
    cited: Event = {"type": "citations", "citations": [{"uri": "https://a.example", "title": "A"}]}
    known: dict[str, list[Event]] = {
        "citations": [cited],
        "text": [text("Hi")],
        "reasoning": [{"type": "reasoning.delta", "text": "Hm"}],
        "call": [call_start(), call()],
    }
    events = [event for name in order for event in known[name]]
    message = accumulated_by_sdk(streamed(*events, finish(), DONE))
    [block] = [block for block in message.content if block.type == "text" and block.citations]
    assert (block.citations[0].url, block.text) == ("https://a.example", "Hi" if order[0] == "citations" else "")


ASIDES: list[tuple[Event, dict[str, Any]]] = [
    ({"type": "image", "image": {"data": "aGk="}}, {"image": {"data": "aGk="}}),
    ({"type": "audio.delta", "audio": {"chunk": "aGk="}}, {"audio": {"chunk": "aGk="}}),
    ({"type": "json.snapshot", "json": {"a": 1}}, {"json": {"a": 1}}),
    ({"type": "safety", "safety": {"category": "x"}}, {"safety": {"category": "x"}}),
    (
        {"type": "tool.result", "call_id": "c", "tool_result": 1},
        {"call_id": "c", "tool_result": 1},
    ),
]


@pytest.mark.parametrize(("event", "aside"), ASIDES, ids=lambda one: one.get("type"))
def test_what_has_no_place_stands_on_a_ping_that_clients_ignore(event: Event, aside: dict[str, Any]) -> None:
    body = streamed(text("Hi"), event, text("!"), finish(), DONE)
    assert [one for one in objects_of(body) if one["type"] == "ping"] == [{"type": "ping", "x_gai": aside}]
    assert accumulated_by_sdk(body).content[0].text == "Hi!"


def test_every_event_has_a_stated_place_or_a_stated_absence() -> None:
    absent = {"step.end", "step.reset", "tool.progress", "stream.reset", "stream.gap"}
    assert set(module._WRITERS) == TYPES - absent
    # Compiled, the module has no docstring, and any path.
    text = (Path(gai_fast.__file__).parent / "formats/messages/stream.py").read_text()
    for kind in absent | set(module._UNMAPPED):
        assert f"`{kind}`" in text.partition("from __future__")[0]


def test_other_choices_are_left_out() -> None:
    assert kinds(written(text("Hi", choice=1), call_start(choice=1), finish())) == ["message_delta"]


def test_the_second_start_after_a_void_attempt_is_not_reported() -> None:
    again: Event = {**START, "provider": "other"}
    body = streamed({"type": "stream.reset", "reason": "network"}, again, text("Hi"), finish(), DONE)
    assert kinds(objects_of(body)).count("message_start") == 1


def test_ids_stand_on_the_last_frame_of_an_event() -> None:
    body = streamed(text("Hi"), text("!"), ids=True, retry_ms=3000).decode()
    frames = body.split("\n\n")
    assert frames[0].startswith(f"id: {STREAM_ID}.1\nretry: 3000\nevent: message_start\n")
    assert frames[1].startswith("event: content_block_start\n")
    assert frames[2].startswith(f"id: {STREAM_ID}.2\nevent: content_block_delta\n")
    assert frames[3].startswith(f"id: {STREAM_ID}.3\nevent: content_block_delta\n")


PARTED = [
    ([text("Hi")], text("x"), "text"),
    ([reasoning("Hi")], reasoning("x"), "text"),
    ([call_start(), call_delta("{")], call_delta("x"), "arguments"),
]


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize(("before", "event", "key"), PARTED, ids=["text", "reasoning", "arguments"])
def test_the_parts_of_a_delta_make_the_frame_that_the_encoder_writes(
    before: list[Event], event: Event, key: str, ids: bool
) -> None:
    encoder = get_format("anthropic").encoder("sse", context(ids=ids))
    for one in (START, *before):
        encoder.event(one)
    encoder.take()
    parts = encoder.delta_parts(event, key)
    assert parts is not None
    values = {"text": b"x", "seq": str(encoder.seq + 1).encode()}
    encoder.event(event)
    assert b"".join(part if isinstance(part, bytes) else values[part] for part in parts) == encoder.take()


def test_a_delta_whose_block_is_not_open_has_no_parts() -> None:
    encoder = ANTHROPIC.encoder("sse", context())
    encoder.event(START)
    assert encoder.delta_parts(text("x"), "text") is None
    encoder.event(text("Hi"))
    assert encoder.delta_parts(reasoning("x"), "text") is None
    assert encoder.delta_parts(text("x", choice=1), "text") is None
    assert encoder.delta_parts(call_delta("x"), "arguments") is None


def test_an_error_before_the_start_needs_no_message() -> None:
    assert kinds(objects_of(encoded(ANTHROPIC.encoder("sse", context()), [ERROR, NOT_DONE]))) == ["error"]


@pytest.mark.parametrize("start", [START, CLAUDE], ids=lambda start: start["provider"])
@given(events=st.lists(st.sampled_from(EVERY_EVENT[1:-2]), max_size=30))
def test_in_any_order_of_events_blocks_follow_each_other_and_the_sdk_reads_them(
    start: Event, events: list[Event]
) -> None:
    body = streamed(*events, finish("tool_calls"), DONE, start=start)
    opened = -1
    is_open = False
    for one in objects_of(body):
        if one["type"] == "content_block_start":
            assert (is_open, one["index"]) == (False, opened + 1)
            opened, is_open = opened + 1, True
        elif one["type"] == "content_block_stop":
            assert (is_open, one["index"]) == (True, opened)
            is_open = False
        elif one["type"] == "content_block_delta":
            assert one["index"] <= opened
    assert not is_open
    assert objects_of(body)[-1] == {"type": "message_stop"}
    text_of = "".join(event["text"] for event in events if event["type"] in ("text.delta", "refusal.delta"))
    texts = [one["delta"]["text"] for one in objects_of(body) if one.get("delta", {}).get("type") == "text_delta"]
    assert "".join(texts) == text_of


def test_the_sdk_reads_a_stream_with_every_event() -> None:
    message = accumulated_by_sdk(encoded(ANTHROPIC.encoder("sse", context()), EVERY_EVENT))
    kinds_of = [block.type for block in message.content]
    assert kinds_of == ["thinking", "redacted_thinking", "text", "tool_use", "redacted_thinking", "text"]
    assert message.content[3].input == {"city": "Oslo"}
