"""Items of calls that the gateway has made: whose they are, and the call and its output that a provider gets."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.requests.gateway_calls import (
    as_function_call,
    is_gateways,
    is_own_approval,
    labels_of,
    made_call,
    name_of,
    new_answers,
    tool_of,
)

OWN = f"mcp_{'a' * 22}_3"
ITEM: dict[str, Any] = {
    "type": "mcp_call",
    "id": OWN,
    "server_label": "docs",
    "name": "search",
    "arguments": '{"q":1}',
    "output": "found",
    "error": None,
}


@pytest.mark.parametrize(
    ("label", "tool", "name"),
    [("docs", "search", "docs__search"), ("gateway", "weather", "weather"), ("a", "a__b", "a__a__b")],
)
def test_the_name_for_models_and_back(label: str, tool: str, name: str) -> None:
    assert name_of(label, tool) == name
    assert tool_of(label, name) == tool


def test_a_label_without_an_address_is_the_gateways() -> None:
    tools = [
        {"type": "mcp", "server_label": "docs"},
        {"type": "mcp", "server_label": "theirs", "server_url": "https://a.example"},
        {"type": "mcp", "server_label": "drive", "connector_id": "connector_1"},
        {"type": "function", "name": "f"},
        5,
    ]
    assert labels_of(tools) == {"docs"}
    assert labels_of("tools") == labels_of(None) == frozenset()


@pytest.mark.parametrize(
    ("changes", "labels", "expected"),
    [
        ({}, (), True),
        ({"id": "mcp_0a1b"}, (), False),
        ({"id": "mcp_0a1b"}, ("docs",), True),
        ({"id": f"st_{'a' * 22}_3"}, (), False),  # a tool that a provider ran
        ({"id": 5}, (), False),
        ({"type": "mcp_list_tools"}, ("docs",), False),
    ],
)
def test_whose_a_call_is(changes: dict[str, Any], labels: tuple[str, ...], expected: bool) -> None:
    assert is_gateways({**ITEM, **changes}, labels) is expected


def test_a_call_is_a_call_and_its_output() -> None:
    assert as_function_call(ITEM) == [
        {"type": "function_call", "call_id": OWN, "name": "docs__search", "arguments": '{"q":1}'},
        {"type": "function_call_output", "call_id": OWN, "output": "found"},
    ]
    assert as_function_call({**ITEM, "arguments": ""})[0]["arguments"] == "{}"
    assert as_function_call({**ITEM, "output": None}) == [], "a call that waits for its approval"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "no"}, 5, {"text": None}]}, "no"),
        ({"type": "http_error", "code": 500, "message": "broken"}, "broken"),
        ("no", "no"),
        ({}, "the call has failed"),
        (5, "the call has failed"),
    ],
)
def test_an_error_has_its_text(error: Any, text: str) -> None:
    call = made_call({**ITEM, "output": None, "error": error})
    assert call is not None
    assert (call.output, call.is_error) == (text, True)


@pytest.mark.parametrize(
    "changes", [{"id": ""}, {"id": 1}, {"name": None}, {"arguments": {}}, {"output": 5}, {"server_label": 1}]
)
def test_an_item_that_is_none_is_no_call(changes: dict[str, Any]) -> None:
    assert made_call({**ITEM, **changes}) is None
    assert as_function_call({**ITEM, **changes}) == []


def test_answers_are_new_until_a_call_names_their_request() -> None:
    mine, other = f"{'a' * 22}-1", f"{'a' * 22}-2"
    asks = [{"type": "mcp_approval_request", "id": each} for each in (mine, other)]
    answers = [{"type": "mcp_approval_response", "approval_request_id": each} for each in (mine, other, "x", 5)]
    made = {"type": "mcp_call", "approval_request_id": mine}
    found = new_answers([*asks, "text", {"type": []}, *answers, made])
    assert [(each.item["approval_request_id"], each.request) for each in found] == [
        (other, asks[1]),
        ("x", None),
        (5, None),
    ]
    assert all(is_own_approval(each) for each in (*asks, *answers[:2]))
    assert not any(
        is_own_approval(each) for each in (*answers[2:], made, {"type": "mcp_approval_request", "id": "mcpr_1"})
    )
