"""Names of tools that an API refuses, in requests and in answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.request import Request
from gai_fast.providers import Target, get_provider
from gai_fast.providers.requests.tool_names import OPENAI_NAMES, RenamingAdapter, ToolNames
from tests.unit.providers.answer_reading import call, chunk

LONG = "mcp__" + "long" * 30
NAMES = ("weather", "git.search", LONG, "3rd")


def asked(*names: str, **more: Any) -> Request:
    called = [{"type": "tool_call", "call_id": f"c{at}", "name": name} for at, name in enumerate(names)]
    results = [{"role": "tool", "call_id": f"c{at}", "content": "yes"} for at in range(len(names))]
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": called}, *results]
    tools = [{"name": name} for name in names]
    return parse_request(json.dumps({"messages": messages, "tools": tools, "query": "So?", **more}).encode())


def sent(provider: str, request: Request, target: Target) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(get_provider(provider).build_request(request, target).body)
    return body


@pytest.mark.parametrize("name", NAMES)
def test_a_fitted_name_is_one_that_the_api_accepts_and_depends_on_the_name_alone(name: str) -> None:
    for rule in (OPENAI_NAMES, ToolNames("[a-z_][a-z0-9_]*", 20)):
        fitted = rule.fitted(name)
        assert rule.fits(fitted)
        assert fitted == rule.fitted(name)
    assert len({OPENAI_NAMES.fitted(each) for each in ("a.b", "a:b", "a b", LONG, f"{LONG}x")}) == 5
    assert OPENAI_NAMES.fits(OPENAI_NAMES.fitted(""))
    assert not OPENAI_NAMES.fits("weather\n")


@pytest.mark.parametrize("provider", ["openai", "openai:responses", "anthropic", "cohere", "mistral"])
def test_tools_calls_and_the_choice_get_the_same_name(provider: str) -> None:
    target = Target("m")
    choice = {} if provider == "cohere" else {"tool_choice": {"name": "git.search"}}
    body = json.dumps(sent(provider, asked(*NAMES, **choice), target))
    assert "git.search" not in body
    fitted = OPENAI_NAMES.fitted("git.search")
    assert body.count(f'"{fitted}"') == 2 + len(choice)
    assert target.changes.adjusted["tools[1].name"] == fitted
    assert target.changes.adjusted["messages[1].content[1].name"] == fitted
    assert target.changes.adjusted.get("tool_choice.name", fitted) == fitted
    assert "tools[0].name" not in target.changes.adjusted


def test_each_api_has_its_own_rule() -> None:
    longer = "a" * 128
    assert [tool["name"] for tool in sent("anthropic", asked(longer), Target("m"))["tools"]] == [longer]
    declared = sent("gemini", asked("a.b:c-d", longer, "3rd"), Target("m"))["tools"][0]["functionDeclarations"]
    assert declared[0]["name"] == "a.b:c-d"
    assert [len(each["name"]) for each in declared] == [7, 64, 13]
    assert sent("ollama", asked("a.b c"), Target("m"))["tools"][0]["function"]["name"] == "a.b c"


def test_names_that_fit_change_nothing() -> None:
    target = Target("m")
    assert sent("openai", asked("weather"), target)["tools"][0]["function"]["name"] == "weather"
    assert not target.changes
    api = get_provider("openai")
    # By its type: compiled subclasses of an ABC share what `isinstance` remembers of their base.
    assert type(api.adapter_for(asked("weather"), "m")) is not RenamingAdapter
    assert type(api.adapter_for({"tools": [{"function": {"name": LONG}}]}, "m")) is not RenamingAdapter


def test_an_answer_has_the_names_of_the_client() -> None:
    adapter = get_provider("openai").adapter_for(asked(*NAMES), "m")
    names = (OPENAI_NAMES.fitted(LONG), "weather", "unknown")
    chunks = [chunk(call("{}", name=name, index=at, id=f"c{at}")) for at, name in enumerate(names)]
    events = [event for one in chunks for event in adapter.receive("", json.dumps(one))]
    events += adapter.receive("", json.dumps(chunk(finish="tool_calls"))) + adapter.receive("", "[DONE]")
    events += adapter.finish()
    for kind in ("tool.call.start", "tool.call"):
        found = [event["tool_call"]["name"] for event in events if event["type"] == kind]
        assert found == [LONG, "weather", "unknown"]
    assert [event["type"] for event in events][-1] == "finish"


def test_a_whole_answer_has_them_too() -> None:
    function = {"name": OPENAI_NAMES.fitted(LONG), "arguments": "{}"}
    message = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    answer = {"id": "a", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    adapter = get_provider("openai").adapter_for(asked(LONG), "m")
    events = adapter.receive_whole(answer) + adapter.finish()
    assert [event["tool_call"]["name"] for event in events if event["type"] == "tool.call"] == [LONG]
