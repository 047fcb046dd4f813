"""Reads the JSON arrays of kept responses: item by item, so that the loop may go on after each.

Owns what an upstream's or a client's text may be that a strict parser refuses: invalid UTF-8, and lone surrogates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from mypy_extensions import mypyc_attr

from gai_fast.core.json.structure import Structure
from gai_fast.formats._members import read_text
from gai_fast.formats.limits import LIMITS
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.errors import Error
from gai_fast.runtime.breathing import breathe

_NOTHING: Final = Raw(b"")


@mypyc_attr(native_class=False)
class Named(Struct):
    """The id of an item, as a JSON text; its other members are skipped."""

    id: Raw = _NOTHING


UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError)
"""What a strict parser raises."""
_ITEMS: Final = msgspec.json.Decoder(list[Raw])
_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])
_TEXT: Final = msgspec.json.Decoder(str)
_OBJECT: Final = ord("{")
_ARRAY: Final = ord("[")
_LEVELS: Final = 4
"""Levels that are read in parts: an item, its content, a part, and what a provider puts there."""
_VALUE: Final = msgspec.json.Decoder()
_ESCAPES: Final = re.compile(rb"\\(?:u[dD][89a-fA-F][0-9a-fA-F]{2}|.)", re.S)
_BOM: Final = b"\xef\xbb\xbf"
_PLAIN: Final = b"\\u0000"
_BETWEEN: Final = re.compile(rb"[\s,]*")


def id_of(named: Named) -> str:
    """Returns the id of an item. Empty if it has none, or one that is no text.

    Args:
        named: The item.

    Raises:
        MsgspecError: A strict parser refuses it.
    """
    text = bytes(named.id)
    return _TEXT.decode(text) if text.startswith(b'"') else ""


def item_texts(text: bytes) -> Sequence[Raw | bytes]:
    """Returns the JSON text of each item of an array, unparsed; none of any other text.

    Args:
        text: JSON.
    """
    try:
        return _ITEMS.decode(text)
    except UNREADABLE:
        pass
    # A strict parser skips no lone surrogates: it splits a text of the same length without them.
    text = text.removeprefix(_BOM)
    try:
        sizes = [len(bytes(item)) for item in _ITEMS.decode(_ESCAPES.sub(_without_surrogate, text))]
    except UNREADABLE:
        value = exact(text)
        return [encode_json(item) for item in value] if isinstance(value, list) else ()
    found: list[Raw | bytes] = []
    at = text.index(b"[") + 1
    for size in sizes:
        between = _BETWEEN.match(text, at)
        at = at if between is None else between.end()
        found.append(text[at : at + size])
        at += size
    return found


def _without_surrogate(escape: re.Match[bytes]) -> bytes:
    return _PLAIN if escape.end() - escape.start() == len(_PLAIN) else escape[0]


def value_of(text: Raw | bytes, level: int = 0) -> Any:
    """Returns the value of a JSON text. Of a long one each part is read for itself, so that the loop may go on.

    Args:
        text: JSON.
        level: The number of lists and objects around it.

    Raises:
        Error: `internal`, reason `log_damaged`: it is none.
    """
    breathe()
    try:
        size = len(memoryview(text))
        if size <= LIMITS.parsed_bytes or level >= _LEVELS:
            return _VALUE.decode(text)
        first = memoryview(text)[0]
        if first == _OBJECT:
            return {name: value_of(part, level + 1) for name, part in _MEMBERS.decode(text).items()}
        if first == _ARRAY:
            return [value_of(part, level + 1) for part in _ITEMS.decode(text)]
        return _VALUE.decode(text)
    except UNREADABLE:
        return exact(bytes(text))


def values(text: bytes, structure: Structure | None = None) -> list[Any]:
    """Returns the items of an array; none of any other text.

    Args:
        text: JSON.
        structure: Reads each item before it is parsed. None for a text that is known to be small.

    Raises:
        Error: As `value_of`. Or the structure has more values than a request may have.
    """
    if structure is None and len(text) <= LIMITS.parsed_bytes:
        value = value_of(text)
        return value if isinstance(value, list) else []
    return [*_each(item_texts(text), structure)]


def _each(items: Sequence[Raw | bytes], structure: Structure | None) -> Iterator[Any]:
    for item in items:
        if structure is not None:
            read_text(structure, bytes(item))
        yield value_of(item)


def exact(text: bytes) -> Any:
    """Returns the value of a JSON text that a strict parser refuses.

    Args:
        text: JSON.

    Raises:
        Error: `internal`, reason `log_damaged`: it is none.
    """
    try:
        return parse_exact(text.decode("utf-8", "replace").removeprefix("\ufeff"))
    except ValueError:
        raise Error("internal", "a kept response is damaged", reason="log_damaged") from None
