"""Parts of OpenAI's chat answers that streams and whole completions share.

Owns the dialect's form of finish reasons, usage, citations, reasoning and errors, and the members of `x_gai`, which
hold everything that the dialect has no place for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from gai_fast.formats._signatures import encrypts
from gai_fast.formats.chat.request import detail_format
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Code, Error
from gai_fast.model.events import Event, JSONText
from gai_fast.model.limits import LIMITS

# Finish reasons that OpenAI's clients do not know.
_OWN_REASONS: Final = frozenset(("cancelled", "pause", "other"))

# OpenAI has no type for a broken upstream: every failure that is not the caller's is a `server_error`. An unknown model
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


def finish_reason_of(event: Event) -> tuple[str, dict[str, Any]]:
    """Returns the dialect's `finish_reason`, and the members of `x_gai` beside it."""
    reason = event.get("finish_reason", "stop")
    aside: dict[str, Any] = {}
    if reason in _OWN_REASONS:
        reason, aside["finish_reason"] = "stop", reason
    if "continued" in event:
        aside["continued"] = event["continued"]
    return reason, aside


def usage_of(usage: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns usage under OpenAI's names, and the members of `x_gai` beside it."""
    prompt = {"cached_tokens": usage.get("cached_input_tokens", 0)}
    if "cache_write_input_tokens" in usage:
        prompt["cache_write_tokens"] = usage["cache_write_input_tokens"]
    counts = {
        "prompt_tokens": usage.get("input_tokens", 0),
        "completion_tokens": usage.get("output_tokens", 0),
        "total_tokens": usage.get("total_tokens", 0),
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {"reasoning_tokens": usage.get("reasoning_tokens", 0)},
    }
    return counts, {"usage_source": usage["source"]} if "source" in usage else {}


def annotation(citation: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Builds a `url_citation` with all four members: `@ai-sdk/openai` refuses a stream where one is missing.

    Args:
        citation: The citation of an event.
        length: The code points of the text so far; both offsets, where the citation has none.
    """
    start, end = citation.get("start"), citation.get("end")
    if start is None or end is None:
        start = end = length
    source = {"url": citation.get("uri", ""), "title": citation.get("title", "")}
    return {"type": "url_citation", "url_citation": {**source, "start_index": start, "end_index": end}}


def reasoning_detail(index: int, block: Mapping[str, Any], start: Event) -> dict[str, Any]:
    """Builds OpenRouter's entry for a signature.

    Args:
        index: The number of the entry.
        block: The event of the signature, or the reasoning part of a message.
        start: The answer's `start`.
    """
    is_encrypted = encrypts(start)
    if block.get("redacted") or is_encrypted:
        detail = {"type": "reasoning.encrypted", "data": block["signature"]}
    else:
        text = {"text": block["text"]} if block.get("text") else {}
        detail = {"type": "reasoning.text", **text, "signature": block["signature"]}
    author = detail_format(start.get("provider"), is_encrypted=is_encrypted)
    if author is not None:
        detail["format"] = author
    return {**detail, "index": index}


def extra_content(signature: str) -> dict[str, Any]:
    return {"google": {"thought_signature": signature}}


def argument_text(value: Any) -> str:
    """Returns a complete call's arguments as text."""
    if isinstance(value, JSONText):
        return value.text
    return value if isinstance(value, str) else encode_json(value).decode()


def error_object(error: Error) -> dict[str, Any]:
    own = error.details or {}
    if own.get("message"):
        return {key: own.get(key) for key in ("message", "type", "param", "code")}
    return {
        "message": error.message,
        "type": _ERROR_TYPES.get(error.code, "server_error"),
        "param": None,
        "code": error.code,
    }


def note_warning(warnings: list[dict[str, Any]], event: Event) -> None:
    """Keeps a warning for the end of the answer, within `limits.warnings`."""
    if len(warnings) < LIMITS.warnings:
        warnings.append({"reason": event.get("reason", "")})


def tells_error(raw: bytes) -> bool:
    """Whether the SDKs raise an error for a frame: they look in lines of data for an `error` with anything in it.

    Args:
        raw: The frame; an upstream's own.
    """
    return _ERROR_LINE.search(raw) is not None


_ERROR_LINE: Final = re.compile(rb'(?:^|[\r\n])data:[^\r\n]*"error"\s*:\s*(?:\{\s*"|"[^"])')
