"""The tokens of a response that is passed through, if it has a known shape.

Owns the shapes. The body is not parsed: embeddings have megabytes of numbers. The counts stand in its first or last
bytes, in `usage` (OpenAI and those who speak as it does, Anthropic), `billed_units` (Cohere) or `usageMetadata`
(Gemini), of one JSON object or of the last event of a stream.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from gai_fast.core.chunks import count
from gai_fast.server.limits import LIMITS

_COUNTS: Final = re.compile(rb'.*("(?:usage|billed_units|usageMetadata)"\s*:\s*)(?=\{)', re.DOTALL)
"""All before the last counts. Their name never matches within a string of JSON, where a quotation mark is escaped."""
_READ: Final = json.JSONDecoder().raw_decode
_READ_FLAT: Final = msgspec.json.Decoder(dict[str, Any]).decode
_INPUT: Final = ("input_tokens", "prompt_tokens", "promptTokenCount")
_READ_INPUT: Final = ("cache_read_input_tokens",)
_WRITTEN_INPUT: Final = ("cache_creation_input_tokens",)
"""The counts that Anthropic does not include in its input."""
_CACHED_INPUT: Final = ("cachedContentTokenCount", "cached_tokens")
_DETAILS: Final = ("prompt_tokens_details", "input_tokens_details")
_OF_CACHES: Final = frozenset((*_READ_INPUT, *_WRITTEN_INPUT, *_CACHED_INPUT, *_DETAILS))
_OUTPUT: Final = ("output_tokens", "completion_tokens", "candidatesTokenCount")
_TOTAL: Final = ("total_tokens", "totalTokenCount")
_JSON: Final = "application/json"
_MEDIA: Final = (_JSON, "text/event-stream", "application/x-ndjson")


class UsageReader:
    """Keeps the parts of a body in which its counts may stand.

    Args:
        media_type: The `content-type` of the response; only JSON and streams of JSON have counts.
    """

    __slots__ = ("_first", "_is_read", "_last")

    def __init__(self, media_type: str) -> None:
        self._is_read = media_type == _JSON or media_type.partition(";")[0].strip().lower() in _MEDIA
        self._first = b""
        self._last = b""

    def feed(self, data: bytes) -> None:
        """Receives bytes of the body."""
        if not self._is_read:
            return
        most = LIMITS.usage_text
        if len(self._first) < most:
            self._first += data[: most - len(self._first)]
        self._last = data[-most:] if len(data) >= most else (self._last + data)[-most:]

    def usage(self) -> dict[str, Any] | None:
        """Returns the counts in the form of an event's `usage`. None if the body has none."""
        output = 0  # Anthropic's streams end with a count of the output alone
        for part in (self._last, self._first):
            end = part.rfind(b"{") + 1  # numbers and base64 have none: they are passed over at once
            while (found := _COUNTS.match(part, 0, end)) is not None:
                end, at = found.span(1)
                counts = _object(part[at:])
                output = max(output, _count(counts, _OUTPUT) or 0)
                usage = _usage(counts, output)
                if usage is not None:
                    return usage
        return None


def _object(text: bytes) -> dict[str, Any]:
    """Returns the JSON object that begins a text. Empty if it is cut off, or nested deeper than any count."""
    try:
        return _READ_FLAT(text[: text.find(b"}") + 1])  # 1,500 instructions instead of 6,500
    except (msgspec.DecodeError, UnicodeDecodeError):  # it is nested, or a string has the bracket
        return _nested_object(text)


def _nested_object(text: bytes) -> dict[str, Any]:
    try:
        counts: dict[str, Any] = _READ(text.decode("utf-8", "replace"))[0]
    except (ValueError, RecursionError):
        return {}
    return counts


def _usage(counts: dict[str, Any], output: int) -> dict[str, Any] | None:
    tokens, total = _count(counts, _INPUT), _count(counts, _TOTAL)
    if tokens is None:
        if total is None:
            return None
        return _tokens(max(0, total - output), output)
    cached = written = 0
    if not _OF_CACHES.isdisjoint(counts):
        cached, written = _count(counts, _READ_INPUT) or 0, _count(counts, _WRITTEN_INPUT) or 0
        beside = cached + written
        if total is None or tokens + beside + output <= total:  # LiteLLM has them in `prompt_tokens` as well
            tokens += beside
        for details in (counts, *[counts.get(name) for name in _DETAILS]):
            if isinstance(details, dict):
                cached = cached or _count(details, _CACHED_INPUT) or 0
    if total is not None:
        output = max(output, total - tokens)  # the sum alone has Gemini's thoughts
    usage = _tokens(tokens, output)
    if cached:
        usage["cached_input_tokens"] = cached
    if written:
        usage["cache_write_input_tokens"] = written
    return usage


def _tokens(tokens: int, output: int) -> dict[str, Any]:
    return {"input_tokens": tokens, "output_tokens": output, "total_tokens": tokens + output}


def _count(counts: dict[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        counted = count(counts.get(name))
        if counted is not None:
            return counted
    return None
