"""OpenAI's whole chat completion: one JSON object, built from events, with all choices.

Events that have no place in the dialect are in `x_gai.events`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from mypy_extensions import mypyc_attr

from gai_fast.core.collector import Collector
from gai_fast.core.result import Result
from gai_fast.formats._base import CALLS_TOO, StreamContext, WholeEncoder
from gai_fast.formats._openai import annotation, note_warning
from gai_fast.formats.chat.parts import extra_content, finish_of, finish_reason_of, reasoning_detail, usage_of
from gai_fast.kernels import encode_json
from gai_fast.model.events import NO_EVENT, Event


@mypyc_attr(allow_interpreted_subclasses=True)
class WholeObject(WholeEncoder):
    """Events → one OpenAI object with finish reason, usage, and `x_gai` for values the dialect does not have."""

    def __init__(self, context: StreamContext) -> None:
        super().__init__(context)
        self._created = context.clock() // 1000
        self._started: Event = NO_EVENT
        self._finish: Event = NO_EVENT
        self._warnings: list[dict[str, Any]] = []

    def event(self, event: Event) -> None:
        """Collects one event."""
        if event["type"] == "warning":
            note_warning(self._warnings, event)
        elif event["type"] == "start":
            self._started = event
        elif event["type"] == "finish":
            self._finish = event
        super().event(event)

    def _object(
        self, kind: str, prefix: str, choices: list[dict[str, Any]], x_gai: dict[str, Any], result: Result
    ) -> bytes:
        """Returns the object as JSON.

        Args:
            kind: The value of `object`.
            prefix: The prefix of the id.
            choices: The choices.
            x_gai: Members of `x_gai`.
            result: The first choice.
        """
        answer: dict[str, Any] = {
            "id": f"{prefix}-{self._context.stream_id}",
            "object": kind,
            "created": self._created,
            "model": result.model or self._context.model,
            "choices": choices,
        }
        if result.usage:
            answer["usage"], beside = usage_of(result.usage)
            x_gai |= beside
        if self._warnings:
            x_gai["warnings"] = self._warnings
        events = self._others()
        if events:
            x_gai["events"] = events
        if x_gai:
            answer["x_gai"] = x_gai
        return encode_json(answer)

    def _others(self) -> list[Event]:
        """Returns the events that have no place in the dialect."""
        return self._collector.others()


class WholeCompletion(WholeObject):
    """Events → one `chat.completion`."""

    others: ClassVar[tuple[str, ...]] = (*CALLS_TOO, "provider.block")

    def __init__(self, context: StreamContext) -> None:
        super().__init__(context)
        self._more: dict[int, Collector] = {}
        """The collectors of the choices besides the first, by their numbers."""

    def event(self, event: Event) -> None:
        """Collects one event."""
        number = event.get("choice")
        if number:
            choice = self._more.get(number)
            if choice is None:
                choice = Collector(plain=False, others=self.others, choice=number, beside=self._collector)
                self._more[number] = choice
            choice.event(event)
        elif event["type"] == "stream.reset":
            self._more.clear()
        super().event(event)

    def _answer(self, result: Result) -> bytes:
        _, x_gai = finish_reason_of(self._finish, has_calls=bool(result.tool_calls))
        choices = [self._choice(0, result, self._collector)]
        choices += [
            self._choice(number, self._more[number].result(), self._more[number]) for number in sorted(self._more)
        ]
        return self._object("chat.completion", "chatcmpl", choices, x_gai, result)

    def _others(self) -> list[Event]:
        return [*super()._others(), *(event for each in self._more.values() for event in each.others())]

    def _choice(self, number: int, result: Result, collector: Collector) -> dict[str, Any]:
        reason, _ = finish_reason_of(finish_of(self._finish, number), has_calls=bool(result.tool_calls))
        choice = {"index": number, "message": self._message(result, collector.parts()), "finish_reason": reason}
        refused = collector.refusal_logprobs
        if result.logprobs or refused:
            choice["logprobs"] = {"content": result.logprobs or None, "refusal": refused or None}
        return choice

    def _message(self, result: Result, parts: list[dict[str, Any]]) -> dict[str, Any]:
        is_null = not result.text and (result.tool_calls or result.refusal)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if is_null else result.text,
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
