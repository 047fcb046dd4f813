"""The schemas of tool servers' tools, as providers take them.

OpenAI refuses an object without `properties` ("object schema missing properties"), and null where a list is expected;
servers of Go and PHP send both. A schema that refers to itself, or to another document, is left out with its tool:
Gemini and Anthropic refuse it. Nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gai_fast.providers.requests.parts import NAMED_SCHEMAS, NO_SCHEMAS, is_object
from gai_fast.providers.requests.strict_schemas import is_recursive
from gai_fast.runtime.breathing import breathe

_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_NO_LIST: Final[Mapping[str, type]] = {"required": list, "properties": dict}
"""The types of members that providers refuse with another value."""


def acceptable(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the schema of a tool's arguments as it goes up, None if that is the same; linear in it.

    Args:
        schema: The schema of an object, which is not too deep.

    Raises:
        ValueError: It refers to itself, or to another document.
    """
    written: dict[str, Any] = _written(schema)
    written.setdefault("properties", {})
    if is_recursive(written):
        raise ValueError("its schema refers to itself")
    return None if written == schema else written


def _written(part: Any) -> Any:
    breathe()
    if isinstance(part, list):
        return [_written(each) for each in part]
    if not isinstance(part, Mapping):
        return part
    written: dict[str, Any] = {}
    for name, value in part.items():
        if name in _NO_LIST and not isinstance(value, _NO_LIST[name]):
            continue
        if name in _REFERENCES and isinstance(value, str) and not value.startswith("#"):
            raise ValueError("its schema refers to another document")
        if name in NAMED_SCHEMAS and isinstance(value, dict):
            written[name] = {key: _written(each) for key, each in value.items()}
        else:
            written[name] = value if name in NO_SCHEMAS else _written(value)
    if is_object(part):
        written.setdefault("properties", {})
    return written
