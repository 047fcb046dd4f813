"""Requests of the Responses API, read as native ones."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gai_fast.model.errors import InvalidRequest, Unsupported
from gai_fast.model.request import NamedTool
from gai_fast.providers.requests.parts import calls_of
from tests.unit.formats.responses_reader import RESPONSES


def read(**members: Any) -> tuple[dict[str, Any], list[str]]:
    """Returns the native request without what is always there, and the paths of what is lost."""
    request, lost = RESPONSES.parse_request({"input": "hi", **members})
    native = msgspec.json.decode(msgspec.json.encode(request))
    return {key: native[key] for key in native if key not in ("messages", "stream") and native[key]}, lost


FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}
SCHEMA = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True, "description": "d"}

SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain values": (
        {"model": "m", "temperature": 0.5, "top_p": 0.9, "max_output_tokens": 50, "metadata": {"a": "b"}},
        {"model": "m", "temperature": 0.5, "top_p": 0.9, "max_tokens": 50, "metadata": {"a": "b"}},
    ),
    "instructions": ({"instructions": "Be brief."}, {"system": "Be brief."}),
    "an effort": (
        {"reasoning": {"effort": "low", "summary": "auto"}},
        {"reasoning": {"effort": "low", "summary": "auto"}},
    ),
    "the highest effort": ({"reasoning": {"effort": "max"}}, {"reasoning": {"effort": "max"}}),
    "a summary": ({"reasoning": {"generate_summary": "concise"}}, {"reasoning": {"summary": "concise"}}),
    "no effort": ({"reasoning": {"effort": None}}, {}),
    "text": (
        {"text": {"format": {"type": "text"}, "verbosity": "low"}},
        {"response_format": {"type": "text"}, "verbosity": "low"},
    ),
    "JSON": ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json"}}),
    "nothing about text": ({"text": {}}, {}),
    "a choice": ({"tool_choice": "required"}, {"tool_choice": "required"}),
    "a search": ({"tool_choice": {"type": "web_search_preview"}}, {"tool_choice": {"name": "web_search"}}),
    "an interpreter": ({"tool_choice": {"type": "code_interpreter"}}, {"tool_choice": {"name": "code_execution"}}),
    "a function": ({"tool_choice": {"type": "function", "name": "f"}}, {"tool_choice": {"name": "f"}}),
    "knobs": (
        {"parallel_tool_calls": True, "service_tier": "flex", "user": "u", "safety_identifier": "s"},
        {"parallel_tool_calls": True, "service_tier": "flex", "user": "u", "safety_identifier": "s"},
    ),
    "probabilities": (
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {"logprobs": True, "top_logprobs": 2},
    ),
    "neutral values": (
        {
            "truncation": "disabled",
            "store": False,
            "background": False,
            "include": ["reasoning.encrypted_content", "web_search_call.action.sources"],
            "client_metadata": {"turn": "1"},
            "prompt_cache_retention": "24h",
            "stream_options": {"include_obfuscation": False},
            "previous_response_id": None,
        },
        {},
    ),
    "a response that the gateway keeps": ({"store": True, "background": True}, {}),
}


@pytest.mark.parametrize("name", SAME)
def test_what_a_native_request_has(name: str) -> None:
    members, expected = SAME[name]
    assert read(**members) == (expected, [])


def test_a_schema_and_a_tool() -> None:
    request, lost = RESPONSES.parse_request(
        {"input": "hi", "text": {"format": SCHEMA}, "tools": [{**FUNCTION, "description": "d", "strict": False}]}
    )
    assert lost == []
    assert request.response_format
    assert request.response_format.name == "n"
    assert msgspec.json.decode(bytes(request.response_format.schema)) == {"description": "d", "type": "object"}
    (tool,) = request.tools
    assert (tool.name, tool.description, bytes(tool.parameters), tool.strict) == ("f", "d", b'{"type":"object"}', False)


def test_built_in_and_custom_tools_are_native_ones() -> None:
    search = {"type": "web_search", "filters": {"allowed_domains": ["a"]}, "external_web_access": True}
    code = {"type": "code_interpreter", "container": {"type": "auto"}}
    custom = {"type": "custom", "name": "c", "format": {"type": "text"}}
    body = {"input": "hi", "tools": [search, code, custom], "tool_choice": {"type": "custom", "name": "c"}}
    request, lost = RESPONSES.parse_request(body)
    assert lost == []
    assert [(tool.type, tool.options) for tool in request.tools[:1]] == [("web_search", {"allowed_domains": ["a"]})]
    assert request.tools[1].type == "code_execution"
    assert (request.tools[2].name, request.tools[2].format) == ("c", {"type": "text"})


DOCS: dict[str, Any] = {
    "type": "namespace",
    "name": "mcp__docs__",
    "description": "The docs.",
    "tools": [
        {"type": "function", "name": "search", "description": "Finds.", "parameters": {"type": "object"}},
        {"type": "custom", "name": "patch", "format": {"type": "text"}},
    ],
}


def test_tools_of_a_namespace_are_tools_with_its_name_before_theirs() -> None:
    """Codex sends the tools of an MCP server so (github.com/openai/codex/issues/23186)."""
    items = [
        {"role": "user", "content": "hi"},
        {"type": "function_call", "call_id": "a", "name": "search", "namespace": "mcp__docs__", "arguments": "{}"},
        {"type": "function_call", "call_id": "b", "name": "f", "namespace": "functions", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "namespace": "mcp__docs__", "output": "x"},
        {"type": "function_call_output", "call_id": "b", "output": "y"},
    ]
    choice = {"type": "function", "name": "search", "namespace": "mcp__docs__"}
    request, lost = RESPONSES.parse_request({"input": items, "tools": [FUNCTION, DOCS], "tool_choice": choice})
    assert lost == []
    assert [(tool.type, tool.name) for tool in request.tools] == [
        ("function", "f"),
        ("function", "mcp__docs__search"),
        ("custom", "mcp__docs__patch"),
    ]
    assert [tool.description or None for tool in request.tools[1:]] == ["The docs.\n\nFinds.", None]
    assert [call.name for call in calls_of(request.messages[1])] == ["mcp__docs__search", "f"]
    assert request.tool_choice == NamedTool(name="mcp__docs__search")


def test_items_add_tools_of_which_the_latest_count() -> None:
    """Codex since 0.144 sends all its tools so (github.com/theopenco/llmgateway/pull/3613)."""
    later = [{"type": "function", "name": "search", "description": "Looks.", "parameters": {"type": "object"}}]
    items = [
        {"type": "additional_tools", "id": "at_1", "role": "developer", "tools": [DOCS, FUNCTION]},
        {"role": "user", "content": "hi"},
        {"type": "additional_tools", "role": "developer", "tools": [{**DOCS, "tools": later}, {"type": "web_search"}]},
    ]
    request, lost = RESPONSES.parse_request({"input": items, "tools": [FUNCTION]})
    assert lost == []
    assert [(tool.type, tool.name, tool.description) for tool in request.tools] == [
        ("function", "f", msgspec.UNSET),
        ("function", "mcp__docs__search", "The docs.\n\nLooks."),
        ("custom", "mcp__docs__patch", msgspec.UNSET),
        ("web_search", msgspec.UNSET, msgspec.UNSET),
    ]
    assert len(request.messages) == 1


def test_what_added_tools_cannot_hold_is_named_by_its_own_path() -> None:
    item = {"type": "additional_tools", "role": "developer"}
    tools = [{"type": "computer"}, {**DOCS, "tools": [{"type": "web_search"}]}]
    _, lost = RESPONSES.parse_request({"input": [{**item, "tools": tools, "x": 1}]})
    assert lost == ["input[0].x", "input[0].tools[0]", "input[0].tools[1].tools[0]"]
    for members, path in (
        ({}, "input[0]"),
        ({"tools": 1}, "input[0].tools"),
        ({"tools": [1]}, "input[0].tools[0]"),
        ({"tools": [], "role": 1}, "input[0].role"),
        ({"tools": [{**FUNCTION, "parameters": 1}]}, "input[0].tools[0].parameters"),
        ({"tools": [DOCS, {**DOCS, "name": "mcp__docs"}]}, "input[0].tools[0].tools[0].name"),
    ):
        with pytest.raises(InvalidRequest) as raised:
            RESPONSES.parse_request({"input": [{**item, **members}]})
        assert raised.value.message.endswith(f"`$.{path}`")


def test_what_a_namespace_cannot_hold_is_named_by_its_own_path() -> None:
    inner = [{"type": "web_search"}, {"type": "function", "name": "g", "defer_loading": True}]
    _, lost = read(tools=[{**DOCS, "tools": inner, "x": 1}])
    assert lost == ["tools[0].x", "tools[0].tools[0]", "tools[0].tools[1].defer_loading"]
    for tools, path in (
        ([{**DOCS, "tools": [{"type": "function", "name": "g", "parameters": 1}]}], "tools[0].tools[0].parameters"),
        ([{**DOCS, "tools": [{"type": "custom", "name": "g", "format": 1}]}], "tools[0].tools[0].format"),
        ([{**DOCS, "tools": None}], "tools[0]"),
        ([DOCS, {"type": "function", "name": "mcp__docs__search"}], "tools[0].tools[0].name"),
        ([DOCS, {**DOCS, "name": "mcp__docs"}], "tools[0].tools[0].name"),
    ):
        with pytest.raises(InvalidRequest) as raised:
            read(tools=tools)
        assert raised.value.message.endswith(f"`$.{path}`")


LOST: dict[str, tuple[dict[str, Any], list[str]]] = {
    "built-in tools": (
        {"tools": [FUNCTION, {"type": "computer"}, {"type": "mcp", "server_label": "s"}, {**FUNCTION, "x": 1}]},
        ["tools[1]", "tools[2]", "tools[3].x"],
    ),
    "members of built-in tools": (
        {
            "tools": [
                {"type": "web_search", "external_web_access": False, "filters": {"x": 1}},
                {"type": "code_interpreter", "container": "cntr_1"},
            ]
        },
        ["tools[0].external_web_access", "tools[0].filters.x", "tools[1]"],
    ),
    "a choice of tools": ({"tool_choice": {"type": "allowed_tools", "mode": "auto"}}, ["tool_choice"]),
    "an effort of another name": ({"reasoning": {"effort": "utmost", "x": 1}}, ["reasoning.x", "reasoning.effort"]),
    "unknown words of `include`": (
        {"include": ["message.output_text.logprobs", "x"]},
        ["include[1]"],
    ),
    "other members": (
        {"truncation": "auto", "max_tool_calls": 3, "unheard": 0},
        ["truncation", "max_tool_calls", "unheard"],
    ),
}


@pytest.mark.parametrize("name", LOST)
def test_what_it_does_not_have_is_named_by_its_path(name: str) -> None:
    members, paths = LOST[name]
    assert read(**members)[1] == paths


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "no input": ({"input": None}, "`input` must hold a text or at least one item - at `$.input`"),
    "no items": ({"input": []}, "`input` must hold a text or at least one item - at `$.input`"),
    "input of another type": ({"input": 5}, "Expected `str | array`, got `int` - at `$.input`"),
    "instructions": ({"instructions": ["a"]}, "Expected `str`, got `array` - at `$.instructions`"),
    "a limit": ({"max_output_tokens": "5"}, "Expected `int`, got `str` - at `$.max_output_tokens`"),
    "verbosity": ({"text": {"verbosity": "loud"}}, "Invalid enum value - at `$.text.verbosity`"),
    "a summary": ({"reasoning": {"summary": "long"}}, "Invalid enum value - at `$.reasoning.summary`"),
    "a limit below one": ({"max_output_tokens": 0}, "Expected `int` >= 1 - at `$.max_output_tokens`"),
    "temperature": ({"temperature": 9}, "`$.temperature`"),
    "reasoning": ({"reasoning": "low"}, "Expected `object`, got `str` - at `$.reasoning`"),
    "effort": ({"reasoning": {"effort": 1}}, "Expected `str`, got `int` - at `$.reasoning.effort`"),
    "text": ({"text": 1}, "Expected `object`, got `int` - at `$.text`"),
    "a format without type": ({"text": {"format": {}}}, "missing required field `type` - at `$.text.format`"),
    "a format of no type that there is": (
        {"text": {"format": {"type": "xml"}}},
        "Invalid enum value - at `$.text.format.type`",
    ),
    "a schema": (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": []}}},
        "Expected `object`, got `array` - at `$.text.format.schema`",
    ),
    "tools": ({"tools": {}}, "Expected `array`, got `object` - at `$.tools`"),
    "a tool": ({"tools": [5]}, "Expected `object`, got `int` - at `$.tools[0]`"),
    "a tool without type": ({"tools": [{}]}, "missing required field `type` - at `$.tools[0]`"),
    "a function without name": ({"tools": [{"type": "function"}]}, "missing required field `name` - at `$.tools[0]`"),
    "a function without a name behind a tool of another kind": (
        {"tools": [{"type": "web_search"}, {**FUNCTION, "name": ""}]},
        "at `$.tools[1].name`",
    ),
    "parameters": (
        {"tools": [{**FUNCTION, "parameters": "x"}]},
        "Expected `object`, got `str` - at `$.tools[0].parameters`",
    ),
    "a choice": ({"tool_choice": 5}, "Expected `str | object`, got `int` - at `$.tool_choice`"),
    "a choice without name": (
        {"tool_choice": {"type": "function"}},
        "missing required field `name` - at `$.tool_choice`",
    ),
    "include": ({"include": "x"}, "Expected `array`, got `str` - at `$.include`"),
    "store": ({"store": 1}, "Expected `bool`, got `int` - at `$.store`"),
}


@pytest.mark.parametrize("name", INVALID)
def test_wrong_values_are_refused_with_their_path(name: str) -> None:
    members, words = INVALID[name]
    with pytest.raises(InvalidRequest) as raised:
        read(**members)
    assert words in raised.value.message
    assert raised.value.reason == "validation"


@pytest.mark.parametrize("member", ["previous_response_id", "conversation", "prompt"])
def test_a_conversation_or_a_prompt_that_another_upstream_has_stored_is_refused(member: str) -> None:
    with pytest.raises(Unsupported, match=f"`{member}`") as refused:
        RESPONSES.parse_request({"input": "hi", member: "id_1"})
    assert refused.value.reason == "conversation"
    assert RESPONSES.parse_request({"input": "hi", member: None})[1] == []
