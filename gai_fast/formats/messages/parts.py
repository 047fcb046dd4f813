"""Parts of Anthropic's answers, shared by streams and whole messages.

Owns the dialect's form of stop reasons, usage, citations and errors, the place of signatures, and the members of
`x_gai`, the place for values that the dialect does not have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from gai_fast.core.requests.signatures import seal
from gai_fast.formats._base import warning_members
from gai_fast.formats._signatures import author_of
from gai_fast.formats.limits import LIMITS
from gai_fast.model.errors import Code, Error
from gai_fast.model.events import Event, JSONText

DIALECT: Final = "anthropic"
"""The dialect's name."""

_STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "pause": "pause_turn",
}
"""Other finish reasons have no equivalent: they become `end_turn`, with the reason in `x_gai`. So does `tool_calls` if
the answer has no call."""

# Anthropic's stop reasons that are more specific than the event's, and the event's reason for which each is passed on.
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

# Error reasons, and the `error_code` by which Anthropic's SDK handles them.
_ERROR_CODES: Final = {"thread": "thread_unsupported_request", "store_sealed": "store_sealed"}

# Statuses with a type of their own (Anthropic's page of errors).
_STATUS_TYPES: Final = {402: "billing_error", 409: "conflict_error", 413: "request_too_large"}

_TOO_LONG: Final = "prompt is too long: "
"""How Anthropic's message of `context_length_exceeded` begins: Claude Code compacts a conversation on these words."""

_OVERLOADED: Final = 529


def stop_reason_of(event: Event, *, has_calls: bool) -> tuple[str, dict[str, Any]]:
    """Returns the dialect's `stop_reason`, and members for `x_gai`.

    Args:
        event: The `finish`.
        has_calls: Whether the answer has a `tool_use` block. Without one, `tool_use` makes clients ask again forever:
            the SDK's tool runner sends the next request without results.
    """
    reason = event.get("finish_reason", "stop")
    x_gai: dict[str, Any] = {}
    word = _STOP_REASONS.get(reason)
    if word is None or (reason == "tool_calls" and not has_calls):
        word, x_gai["finish_reason"] = "end_turn", reason
    raw = event.get("finish_reason_raw", "")
    if _FINER.get(raw) == reason:
        word = raw
    elif reason == "stop" and stop_sequence_of(event) is not None:
        word = "stop_sequence"
    if "continued" in event:
        x_gai["continued"] = event["continued"]
    if "reason" in event:
        x_gai["reason"] = event["reason"]
    if "steps" in event:
        x_gai["steps"] = event["steps"]
    return word, x_gai


def stop_sequence_of(event: Event) -> str | None:
    """Returns the stop sequence that ended an answer, or None if its provider names none.

    Args:
        event: The `finish`.
    """
    metadata: dict[str, Any] | None = event.get("provider_metadata")
    sequence = None if metadata is None else metadata.get("stop_sequence")
    return sequence if isinstance(sequence, str) else None


def container_of(event: Event) -> dict[str, Any]:
    """Returns the member with the container in which Anthropic ran tools, by which a client uses it again.

    Args:
        event: The `finish`.
    """
    metadata: dict[str, Any] | None = event.get("provider_metadata")
    container = None if metadata is None else metadata.get("container")
    return {"container": container} if isinstance(container, dict) else {}


def usage_of(usage: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns usage under Anthropic's names, and members for `x_gai`.

    Anthropic's `input_tokens` exclude tokens read from a cache or written to it. They are 0 if a provider counts more
    cached tokens than tokens in total.
    """
    if not isinstance(usage, dict):  # compiled code reads the members of a dict without calls
        return usage_of(dict(usage))
    cached, written = usage.get("cached_input_tokens", 0), usage.get("cache_write_input_tokens", 0)
    counts: dict[str, Any] = {
        "input_tokens": max(0, usage.get("input_tokens", 0) - cached - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.get("output_tokens", 0),
    }
    for_hour = usage.get("cache_write_1h_input_tokens", 0)
    if for_hour:
        split = {"ephemeral_5m_input_tokens": max(0, written - for_hour), "ephemeral_1h_input_tokens": for_hour}
        counts["cache_creation"] = split
    if "reasoning_tokens" in usage:
        counts["output_tokens_details"] = {"thinking_tokens": usage["reasoning_tokens"]}
    return counts, {"usage_source": usage["source"]} if "source" in usage else {}


def refusal_of(safety: Mapping[str, Any] | None, stop_reason: str) -> dict[str, Any] | None:
    """Builds the `stop_details` of a refusal.

    Args:
        safety: The last `safety` of the answer, or None if there was none.
        stop_reason: The answer's `stop_reason`.
    """
    if safety is None or stop_reason != "refusal" or safety.get("action") in _LET_THROUGH:
        return None
    category = safety.get("category")
    if category in _REFUSED:
        return {"type": "refusal", "category": category, "explanation": None}
    return {"type": "refusal", "category": None, "explanation": category}  # the category of another provider


def is_refusal(safety: Mapping[str, Any] | None) -> bool:
    """Returns whether a `safety` is the reason of a refusal, whose place is `stop_details`."""
    return safety is not None and safety.get("action") == "refused"


_LET_THROUGH: Final = frozenset(("mask", "flag"))
"""The actions of a guard that do not end the answer."""
_REFUSED: Final = frozenset(("cyber", "bio", "frontier_llm", "reasoning_extraction", "general_harms"))
"""The categories in the SDK's types."""


def citation_of(citation: Mapping[str, Any]) -> dict[str, Any]:
    """Builds a citation with every member that the SDK's types require.

    Anthropic's offsets are positions in the source, but a citation's offsets here are positions in the answer, so 0 is
    written.
    """
    uri, title, cited = citation.get("uri", ""), citation.get("title"), citation.get("cited_text", "")
    document = _DOCUMENT.fullmatch(uri)
    if document is None:
        return {
            "type": "web_search_result_location",
            "cited_text": cited,
            "url": uri,
            "title": title,
            "encrypted_index": "",
        }
    return {
        "type": "char_location",
        "cited_text": cited,
        "document_index": int(document[1]),
        "document_title": title,
        "start_char_index": 0,
        "end_char_index": 0,
    }


_DOCUMENT: Final = re.compile(r"document:([0-9]{1,6})")
"""The URI of a document in the request, as the provider's adapter writes it."""


def server_tool_block(run: Mapping[str, Any]) -> dict[str, Any]:
    """Builds the block for a tool that Anthropic runs: its call if it has started, else its result.

    Args:
        run: An event's `server_tool`.
    """
    identifier, name = run.get("id", ""), run.get("name", "")
    if run["status"] == "started":
        return {"type": "server_tool_use", "id": identifier, "name": name, "input": run.get("input", {})}
    kind = "tool_search_tool_result" if name.startswith("tool_search_tool") else f"{name}_tool_result"
    return {"type": kind, "tool_use_id": identifier, "content": run.get("output", [])}


def run_of(block: Mapping[str, Any]) -> str:
    """Returns the id of the tool's run that a block of Anthropic begins or ends, empty if it has none."""
    identifier = block.get("id") or block.get("tool_use_id")
    return identifier if isinstance(identifier, str) else ""


# ---- signatures ------------------------------------------------------------------------------------------------------

# Clients send thinking back unchanged. Only the signature survives in all clients, and only Anthropic's own signatures
# may be sent to Anthropic.


def native_author() -> str:
    """Returns the provider of a signature that is not sealed, and of the blocks that the dialect has."""
    return author_of(DIALECT)


def marked(signature: str, provider: str | None, call_id: str = "") -> str:
    """Returns the signature for a client of the dialect: sealed, unless it is Anthropic's for reasoning.

    Args:
        signature: The provider's own signature.
        provider: The provider's name.
        call_id: The signed call, or empty for a signature of reasoning.
    """
    return signature if not call_id and provider in (None, native_author()) else seal(signature, provider, call_id)


# ---- errors ----------------------------------------------------------------------------------------------------------


def error_object(error: Error) -> dict[str, Any]:
    """Builds the `error` member: the upstream's own if it speaks the dialect, else the gateway's with its code."""
    own = error.details or {}
    if own.get("message") and own.get("type"):
        return {key: own[key] for key in ("type", "message", "details") if key in own} | {"message": error.own_message}
    kind = _STATUS_TYPES.get(error.status) or _ERROR_TYPES.get(error.code, "api_error")
    message = error.message
    if error.code == "context_length_exceeded" and not message.startswith(_TOO_LONG):
        message = f"{_TOO_LONG}{message}"
    code = _ERROR_CODES.get(error.reason or "", error.code)
    details = {"error_code": code, "param": error.param} if error.param else {"error_code": code}
    return {"type": kind, "message": message, "details": details}


def error_status(error: Error) -> int:
    """Returns the HTTP status by which the SDK chooses its exception: 529 is `OverloadedError`."""
    return _OVERLOADED if error.code == "overloaded" and error.status == error.default_status else error.status


def note_warning(warnings: list[dict[str, Any]], event: Event) -> None:
    """Stores a warning for the end of the answer; drops it after `LIMITS.warnings` of them."""
    if len(warnings) < LIMITS.warnings:
        members = warning_members(event)
        warnings.append({name: members[name] for name in ("reason", "guard") if name in members})


def input_of(given: Any) -> Any:
    """Returns the input of a call, which is an object in this dialect; other values are wrapped in an object.

    Args:
        given: The arguments of an event or a result.
    """
    value = given.value if isinstance(given, JSONText) else given
    if isinstance(value, dict):
        return given
    return {} if value is None else {"arguments": given}
