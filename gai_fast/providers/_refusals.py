"""Members that an upstream refuses by name: which of them a request can do without, and which one an error names.

A request can do without the members that the gateway has added, and without those that it has translated under
`on_unsupported = "drop"`. Knows no provider.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from gai_fast.model.errors import Error

_NEEDED: Final = frozenset(
    "contents input instructions max_tokens messages model prompt stream system systemInstruction tools".split()
)
"""Members without which a request is another request, or none."""
_ADDED_TO_BODIES: Final = "stream_options"
"""The member that is added to a client's body, to count tokens."""
_CODES: Final = frozenset(("invalid_request", "unsupported"))
_DISTINCT: Final = re.compile(r"[_.]|[a-z][A-Z]")
"""What names of members have and other words lack."""


def may_name_a_member(error: Error) -> bool:
    """Returns whether an error is an upstream's refusal of a request."""
    return error.code in _CODES and error.provider is not None


def dispensable(sent: Mapping[str, Any], added: Iterable[str]) -> list[str]:
    """Returns the paths of the members that a request can do without, the longest first.

    Args:
        sent: The body that was sent.
        added: The names of its members that the gateway has added or translated.
    """
    paths: list[str] = []
    for name in added:
        if name in sent and name not in _NEEDED:
            paths.append(name)
            paths += [f"{name}.{inner}" for inner in _inner(sent[name])]
    return sorted(paths, key=len, reverse=True)


def _inner(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from (f"{name}.{more}" for more in _inner(inner))


def added_to(body: Mapping[str, Any], sent: Mapping[str, Any]) -> list[str]:
    """Returns the names of the members that were added to a client's body."""
    return [name for name in sent if name not in body or name == _ADDED_TO_BODIES]


def named_member(error: Error, paths: Iterable[str]) -> str | None:
    """Returns the path that an error names, the first if it names several. None if it names none.

    Args:
        error: The upstream's error.
        paths: The paths, the longest first.
    """
    param = (error.details or {}).get("param")
    for path in paths:
        if param == path or _is_named(path, error.message):
            return path
    for path in paths:
        name = path.rpartition(".")[2]
        if name != path and _is_named(name, error.message):
            return path
    return None


def _is_named(name: str, text: str) -> bool:
    """Returns whether a text names a member. A name that may be any word counts in quotes alone."""
    escaped = re.escape(name)
    if _DISTINCT.search(name) and re.search(rf"(?<![\w.]){escaped}(?!\w)", text):
        return True
    return re.search(rf"""[`'"]{escaped}[`'"]""", text) is not None
