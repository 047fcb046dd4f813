"""Reads error bodies in all shapes that providers use.

Finds the object that describes the failure, and its members with codes, status and message.
`gai_fast/model/upstream_errors.py` interprets the codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from gai_fast.core.json.chunks import count, member, parse_chunk
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Malformed
from gai_fast.model.upstream_errors import UpstreamFailure
from gai_fast.providers.answers.limits import LIMITS


def error_object(body: Any) -> Mapping[str, Any] | None:
    """Finds the object in an error body that describes the failure. Returns None if the body is not an error.

    Reads, also within a one-element array:

    1. `{"error": {…}}`, `{"error": "text"}`, and the same with `Error`, `fault` or `errors`, which may be a list. The
       text may be JSON. The official clients accept any `error` that is not empty.
    2. `{"object": "error", …}` and `{"type": "error", …}`.
    3. `{"base_resp": {"status_code": 1004, "status_msg": "text"}}` and `{"Response": {"Error": {…}}}`.
    4. An object without choices with `message` or `detail`, with one of the members that only an error has, with a code
       and a text beside it, or with `success` or `ok` that is false. If its code means success, it is not an error.
    """
    if isinstance(body, list) and body:
        body = body[0]
    # `dict` is checked first and alone: a check against an abstract class, or against two classes, is slow.
    if not isinstance(body, dict):
        return error_object(dict(body)) if isinstance(body, Mapping) else None
    return _error_in(body)


def _error_in(body: dict[str, Any]) -> Mapping[str, Any] | None:
    """Finds the object in an error body that is an object; as `error_object`."""
    is_named = False
    for name, value in body.items():  # `isdisjoint` and look-ups cost a chunk 1,400 instructions more
        if name == "type" or name == "object":
            is_named = is_named or (isinstance(value, str) and value == "error")
        elif name in _SIGNS or (name == "message" and isinstance(value, str)):
            break
    else:  # most chunks
        return body if is_named else None
    error = body.get("error") or body.get("Error") or body.get("fault")
    has_choices = bool(body.get("choices"))
    if not error and "choices" not in body:
        error = body.get("errors")
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, Mapping) and error:
        return error
    base = body.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        number = count(base["status_code"]) or 0
        return {"code": number, "status": _STATUSES.get(number), "message": base.get("status_msg")}
    if isinstance(error, str) and error:
        word = {"code": error} if _CODE.fullmatch(error) and "code" not in body else {}
        return _error_as_text(error, body) or {**body, **word, "message": error}
    if error or body.get("object") == "error" or body.get("type") == "error":
        return body
    return None if has_choices else _bare_error(body)


def _error_as_text(text: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the object of an error that is JSON as text (Amazon's Responses API, vercel/ai#20505), or None.

    Args:
        text: The text.
        body: The object that holds it, whose other members, such as a status, belong to the error.
    """
    if not text.startswith("{"):
        return None
    try:
        inner = parse_chunk(text)
    except Malformed:
        return None
    found = error_object(inner)
    if found is None:
        return None
    return {name: value for name, value in body.items() if name not in ("error", "type", "object")} | dict(found)


def _bare_error(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns an object without choices that is itself an error: form 4 of `error_object`."""
    within = member(body, "Response").get("Error")
    if isinstance(within, Mapping) and within:
        return within
    code = next((body[name] for name in _CODES if body.get(name) is not None), None)
    if code is not None and str(code).lower() in _SUCCESSES:
        return None
    message = body.get("message") or body.get("Message")
    if "choices" not in body and (body.get("detail") or (message and isinstance(message, str))):
        return body
    if "type" in body:  # an event of a dialect that has them
        return None
    if body.get("success") is False or body.get("ok") is False:
        return body
    if any(body.get(name) and isinstance(body[name], str) for name in _ALONE):
        return body
    has_text = any(body.get(name) and isinstance(body[name], str) for name in _TEXTS)
    is_failed = count(code) is not None or (body.get("status") in ("error", "failed") and "object" not in body)
    return body if has_text and is_failed else None


_CODE: Final = re.compile(r"[a-z]+(?:_[a-z]+){1,8}")
"""An error that is a text and has the form of a code, such as `insufficient_quota`."""
_INVALID: Final = 422
_CODES: Final[tuple[str, ...]] = (
    "code",
    "error_code",
    "errorCode",
    "errcode",
    "Code",
    "status_code",
    "statusCode",
    "status",
)
"""Members that hold a code, a number or a word."""
_SUCCESSES: Final = frozenset(("0", "200", "ok", "success"))
"""Codes that mean success, as text in lower case."""
_ALONE: Final[tuple[str, ...]] = (
    "code",
    "error_code",
    "errorCode",
    "errcode",
    "error_message",
    "errorMessage",
    "error_msg",
    "errmsg",
    "error_description",
    "error_type",
    "err",
    "__type",
)
"""Members that identify an error without another sign of one, if their value is text."""
_TEXTS: Final[tuple[str, ...]] = (
    "message",
    "faultstring",
    "detail",
    "error_message",
    "error_msg",
    "errorMessage",
    "errmsg",
    "msg",
    "Message",
    "error_description",
    "err",
    "reason",
)
"""Members that hold the message, the most usual first."""
_STATUSES: Final = {1001: 504, 1002: 429, 1004: 401, 1008: 402, 1039: 429, 1041: 429, 2013: 400, 2049: 401, 2056: 429}
"""The status for each number in `base_resp`, as MiniMax documents them."""
_REFUSALS: Final = frozenset((1026, 1027, 1301, 10013, 10014))
"""Numbers for refused content, which `upstream_errors.py` knows. All others mean something else at each provider."""
_SIGNS: Final = frozenset(
    ("error", "errors", "Error", "fault", "base_resp", "Response", "success", "ok", *_CODES, *_ALONE, *_TEXTS)
) - {"message"}
"""An object without any of these members, and without a text as `message`, is an error only if its `object` or `type`
says so. Each chunk of Ollama has an object as `message`, for which form 4 would take 2,000 instructions."""

_WORDS: Final[tuple[str, ...]] = (
    "code",
    "error_code",
    "errorCode",
    "errcode",
    "Code",
    "error_type",
    "type",
    "__type",
    "status",
    "status_code",
    "statusCode",
    "raw_status_code",
    "http_status_code",
)
"""The members of an error object that hold a code or the status."""


def is_error_type(kind: str) -> bool:
    """Returns whether a `type` names an error, not an event: `BadRequestError`, or the URI of a problem.

    Args:
        kind: The value of `type`. RFC 9457, 3.1.1: the `type` of a problem is a URI.
    """
    # The last letter is compared first: to slice and fold the types of all events took 1.5 % of a request of Responses.
    return (kind.endswith(("r", "R")) and kind[-5:].lower() == "error") or ":" in kind


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
    if status is None and isinstance(error.get("detail"), list):
        status = _INVALID  # the faults of a request that its validator has found
    message = _worded(next((error[name] for name in _TEXTS if error.get(name)), None))
    return UpstreamFailure(_with_inner(message, error), tuple(words), status, details=error)


def _with_inner(message: str, error: Mapping[str, Any]) -> str:
    """Returns the message of an error with the reason of the error within it, and who gave that.

    Gateways say "Provider returned error", and the reason in a member of its own.
    """
    metadata = error.get("metadata")
    holders = (error, metadata) if isinstance(metadata, Mapping) else (error,)
    reason = next((found for holder in holders if (found := _inner_reason(holder, LIMITS.inner_errors))), "")
    name = next((holder[key] for holder in holders for key in _NAMES if isinstance(holder.get(key), str)), "")
    if name and name.lower() not in message.lower():
        message = f"{message} ({name[: LIMITS.kept_word]})" if message else name[: LIMITS.kept_word]
    reason = reason[: LIMITS.inner_reason].strip()
    if not reason or reason in message:
        return message
    return f"{message}: {reason}" if message else reason


def _inner_reason(holder: Mapping[str, Any], depth: int) -> str:
    """Returns the reason of the error within an object; empty if there is none.

    Args:
        holder: The object.
        depth: How deep errors may still be within each other.
    """
    for key in _INNER:
        inner = holder.get(key)
        if isinstance(inner, list):
            inner = inner[0] if inner else None
        if isinstance(inner, str) and inner.lstrip()[:1] in ("{", "["):
            try:
                inner = parse_chunk(inner)
            except Malformed:
                inner = None  # it is cut
        if isinstance(inner, str) and not inner.lstrip().startswith("<"):  # no page of HTML
            return inner
        if not isinstance(inner, Mapping) or not inner:
            continue
        found = error_object(inner) or inner
        texts = [
            found[name] for name in _TEXTS if name != "reason" and isinstance(found.get(name), str) and found[name]
        ]
        text = texts[0] if texts else ""
        deeper = _inner_reason(found, depth - 1) if depth else ""
        if text or deeper:
            return f"{text}: {deeper}" if text and deeper and deeper not in text else text or deeper
    return ""


_INNER: Final[tuple[str, ...]] = (
    "raw",
    "originalMessage",
    "innererror",
    "innerError",
    "inner_error",
    "cause",
    "original_error",
    "upstream_error",
    "provider_error",
    "details",
)
"""Members that hold the error of the provider behind a gateway: OpenRouter's `metadata.raw`, Bedrock's
`originalMessage`, Azure's `innererror` and `details`, `cause` of servers in JavaScript."""
_NAMES: Final[tuple[str, ...]] = ("provider_name",)
"""Members that name that provider."""


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
