"""`gai_fast/net/attempts/records.py`: which requests name a secret, so that no store has them."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.net.attempts.records import has_secret

TOOL = {"type": "function", "name": "f", "parameters": {"properties": {"api_key": {"type": "string"}}}}
MESSAGES = [{"role": "user", "content": '{"password": "of a conversation"}'}]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": MESSAGES, "max_tokens": 5, "thinking": {"budget_tokens": 1024}},
        {"input": MESSAGES, "tools": [TOOL, {"type": "web_search"}, 7], "max_output_tokens": 5},
        {"messages": MESSAGES, "tools": [{"type": "function", "function": TOOL}], "response_format": {"token": 1}},
        {"input": [{"type": "additional_tools", "tools": [TOOL]}, 7], "prompt_cache_key": "a", "author": "b"},
        {
            "tools": [{"type": "mcp", "server_url": "https://a/?page=1#b@c"}],
            "metadata": {"mail": "a@b", "is": "a?page=b"},
        },
    ],
)
def test_what_a_model_reads_is_no_secret(body: dict[str, Any]) -> None:
    assert not has_secret(body)


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"type": "mcp", "server_url": "https://a", "authorization": "canary"}]},
        {"tools": [{"type": "mcp", "server_url": "https://a", "headers": {"x-own": "canary"}}]},
        {"mcp_servers": [{"type": "url", "authorization_token": "canary"}]},
        {"messages": MESSAGES, "api_key": "canary"},
        {"input": [{"type": "additional_tools", "tools": [{"type": "mcp", "authorization": "canary"}]}]},
        {"tools": [{"type": "mcp", "server_url": "https://a/mcp/?tavilyApiKey=canary"}]},
        {"tools": [{"type": "mcp", "server_url": "https://a/?a=b&key=canary&c=d"}]},
        {"tools": [{"type": "mcp", "server_url": "https://user:canary@a/"}]},
        {"mcp_servers": [{"type": "url", "url": "https://a/?access_token=canary"}]},
        {"tools": [{"type": "mcp", "server_url": "https://a", "auth": {"a": "canary"}}]},
        {"own": {"cookie": "canary"}},
        {"own": {"access_key": "canary"}},
        {"metadata": {"a": "b" * 20_000}},
    ],
)
def test_what_only_a_provider_or_a_server_of_tools_reads_may_be_one(body: dict[str, Any]) -> None:
    assert has_secret(body)
