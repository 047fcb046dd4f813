"""Additions of OpenRouter to the chat dialect."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.library.collecting import collect
from gai_fast.model.errors import Error
from gai_fast.providers import get_provider
from tests.unit.providers.answer_reading import between, body, chunk, read


def test_reasoning_is_said_twice_and_reported_once_with_its_signature() -> None:
    def detail(**keys: object) -> dict[str, object]:
        return {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0, **keys}

    events = read(
        "openrouter",
        chunk({"content": "", "reasoning": "hm", "reasoning_details": [detail(text="hm")]}),
        chunk({"content": "", "reasoning": None, "reasoning_details": [detail(signature="s")]}),
        chunk({"content": "a", "reasoning": None, "reasoning_details": []}),
    )
    assert between(events) == [
        {"type": "reasoning.delta", "text": "hm"},
        {"type": "reasoning.signature", "block": 0, "signature": "s"},
        {"type": "text.delta", "text": "a"},
    ]


def test_an_error_in_a_chunk_is_an_error_whatever_its_choices_say() -> None:
    broken = chunk(
        {"content": ""},
        finish="error",
        error={"code": 502, "message": "m", "metadata": {"error_type": "rate_limit_exceeded"}},
    )
    with pytest.raises(Error) as failed:
        read("openrouter", chunk({"content": "a"}), broken)
    assert (failed.value.code, failed.value.reason) == ("rate_limited", "rate_limit_exceeded")


def test_its_finish_reason_is_the_raw_word() -> None:
    one = chunk(finish="length")
    one["choices"][0]["native_finish_reason"] = "max_output_tokens"
    assert read("openrouter", one)[-1]["finish_reason_raw"] == "length"


def test_images_come_as_data_urls() -> None:
    images = [
        {"type": "image_url", "image_url": {"url": url}} for url in ("data:image/png;base64,AAAA", "https://x/y.png")
    ]
    assert between(read("openrouter", chunk({"images": images}))) == [
        {"type": "image", "image": {"data": "AAAA", "media_type": "image/png"}}
    ]


def test_web_sources_are_citations() -> None:
    cited = {
        "type": "url_citation",
        "url_citation": {"url": "u", "title": "t", "content": "…", "start_index": 0, "end_index": 0},
    }
    assert between(read("openrouter", chunk({"annotations": [cited]}))) == [
        {"type": "citations", "citations": [{"uri": "u", "title": "t"}]}
    ]


@pytest.mark.parametrize(
    ("status", "code"), [(402, "forbidden"), (429, "rate_limited"), (524, "timeout"), (529, "overloaded")]
)
def test_its_errors_carry_the_status_as_a_number(status: int, code: str) -> None:
    body = b'{"error":{"message":"Provider returned error","code":%d},"user_id":"u"}' % status
    assert get_provider("openrouter").decode_error(status, {}, body).code == code


def test_effort_and_budget_are_one_object() -> None:
    assert body("openrouter", reasoning={"effort": "low", "max_tokens": 9})["reasoning"] == {
        "effort": "low",
        "max_tokens": 9,
    }
    assert "stream_options" not in body("openrouter")


def test_reasoning_goes_back_as_details() -> None:
    parts = [
        {"type": "reasoning", "text": "hm", "signature": "s"},
        {"type": "reasoning", "text": "so"},
        {"type": "reasoning", "signature": "e"},
        {"type": "reasoning", "signature": "r", "redacted": True},
    ]
    assert body("openrouter", messages=[{"role": "assistant", "content": parts}])["messages"][0][
        "reasoning_details"
    ] == [
        {"type": "reasoning.text", "text": "hm", "index": 0, "signature": "s"},
        {"type": "reasoning.text", "text": "so", "index": 1},
        {"type": "reasoning.encrypted", "data": "e", "index": 2},
        {"type": "reasoning.encrypted", "data": "r", "index": 3},
    ]


@pytest.mark.parametrize(
    ("model", "details"),
    [
        ("anthropic/claude", [
            {"type": "reasoning.text", "text": "hm", "signature": "s", "format": "anthropic-claude-v1", "index": 0},
            {"type": "reasoning.encrypted", "data": "r", "format": "anthropic-claude-v1", "index": 1},
        ]),
        ("openai/gpt-5", [
            {"type": "reasoning.summary", "summary": "hm", "format": "openai-responses-v1", "index": 0},
            {"type": "reasoning.encrypted", "data": "s", "format": "openai-responses-v1", "index": 1},
            {"type": "reasoning.encrypted", "data": "r", "format": "openai-responses-v1", "index": 2},
        ]),
        ("google/gemini-3", [
            {"type": "reasoning.text", "text": "hm", "signature": "s", "format": "google-gemini-v1", "index": 0},
            {"type": "reasoning.encrypted", "data": "r", "format": "google-gemini-v1", "index": 1},
        ]),
    ],
)  # fmt: skip
def test_details_have_the_form_of_the_model_that_gave_them(model: str, details: list[Any]) -> None:
    parts = [
        {"type": "reasoning", "text": "hm", "signature": "s", "provider": "openrouter"},
        {"type": "reasoning", "signature": "r", "redacted": True, "provider": "openrouter"},
    ]
    sent = body("openrouter", model=model, messages=[{"role": "assistant", "content": parts}])
    assert sent["messages"][0]["reasoning_details"] == details


def test_encrypted_reasoning_comes_back_as_it_came() -> None:
    """Encrypted reasoning is no redacted block: that is Anthropic's word for one whose text was taken away."""
    details = [{"type": "reasoning.encrypted", "data": "gAAA", "format": "openai-responses-v1", "index": 0}]
    came = collect(read("openrouter", chunk({"reasoning_details": details}), chunk({"content": "a"}, finish="stop")))
    assert came.message["content"][0] == {
        "type": "reasoning", "text": "", "signature": "gAAA", "provider": "openrouter"
    }  # fmt: skip
    sent = body("openrouter", model="openai/gpt-5", messages=[came.message])
    assert sent["messages"][0]["reasoning_details"] == details


def test_audio_of_any_format_and_the_newer_name_of_the_bound() -> None:
    parts = [{"type": "audio", "data": "AA", "media_type": "audio/flac"}]
    sent = body("openrouter", messages=[{"role": "user", "content": parts}], max_tokens=5)
    assert sent["messages"][0]["content"][0]["input_audio"] == {"data": "AA", "format": "flac"}
    assert sent["max_completion_tokens"] == 5
