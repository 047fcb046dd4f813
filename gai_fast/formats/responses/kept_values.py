"""Reads the JSON arrays of kept responses: item by item, so that the loop may go on after each.

Owns what an upstream's or a client's text may be that a strict parser refuses: invalid UTF-8, and lone surrogates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from json import JSONDecoder
from json.decoder import py_scanstring  # type: ignore[attr-defined]  # typeshed has no name without C
from json.scanner import py_make_scanner  # type: ignore[attr-defined]  # as above
from typing import Any, Final, cast

import msgspec
from msgspec import Raw, Struct
from mypy_extensions import mypyc_attr

from gai_fast.core.json.structure import Structure
from gai_fast.formats._members import read_text
from gai_fast.formats.limits import LIMITS
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.errors import Error
from gai_fast.runtime.json_pieces import UNREADABLE, items_of, read_value

_NOTHING: Final = Raw(b"")


@mypyc_attr(native_class=False)
class Named(Struct):
    """The id of an item, as a JSON text; its other members are skipped."""

    id: Raw = _NOTHING


_TEXT: Final = msgspec.json.Decoder(str)
_BOM: Final = b"\xef\xbb\xbf"


def _slow_decoder() -> JSONDecoder:
    """Returns a decoder without C code, which would hold the interpreter for all of a text: 0.9 s for 12 MB."""
    decoder: Any = JSONDecoder(parse_constant=_refused)
    decoder.parse_string = py_scanstring
    decoder.scan_once = py_make_scanner(decoder)
    return cast("JSONDecoder", decoder)


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_SLOW: Final = _slow_decoder()


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
        return items_of(text.removeprefix(_BOM))
    except UNREADABLE:
        value = exact(text)
        return [encode_json(item) for item in value] if isinstance(value, list) else ()


def value_of(text: Raw | bytes) -> Any:
    """Returns the value of a JSON text.

    Args:
        text: JSON.

    Raises:
        Error: `internal`, reason `log_damaged`: it is none.
    """
    return read_value(text, exact)


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
    """Returns the value of a JSON text that a strict parser refuses. A long one is read by the interpreter.

    Args:
        text: JSON.

    Raises:
        Error: `internal`, reason `log_damaged`: it is none.
    """
    readable = text.decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        return parse_exact(readable) if len(text) <= LIMITS.parsed_bytes else _SLOW.decode(readable)
    except (ValueError, RecursionError):
        raise Error("internal", "a kept response is damaged", reason="log_damaged") from None
