"""The schemas of tool servers' tools, as providers take them.

OpenAI refuses an object without `properties` ("object schema missing properties"), and null where a list is expected;
servers of Go and PHP send both. A schema that refers to itself, or to another document, is left out with its tool:
Gemini and Anthropic refuse it. Nothing is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import is_
from typing import Any, Final

from gai_fast.kernels import encode_json
from gai_fast.providers.requests.parts import NAMED_SCHEMAS, NO_SCHEMAS, is_object
from gai_fast.providers.requests.strict_schemas import is_recursive
from gai_fast.runtime.breathing import breathe

_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_REFERRING: Final = re.compile(rb'"\$(?:r|dynamicR|recursiveR)ef"')
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
    if "properties" not in written:
        written = {**written, "properties": {}}
    if _REFERRING.search(encode_json(schema)) and is_recursive(written):
        raise ValueError("its schema refers to itself")
    return None if written is schema else written


def _written(part: Any) -> Any:
    """Returns a list or an object as it goes up: itself, if that is the same."""
    breathe()
    if isinstance(part, list):
        items = [_written(each) if isinstance(each, (dict, list)) else each for each in part]
        return part if all(map(is_, items, part)) else items
    written: dict[str, Any] = {}
    for name, value in part.items():
        if name in _NO_LIST and not isinstance(value, _NO_LIST[name]):
            continue
        if name in _REFERENCES and isinstance(value, str) and not value.startswith("#"):
            raise ValueError("its schema refers to another document")
        if name in NAMED_SCHEMAS and isinstance(value, dict):
            inner = [_written(each) if isinstance(each, (dict, list)) else each for each in value.values()]
            written[name] = value if all(map(is_, inner, value.values())) else dict(zip(value, inner, strict=True))
        elif name in NO_SCHEMAS or not isinstance(value, (dict, list)):
            written[name] = value
        else:
            written[name] = _written(value)
    if is_object(part):
        written.setdefault("properties", {})
    is_same = len(written) == len(part) and all(map(is_, written.values(), part.values()))
    return part if is_same else written
