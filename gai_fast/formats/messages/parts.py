"""Parts of Anthropic's answers that streams and whole messages share.

Owns the dialect's form of stop reasons, usage, citations and errors, the place of signatures, and the members of
`x_gai`, which hold everything that the dialect has no place for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from gai_fast.formats._signatures import is_ours, seal
from gai_fast.formats.limits import LIMITS
from gai_fast.model.errors import Code, Error
from gai_fast.model.events import Event, JSONText

_STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "pause": "pause_turn",
}
"""The others have no word in the dialect: they are an `end_turn`, and stand in `x_gai`."""

# Anthropic's own words that are finer than ours, and what they must mean to be passed on.
_FINER: Final = {"stop_sequence": "stop", "model_context_window_exceeded": "length"}

_ERROR_TYPES: Final[Mapping[Code, str]] = {
    "invalid_request": "invalid_request_error",
    "unauthorized": "authentication_error",
    "forbidden": "permission_error",
    "not_found": "not_found_error",
    "rate_limited": "rate_limit_error",
    "overloaded": "overloaded_error",
    "timeout": "timeout_error",
    "context_length_exceeded": "invalid_request_error",
    "content_filtered": "invalid_request_error",
    "unsupported": "invalid_request_error",
}
"""All others are an `api_error`."""

# The reasons for which Anthropic's SDK has an `error_code` that it acts upon.
_ERROR_CODES: Final = {"thread": "thread_unsupported_request"}

# Statuses with a type of their own (Anthropic's page of errors).
_STATUS_TYPES: Final = {402: "billing_error", 409: "conflict_error", 413: "request_too_large"}

_OVERLOADED: Final = 529


def stop_reason_of(event: Event) -> tuple[str, dict[str, Any]]:
    """Returns the dialect's `stop_reason`, and the members of `x_gai` beside it."""
    reason = event.get("finish_reason", "stop")
    aside: dict[str, Any] = {}
    word = _STOP_REASONS.get(reason)
    if word is None:
        word, aside["finish_reason"] = "end_turn", reason
    raw = event.get("finish_reason_raw", "")
    if _FINER.get(raw) == reason:
        word = raw
    if "continued" in event:
        aside["continued"] = event["continued"]
    return word, aside


def usage_of(usage: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns usage under Anthropic's names, and the members of `x_gai` beside it.

    Anthropic's `input_tokens` leave out what was read from a cache or written to it. A provider that counts more from a
    cache than in all leaves nothing for `input_tokens`.
    """
    cached, written = usage.get("cached_input_tokens", 0), usage.get("cache_write_input_tokens", 0)
    counts: dict[str, Any] = {
        "input_tokens": max(0, usage.get("input_tokens", 0) - cached - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.get("output_tokens", 0),
    }
    if "reasoning_tokens" in usage:
        counts["output_tokens_details"] = {"thinking_tokens": usage["reasoning_tokens"]}
    return counts, {"usage_source": usage["source"]} if "source" in usage else {}


def refusal_of(safety: Mapping[str, Any] | None, stop_reason: str) -> dict[str, Any] | None:
    """Builds the `stop_details` of a refusal.

    Args:
        safety: The last `safety` of the answer, where there was one.
        stop_reason: The answer's.
    """
    if safety is None or stop_reason != "refusal":
        return None
    category = safety.get("category")
    if category in _REFUSED:
        return {"type": "refusal", "category": category, "explanation": None}
    return {"type": "refusal", "category": None, "explanation": category}  # the word of another provider


def is_refusal(safety: Mapping[str, Any] | None) -> bool:
    """Whether a `safety` is the reason of a refusal, whose place is `stop_details`."""
    return safety is not None and safety.get("action") == "refused"


_REFUSED: Final = frozenset(("cyber", "bio", "frontier_llm", "reasoning_extraction", "general_harms"))
"""The categories that the SDK's types name."""


def citation_of(citation: Mapping[str, Any]) -> dict[str, Any]:
    """Builds a citation with every member that the SDK's types demand.

    The texts that were cited are not known. Offsets of a document would be those of the source, and ours are those of
    the answer, so they are 0.
    """
    uri, title = citation.get("uri", ""), citation.get("title")
    document = _DOCUMENT.fullmatch(uri)
    if document is None:
        return {
            "type": "web_search_result_location",
            "cited_text": "",
            "url": uri,
            "title": title,
            "encrypted_index": "",
        }
    return {
        "type": "char_location",
        "cited_text": "",
        "document_index": int(document[1]),
        "document_title": title,
        "start_char_index": 0,
        "end_char_index": 0,
    }


_DOCUMENT: Final = re.compile(r"document:([0-9]{1,6})")
"""The address of a document of the request, as the provider's adapter writes it."""


def server_tool_block(run: Mapping[str, Any]) -> dict[str, Any]:
    """Builds the block for a tool that Anthropic runs: the call of one that has started, else its result.

    Args:
        run: An event's `server_tool`.
    """
    identifier, name = run.get("id", ""), run.get("name", "")
    if run["status"] == "started":
        return {"type": "server_tool_use", "id": identifier, "name": name, "input": run.get("input", {})}
    kind = "tool_search_tool_result" if name.startswith("tool_search_tool") else f"{name}_tool_result"
    return {"type": kind, "tool_use_id": identifier, "content": run.get("output", [])}


# ---- signatures ------------------------------------------------------------------------------------------------------

# Clients send thinking back as it came. Only the signature survives in all of them, and only Anthropic's own may go to
# Anthropic.
NATIVE: Final = "anthropic"
"""The provider of a signature without a mark."""


def marked(signature: str, provider: str | None, call_id: str = "") -> str:
    """Returns a signature as a client of the dialect gets it.

    Args:
        signature: As the provider gave it.
        provider: The provider's name.
        call_id: The call that it is for, if it is not for reasoning.
    """
    return signature if not call_id and provider in (None, NATIVE) else seal(signature, provider, call_id)


def is_foreign(block: Any) -> bool:
    """Whether a block of an earlier answer is reasoning that Anthropic did not sign, and would refuse."""
    if not isinstance(block, dict) or block.get("type") not in ("thinking", "redacted_thinking"):
        return False
    signature = block.get("data" if block["type"] == "redacted_thinking" else "signature")
    return signature == "" or is_ours(signature)


# ---- errors ----------------------------------------------------------------------------------------------------------


def error_object(error: Error) -> dict[str, Any]:
    """Builds the `error` member: the upstream's own where it speaks the dialect, else ours with our code."""
    own = error.details or {}
    if own.get("message") and own.get("type"):
        return {key: own[key] for key in ("type", "message", "details") if key in own}
    kind = _STATUS_TYPES.get(error.status) or _ERROR_TYPES.get(error.code, "api_error")
    code = _ERROR_CODES.get(error.reason or "", error.code)
    return {"type": kind, "message": error.message, "details": {"error_code": code}}


def error_status(error: Error) -> int:
    """The HTTP status by which the SDK chooses its exception: 529 is `OverloadedError`."""
    return _OVERLOADED if error.code == "overloaded" and error.status == error.default_status else error.status


def note_warning(warnings: list[dict[str, Any]], event: Event) -> None:
    """Keeps a warning for the end of the answer, within `limits.warnings`."""
    if len(warnings) < LIMITS.warnings:
        warnings.append({"reason": event.get("reason", "")})


def input_of(given: Any) -> Any:
    """Returns the input of a call, which is an object in this dialect: other arguments stand in one.

    Args:
        given: The arguments of an event or a result.
    """
    value = given.value if isinstance(given, JSONText) else given
    if isinstance(value, dict):
        return given
    return {} if value is None else {"arguments": given}
