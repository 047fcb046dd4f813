"""`gai_fast/cli/tools/samples.py`: what is made of a schema is what another library's validator accepts."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from gai_fast.cli.tools.samples import arguments_for

SCHEMAS: list[dict[str, Any]] = [
    {},
    {"a": {"type": "string"}},
    {"a": {"type": "string", "minLength": 12}, "b": {"type": "string", "format": "date-time"}},
    {"a": {"type": "string", "format": "uuid"}, "b": {"type": "string", "format": "email"}},
    {
        "a": {"type": "integer"},
        "b": {"type": "number", "exclusiveMinimum": 2.5},
        "c": {"type": "integer", "maximum": 0},
    },
    {"a": {"type": "integer", "minimum": 5, "maximum": 5}, "b": {"type": ["null", "string"]}, "c": {"type": "boolean"}},
    {"a": {"enum": ["x", "y"]}, "b": {"const": None}, "c": {"type": "integer", "default": 7}},
    {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "b": {"oneOf": [{"type": "array"}]}},
    {"a": {"type": "array", "items": {"type": "integer"}, "minItems": 2}, "b": {"type": "array", "minItems": 1}},
    {"a": {"type": "object", "properties": {"b": {"type": "string"}, "c": {}}, "required": ["b"]}},
    {"a": {"$ref": "#/$defs/whole"}, "b": {"$ref": "#/$defs/a~1b"}},
    {"a": {"allOf": [{"$ref": "#/$defs/whole"}, {"minimum": 3}]}},
    {
        "a": {
            "allOf": [{"type": "object", "properties": {"x": {"type": "null"}}, "required": ["x"]}, {"required": ["y"]}]
        }
    },
    {"a": {"examples": ["given"], "type": "string"}},
]
DEFS = {"whole": {"type": "integer"}, "a/b": {"type": "boolean"}}


@pytest.mark.parametrize("properties", SCHEMAS, ids=range(len(SCHEMAS)))
def test_made_arguments_are_valid(properties: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": properties, "required": [*properties], "$defs": DEFS}
    made = arguments_for(schema)
    assert made.keys() == properties.keys()
    jsonschema_rs.validator_for(schema).validate(made)


def test_what_is_not_required_is_left_out() -> None:
    assert arguments_for({"type": "object", "properties": {"a": {"type": "string"}}}) == {}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"]},
        {"properties": {"a": {"$ref": "http://127.0.0.1:1/schema"}}, "required": ["a"]},
        {"properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}]}}, "required": ["a"]},
        {
            "properties": {"a": {"type": "array", "minItems": 1000, "items": {"$ref": "#/properties/a"}}},
            "required": ["a"],
        },
        {"properties": {"a": {"type": "string", "minLength": 10**9}}, "required": ["a", 1]},
        {"properties": [], "required": "a"},
        {"properties": {"a": {"type": "integer", "minimum": "x", "maximum": None}}, "required": ["a"]},
        {"properties": {"a": {"allOf": [1, {"properties": 2, "required": 3}]}}, "required": ["a"]},
        {"$ref": "#/$defs/none"},
    ],
    ids=range(10),
)
def test_odd_schemas_end_and_ask_for_nothing(schema: dict[str, Any]) -> None:
    assert isinstance(arguments_for(schema), dict)
