"""The arguments of a call of a tool: what must hold of them before a person is asked, and before the call is made.

1. They are an object within the bounds of `model/limits.py`, and its numbers are finite: JSON has no others.
2. They have what the schema requires, and the types that it names for them. What is no schema there says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from gai_fast.kernels import encode_json
from gai_fast.model.limits import SHARED


def problem_of_arguments(schema: Mapping[str, Any], arguments: Any) -> str:
    """Returns why the arguments of a call are not usable, for its model; empty if they are.

    Args:
        schema: The JSON Schema of an object.
        arguments: Any JSON.
    """
    if not isinstance(arguments, dict):
        return "the arguments are no JSON object"
    problem = _problem_of_size(arguments)
    if problem:
        return problem
    required, properties = schema.get("required"), schema.get("properties")
    for name in required if isinstance(required, list) else ():
        if isinstance(name, str) and name not in arguments:
            return f"the argument {name!r} is missing"
    for name, value in arguments.items():
        part = properties.get(name) if isinstance(properties, dict) else None
        kinds = part.get("type") if isinstance(part, dict) else None
        named = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
        if named and not any(_is_of(kind, value) for kind in named):
            return f"the argument {name!r} is not of the type {' or '.join(map(str, named))}"
    return ""


def _problem_of_size(arguments: dict[str, Any]) -> str:
    """Returns in what rule 1 does not hold of an object."""
    level: list[Any] = [] if _FLAT.issuperset(map(type, arguments.values())) else [arguments]
    for _ in range(SHARED.tool_depth + 1):
        if any(isinstance(each, float) and not isfinite(each) for each in level):
            return "the arguments have a number that is not finite"
        level = [each for each in level if isinstance(each, (dict, list))]
        if not level:
            break
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    else:
        return f"the arguments are nested deeper than {SHARED.tool_depth} levels (limit tool_depth)"
    if len(encode_json(arguments)) > SHARED.tool_arguments:
        return f"the arguments have more than {SHARED.tool_arguments} bytes (limit tool_arguments)"
    return ""


_FLAT: Final = frozenset({str, int, bool, type(None)})
"""The types of values that have no values within, and are always finite."""
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
    "number": (int, float),
}


def _is_of(kind: Any, value: Any) -> bool:
    """Returns whether a value is of a type of JSON Schema; of a type that is none, every value is."""
    if kind == "integer":
        return (type(value) is int) or (type(value) is float and value.is_integer())
    if kind == "number" and isinstance(value, bool):
        return False
    return not isinstance(kind, str) or kind not in _TYPES or isinstance(value, _TYPES[kind])
