"""OpenAI's whole chat completion: one JSON object, built from events.

Events that the dialect has no place for are `x_gai.events`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from mypy_extensions import mypyc_attr

from gai_fast.core.result import Result
from gai_fast.formats._base import OTHERS, StreamContext, WholeEncoder
from gai_fast.formats._openai import annotation, note_warning
from gai_fast.formats.chat.parts import extra_content, finish_reason_of, reasoning_detail, usage_of
from gai_fast.kernels import encode_json
from gai_fast.model.events import Event


@mypyc_attr(allow_interpreted_subclasses=True)
class WholeObject(WholeEncoder):
    """Events → one object of OpenAI's: with the reason of the end, usage, and what the dialect has no place for."""

    def __init__(self, context: StreamContext) -> None:
        super().__init__(context)
        self._created = context.clock() // 1000
        self._started: Event = {}
        self._finish: Event = {}
        self._warnings: list[dict[str, Any]] = []

    def event(self, event: Event) -> None:
        """Takes one event."""
        if event["type"] == "warning":
            note_warning(self._warnings, event)
        elif event["type"] == "start":
            self._started = event
        elif event["type"] == "finish":
            self._finish = event
        super().event(event)

    def _object(self, kind: str, prefix: str, choice: dict[str, Any], aside: dict[str, Any], result: Result) -> bytes:
        """Writes the object.

        Args:
            kind: The value of `object`.
            prefix: Of the identifier.
            choice: The one choice.
            aside: Members of `x_gai`.
            result: The answer.
        """
        answer: dict[str, Any] = {
            "id": f"{prefix}-{self._context.stream_id}",
            "object": kind,
            "created": self._created,
            "model": result.model or self._context.model,
            "choices": [choice],
        }
        if result.usage:
            answer["usage"], beside = usage_of(result.usage)
            aside |= beside
        if self._warnings:
            aside["warnings"] = self._warnings
        events = self._collector.others()
        if events:
            aside["events"] = events
        if aside:
            answer["x_gai"] = aside
        return encode_json(answer)


class WholeCompletion(WholeObject):
    """Events → one `chat.completion`."""

    others: ClassVar[tuple[str, ...]] = OTHERS

    def _answer(self, result: Result) -> bytes:
        reason, aside = finish_reason_of(self._finish)
        choice = {"index": 0, "message": self._message(result), "finish_reason": reason}
        return self._object("chat.completion", "chatcmpl", choice, aside, result)

    def _message(self, result: Result) -> dict[str, Any]:
        parts = result.message["content"]
        silent = not result.text and (result.tool_calls or result.refusal)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if silent else result.text,
            "refusal": result.refusal or None,
        }
        if result.reasoning:
            message["reasoning_content"] = result.reasoning
        signed = [part for part in parts if part["type"] == "reasoning" and "signature" in part]
        if signed:
            message["reasoning_details"] = [
                reasoning_detail(index, part, self._started) for index, part in enumerate(signed)
            ]
        if result.tool_calls:
            calls = [part for part in parts if part["type"] == "tool_call"]
            message["tool_calls"] = [
                {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                | ({"extra_content": extra_content(part["signature"])} if "signature" in part else {})
                for call, part in zip(result.tool_calls, calls, strict=True)
            ]
        if result.citations:
            message["annotations"] = [annotation(citation, len(result.text)) for citation in result.citations]
        return message
