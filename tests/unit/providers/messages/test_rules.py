"""What a provider of the Messages dialect accepts: its own reasoning, and ids of calls in its form."""

from __future__ import annotations

import json
from typing import Any

from gai_fast.formats import get_format
from gai_fast.providers import Target, get_provider
from tests.unit.providers.answer_reading import body as native

ASK: dict[str, Any] = {"role": "user", "content": "Hi"}


def sent(body: dict[str, Any]) -> Any:
    asked = get_format("anthropic").read_request({"model": "m", "max_tokens": 9, **body})
    return json.loads(
        get_provider("anthropic").build_passthrough(asked.body, Target("m1", "k"), shape=asked.shape).body
    )


def test_reasoning_that_anthropic_did_not_sign_does_not_go_to_it() -> None:
    own = {"type": "thinking", "thinking": "x", "signature": "s"}
    foreign = {"type": "thinking", "thinking": "x", "signature": 'gai:{"provider":"openai","signature":"s"}'}
    unsigned, sealed = {**own, "signature": ""}, {"type": "redacted_thinking", "data": "gai:{}"}
    nothing_else = {"role": "assistant", "content": [foreign]}
    answers = [{"role": "assistant", "content": [own, foreign, unsigned, sealed]}, nothing_else]
    assert sent({"messages": [*answers, ASK]})["messages"] == [{"role": "assistant", "content": [own]}, ASK]
    plain = [{"role": "assistant", "content": [own]}, 5, {"content": 5}, {"content": []}, {"content": [5]}]
    assert sent({"messages": plain})["messages"] == plain
    assert sent({"messages": 5})["messages"] == 5


def test_ids_of_calls_have_its_form_and_stay_together() -> None:
    for identifier, is_kept in (("functions.w:0", False), ("toolu_01-A", True), ("x" * 500, True), ("", False)):
        call = {"type": "tool_use", "id": identifier, "name": "w", "input": {}}
        result = {"type": "tool_result", "tool_use_id": identifier, "content": "4"}
        turns = [ASK, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
        asked, answered = sent({"messages": turns})["messages"][1:]
        name = asked["content"][0]["id"]
        assert (answered["content"][0]["tool_use_id"], name == identifier, bool(name)) == (name, is_kept, True)
        part = {"type": "tool_call", "call_id": identifier, "name": "w"}
        messages = [
            ASK,
            {"role": "assistant", "content": [part]},
            {"role": "tool", "call_id": identifier, "content": "4"},
        ]
        asked, answered = native("anthropic", messages=messages)["messages"][1:]
        assert asked["content"][0]["id"] == answered["content"][0]["tool_use_id"] == name


def test_with_drop_calls_and_results_without_each_other_are_left_out() -> None:
    def use(name: str) -> dict[str, Any]:
        return {"type": "tool_use", "id": name, "name": "f", "input": {}}

    def result(name: str) -> dict[str, Any]:
        return {"type": "tool_result", "tool_use_id": name, "content": "4"}

    text = {"type": "text", "text": "?"}
    given = [
        {"role": "user", "content": [result("z"), text]},
        {"role": "assistant", "content": [use("a"), use("b")]},
        {"role": "user", "content": [result("a"), text]},
        {"role": "assistant", "content": [use("c")]},
        {"role": "user", "content": "?"},
    ]
    api = get_provider("anthropic")
    body = {"messages": given, "max_tokens": 9}
    target = Target("m1", "k", "drop")
    assert json.loads(api.build_passthrough(body, target).body)["messages"] == [
        {"role": "user", "content": [text]},
        {"role": "assistant", "content": [use("a")]},
        given[2],
        given[4],
    ]
    assert target.changes.dropped == ["messages[0].content[0]", "messages[1].content[1]", "messages[3].content[0]"]
    for same in (body, {**body, "thread": {"id": "t"}}, {**body, "messages": given[3:4]}):
        policy = "error" if same is body else "drop"
        sent = json.loads(api.build_passthrough(same, Target("m1", "k", policy)).body)
        assert sent["messages"] == same["messages"]
