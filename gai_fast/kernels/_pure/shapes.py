"""`Shape`: reads the values of JSON objects of a known shape without parsing the rest.

Only the native reader does so. In Python nothing is cheaper than parsing the text, so this one always returns `None`,
and the caller parses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_KINDS: Final = ("text", "count", "object", "any")
_MOST: Final = 32
"""Members of a shape: no chunk has as many, and their values fit on the stack."""


class Shape:
    """Reads JSON objects that have only the named members; every other member must be `null`.

    Args:
        members: The kind of each member, by name. A member that is `null` counts as missing.

            * `"text"`: a string; its value.
            * `"count"`: a whole number from 0 to 15 digits; its value.
            * `"object"`: an object; its value, parsed, and `{}` for `null`.
            * `"any"`: any value; it is left out.
            * A mapping: an object with these members.
            * A list of one mapping: an array of at most one such object; how many it holds, then its members.

    Raises:
        ValueError: A kind that is none of these, no member, or more than 32 in all.
    """

    def __init__(self, members: Mapping[str, Any]) -> None:
        count_members(members)

    def read(self, text: str) -> tuple[Any, ...] | None:
        r"""Returns the values in the order of the description, `None` for each missing one.

        Args:
            text: An object's JSON text.

        Returns:
            `None` if the text has another shape, is not JSON, or cannot be read cheaply. In Python that is always so;
            natively it is for characters beyond ASCII that are not written as `\uXXXX`, half a surrogate pair, more
            than 32 levels, and numbers on which readers differ. Of two members with one name the last counts.
        """
        return None


def count_members(members: Mapping[str, Any]) -> int:
    """Counts the members of a shape, those of its objects included.

    Raises:
        ValueError: There are none, too many, or one of an unknown kind.
    """
    count = len(members) + sum(map(count_members, _inner(members)))
    if not members or count > _MOST:
        raise ValueError(f"a shape has 1 to {_MOST} members")
    return count


def _inner(members: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name, kind in members.items():
        if isinstance(kind, Mapping):
            yield kind
        elif isinstance(kind, list) and len(kind) == 1 and isinstance(kind[0], Mapping):
            yield kind[0]
        elif kind not in _KINDS:
            raise ValueError(f"a shape's {name!r} is none of {', '.join(_KINDS)}, no mapping and no list of one")
