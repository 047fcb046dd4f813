"""A native request of a named session has the key of its cache where the provider knows one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import Error
from gai_fast.providers import Target, get_provider

TOOL = {"name": "f", "parameters": {"type": "object"}}


def sent(provider: str, target: Target, **members: Any) -> Any:
    request = parse_request(json.dumps({"query": "Hi", **members}).encode())
    return json.loads(get_provider(provider).build_request(request, target).body)


@pytest.mark.parametrize(
    "provider", ["openai", "openai:responses", "azure", "mistral", "xai:responses", "openai-compatible"]
)
@pytest.mark.parametrize("members", [{}, {"tools": [TOOL]}])
def test_a_provider_that_knows_keys_gets_one_unless_the_request_has_its_own(provider: str, members: Any) -> None:
    assert sent(provider, Target("m", cache_key="main"), **members)["prompt_cache_key"] == "main"
    assert sent(provider, Target("m", cache_key="main"), cache={"key": "own"}, **members)["prompt_cache_key"] == "own"
    assert "prompt_cache_key" not in sent(provider, Target("m"), **members)


@pytest.mark.parametrize("provider", ["anthropic", "gemini", "ollama", "cohere", "groq", "deepseek", "openrouter"])
def test_others_get_the_same_request_as_without_a_session(provider: str) -> None:
    for members in ({}, {"tools": [TOOL]}):
        assert sent(provider, Target("m", cache_key="main"), **members) == sent(provider, Target("m"), **members)


def test_a_server_that_refuses_the_key_is_asked_without_what_the_gateway_added() -> None:
    api, target = get_provider("openai-compatible"), Target("m", cache_key="main")
    request = parse_request(b'{"query": "Hi"}')
    text = "property 'prompt_cache_key' is unsupported"
    error = Error("invalid_request", text, provider="openai-compatible", status=400)
    error.upstream_status = 400
    member = api.refused_member(request, target, error)
    assert member is not None
    assert (member.path, member.is_ours) == ("prompt_cache_key", True)
    target = Target("m", cache_key="main", refused=["prompt_cache_key"])
    assert "prompt_cache_key" not in json.loads(api.build_request(request, target).body)
