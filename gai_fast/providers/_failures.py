"""Reads error bodies in all shapes that providers use.

Finds the object that describes the failure, and its members with codes, status and message.
`gai_fast/model/upstream_errors.py` interprets the codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gai_fast.core.chunks import count
from gai_fast.kernels import encode_json
from gai_fast.model.upstream_errors import UpstreamFailure


def error_object(body: Any) -> Mapping[str, Any] | None:
    """Finds the object in an error body that describes the failure. Returns None if the body is no error.

    Reads `{"error": {…}}`, `{"error": "text"}`, `{"code", "error": "text"}`, `{"object": "error", …}`, `{"type":
    "error", …}`, `{"detail": …}`, `{"message": "text"}` alone, `{"errors": [{…}]}`, `{"base_resp": {"status_code":
    1004, "status_msg": "text"}}`, and each of them in a one-element array. The official clients accept any `error`
    that is not empty.
    """
    if isinstance(body, list) and body:
        body = body[0]
    # `dict` is checked first and alone: a check against an abstract class, or against two classes, is slow.
    if not isinstance(body, dict) and not isinstance(body, Mapping):
        return None
    if _OF_ERRORS.isdisjoint(body):
        return None  # most chunks
    error = body.get("error")
    several = body.get("errors") if error is None and "choices" not in body else error
    if isinstance(several, list) and several:
        error = several[0]
    if error is not None and isinstance(error, Mapping) and error:
        return error
    base = body.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        number = count(base["status_code"]) or 0
        return {"code": number, "status": _STATUSES.get(number), "message": base.get("status_msg")}
    if isinstance(error, str) and error:
        return {**body, "message": error}
    if error or body.get("object") == "error" or body.get("type") == "error":
        return body
    if "choices" not in body and (body.get("detail") or isinstance(body.get("message"), str)):
        return body
    if "choices" not in body and "type" not in body and any(isinstance(body.get(name), str) for name in _ALONE):
        return body
    return None


_ALONE: Final = ("code", "error_code", "error_message", "error_msg", "error_type")
"""Members that only an error has, beside no other sign of one."""
_STATUSES: Final = {1001: 504, 1002: 429, 1004: 401, 1008: 402, 1039: 429, 1041: 429, 2013: 400, 2049: 401, 2056: 429}
"""The status for each number in `base_resp`, as MiniMax documents them."""
_REFUSALS: Final = frozenset((1026, 1027, 1301))
"""Numbers for refused content, which `upstream_errors.py` knows. All others mean something else at each provider."""
_OF_ERRORS: Final = frozenset(("detail", "error", "errors", "message", "object", "type", "base_resp", *_ALONE))
"""An object without any of these members is no error."""

_WORDS: Final = (
    "code",
    "error_code",
    "error_type",
    "type",
    "status",
    "status_code",
    "raw_status_code",
    "http_status_code",
)
"""The members of an error object that hold a code or the status."""


def failure_of(error: Mapping[str, Any], further: Any = None) -> UpstreamFailure:
    """Reads an error object. Its members may have the names of any provider.

    Args:
        error: The object that `error_object` found.
        further: An inner object with more specific codes, or None.
    """
    try:
        encode_json([[error]])  # a client's frame has two levels around it
    except ValueError:  # nested too deep to be serialized, or a number out of a float's range
        error = {key: value for key, value in error.items() if isinstance(value, (str, int))}
    words: list[str] = []
    status: int | None = None
    for source in (further, error):
        if not isinstance(source, Mapping):
            continue
        for key in _WORDS:
            word = source.get(key)
            number = count(word)
            if number is not None and 400 <= number < 600:
                status = status or number
            elif number in _REFUSALS:
                words.append(str(number))
            elif isinstance(word, str) and word:
                words.append(word)
    message = error.get("message") or error.get("detail") or error.get("error_message") or error.get("error_msg")
    message = _worded(message)
    return UpstreamFailure(message, tuple(words), status, details=error)


def _worded(message: Any) -> str:
    """Returns a message as text. Validators send lists of `{loc, msg}`, some servers an object."""
    if isinstance(message, str):
        return message
    if isinstance(message, Mapping):
        inner = message.get("message") or message.get("detail") or message.get("msg")
        where = message.get("loc")
        if inner and isinstance(where, list):
            return f"{'.'.join(map(str, where))}: {_worded(inner)}"
        return _worded(inner) if inner else encode_json(message).decode()
    if isinstance(message, list):
        return "; ".join(map(_worded, message))
    return "" if message is None else str(message)
