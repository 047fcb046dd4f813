"""JSON objects of a known shape, read without parsing what nobody asks for.

Only the native reader reads: in Python nothing is cheaper than parsing the text, which is what whoever asks does when
it is told nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

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

    def read(self, text: str) -> tuple[Any, ...] | None:
        r"""The values in the order of the description, `None` for each that is not there.

        Args:
            text: An object's JSON text.

        Returns:
            `None`: it has another shape, is no JSON, or is not read so cheaply, as all is in Python; natively that is
            characters beyond ASCII that are not written as `\uXXXX`, half a surrogate pair, more than 32 levels and
            numbers that readers differ on. Of two members with one name the last counts.
        """
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


def _inner(members: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name, kind in members.items():
        if isinstance(kind, Mapping):
            yield kind
        elif isinstance(kind, list) and len(kind) == 1 and isinstance(kind[0], Mapping):
            yield kind[0]
        elif kind not in _KINDS:
            raise ValueError(f"a shape's {name!r} is none of {', '.join(_KINDS)}, no mapping and no list of one")
