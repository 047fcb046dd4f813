"""The bound of what a check costs: no place of an answer is evaluated more often than the limit."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.processors import _schema_cost
from gai_fast.processors._schema_cost import CostlySchema, most_paths
from tests.limits import LIMITS, replaced

ROOT: Final = {"$ref": "#"}


def chain(length: int, keyword: str) -> Any:
    """Returns each definition refers to the next one twice."""
    definitions: Any = {f"d{n}": {keyword: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(length)}
    definitions[f"d{length}"] = {"type": "string"}
    return {"$ref": "#/$defs/d0", "$defs": definitions}


ORDINARY: Final[dict[str, Any]] = {
    "tree": {"properties": {"left": ROOT, "right": ROOT, "children": {"type": "array", "items": ROOT}}},
    "list with null": {"properties": {"next": {"anyOf": [ROOT, {"type": "null"}]}}, "additionalProperties": False},
    "other members": {"properties": {"a": ROOT}, "additionalProperties": ROOT},
    "twice, not recursive": chain(6, "anyOf"),
    "union": {
        "items": {"anyOf": [{"$ref": f"#/$defs/m{n}"} for n in range(200)]},
        "$defs": {f"m{n}": {"properties": {"kind": {"const": n}, "text": {"type": "string"}}} for n in range(200)},
    },
    "two kinds of recursion": {
        "properties": {"next": ROOT, "type": {"$ref": "#/$defs/type"}},
        "$defs": {"type": {"properties": {"arguments": {"items": {"$ref": "#/$defs/type"}}}}},
    },
    "extended": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "allOf": [{"$ref": "#/$defs/base"}],
                "properties": {"children": {"items": {"$ref": "#/$defs/node"}}},
                "unevaluatedProperties": False,
            },
            "base": {"properties": {"id": {"type": "string"}}},
        },
    },
    "by its name": {
        "$id": "https://example.com/",
        "$defs": {"t": {"$id": "T0", "items": {"$ref": "T0"}}},
        "$ref": "T0",
    },
    "by an anchor": {"$defs": {"n": {"$anchor": "node", "items": {"$ref": "#node"}}}, "$ref": "#node"},
    "to true": {"$ref": "#/$defs/a", "$defs": {"a": True}},
    "a member called $ref": {"properties": {"$ref": {"type": "string"}, "allOf": {"items": ROOT}}},
    "large": {"properties": {f"p{n}": {"type": "string", "enum": ["a", "b"]} for n in range(2500)}},
    "no object": True,
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_schemas_pass(name: str) -> None:
    most_paths(ORDINARY[name])


COSTLY: Final[dict[str, tuple[Any, str]]] = {
    "chain": (chain(20, "allOf"), "#"),
    "long chain": (chain(400, "not"), "#"),
    "recursion by two ways": ({"anyOf": [{"properties": {"a": ROOT}}] * 2}, "#/anyOf/1/properties/a"),
    "by a name and another": (
        {"properties": {"a": ROOT}, "anyOf": [{"additionalProperties": ROOT}]},
        "#/properties/a",
    ),
    "by a name and a pattern": (
        {"properties": {"a": ROOT}, "patternProperties": {"^a": ROOT}},
        "#/properties/a",
    ),
    "by two elements": ({"prefixItems": [ROOT], "contains": ROOT}, "#/prefixItems/0"),
    "by lists of the older drafts": ({"items": [ROOT], "allOf": [{"items": ROOT}]}, "#/items/0"),
    "at one place": ({"properties": {"a~/b": {"allOf": [{"$ref": "#/properties/a~0~1b"}]}}}, "#/properties/a~0~1b"),
    "more with each level": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a"}, "b": ROOT}, "$ref": "#"}}},
        "#",
    ),
    "by a dynamic name": (
        {"$dynamicAnchor": "n", "items": {"$dynamicRef": "#n"}, "contains": {"$dynamicRef": "#n"}},
        "#/items",
    ),
    "by dependencies": ({"dependencies": {"a": ROOT}}, "#"),
    "unevaluated again and again": (
        {"allOf": [{"allOf": [{"allOf": [{"allOf": [{"allOf": [{"allOf": [{}]}]}]}]}]}]},
        "#",
    ),
    "values": ({"properties": {"a": {"enum": [[n] for n in range(600)]}}}, "#/properties/a"),
    "required": ({"dependentRequired": {f"a{n}": [] for n in range(600)}}, "#"),
}


def unevaluated(schema: Any) -> Any:
    return {"allOf": [unevaluated(each) for each in schema.get("allOf", [])], "unevaluatedProperties": False}


@pytest.mark.parametrize("name", COSTLY)
def test_costly_schemas_are_refused(name: str) -> None:
    schema, place = COSTLY[name]
    if name.startswith("unevaluated"):
        most_paths(schema)
        schema = unevaluated(schema)
    with pytest.raises(CostlySchema) as raised:
        most_paths(schema)
    what = f"more than {LIMITS.schema_paths} subschemas may be evaluated at one place of an answer (limit schema_paths)"
    assert str(raised.value) == f"{what}, at {place!r}: let fewer branches lead to the same subschema"


@pytest.mark.parametrize(
    "outer",
    [
        lambda inner: {"contains": inner, "unevaluatedItems": False},
        lambda inner: {"unevaluatedItems": inner},
        lambda inner: {"unevaluatedProperties": inner},
        lambda inner: {"allOf": [{"contains": inner}], "unevaluatedItems": False},
    ],
)
def test_what_unevaluated_keywords_evaluate_counts_more_than_once(outer: Any) -> None:
    """The library evaluates these again in each level; twenty levels are a million times."""
    schema: Any = {"type": "integer"}
    for _ in range(20):
        schema = outer(schema)
    with pytest.raises(CostlySchema, match="limit schema_paths"):
        most_paths(schema)


def test_a_place_with_a_long_name_is_cut() -> None:
    with pytest.raises(CostlySchema) as raised:
        most_paths({"properties": {"a" * 100_000: {"enum": [[]] * 600}}})
    assert len(str(raised.value)) < 500


def test_the_count_itself_is_bounded() -> None:
    """Sets of subschemas may be as many as there are sets."""
    definitions: dict[str, Any] = {
        str(n): {"properties": {"a": {"$ref": f"#/$defs/{n + 1}"}, "b": {"$ref": f"#/$defs/{n + 1}"}}}
        for n in range(30)
    }
    schema = {
        "properties": {"a": ROOT, "b": ROOT},
        "anyOf": [{"properties": {"a": {"$ref": "#/$defs/0"}}}],
        "$defs": {**definitions, "30": {}},
    }
    with pytest.raises(CostlySchema, match="limit schema_steps"):
        most_paths(schema)


@pytest.mark.parametrize(
    "reference",
    ["http://json-schema.org/draft-07/schema#", "other", "#/$defs/none", "#none", "..", "?a", "#/allOf/7", "#/allOf/x"],
)
def test_a_reference_must_stay_in_the_schema(reference: str) -> None:
    with pytest.raises(ValueError, match="a reference leads out of the schema"):
        most_paths({"allOf": [{"$ref": reference}]})


def test_names_of_draft_4() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "definitions": {"a": {"id": "#a", "anyOf": [{"properties": {"a": {"$ref": "#a"}}}] * 2}},
        "$ref": "#a",
    }
    with pytest.raises(CostlySchema):
        most_paths(schema)


# -- any accepted schema, any answer --

NAMES: Final = ("a", "b", "c")
references = st.sampled_from(["#", "#/$defs/x", "#/$defs/y"]).map(lambda target: {"$ref": target})


def combined(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Returns one to three keywords over these subschemas."""
    some = st.lists(parts, min_size=1, max_size=2)
    named = st.dictionaries(st.sampled_from(NAMES), parts, min_size=1, max_size=2)
    values = {
        **dict.fromkeys(("allOf", "anyOf", "prefixItems"), some),
        **dict.fromkeys(("properties", "dependentSchemas"), named),
        **dict.fromkeys(("not", "if", "then", "additionalProperties", "propertyNames"), parts),
        **dict.fromkeys(("unevaluatedProperties", "items", "contains"), parts),
        "patternProperties": parts.map(lambda part: {"^a": part}),
    }
    keyword = st.sampled_from(sorted(values)).flatmap(lambda name: values[name].map(lambda value: (name, value)))
    return st.lists(keyword, min_size=1, max_size=3).map(dict)


schemas = st.recursive(references | st.just({"type": "object"}), combined, max_leaves=6)
documents = st.fixed_dictionaries({"$defs": st.fixed_dictionaries({"x": schemas, "y": schemas})}).flatmap(
    lambda base: combined(schemas).map(lambda top: {**top, **base})
)
answers = st.recursive(
    st.none(),
    lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=12,
).map(lambda answer: {"a": {"a": [{"b": [{"a": {"b": {"a": [[answer]]}}}]}]}})


def evaluations(root: Any, limit: int, answer: Any) -> Counter[tuple[Any, ...]]:
    """Evaluates every branch of a schema; returns how often each place was evaluated, until one is above the limit."""
    counts: Counter[tuple[Any, ...]] = Counter()
    waiting = [(root, answer, ())]
    while waiting:
        schema, value, place = waiting.pop()
        counts[place] += 1
        if counts[place] > limit:
            break
        here = [*schema.get("allOf", ()), *schema.get("anyOf", ())]
        here += [schema[key] for key in ("not", "if", "then") if key in schema]
        here += schema.get("dependentSchemas", {}).values()
        if "$ref" in schema:
            target = schema["$ref"]
            here.append(root if target == "#" else root["$defs"][target[-1]])
        waiting += [(each, value, place) for each in here]
        if isinstance(value, dict):
            for name, member in value.items():
                inner = [schema["properties"][name]] if name in schema.get("properties", ()) else []
                if name == "a":
                    inner += schema.get("patternProperties", {}).values()
                if not inner and "additionalProperties" in schema:
                    inner.append(schema["additionalProperties"])
                inner += [schema["unevaluatedProperties"]] if "unevaluatedProperties" in schema else []
                waiting += [(each, member, (*place, name)) for each in inner]
                if "propertyNames" in schema:
                    waiting.append((schema["propertyNames"], name, (*place, "name of", name)))
        elif isinstance(value, list):
            for index, element in enumerate(value):
                inner = [schema[key] for key in ("items", "contains") if key in schema]
                if index < len(schema.get("prefixItems", ())):
                    inner = [schema["prefixItems"][index], *(schema[key] for key in ("contains",) if key in schema)]
                waiting += [(each, element, (*place, index)) for each in inner]
    return counts


@given(documents, answers, st.integers(2, 20))
def test_no_place_of_any_answer_is_evaluated_more_often_than_the_limit(schema: Any, answer: Any, limit: int) -> None:
    with mock.patch.object(_schema_cost, "LIMITS", replaced(schema_paths=limit)):
        try:
            most_paths(schema)
        except CostlySchema:
            return
    assert max(evaluations(schema, limit, answer).values()) <= limit
