"""The whole answer for AG-UI: one object with the members that its client returns for a run (`result`, `newMessages`).

Citations, and events that have no place in a message, are in `result`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gai_fast.core.requests.signatures import seal
from gai_fast.core.result import Result
from gai_fast.formats._base import OTHERS, StreamContext, WholeEncoder
from gai_fast.formats._openai import argument_text
from gai_fast.formats.agui.stream import Run, token_usage, usage_source
from gai_fast.kernels import encode_json
from gai_fast.model.events import Event


class WholeRun(WholeEncoder):
    """Events → one run.

    Args:
        context: The stream.
        run: The client's ids of the run.
    """

    others: ClassVar[tuple[str, ...]] = (*OTHERS, "provider.block")

    def __init__(self, context: StreamContext, run: Run) -> None:
        super().__init__(context)
        self._run = run

    def _answer(self, result: Result) -> bytes:
        messages = self._messages(result)
        calls = {call.call_id for call in result.tool_calls}
        events: list[Event] = []  # events that have no place in a message
        for event in self._collector.others():
            if event["type"] == "tool.result" and event.get("call_id") in calls:
                output = {"toolCallId": event["call_id"], "content": argument_text(event.get("tool_result"))}
                messages.append({"id": self._id(messages), "role": "tool", **output})
            else:
                events.append(event)
        more = {"citations": result.citations, "events": events, **usage_source(result.usage)}
        answer = {
            **self._run.members(),
            "result": {"finish_reason": result.finish_reason, **{key: each for key, each in more.items() if each}},
            "newMessages": messages,
            "usage": token_usage(result.usage, result.provider, result.model),
        }
        return encode_json(answer)

    def _messages(self, result: Result) -> list[dict[str, Any]]:
        """Returns one message per reasoning part, and the assistant's message."""
        messages: list[dict[str, Any]] = []
        texts: list[str] = []
        calls: list[dict[str, Any]] = []
        arguments = {call.call_id: call.arguments for call in result.tool_calls}
        for part in result.message["content"]:
            signed = _signature(part, result.provider)
            if part["type"] == "text":
                texts.append(part["text"])
            elif part["type"] == "reasoning":
                messages.append({"id": self._id(messages), "role": "reasoning", "content": part["text"], **signed})
            elif part["type"] == "tool_call":
                function = {"name": part["name"], "arguments": arguments[part["call_id"]]}
                calls.append({"id": part["call_id"], "type": "function", "function": function, **signed})
        message: dict[str, Any] = {"id": self._id(messages), "role": "assistant"}
        if texts:
            message["content"] = "".join(texts)
        if calls:
            message["toolCalls"] = calls
        return [*messages, message]

    def _id(self, before: list[dict[str, Any]]) -> str:
        return f"{self._context.stream_id}-{len(before) + 1}"


def _signature(part: Mapping[str, Any], provider: str | None) -> dict[str, str]:
    if "signature" not in part:
        return {}
    return {"encryptedValue": seal(part["signature"], provider, redacted=part.get("redacted"))}
