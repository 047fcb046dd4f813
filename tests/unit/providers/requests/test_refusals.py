"""Members that an upstream refuses by name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import Error
from gai_fast.providers import Target, get_provider
from gai_fast.providers.requests.limits import LIMITS
from gai_fast.providers.requests.refusals import (
    added_to,
    dispensable,
    has_path,
    is_lacking,
    may_name_a_member,
    named_member,
    unquoted_member,
)


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
    assert named_member(refusal("body.seed: Extra inputs are not permitted"), ["seed"]) == "seed"
    assert named_member(refusal(": ''"), [""]) is None


def test_a_member_that_is_named_by_a_callers_text_alone_is_not_meant() -> None:
    paths = ["thinkingConfig", "stream_options", "seed"]
    tools = [{"name": "f", "parameters": {"type": "object", "properties": {"a": {"const": "stream_options"}}}}]
    native = parse_request(orjson.dumps({"query": "q", "tools": tools, "extra": {"x": ["is thinking_config, or"]}}))
    bodies: tuple[Any, ...] = (native, {"a": {"b": ["stream_options"]}, "stream_options": 1, "c": "is thinking_config"})
    for body in bodies:
        both = refusal("wrong: 'stream_options' or 'is thinking_conf'")
        assert unquoted_member(both, paths, body) is None
        assert unquoted_member(refusal("wrong: 'is thinking_config...'"), paths, body) is None
        assert unquoted_member(refusal("wrong: 'seed'"), paths, body) == "seed"
    named = {"Unknown parameter: 'seed'": 1, "seed": 2}
    prefixed = {"max_tokens_x": 1, "max_tokens": 2}
    assert unquoted_member(refusal("unknown: max_tokens"), ["max_tokens"], prefixed) == "max_tokens"
    assert unquoted_member(refusal("Unknown argument: \"Unknown parameter: 'seed'\""), paths, named) is None


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("Unknown parameter: 'stream_options'.", "stream_options"),
        ("Unrecognized request argument supplied: stream_options", "stream_options"),
        ("Unsupported parameter: 'seed' is not supported with this model.", "seed"),
        ("property 'seed' is unsupported, did you mean 'speed'?", "seed"),
        ("seed: Extra inputs are not permitted", "seed"),
        ("body.seed: Extra inputs are not permitted", "seed"),
        ("`temperature` is deprecated for this model.", "temperature"),
        ("This model does not support the effort parameter.", "output_config.effort"),
        ("Model grok-3 does not support parameter reasoningEffort.", "reasoning_effort"),
        ("Argument not supported on this model: presencePenalty", "presencePenalty"),
        (
            "Unknown name \"thinkingConfig\" at 'generation_config': Cannot find field.",
            "generationConfig.thinkingConfig",
        ),
        ("#: extraneous key [seed] is not permitted", "seed"),
        ("Failed to deserialize the JSON body into the target type: unknown field `seed`, expected `n`", "seed"),
        ("reasoning_effort is not supported", "reasoning_effort"),
    ],
)
def test_a_member_as_such_is_refused(text: str, path: str) -> None:
    name = path.replace("reasoning_effort", "reasoningEffort") if "grok" in text else path
    assert is_lacking(refusal(text), name)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("Unsupported value: 'temperature' does not support 0.5 with this model.", "temperature"),
        ("Invalid schema for response_format 'a': In context=(), 'minLength' is not permitted.", "response_format"),
        ("Invalid value for 'stream_options': expected an object.", "stream_options"),
        ("Unknown parameter: 'stream_options.odd'.", "stream_options"),
        ("Unknown parameter: 'tools[0].odd'.", "tools"),
        ("`response_format` is not supported with tools", "response_format"),
        ("'seed' is not supported if n > 1", "seed"),
        ("`temperature` and `top_p` cannot both be specified for this model", "temperature"),
        ("output_config.effort: Input should be 'low' or 'high'", "output_config.effort"),
        ("Invalid parameter: 'response_format' of type 'json_schema' is not supported", "response_format"),
    ],
)
def test_a_value_or_a_combination_is_refused_and_no_member(text: str, path: str) -> None:
    assert not is_lacking(refusal(text), path)


def test_a_code_says_that_a_member_as_such_is_refused() -> None:
    assert is_lacking(refusal("no", param="seed", code="unknown_parameter"), "seed")
    assert not is_lacking(refusal("no", param="seed", code="unsupported_value"), "seed")
    assert not is_lacking(refusal("no", param="other", code="unknown_parameter"), "seed")


class Counted(str):
    """A string that counts how often it is searched."""

    searches = 0

    def find(self, *given: Any) -> int:
        Counted.searches += 1
        return super().find(*given)


@pytest.mark.parametrize("shape", ["wide", "deep", "named", "long"])
def test_the_work_for_a_refusal_grows_with_the_request_and_no_faster(shape: str) -> None:
    """Each of 1,000 odd members was looked for in each text of the request: seconds of the loop for one 400."""

    def searches(count: int) -> tuple[int, int]:
        odd: dict[str, Any] = {f"odd_{number}": 1 for number in range(count)}
        if shape == "deep":
            odd = {}
            for _ in range(count):
                odd = {"odd_member": odd}
        if shape == "long":  # a path repeats the names before its own
            odd = {"o" * 4 * count: odd}
        names = " ".join(f"'odd_{number}'" for number in range(count)) if shape == "named" else "'other_member'"
        texts: list[str] = [Counted(f"text odd_{number} " * 10) for number in range(count)]
        sent = {"stream_options": odd, "messages": texts}
        Counted.searches = 0
        paths = dispensable(sent, ["stream_options"])
        unquoted_member(refusal(f"wrong: {names}"), paths, sent)
        return Counted.searches, sum(map(len, paths))

    small, large = searches(1000), searches(2000)
    assert all(more <= 2.3 * less + 2.3 for less, more in zip(small, large, strict=True))
    assert large[0] <= 2 * 2000 * LIMITS.named_checked


def test_a_path_is_found_whatever_its_names_and_values_are() -> None:
    body = {"a": {"b.c": 1, "d": None}, "a.b": {"e": 1}}
    assert all(has_path(body, path) for path in ("a", "a.b.c", "a.d", "a.b", "a.b.e"))
    assert not any(has_path(body, path) for path in ("b", "a.c", "a.b.d", "a.d.e", ""))


@pytest.mark.parametrize("member", [{"odd_one": 1}, {"odd_one": None}, {"one.one": 1}, {"one.one": None}])
def test_a_member_that_a_client_wrote_is_not_the_gateways_own(member: dict[str, Any]) -> None:
    """What is learned of the gateway's own members counts for all callers."""
    api, target, name = get_provider("openai"), Target("gpt-4o", "k", "drop"), next(iter(member))
    body = {"model": "m", "messages": [], "stream_options": member}
    found = api.refused_member(body, target, refusal(f"Unknown parameter: 'stream_options.{name}'."))
    assert found == (f"stream_options.{name}", True, False)
    native = parse_request(orjson.dumps({"query": "a", "provider_options": {"openai": member}}))
    found = api.refused_member(native, target, refusal(f"Unknown parameter: '{name}'."))
    assert found is None or found == (name, True, False)


def test_what_every_request_is_sent_with_is_the_gateways_own() -> None:
    native = parse_request(b'{"query":"a"}')
    error = refusal("Unknown parameter: 'stream_options.include_usage'.")
    found = get_provider("openai").refused_member(native, Target("gpt-4o", "k", "drop"), error)
    assert found == ("stream_options.include_usage", True, True)
