"""What an upstream's error body says, in the shapes that the providers have for it.

Owns which object speaks of the failure, and where in it the words stand. What the words mean is the matter of
`gai_fast/errors.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gai_fast._impl import encode_json
from gai_fast.errors import Said
from gai_fast.providers._chunks import count


def error_object(body: Any) -> Mapping[str, Any] | None:
    """The object of an error body that speaks of the failure, in the shapes of PROVIDERS §12, or `None`.

    Understands `{"error": {…}}`, `{"error": "text"}`, `{"code", "error": "text"}`, `{"object": "error", …}`,
    `{"type": "error", …}`, `{"detail": …}`, `{"message": "text"}` alone, `{"errors": [{…}]}`, and each of them in a
    one-element array. The official clients take whatever `error` is, unless it is empty.
    """
    if isinstance(body, list) and body:
        body = body[0]
    # `dict` first, and alone: to ask an abstract class takes its time, as it does to ask for two.
    if not isinstance(body, dict) and not isinstance(body, Mapping):
        return None
    if _OF_ERRORS.isdisjoint(body):
        return None  # as most chunks
    error = body.get("error")
    several = body.get("errors") if error is None and "choices" not in body else error
    if isinstance(several, list) and several:
        error = several[0]
    if error is not None and isinstance(error, Mapping) and error:
        return error
    if isinstance(error, str) and error:
        return {**body, "message": error}
    if error or body.get("object") == "error" or body.get("type") == "error":
        return body
    if "choices" not in body and (body.get("detail") or isinstance(body.get("message"), str)):
        return body
    return None


_OF_ERRORS: Final = frozenset(("detail", "error", "errors", "message", "object", "type"))
"""Members without any of which no object speaks of a failure."""

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
"""Where an error object names what is wrong, or the status."""


def said_of(error: Mapping[str, Any], further: Any = None) -> Said:
    """What an error object says, whatever its provider calls the parts.

    Args:
        error: The object that `error_object` found.
        further: An object inside it whose words say more and outrank it.
    """
    try:
        encode_json(error)
    except ValueError:  # nested too deep to be told, or a number beyond all floats
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
            elif isinstance(word, str) and word:
                words.append(word)
    message = _worded(error.get("message") or error.get("detail"))
    return Said(message, tuple(words), status, details=error)


def _worded(message: Any) -> str:
    """A message as text: validators send lists of `{loc, msg}`, some servers put the object into the message."""
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
