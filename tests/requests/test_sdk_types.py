"""The types that judge: members that no SDK declares are refused at every depth."""

from __future__ import annotations

from typing import Any

import pytest

from tests.requests.sdk_types import Types
from tests.requests.targets import TARGETS

USER = {"role": "user", "content": "Hi"}
EMPTY: dict[str, dict[str, Any]] = {
    "chat": {"model": "m", "messages": [USER], "stream": True},
    "responses": {"model": "m", "input": [USER], "stream": True},
    "messages": {"model": "m", "messages": [USER], "max_tokens": 9, "stream": True},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    "cohere": {"model": "m", "messages": [USER], "stream": True},
    "ollama": {"model": "m", "messages": [USER], "stream": True},
    "completions": {"model": "m", "prompt": "Hi", "stream": True},
}


def types_of(name: str) -> tuple[Types, dict[str, Any]]:
    target = next(target for target in TARGETS if target.name == name)
    body = EMPTY[target.dialect]
    if name == "anthropic:vertex":
        body = {"anthropic_version": "vertex-2023-10-16", "messages": [USER], "max_tokens": 9, "stream": True}
    if name == "ollama:generate":
        body = {"model": "m", "prompt": "Hi", "stream": True}
    return target.types(), body


@pytest.mark.parametrize("name", [target.name for target in TARGETS])
def test_a_type_accepts_the_least_and_refuses_what_it_does_not_declare(name: str) -> None:
    types, body = types_of(name)
    assert types.problems(body) == []
    assert types.problems({**body, "x_gai": 1}) == [".x_gai: no such member"]
    least = (
        "contents"
        if "contents" in body
        else "prompt"
        if "prompt" in body
        else next(iter({"messages", "input"} & set(body)))
    )
    assert types.problems({**body, least: 1}) != []


@pytest.mark.parametrize("name", ["openai", "groq", "mistral", "cohere", "ollama", "anthropic"])
def test_a_message_has_only_its_members(name: str) -> None:
    types, body = types_of(name)
    assert types.problems({**body, "messages": [{**USER, "annotations": []}]}) == [
        ".messages[].annotations: no such member"
    ]


def test_a_word_that_an_sdk_does_not_list_is_refused() -> None:
    types, body = types_of("openai")
    assert types.problems({**body, "reasoning_effort": "much"}) == [".reasoning_effort: 'much' is none of its words"]
    types, body = types_of("cohere")
    assert types.problems({**body, "tool_choice": "auto"}) == [".tool_choice: 'auto' is none of its words"]


def test_a_missing_member_is_named() -> None:
    types, body = types_of("openai")
    assert types.problems({**body, "messages": [{"role": "tool", "content": "4"}]}) == [
        ".messages[].tool_call_id: missing"
    ]
