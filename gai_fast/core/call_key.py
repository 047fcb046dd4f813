"""Hashes of calls: the key under which a call is made once, and the digest that an approval is for.

Both are the SHA-256 of canonical JSON (RFC 8785). What that has no form for has one here:

1. A whole number that a double cannot hold is its decimal text.
2. A lone surrogate is U+FFFD.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

import rfc8785

_LARGEST: Final = 2**53 - 1


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


def _hash(value: Any) -> str:
    return sha256(rfc8785.dumps(_canonical(value))).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_canonical(name): _canonical(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(each) for each in value]
    if type(value) is int and abs(value) > _LARGEST:
        return str(value)
    return value
