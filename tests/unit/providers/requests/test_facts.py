"""What models take: the rows of `models.toml`, and which row an id has."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, Final

import pytest

from gai_fast.providers import PROVIDERS, get_provider
from gai_fast.providers.requests.facts import (
    NOTHING,
    SCALE,
    Facts,
    checked_facts,
    corrected,
    facts_of,
    nearest_effort,
    pattern_of,
    usual_ids,
)
from tools.model_facts import ROWS, USUAL

PATTERNS = [(provider, pattern) for provider, rows in ROWS.items() for pattern in rows]

RECORDED: Final[dict[str, tuple[int, dict[str, Any]]]] = {
    "claude-haiku-4-5-20251001": (64_000, {"effort": (), "thinking": ("enabled",)}),
    "claude-sonnet-4-6": (128_000, {"effort": ("low", "medium", "high", "max"), "thinking": ("adaptive", "enabled")}),
    "claude-opus-4-8": (128_000, {"effort": ("low", "medium", "high", "xhigh", "max"), "thinking": ("adaptive",)}),
}
"""`max_tokens` of `GET /v1/models/{id}` and what of `capabilities` is supported there, of 2026-06-16. All three
read images and have structured outputs. The answers of that day did not say whether thinking can be turned off."""


@pytest.mark.parametrize(("provider", "pattern"), PATTERNS)
def test_each_pattern_is_reached_and_none_shadows_another(provider: str, pattern: str) -> None:
    assert pattern_of(provider, pattern.replace("*", "")) == pattern
    if pattern.endswith("*"):
        assert pattern_of(provider, f"{pattern.replace('*', '')}-20991231") == pattern
    assert facts_of(provider, pattern.replace("*", "")) is not NOTHING


def test_the_file_has_the_rows_of_the_tool() -> None:
    # The file of the package that is tested: an installed wheel has it where no sources are.
    text = files("gai_fast.providers").joinpath("models.toml").read_text("utf-8")
    headers = [line for line in text.splitlines() if line.startswith("[")]
    assert headers == ["[usual]"] + [f"[{provider}.{json.dumps(pattern)}]" for provider, pattern in PATTERNS]
    assert {provider for provider, _ in PATTERNS} <= {*PROVIDERS}


def test_the_file_has_the_usual_ids_of_the_tool() -> None:
    assert {provider: usual_ids(provider) for provider in USUAL} == USUAL
    assert {each for each in PROVIDERS if get_provider(each).key_variable and get_provider(each).base_url} == {*USUAL}


@pytest.mark.parametrize(
    ("model", "pattern"),
    [
        ("claude-opus-4-20250514", "*claude-opus-4*"),
        ("us.anthropic.claude-opus-4-6-v1:0", "*claude-opus-4-6*"),
        ("claude-opus-4-6@20260205", "*claude-opus-4-6*"),
        ("claude-opus-9", "*claude-opus*"),
        ("claude-nova-1", "*claude*"),
        ("gpt-4o", None),
    ],
)
def test_an_unknown_id_has_the_facts_of_its_family(model: str, pattern: str | None) -> None:
    assert pattern_of("anthropic", model) == pattern


def test_nothing_is_known_of_other_models_and_providers() -> None:
    assert facts_of("openai-compatible", "claude-opus-5") is NOTHING
    assert facts_of("groq", "whisper") is NOTHING
    assert Facts() == NOTHING
    assert not NOTHING.always_thinks
    assert not NOTHING.never_thinks
    assert facts_of("azure", "gpt-5-mini") == facts_of("openai", "gpt-5-mini") != NOTHING


@pytest.mark.parametrize("model", RECORDED)
def test_claudes_rows_are_what_its_models_api_answered(model: str) -> None:
    most, able = RECORDED[model]
    known = facts_of("anthropic", model)
    assert (known.max_output, known.images, known.schema) == (most, True, True)
    assert known.efforts == able["effort"]
    assert known.thinking is not None
    ways = {"adaptive": "adaptive", "budget": "enabled"}
    assert tuple(ways[way] for way in known.thinking if way in ways) == able["thinking"]


class TestEfforts:
    @pytest.mark.parametrize(
        ("efforts", "wanted", "nearest"),
        [
            (("low", "medium", "high"), "medium", "medium"),
            (("low", "medium", "high"), "minimal", "low"),
            (("low", "medium", "high"), "max", "high"),
            (("low", "medium", "high"), "none", "low"),
            (("none", "high"), "low", "high"),
            (("none", "high"), "none", "none"),
            (("low", "high"), "medium", "high"),
            (("none", "default"), "low", "default"),
            ((), "high", None),
        ],
    )
    def test_an_effort_becomes_the_nearest_word(
        self, efforts: tuple[str, ...], wanted: str, nearest: str | None
    ) -> None:
        assert nearest_effort(efforts, wanted) == nearest

    @pytest.mark.parametrize(("provider", "pattern"), PATTERNS)
    def test_a_models_words_go_from_the_least_on(self, provider: str, pattern: str) -> None:
        words = [word for word in facts_of(provider, pattern.replace("*", "")).efforts or () if word in SCALE]
        assert words == sorted(words, key=SCALE.index)


class TestCorrections:
    def test_a_configuration_corrects_what_is_known(self) -> None:
        fixed = corrected(facts_of("anthropic", "claude-opus-5"), checked_facts({"max_output": 9, "efforts": []}))
        assert (fixed.max_output, fixed.efforts, fixed.images) == (9, (), True)

    def test_whether_a_model_thinks_follows_from_what_is_corrected(self) -> None:
        silent = corrected(NOTHING, checked_facts({"thinking": ["disabled"]}))
        assert silent.never_thinks
        assert not corrected(silent, checked_facts({"thinking": ["adaptive"]})).never_thinks
        with pytest.raises(ValueError, match="must have facts; known: "):
            checked_facts({"never_thinks": True})

    @pytest.mark.parametrize(
        ("table", "problem"),
        [
            ([], "must be a table with some of max_output, thinking"),
            ({"max_output": 0}, "whole number for max_output, 1 to 100000000"),
            ({"max_output": True}, "whole number for max_output"),
            ({"least_budget": 1.5}, "whole number for least_budget"),
            ({"thinking": "adaptive"}, "a list for thinking, of disabled, between_tools, adaptive, budget, level"),
            ({"thinking": ["adaptive", "adaptive"]}, "each at most once"),
            ({"efforts": [["low"]]}, "a list for efforts"),
            ({"sampling": True}, "both or one or none for sampling"),
            ({"images": 1}, "true or false for images"),
            ({"secret": "x"}, "must have facts; known: max_output"),
        ],
    )
    def test_a_mistake_is_named_and_no_value_repeated(self, table: Any, problem: str) -> None:
        with pytest.raises(ValueError, match="must") as found:
            checked_facts(table)
        assert problem in str(found.value)
