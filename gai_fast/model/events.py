"""The vocabulary of `gai.events.v1`: event types, wire names, key order.

Owns the keys of events and their order. Knows nothing about encoding, sources and readers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Required, TypedDict, cast

SCHEMA: Final = "gai.events.v1"

ENVELOPE_KEYS: Final = ("schema", "ts", "trace_id", "request_id")
"""Keys that the compact envelope has on the first event of a stream only."""

KEYS: Final = (
    # Frozen: never reordered, never removed.
    "schema",
    "type",
    "ts",
    "seq",
    "trace_id",
    "request_id",
    "step",
    "call_id",
    "provider",
    "model",
    "text",
    "audio",
    "tool_call",
    "tool_result",
    "citations",
    "safety",
    "usage",
    "finish_reason",
    "error",
    # Additive, in this order; a new key goes to the end.
    "stream_id",
    "finish_reason_raw",
    "index",
    "choice",
    "block",
    "signature",
    "redacted",
    "arguments",
    "refusal",
    "image",
    "server_tool",
    "json",
    "reason",
    "from",
    "to",
    "from_seq",
    "continued",
    "provider_metadata",
    "logprobs",
    "guard",
    "executed_by",
    "server",
    "progress",
    "total",
    "parts",
    "approval",
    "is_error",
    "attempt",
    "duration_ms",
    "truncated",
    "steps",
)
"""All top-level keys in the order in which they are written; unknown keys follow in their own order."""

KEY_RANK: Final = {key: rank for rank, key in enumerate(KEYS)}

TYPES: Final = frozenset(
    "start text.delta audio.delta tool.call tool.result citations safety step.end finish error done "
    "reasoning.delta reasoning.signature refusal.delta tool.call.start tool.call.delta server_tool image "
    "json.snapshot usage stream.reset stream.gap warning provider.block "
    "step.start step.reset tool.progress approval.required approval.decided".split()
)

DELTAS: Final[Mapping[str, str]] = {
    "text.delta": "text",
    "reasoning.delta": "text",
    "refusal.delta": "text",
    "tool.call.delta": "arguments",
}
"""The most frequent events, each with the key of its text."""

ANNOTATIONS: Final = frozenset({"usage", "warning", "tool.progress"})
"""Events that do not separate the deltas before and after them."""

LIFECYCLE: Final = frozenset({"start", "stream.reset", "error", "done"})
"""Events before and after an answer, which are not part of it."""

NO_CONTENT: Final = LIFECYCLE | ANNOTATIONS | {"safety", "step.start", "step.end", "step.reset", "finish"}
"""Events that are not content: they may come before an answer begins."""

MEDIA: Final = frozenset({"audio.delta", "image"})
"""Events with generated sound or an image; they count as tokens of the answer, as text does."""

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled", "pause", "other"]
FINISH_REASONS: Final = frozenset(FinishReason.__args__)  # type: ignore[attr-defined]  # typing has no public accessor

Event = TypedDict(
    "Event",
    {
        "schema": str,
        "type": Required[str],
        "ts": int,
        "seq": int,
        "trace_id": str,
        "request_id": str,
        "step": int,
        "call_id": str,
        "provider": str,
        "model": str,
        "text": str,
        "audio": dict[str, Any],
        "tool_call": dict[str, Any],
        "tool_result": Any,
        "citations": list[dict[str, Any]],
        "safety": dict[str, Any],
        "usage": dict[str, Any],
        "finish_reason": str,
        "error": dict[str, Any],
        "stream_id": str,
        "finish_reason_raw": str,
        "index": int,
        "choice": int,
        "block": int | dict[str, Any],
        "signature": str,
        "redacted": bool,
        "arguments": str,
        "refusal": str,
        "image": dict[str, Any],
        "server_tool": dict[str, Any],
        "json": Any,
        "reason": str,
        "from": int,
        "to": int,
        "from_seq": int,
        "continued": str,
        "provider_metadata": dict[str, Any],
        "logprobs": list[dict[str, Any]],
        "guard": str,
        "executed_by": str,
        "server": str,
        "progress": float,
        "total": float,
        "parts": list[dict[str, Any]],
        "approval": dict[str, Any],
        "is_error": bool,
        "attempt": int,
        "duration_ms": int,
        "truncated": bool,
        "steps": list[dict[str, Any]],
        "finished": bool,
        # Only in what callbacks get (docs/library.md, "Callbacks"), never on the wire.
        "metrics": dict[str, Any],
    },
    total=False,
)
"""One event as a plain `dict`, exactly the JSON object on the wire."""


def other_ends(finish: Event) -> list[dict[str, Any]]:
    """Returns the choices that have ended otherwise than the first: `provider_metadata.choices` of a `finish`."""
    metadata = finish.get("provider_metadata")
    found = metadata.get("choices") if metadata is not None else None
    if not isinstance(found, list):
        return []
    return [each for each in found if isinstance(each, dict) and _is_end(each)]


def _is_end(each: dict[str, Any]) -> bool:
    """Returns whether a value is the end of a choice: a program's model may write any into `provider_metadata`."""
    return isinstance(each.get("choice"), int) and isinstance(each.get("finish_reason"), str)


NO_EVENT: Final = cast("Event", {})
"""The placeholder before the first event. All streams share it: it must not be changed."""


class JSONText:
    """A value that is already JSON text and is written unchanged.

    `tool_call.input` is the model's own JSON: a 20-digit integer or `1.10` would not survive a round trip through
    Python numbers. Inside the package events carry the text; `gai_fast.decode` returns the parsed value.

    Args:
        text: Valid JSON without white space outside its strings.
        value: The parsed text, with exact integers.
        parse: Parses the text when `value` is first read, since most answers' values never are; the argument `value` is
            not used then. None if `value` is the parsed text.
    """

    __slots__ = ("_parse", "_value", "text")

    def __init__(self, text: str, value: Any, parse: Callable[[str], Any] | None = None) -> None:
        self.text = text
        self._value = value
        self._parse = parse

    @property
    def value(self) -> Any:
        """The parsed text."""
        if self._parse is not None:
            self._value, self._parse = self._parse(self.text), None
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JSONText) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"JSONText({self.text!r})"


def done(finished: bool) -> Event:
    """Returns the last object of a stream; its bytes are equal in both envelopes."""
    return {"type": "done", "finished": finished}


def is_empty(value: object) -> bool:
    """Returns whether a key with this value is left out of an event."""
    return value is None or (isinstance(value, (str, list, dict)) and not value)


def with_text(event: Event, text: str) -> Event:
    """Returns a delta with another text, without the probabilities of its tokens: they spell the former one."""
    changed: Event = {**event, "text": text}
    changed.pop("logprobs", None)
    return changed


def in_order(event: Mapping[str, Any]) -> Event:
    """Returns the event with its keys in their written order: unknown keys come last, empty values are left out."""
    last = len(KEY_RANK)
    ordered = {key: event[key] for key in sorted(event, key=lambda key: KEY_RANK.get(key, last))}
    return cast("Event", {key: value for key, value in ordered.items() if not is_empty(value)})


def join_surrogates(text: str) -> str:
    """Returns the text with surrogate pairs joined; a lone surrogate becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
