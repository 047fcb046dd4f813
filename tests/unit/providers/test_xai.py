"""Additions of xAI to the chat dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.model.errors import Error, Unsupported
from gai_fast.providers import get_provider
from tests.unit.providers.answer_reading import between, body, body_without, chunk, read, request, text_of


def test_empty_deltas_are_heartbeats() -> None:
    assert between(read("xai", chunk({}), chunk({"role": "assistant"}), chunk({"content": "a"}))) == [
        {"type": "text.delta", "text": "a"}
    ]


def test_reasoning_that_is_sent_again_is_kept() -> None:
    events = read("xai", *[chunk({"reasoning_content": "Thinking... "})] * 3)
    assert text_of(events, "reasoning.delta") == "Thinking... " * 3


def test_citations_are_reported_once() -> None:
    events = read("xai", chunk({"content": "a"}, citations=["u1"]), chunk(finish="stop", citations=["u1", "u2"]))
    assert [event["citations"] for event in events if event["type"] == "citations"] == [
        [{"uri": "u1"}],
        [{"uri": "u2"}],
    ]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"prompt_tokens": 307, "completion_tokens": 26, "total_tokens": 560,
             "completion_tokens_details": {"reasoning_tokens": 227}},
            {"input_tokens": 307, "output_tokens": 253, "total_tokens": 560, "reasoning_tokens": 227},
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 7}},
            {"input_tokens": 12, "output_tokens": 2, "total_tokens": 14, "cached_input_tokens": 7},
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 3}},
            {"input_tokens": 5, "output_tokens": 5, "total_tokens": 10, "reasoning_tokens": 3},
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14,
             "completion_tokens_details": {"reasoning_tokens": 3}},
            {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14, "reasoning_tokens": 3},
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7,
             "completion_tokens_details": {"reasoning_tokens": 3}},
            {"input_tokens": 5, "output_tokens": 5, "total_tokens": 10, "reasoning_tokens": 3},
        ),
        ({"completion_tokens": 2}, {"output_tokens": 2}),
        ({"prompt_tokens": 2}, {"input_tokens": 2}),
    ],
)  # fmt: skip
def test_reasoning_is_outside_the_output(usage: Any, expected: Any) -> None:
    assert read("xai", chunk(finish="stop"), {"choices": [], "usage": usage})[-1]["usage"] == expected


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"code": "Some resource has been exhausted", "error": "too many tokens"}, "context_length_exceeded"),
        ({"error": "Incorrect API key provided"}, "unauthorized"),
        ({"error": {"message": "m", "type": "t", "code": "model_not_found"}}, "not_found"),
    ],
)
def test_its_errors_have_three_shapes(said: Any, code: str) -> None:
    assert get_provider("xai").decode_error(400, {}, json.dumps(said).encode()).code == code
    with pytest.raises(Error) as failed:
        read("xai", said)
    assert failed.value.code == code


def test_usage_is_asked_for() -> None:
    sent = body("xai", max_tokens=5)
    assert sent["stream_options"] == {"include_usage": True}
    assert sent["max_completion_tokens"] == 5


@pytest.mark.parametrize("kind", ["audio", "file"])
def test_it_takes_images_but_neither_audio_nor_files(kind: str) -> None:
    parts = [{"type": "image", "url": "https://x"}, {"type": kind, "data": "A", "media_type": "a/b"}]
    with pytest.raises(Unsupported, match=r"xai does not support `messages\[0\].content\[1\]`"):
        request("xai", messages=[{"role": "user", "content": parts}])
    sent, dropped = body_without("xai", messages=[{"role": "user", "content": parts}])
    assert (len(sent["messages"][0]["content"]), dropped) == (1, ["messages[0].content[1]"])
