"""`x-mcp-header`: arguments of a call that its HTTP request repeats as headers `Mcp-Param-*`. Sans-IO.

MCP 2026-07-28, Streamable HTTP, "Custom Headers from Tool Parameters" and "Value Encoding".
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from gai_fast.runtime.breathing import breathe

KEY: Final = "x-mcp-header"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TYPES: Final = frozenset({"string", "integer", "boolean"})
_PLAIN: Final = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")  # no blank at either end
_MARKED: Final = re.compile(r"=\?base64\?.*\?=", re.DOTALL)
_LARGEST: Final = 2**53 - 1
"""The largest whole number that every reader of JSON keeps."""


class ParamHeader(NamedTuple):
    """One argument that is repeated.

    Attributes:
        name: The whole name of the header.
        path: The names that lead to the argument, from the outermost object.
    """

    name: str
    path: tuple[str, ...]


def headers_in(schema: Mapping[str, Any]) -> tuple[ParamHeader, ...]:
    """Returns the headers that the schema of a tool's arguments asks for.

    Raises:
        ValueError: One is not valid: the tool must not be used. The text says why.
    """
    found: list[ParamHeader] = []
    reached: list[tuple[tuple[str, ...], Any]] = [((), schema)]
    while reached:
        breathe()
        path, part = reached.pop()
        if not isinstance(part, dict):
            continue
        if KEY in part:
            found.append(_header(path, part))
        inner = part.get("properties")
        if isinstance(inner, dict):
            reached += [((*path, name), each) for name, each in inner.items()]
    names = [each.name.lower() for each in found]
    if len({*names}) < len(names):
        raise ValueError(f"two parameters have the same {KEY}")
    if _count(schema) > len(found):
        raise ValueError(f"{KEY} stands where no argument is certain to be")
    return tuple(sorted(found))


def _header(path: tuple[str, ...], part: Mapping[str, Any]) -> ParamHeader:
    name = part[KEY]
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ValueError(f"{KEY} is not the name of a header")
    kind = part.get("type")
    if not path or not isinstance(kind, str) or kind not in _TYPES:
        raise ValueError(f"{KEY} stands at a parameter that is neither string, integer nor boolean")
    return ParamHeader(f"Mcp-Param-{name}", path)


def _count(schema: Any) -> int:
    """Returns how many schemas ask for a header. Names of properties, and values, are no schemas' keys."""
    count = 0
    waiting: list[tuple[Any, bool]] = [(schema, False)]  # with whether its keys are names
    while waiting:
        breathe()
        part, has_names = waiting.pop()
        if isinstance(part, list):
            waiting += [(each, False) for each in part]
        elif isinstance(part, dict):
            count += KEY in part and not has_names
            waiting += [
                (each, not has_names and name in _OF_NAMES)
                for name, each in part.items()
                if has_names or name not in _VALUES
            ]
    return count


_OF_NAMES: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose objects have names as keys."""
_VALUES: Final = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose values are no schemas."""


def values_for(headers: tuple[ParamHeader, ...], arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the headers of a call. One without an argument, or with null, is left out.

    Raises:
        ValueError: A number is too large for a header.
    """
    written: list[tuple[str, str]] = []
    for header in headers:
        value: Any = arguments
        for name in header.path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, bool):
            written.append((header.name, "true" if value else "false"))
        elif isinstance(value, int):
            if abs(value) > _LARGEST:
                raise ValueError(f"the argument {'.'.join(header.path)!r} is too large for a header")
            written.append((header.name, str(value)))
        elif isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST:
            written.append((header.name, str(int(value))))
        elif isinstance(value, str):
            written.append((header.name, header_text(value)))
    return written


def header_text(value: str) -> str:
    """Returns a text as the value of a header: as it is, or in Base64 if a header would not keep it."""
    if _PLAIN.fullmatch(value) and not _MARKED.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode('utf-8', 'replace')).decode()}?="
