"""OpenAI's whole chat completion, built or the upstream's own."""

from __future__ import annotations

import json

import pytest
from openai.types.chat import ChatCompletion

from gai_fast.formats import get_format
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.limits import SHARED
from tests.unit.formats.chat_reader import (
    DONE_FRAME,
    OPENAI,
    TEXT_FRAME,
    whole,
)
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
    encoded,
    finish,
    text,
)


def test_of_a_whole_answer_they_are_the_length_of_its_text() -> None:
    events: list[Event] = [text("Hi"), {"type": "citations", "citations": [{"uri": "u", "title": "T", "start": 1}]}]
    answer = json.loads(encoded(get_format("openai").whole(context()), [START, *events, finish(), DONE]))
    assert answer["choices"][0]["message"]["annotations"] == [
        {"type": "url_citation", "url_citation": {"url": "u", "title": "T", "start_index": 2, "end_index": 2}}
    ]


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
                {"type": "reasoning.text", "text": "Hm.", "signature": "sig", "format": "gai-test-v1", "index": 0},
                {"type": "reasoning.encrypted", "data": "opaque", "format": "gai-test-v1", "index": 1},
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


def test_only_an_answer_with_a_call_ends_for_one() -> None:
    assert whole(call(), finish("tool_calls"))["choices"][0]["finish_reason"] == "tool_calls"
    ended = whole(text("Hi"), finish("tool_calls"))
    assert (ended["choices"][0]["finish_reason"], ended["x_gai"]) == ("stop", {"finish_reason": "tool_calls"})


def test_opaque_reasoning_of_a_responses_upstream_is_encrypted() -> None:
    started: Event = {"type": "start", "provider": "openrouter", "provider_metadata": {"api": "responses"}}
    signed: list[Event] = [
        {"type": "reasoning.delta", "text": "Hm."},
        {"type": "reasoning.signature", "signature": "sig"},
        finish(),
        DONE,
    ]
    for start, detail in (
        (started, {"type": "reasoning.encrypted", "data": "sig", "format": "openrouter-responses-v1", "index": 0}),
        (
            {"type": "start", "provider": "openrouter"},
            {"type": "reasoning.text", "text": "Hm.", "signature": "sig", "format": "gai-openrouter-v1", "index": 0},
        ),
    ):
        answer = json.loads(encoded(OPENAI.whole(context()), [start, *signed]))
        assert answer["choices"][0]["message"]["reasoning_details"] == [detail]


def test_a_whole_refusal_is_no_content() -> None:
    message = whole({"type": "refusal.delta", "text": "No."}, finish())["choices"][0]["message"]
    assert message == {"role": "assistant", "content": None, "refusal": "No."}


def test_events_without_a_place_in_the_dialect_are_kept_as_they_are() -> None:
    image: Event = {"type": "image", "image": {"data": "aGk=", "media_type": "image/png"}}
    assert whole(text("a"), image, text("b"), finish())["x_gai"] == {"events": [image]}


def test_a_failed_whole_answer_has_no_bytes() -> None:
    assert encoded(OPENAI.whole(context()), [START, text("Hi"), ERROR, NOT_DONE]) == b""


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


def test_a_whole_answer_that_is_void_is_not_that_of_the_next_attempt() -> None:
    encoder = OPENAI.passthrough("sse", context(), whole=True)
    assert encoder is not None
    encoder.frame(b'{"id": "void"}', last=True)
    events: list[Event] = [START, text("void"), {"type": "stream.reset", "reason": "network"}, START, text("Hi")]
    body = encoded(encoder, [*events, finish(), DONE])
    assert json.loads(body)["choices"][0]["message"]["content"] == "Hi"


def test_a_whole_answer_that_failed_leaves_the_body_to_the_error() -> None:
    encoder = OPENAI.passthrough("sse", context(), whole=True)
    assert encoder is not None
    encoder.frame(b'{"error":{"message":"no"}}', last=True)
    assert encoded(encoder, [ERROR, NOT_DONE]) == b""


def test_all_choices_of_an_answer_are_in_it() -> None:
    """Each has its own message, as the SDK's type reads it; the size of all counts as one."""
    second = [
        {**each, "choice": 1}
        for each in (
            {"type": "reasoning.delta", "text": "Hm"},
            text("Ho", logprobs=[{"token": "Ho", "logprob": -1.0, "top_logprobs": []}]),
            call(),
            {"type": "safety", "safety": {"category": "c"}},
        )
    ]
    answer = whole({**text("?"), "choice": 2}, text("Hi"), *second, finish("tool_calls", usage=USAGE))
    read = ChatCompletion.model_validate(answer, strict=True)
    assert [(each.index, each.message.content, each.finish_reason) for each in read.choices] == [
        (0, "Hi", "stop"),
        (1, "Ho", "tool_calls"),
        (2, "?", "stop"),
    ]
    assert answer["choices"][1]["message"]["reasoning_content"] == "Hm"
    assert answer["choices"][1]["logprobs"]["content"][0]["token"] == "Ho"
    assert "logprobs" not in answer["choices"][0]
    assert answer["x_gai"]["events"] == [{"type": "safety", "safety": {"category": "c"}, "choice": 1}]


def test_choices_of_an_answer_that_begins_again_are_void() -> None:
    answer = whole({**text("old"), "choice": 1}, {"type": "stream.reset"}, text("Hi"), finish())
    assert [each["index"] for each in answer["choices"]] == [0]


def test_the_choices_of_an_answer_have_one_limit_of_size() -> None:
    half = "x" * (SHARED.collected // 2)
    with pytest.raises(Error, match="larger than"):
        whole(text(half), {**text(half), "choice": 1}, finish())
