"""Deferred tools of a translated request: sent once the conversation names them, after the others."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from gai_fast.formats import get_format
from gai_fast.model.errors import InvalidRequest
from tests.unit.formats.messages.test_request import USER, read

SCHEMA = {"type": "object"}
ASKED = [USER]


def tool(name: str, **members: Any) -> dict[str, Any]:
    return {"name": name, "input_schema": SCHEMA, **members}


def deferred(name: str, **members: Any) -> dict[str, Any]:
    return tool(name, defer_loading=True, **members)


def called(name: str, call_id: str = "t1", **given: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "tool_use", "id": call_id, "name": name, "input": given}]}


def found(*names: str, call_id: str = "t1") -> list[dict[str, Any]]:
    """Returns a client's search for tools and its result."""
    parts = [{"type": "tool_reference", "tool_name": name} for name in names]
    return [
        called("ToolSearch", call_id, query="x"),
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": parts}]},
    ]


def sent(tools: list[Any], *messages: dict[str, Any], **members: Any) -> list[str]:
    """Returns the names of the tools that are sent; nothing else is lost or told."""
    native, lost = read(messages=[*ASKED, *messages], tools=tools, **members)
    assert lost == []
    return [each.get("name", each["type"]) for each in native.get("tools", [])]


TOOLS = [deferred("a"), tool("Bash"), deferred("b"), deferred("c"), tool("ToolSearch")]


def test_a_tool_that_nobody_has_named_is_left_out_untold() -> None:
    assert sent(TOOLS) == ["Bash", "ToolSearch"]
    assert sent([deferred("a"), deferred("b")]) == []
    assert sent([deferred("a")], tool_choice={"type": "auto"}) == []


def test_named_tools_follow_the_others_in_the_order_of_their_first_naming() -> None:
    first = sent(TOOLS, *found("c"))
    assert first == ["Bash", "ToolSearch", "c"]
    second = sent(TOOLS, *found("c"), *found("c", "a", call_id="t2"), called("b", "t3"))
    assert second == ["Bash", "ToolSearch", "c", "a", "b"]


def test_a_call_a_choice_and_anthropics_own_search_name_a_tool() -> None:
    assert sent(TOOLS, called("b")) == ["Bash", "ToolSearch", "b"]
    assert sent(TOOLS, called("b"), tool_choice={"type": "tool", "name": "a"}) == ["Bash", "ToolSearch", "b", "a"]
    reference = {"type": "tool_reference", "tool_name": "c"}
    for content in (
        {"type": "tool_search_tool_search_result", "tool_references": [reference]},
        [reference],
    ):
        block = {"type": "tool_search_tool_result", "tool_use_id": "s", "content": content}
        assert sent(TOOLS, {"role": "assistant", "content": [block]}) == ["Bash", "ToolSearch", "c"]


@pytest.mark.parametrize("content", [None, 5, "x", {}, {"tool_references": 5}, [None, {}, {"tool_name": 5}]])
def test_a_search_result_of_another_form_names_nothing(content: Any) -> None:
    block = {"type": "tool_search_tool_result", "tool_use_id": "s", "content": content}
    assert sent(TOOLS, {"role": "assistant", "content": [block]}) == ["Bash", "ToolSearch"]


def test_a_reference_reads_as_the_name_of_the_tool() -> None:
    native, lost = read(messages=[USER, *found("a", "nowhere")], tools=TOOLS)
    assert lost == []
    assert native["messages"][2]["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "nowhere"}]


def test_a_reference_to_no_tool_to_one_declared_twice_and_a_thousand_of_them() -> None:
    assert sent(TOOLS, *found("nowhere", "Bash")) == ["Bash", "ToolSearch"]
    twice = [deferred("a", description="1"), tool("Bash"), deferred("a", description="2"), deferred("Bash")]
    native, _ = read(messages=[USER, *found("a", "Bash")], tools=twice)
    assert [(each["name"], each.get("description")) for each in native["tools"]] == [("Bash", None), ("a", "1")]
    assert sent(TOOLS, *found(*["a"] * 1_000)) == ["Bash", "ToolSearch", "a"]


SEARCH = {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}


def test_beside_anthropics_own_search_all_tools_are_sent_and_the_search_is_told_to_everybody() -> None:
    body = {"messages": [USER], "max_tokens": 9, "tools": [deferred("a"), SEARCH, tool("Bash"), deferred("b")]}
    native, lost = read(**body)
    assert [each["name"] for each in native["tools"]] == ["a", "Bash", "b"]
    assert lost == ["tools[1]"]
    form = get_format("anthropic")
    assert form.without_refusal(body, ["metadata.x", *lost]) == ["tools[1]"]
    assert form.without_refusal({**body, "tools": None}, lost) == []


def test_a_tool_that_anthropic_runs_may_be_deferred_too() -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "defer_loading": True}
    assert sent([search, tool("Bash")]) == ["Bash"]
    assert sent([search, tool("Bash")], *found("web_search")) == ["Bash", "web_search"]


def test_a_refusal_names_the_tool_where_the_client_has_it() -> None:
    with pytest.raises(InvalidRequest, match=r"`\$\.tools\[0\]\.name`|`name` - at `\$\.tools\[0\]`"):
        read(tools=[{"input_schema": SCHEMA, "defer_loading": True}])
    with pytest.raises(InvalidRequest, match=r"Expected `bool`, got `str` - at `\$\.tools\[0\]\.defer_loading`"):
        read(tools=[tool("a", defer_loading="yes")])
    with pytest.raises(InvalidRequest, match=r"at `\$\.tools\[0\]\.input_schema`"):
        read(messages=[USER, *found("a")], tools=[deferred("a") | {"input_schema": 5}, tool("Bash")])


def test_the_list_of_tools_of_a_conversation_only_grows() -> None:
    turns = [*found("b"), called("a", "t2"), *found("c", "b", call_id="t3")]
    lists = [sent(TOOLS, *turns[:at]) for at in range(len(turns) + 1)]
    for before, after in itertools.pairwise(lists):
        assert json.dumps(after).startswith(json.dumps(before)[:-1])
