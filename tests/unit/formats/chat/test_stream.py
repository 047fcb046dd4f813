"""OpenAI's chat stream: chunks, byte for byte, one event type after the other, and its ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.relay import Relay
from gai_fast.formats import Framing, get_format
from gai_fast.model.events import Event
from gai_fast.providers import get_provider, provider_names
from tests.limits import LIMITS
from tests.unit.formats.chat_reader import (
    HEAD,
    OPENAI,
    SIGNATURE,
    SIGNED,
    accumulated_by_sdk,
    chunks,
    deltas,
    streamed,
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
    data_of,
    encoded,
    finish,
    objects_of,
    text,
)


def test_a_text_answer() -> None:
    assert streamed(text("Hi"), text(' "you" é\n'), finish(), DONE).decode() == (
        f'data: {HEAD}"choices":[{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":null}}]}}\n\n'
        f'data: {HEAD}"choices":[{{"index":0,"delta":{{"content":"Hi"}},"finish_reason":null}}]}}\n\n'
        f'data: {HEAD}"choices":[{{"index":0,"delta":{{"content":" \\"you\\" é\\n"}},"finish_reason":null}}]}}\n\n'
        f'data: {HEAD}"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}\n\n'
        "data: [DONE]\n\n"
    )


def test_a_text_answer_with_usage() -> None:
    assert streamed(text("Hi"), finish(usage=USAGE), DONE, usage=True).decode() == (
        f'data: {HEAD}"choices":[{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":null}}],'
        '"usage":null}\n\n'
        f'data: {HEAD}"choices":[{{"index":0,"delta":{{"content":"Hi"}},"finish_reason":null}}],"usage":null}}\n\n'
        f'data: {HEAD}"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}],"usage":null}}\n\n'
        f'data: {HEAD}"choices":[],"usage":{{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30,'
        '"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}\n\n'
        "data: [DONE]\n\n"
    )


def test_ndjson_holds_the_same_objects_without_the_end_mark() -> None:
    events = [text("Hi"), call_start(), call_delta("{}"), finish(usage=USAGE), DONE]
    lines = streamed(*events, framing="ndjson", usage=True).decode().split("\n")
    assert lines.pop() == ""
    assert lines == data_of(streamed(*events, usage=True))[:-1]


def test_ids_stand_inside_data_frames_only() -> None:
    body = streamed(text("Hi"), finish(usage=USAGE), DONE, ids=True, retry_ms=3000, usage=True).decode()
    ids = [frame.partition("\n")[0] for frame in body.split("\n\n") if frame.startswith("id:")]
    assert ids == [f"id: {STREAM_ID}.{seq}" for seq in (1, 2, 3)]
    assert all("\ndata: " in f"\n{frame}" for frame in body.split("\n\n")[:-1])
    assert body.startswith(f"id: {STREAM_ID}.1\nretry: 3000\ndata: ")
    assert body.endswith("data: [DONE]\n\n")


def test_ids_do_not_change_the_objects() -> None:
    events = [text("Hi"), text("!", choice=1), finish(), DONE]
    assert data_of(streamed(*events, ids=True)) == data_of(streamed(*events))


@pytest.mark.parametrize(("framing", "ping"), [("sse", b": ping\n"), ("ndjson", b"\n")])
def test_a_heartbeat_is_a_comment_or_an_empty_line(framing: Framing, ping: bytes) -> None:
    encoder = OPENAI.encoder(framing, context())
    encoder.heartbeat()
    assert encoder.take() == ping


def test_the_model_asked_for_stands_in_where_the_provider_names_none() -> None:
    body = encoded(OPENAI.encoder("sse", context()), [{"type": "start", "provider": "test"}, text("Hi")])
    assert {chunk["model"] for chunk in objects_of(body)} == {"asked-model"}


def test_a_second_start_is_silent() -> None:
    assert chunks(START) == []


def test_refusal_and_reasoning_have_fields_of_their_own() -> None:
    events: list[Event] = [{"type": "reasoning.delta", "text": "Hm."}, {"type": "refusal.delta", "text": "No."}]
    assert deltas(*events) == [{"reasoning_content": "Hm."}, {"refusal": "No."}]


@pytest.mark.parametrize(
    ("provider", "detail_format"),
    [("anthropic", "anthropic-claude-v1"), ("gemini", "google-gemini-v1"), ("test", "gai-test-v1"), ("", None)],
)
def test_signatures_are_reasoning_details_with_a_dense_index(provider: str, detail_format: str | None) -> None:
    encoder = OPENAI.encoder("sse", context())
    body = encoded(
        encoder,
        [
            {"type": "start", "provider": provider},
            {"type": "reasoning.signature", "signature": "sig", "block": 3},
            {"type": "reasoning.signature", "signature": "opaque", "redacted": True, "block": 5},
        ],
    )
    form = {"format": detail_format} if detail_format else {}
    assert [chunk["choices"][0]["delta"] for chunk in objects_of(body)[1:]] == [
        {"reasoning_details": [{"type": "reasoning.text", "signature": "sig", **form, "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "opaque", **form, "index": 1}]},
    ]


def has_responses(provider: str) -> bool:
    try:
        get_provider(f"{provider}:responses")
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("provider", [name for name in provider_names() if has_responses(name)])
def test_the_signature_of_a_responses_upstream_is_encrypted_reasoning_and_comes_back_to_it(provider: str) -> None:
    encoder = OPENAI.encoder("sse", context())
    started = get_provider(f"{provider}:responses").adapter("m").start("r", None)
    signed: list[Event] = [*started, {"type": "reasoning.signature", "signature": "sig"}]
    [detail] = objects_of(encoded(encoder, signed))[-1]["choices"][0]["delta"]["reasoning_details"]
    assert (detail["type"], detail["data"]) == ("reasoning.encrypted", "sig")
    request, lost = OPENAI.parse_request({"messages": [{"role": "assistant", "reasoning_details": [detail]}]})
    assert lost == []
    [part] = request.messages[0].content
    assert (part.signature, part.provider, part.redacted) == ("sig", provider, False)


def test_reasoning_that_follows_a_signature_says_whose_it_is() -> None:
    """Else a client could not send two signed blocks back: their texts would be one."""
    events: list[Event] = [
        {"type": "reasoning.delta", "text": "First."},
        {"type": "reasoning.signature", "signature": "one"},
        {"type": "reasoning.delta", "text": "Sec"},
        {"type": "reasoning.delta", "text": "ond."},
        {"type": "reasoning.signature", "signature": "two"},
        finish(),
        DONE,
    ]
    message = accumulated_by_sdk(streamed(*events)).choices[0].message
    assert message.reasoning_content == "First.Second."
    assert message.reasoning_details == [
        {"type": "reasoning.text", "signature": "one", "format": "gai-test-v1", "index": 0},
        {"type": "reasoning.text", "text": "Second.", "signature": "two", "format": "gai-test-v1", "index": 1},
    ]
    encoder = OPENAI.encoder("sse", context())
    encoder.event(events[1])
    assert encoder.delta_parts(events[2], "text") is None


def test_a_tool_call_is_its_start_and_its_fragments() -> None:
    events = [call_start(), call_delta('{"city":'), call_delta('"Oslo"}'), call()]
    start = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    assert deltas(*events) == [
        {"tool_calls": [start]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]},
    ]


@pytest.mark.parametrize("before", [[], [call_delta("  ")]], ids=["no fragment", "only blanks"])
def test_arguments_that_never_came_are_one_fragment(before: list[Event]) -> None:
    said = deltas(call_start(), *before, call(arguments="{}"))
    assert said[-1] == {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}


def test_a_call_without_arguments_so_far_is_not_copied() -> None:
    """Else its arguments would count as sent: a client would have blanks instead of `{}`."""
    encoder = OPENAI.encoder("sse", context())
    for event in (START, call_start(), call_delta("  ")):
        encoder.event(event)
    assert encoder.delta_parts(call_delta("  "), "arguments") is None
    encoder.take()
    encoder.event(call(arguments="{}"))
    assert b'"function":{"arguments":"{}"}' in encoder.take()
    encoder.event(call_delta("{", call_id="call_1"))
    assert encoder.delta_parts(call_delta("{"), "arguments") is not None


def test_a_call_that_comes_whole_is_reported_whole() -> None:
    calls = [call("call_1"), call("call_2", arguments='{"n":12345678901234567890}')]
    merged: dict[int, str] = {}
    for delta in deltas(*calls):
        (entry,) = delta["tool_calls"]
        merged[entry["index"]] = merged.get(entry["index"], "") + entry["function"]["arguments"]
    assert merged == {0: '{"city":"Oslo"}', 1: '{"n":12345678901234567890}'}


def test_fragments_whose_start_a_processor_left_out_are_reported_with_their_call() -> None:
    found = deltas(call_delta('{"city":'), call_delta('"Oslo"}'), call())
    assert [one["tool_calls"][0]["function"]["arguments"] for one in found] == ["", '{"city":"Oslo"}']


@pytest.mark.parametrize(("value", "arguments"), [("not json", "not json"), ({"a": 1}, '{"a":1}')])
def test_arguments_of_any_kind_are_text(value: Any, arguments: str) -> None:
    complete: Event = {"type": "tool.call", "call_id": "c", "tool_call": {"name": "f", "input": value}}
    assert deltas(complete)[-1]["tool_calls"][0]["function"]["arguments"] == arguments


def test_a_signature_before_its_call_stands_on_the_call() -> None:
    said = deltas(SIGNATURE, call_start(), call_delta("{}"), call(signature="sig"))
    assert said[0]["tool_calls"][0]["extra_content"] == SIGNED["extra_content"]
    assert json.dumps(said).count("thought_signature") == 1


@pytest.mark.parametrize(
    "events", [[SIGNATURE, call()], [call(signature="sig")], [SIGNATURE, call(signature="sig")]], ids=len
)
def test_a_signature_after_its_call_began_is_reported_once(events: list[Event]) -> None:
    said = deltas(call_start(), call_delta("{}"), *events)
    assert {"tool_calls": [{"index": 0, "function": {"arguments": ""}, **SIGNED}]} in said
    assert json.dumps(said).count("thought_signature") == 1


def test_citations_are_annotations_with_a_running_index() -> None:
    first = {"uri": "https://a.example", "title": "A", "start": 0, "end": 2}
    events: list[Event] = [
        {"type": "citations", "citations": [first]},
        {"type": "citations", "citations": [{"uri": "https://b.example"}]},
    ]
    assert deltas(text("Hi \U0001f600"), *events)[1:] == [
        {
            "annotations": [
                {
                    "type": "url_citation",
                    "url_citation": {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2},
                    "index": 0,
                }
            ]
        },
        {
            "annotations": [
                {
                    "type": "url_citation",
                    "url_citation": {"url": "https://b.example", "title": "", "start_index": 4, "end_index": 4},
                    "index": 1,
                }
            ]
        },
    ]


@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_offsets_that_are_unknown_are_the_length_of_the_text_so_far(size: int) -> None:
    """Most deltas are copied, and are no events to the encoder; a chunk without choices is none of them."""
    chunk = 'data: {"id":"x","model":"m","choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
    cited = 'data: {"citations":["https://a.example"],"choices":[{"index":0,"delta":{"content":"!"}}]}\n\n'
    words = [f"word {number} é" for number in range(50)]
    body = "".join(chunk % word for word in words) + cited + chunk % "." + "data: [DONE]\n\n"
    encoder = get_format("openai").encoder("sse", context())
    relay = Relay(get_provider("xai").adapter(), encoder, deltas=encoder)
    relay.receive_head(200, {})
    for at in range(0, len(body.encode()), size):
        relay.receive_data(body.encode()[at : at + size])
    relay.receive_eof()
    result = [chunk["choices"][0]["delta"] for chunk in objects_of(encoder.take()) if chunk["choices"]]
    sources = [source["url_citation"] for delta in result for source in delta.get("annotations", ())]
    length = len("".join(words)) + len("!")
    assert sources == [{"url": "https://a.example", "title": "", "start_index": length, "end_index": length}]


def test_audio_is_its_data() -> None:
    audio: Event = {"type": "audio.delta", "audio": {"chunk": "AAAA", "format": "pcm16"}}
    assert deltas(audio) == [{"audio": {"data": "AAAA"}}]


@pytest.mark.parametrize(
    ("event", "aside"),
    [
        ({"type": "image", "image": {"data": "AA"}}, {"image": {"data": "AA"}}),
        ({"type": "json.snapshot", "json": {"a": 1}}, {"json": {"a": 1}}),
        ({"type": "safety", "safety": {"category": "x"}}, {"safety": {"category": "x"}}),
        ({"type": "server_tool", "server_tool": {"id": "s"}}, {"server_tool": {"id": "s"}}),
        (
            {"type": "provider.block", "provider": "p", "block": {"a": 1}, "index": 0},
            {"provider_block": {"provider": "p", "block": {"a": 1}}},
        ),
        ({"type": "tool.result", "call_id": "c", "tool_result": 4}, {"call_id": "c", "tool_result": 4}),
    ],
)
def test_what_has_no_place_stands_beside_an_empty_delta(event: Event, aside: dict[str, Any]) -> None:
    (chunk,) = chunks(event)
    assert chunk["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]
    assert chunk["x_gai"] == aside


@pytest.mark.parametrize("kind", ["step.end", "usage", "stream.reset", "stream.gap", "warning", "new.type"])
def test_events_that_say_nothing_in_this_dialect_are_silent(kind: str) -> None:
    event: Any = {"type": kind, "step": 1, "usage": USAGE, "reason": "r"}
    assert chunks(event) == []


def test_further_choices_have_their_role_their_index_and_their_finish() -> None:
    said = [chunk["choices"][0] for chunk in chunks(text("A"), text("B", choice=1), text("b", choice=1), finish())]
    assert said == [
        {"index": 0, "delta": {"content": "A"}, "finish_reason": None},
        {"index": 1, "delta": {"role": "assistant", "content": ""}, "finish_reason": None},
        {"index": 1, "delta": {"content": "B"}, "finish_reason": None},
        {"index": 1, "delta": {"content": "b"}, "finish_reason": None},
        {"index": 1, "delta": {}, "finish_reason": "stop"},
        {"index": 0, "delta": {}, "finish_reason": "stop"},
    ]


def test_calls_of_two_choices_may_share_an_id() -> None:
    both = [call_start(), call_start(choice=1, index=0), call_delta("{}"), call(arguments="{}", choice=1)]
    fragments = [
        chunk["choices"][0]["index"]
        for chunk in chunks(*both)
        if chunk["choices"][0]["delta"].get("tool_calls", [{}])[0].get("function", {}).get("arguments")
    ]
    assert fragments == [0, 1]


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
def test_openais_own_finish_reasons_stand_as_they_are(reason: str) -> None:
    (chunk,) = chunks(finish(reason))
    assert chunk["choices"] == [{"index": 0, "delta": {}, "finish_reason": reason}]
    assert "x_gai" not in chunk


@pytest.mark.parametrize("reason", ["cancelled", "pause", "other"])
def test_finish_reasons_that_openai_does_not_have_are_stop_with_a_note(reason: str) -> None:
    (chunk,) = chunks(finish(reason))
    assert chunk["choices"][0]["finish_reason"] == "stop"
    assert chunk["x_gai"] == {"finish_reason": reason}


def test_only_a_choice_with_a_call_ends_for_one() -> None:
    """Clients that read `tool_calls` look for calls, which would be null."""
    called = chunks(call(), finish("tool_calls"))[-1]
    assert (called["choices"][0]["finish_reason"], called.get("x_gai")) == ("tool_calls", None)
    ended = chunks(text("Hi"), finish("tool_calls"))[-1]
    assert (ended["choices"][0]["finish_reason"], ended["x_gai"]) == ("stop", {"finish_reason": "tool_calls"})
    both = chunks(text("Hi"), call(choice=1), finish("tool_calls"))[-2:]
    ends = {chunk["choices"][0]["index"]: chunk["choices"][0]["finish_reason"] for chunk in both}
    assert ends == {0: "stop", 1: "tool_calls"}


def test_a_continued_answer_says_so() -> None:
    assert chunks(finish(continued="s1"))[0]["x_gai"] == {"continued": "s1"}


def test_warnings_stand_on_the_last_chunk() -> None:
    warning: Event = {"type": "warning", "reason": "malformed_chunk"}
    noted = {"warnings": [{"reason": "malformed_chunk"}, {"reason": "malformed_chunk"}]}
    without = chunks(text("a"), warning, text("b"), warning, finish("pause"), DONE)
    assert without[-1]["x_gai"] == {"finish_reason": "pause", **noted}
    with_usage = chunks(warning, warning, finish("pause", usage=USAGE), DONE, usage=True)
    assert [chunk.get("x_gai") for chunk in with_usage] == [{"finish_reason": "pause"}, noted]


def test_usage_has_openais_names() -> None:
    usage = {
        **USAGE,
        "cached_input_tokens": 4,
        "cache_write_input_tokens": 3,
        "reasoning_tokens": 5,
        "source": "estimated",
    }
    last = chunks(finish(usage=usage), usage=True)[-1]
    assert last["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert last["x_gai"] == {"usage_source": "estimated"}


def test_usage_may_have_been_reported_before_the_finish() -> None:
    snapshot: Event = {"type": "usage", "usage": USAGE}
    assert chunks(snapshot, finish(), usage=True)[-1]["usage"]["total_tokens"] == 30


def test_unknown_usage_is_no_chunk() -> None:
    assert [chunk["choices"] for chunk in chunks(finish(), usage=True)] == [
        [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    ]


@pytest.mark.parametrize("framing", ["sse", "ndjson"])
def test_nothing_follows_an_error(framing: Framing) -> None:
    body = streamed(text("Hi"), ERROR, NOT_DONE, framing=framing)
    last = body.decode().strip().split("\n")[-1].removeprefix("data: ")
    assert json.loads(last) == {
        "error": {"message": 'cut "off"', "type": "server_error", "param": None, "code": "network"}
    }


def test_an_error_may_be_all_there_is() -> None:
    body = encoded(OPENAI.encoder("sse", context()), [ERROR, NOT_DONE])
    assert [list(said) for said in objects_of(body)] == [["error"]]


def test_warnings_are_reported_up_to_their_limit() -> None:
    warning: Event = {"type": "warning", "reason": "malformed_chunk"}
    result = chunks(*[warning] * (LIMITS.warnings + 1), finish(), DONE)
    assert result[-1]["x_gai"] == {"warnings": [{"reason": "malformed_chunk"}] * LIMITS.warnings}


def test_a_signature_is_kept_only_until_its_call_has_a_start() -> None:
    """An upstream may sign a thousand calls with megabytes each."""
    encoder: Any = OPENAI.encoder("sse", context())
    early: Event = {"type": "reasoning.signature", "signature": "early", "call_id": "c0"}
    late: Event = {"type": "reasoning.signature", "signature": "late", "call_id": "c1"}
    body = encoded(encoder, [START, early, call_start("c0"), call_start("c1", 1), late])
    assert body.count(b'"early"') == body.count(b'"late"') == 1
    assert set(encoder._signatures.values()) == {""}
