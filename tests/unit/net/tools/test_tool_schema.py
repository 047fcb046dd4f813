"""The schemas of tool servers' tools, as providers take them."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.net.tools.tool_schema import acceptable

OBJECT: dict[str, Any] = {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"properties": {}}),
        ({"type": "object"}, OBJECT),
        ({"type": "object", "properties": None, "required": None}, OBJECT),
        ({"type": "object", "properties": [], "required": {}}, OBJECT),
        ({**OBJECT, "additionalProperties": False}, {**OBJECT, "additionalProperties": False}),
        (
            {"type": "object", "properties": {"a": {"type": ["object", "null"], "required": None}}, "required": ["a"]},
            {
                "type": "object",
                "properties": {"a": {"type": ["object", "null"], "properties": {}}},
                "required": ["a"],
            },
        ),
        (
            {**OBJECT, "properties": {"a": {"type": "array", "items": {"type": "object"}}, "b": True}},
            {**OBJECT, "properties": {"a": {"type": "array", "items": OBJECT}, "b": True}},
        ),
        ({**OBJECT, "$defs": {"A": {"type": "object"}}}, {**OBJECT, "$defs": {"A": OBJECT}}),
        (
            {**OBJECT, "properties": {"properties": {"type": "string"}, "required": {"type": "boolean"}}},
            {**OBJECT, "properties": {"properties": {"type": "string"}, "required": {"type": "boolean"}}},
        ),
        ({**OBJECT, "default": {"required": None}}, {**OBJECT, "default": {"required": None}}),
        (
            {**OBJECT, "anyOf": [{"required": ["a"]}, {"required": None}]},
            {**OBJECT, "anyOf": [{"required": ["a"]}, {}]},
        ),
    ],
)
def test_an_object_has_properties_and_nothing_is_null(given: dict[str, Any], sent: dict[str, Any]) -> None:
    former = repr(given)
    assert (acceptable(given) or given) == sent
    assert repr(given) == former


REFERENCES = {
    "another document": ({"a": {"$ref": "https://example.org/schema.json"}}, {}),
    "a file": ({"a": {"$ref": "other.json#/a"}}, {}),
    "within a list": ({"a": {"anyOf": [{"$ref": "http://example.org"}]}}, {}),
}
RECURSIVE = {
    "itself": ({"a": {"$ref": "#"}}, {}),
    "a part of itself": ({"a": {"$ref": "#/$defs/Node"}}, {"Node": {"items": {"$ref": "#/$defs/Node"}}}),
    "two of each other": (
        {"a": {"$ref": "#/$defs/A"}},
        {"A": {"properties": {"b": {"$ref": "#/$defs/B"}}}, "B": {"properties": {"a": {"$ref": "#/$defs/A"}}}},
    ),
}


@pytest.mark.parametrize(("properties", "defs"), REFERENCES.values(), ids=REFERENCES)
def test_a_schema_of_another_document_is_refused(properties: dict[str, Any], defs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="another document"):
        acceptable({"type": "object", "properties": properties, "$defs": defs})


@pytest.mark.parametrize(("properties", "defs"), RECURSIVE.values(), ids=RECURSIVE)
def test_a_schema_that_refers_to_itself_is_refused(properties: dict[str, Any], defs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="itself"):
        acceptable({"type": "object", "properties": properties, "$defs": defs})


def test_a_schema_that_names_a_part_of_itself_is_sent() -> None:
    named = {"type": "string", "enum": ["$ref"]}
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/$defs/A"}, "$ref": {"type": "string"}},
        "$defs": {"A": named},
    }
    assert acceptable(schema) is None
