"""JSON objects of a known shape, read without parsing what nobody asks for.

`gai_fast._native.shapes` reads the same and may say `None` where this does not: whoever asks parses the text then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

_KINDS: Final = ("text", "count", "object", "any")
_MOST: Final = 32
"""Members of a shape: no chunk has as many, and a reading fits on the stack."""


class Shape:
    """Reads JSON objects that say nothing but what it names: every other member is `null`.

    Args:
        members: By name, what a member is; `null` is the same as none.

            * `"text"`: a string; its value.
            * `"count"`: a whole number from 0 to 15 digits; its value.
            * `"object"`: an object; its value, parsed, and `{}` for `null`.
            * `"any"`: whatever is there is left out.
            * A mapping: an object with these members.
            * A list of one mapping: an array of at most one such object; how many it holds, then its members.

    Raises:
        ValueError: Another description, no member or more than 32 in all.
    """

    def __init__(self, members: Mapping[str, Any]) -> None:
        count_members(members)
        self._members = members
        self._places = count_places(members)

    def read(self, text: str) -> tuple[Any, ...] | None:
        r"""The values in the order of the description, `None` for each that is not there.

        Args:
            text: An object's JSON text.

        Returns:
            `None`: it has another shape, is no JSON, or is not read so cheaply: characters beyond ASCII that are not
            written as `\uXXXX`, or half a surrogate pair.
        """
        if not text.isascii():
            return None
        try:
            values = _read(self._members, orjson.loads(text))
        except (ValueError, RecursionError):
            return None
        return None if values is None else tuple(values)


def _read(members: Mapping[str, Any], found: Any) -> list[Any] | None:
    if not isinstance(found, dict) or any(found[name] is not None for name in found.keys() - members.keys()):
        return None
    values: list[Any] = []
    for name, kind in members.items():
        if kind == "any":
            continue
        read = _read_member(kind, found[name]) if name in found else [None] * count_places({name: kind})
        if read is None:
            return None
        values += read
    return values


def _read_member(kind: Any, value: Any) -> list[Any] | None:
    if kind == "object" and (value is None or isinstance(value, dict)):
        return [value or {}]
    if value is None:
        return [None] * count_places({"": kind})
    if kind == "text":
        return [value] if isinstance(value, str) else None
    if kind == "count":
        return [value] if type(value) is int and 0 <= value < 10**15 else None
    if isinstance(kind, Mapping):
        return _read(kind, value)
    if not isinstance(kind, str) and isinstance(value, list) and len(value) < 2:
        inner = _read(kind[0], value[0]) if value else [None] * count_places(kind[0])
        return None if inner is None else [len(value), *inner]
    return None


def count_members(members: Mapping[str, Any]) -> int:
    """The members of a shape, those of the objects in it included.

    Raises:
        ValueError: There are none, too many, or one that is described as a shape does not know.
    """
    count = len(members) + sum(map(count_members, _inner(members)))
    if not members or count > _MOST:
        raise ValueError(f"a shape has 1 to {_MOST} members")
    return count


def count_places(members: Mapping[str, Any]) -> int:
    """How many values a shape has."""
    own = [name for name, kind in members.items() if kind != "any" and not isinstance(kind, Mapping)]
    return len(own) + sum(map(count_places, _inner(members)))


def _inner(members: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name, kind in members.items():
        if isinstance(kind, Mapping):
            yield kind
        elif isinstance(kind, list) and len(kind) == 1 and isinstance(kind[0], Mapping):
            yield kind[0]
        elif kind not in _KINDS:
            raise ValueError(f"a shape's {name!r} is none of {', '.join(_KINDS)}, no mapping and no list of one")
