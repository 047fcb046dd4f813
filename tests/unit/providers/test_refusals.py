"""Members that an upstream refuses by name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gai_fast.core.reading import parse_request
from gai_fast.model.errors import Error
from gai_fast.providers._refusals import added_to, dispensable, may_name_a_member, named_member, not_quoted


def refusal(text: str, **details: Any) -> Error:
    return Error("invalid_request", text, provider="openai", details=details or None)


def test_a_request_can_do_without_what_was_added_but_not_without_its_texts() -> None:
    sent = {
        "model": "m",
        "messages": [],
        "tools": [],
        "max_tokens": 5,
        "seed": 1,
        "output": {"effort": "a", "b": {"c": 1}},
    }
    assert dispensable(sent, sent) == ["output.effort", "output.b.c", "output.b", "output", "seed"]
    assert dispensable(sent, ["absent"]) == []
    assert added_to({"a": 1, "stream_options": {}}, {"a": 1, "stream_options": {}, "b": 2}) == ["stream_options", "b"]


@pytest.mark.parametrize(
    ("text", "details", "path"),
    [
        ("Unknown parameter: 'seed'.", {}, "seed"),
        ("property `user` is unsupported", {}, "user"),
        ("the user did this", {}, None),
        ("bad", {"param": "seed"}, "seed"),
        ("reasoning_effort is not supported", {}, "reasoning_effort"),
        ("my_reasoning_effort is not supported", {}, None),
        ("output_config.effort: not supported", {}, "output_config.effort"),
        ("Unknown name \"thinkingConfig\" at 'generation_config'", {}, "generationConfig.thinkingConfig"),
        ("Invalid value at 'generation_config.thinking_config'", {}, "generationConfig.thinkingConfig"),
        ("output_config.auto.effort: Input should be 'low'", {}, "output_config.effort"),
        ("seed: too large", {}, "seed"),
        ("no seed: none", {}, None),
        ("nothing", {}, None),
    ],
)
def test_an_error_names_a_member(text: str, details: dict[str, Any], path: str | None) -> None:
    sent = {
        "seed": 1,
        "user": "u",
        "reasoning_effort": "low",
        "output_config": {"effort": "low"},
        "generationConfig": {"thinkingConfig": {}},
    }
    assert named_member(refusal(text, **details), dispensable(sent, sent)) == path


def test_only_an_upstreams_refusal_names_one() -> None:
    assert may_name_a_member(refusal("a"))
    assert not may_name_a_member(Error("invalid_request", "a"))
    assert not may_name_a_member(Error("overloaded", "a", provider="openai"))


def test_a_name_of_any_characters_is_looked_for_as_it_is() -> None:
    assert named_member(refusal("bad a.(b: no"), ["a.(b"]) == "a.(b"
    assert named_member(refusal("bad a.x.(b"), ["a.((b"]) is None


def test_a_member_that_is_named_by_a_callers_value_alone_is_not_meant() -> None:
    paths = ["thinkingConfig", "stream_options", "seed"]
    tools = [{"name": "f", "parameters": {"type": "object", "properties": {"a": {"const": "stream_options"}}}}]
    native = parse_request(orjson.dumps({"query": "q", "tools": tools, "extra": {"x": ["is thinking_config, or"]}}))
    bodies: tuple[Any, ...] = (native, {"a": {"b": ["stream_options"]}, "stream_options": 1, "c": "is thinking_config"})
    for body in bodies:
        assert not_quoted(paths, body, refusal("wrong: 'stream_options' or 'is thinking_conf'")) == [paths[0], "seed"]
        assert not_quoted(paths, body, refusal("wrong: 'is thinking_config...'")) == paths[1:]
        assert not_quoted(paths, body, refusal("wrong: 'seed'")) == paths
