"""Additions of OpenAI to the chat dialect."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.changes import Changes
from gai_fast.model.errors import Error, Unsupported
from gai_fast.providers import get_provider
from gai_fast.providers.requests.target import Target
from tests.unit.providers.answer_reading import between, body, chunk, of_type, read, request


def test_padding_is_declined_and_the_bound_has_its_new_name() -> None:
    sent = body("openai", max_tokens=5)
    assert sent["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert sent["max_completion_tokens"] == 5
    assert "max_tokens" not in sent
    assert body("openai:completions", max_tokens=5)["max_tokens"] == 5


def test_reasoning_of_earlier_turns_is_not_sent_back() -> None:
    parts = [{"type": "reasoning", "text": "hm", "signature": "s"}, {"type": "text", "text": "Hi"}]
    assert body("openai", messages=[{"role": "assistant", "content": parts}])["messages"] == [
        {"role": "assistant", "content": "Hi"}
    ]


def of_thinker(provider: str, policy: Literal["error", "drop"] = "error", **fields: Any) -> tuple[Any, Changes]:
    target = Target("gpt-5.6-luna", "k", policy)
    sent = get_provider(provider).build_request(parse_request(json.dumps({"query": "Hi", **fields}).encode()), target)
    return json.loads(sent.body), target.changes


@pytest.mark.parametrize("provider", ["openai", "azure"])
def test_a_model_that_the_chat_api_refuses_if_it_thinks_beside_functions_is_asked_not_to(provider: str) -> None:
    """It thinks without an effort, too (github.com/BerriAI/litellm/pull/34569)."""
    tools = [{"name": "f", "parameters": {"type": "object"}}]
    sent, changes = of_thinker(provider, tools=tools)
    assert sent["reasoning_effort"] == "none"
    assert changes.adjusted == {"reasoning.effort": "none"}
    sent, changes = of_thinker(provider, tools=tools, reasoning={"effort": "none"})
    assert (sent["reasoning_effort"], changes.adjusted) == ("none", {})
    with pytest.raises(Unsupported, match=f"reasoning.effort.*{provider}:responses"):
        of_thinker(provider, tools=tools, reasoning={"effort": "high"})
    sent, changes = of_thinker(provider, "drop", tools=tools, reasoning={"effort": "high"})
    assert (sent["reasoning_effort"], changes.dropped) == ("none", ["reasoning.effort"])
    assert of_thinker(provider, reasoning={"effort": "high"})[0]["reasoning_effort"] == "high"
    assert "reasoning_effort" not in of_thinker(provider)[0]
    assert "reasoning_effort" not in body(provider, tools=tools)
    with_both, _ = of_thinker(f"{provider}:responses", tools=tools, reasoning={"effort": "high"})
    assert with_both["reasoning"]["effort"] == "high"


def test_an_answer_by_a_schema() -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    wanted = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    assert body("openai", response_format=wanted)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "strict": True, "schema": schema},
    }
    unnamed = body("openai", response_format={"type": "json_schema", "schema": {}})["response_format"]
    assert unnamed["json_schema"] == {"name": "answer", "schema": {}}


def test_what_moderation_flagged_is_reported() -> None:
    flagged = {"categories": {"violence": True, "hate": False}, "category_scores": {"violence": 0.9, "hate": 0.1}}
    results = {"type": "moderation_results", "results": [flagged]}
    failed = {"type": "error", "code": "x", "message": "m"}
    events = read("openai", chunk(finish="stop"), {"choices": [], "moderation": {"input": results, "output": failed}})
    assert between(events) == [
        {"type": "safety", "safety": {"category": "violence", "action": "flagged", "score": 0.9}}
    ]


@pytest.mark.parametrize("score", [None, "high", True, {"value": 1}, [0.9]])
def test_a_moderation_score_that_is_no_number_is_left_out(score: object) -> None:
    flagged = {"categories": {"violence": True}, "category_scores": {"violence": score}}
    events = read("openai", chunk(finish="stop"), {"choices": [], "moderation": {"output": {"results": [flagged]}}})
    assert between(events) == [{"type": "safety", "safety": {"category": "violence", "action": "flagged"}}]


def test_padding_says_nothing() -> None:
    one = chunk({"content": "a"}, obfuscation="xyz")
    assert between(read("openai", one)) == [{"type": "text.delta", "text": "a"}]


def test_several_choices_each_have_an_answer() -> None:
    events = read("openai", chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk(finish="stop"))
    assert of_type(events, "text.delta")[1] == {"type": "text.delta", "text": "b", "choice": 1}


@pytest.mark.parametrize(
    ("code", "expected", "temporary"),
    [
        ("rate_limit_exceeded", "rate_limited", True),
        ("insufficient_quota", "rate_limited", False),
        ("context_length_exceeded", "context_length_exceeded", False),
        ("string_above_max_length", "invalid_request", False),
        ("model_not_found", "not_found", False),
    ],
)
def test_its_codes_say_more_than_their_type(code: str, expected: str, temporary: bool) -> None:
    with pytest.raises(Error) as failed:
        read("openai", {"error": {"message": "m", "type": "invalid_request_error", "param": None, "code": code}})
    assert (failed.value.code, failed.value.temporary, failed.value.reason) == (expected, temporary, code)


def test_the_path_is_relative_to_the_version() -> None:
    assert request("openai").path == "/chat/completions"


def test_a_call_of_a_function_stays_one_whatever_its_arguments_are() -> None:
    broken = {"type": "tool_call", "call_id": "a", "name": "f", "input": '{"city":'}
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": [broken, {**broken, "call_id": "b", "name": "g"}]},
        {"role": "tool", "call_id": "a", "content": "no JSON"},
        {"role": "tool", "call_id": "b", "content": "ok"},
    ]
    sent = body("openai", messages=messages, tools=[{"name": "f"}, {"type": "custom", "name": "g"}])
    assert sent["messages"][1]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"city":'}},
        {"id": "b", "type": "custom", "custom": {"name": "g", "input": '{"city":'}},
    ]
