"""The arguments of a call, before it is made.

1. They are an object within its bounds (`core/tool_arguments.py`).
2. They have what the schema requires, and the types that it names for them (there too).
3. With the extra `schema`, all else that it says holds too. A schema that the library cannot use, or that costs too
   much, is checked by rule 2 alone: the tool itself knows best.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gai_fast.core.tool_arguments import problem_of_arguments
from gai_fast.kernels import encode_json
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.processors._schema import Schema, is_available


class ArgumentCheck:
    """The checks of one source's tools; each schema is compiled once."""

    def __init__(self) -> None:
        self._is_whole = is_available()
        self._compiled: dict[str, tuple[Mapping[str, Any], Schema | None]] = {}

    def checked(
        self, tool: str, schema: Mapping[str, Any], arguments: Any, *, is_known: bool = False
    ) -> Mapping[str, Any]:
        """Returns the arguments of a call.

        Args:
            tool: The tool's name.
            schema: The JSON Schema of its arguments.
            arguments: Any JSON.
            is_known: Whether rules 1 and 2 are known to hold.

        Raises:
            ToolServerError: `argument`: they are not usable. The text is for the model, and quotes no value.
        """
        checked = arguments if is_known else checked_arguments(schema, arguments)
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
    problem = problem_of_arguments(schema, arguments)
    if problem:
        raise ToolServerError(problem, "argument")
    checked: Mapping[str, Any] = arguments
    return checked
