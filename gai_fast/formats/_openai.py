"""Shared by OpenAI's dialects: errors, citations, arguments, and values of request members.

Owns the forms that Chat Completions and Responses have in common; AG-UI uses some of them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

from gai_fast.formats._base import warning_members
from gai_fast.formats._members import member, required
from gai_fast.formats.limits import LIMITS
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Code, Error
from gai_fast.model.events import Event, JSONText
from gai_fast.model.request import Effort

EFFORTS: Final = frozenset(get_args(Effort))
AUDIO_TYPES: Final = {"mp3": "audio/mpeg", "wav": "audio/wav"}

# OpenAI has no type for a failed upstream: an error that the client did not cause is a `server_error`. An unknown model
# is an `invalid_request_error`, as with OpenAI.
_ERROR_TYPES: Final[Mapping[Code, str]] = {
    "invalid_request": "invalid_request_error",
    "unauthorized": "authentication_error",
    "forbidden": "permission_error",
    "not_found": "invalid_request_error",
    "rate_limited": "rate_limit_error",
    "context_length_exceeded": "invalid_request_error",
    "content_filtered": "invalid_request_error",
    "unsupported": "invalid_request_error",
}


def total_tokens(usage: Mapping[str, Any]) -> int:
    """Returns the sum of a usage; of one that lacks a count, as without a request, the other count."""
    total: int | None = usage.get("total_tokens")
    return usage.get("input_tokens", 0) + usage.get("output_tokens", 0) if total is None else total


def error_object(error: Error) -> dict[str, Any]:
    own = error.details or {}
    if own.get("message"):
        shown = {"message": error.own_message, **{key: own.get(key) for key in ("type", "param", "code")}}
        return {**shown, "param": error.param} if error.param else shown
    return {
        "message": error.message,
        "type": _ERROR_TYPES.get(error.code, "server_error"),
        "param": error.param,
        "code": error.reason if error.reason == "store_sealed" else error.code,
    }


def declared_function(function: dict[str, Any], path: str) -> dict[str, Any]:
    """Returns a function as a tool of a native request.

    Args:
        function: The object that declares it.
        path: Its path in the request.
    """
    tool = {
        "name": required(function, "name", path, str),
        "description": member(function, "description", path, str),
        "parameters": member(function, "parameters", path, dict),
        "strict": member(function, "strict", path, bool),
    }
    return {key: value for key, value in tool.items() if value is not None}


def annotation(citation: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Builds a `url_citation` with all four members: `@ai-sdk/openai` refuses a stream if one is missing.

    Args:
        citation: The citation of an event.
        length: The code points of the text so far; both offsets if the citation has none.
    """
    start, end = citation.get("start"), citation.get("end")
    if start is None or end is None:
        start = end = length
    source = {"url": citation.get("uri", ""), "title": citation.get("title", "")}
    return {"type": "url_citation", "url_citation": {**source, "start_index": start, "end_index": end}}


def argument_text(value: Any) -> str:
    """Returns a complete call's arguments as text."""
    if isinstance(value, JSONText):
        return value.text
    return value if isinstance(value, str) else encode_json(value).decode()


def openai_cache(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the native `cache` of a request, if it has one.

    Args:
        body: The client's JSON object.
    """
    options = member(body, "prompt_cache_options", "$", dict) or {}
    key = member(body, "prompt_cache_key", "$", str)
    ttl = member(options, "ttl", "$.prompt_cache_options", str) if options else None
    if not key and not ttl:  # most requests; to build a dictionary and empty it took 1,200 instructions
        return {}
    return {"cache": {name: value for name, value in (("key", key), ("ttl", ttl)) if value}}


def note_warning(warnings: list[dict[str, Any]], event: Event) -> None:
    """Stores a warning for the end of the answer; drops it after `LIMITS.warnings` of them."""
    if len(warnings) < LIMITS.warnings:
        warnings.append(warning_members(event))
