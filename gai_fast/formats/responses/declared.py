"""The names of the custom tools that a kept response's request declared, read from its JSON.

Owns how a long list of tools is read: one by one, and of each only what tells its name. A text of tools is read once,
however many calls ask for a name. Namespaces stand in no other namespace (OpenAI's types).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Raw, Struct
from mypy_extensions import mypyc_attr

from gai_fast.formats.responses.kept_values import item_texts, value_of
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.json_pieces import UNREADABLE

_NOTHING: Final = Raw(b"")


@mypyc_attr(native_class=False)
class _Tool(Struct):
    """The members of a tool that tell its name, as JSON texts; the others are skipped."""

    type: Raw = _NOTHING
    name: Raw = _NOTHING
    tools: Raw = _NOTHING


_TOOL: Final = msgspec.json.Decoder(_Tool)
_CUSTOM: Final = Raw(b'"custom"')
_NAMESPACE: Final = Raw(b'"namespace"')


def custom_names(tools: bytes) -> list[str]:
    """Returns the names of the custom tools in a list of tools, those of its namespaces too.

    Args:
        tools: JSON. Of a text that is no list there are none.
    """
    found: list[str] = []
    for tool in _each(tools):
        if tool.type == _NAMESPACE:
            for inner in _each(bytes(tool.tools) or b"[]"):
                _add(found, inner)
        else:
            _add(found, tool)
    return found


def _add(found: list[str], tool: _Tool) -> None:
    if tool.type == _CUSTOM:
        try:
            name = parse_exact(bytes(tool.name).decode("utf-8", "replace"))
        except ValueError:
            return
        if isinstance(name, str):
            found.append(name)


def _each(tools: bytes) -> Iterator[_Tool]:
    """Yields the tools of a list; the loop may go on before each."""
    for text in item_texts(tools):
        breathe()
        try:
            tool = _TOOL.decode(text)
        except UNREADABLE:  # no object, or one that a strict parser refuses
            value = value_of(text)
            if not isinstance(value, dict):
                continue
            tool = _Tool(*[Raw(encode_json(value.get(name))) for name in ("type", "name", "tools")])
        yield tool
