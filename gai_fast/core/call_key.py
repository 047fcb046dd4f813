"""Hashes of calls: the key under which a call is made once, and the digest that an approval is for.

Both are the SHA-256 of canonical JSON (RFC 8785). What that has no form for has one here:

1. A whole number that a double cannot hold is its decimal text.
2. A lone surrogate is U+FFFD.

They are made in the loop, for arguments of up to 256 KiB: orjson writes what it writes as RFC 8785 says, and is given
the rest as it must be.
"""

from __future__ import annotations

from decimal import Decimal
from hashlib import sha256
from math import isfinite
from typing import Any, Final

import orjson

_LARGEST: Final = 2**53 - 1
_AS_THEY_ARE: Final = frozenset({str, int, bool, type(None)})
"""The types of values that orjson writes as RFC 8785 says, or refuses: rules 1 and 2."""


def idempotency_key(caller: str, request: str, step: int, ordinal: int, tool: str, arguments: Any) -> str:
    """Returns the key of a call: equal for each attempt of it, and different for every other call.

    Args:
        caller: The name of the run's caller.
        request: The idempotency key of its request, or the id of its stream.
        step: The turn that asks for the call, from 1.
        ordinal: The place of the call among those of its turn, from 0.
        tool: The address of the tool.
        arguments: Its arguments, any JSON.
    """
    return _hash([caller, request, step, ordinal, tool, arguments])


def approval_digest(approval_id: str, tool: str, arguments: Any) -> str:
    """Returns the digest that a decision must name, so that the call that is made is the one that was approved.

    Args:
        approval_id: The id of the approval.
        tool: The address of the tool.
        arguments: Its arguments, any JSON.
    """
    return _hash([approval_id, tool, arguments])


def canonical_json(value: Any) -> bytes:
    """Returns a value in the form of RFC 8785, and of the rules above.

    Args:
        value: Any JSON.

    Raises:
        ValueError: It has a number that is not finite.
        TypeError: It has what is no JSON, or is nested deeper than orjson writes (254 levels).
    """
    try:
        return orjson.dumps(_ordered(value), option=orjson.OPT_STRICT_INTEGER)
    except orjson.JSONEncodeError:
        return orjson.dumps(_ordered(_replaced(value)), option=orjson.OPT_STRICT_INTEGER)


def _hash(value: Any) -> str:
    return sha256(canonical_json(value)).hexdigest()


def _ordered(value: Any) -> Any:
    """Returns a value with its members in order, and with numbers that orjson writes as they must be."""
    if isinstance(value, dict):
        names = sorted(value) if all(map(str.isascii, value)) else sorted(value, key=_utf16)
        if _AS_THEY_ARE.issuperset(map(type, value.values())):
            return {name: value[name] for name in names}
        return {name: _ordered(value[name]) for name in names}
    if isinstance(value, (list, tuple)):
        return value if _AS_THEY_ARE.issuperset(map(type, value)) else [_ordered(each) for each in value]
    return _number(value) if isinstance(value, float) else value


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def _number(value: float) -> Any:
    """Returns what orjson writes as ECMAScript does. It writes `1.0` and `1e20` where that has `1` and all digits."""
    if not isfinite(value):
        raise ValueError("a number that is not finite has no JSON")
    size = abs(value)
    if value.is_integer() and size <= _LARGEST:
        return int(value)
    if 1e-3 <= size < _LARGEST:
        return value
    written = repr(value)
    if 1e-6 <= size < 1e21:
        return orjson.Fragment(format(Decimal(written), "f").removesuffix(".0"))
    return orjson.Fragment(written.replace("e-0", "e-"))


def _replaced(value: Any) -> Any:
    """Returns a value by rules 1 and 2."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_replaced(name): _replaced(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(each) for each in value]
    if type(value) is int and abs(value) > _LARGEST:
        return str(value)
    return value
