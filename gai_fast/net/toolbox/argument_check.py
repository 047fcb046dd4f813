"""The arguments of a call, before it is made.

1. They are an object within the bounds of `limits`.
2. They have what the schema requires, and the types that it names for them.
3. With the extra `schema`, all else that it says holds too. A schema that the library cannot use, or that costs too
   much, is checked by rule 2 alone: the tool itself knows best.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gai_fast.kernels import encode_json
from gai_fast.model.limits import SHARED
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.rpc import ToolServerError, depth_of
from gai_fast.processors._schema import Schema, is_available


class ArgumentCheck:
    """The checks of one source's tools; each schema is compiled once."""

    def __init__(self) -> None:
        self._is_whole = is_available()
        self._compiled: dict[str, tuple[Mapping[str, Any], Schema | None]] = {}

    def checked(self, tool: str, schema: Mapping[str, Any], arguments: Any) -> Mapping[str, Any]:
        """Returns the arguments of a call.

        Args:
            tool: The tool's name.
            schema: The JSON Schema of its arguments.
            arguments: Any JSON.

        Raises:
            ToolServerError: `argument`: they are not usable. The text is for the model, and quotes no value.
        """
        checked = checked_arguments(schema, arguments)
        compiled = self._schema(tool, schema) if self._is_whole else None
        problem = None if compiled is None else compiled.problem(checked)
        if problem is not None:
            raise ToolServerError(f"the arguments do not fit the schema: {problem}", "argument")
        return checked

    def _schema(self, tool: str, schema: Mapping[str, Any]) -> Schema | None:
        known = self._compiled.get(tool)
        if known is not None and known[0] is schema:
            return known[1]
        try:
            compiled = Schema(encode_json(schema).decode())
        except ValueError:
            compiled = None
        if len(self._compiled) >= LIMITS.listed_tools:
            self._compiled.clear()  # the list has changed
        self._compiled[tool] = schema, compiled
        return compiled


def checked_arguments(schema: Mapping[str, Any], arguments: Any) -> Mapping[str, Any]:
    """Returns the arguments of a call: rules 1 and 2.

    Args:
        schema: The JSON Schema of an object.
        arguments: Any JSON.

    Raises:
        ToolServerError: `argument`: they are not usable. The text is for the model.
    """
    if not isinstance(arguments, dict):
        raise ToolServerError("the arguments are no JSON object", "argument")
    if depth_of(arguments) > SHARED.tool_depth:
        text = f"the arguments are nested deeper than {SHARED.tool_depth} levels (limit tool_depth)"
        raise ToolServerError(text, "argument")
    if len(encode_json(arguments)) > LIMITS.tool_arguments:
        text = f"the arguments have more than {LIMITS.tool_arguments} bytes (limit tool_arguments)"
        raise ToolServerError(text, "argument")
    required, properties = schema.get("required"), schema.get("properties")
    for name in required if isinstance(required, list) else ():
        if name not in arguments:
            raise ToolServerError(f"the argument {name!r} is missing", "argument")
    for name, value in arguments.items():
        part = properties.get(name) if isinstance(properties, dict) else None
        kinds = part.get("type") if isinstance(part, dict) else None
        named = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
        if named and not any(_is_of(kind, value) for kind in named):
            raise ToolServerError(
                f"the argument {name!r} is not of the type {' or '.join(map(str, named))}", "argument"
            )
    return arguments


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
