"""`gai_fast/formats/openai.py`: chunks, whole completions, passthrough, errors; read back by OpenAI's own SDK."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from gai_fast.errors import CLASSES, Error
from gai_fast.events import Event
from gai_fast.formats import Framing, PassthroughEncoder, get_format
from gai_fast.providers import get_provider
from gai_fast.relay import Relay
from tests.unit.formats.streams import (
    CREATED,
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

OPENAI = get_format("openai")
HEAD = f'{{"id":"chatcmpl-{STREAM_ID}","object":"chat.completion.chunk","created":{CREATED},"model":"test-model",'


def streamed(*events: Event, framing: Framing = "sse", **changes: Any) -> bytes:
    return encoded(OPENAI.encoder(framing, context(**{"usage": False, **changes})), [START, *events])


def chunks(*events: Event, **changes: Any) -> list[Any]:
    """The chunks after the first, which says the role."""
    return objects_of(streamed(*events, **changes))[1:]


def deltas(*events: Event, **changes: Any) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(*events, **changes)]


# ---- the stream, byte for byte ---------------------------------------------------------------------------------------


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


# ---- one event type after the other ----------------------------------------------------------------------------------


def test_refusal_and_reasoning_have_fields_of_their_own() -> None:
    events: list[Event] = [{"type": "reasoning.delta", "text": "Hm."}, {"type": "refusal.delta", "text": "No."}]
    assert deltas(*events) == [{"reasoning_content": "Hm."}, {"refusal": "No."}]


@pytest.mark.parametrize(
    ("provider", "detail_format"),
    [("anthropic", "anthropic-claude-v1"), ("gemini", "google-gemini-v1"), ("test", None)],
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
        {"type": "reasoning.text", "signature": "one", "index": 0},
        {"type": "reasoning.text", "text": "Second.", "signature": "two", "index": 1},
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


def test_a_call_that_comes_whole_is_told_whole() -> None:
    calls = [call("call_1"), call("call_2", arguments='{"n":12345678901234567890}')]
    merged: dict[int, str] = {}
    for delta in deltas(*calls):
        (entry,) = delta["tool_calls"]
        merged[entry["index"]] = merged.get(entry["index"], "") + entry["function"]["arguments"]
    assert merged == {0: '{"city":"Oslo"}', 1: '{"n":12345678901234567890}'}


@pytest.mark.parametrize(("value", "arguments"), [("not json", "not json"), ({"a": 1}, '{"a":1}')])
def test_arguments_of_any_kind_are_text(value: Any, arguments: str) -> None:
    complete: Event = {"type": "tool.call", "call_id": "c", "tool_call": {"name": "f", "input": value}}
    assert deltas(complete)[-1]["tool_calls"][0]["function"]["arguments"] == arguments


SIGNED = {"extra_content": {"google": {"thought_signature": "sig"}}}
SIGNATURE: Event = {"type": "reasoning.signature", "signature": "sig", "call_id": "call_1"}


def test_a_signature_before_its_call_stands_on_the_call() -> None:
    said = deltas(SIGNATURE, call_start(), call_delta("{}"), call(signature="sig"))
    assert said[0]["tool_calls"][0]["extra_content"] == SIGNED["extra_content"]
    assert json.dumps(said).count("thought_signature") == 1


@pytest.mark.parametrize(
    "events", [[SIGNATURE, call()], [call(signature="sig")], [SIGNATURE, call(signature="sig")]], ids=len
)
def test_a_signature_after_its_call_began_is_told_once(events: list[Event]) -> None:
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
    told = [chunk["choices"][0]["delta"] for chunk in objects_of(encoder.take()) if chunk["choices"]]
    sources = [source["url_citation"] for delta in told for source in delta.get("annotations", ())]
    length = len("".join(words)) + len("!")
    assert sources == [{"url": "https://a.example", "title": "", "start_index": length, "end_index": length}]


def test_of_a_whole_answer_they_are_the_length_of_its_text() -> None:
    events: list[Event] = [text("Hi"), {"type": "citations", "citations": [{"uri": "u", "title": "T", "start": 1}]}]
    answer = json.loads(encoded(get_format("openai").whole(context()), [START, *events, finish(), DONE]))
    assert answer["choices"][0]["message"]["annotations"] == [
        {"type": "url_citation", "url_citation": {"url": "u", "title": "T", "start_index": 2, "end_index": 2}}
    ]


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


# ---- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
def test_openais_own_finish_reasons_stand_as_they_are(reason: str) -> None:
    (chunk,) = chunks(finish(reason))
    assert chunk["choices"] == [{"index": 0, "delta": {}, "finish_reason": reason}]
    assert "x_gai" not in chunk


@pytest.mark.parametrize("reason", ["cancelled", "pause", "other"])
def test_finish_reasons_that_openai_does_not_have_are_stop_with_a_note(reason: str) -> None:
    (chunk,) = chunks(finish(reason))
    assert chunk["choices"][0]["finish_reason"] == "stop"
    assert chunk["x_gai"] == {"finish_reason": reason}


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


def test_usage_may_have_been_told_before_the_finish() -> None:
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


# ---- error bodies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CLASSES)
def test_every_code_has_an_error_body(code: Any) -> None:
    body = json.loads(OPENAI.error_body(Error(code, "no"), "req_1"))
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert body["error"]["code"] == code
    assert body["error"]["type"].endswith("_error")


def test_the_upstreams_own_words_are_passed_on_unchanged() -> None:
    own = {"message": "The model `x` …", "type": "NotFoundError", "param": "model", "code": 404, "extra": 1}
    body = json.loads(OPENAI.error_body(Error("not_found", "ours", details=own), "req_1"))
    assert body == {"error": {"message": "The model `x` …", "type": "NotFoundError", "param": "model", "code": 404}}


def test_an_upstream_that_said_no_words_gets_ours() -> None:
    body = json.loads(OPENAI.error_body(Error("timeout", "too slow", details={"code": 1}), "req_1"))
    assert body["error"]["message"] == "too slow"


# ---- one object ------------------------------------------------------------------------------------------------------


def whole(*events: Event) -> Any:
    return json.loads(encoded(OPENAI.whole(context()), [START, *events, DONE]))


def test_a_whole_text_answer() -> None:
    assert whole(text("Hi"), text("!"), finish(usage=USAGE)) == {
        "id": f"chatcmpl-{STREAM_ID}",
        "object": "chat.completion",
        "created": CREATED,
        "model": "test-model",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hi!", "refusal": None}, "finish_reason": "stop"}
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "total_tokens": 30,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def test_a_whole_answer_with_everything() -> None:
    answer = whole(
        {"type": "reasoning.delta", "text": "Hm."},
        {"type": "reasoning.signature", "signature": "sig"},
        {"type": "reasoning.signature", "signature": "opaque", "redacted": True},
        {"type": "citations", "citations": [{"uri": "https://a.example", "title": "A", "start": 0, "end": 1}]},
        call_start(),
        call_delta('{"city": "Oslo"}'),
        call(signature="call-sig"),
        {"type": "warning", "reason": "malformed_chunk"},
        finish("pause", usage={**USAGE, "source": "partial"}),
    )
    assert answer["choices"][0] == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "reasoning_content": "Hm.",
            "reasoning_details": [
                {"type": "reasoning.text", "text": "Hm.", "signature": "sig", "index": 0},
                {"type": "reasoning.encrypted", "data": "opaque", "index": 1},
            ],
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
                    "extra_content": {"google": {"thought_signature": "call-sig"}},
                }
            ],
            "annotations": [
                {
                    "type": "url_citation",
                    "url_citation": {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 1},
                }
            ],
        },
        "finish_reason": "stop",
    }
    assert answer["x_gai"] == {
        "finish_reason": "pause",
        "usage_source": "partial",
        "warnings": [{"reason": "malformed_chunk"}],
    }


def test_a_whole_refusal_is_no_content() -> None:
    message = whole({"type": "refusal.delta", "text": "No."}, finish())["choices"][0]["message"]
    assert message == {"role": "assistant", "content": None, "refusal": "No."}


def test_a_failed_whole_answer_has_no_bytes() -> None:
    assert encoded(OPENAI.whole(context()), [START, text("Hi"), ERROR, NOT_DONE]) == b""


# ---- passthrough: the encoder ----------------------------------------------------------------------------------------

UPSTREAM_START: Event = {
    "type": "start",
    "provider": "openai",
    "model": "gpt-x",
    "provider_metadata": {"id": "chatcmpl-theirs", "upstream": "openai"},
}
TEXT_FRAME = (
    b'data: {"id":"chatcmpl-theirs","object":"chat.completion.chunk","created":1,"model":"gpt-x", '
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}],"obfuscation":"x"}\n\n'
)
FINISH_FRAME = b'data: {"id":"chatcmpl-theirs","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
ERROR_FRAME = b'data: {"error":{"message":"broke","type":"server_error"}}\n\n'
DONE_FRAME = b"data: [DONE]\n\n"
WARNING: Event = {"type": "warning", "reason": "malformed_chunk"}


def passing(*frames: bytes, **changes: Any) -> PassthroughEncoder:
    """A passthrough that has taken frames, and the events of a first one."""
    encoder = OPENAI.passthrough("sse", context(**{"usage": False, **changes}), whole=False)
    assert encoder is not None
    for raw in frames:
        encoder.frame(raw, last=False)
    encoder.event(UPSTREAM_START)
    return encoder


def test_frames_are_passed_on_unchanged_and_their_events_add_nothing() -> None:
    encoder = passing(b": OPENROUTER PROCESSING\n\n", TEXT_FRAME)
    encoder.event(text("Hi"))
    encoder.frame(FINISH_FRAME, last=False)
    encoder.frame(DONE_FRAME, last=True)
    body = encoded(encoder, [call(), finish("stop", finish_reason_raw="stop", usage=USAGE), DONE])
    assert body == b": OPENROUTER PROCESSING\n\n" + TEXT_FRAME + FINISH_FRAME + DONE_FRAME


def test_a_missing_end_mark_is_added_after_a_finish() -> None:
    encoder = passing(TEXT_FRAME, FINISH_FRAME)
    assert encoded(encoder, [finish(), DONE]) == TEXT_FRAME + FINISH_FRAME + DONE_FRAME


def test_warnings_stand_on_one_extra_chunk_before_the_end_mark() -> None:
    encoder = passing(TEXT_FRAME)
    encoder.event(WARNING)
    encoder.frame(FINISH_FRAME, last=False)
    encoder.event(WARNING)
    encoder.frame(DONE_FRAME, last=True)
    body = encoded(encoder, [finish(), DONE])
    extra = (
        f'data: {{"id":"chatcmpl-theirs","object":"chat.completion.chunk","created":{CREATED},"model":"gpt-x",'
        '"choices":[],"x_gai":{"warnings":[{"reason":"malformed_chunk"},{"reason":"malformed_chunk"}]}}\n\n'
    ).encode()
    assert body == TEXT_FRAME + FINISH_FRAME + extra + DONE_FRAME


def test_an_error_in_the_upstreams_own_words_is_told_once() -> None:
    encoder = passing(TEXT_FRAME)
    encoder.event(WARNING)
    encoder.frame(ERROR_FRAME, last=True)
    assert encoded(encoder, [ERROR, NOT_DONE]) == TEXT_FRAME + ERROR_FRAME


def test_an_error_that_no_frame_told_is_told_by_us() -> None:
    body = encoded(passing(TEXT_FRAME), [ERROR, NOT_DONE])
    assert body.startswith(TEXT_FRAME)
    assert list(json.loads(body[len(TEXT_FRAME) :].removeprefix(b"data: "))) == ["error"]


def test_an_error_on_a_line_that_no_client_reads_is_told_by_us() -> None:
    encoder = passing(TEXT_FRAME)
    stray = b'{"error":{"message":"broke"}}\n\n'
    encoder.frame(stray, last=True)
    body = encoded(encoder, [ERROR, NOT_DONE])
    assert body.startswith(TEXT_FRAME + stray + b'data: {"error":')


def test_the_upstreams_end_mark_does_not_follow_an_error() -> None:
    encoder = passing(TEXT_FRAME)
    encoder.frame(DONE_FRAME, last=True)
    body = encoded(encoder, [ERROR, NOT_DONE])
    assert b"[DONE]" not in body
    assert body.startswith(TEXT_FRAME + b'data: {"error":')


@pytest.mark.parametrize("usage", [False, True])
def test_a_cancelled_answer_ends_with_chunks_of_ours(usage: bool) -> None:
    encoder = passing(TEXT_FRAME, usage=usage)
    body = encoded(encoder, [finish("cancelled", usage={**USAGE, "source": "partial"}), DONE])
    assert body.startswith(TEXT_FRAME)
    assert body.endswith(b"\n\ndata: [DONE]\n\n")
    own = objects_of(body)[1:]
    assert own[0]["id"] == "chatcmpl-theirs"
    assert own[0]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert own[0]["x_gai"] == {"finish_reason": "cancelled"}
    assert [chunk["choices"] for chunk in own[1:]] == ([[]] if usage else [])


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"], ids=["mid-line", "no blank line", "no blank line, CRLF"])
def test_a_frame_of_ours_is_never_glued_to_a_part_of_theirs(end: bytes) -> None:
    cut = b'data: {"choices":[]}' + end
    body = encoded(passing(cut), [ERROR, NOT_DONE])
    assert body.startswith(cut + b"\n\ndata: ")


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\r\n\r"])
def test_a_whole_frame_of_theirs_needs_no_further_blank_line(blank: bytes) -> None:
    ended = b'data: {"choices":[]}' + blank
    assert encoded(passing(ended), [ERROR, NOT_DONE]).startswith(ended + b"data: ")


def test_a_heartbeat_between_cr_and_lf_makes_no_empty_line() -> None:
    encoder = passing(b'id: 1\r\ndata: {"choices":[]}\r\n\r')
    encoder.heartbeat()
    encoder.frame(b"\ndata: [DONE]\r\n\r\n", last=True)
    assert encoded(encoder, [finish(), DONE]) == (b'id: 1\r\ndata: {"choices":[]}\r\n\r: ping\r\ndata: [DONE]\r\n\r\n')


def test_a_heartbeat_is_a_comment_line() -> None:
    encoder = passing(TEXT_FRAME)
    encoder.heartbeat()
    assert encoder.take() == TEXT_FRAME + b": ping\n"


def test_an_answer_without_frames_is_translated() -> None:
    encoder = OPENAI.passthrough("sse", context(usage=False), whole=False)
    assert encoder is not None
    assert encoded(encoder, [START, text("Hi"), finish(), DONE]) == streamed(text("Hi"), finish(), DONE)


def test_ndjson_and_streams_with_ids_are_translated() -> None:
    assert OPENAI.passthrough("ndjson", context(), whole=False) is None
    assert OPENAI.passthrough("sse", context(ids=True), whole=False) is None


def test_a_passthrough_says_whether_it_wants_a_whole_answer() -> None:
    for asked in (True, False):
        encoder = OPENAI.passthrough("sse", context(), whole=asked)
        assert encoder is not None
        assert encoder.whole is asked


@pytest.mark.parametrize("raw", [b'{"id": "theirs", "choices": []}\n', b'\xef\xbb\xbf\r\n{"id": 1}'])
def test_a_whole_answer_is_passed_on_as_it_is(raw: bytes) -> None:
    encoder = OPENAI.passthrough("sse", context(), whole=True)
    assert encoder is not None
    encoder.frame(raw, last=True)
    assert encoded(encoder, [START, text("Hi"), finish(), DONE]) == raw


def test_a_whole_answer_that_came_as_a_stream_is_built() -> None:
    encoder = OPENAI.passthrough("sse", context(), whole=True)
    assert encoder is not None
    encoder.frame(TEXT_FRAME, last=False)
    encoder.frame(DONE_FRAME, last=True)
    body = encoded(encoder, [START, text("Hi"), finish(), DONE])
    assert json.loads(body)["choices"][0]["message"]["content"] == "Hi"


def test_a_whole_answer_that_failed_leaves_the_body_to_the_error() -> None:
    encoder = OPENAI.passthrough("sse", context(), whole=True)
    assert encoder is not None
    encoder.frame(b'{"error":{"message":"no"}}', last=True)
    assert encoded(encoder, [ERROR, NOT_DONE]) == b""


# ---- passthrough: through the relay ----------------------------------------------------------------------------------

ANSWER = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
    b': keep-alive\n\ndata: {"id":"c","choices":[{"index":0,"delta":{"content":"Gr\xc3\xbc\xc3\x9fe"}}]}\r\n\r\n'
    b'event: x\ndata:{"id":"c","choices":[{"index":0,"delta":{"reasoning_content":"Hm."}}]}\n\n'
    b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'
)


def relayed(pieces: Iterable[bytes], *, cancel: bool = False) -> bytes:
    encoder = OPENAI.passthrough("sse", context(usage=False), whole=False)
    assert encoder is not None
    relay = Relay(get_provider("openai").adapter(), encoder, frames=encoder)
    relay.receive_head(200, {"content-type": "text/event-stream"})
    for piece in pieces:
        relay.receive_data(piece)
    if cancel:
        relay.cancel()
    relay.receive_eof()
    return encoder.take()


def cut(body: bytes, size: int) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, len(ANSWER)])
def test_a_relayed_answer_is_byte_exact_however_it_is_cut(size: int) -> None:
    assert relayed(cut(ANSWER + DONE_FRAME, size)) == ANSWER + DONE_FRAME


def test_a_relayed_answer_without_end_mark_gets_one() -> None:
    assert relayed([ANSWER]) == ANSWER + DONE_FRAME


@pytest.mark.parametrize("end", range(1, len(ANSWER), 5))
def test_a_relayed_answer_cut_anywhere_ends_in_whole_frames(end: int) -> None:
    body = relayed([ANSWER[:end]])
    is_finished = b'"finish_reason":"stop"}]}' in ANSWER[:end]
    assert body.endswith(DONE_FRAME) is is_finished
    assert (b'data: {"error":' in body) is not is_finished
    assert body.endswith(b"\n\n")
    last = body.rstrip(b"\n").rpartition(b"\n")[2]
    assert last.startswith(b"data: ")


def test_a_malformed_chunk_is_left_out_and_told() -> None:
    head, tail = ANSWER[: ANSWER.index(b"event: x")], ANSWER[ANSWER.index(b"event: x") :]
    body = relayed([head, b"data: {broken\n\n", tail, DONE_FRAME])
    extra = body.removeprefix(head + tail).removesuffix(DONE_FRAME)
    assert json.loads(extra.removeprefix(b"data: "))["x_gai"] == {"warnings": [{"reason": "malformed_chunk"}]}


def test_a_relayed_error_is_the_last_frame() -> None:
    head = ANSWER[: ANSWER.index(b"event: x")]
    assert relayed([head, ERROR_FRAME, DONE_FRAME]) == head + ERROR_FRAME


def test_a_relayed_answer_that_is_cancelled_says_so() -> None:
    head = ANSWER[: ANSWER.index(b"event: x")]
    own = relayed([head], cancel=True).removeprefix(head)
    assert objects_of(own)[0]["x_gai"] == {"finish_reason": "cancelled"}
    assert own.endswith(DONE_FRAME)


def test_an_answer_cancelled_before_its_first_frame_is_translated() -> None:
    body = relayed([], cancel=True)
    assert [chunk["choices"][0]["finish_reason"] for chunk in objects_of(body)] == [None, "stop"]
    assert body.endswith(DONE_FRAME)


def test_a_whole_json_answer_to_a_streamed_request_is_a_stream() -> None:
    answer = {"id": "c", "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
    body = relayed([json.dumps(answer).encode()])
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in objects_of(body)) == "Hi"
    assert body.endswith(DONE_FRAME)


# ---- OpenAI's own SDK reads it ---------------------------------------------------------------------------------------


def client(body: bytes, content_type: str = "text/event-stream", status: int = 200) -> openai.OpenAI:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=body, headers={"content-type": content_type})

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(api_key="k", base_url="http://sdk.test/v1", http_client=http, max_retries=0)


def read_by_sdk(body: bytes) -> list[ChatCompletionChunk]:
    with client(body) as sdk:
        return list(sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], stream=True))


def accumulated_by_sdk(body: bytes) -> Any:
    with (
        client(body) as sdk,
        sdk.chat.completions.stream(model="m", messages=[{"role": "user", "content": "?"}]) as stream,
    ):
        return stream.get_final_completion()


EVERYTHING: list[Event] = [
    {"type": "reasoning.delta", "text": "Hm."},
    {"type": "reasoning.signature", "signature": "one", "block": 0},
    {"type": "reasoning.signature", "signature": "two", "redacted": True, "block": 1},
    text("Grüße, "),
    text("Welt"),
    {"type": "citations", "citations": [{"uri": "https://a.example", "title": "A", "start": 0, "end": 2}]},
    {"type": "citations", "citations": [{"uri": "https://b.example", "title": "B", "start": 2, "end": 4}]},
    {"type": "server_tool", "server_tool": {"id": "s", "name": "search", "status": "completed"}},
    call_start("call_1", 0),
    call_delta('{"city":', "call_1", 0),
    call_start("call_2", 1),
    call_delta('"Oslo"}', "call_1", 0),
    call("call_1"),
    call("call_2", "{}", signature="sig"),
    {"type": "warning", "reason": "malformed_chunk"},
    finish("tool_calls", usage={**USAGE, "cached_input_tokens": 4, "reasoning_tokens": 5}),
    DONE,
]


@pytest.mark.parametrize("ids", [False, True])
def test_the_sdk_accumulates_a_full_answer(ids: bool) -> None:
    completion = accumulated_by_sdk(streamed(*EVERYTHING, usage=True, ids=ids, retry_ms=3000))
    message = completion.choices[0].message
    assert message.role == "assistant"
    assert message.content == "Grüße, Welt"
    assert message.reasoning_content == "Hm."
    assert [detail["index"] for detail in message.reasoning_details] == [0, 1]
    assert [note.url_citation.url for note in message.annotations] == ["https://a.example", "https://b.example"]
    calls = [(one.id, one.function.name, one.function.arguments) for one in message.tool_calls]
    assert calls == [("call_1", "weather", '{"city":"Oslo"}'), ("call_2", "weather", "{}")]
    assert message.tool_calls[1].extra_content == {"google": {"thought_signature": "sig"}}
    assert completion.choices[0].finish_reason == "tool_calls"
    assert completion.usage.total_tokens == 30
    assert completion.usage.prompt_tokens_details.cached_tokens == 4
    assert completion.usage.completion_tokens_details.reasoning_tokens == 5


def test_the_sdk_reads_a_stream_with_heartbeats_and_ids() -> None:
    encoder = OPENAI.encoder("sse", context(ids=True, retry_ms=3000))
    body = b""
    for event in (START, text("Hi"), text("!"), finish(), DONE):
        encoder.heartbeat()
        encoder.event(event)
        body += encoder.take()
    read = read_by_sdk(body)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in read) == "Hi!"
    assert read[-1].choices[0].finish_reason == "stop"


def test_the_sdk_finds_usage_on_the_last_chunk_only() -> None:
    read = read_by_sdk(streamed(text("Hi"), finish(usage=USAGE), DONE, usage=True))
    assert [chunk.usage is not None for chunk in read] == [False, False, False, True]
    assert read[-1].choices == []
    assert read[-1].usage is not None
    assert (read[-1].usage.prompt_tokens, read[-1].usage.completion_tokens) == (10, 20)


@pytest.mark.parametrize(
    "make", [lambda: streamed(text("Hi"), ERROR, NOT_DONE), lambda: encoded(passing(TEXT_FRAME), [ERROR, NOT_DONE])]
)
def test_the_sdk_raises_an_error_in_the_stream(make: Callable[[], bytes]) -> None:
    with client(make()) as sdk:
        stream = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], stream=True)
        read: list[str] = []
        with pytest.raises(openai.APIError) as raised:
            read.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(read) in ("Hi", "")
    assert raised.value.message == 'cut "off"'
    assert raised.value.code == "network"


def test_the_sdk_reads_a_passthrough_with_warnings() -> None:
    encoder = passing(TEXT_FRAME)
    encoder.event(WARNING)
    encoder.frame(FINISH_FRAME, last=False)
    encoder.frame(DONE_FRAME, last=True)
    read = read_by_sdk(encoded(encoder, [finish(), DONE]))
    assert [len(chunk.choices) for chunk in read] == [1, 1, 0]
    assert read[-1].model_extra == {"x_gai": {"warnings": [{"reason": "malformed_chunk"}]}}


def test_the_sdk_reads_a_whole_answer() -> None:
    body = encoded(OPENAI.whole(context()), [START, *EVERYTHING])
    with client(body, "application/json") as sdk:
        completion = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
    message = completion.choices[0].message
    assert message.content == "Grüße, Welt"
    assert message.tool_calls is not None
    assert [one.id for one in message.tool_calls] == ["call_1", "call_2"]
    assert completion.usage is not None
    assert completion.usage.total_tokens == 30


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("invalid_request", openai.BadRequestError),
        ("unauthorized", openai.AuthenticationError),
        ("forbidden", openai.PermissionDeniedError),
        ("not_found", openai.NotFoundError),
        ("rate_limited", openai.RateLimitError),
        ("provider_unavailable", openai.InternalServerError),
    ],
)
def test_the_sdk_reads_an_error_body(code: Any, expected: type[openai.APIStatusError]) -> None:
    error = Error(code, "no")
    with (
        client(OPENAI.error_body(error, "req_1"), "application/json", error.status) as sdk,
        pytest.raises(expected) as raised,
    ):
        sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
    assert raised.value.code == code
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["message"] == "no"
