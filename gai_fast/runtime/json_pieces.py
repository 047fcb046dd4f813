"""Reads long JSON texts in pieces, of which C code reads each at once: the loop may go on after each.

The structure of the text is known to be within its limits (`core/json/structure.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.limits import LIMITS

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError)
"""What a strict parser raises."""
Exact = Callable[[bytes], Any]
"""Returns the value of a text that a strict parser refuses."""

_VALUE: Final = msgspec.json.Decoder()
_ITEMS: Final = msgspec.json.Decoder(list[Raw])
_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])
_OBJECT: Final = ord("{")
_ARRAY: Final = ord("[")
_TEXT: Final = ord('"')
_LEVELS: Final = 8
"""Levels that are read in parts: a batch, a message, its result, its content, a part, and what stands in that."""
_PART: Final = re.compile(rb"(?:[^\\]+|\\u[dD][89abAB]..\\u....|\\u....|\\.){1,4096}", re.S)
"""A part of a text, with whole escapes and pairs."""
_HALF: Final = re.compile(
    rb"\\(?:\\(?:\\\\)*|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2}))"
)
"""Half of a surrogate pair, as its group; or what may look like one."""
_NO_HALF: Final = b"\\u0000"
_BETWEEN: Final = re.compile(rb"[\s,]*")


def read_value(text: Raw | bytes, exact: Exact | None = None, level: int = 0) -> Any:
    """Returns the value of a JSON text.

    Args:
        text: JSON.
        exact: Reads the parts that a strict parser refuses. None: they are not JSON.
        level: The number of lists and objects around it.

    Raises:
        UNREADABLE: It is not JSON. Or as `exact`.
    """
    breathe()
    view = memoryview(text)
    first = view[0] if len(view) > LIMITS.json_piece and level < _LEVELS else 0
    try:
        if first == _OBJECT:
            return {name: read_value(part, exact, level + 1) for name, part in _MEMBERS.decode(text).items()}
        if first == _ARRAY:
            return _list_of(_ITEMS.decode(text), exact, level + 1)
        if first == _TEXT and level:  # a part of something, and so one text
            return "".join([_VALUE.decode(b'"%b"' % part) for part in _parts(bytes(view[1:-1]))])
        return _VALUE.decode(text)
    except UNREADABLE:
        if exact is None:
            raise
        return exact(bytes(view))


def _parts(text: bytes) -> Iterator[bytes]:
    for part in _PART.finditer(text):
        breathe()
        yield part[0]


def _list_of(items: list[Raw], exact: Exact | None, level: int) -> list[Any]:
    """Returns the values of items; short ones are read together."""
    found: list[Any] = []
    group: list[Raw] = []
    size = 0
    for item in items:
        breathe()
        length = len(memoryview(item))
        if length > LIMITS.json_piece:
            found += _values_of(group, exact, level)
            found.append(read_value(item, exact, level))
            group, size = [], 0
            continue
        group.append(item)
        size += length
        if size > LIMITS.json_piece:
            found += _values_of(group, exact, level)
            group, size = [], 0
    return found + _values_of(group, exact, level)


def _values_of(items: list[Raw], exact: Exact | None, level: int) -> list[Any]:
    try:
        read: list[Any] = _VALUE.decode(b"[%b]" % b",".join(items))
    except UNREADABLE:
        return [read_value(item, exact, level) for item in items]
    return read


def items_of(text: bytes) -> Sequence[Raw | bytes]:
    """Returns the JSON text of each item of an array, unparsed. Texts may have halves of surrogate pairs.

    Args:
        text: JSON.

    Raises:
        UNREADABLE: It is no array.
    """
    try:
        return _ITEMS.decode(text)
    except UNREADABLE:
        items = _ITEMS.decode(without_halves(text, _NO_HALF))  # as long
    found: list[Raw | bytes] = []
    at = text.index(b"[") + 1
    for item in items:
        breathe()
        between = _BETWEEN.match(text, at)
        at = at if between is None else between.end()
        end = at + len(memoryview(item))
        found.append(text[at:end])
        at = end
    return found


def without_halves(text: bytes, written: bytes) -> bytes:
    """Returns JSON in which an escape as long stands for each escaped half of a surrogate pair: a strict parser takes
    it. The same if it has none.

    Args:
        text: JSON.
        written: The escape: six characters.
    """
    if b"\\ud" not in text and b"\\uD" not in text:
        return text
    changed = bytearray(text)
    for found in _HALF.finditer(text):
        breathe()
        if found[1] is not None:
            changed[found.start() : found.end()] = written
    return bytes(changed)
