"""The whole answer for AG-UI: one object with the members that its client returns for a run (`result`, `newMessages`).

Citations, and events that have no place in a message, are in `result`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gai_fast.core.requests.signatures import seal
from gai_fast.core.result import Result
from gai_fast.formats._base import CALLS_TOO, StreamContext, WholeEncoder, result_text
from gai_fast.formats.agui.stream import Run, token_usage, usage_source
from gai_fast.kernels import encode_json
from gai_fast.model.events import Event


class WholeRun(WholeEncoder):
    """Events → one run.

    Args:
        context: The stream.
        run: The client's ids of the run.
    """

    others: ClassVar[tuple[str, ...]] = (*CALLS_TOO, "provider.block")

    def __init__(self, context: StreamContext, run: Run) -> None:
        super().__init__(context)
        self._run = run

    def _answer(self, result: Result) -> bytes:
        messages: list[dict[str, Any]] = []
        others = self._collector.others()
        results = {event.get("call_id"): event for event in others if event["type"] == "tool.result"}
        placed: list[Event] = []  # events that have a place in a message
        for message in result.messages:
            if message["role"] == "assistant":
                placed += self._add_turn(messages, message["content"], result.provider, results)
        events = [event for event in others if event["type"] != "tool.call" and event not in placed]
        more = {"citations": result.citations, "events": events, **usage_source(result.usage)}
        answer = {
            **self._run.members(),
            "result": {"finish_reason": result.finish_reason, **{key: each for key, each in more.items() if each}},
            "newMessages": messages,
            "usage": token_usage(result.usage, result.provider, result.model),
        }
        return encode_json(answer)

    def _add_turn(
        self,
        messages: list[dict[str, Any]],
        content: list[dict[str, Any]],
        provider: str | None,
        results: Mapping[str | None, Event],
    ) -> list[Event]:
        """Adds one message per reasoning part, the assistant's message, and the results of its calls.

        Args:
            messages: The messages before.
            content: The parts of the turn.
            provider: The provider that answers.
            results: The results, by the calls' ids.

        Returns:
            The results that were added.
        """
        texts: list[str] = []
        calls: list[dict[str, Any]] = []
        found: list[Event] = []
        for part in content:
            signed = _signature(part, part.get("provider", provider))
            if part["type"] == "text":
                texts.append(part["text"])
            elif part["type"] == "reasoning":
                messages.append({"id": self._id(messages), "role": "reasoning", "content": part["text"], **signed})
            elif part["type"] == "tool_call":
                function = {"name": part["name"], "arguments": self._collector.arguments_of(part)}
                calls.append({"id": part["call_id"], "type": "function", "function": function, **signed})
                if part["call_id"] in results:
                    found.append(results[part["call_id"]])
        message: dict[str, Any] = {"id": self._id(messages), "role": "assistant"}
        if texts:
            message["content"] = "".join(texts)
        if calls:
            message["toolCalls"] = calls
        messages.append(message)
        for event in found:
            output = {"toolCallId": event["call_id"], "content": result_text(event)}
            messages.append({"id": self._id(messages), "role": "tool", **output})
        return found

    def _id(self, before: list[dict[str, Any]]) -> str:
        return f"{self._context.stream_id}-{len(before) + 1}"


def _signature(part: Mapping[str, Any], provider: str | None) -> dict[str, str]:
    if "signature" not in part:
        return {}
    return {"encryptedValue": seal(part["signature"], provider, redacted=part.get("redacted"))}
