"""The schemas of the API are those of what the server reads and writes."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from gai_fast.errors import CLASSES, Error
from gai_fast.events import KEYS, TYPES
from gai_fast.formats import get_format
from gai_fast.request import Request
from gai_fast.server.openapi.schemas import ref, schemas
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
    assert not problems("ChatCompletionRequest", {"messages": [], "a_new_member": 1}), "upstreams may know more"
    assert problems("ChatCompletionRequest", {"model": "m"})
    assert problems("ResponsesRequest", {"model": 1, "input": "Hi"})
    assert "max_tokens" in ALL["MessagesRequest"]["properties"]
    assert "prompt" in ALL["CompletionRequest"]["properties"]
