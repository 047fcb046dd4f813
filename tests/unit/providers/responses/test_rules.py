"""What a provider of the Responses dialect accepts: its own reasoning, and ids of items and calls in its form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.requests.stored_ids import own_item_id
from gai_fast.formats import get_format
from gai_fast.model.errors import InvalidRequest
from gai_fast.providers import Target, get_provider
from gai_fast.runtime.ids import new_stream_id

ASK: dict[str, Any] = {"role": "user", "content": "Hi"}


def sent(provider: str, items: Any, target: Target | None = None, **members: Any) -> Any:
    asked = get_format("responses").read_request({"model": "m", "input": items, **members})
    api = get_provider(f"{provider}:responses")
    return json.loads(api.build_passthrough(asked.body, target or Target("m1", "k"), shape=asked.shape).body)


def reasoning(content: Any) -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": content}


def test_reasoning_of_other_providers_does_not_go_to_an_upstream_of_the_dialect() -> None:
    sealed = reasoning('gai:{"provider":"anthropic","signature":"s"}')
    kept = [reasoning("gAAA"), {"role": "user", "content": "gai:"}, 5, reasoning(None)]
    assert sent("openai", [sealed, *kept])["input"] == kept
    for same in (kept, "gai:", None, 5):
        assert sent("openai", same)["input"] == same


@pytest.mark.parametrize(("provider", "looks_up"), [("openai", True), ("azure", True), ("openai-compatible", False)])
def test_reasoning_with_an_id_of_ours_is_not_looked_up_by_its_provider(provider: str, looks_up: bool) -> None:
    """OpenAI says "Item with id 'rs_…' not found" for reasoning of an answer that was translated."""
    summary = [{"type": "summary_text", "text": "Hm"}]
    ours = {"type": "reasoning", "id": own_item_id("rs", new_stream_id(), 0), "summary": summary}
    theirs = {**ours, "id": "rs_1"}
    assert sent(provider, [ours, theirs, ASK])["input"] == ([theirs, ASK] if looks_up else [ours, theirs, ASK])


@pytest.mark.parametrize("provider", ["openai", "azure"])
def test_a_model_that_does_not_think_gets_no_reasoning(provider: str) -> None:
    """Nor ids by which OpenAI says "function_call was provided without its required 'reasoning' item"."""
    called = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "4"}
    said = {"role": "assistant", "content": "a", "id": "msg_1"}
    items = [said, reasoning("gAAA"), said, {**called, "id": "fc_1"}, output, ASK, said]
    new = sent(provider, items, Target("gpt-4o"))["input"]
    assert new == [said, {**said, "id": new[1]["id"]}, called, output, ASK, said]
    assert new[1]["id"].startswith("msg_")
    assert new[1]["id"] != said["id"]
    assert sent(provider, items, Target("gpt-5"))["input"] == items
    assert sent(provider, "Hi", Target("gpt-4o"))["input"] == "Hi"


def test_a_provider_gets_its_own_reasoning_back_as_it_wrote_it() -> None:
    """Of most providers it is not known that their signatures are the dialect's."""
    sealed = reasoning('gai:{"provider":"groq","signature":"s"}')
    of_call = reasoning('gai:{"provider":"groq","signature":"s","call_id":"c"}')
    assert sent("groq", [sealed, of_call])["input"] == [{**sealed, "encrypted_content": "s"}]
    with pytest.raises(InvalidRequest, match=r"`\$\.input\[1\]\.encrypted_content`"):
        sent("groq", [5, reasoning("gai:")])


def test_ids_of_items_that_another_provider_gave_are_not_sent() -> None:
    items = [
        {"type": "message", "id": "resp-1", "role": "assistant", "content": "a"},
        {"type": "function_call", "id": "call_1", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "id": "x", "call_id": "c", "output": "4"},
        {"type": "reasoning", "id": "thought-1", "summary": []},
        {"type": "message", "id": "msg_1", "role": "assistant", "content": "a"},
    ]
    message, call, output, thought, own = sent("openai", items)["input"]
    assert ("id" in message, "id" in call, output["id"], own["id"]) == (False, False, "x", "msg_1")
    assert thought["id"].startswith("rs_")


@pytest.mark.parametrize("provider", ["openai", "azure", "groq", "xai", "deepseek", "openrouter", "perplexity"])
def test_ids_of_calls_that_are_too_long_are_changed_alike_in_call_and_output(provider: str) -> None:
    for identifier, is_kept in (("x" * 64, True), ("x" * 65, False), ("functions.w:0", True), ("", False)):
        call = {"type": "function_call", "call_id": identifier, "name": "f", "arguments": "{}"}
        output = {"type": "function_call_output", "call_id": identifier, "output": "4"}
        asked, answered = sent(provider, [call, output])["input"]
        assert asked["call_id"] == answered["call_id"]
        assert 0 < len(asked["call_id"]) <= 64
        assert (asked["call_id"] == identifier) == is_kept


def test_a_limit_below_the_least_is_the_least_and_reported() -> None:
    target = Target("m1", "k")
    assert sent("openai", "Hi", target, max_output_tokens=1)["max_output_tokens"] == 16
    assert target.changes.adjusted == {"max_output_tokens": "16"}
    assert sent("openai", "Hi", max_output_tokens=17)["max_output_tokens"] == 17


@pytest.mark.parametrize("provider", ["groq", "xai", "deepseek", "perplexity"])
def test_what_openai_has_encrypted_goes_to_nobody_who_cannot_read_it(provider: str) -> None:
    theirs = reasoning("gAAAAABotherwise")
    items = [ASK, theirs, reasoning("jPuKdZ"), reasoning(5)]
    assert sent(provider, items)["input"] == [ASK, *items[2:]]
    for may_be_its_own in ("openai", "azure", "openrouter", "openai-compatible"):
        assert theirs in sent(may_be_its_own, items)["input"]


def test_with_drop_calls_and_outputs_without_each_other_are_left_out() -> None:
    def call(name: str, kind: str = "function_call") -> dict[str, Any]:
        return {"type": kind, "call_id": name, "name": "f"}

    def output(name: str, kind: str = "function_call") -> dict[str, Any]:
        return {"type": f"{kind}_output", "call_id": name, "output": "4"}

    custom = "custom_tool_call"
    other = {"type": "computer_call", "call_id": "x"}
    whole = [ASK, call("a"), call("b", custom), output("b", custom), output("a"), other, 5]
    items = [output("c"), *whole, call("d"), output("a"), call("e"), output("e", custom)]
    target = Target("m1", "k", "drop")
    body = sent("openai", items, target, tool_choice="required")
    assert body["input"] == whole
    assert "tool_choice" not in body
    assert target.changes.dropped == ["tool_choice", "input[0]", "input[8]", "input[9]", "input[10]", "input[11]"]
    assert sent("openai", items)["input"] == items
    for stored in ({"previous_response_id": "r"}, {"conversation": "c"}):
        assert sent("openai", [output("c")], Target("m1", "k", "drop"), **stored)["input"] == [output("c")]
    assert sent("openai", [output("c")], Target("m1", "k", "drop"))["input"] == [output("c")]


@pytest.mark.parametrize("provider", ["openai", "azure", "xai", "openai-compatible"])
def test_a_call_that_the_gateway_has_made_is_a_call_and_its_output_for_every_provider(provider: str) -> None:
    made = {"type": "mcp_call", "id": own_item_id("mcp", new_stream_id(), 1), "server_label": "docs", "name": "search"}
    made |= {"arguments": "{}", "output": "found", "error": None, "status": "completed"}
    theirs = {**made, "id": "mcp_0a1b2c"}
    _, call, output, other = sent(provider, [ASK, made, theirs])["input"]
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "docs__search", "{}")
    assert (output["type"], output["output"]) == ("function_call_output", "found")
    assert call["call_id"] == output["call_id"]
    assert other == theirs
