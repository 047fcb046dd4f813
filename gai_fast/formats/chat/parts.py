"""Parts of OpenAI's chat answers, shared by streams and whole completions.

Owns the dialect's form of finish reasons, usage and reasoning, and the members of `x_gai`, the place for values that
the dialect does not have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gai_fast.formats._openai import total_tokens
from gai_fast.formats._signatures import encrypts
from gai_fast.formats.chat.request import detail_format
from gai_fast.model.events import Event, other_ends

# Finish reasons that OpenAI's clients do not accept.
_OWN_REASONS: Final = frozenset(("cancelled", "pause", "other"))


def finish_reason_of(event: Event, *, has_calls: bool) -> tuple[str, dict[str, Any]]:
    """Returns the dialect's `finish_reason`, and members for `x_gai`.

    Args:
        event: The `finish`.
        has_calls: Whether the choice has a call. Clients that read `tool_calls` look for one.
    """
    reason = event.get("finish_reason", "stop")
    x_gai: dict[str, Any] = {}
    if reason in _OWN_REASONS or (reason == "tool_calls" and not has_calls):
        reason, x_gai["finish_reason"] = "stop", reason
    if "continued" in event:
        x_gai["continued"] = event["continued"]
    if "reason" in event:
        x_gai["reason"] = event["reason"]
    if "steps" in event:
        x_gai["steps"] = event["steps"]
    return reason, x_gai


def finish_of(event: Event, choice: int) -> Event:
    """Returns a `finish` as that of one choice, which may have ended otherwise than the first."""
    for each in other_ends(event):
        if each["choice"] == choice:
            return {**event, "finish_reason": each["finish_reason"]}
    return event


def usage_of(usage: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns usage under OpenAI's names, and members for `x_gai`."""
    prompt = {"cached_tokens": usage.get("cached_input_tokens", 0)}
    if "cache_write_input_tokens" in usage:
        prompt["cache_write_tokens"] = usage["cache_write_input_tokens"]
    counts = {
        "prompt_tokens": usage.get("input_tokens", 0),
        "completion_tokens": usage.get("output_tokens", 0),
        "total_tokens": total_tokens(usage),
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {"reasoning_tokens": usage.get("reasoning_tokens", 0)},
    }
    return counts, {"usage_source": usage["source"]} if "source" in usage else {}


def reasoning_detail(index: int, block: Mapping[str, Any], start: Event) -> dict[str, Any]:
    """Builds OpenRouter's entry for a signature.

    Args:
        index: The entry's `index`.
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


def logprobs_of(kind: str, scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the `logprobs` of a choice.

    Args:
        kind: The type of the events of the text: `text.delta` or `refusal.delta`.
        scores: The events' `logprobs`.
    """
    of_refusal = kind == "refusal.delta"
    return {"content": None if of_refusal else scores, "refusal": scores if of_refusal else None}


def extra_content(signature: str) -> dict[str, Any]:
    return {"google": {"thought_signature": signature}}


def is_error_frame(raw: bytes) -> bool:
    """Returns whether the SDKs raise an error for a frame: they look for a non-empty `error` in its data lines.

    Args:
        raw: An upstream frame.
    """
    return _ERROR_LINE.search(raw) is not None


_ERROR_LINE: Final = re.compile(rb'(?:^|[\r\n])data:[^\r\n]*"error"\s*:\s*(?:\{\s*"|"[^"])')
