"""`requests/strict_schemas.py`: which schemas are followed strictly, and which refer to themselves."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.providers.requests.strict_schemas import all_required, is_recursive
from tests.limits import LIMITS

TEXT = {"type": "string"}


def closed(*names: str, **more: Any) -> dict[str, Any]:
    properties = dict.fromkeys(names, TEXT)
    return {"type": "object", "properties": properties, "required": [*names], "additionalProperties": False, **more}


def opened(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "additionalProperties"}


NESTED = closed("a", properties={"a": {"anyOf": [closed("b"), {"type": "null"}]}})
LIST = closed("a", properties={"a": {"type": "array", "items": closed("b")}})
NAMED = closed("a", properties={"a": {"$ref": "#/$defs/properties"}}, **{"$defs": {"properties": closed("type")}})


@pytest.mark.parametrize(
    "schema",
    [closed(), closed("a"), NESTED, LIST, NAMED, closed("type", "properties"), closed("a", description="d", title="t")],
)
def test_a_closed_schema_stays_as_it_is(schema: Any) -> None:
    assert all_required(schema) is schema


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        (opened(closed("a")), closed("a")),
        ({"type": "object", "properties": {}}, {"type": "object", "properties": {}, "additionalProperties": False}),
        (closed("a", properties={"a": {"anyOf": [opened(closed("b")), {"type": "null"}]}}), NESTED),
        (closed("a", properties={"a": {"type": "array", "items": opened(closed("b"))}}), LIST),
        (opened(NAMED), NAMED),
    ],
)
def test_objects_are_closed(schema: Any, wanted: Any) -> None:
    assert all_required(schema) == wanted


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {},
        {"type": "string"},
        {"type": "object"},
        {"type": "object", "additionalProperties": True},
        {"type": "object", "properties": {"a": TEXT}},
        closed("a", required=[]),
        closed("a", required=None),
        closed("a", additionalProperties=TEXT),
        closed("a", properties={"a": {"type": "object"}}),
        closed("a", properties={"a": closed("b", required=[])}),
        closed("a", properties={"a": {"oneOf": [TEXT]}}),
        closed("a", allOf=[closed("b")]),
        {**closed("a"), "anyOf": [closed("b")]},
        {"$ref": "#/$defs/A", "$defs": {"A": closed("a")}},
        # schema must have a 'type' key
        closed("a", properties={"a": {}}),
        closed("a", properties={"a": True}),
        closed("a", properties={"a": {"enum": ["b"]}}),
        closed("a", properties={"a": {"type": "array", "items": {"description": "b"}}}),
        closed("a", properties={"a": {"anyOf": [{"const": "b"}, TEXT]}}),
        # a reference cannot have keywords beside it
        closed("a", properties={"a": {"$ref": "#/$defs/A", "description": "b"}}, **{"$defs": {"A": closed("b")}}),
    ],
)
def test_a_schema_that_closing_does_not_make_strict_is_none(schema: Any) -> None:
    assert all_required(schema) is None


def defined(schema: dict[str, Any], **named: Any) -> dict[str, Any]:
    return {**schema, "$defs": named}


@pytest.mark.parametrize(
    ("schema", "is_own"),
    [
        (closed("a"), False),
        (closed("a", properties={"a": {"$ref": "#"}}), True),
        (closed("$ref"), False),
        (closed("a", properties={"a": {"const": {"$ref": "#"}}}), False),
        (defined({"$ref": "#/$defs/A"}, A=closed("a")), False),
        (defined({"$ref": "#/$defs/A"}, A=closed("a", properties={"a": {"items": {"$ref": "#/$defs/A"}}})), True),
        (defined({"$ref": "#/$defs/A"}, A={"$ref": "#/$defs/B"}, B={"$ref": "#/$defs/A"}), True),
        (
            defined({"$ref": "#/$defs/A"}, A={"anyOf": [{"$ref": "#/$defs/B"}, {"$ref": "#/$defs/B"}]}, B=closed()),
            False,
        ),
        (defined({"$ref": "#/$defs/a~1b~0c"}, **{"a/b~c": {"not": {"$ref": "#/$defs/a~1b~0c"}}}), True),
        ({"anyOf": [{"items": {"$ref": "#/anyOf/0"}}]}, True),
        ({"anyOf": [TEXT, {"items": {"$ref": "#/anyOf/0"}}, {"$ref": "#/anyOf/7"}]}, False),
        ({"anyOf": [{"$ref": "https://example.org/a"}, {"$ref": 5}, {"$ref": "#/nothing/here"}]}, False),
        ({"anyOf": [{"$ref": "#/anyOf/" + "9" * 5000}]}, False),
        (defined({"$ref": "#/$defs/a%20b"}, **{"a b": {"items": {"$ref": "#/%24defs/a%20b"}}}), True),
        (closed("a", properties={"a": {"$dynamicRef": "#"}}), True),
        (closed("a", properties={"a": {"$recursiveRef": "#"}}), True),
        (defined(closed("a", properties={"a": {"$ref": "#b"}}), B={"$anchor": "b", **TEXT}), False),
    ],
)
def test_a_schema_that_refers_to_itself_is_found(schema: Any, is_own: bool) -> None:
    assert is_recursive(schema) is is_own


def test_a_long_chain_of_references_is_followed() -> None:
    names = range(LIMITS.object_members // 4)
    chain = {f"A{at}": {"$ref": f"#/$defs/A{at + 1}"} for at in names}
    assert not is_recursive({"$ref": "#/$defs/A0", "$defs": chain})
    chain[f"A{len(names)}"] = {"$ref": "#/$defs/A0"}
    assert is_recursive({"$ref": "#/$defs/A0", "$defs": chain})
