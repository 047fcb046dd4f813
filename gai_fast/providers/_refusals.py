"""Members that an upstream refuses by name: which of them a request can do without, and which one an error names.

A request can do without the members that the gateway has added, and without those that it has translated under
`on_unsupported = "drop"`. Knows no provider.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from gai_fast.core.chunks import label, objects
from gai_fast.model.errors import Error

_NEEDED: Final = frozenset(
    "contents input instructions max_tokens messages model prompt stream system systemInstruction tools".split()
)
"""Members without which a request is another request, or none."""
_ADDED_TO_BODIES: Final = "stream_options"
"""The member that is added to a client's body, to count tokens."""
_CODES: Final = frozenset(("invalid_request", "unsupported"))
_HUMP: Final = re.compile(r"(?<=[a-z])([A-Z])")
_DISTINCT: Final = re.compile(r"[_.]|[a-z][A-Z]")
"""The marks by which a member's name differs from other words."""


def may_name_a_member(error: Error) -> bool:
    """Returns whether an error is an upstream's refusal of a request."""
    return error.code in _CODES and error.provider is not None


def dispensable(sent: Mapping[str, Any], added: Iterable[str]) -> list[str]:
    """Returns the paths of the members that a request can do without, the longest first.

    Args:
        sent: The body that was sent.
        added: The names of its members that the gateway has added or translated.
    """
    return sorted(paths_within(sent, [name for name in added if name not in _NEEDED]), key=len, reverse=True)


def paths_within(sent: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    """Yields the paths of members of a body, and of the members within them.

    Args:
        sent: The body.
        names: The names of the members.
    """
    for name in names:
        if name in sent:
            yield name
            for inner in _inner(sent[name]):
                yield f"{name}.{inner}"


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
    details = error.details or {}
    param, text = details.get("param"), " ".join([error.message, *_violated(details)])
    for path in paths:
        if param == path or _is_named(path, text):
            return path
    for path in paths:
        name = path.rpartition(".")[2]
        if name != path and (_is_named(name, text) or _is_named(_snake(name), text)):
            return path
        if _is_named(_snake(path), text):
            return path
    return None


def not_quoted(paths: Iterable[str], request: Any, error: Error) -> list[str]:
    """Returns the paths whose name is not in a value that an error quotes of the request.

    By such a value one caller could have a member left out of the requests of all.

    Args:
        paths: The paths.
        request: The client's request.
        error: The upstream's error.
    """
    body = request if isinstance(request, dict) else msgspec.json.decode(msgspec.json.encode(request))
    values = [*_texts(body)]
    found: list[str] = []
    for path in paths:
        name = path.rpartition(".")[2]
        if not _is_quoted(name, values, error.message) and not _is_quoted(_snake(name), values, error.message):
            found.append(path)
    return found


def _is_quoted(name: str, values: list[str], text: str) -> bool:
    """Returns whether a text has a value up to a name that is in it: its end may be cut off."""
    return any(name in value and value[: value.find(name) + len(name)] in text for value in values)


def _texts(body: Any) -> Iterator[str]:
    waiting = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, (dict, list)):
            waiting += value.values() if isinstance(value, dict) else value


def _violated(details: Mapping[str, Any]) -> Iterator[str]:
    """Yields the members that Google's error object names (`google.rpc.BadRequest`), in quotes."""
    for detail in objects(details.get("details")):
        for violation in objects(detail.get("fieldViolations")):
            yield f"'{label(violation.get('field'))}'"


def _snake(name: str) -> str:
    """Returns a name as Google's messages have it, in the words of its protocol: `generation_config`."""
    return _HUMP.sub(r"_\1", name).lower()


def _is_named(name: str, text: str) -> bool:
    """Returns whether a text names a member. A name that may be any word counts in quotes, or before a text's colon."""
    first, _, last = name.rpartition(".")
    if last not in text:
        return False
    escaped = re.escape(name)
    if text.startswith(f"{name}:"):
        return True
    if first and re.search(rf"(?<![\w.]){re.escape(first)}(?:\.\w+)*\.{re.escape(last)}(?!\w)", text):
        return True  # a word between: Anthropic's `thinking.enabled.budget_tokens`
    if _DISTINCT.search(name) and re.search(rf"(?<![\w.]){escaped}(?!\w)", text):
        return True
    return re.search(rf"""[`'"]{escaped}[`'"]""", text) is not None
