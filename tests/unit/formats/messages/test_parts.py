"""Parts of Anthropic's answers: signatures, errors, usage."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import RefusalStopDetails

from gai_fast.formats.messages.parts import (
    citation_of,
    error_object,
    error_status,
    marked,
    note_warning,
    refusal_of,
    stop_reason_of,
    usage_of,
)
from gai_fast.model.errors import Code, Error
from gai_fast.model.events import Event
from tests.limits import LIMITS


def test_signatures_of_others_and_of_calls_are_marked() -> None:
    assert marked("sig==", "anthropic") == marked("sig==", None) == "sig=="
    assert marked("s", "gemini") == 'gai:{"provider":"gemini","signature":"s"}'
    assert marked("s", "anthropic", "c") == 'gai:{"provider":"anthropic","signature":"s","call_id":"c"}'


TYPES: list[tuple[Code, int | None, str, int]] = [
    ("invalid_request", None, "invalid_request_error", 400),
    ("invalid_request", 413, "request_too_large", 413),
    ("invalid_request", 409, "conflict_error", 409),
    ("unauthorized", None, "authentication_error", 401),
    ("forbidden", None, "permission_error", 403),
    ("forbidden", 402, "billing_error", 402),
    ("not_found", None, "not_found_error", 404),
    ("rate_limited", None, "rate_limit_error", 429),
    ("overloaded", None, "overloaded_error", 529),
    ("timeout", None, "timeout_error", 504),
    ("network", None, "api_error", 502),
    ("provider_unavailable", None, "api_error", 503),
    ("context_length_exceeded", None, "invalid_request_error", 400),
    ("content_filtered", None, "invalid_request_error", 400),
    ("unsupported", None, "invalid_request_error", 400),
    ("internal", None, "api_error", 500),
]


@pytest.mark.parametrize(("code", "given", "kind", "status"), TYPES)
def test_each_code_has_a_type_and_a_status(code: Code, given: int | None, kind: str, status: int) -> None:
    error = Error(code, "why", status=given)
    message = "prompt is too long: why" if code == "context_length_exceeded" else "why"
    assert error_object(error) == {"type": kind, "message": message, "details": {"error_code": code}}
    assert error_status(error) == status


def test_the_upstreams_own_error_is_unchanged() -> None:
    own = {"type": "overloaded_error", "message": "Overloaded", "details": None, "other": 1}
    assert error_object(Error("overloaded", "x", details=own)) == {
        "type": "overloaded_error",
        "message": "Overloaded",
        "details": None,
    }
    assert error_object(Error("overloaded", "Overloaded: why", details=own))["message"] == "Overloaded: why"
    assert error_object(Error("overloaded", "x", details={"message": "no type"}))["message"] == "x"


def test_too_long_a_prompt_has_the_words_on_which_claude_code_compacts() -> None:
    theirs = "This model's maximum context length is 128000 tokens"
    assert error_object(Error("context_length_exceeded", theirs))["message"] == f"prompt is too long: {theirs}"
    own = "prompt is too long: 200001 tokens > 200000 maximum"
    assert error_object(Error("context_length_exceeded", own))["message"] == own
    details = {"type": "invalid_request_error", "message": "input is too long for the model"}
    assert error_object(Error("context_length_exceeded", "x", details=details)) == details


def test_input_tokens_leave_out_the_cache() -> None:
    usage = {"input_tokens": 10, "cached_input_tokens": 4, "cache_write_input_tokens": 9, "output_tokens": 2}
    assert usage_of(usage)[0]["input_tokens"] == 0
    assert usage_of({"source": "estimated"}) == (
        {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0},
        {"usage_source": "estimated"},
    )


def test_a_word_of_another_meaning_does_not_replace_ours() -> None:
    end: Event = {"type": "finish", "finish_reason": "length", "finish_reason_raw": "stop_sequence"}
    assert stop_reason_of(end, has_calls=False) == ("max_tokens", {})


def test_only_a_refusal_has_details() -> None:
    assert refusal_of(None, "refusal") is None
    assert refusal_of({"category": "bio"}, "end_turn") is None
    assert refusal_of({"category": "bio"}, "refusal") == {"type": "refusal", "category": "bio", "explanation": None}
    for word in ("HARM_CATEGORY_HATE_SPEECH", None):  # the SDK's type of a category knows neither this word nor others
        refusal = refusal_of({"category": word}, "refusal")
        assert refusal == {"type": "refusal", "category": None, "explanation": word}
        assert RefusalStopDetails.model_validate(refusal)


@pytest.mark.parametrize("citation", [{}, {"uri": "document:1x"}, {"uri": "https://a"}])
def test_a_citation_has_every_member_of_its_type(citation: dict[str, Any]) -> None:
    assert list(citation_of(citation)) == ["type", "cited_text", "url", "title", "encrypted_index"]


def test_warnings_are_limited() -> None:
    warnings: list[dict[str, Any]] = []
    for _ in range(LIMITS.warnings + 1):
        note_warning(warnings, {"type": "warning", "reason": "malformed_chunk"})
    assert len(warnings) == LIMITS.warnings


def test_input_that_is_cached_for_an_hour_has_its_place() -> None:
    counts, _ = usage_of({"input_tokens": 9, "cache_write_input_tokens": 3, "cache_write_1h_input_tokens": 2})
    assert counts["cache_creation"] == {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2}
