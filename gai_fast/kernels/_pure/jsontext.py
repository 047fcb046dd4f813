"""Writes and reads JSON text exactly, including long integers and lone surrogates (docs/http-api.md).

Knows nothing of events or framing. `orjson` does most of the work. This module handles the values that orjson refuses
or rounds: integers over 64 bits and lone surrogates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import Any, Final, NoReturn

import orjson

from gai_fast.kernels._pure import faults
from gai_fast.model.events import JSONText
from gai_fast.model.limits import SHARED


def well_formed(text: str) -> str:
    """Returns the text without surrogates: adjacent halves are joined, a lone half becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def escape(text: str) -> bytes:
    r"""Returns the text as a JSON string, with its quotes, in UTF-8.

    Escapes are `\" \\ \b \t \n \f \r` and `\u00xx` (lower case) for other C0 controls; all other characters are
    written unchanged. Adjacent surrogate halves are joined, a lone half becomes U+FFFD.

    Raises:
        ValueError: `text` is not a `str` (also a `TypeError`).
    """
    if not isinstance(text, str):
        raise faults.not_text("text", text)
    try:
        return orjson.dumps(text)
    except TypeError:
        return orjson.dumps(well_formed(text))


def join_json(pieces: list[bytes | str]) -> bytes:
    """Returns JSON, joined from pieces: `bytes` are JSON already, each `str` is written as a JSON string by `escape`.

    Raises:
        ValueError: A piece is neither `bytes` nor a `str` (also a `TypeError`).
    """
    return b"".join([piece if isinstance(piece, bytes) else escape(piece) for piece in pieces])


def encode_json(value: Any) -> bytes:
    """Returns the value as canonical JSON: UTF-8, no white space, keys in their own order.

    The bytes are orjson's for every value that orjson can write (dataclasses, `datetime`, `UUID` and `Enum` included).
    In addition it writes integers of any length, lone surrogates as U+FFFD, and `JSONText` verbatim at any depth.

    NaN and infinities are refused. orjson writes them as `null`, so a value is checked again only if its JSON holds
    `null`; all other values cost one search for four bytes.

    Raises:
        ValueError: NaN, an infinity, a key that is not `str`, an unknown type (each with its path), or more than
            `limits.arguments_depth` levels. The error is a `TypeError`, too.
    """
    try:
        try:
            written = orjson.dumps(value, default=_fragment)
        except TypeError:
            parts: list[bytes] = []
            _write(value, parts.append, "$", 0)
            return b"".join(parts)
        if b"null" in written:
            _refuse_non_finite(value, "$")
        return written
    except RecursionError:
        raise faults.too_deep(SHARED.arguments_depth) from None


def _fragment(value: object) -> orjson.Fragment:
    if isinstance(value, JSONText):
        return orjson.Fragment(_verbatim(value, "$"))
    raise TypeError


def _verbatim(value: JSONText, path: str) -> bytes:
    # JSON allows a line end outside of strings as white space, but here it would end the frame that holds the text.
    if "\n" in value.text or "\r" in value.text:
        raise faults.line_end_in_json(path)
    try:
        return value.text.encode()
    except UnicodeEncodeError:
        return well_formed(value.text).encode()


def _plain(value: Any) -> Any:
    """Returns the value that orjson writes in place of an enum's member or a dataclass."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return value


def _refuse_non_finite(value: Any, path: str) -> None:
    value = _plain(value)
    if isinstance(value, float):
        if not isfinite(value):
            raise faults.not_finite(path)
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_non_finite(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{path}[{index}]")


def _write(value: Any, write: Callable[[bytes], None], path: str, depth: int) -> None:
    """Writes a value that orjson refuses. Raises for the value's first part without a JSON form."""
    value = _plain(value)
    if isinstance(value, str):
        write(escape(value))
    elif isinstance(value, JSONText):
        write(_verbatim(value, path))
    elif isinstance(value, float):
        if not isfinite(value):
            raise faults.not_finite(path)
        write(orjson.dumps(float(value)))
    elif isinstance(value, int) and not isinstance(value, bool):
        # Decimal writes integers of any length; str() refuses integers over `sys.get_int_max_str_digits()` digits.
        write(str(Decimal(value)).encode())
    elif isinstance(value, (dict, list, tuple)):
        if depth == SHARED.arguments_depth:
            raise faults.too_deep(SHARED.arguments_depth)
        if isinstance(value, dict):
            separator = b"{"
            for key, item in value.items():
                if not isinstance(key, str):
                    raise faults.key_not_text(path, key)
                write(separator + escape(key) + b":")
                _write(item, write, f"{path}.{key}", depth + 1)
                separator = b","
            write(b"}" if value else b"{}")
        else:
            separator = b"["
            for index, item in enumerate(value):
                write(separator)
                _write(item, write, f"{path}[{index}]", depth + 1)
                separator = b","
            write(b"]" if value else b"[]")
    else:
        try:
            write(orjson.dumps(value))
        except TypeError:
            raise faults.unknown_type(path, value) from None


def compact_json(text: str) -> str | None:
    """Returns the JSON text without white space outside of strings, everything else verbatim.

    Args:
        text: Any text.

    Returns:
        The compact text; `parse_exact` accepts it. `None` if the text is not JSON (RFC 8259 has no `NaN` and no
        `Infinity`).

    Raises:
        ValueError: `text` is not a `str` (also a `TypeError`).
    """
    if not isinstance(text, str):
        raise faults.not_text("text", text)
    try:
        parse_exact(text)
    except ValueError:
        return None
    return without_blanks(text)


def without_blanks(text: str) -> str:
    """Returns a valid JSON text without white space outside of strings.

    The cost of a pass depends on the text's length alone. A pattern, with a step for each escape, took ten times as
    long: 0.7 s for 9 MiB of them.
    """
    # Valid JSON has no control characters but white space. They replace the escapes, so that only strings have quotes.
    parts = text.replace("\\\\", "\0\0").replace('\\"', "\0\1").split('"')
    outside = '"'.join(parts[::2])
    for blank in " \t\n\r":
        outside = outside.replace(blank, "")
    parts[::2] = outside.split('"')
    return '"'.join(parts).replace("\0\0", "\\\\").replace("\0\1", '\\"')


def parse_exact(text: str) -> Any:
    """Returns the value of a JSON text, integers exact.

    orjson parses the text, unless a long run of digits may be an integer over 64 bits, which orjson rounds. `json`
    parses these texts, and texts that orjson refuses but RFC 8259 allows (escaped lone surrogates, which stay in the
    value).

    Raises:
        ValueError: The text is not JSON (with the reason and the place), has more than `limits.arguments_depth` levels,
            or has an integer of more than `limits.integer_digits` digits.
    """
    if not isinstance(text, str):
        raise faults.not_text("text", text)
    value = _parse(text)
    if text.count("[") + text.count("{") > SHARED.arguments_depth and _depth(text) > SHARED.arguments_depth:
        raise faults.too_deep(SHARED.arguments_depth)
    return value


def _parse(text: str) -> Any:
    if not _LONG_DIGITS.search(text):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass  # `json` decides: it accepts more texts, and its error messages are shown
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise faults.not_json(error.msg, error.pos) from None
    except RecursionError:
        raise faults.too_deep(SHARED.arguments_depth) from None


def _depth(text: str) -> int:
    """Returns the number of levels of a valid JSON text."""
    depth = deepest = 0
    for token in _BRACKET.findall(text):
        if token in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in "]}":
            depth -= 1
    return deepest


def _integer(digits: str) -> int:
    if len(digits) > SHARED.integer_digits:
        raise faults.integer_too_long(SHARED.integer_digits)
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise faults.not_json(f"{name} is no JSON value", 0)


LONG_DIGITS: Final = 19
"""An integer with so many digits may exceed 64 bits: 2**63 has 19 digits, 2**64 has 20."""

_LONG_DIGITS: Final = re.compile(f"[0-9]{{{LONG_DIGITS}}}")
_DECODER: Final = json.JSONDecoder(parse_int=_integer, parse_constant=_refuse_constant)
# Used only on valid JSON: on an unclosed string it would take quadratic time.
_BRACKET: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"' + r"|[\[\]{}]")
