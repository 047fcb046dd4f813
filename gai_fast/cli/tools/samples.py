"""Arguments that fit the schema of a tool, to try it.

Follows what tools use of JSON Schema: types, `properties`, `required`, `enum`, `const`, bounds, references within the
schema. An argument that is not required is left out. A reference elsewhere is not followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gai_fast.cli.limits import LIMITS

_FORMATS: Final = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "name@example.com",
    "uri": "https://example.com/",
    "uuid": "6f1c2a3e-58f4-4a1b-9d6e-0c1b2a3d4e5f",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "hostname": "example.com",
}


def arguments_for(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the required arguments, each with a value that its schema most likely accepts."""
    made = _made(schema, _Root(schema), 0)
    return made if isinstance(made, dict) else {}


class _Root:
    """A whole schema, and how many values may still be made from it."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        self.left = LIMITS.sample_values


def _made(schema: Any, root: _Root, depth: int) -> Any:
    schema = _resolved(schema, root)
    root.left -= 1
    if "const" in schema:
        return schema["const"]
    for key in ("examples", "enum"):
        if values := _list(schema, key):
            return values[0]
    if "default" in schema:
        return schema["default"]
    for key in ("anyOf", "oneOf"):
        choices = _list(schema, key)
        if choices and depth < LIMITS.sample_depth:
            return _made(choices[0], root, depth + 1)
    return _of_type(schema, root, depth)


def _resolved(schema: Any, root: _Root, depth: int = 0) -> Mapping[str, Any]:
    """Returns the schema that references within the root lead to, with what `allOf` adds."""
    for _ in range(LIMITS.sample_depth):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str):
            break
        schema = root.schema if reference.startswith("#") else None
        for name in reference.split("/")[1:]:
            schema = schema.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(schema, dict) else None
    if not isinstance(schema, dict) or depth > LIMITS.sample_depth:
        return {}
    parts = schema.get("allOf")
    if not isinstance(parts, list):
        return schema
    merged: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    required: list[Any] = []
    for part in (*(_resolved(each, root, depth + 1) for each in parts), schema):
        merged.update(part)
        properties.update(_dict(part, "properties"))
        required += _list(part, "required")
    return {**merged, "properties": properties, "required": required}


def _dict(schema: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = schema.get(key)
    return value if isinstance(value, dict) else {}


def _list(schema: Mapping[str, Any], key: str) -> list[Any]:
    value = schema.get(key)
    return value if isinstance(value, list) else []


def _of_type(schema: Mapping[str, Any], root: _Root, depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    match kind:
        case "string":
            text = _FORMATS.get(str(schema.get("format")), "text")
            return text.ljust(min(_whole(schema.get("minLength")), LIMITS.sample_length), "x")
        case "integer" | "number":
            least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
            beyond = 1 if "exclusiveMinimum" in schema or "minimum" not in schema else 0
            most = schema.get("maximum")
            number = least + beyond if type(least) in (int, float) else 1
            return min(number, most) if isinstance(most, int | float) else number
        case "boolean":
            return False
        case "null":
            return None
        case "array":
            count = min(_whole(schema.get("minItems")), LIMITS.sample_length) if depth < LIMITS.sample_depth else 0
            return [_made(schema.get("items"), root, depth + 1) for _ in range(count) if root.left > 0]
    if kind == "object" or _dict(schema, "properties"):
        return _object(schema, root, depth)
    return "text"


def _object(schema: Mapping[str, Any], root: _Root, depth: int) -> dict[str, Any]:
    properties = _dict(schema, "properties")
    names = _list(schema, "required") if depth < LIMITS.sample_depth else []
    return {
        name: _made(properties.get(name), root, depth + 1) for name in names if isinstance(name, str) and root.left > 0
    }


def _whole(value: Any) -> int:
    return value if type(value) is int else 0
