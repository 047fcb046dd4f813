"""Anthropic's format as a whole: what the official SDK makes of its answers and errors."""

from __future__ import annotations

import json

import anthropic
import pytest

from gai_fast.model.errors import Code, Error
from tests.unit.formats.messages_reader import ANTHROPIC, client

CLASSES: list[tuple[Code, type[anthropic.APIStatusError]]] = [
    ("invalid_request", anthropic.BadRequestError),
    ("unauthorized", anthropic.AuthenticationError),
    ("forbidden", anthropic.PermissionDeniedError),
    ("not_found", anthropic.NotFoundError),
    ("rate_limited", anthropic.RateLimitError),
    ("overloaded", anthropic._exceptions.OverloadedError),
    ("timeout", anthropic._exceptions.GatewayTimeoutError),
    ("network", anthropic.InternalServerError),
    ("provider_unavailable", anthropic._exceptions.ServiceUnavailableError),
    ("unsupported", anthropic.BadRequestError),
    ("internal", anthropic.InternalServerError),
]


@pytest.mark.parametrize(("code", "kind"), CLASSES)
def test_the_sdk_raises_the_class_of_each_code(code: Code, kind: type[anthropic.APIStatusError]) -> None:
    error = Error(code, "why")
    body = ANTHROPIC.error_body(error, "req_1")
    with client(body, "application/json", ANTHROPIC.error_status(error)) as sdk, pytest.raises(kind) as raised:
        sdk.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "?"}])
    assert raised.value.api_message == "why"
    assert raised.value.error_code == code
    assert raised.value.request_id == "req_1"


def test_an_error_body_has_the_request_id() -> None:
    assert json.loads(ANTHROPIC.error_body(Error("network", "why"), "req_1")) == {
        "type": "error",
        "error": {"type": "api_error", "message": "why", "details": {"error_code": "network"}},
        "request_id": "req_1",
    }


def test_a_request_needs_no_wish_for_usage() -> None:
    body = {"model": "m"}
    assert ANTHROPIC.with_usage(body) is body
    assert ANTHROPIC.passed_headers == ("anthropic-version", "anthropic-beta")


def test_a_request_whose_answer_is_translated_goes_to_anthropic_as_it_is_and_streams() -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    body = {"model": "m", "messages": [], "tools": tools, "stream": False, "mcp_servers": [{"name": "m"}]}
    assert ANTHROPIC.streamed(body) == {**body, "stream": True}
    assert not ANTHROPIC.is_continued(body)


def test_a_conversation_grows_by_messages() -> None:
    said = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
    body = {"model": "m", "max_tokens": 5, "messages": [said]}
    prefill = {"role": "assistant", "content": "Ho"}
    assert ANTHROPIC.with_messages(body, [prefill]) == {**body, "messages": [said, prefill]}
    assert body["messages"] == [said]
