"""The answer of a stream as `gen_ai.output.messages`, for spans that hold content.

Owns the form of the attribute (OpenTelemetry's GenAI conventions) and its limit. It is collected from the events that
the client gets, so it has what processors have left of the answer.
"""

from __future__ import annotations

from typing import Any, Final

from gai_fast.kernels import encode_json
from gai_fast.model.events import Event, other_ends
from gai_fast.otel.limits import LIMITS

_TEXTS: Final = {"text.delta": "text", "refusal.delta": "text", "reasoning.delta": "reasoning"}
"""The type of the part for each kind of delta."""
_FINISHES: Final = {"tool_calls": "tool_call"}
"""Finish reasons that the conventions name otherwise."""


class OutputMessages:
    """Collects an answer; an `EventSink`. Keeps at most `limits.otel_text` characters of it: the end is left out."""

    __slots__ = ("_finish_reason", "_others", "_parts", "_room")

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._parts: dict[int, list[dict[str, Any]]] = {0: []}
        self._finish_reason = ""
        self._others: dict[int, str] = {}  # the finish reasons of choices that have ended otherwise
        self._room = LIMITS.otel_text

    def event(self, event: Event) -> None:
        """Receives one event of the stream."""
        kind = event["type"]
        if kind == "stream.reset":
            self._clear()
        elif kind in ("finish", "error"):
            reason = event.get("finish_reason", "error")
            self._finish_reason = _FINISHES.get(reason, reason)
            self._others = {each["choice"]: each["finish_reason"] for each in other_ends(event)}
        elif self._room > 0:
            parts = self._parts.setdefault(event.get("choice") or 0, [])
            if kind in _TEXTS:
                self._add(parts, _TEXTS[kind], event.get("text", ""))
            elif kind == "tool.call":
                call = event["tool_call"]
                part = {"type": "tool_call", "id": event.get("call_id", ""), "name": call.get("name", "")}
                part["arguments"] = call.get("input")
                self._room -= len(encode_json(part))
                if self._room > 0:
                    parts.append(part)

    def _add(self, parts: list[dict[str, Any]], kind: str, text: str) -> None:
        text = text[: self._room]
        self._room -= len(text)
        if parts and parts[-1]["type"] == kind:
            parts[-1]["content"].append(text)
        else:
            self._room -= len(kind)
            parts.append({"type": kind, "content": [text]})

    def json(self) -> str:
        """Returns the JSON of the messages, one for each choice, of at most `limits.otel_text` characters."""
        messages: list[dict[str, Any]] = []
        for number in sorted(self._parts):
            parts = [
                {**part, "content": "".join(part["content"])} if "content" in part else part
                for part in self._parts[number]
            ]
            message: dict[str, Any] = {"role": "assistant", "parts": parts}
            if self._finish_reason:
                reason = self._others.get(number, "")
                message["finish_reason"] = _FINISHES.get(reason, reason) or self._finish_reason
            messages.append(message)
        while True:
            written = encode_json(messages).decode()
            excess = len(written) - LIMITS.otel_text
            if excess <= 0 or not _shorten(messages, excess):
                return written


def _shorten(messages: list[dict[str, Any]], excess: int) -> bool:
    """Removes text from the end of the messages, for JSON that is too long; returns whether there was any."""
    for message in reversed(messages):
        parts: list[dict[str, Any]] = message["parts"]
        if parts:
            text = parts[-1].get("content", "")
            if len(text) > excess:
                parts[-1]["content"] = text[:-excess]
            else:
                parts.pop()
            return True
    return False
