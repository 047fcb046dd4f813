"""JSON Schemas that an API follows strictly: which ones it takes, and how others are fitted to it.

OpenAI takes a strict schema only if its objects are closed, all their properties are required, each part has a type
("schema must have a 'type' key"), and a reference stands alone ("$ref cannot have keywords"). Anthropic closes objects
too, takes optional properties, and refuses a schema that refers to itself. Knows no provider.

Source: OpenAI's and Anthropic's guides to structured outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from gai_fast.providers.requests.parts import NAMED_SCHEMAS, NO_SCHEMAS, is_object
from gai_fast.runtime.breathing import breathe

_KINDS: Final = frozenset(("$ref", "anyOf", "type"))
"""The members of which OpenAI wants one in each part of a strict schema."""
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_NOT_STRICT: Final = frozenset(
    "allOf contains dependentRequired dependentSchemas else if maxContains maxProperties minContains minProperties not "
    "oneOf patternProperties propertyNames then unevaluatedItems unevaluatedProperties uniqueItems".split()
)
"""The members of a schema that OpenAI refuses in a strict one."""


def all_required(schema: Any) -> Any:
    """Returns a JSON Schema that OpenAI follows strictly: with closed objects. None if closing it is not enough.

    Closing is enough if each object names its properties, all of them are required, no others are allowed, and OpenAI
    takes all parts. An optional property would have to become a required one, and the answers others.

    Args:
        schema: The schema of an object. It is not changed; it is the result if its objects are closed.
    """
    if not isinstance(schema, dict) or schema.get("type") != "object" or "anyOf" in schema:
        return None  # of the outermost value
    try:
        return _all_required(schema)
    except _NotStrictError:
        return None


class _NotStrictError(Exception):
    """A schema cannot be followed strictly."""


def _all_required(schema: Any) -> Any:
    breathe()
    if isinstance(schema, list):
        written = [_part(each) if isinstance(each, dict) else each for each in schema]
        return schema if all(one is other for one, other in zip(written, schema, strict=True)) else written
    if not isinstance(schema, dict):
        return schema
    if not _NOT_STRICT.isdisjoint(schema) or ("$ref" in schema and len(schema) > 1):
        raise _NotStrictError
    closed: dict[str, Any] = {}
    for name, value in schema.items():
        if name in NAMED_SCHEMAS and isinstance(value, dict):
            inner = {key: _part(each) for key, each in value.items()}
            closed[name] = value if all(inner[key] is value[key] for key in value) else inner
        elif name == "items":
            closed[name] = _part(value)
        else:
            closed[name] = value if name in NO_SCHEMAS else _all_required(value)
    properties = schema.get("properties")
    if isinstance(properties, dict) or is_object(schema):
        required = schema.get("required")
        names = frozenset(name for name in required if isinstance(name, str)) if isinstance(required, list) else ()
        is_fit = isinstance(properties, dict) and all(name in names for name in properties)
        if not is_fit or schema.get("additionalProperties", False) is not False:
            raise _NotStrictError
        closed["additionalProperties"] = False
    is_same = len(closed) == len(schema) and all(closed[name] is schema[name] for name in schema)
    return schema if is_same else closed


def _part(schema: Any) -> Any:
    """Returns `_all_required` of a schema within another one. The inner schema must have a type."""
    if not isinstance(schema, dict) or _KINDS.isdisjoint(schema):
        raise _NotStrictError
    return _all_required(schema)


def is_recursive(schema: Mapping[str, Any]) -> bool:
    """Returns whether a JSON Schema refers to itself, by references within it that lead to where they stand.

    Args:
        schema: The schema.
    """
    open_places: set[int] = set()
    done: set[int] = set()
    waiting: list[tuple[Any, bool]] = [(schema, True)]  # a schema that is entered, or left
    while waiting:
        part, is_entered = waiting.pop()
        place = id(part)
        if not is_entered:
            open_places.discard(place)
            done.add(place)
        elif place in open_places:
            return True
        elif place not in done:
            open_places.add(place)
            waiting.append((part, False))
            waiting += [(each, True) for each in _inner(part, schema)]
    return False


def _inner(part: Any, schema: Mapping[str, Any]) -> list[Any]:
    """Returns the objects and lists of a part of a schema, and the part to which it refers."""
    breathe()
    if isinstance(part, list):
        return [each for each in part if isinstance(each, (dict, list))]
    found: list[Any] = []
    for name, value in part.items():
        if name in NAMED_SCHEMAS and isinstance(value, dict):
            found += [each for each in value.values() if isinstance(each, dict)]
        elif name not in NO_SCHEMAS and isinstance(value, (dict, list)):
            found.append(value)
    for name in _REFERENCES:
        reference = part.get(name)
        if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
            named = _named(unquote(reference), schema)
            if isinstance(named, dict):
                found.append(named)
    return found


def _named(reference: str, schema: Any) -> Any:
    """Returns the part of a schema that a decoded JSON Pointer names (RFC 6901, 6). None if there is none."""
    for name in reference.split("/")[1:]:
        if isinstance(schema, list) and name.isdecimal() and len(name) <= _DIGITS:
            at = int(name)
            schema = schema[at] if at < len(schema) else None
        else:
            schema = schema.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(schema, dict) else None
    return schema


_DIGITS: Final = 9
"""The most digits of an index: a request has fewer values."""
