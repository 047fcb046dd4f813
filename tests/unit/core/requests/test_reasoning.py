"""`core/requests/reasoning.py`: which requests ask for reasoning."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.core.requests.reasoning import asks_for_reasoning

ASKING: list[dict[str, Any]] = [
    {"reasoning_effort": "low"},
    {"reasoning": {"effort": "high"}},
    {"reasoning_effort": None, "reasoning": {"effort": "high"}},
    {"reasoning": {"max_tokens": 1024}},
    {"reasoning": {"enabled": True}},
    {"reasoning": {"summary": "auto"}},
    {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    {"thinking": {"type": "adaptive"}},
]
NOT_ASKING: list[dict[str, Any]] = [
    {},
    {"reasoning_effort": "none"},
    {"reasoning_effort": None},
    {"reasoning": None},
    {"reasoning": {}},
    {"reasoning": {"effort": "none", "summary": "auto"}},
    {"reasoning": {"enabled": False}},
    {"reasoning": {"max_tokens": 0}},
    {"reasoning": {"exclude": True}},
    {"reasoning": "high"},
    {"thinking": {"type": "disabled"}},
    {"thinking": True},
]


@pytest.mark.parametrize("members", ASKING, ids=repr)
def test_a_client_that_wants_thought(members: dict[str, Any]) -> None:
    assert asks_for_reasoning({"model": "m", "messages": [], **members})


@pytest.mark.parametrize("members", NOT_ASKING, ids=repr)
def test_a_client_that_wants_none(members: dict[str, Any]) -> None:
    assert not asks_for_reasoning({"model": "m", "messages": [], **members})


@pytest.mark.parametrize(
    ("reasoning", "asks"),
    [
        (b"", False),
        (b',"reasoning":{"effort":"low"}', True),
        (b',"reasoning":{"effort":"none"}', False),
        (b',"reasoning":{"max_tokens":1024}', True),
        (b',"reasoning":{"max_tokens":0}', False),
    ],
)
def test_a_native_request(reasoning: bytes, asks: bool) -> None:
    assert asks_for_reasoning(parse_request(b'{"query":"hi"%b}' % reasoning)) is asks
