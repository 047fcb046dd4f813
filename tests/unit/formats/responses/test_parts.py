"""The `response` object, outcomes, errors, and the form of opaque reasoning."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import Response

from gai_fast.core.requests.signatures import open_signature
from gai_fast.core.requests.stored_ids import own_response_id
from gai_fast.formats._signatures import author_of
from gai_fast.formats.responses.parts import (
    DIALECT,
    ECHOED,
    ResponseObject,
    custom_tools,
    error_members,
    failure_of,
    flat_name,
    namespaced,
    outcome_of,
    sealed,
    usage_of,
)
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from tests.unit.formats.streams import CREATED, STREAM_ID, context, finish


def test_a_response_has_every_member_that_the_sdk_requires() -> None:
    made = ResponseObject(context()).at("in_progress")
    Response.model_validate(made)
    assert (made["id"], made["created_at"], made["model"]) == (own_response_id(STREAM_ID), CREATED, "asked-model")
    assert made.keys() >= ECHOED


def test_sampling_members_are_numbers_in_any_case() -> None:
    """The Open Responses specification requires them; `null` fails its compliance suite."""
    made = ResponseObject(context()).at("in_progress")
    members = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
    assert [made[name] for name in members] == [1, 1, 0, 0]


def test_a_response_repeats_the_request() -> None:
    echo: dict[str, Any] = {
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "tools": [{"type": "function", "name": "f"}, 1],
        "top_p": None,
        "truncation": "auto",
    }
    made = ResponseObject(context(echo=echo)).at("queued")
    assert (made["metadata"], made["temperature"], made["truncation"]) == ({"a": "b"}, 0.5, "auto")
    assert made["tools"] == [
        {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None},
        1,
    ]
    assert ResponseObject(context(echo={"tools": 5})).at("queued")["tools"] == []


def test_only_tools_that_take_text_are_custom() -> None:
    tools = [{"type": "custom", "name": "a"}, {"type": "function", "name": "b"}, "c", {"type": "custom"}]
    assert custom_tools({"tools": tools}) == {"a", "None"}
    assert custom_tools({"tools": "x"}) == custom_tools({}) == frozenset()
    assert custom_tools({"tools": [{"type": "namespace", "name": "n", "tools": [*tools, 1]}]}) == {"n__a", "n__None"}


def test_calls_of_tools_in_namespaces_have_the_bare_name_only_if_it_is_of_one_tool() -> None:
    def group(name: str, *names: str) -> dict[str, Any]:
        return {"type": "namespace", "name": name, "tools": [{"type": "function", "name": each} for each in names]}

    tools = [group("a__", "x", "y", "z"), group("b", "y"), {"type": "function", "name": "z"}, 1]
    assert namespaced({"tools": tools}) == {
        "x": ("a__", "x"),
        "a__x": ("a__", "x"),
        "a__y": ("a__", "y"),
        "a__z": ("a__", "z"),
        "b__y": ("b", "y"),
    }
    assert namespaced({"tools": [{"type": "namespace", "name": "a", "tools": 1}]}) == namespaced({}) == {}
    assert [flat_name("a", "x"), flat_name("a__", "x"), flat_name("functions", "x")] == ["a__x", "a__x", "x"]


@pytest.mark.parametrize("reason", ["pause", "other"])
def test_reasons_that_the_dialect_does_not_have_stand_beside(reason: str) -> None:
    outcome = outcome_of(finish(reason, continued="verified"))
    assert (outcome.event, outcome.status) == ("response.completed", "completed")
    assert outcome.x_gai == {"finish_reason": reason, "continued": "verified"}


def test_usage_in_full() -> None:
    usage = {
        "input_tokens": 10,
        "output_tokens": 20,
        "total_tokens": 30,
        "cached_input_tokens": 4,
        "cache_write_input_tokens": 3,
        "reasoning_tokens": 5,
        "source": "estimated",
    }
    counts, x_gai = usage_of(usage)
    assert counts == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 30,
    }
    assert x_gai == {"usage_source": "estimated"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Error("rate_limited", "slow"), "rate_limit_exceeded"),
        (Error("content_filtered", "slow"), "invalid_prompt"),
        (Error("network", "slow"), "server_error"),
        (Error("network", "gone", details={"code": "vector_store_timeout", "message": "slow"}), "vector_store_timeout"),
        (Error("network", "gone", details={"message": "slow"}), "server_error"),
        (Error("rate_limited", "gone", details={"code": 429, "message": "slow"}), "rate_limit_exceeded"),
    ],
)
def test_a_failure_has_a_code_of_the_dialect(error: Error, code: str) -> None:
    assert failure_of(error) == {"code": code, "message": "slow"}
    result = error_members(error)
    assert result["message"] == "slow"
    assert result["code"] is None or isinstance(result["code"], str)


@pytest.mark.parametrize(
    ("provider", "event"),
    [
        ("openai", {}),
        ("anthropic", {}),
        ("anthropic", {"redacted": True}),
        ("gemini", {"call_id": "c"}),
    ],
)
def test_what_is_sealed_can_be_opened(provider: str, event: Any) -> None:
    signature: Event = {"type": "reasoning.signature", "signature": 'a"b', **event}
    assert open_signature(sealed(signature, provider), "$", author_of(DIALECT)) == {
        "provider": provider,
        "signature": 'a"b',
        **event,
    }
