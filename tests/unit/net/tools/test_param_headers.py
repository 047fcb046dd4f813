"""`gai_fast/net/tools/param_headers.py`: the examples of the protocol's page, and what it forbids."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.net.tools.param_headers import ParamHeader, header_text, headers_in, values_for

REGION = {"type": "string", "x-mcp-header": "Region"}


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_headers_are_found_wherever_only_properties_lead_to() -> None:
    inner = schema(zone={"type": "integer", "x-mcp-header": "Zone"})
    found = headers_in(schema(region=REGION, place=inner, other={"type": "number"}))
    assert found == (ParamHeader("Mcp-Param-Region", ("region",)), ParamHeader("Mcp-Param-Zone", ("place", "zone")))


def test_names_and_values_are_no_annotations() -> None:
    named = schema(**{"x-mcp-header": {"type": "string", "default": {"x-mcp-header": "X"}}})
    assert headers_in(named) == ()


@pytest.mark.parametrize(
    "bad",
    [
        schema(a={"type": "string", "x-mcp-header": ""}),
        schema(a={"type": "string", "x-mcp-header": "My Region"}),
        schema(a={"type": "string", "x-mcp-header": "R\r\nX: 1"}),
        schema(a={"type": "string", "x-mcp-header": "Région"}),
        schema(a={"type": "string", "x-mcp-header": 1}),
        schema(a={"type": "number", "x-mcp-header": "A"}),
        schema(a={"type": ["string", "null"], "x-mcp-header": "A"}),
        schema(a={"type": "object", "x-mcp-header": "A"}),
        schema(a={"x-mcp-header": "A"}),
        schema(a=REGION, b={"type": "string", "x-mcp-header": "region"}),
        {**schema(), "x-mcp-header": "A"},
        schema(a={"type": "array", "items": REGION}),
        {**schema(), "anyOf": [schema(a=REGION)]},
        {**schema(), "$defs": {"r": REGION}},
        {**schema(), "if": schema(a=REGION)},
    ],
    ids=range(15),
)
def test_an_annotation_that_breaks_a_rule_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="x-mcp-header"):
        headers_in(bad)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("us-west1", "us-west1"),
        ("", ""),
        ("us west 1", "us west 1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("\t", "=?base64?CQ==?="),
    ],
)
def test_a_text_is_written_as_the_protocol_says(value: str, text: str) -> None:
    assert header_text(value) == text


def test_arguments_become_headers() -> None:
    headers = tuple(ParamHeader(f"Mcp-Param-{name}", (name,)) for name in "abcdefg")
    arguments = {"a": "x", "b": 42, "c": False, "d": None, "f": {"g": 1}, "g": 7.0}
    assert values_for(headers, arguments) == [
        ("Mcp-Param-a", "x"),
        ("Mcp-Param-b", "42"),
        ("Mcp-Param-c", "false"),
        ("Mcp-Param-g", "7"),
    ]
    assert values_for((ParamHeader("N", ("f", "g")),), arguments) == [("N", "1")]
    assert values_for((ParamHeader("N", ("a", "g")),), arguments) == []
    with pytest.raises(ValueError, match="'a' is too large for a header"):
        values_for(headers, {"a": 2**53})
