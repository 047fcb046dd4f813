"""Functions as tools: name, description and the schema of the arguments, from signature and docstring.

The schema is msgspec's, of a struct with a field for each parameter. The same struct checks arguments before a call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gai_fast.kernels import encode_json
from gai_fast.model.limits import SHARED
from gai_fast.model.tool_functions import ToolMeta, noted_of
from gai_fast.net.tools.rpc import ToolServerError, depth_of

_META: Final = "meta"
_IMMUTABLE: Final = (str, int, float, bool, type(None))
_BY_NAME: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_REFERENCE: Final = "#/$defs/"


@dataclass(frozen=True, slots=True)
class ToolFunction:
    """A function that is a tool.

    Attributes:
        function: The function.
        own_name: Its name for models, as a decorator gives it. None if none does.
        description: For the model; may be empty.
        schema: The JSON Schema of its arguments, an object's.
        approve: Whether its calls wait for a person.
        idempotent: Whether it may be called again after a fault.
        takes_meta: Whether it has a parameter `meta`, for the `ToolMeta` of a call.
        arguments: The struct of its arguments.
    """

    function: Callable[..., Any]
    own_name: str | None
    description: str
    schema: Mapping[str, Any]
    approve: bool
    idempotent: bool
    takes_meta: bool
    arguments: type[msgspec.Struct]

    def bound(self, arguments: Mapping[str, Any], meta: ToolMeta) -> dict[str, Any]:
        """Returns what the function is called with, by parameter.

        Args:
            arguments: The arguments, as JSON.
            meta: The call.

        Raises:
            ToolServerError: They do not fit the signature; the text names the place.
        """
        try:
            read = msgspec.convert(arguments, self.arguments, str_keys=True)
        except msgspec.ValidationError as problem:
            raise ToolServerError(f"the arguments do not fit: {problem}", "argument") from None
        bound = {name: getattr(read, name) for name in self.arguments.__struct_fields__}
        return {**bound, _META: meta} if self.takes_meta else bound


def read_function(function: Callable[..., Any]) -> ToolFunction:
    """Reads the signature and the docstring of a function.

    Raises:
        ValueError: It cannot be a tool. The text is the end of a sentence that begins with its name.
    """
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, TypeError, ValueError, AttributeError) as problem:
        raise ValueError(f"has a signature that cannot be read: {problem}") from None
    takes_meta, fields = False, []
    for name, parameter in signature.parameters.items():
        if parameter.kind not in _BY_NAME:
            raise ValueError(f"has the parameter {name!r}, and each must be given by its name")
        kind = Any if parameter.annotation is parameter.empty else parameter.annotation
        if name == _META and kind in (Any, ToolMeta):
            takes_meta = True
        else:
            fields.append(_field(name, kind, parameter))
    noted = noted_of(function)
    struct, schema = _schema_of(fields)
    return ToolFunction(
        function, noted.name, _description(function), schema, noted.approve, noted.idempotent, takes_meta, struct
    )


def _field(name: str, kind: Any, parameter: inspect.Parameter) -> tuple[Any, ...]:
    default = parameter.default
    if default is parameter.empty:
        return name, kind
    if isinstance(default, _IMMUTABLE):
        return name, kind, default
    return name, kind, msgspec.field(default_factory=lambda: default)


def _schema_of(fields: list[tuple[Any, ...]]) -> tuple[type[msgspec.Struct], Mapping[str, Any]]:
    """Returns the struct of fields, and its JSON Schema, which refers to nothing outside itself."""
    try:
        struct = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
        [whole], parts = msgspec.json.schema_components([struct], ref_template=f"{_REFERENCE}{{name}}")
    except (TypeError, ValueError, RuntimeError) as problem:
        raise ValueError(f"has a parameter of a type that JSON cannot have: {_line(problem)}") from None
    schema = parts.pop(whole["$ref"].removeprefix(_REFERENCE))
    del schema["title"]
    if not schema["required"]:
        del schema["required"]
    if parts:
        schema["$defs"] = parts
    if len(encode_json(schema)) > SHARED.tool_schema:
        raise ValueError(f"has parameters whose schema has more than {SHARED.tool_schema} bytes (limit tool_schema)")
    if depth_of(schema) > SHARED.tool_depth:
        raise ValueError(f"has a schema that is nested deeper than {SHARED.tool_depth} levels (limit tool_depth)")
    return struct, schema


def _description(function: Callable[..., Any]) -> str:
    written = inspect.getdoc(function) if inspect.isroutine(function) else function.__doc__
    description = inspect.cleandoc(written or "")
    if len(description.encode("utf-8", "replace")) > SHARED.tool_description:
        most = SHARED.tool_description
        raise ValueError(f"has a docstring of more than {most} bytes (limit tool_description)")
    return description


def _line(problem: Exception) -> str:
    return str(problem).partition("\n")[0]
