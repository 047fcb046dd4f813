"""`model/guard_rules.py`: which guards hold for a request, and at an upstream."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.model.guard_rules import GuardRules, Names
from gai_fast.model.settings import GuardSettings, ModelSettings, Settings, TargetSettings, UpstreamSettings

OPENAI = UpstreamSettings("openai", "openai", "https://api.openai.com/v1")
LOCAL = UpstreamSettings("local", "ollama", "http://127.0.0.1:11434/v1")


def guard(name: str, **values: Any) -> GuardSettings:
    return GuardSettings(name, "pii", **values)


def rules(*guards: GuardSettings) -> GuardRules:
    models = [
        ModelSettings("fast", OPENAI, "gpt"),
        ModelSettings("own", LOCAL, "llama", fallback=("fast",)),
        ModelSettings("spread", LOCAL, "a", targets=(TargetSettings(LOCAL, "a"), TargetSettings(OPENAI, "b"))),
    ]
    upstreams = {each.name: each for each in (OPENAI, LOCAL)}
    return GuardRules(Settings(guards=guards, upstreams=upstreams, models={each.name: each for each in models}))


def names(guards: tuple[GuardSettings, ...]) -> list[str]:
    return [each.name for each in guards]


def test_guards_hold_by_model_and_caller_in_the_order_of_the_file() -> None:
    found = rules(
        guard("all"),
        guard("of-fast", models=("fast",)),
        guard("of-web", keys=("web-*", "shop")),
        guard("both", models=("openai/*", "f?st"), keys=("*",)),
    )
    assert names(found.guards_for("fast", "web-1")) == ["all", "of-fast", "of-web", "both"]
    assert names(found.guards_for("fast", "anonymous")) == ["all", "of-fast", "both"]
    assert names(found.guards_for("openai/gpt", "shop")) == ["all", "of-fast", "of-web", "both"]
    assert names(found.guards_for("Fast", "staff:a@b")) == ["all"]


def test_the_other_name_of_a_guarded_model_is_no_way_past_its_guards() -> None:
    found = rules(guard("g", models=("fast", "spread")))
    assert [
        bool(found.guards_for(name, "anonymous"))
        for name in ("openai/gpt", "local/a", "openai/b", "openai/a", "local/llama", "own")
    ] == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("models", "upstreams"),
    [
        (("*",), {"openai", "local"}),
        (("fast",), {"openai"}),
        (("own",), {"local"}),  # its fallback has its own name, by which it may be asked unguarded
        (("spread",), {"openai", "local"}),
        (("openai/gpt",), {"openai"}),
        (("openai/",), set()),
        (("openai",), set()),
        (("local/[a-f]*",), {"local"}),
        (("*/gpt*",), {"openai", "local"}),
        (("o*",), {"openai", "local"}),  # `own` is a model of local
        (("none",), set()),
    ],
)
def test_guards_hold_at_the_upstreams_of_guarded_models(models: tuple[str, ...], upstreams: set[str]) -> None:
    found = rules(guard("one", models=models, keys=("web",)))
    assert {name for name in ("openai", "local") if found.guards_at(name, "web")} == upstreams
    assert not any(found.guards_at(name, "shop") for name in ("openai", "local"))


_LETTERS = st.text("ab/", max_size=4)
_PATTERNS = st.text("ab/*?[]!", min_size=1, max_size=5)


@given(patterns=st.lists(_PATTERNS, min_size=1, max_size=3), name=_LETTERS)
def test_names_are_those_that_fnmatch_finds(patterns: list[str], name: str) -> None:
    expected = any(fnmatchcase(name, each) for each in patterns) or name in patterns
    assert (name in Names(patterns)) is expected


@given(pattern=_PATTERNS, beginning=st.text("ab", max_size=2), end=st.text("ab/", min_size=1, max_size=3))
def test_a_name_that_is_found_is_below_each_of_its_beginnings(pattern: str, beginning: str, end: str) -> None:
    if fnmatchcase(f"{beginning}/{end}", pattern):
        assert Names([pattern]).has_below(f"{beginning}/")
