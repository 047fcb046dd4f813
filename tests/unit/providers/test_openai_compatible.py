"""Additions of other servers to the chat dialect."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.providers import get_provider
from tests.unit.providers.answer_reading import between, body, chunk, read, text_of

API = "openai-compatible"


def test_usage_may_stand_in_the_choice() -> None:
    one = chunk(finish="stop")
    one["choices"][0]["usage"] = {"prompt_tokens": 3, "completion_tokens": 2}
    assert read(API, one)[-1]["usage"]["total_tokens"] == 5


@pytest.mark.parametrize(("word", "reason"), [("eos", "stop"), ("model_length", "length"), ("abort", "other")])
def test_their_finish_words(word: str, reason: str) -> None:
    assert read(API, chunk(finish=word))[-1]["finish_reason"] == reason


@pytest.mark.parametrize("word", ["error", "insufficient_system_resource"])
def test_their_failure_words(word: str) -> None:
    with pytest.raises(Error):
        read(API, chunk({"content": "a"}, finish=word))


def test_reasoning_may_be_a_part_of_the_content() -> None:
    summary = [{"type": "summary_text", "text": "hm", "signature": ""}, {"type": "summary_text", "signature": "s"}]
    parts: list[dict[str, Any]] = [{"type": "reasoning", "summary": summary}, {"type": "text", "text": "a"}]
    assert between(read(API, chunk({"content": parts}))) == [
        {"type": "reasoning.delta", "text": "hm"},
        {"type": "reasoning.signature", "signature": "s"},
        {"type": "text.delta", "text": "a"},
    ]


def test_the_code_of_an_error_may_be_a_status() -> None:
    with pytest.raises(Error) as failed:
        read(API, {"error": {"message": "m", "type": "BadRequestError", "param": None, "code": 404}})
    assert failed.value.code == "not_found"


@pytest.mark.parametrize(
    ("status", "said", "code"),
    [
        (400, b'{"error":{"code":400,"message":"m","type":"exceed_context_size_error"}}', "context_length_exceeded"),
        (503, b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}', "provider_unavailable"),
        (404, b'{"error":"model not found"}', "not_found"),
    ],
)
def test_their_errors(status: int, said: bytes, code: str) -> None:
    assert get_provider(API).decode_error(status, {}, said).code == code


def test_reasoning_and_signatures_go_back() -> None:
    parts = [
        {"type": "reasoning", "text": "hm"},
        {"type": "tool_call", "call_id": "a", "name": "f", "signature": "s"},
        {"type": "tool_call", "call_id": "b", "name": "g"},
    ]
    sent = body(API, messages=[{"role": "assistant", "content": parts}])["messages"][0]
    assert sent["reasoning_content"] == "hm"
    assert sent["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "s"}}
    assert "extra_content" not in sent["tool_calls"][1]


def test_the_legacy_api_is_there_too() -> None:
    events = read(f"{API}:completions", {"choices": [{"text": "Once", "finish_reason": "stop"}]})
    assert text_of(events) == "Once"
    assert events[0]["provider"] == API
    assert body(f"{API}:completions", query="Once")["prompt"] == "Once"


def test_reasoning_without_text_is_not_sent_back() -> None:
    parts = [{"type": "reasoning", "signature": "s"}, {"type": "text", "text": "a"}]
    sent = body("openai-compatible", messages=[{"role": "assistant", "content": parts}])
    assert sent["messages"] == [{"role": "assistant", "content": "a"}]


def test_metadata_are_passed_on() -> None:
    assert body("openai-compatible", metadata={"team": "a"})["metadata"] == {"team": "a"}
