"""Counts of tokens, as an upstream answers them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types.beta.message_count_tokens_params import MessageCountTokensParams
from openai.types.responses.input_token_count_params import InputTokenCountParams

from gai_fast.model.errors import Error, Malformed, Unsupported
from gai_fast.providers import Target, TokenCount, get_provider, missing_route
from tests.unit.providers.requests.test_tuning import model_with

API = get_provider("anthropic")


def test_a_count_is_an_answer_without_content_and_without_usage() -> None:
    adapter = TokenCount(API, "claude-x")
    assert adapter.receive_whole({"input_tokens": 12}) == [
        {"type": "start", "provider": "anthropic", "model": "claude-x"}
    ]
    assert adapter.finish() == [
        {"type": "finish", "provider": "anthropic", "model": "claude-x", "finish_reason": "stop"}
    ]


@pytest.mark.parametrize("answer", [None, [], {}, {"input_tokens": "many"}, {"input_tokens": True}])
def test_what_is_no_count_is_malformed(answer: Any) -> None:
    with pytest.raises(Malformed):
        TokenCount(API).receive_whole(answer)


def test_a_stream_is_none_but_its_error_is_reported() -> None:
    adapter = TokenCount(API)
    with pytest.raises(Malformed, match="no stream"):
        adapter.receive("", '{"input_tokens": 12}')
    with pytest.raises(Error, match="Overloaded"):
        adapter.receive("error", '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')
    with pytest.raises(Error, match="ended the answer"):
        adapter.finish()


def test_only_an_api_that_counts_takes_the_request() -> None:
    request = API.build_count({"model": "fast", "messages": []}, Target("claude-x", "k"))
    assert (request.path, request.body) == ("/v1/messages/count_tokens", b'{"model":"claude-x","messages":[]}')
    with pytest.raises(Unsupported, match="counts no tokens"):
        get_provider("openai").build_count({}, Target("m"))


@pytest.mark.parametrize(
    ("provider", "kind", "more"),
    [
        ("anthropic", MessageCountTokensParams, set()),
        ("anthropic:vertex", MessageCountTokensParams, {"anthropic_version"}),
        ("openai:responses", InputTokenCountParams, set()),
    ],
)
def test_a_count_has_what_the_configuration_adds_to_requests_if_it_counts(
    provider: str, kind: Any, more: set[str]
) -> None:
    """Others are a 400 (github.com/Wei-Shaw/sub2api/issues/2109). Those of the client are for the provider to judge."""
    model = model_with(
        provider,
        defaults={"max_tokens": 900, "reasoning": {"effort": "high"}},
        upstream_extra={"metadata": {"user_id": "u"}},
        extra={"service_tier": "auto"},
    )
    asked = {"model": "fast", "messages": [], "input": "Hi", "temperature": 1}
    request = get_provider(provider).build_count(asked, Target("claude-opus-4-5", "k", settings=model))
    sent = json.loads(request.body)
    assert sent.keys() - asked.keys() <= kind.__annotations__.keys() | more
    assert sent.keys() > asked.keys(), "an effort, which may count"
    plain = get_provider(provider).build_count(asked, Target("claude-opus-4-5", "k"))
    assert json.loads(plain.body).keys() == asked.keys() | more


def refusal(status: int, body: bytes, provider: str = "anthropic") -> Error:
    return get_provider(provider).decode_error(status, {}, body)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b""),
        (404, b"404 page not found"),
        (404, b'{"detail":"Not Found"}'),
        (404, b'{"error":{"message":"File Not Found","type":"not_found_error","code":404}}'),
        (404, b'{"type":"error","error":{"type":"not_found_error","message":"Not Found"}}'),
        (404, b"<html><body>Cannot POST /v1/messages/count_tokens of this model server</body></html>"),
        (404, b'{"error":{"message":"Invalid URL (POST /v1/responses/input_tokens)","type":"invalid_request_error"}}'),
        (404, b'{"error":{"code":"404","message":"Resource not found"}}'),
        (404, b'{"timestamp":1,"status":404,"error":"Not Found","path":"/v1/messages/count_tokens"}'),
        (405, b'{"detail":"Method Not Allowed"}'),
        (405, b"the model says no"),
        (501, b""),
        (501, b'{"error":{"message":"Not Implemented"}}'),
    ],
)
def test_a_refusal_that_names_nothing_of_the_request_is_of_the_route(status: int, body: bytes) -> None:
    assert missing_route(refusal(status, body)) == "surely"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"code":5,"error":"url.not_found","message":"nothing here","method":"POST"}'),
        (404, b'{"error":{"message":"Unknown request URL: POST /v1/messages/count_tokens"}}'),
        (501, b'{"error":{"message":"this model counts no tokens"}}'),
    ],
)
def test_other_words_may_be_of_the_route(status: int, body: bytes) -> None:
    assert missing_route(refusal(status, body)) == "perhaps"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"type":"error","error":{"type":"not_found_error","message":"model: claude-x"}}'),
        (404, b'{"error":{"message":"The model `a/b` does not exist","code":"model_not_found"}}'),
        (404, b'{"error":{"message":"nothing","code":"model_not_found"}}'),
        (
            404,
            b'{"error":{"message":"Previous response with id \'resp_1\' not found.","param":"previous_response_id"}}',
        ),
        (404, b'{"error":{"code":"DeploymentNotFound","message":"The API deployment does not exist."}}'),
        (400, b'{"error":{"message":"Not Found"}}'),
        (403, b""),
        (500, b""),
        (529, b""),
    ],
)
def test_another_refusal_is_not(status: int, body: bytes) -> None:
    assert missing_route(refusal(status, body)) == "no"
    assert missing_route(Error("not_found", "not found")) == "no"
