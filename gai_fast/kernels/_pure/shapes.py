"""`Shape`, `cut_member`, `frame_members` and `closing_counts`: read values of JSON objects without parsing the rest.

In Python nothing is cheaper than parsing a whole text: here all but `closing_counts` return `None`, and the caller
parses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from gai_fast.kernels._pure.limits import LIMITS

_KINDS: Final = ("text", "count", "object", "any")
_SOUGHT: Final = 16
"""The most names that are sought at once."""
_OBJECT_NAME: Final = 30
"""The most bytes of the name of an inner object."""
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


def cut_member(text: bytes, name: bytes) -> tuple[str, bytes, bytes] | None:
    """Cuts a JSON object at a text, which can then be replaced, while its other members stay as they are.

    Args:
        text: The object.
        name: The name of the member that holds the text, without escapes.

    Returns:
        The text; the object up to it, and the rest, both without white space between the members. `None` if the object
        is not JSON or cannot be cut cheaply. In Python the result is always `None`. The native implementation returns
        `None` if two members have the same name; if the member is missing, empty or no text; if the text or a name has
        escapes or characters beyond ASCII; for more than 32 members or levels, and for numbers that readers read
        differently.
    """
    return None


def frame_members(
    frame: bytes,
    outer: tuple[bytes, ...],
    inner: tuple[bytes, ...],
    known: bytes = b"",
    heads: tuple[bytes, ...] = (),
    said: tuple[bytes, ...] = (),
) -> tuple[int, ...] | None:
    """Finds members of the object in a frame of SSE, and members of an object in it; nothing is parsed.

    Args:
        frame: A frame: a line of data in one line, perhaps after an `event:`.
        outer: The names of members of the frame's object, without escapes. The last one holds the inner object.
        inner: The names of members of that object.
        known: An inner object whose members are known.
        heads: Beginnings of frames that are not read if they say nothing but `said`.
        said: Members as JSON without white space. A frame says nothing else if no member of these names, in any
            object, has another value. A name with escapes is another name.

    Returns:
        Where each value begins and ends, in the order of the names; -1 for a member that is missing. Without those of
        `inner` if the inner object is `known`. Empty if there is no inner object, or the frame is not read. `None` if
        the frame has another form, is not JSON, or cannot be read cheaply. In Python the result is `None` if the frame
        has the name of the inner object, and is to be read. The native implementation returns `None` if two members of
        an object have the same name, a name has escapes or characters beyond ASCII, an object has more than 64 members
        or a value more than 32 levels, and for numbers that readers read differently.

    Raises:
        ValueError: No outer name, more than 16 names in all, or the object's has more than 30 bytes. Or a member of
            `said` does not begin with its name in quotes.
    """
    if not outer or len(outer) + len(inner) > _SOUGHT or len(outer[-1]) > _OBJECT_NAME:
        raise ValueError(f"1 to {_SOUGHT} names are sought, the object's has at most {_OBJECT_NAME} bytes")
    if frame.find(b'"%b"' % outer[-1]) < 0:
        return ()
    return () if said and frame.startswith(heads) and _says_only(frame, said) else None


def _says_only(frame: bytes, said: tuple[bytes, ...]) -> bool:
    """Returns whether no member has the name of one of these members, but another value."""
    for member in said:
        named = member.find(b'"', 1) + 1
        if not named:
            raise ValueError("a member's text begins with a name in quotes")
        if re.search(b"%b(?!%b)" % (re.escape(member[:named]), re.escape(member[named:])), frame) is not None:
            return False
    return True


_BLANKS: Final = rb"[ \t\r\n]*"
_PLAIN: Final = rb'"[^"\\\x00-\x1f\x80-\xff]*"'
_COUNT: Final = rb"%b%b:%b(?:null|0|[1-9][0-9]{0,14})%b" % (_PLAIN, _BLANKS, _BLANKS, _BLANKS)
_NAMED: Final = re.compile(rb"(%b)%b:%b\Z" % (_PLAIN, _BLANKS, _BLANKS))
_COUNTS: Final = re.compile(rb"(\{%b(?:%b(?:,%b%b)*)?\})%b\}%b" % (_BLANKS, _COUNT, _BLANKS, _COUNT, _BLANKS, _BLANKS))


def closing_counts(text: bytes) -> tuple[str, dict[str, int | None]] | None:
    """Returns the counts with which a JSON object ends: the usage of most answers. What stands before is not read.

    Args:
        text: The object, or its last bytes.

    Returns:
        The name of the object's last member, and this object's members; of equal names the last counts. `None` if the
        member does not begin in the last `limits.closing_counts` bytes, holds other values than `null` and whole
        numbers of up to 15 digits, or has a name with escapes or characters beyond ASCII.
    """
    last = text[-LIMITS.closing_counts :]
    opening = last.rfind(b"{")
    counts = None if opening < 0 else _COUNTS.fullmatch(last, opening)
    named = None if counts is None else _NAMED.search(last, 0, opening)
    if counts is None or named is None:
        return None
    return named[1][1:-1].decode("ascii"), orjson.loads(counts[1])


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
