"""`Shape`: reads the values of JSON objects of a known shape without parsing the rest.

Only the native implementation does so. In Python nothing is cheaper than parsing the text, so this implementation
always returns `None`, and the caller parses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_KINDS: Final = ("text", "count", "object", "any")
_MAX_MEMBERS: Final = 32
"""The most members of a shape. No upstream's chunk has as many, and so many values fit on the stack."""


class Shape:
    """Reads JSON objects that have only the named members; every other member must be `null`.

    Args:
        members: The kind of each member, by name. A member that is `null` counts as missing.

            * `"text"`: a string; `read` returns its value.
            * `"count"`: a whole number of up to 15 digits; `read` returns its value.
            * `"object"`: an object; `read` returns its value, parsed, and `{}` for `null`.
            * `"any"`: any value; `read` leaves it out.
            * A mapping: an object with these members.
            * A list of one mapping: an array of at most one such object; `read` returns the number of objects, then
              the object's members.

    Raises:
        ValueError: A kind that is not in this list, no member, or more than 32 members in all.
    """

    def __init__(self, members: Mapping[str, Any]) -> None:
        count_members(members)

    def read(self, text: str) -> tuple[Any, ...] | None:
        r"""Returns the values in the order of the description, `None` for each missing value.

        Args:
            text: An object's JSON text.

        Returns:
            The values. `None` if the text has another shape, is not JSON, or cannot be read cheaply. In Python the
            result is always `None`. The native implementation returns `None` for characters beyond ASCII that are not
            written as `\uXXXX`, half a surrogate pair, more than 32 levels, and numbers that readers read differently.
            If two members have the same name, the last one counts.
        """
        return None


def count_members(members: Mapping[str, Any]) -> int:
    """Counts the members of a shape, including the members of its objects.

    Raises:
        ValueError: The shape has no member, too many members, or a member of an unknown kind.
    """
    count = len(members) + sum(map(count_members, _inner(members)))
    if not members or count > _MAX_MEMBERS:
        raise ValueError(f"a shape has 1 to {_MAX_MEMBERS} members")
    return count


def _inner(members: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name, kind in members.items():
        if isinstance(kind, Mapping):
            yield kind
        elif isinstance(kind, list) and len(kind) == 1 and isinstance(kind[0], Mapping):
            yield kind[0]
        elif kind not in _KINDS:
            raise ValueError(f"a shape's {name!r} is none of {', '.join(_KINDS)}, no mapping and no list of one")
