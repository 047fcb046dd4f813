"""Counts of tokens, as an upstream answers them."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.model.errors import Error, Malformed, Unsupported
from gai_fast.providers import Target, TokenCount, get_provider

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


def test_a_stream_is_none_but_its_error_is_told() -> None:
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
