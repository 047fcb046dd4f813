"""The client's own member in place of a member that an upstream refuses, by OpenAI's, Anthropic's and others' 400s."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.formats import get_format
from gai_fast.model.errors import Error
from gai_fast.providers import Target, get_provider
from gai_fast.providers.requests.client_members import client_member
from gai_fast.providers.requests.limits import LIMITS

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": {"name": name}} for name in "fg"]
RESPONSES: dict[str, Any] = {"model": "m", "input": "Hi", "instructions": "Be brief."}
MESSAGES: dict[str, Any] = {"model": "m", "max_tokens": 9000, "messages": [{"role": "user", "content": "Hi"}]}
FORM = {"type": "json_schema", "name": "a", "schema": {"type": "object", "properties": {}}}


def openai_400(message: str, param: str | None, code: str | None = "unsupported_parameter") -> bytes:
    """OpenAI's error object: openai-python, `APIError`."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return json.dumps({"error": error}).encode()


def anthropic_400(message: str) -> bytes:
    """Anthropic's: the member stands in the message."""
    error = {"type": "invalid_request_error", "message": message}
    return json.dumps({"type": "error", "error": error, "request_id": "req_1"}).encode()


def gemini_400(message: str, field: str = "") -> bytes:
    """Google's: `google.rpc.BadRequest` in `details`, in the words of the protocol."""
    violation = {"field": field, "description": message}
    details = [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}] if field else []
    error = {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": details}
    return json.dumps({"error": error}).encode()


TOO_MANY = "Invalid value at 'generation_config.max_output_tokens' (TYPE_INT32), 1e20"


@pytest.mark.parametrize(
    ("dialect", "body", "provider", "refusal", "param"),
    [
        (
            "responses",
            {**RESPONSES, "max_output_tokens": 9000, "temperature": 0.5},
            "groq",
            openai_400("`max_completion_tokens` must be at most 8192", "max_completion_tokens"),
            "max_output_tokens",
        ),
        (
            "responses",
            {**RESPONSES, "max_output_tokens": 9000},
            "mistral",
            json.dumps({"object": "error", "message": {"detail": [{"loc": ["body", "max_tokens"]}]}}).encode(),
            "max_output_tokens",
        ),
        (
            "responses",
            {**RESPONSES, "text": {"format": FORM}},
            "openai",
            openai_400("Invalid parameter: 'response_format' of type 'json_schema' is not supported", None, None),
            "text.format",
        ),
        (
            "responses",
            {**RESPONSES, "reasoning": {"effort": "low"}},
            "openai",
            openai_400("Unrecognized request argument supplied: reasoning_effort", "reasoning_effort"),
            "reasoning.effort",
        ),
        (
            "openai",
            {**CHAT, "max_completion_tokens": 90_000},
            "anthropic",
            anthropic_400("max_tokens: 90000 > 64000, which is the maximum allowed number of output tokens"),
            "max_completion_tokens",
        ),
        (
            "openai",
            {**CHAT, "stop": ["a"]},
            "anthropic",
            anthropic_400("stop_sequences: at most 8191 stop sequences"),
            "stop",
        ),
        (
            "openai",
            {**CHAT, "temperature": 0.5},
            "anthropic",
            anthropic_400("temperature: range: 0..1"),
            "temperature",
        ),
        ("openai", {**CHAT, "max_tokens": 9_000_000}, "gemini", gemini_400(TOO_MANY, "x"), "max_tokens"),
        (
            "anthropic",
            {**MESSAGES, "stop_sequences": ["a"]},
            "gemini",
            gemini_400("Request contains an invalid argument.", "generation_config.stop_sequences"),
            "stop_sequences",
        ),
        (
            "anthropic",
            MESSAGES,
            "gemini",
            gemini_400("Unable to submit request because it has a maxOutputTokens value of 9000 but …"),
            "max_tokens",
        ),
        (
            "anthropic",
            {**MESSAGES, "stop_sequences": ["a"]},
            "openai",
            openai_400("Unsupported parameter: 'stop' is not supported with this model.", "stop"),
            "stop_sequences",
        ),
        (
            "openai",
            {**CHAT, "tools": TOOLS, "tool_choice": "required"},
            "anthropic",
            anthropic_400("tool_choice.type: 'any' is not supported"),
            "tool_choice",
        ),
        (
            "openai",
            {**CHAT, "tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "anthropic",
            anthropic_400("tool_choice.name: not supported"),
            "tool_choice",
        ),
    ],
)
def test_a_400_names_what_the_client_sent(
    dialect: str, body: dict[str, Any], provider: str, refusal: bytes, param: str
) -> None:
    api, parse = get_provider(provider), get_format(dialect).parse_request
    error = api.decode_error(400, {}, refusal)
    request, _ = parse(body)
    assert api.client_member(request, Target("m", on_unsupported="drop"), error, body, parse) == param


@pytest.mark.parametrize(
    ("fields", "provider", "refusal", "param"),
    [
        ({"max_tokens": 5}, "openai", openai_400("too few", "max_completion_tokens"), "max_tokens"),
        ({"max_tokens": 5}, "gemini", gemini_400(TOO_MANY), "max_tokens"),
        (
            {"reasoning": {"max_tokens": 1}, "max_tokens": 5000},
            "anthropic",
            anthropic_400("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"),
            "reasoning.max_tokens",
        ),
        ({"extra": {"top_a": 1}}, "openai", openai_400("Unknown parameter: 'top_a'.", "top_a"), "extra.top_a"),
        (
            {"provider_options": {"openai": {"top_a": 1}}},
            "openai",
            openai_400("Unknown parameter: 'top_a'.", "top_a"),
            "provider_options.openai.top_a",
        ),
        ({"seed": 5}, "openai", openai_400("The server had a bad day", None), None),
        ({}, "openai", openai_400("Invalid value: 'messages'", "messages"), None),
        ({}, "openai", openai_400("No such model", "model", "model_not_found"), None),
    ],
)
def test_of_a_native_request_it_is_the_field(
    fields: dict[str, Any], provider: str, refusal: bytes, param: str | None
) -> None:
    api = get_provider(provider)
    request = parse_request(json.dumps({"query": "Hi", "system": "Be brief.", **fields}).encode())
    error = api.decode_error(400, {}, refusal)
    assert api.client_member(request, Target("m", on_unsupported="drop"), error) == param


def test_in_the_upstreams_dialect_only_a_name_that_the_client_did_not_send_is_news() -> None:
    api = get_provider("openai")
    error = api.decode_error(400, {}, openai_400("too few", "max_completion_tokens"))
    target = Target("m", on_unsupported="drop")
    assert api.client_member({**CHAT, "max_tokens": 5}, target, error) == "max_tokens"
    assert api.client_member({**CHAT, "max_completion_tokens": 5}, target, error) is None


def test_another_failure_names_nothing() -> None:
    api = get_provider("openai")
    busy = api.decode_error(503, {}, openai_400("`max_completion_tokens` is busy", None, "server_error"))
    assert api.client_member({**CHAT, "max_tokens": 5}, Target("m"), busy) is None


def test_a_request_is_written_a_bounded_number_of_times_without_its_conversation() -> None:
    written: list[dict[str, Any]] = []

    def write(body: dict[str, Any]) -> dict[str, Any]:
        written.append(body)
        return {"last": body.get("last")}

    many = {f"member_{number}": number for number in range(LIMITS.client_members * 2)}
    asked = {**CHAT, "system": "x" * 9000, **many, "last": 1}
    refusal = Error("invalid_request", "last: wrong", provider="p")
    assert client_member(asked, write, refusal) is None
    assert len(written) == LIMITS.client_members + 1
    assert all("system" not in body and len(body["messages"]) == 1 for body in written)


@pytest.mark.parametrize("place", ["sent", "left out", "added"])
def test_a_large_request_is_written_once_at_most(place: str) -> None:
    """Each writing walks it: one of 10 MB held the loop for seconds, whenever its caller made a mistake in it."""
    large = {"odd": "x" * LIMITS.rewritten_request}
    writes = 0

    def write(body: dict[str, Any]) -> dict[str, Any]:
        nonlocal writes
        writes += 1
        sent = {name: value for name, value in body.items() if name != "odd" or place == "sent"}
        return sent | large if place == "added" else sent

    error = Error("invalid_request", "temperature: wrong", provider="p")
    asked = {**CHAT, "temperature": 9}
    assert client_member(asked if place == "added" else asked | large, write, error) is None
    assert writes == (place == "added")
    if place == "left out":
        assert client_member(asked, write, error) == "temperature"


def test_what_cannot_be_written_names_nothing() -> None:
    def write(_: Any) -> dict[str, Any]:
        raise Error("unsupported", "no")

    assert client_member(CHAT, write, Error("invalid_request", "last: wrong", provider="p")) is None


@pytest.mark.parametrize("beside", [{}, {"a": 5}, {"a": [1]}, {"a": {"c": 1}}])
def test_a_name_with_a_dot_is_no_path(beside: dict[str, Any]) -> None:
    api, target = get_provider("openai-compatible"), Target("m", "k", "drop")
    error = api.decode_error(400, {}, openai_400("Unknown parameter: 'a.b'.", "a.b"))
    assert api.client_member({**CHAT, **beside, "a.b": 1}, target, error) is None
    error = api.decode_error(400, {}, openai_400("`max_completion_tokens` is too large", "max_completion_tokens"))
    body = {**RESPONSES, "max_output_tokens": 9, **beside, "a.b": 1}
    found = api.client_member(CHAT, target, error, body, get_format("responses").parse_request)
    assert found in ("max_output_tokens", None)


def test_a_number_that_is_none_in_json_names_nothing() -> None:
    error = Error("invalid_request", "Unknown parameter: 'top_p'.", provider="openai")
    assert client_member({**CHAT, "top_p": float("inf")}, dict, error) is None
