"""`cli/checks/guards.py`: what is said of guards: what they hold, which routes they close, which never hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gai_fast.cli.checks.guards import closed, guard_warnings, held
from gai_fast.model.settings import (
    GuardSettings,
    IssuerSettings,
    JudgeSettings,
    KeySettings,
    ModelSettings,
    Settings,
    UpstreamSettings,
)

OPENAI = UpstreamSettings(
    "openai", "openai", "https://api.openai.com/v1", pass_paths=("/v1/embeddings", "/v1/audio/*", "GET /v1/rerank")
)
LOCAL = UpstreamSettings("local", "ollama", "http://127.0.0.1:11434/v1")
MODELS = {"fast": ModelSettings("fast", OPENAI, "gpt"), "own": ModelSettings("own", LOCAL, "llama")}
ALICE = KeySettings("alice", ())


def settings(*guards: GuardSettings, **more: Any) -> Settings:
    return Settings(guards=guards, upstreams={"openai": OPENAI, "local": LOCAL}, models=MODELS, **more)


def guard(name: str = "g", use: Any = "pii", **values: Any) -> GuardSettings:
    return GuardSettings(name, use, **values)


def test_a_line_says_what_a_guard_holds() -> None:
    lines = [
        each.line
        for each in held(
            settings(
                guard("people"),
                guard("back", restore=True, models=("fast",)),
                guard("names", "words", on=("output",), action="stop", models=("own", "open*"), keys=("web-*", "b")),
                guard("none", models=("fats",)),
                guard("calls", on=("output", "tool_input", "tool_result"), models=("fast",)),
            )
        )
    ]
    assert lines == [
        "guard people: pii, mask on input and output; models fast, own, openai/<id>, local/<id>; every caller",
        "guard back: pii, mask and restore on input and output; models fast; every caller",
        "guard names: words, stop on output; models own, openai/<id>; callers web-*, b",
        "guard none: pii, mask on input and output; no model; every caller",
        "guard calls: pii, mask on output, tool_input and tool_result; models fast; every caller",
    ]


def test_many_names_are_counted() -> None:
    many = {f"m{number}": ModelSettings(f"m{number}", LOCAL, "x") for number in range(15)}
    [found] = held(Settings(guards=(guard(),), models=many))
    assert "; models m0, m1, m2, m3, m4, m5, m6, m7, m8, m9 and 5 more; " in found.line
    assert len(found.models) == 15


def test_where_no_guard_can_look_is_closed() -> None:
    assert [each.line for each in closed(settings(guard("a"), guard("b", models=("fast",), on=("output",))))] == [
        "closed: format=raw of fast, own, openai/<id>, local/<id>, by a, b",
        "closed: /v1/responses/compact of fast, own, openai/<id>, local/<id>, by a, b",
        "closed: prompts of token ids of fast, own, openai/<id>, local/<id>, by a",
        "closed: /v1/embeddings of fast, openai/<id>, by a",
        "closed: /v1/audio/speech of fast, openai/<id>, by a",
        "closed: /p/openai/…, by a, b",
        "closed: /v1/audio/transcriptions at openai, by a, b",
        "closed: /v1/audio/translations at openai, by a, b",
    ]
    assert [each.route for each in closed(settings(guard(on=("output",), models=("own",))))] == [
        "format=raw",
        "/v1/responses/compact",
    ]
    assert closed(settings()) == closed(settings(guard(models=("fats",)))) == []


@pytest.mark.parametrize(
    ("keys", "more", "warns"),
    [
        (("*",), {}, False),
        (("anonymous",), {}, False),
        (("alice",), {}, True),
        (("anonymous",), {"keys": (ALICE,)}, True),
        (("ali*",), {"keys": (ALICE,)}, False),
        (("bob",), {"keys": (ALICE, KeySettings("root", (), role="admin"))}, False),
        (("staff:*",), {"keys": (ALICE,), "issuers": (IssuerSettings("staff", "u", "a", ALICE),)}, False),
        (("staff",), {"keys": (ALICE,), "issuers": (IssuerSettings("staff", "u", "a", ALICE),)}, True),
    ],
)
def test_a_guard_without_a_caller_never_holds(keys: tuple[str, ...], more: dict[str, Any], warns: bool) -> None:
    found = guard_warnings(settings(guard(keys=keys), **more))
    assert bool(found) is warns
    for each in found:
        assert each.startswith("guard g: never holds: `keys` has no caller that there is: ")


def test_a_guard_without_a_model_never_holds() -> None:
    assert guard_warnings(settings(guard(models=("fats", "none/*")))) == [
        "guard g: never holds: `models` has no model that there is: fast, own, openai/<id>, local/<id>"
    ]
    assert guard_warnings(settings(guard(models=("local/x",)))) == []


def test_a_guard_of_calls_needs_a_model_with_tools_and_closes_nothing() -> None:
    calls = settings(guard(on=("tool_input", "tool_result")))
    text = "guard g: tool_input and tool_result in `on` has no effect: its models use no tools of the gateway"
    assert guard_warnings(calls) == [text]
    assert closed(calls) == []
    models = {**MODELS, "own": replace(MODELS["own"], tools=("*",))}
    assert guard_warnings(replace(calls, models=models)) == []


def test_a_key_without_effect_is_named() -> None:
    judge = JudgeSettings(url="https://a.example", max_exposure=200)
    assert guard_warnings(settings(guard(use="http", action="stop", judge=judge))) == []
    assert guard_warnings(settings(guard(use="http", action="flag", judge=judge))) == [
        "guard g: `max_exposure` has no effect: its flags wait for nothing"
    ]
    assert guard_warnings(settings(guard(use="http", action="stop", on=("input",), judge=judge))) == [
        "guard g: `max_exposure` has no effect: it sees no answers"
    ]
