"""The schemas of the API are those of what the server reads and writes."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.formats import get_format
from gai_fast.formats.vercel.request import read_ui_request
from gai_fast.model.errors import CLASSES, Error
from gai_fast.model.events import KEYS, TYPES
from gai_fast.model.request import Request
from gai_fast.server.openapi.schemas import ref, schemas
from tests.limits import LIMITS
from tests.unit.formats.every_event import EVERY_EVENT

ALL = schemas()


def problems(name: str, value: Any) -> list[str]:
    validator = jsonschema_rs.Draft202012Validator({**ref(name), "components": {"schemas": ALL}})
    return [str(problem) for problem in validator.iter_errors(value)]


def test_a_request_has_the_fields_that_are_read() -> None:
    assert {*ALL["Request"]["properties"]} == {*Request.__struct_fields__}
    assert not problems("Request", {"query": "Tell me a story", "tools": [{"name": "f", "parameters": {}}]})
    assert problems("Request", {"query": "Tell me a story", "unknown": 1})
    assert problems("Request", {"query": None})


IMAGE = {"type": "image", "url": "https://example.com/a.png"}


@pytest.mark.parametrize(
    ("asked", "is_valid"),
    [
        ({"query": ""}, True),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, True),
        ({"query": "Hi", "messages": []}, True),
        ({}, False),
        ({"messages": []}, False),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, False),
        ({"messages": [{"role": "user", "content": [{**IMAGE, "data": "AA=="}]}]}, False),
        ({"query": "Hi", "model": "m" * LIMITS.model_name}, True),
        ({"query": "Hi", "model": "m" * (LIMITS.model_name + 1)}, False),
        ({"query": "Hi", "json_snapshots": 749.0, "seed": -1.0, "reasoning": {"max_tokens": 0.0}}, True),
        ({"query": "Hi", "max_tokens": 749.5}, False),
        ({"query": "Hi", "max_tokens": 0.0}, False),
    ],
)
def test_a_request_is_valid_where_it_is_read(asked: dict[str, Any], is_valid: bool) -> None:
    assert bool(problems("Request", asked)) is not is_valid
    try:
        parse_request(json.dumps(asked).encode())
    except Error:
        assert not is_valid
    else:
        assert is_valid


@pytest.mark.parametrize(
    ("key", "is_valid"),
    [
        ("a b", True),
        ("k" * LIMITS.idempotency_key, True),
        ("", False),
        ("k" * 256, False),
        ("k\n", False),
        ("ä", False),
    ],
)
def test_an_idempotency_key_is_valid_where_it_is_read(key: str, is_valid: bool) -> None:
    assert bool(problems("Request", {"query": "Hi", "idempotency_key": key})) is not is_valid


def test_a_stream_that_is_started_is_one() -> None:
    assert not problems("StartRequest", {"query": "Hi", "stream": True})
    assert problems("StartRequest", {"query": "Hi", "stream": False})
    assert problems("StartRequest", {"stream": True})


@pytest.mark.parametrize(
    ("message", "is_valid"),
    [
        ({"role": "user", "parts": [{"type": "text", "text": "Hi"}], "metadata": {}}, True),
        ({"role": "user", "parts": [{"type": "text", "text": "Hi"}, {"type": "data-mine", "data": 1}]}, True),
        ({}, False),
        (None, False),
        ({"role": "tool", "parts": [{"type": "text", "text": "Hi"}]}, False),
        ({"role": "user", "content": "Hi"}, False),
        ({"role": "user", "parts": [{"text": "Hi"}]}, False),
        ({"role": "user", "parts": ["Hi"]}, False),
    ],
)
def test_a_message_of_a_chat_is_valid_where_it_is_read(message: Any, is_valid: bool) -> None:
    asked = {"id": "c", "messages": [message]}
    assert bool(problems("ChatRequest", asked)) is not is_valid
    if is_valid:
        read_ui_request(asked)
    else:
        with pytest.raises(Error):
            read_ui_request(asked)


def test_an_event_has_the_keys_and_the_types_that_are_written() -> None:
    assert {*KEYS, "finished"} == {*ALL["Event"]["properties"]}
    assert ALL["Event"]["properties"]["type"]["enum"] == sorted(TYPES)
    for event in EVERY_EVENT:
        assert not problems("Event", json.loads(json.dumps(event, default=lambda value: value.value)))
    assert problems("Event", {"type": "made-up"})


@pytest.mark.parametrize(
    ("format", "schema"),
    [
        ("gai", "Error"),
        ("vercel", "Error"),
        ("openai", "OpenAIError"),
        ("responses", "OpenAIError"),
        ("completions", "OpenAIError"),
        ("anthropic", "AnthropicError"),
    ],
)
def test_every_error_has_its_schema_in_every_format(format: str, schema: str) -> None:
    for code in CLASSES:
        error = Error(code, "text", reason="why", retry_after_ms=5, phase="connect")
        body = json.loads(get_format(format).error_body(error, "req-1"))
        assert not problems(schema, body), body


def test_requests_of_other_dialects_name_what_must_be_there() -> None:
    assert not problems("ChatCompletionRequest", {"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
    assert not problems("ChatCompletionRequest", {"messages": [1], "a_new_member": 1}), "upstreams may know more"
    assert problems("ChatCompletionRequest", {"model": "m"})
    assert problems("ChatCompletionRequest", {"messages": []})
    assert problems("ResponsesRequest", {"model": 1, "input": "Hi"})
    assert not problems("ResponsesRequest", {"input": "Hi", "background": None, "stream": True})
    assert problems("ResponsesRequest", {"input": "Hi", "background": {}})
    assert "max_tokens" in ALL["MessagesRequest"]["properties"]
    assert "prompt" in ALL["CompletionRequest"]["properties"]
