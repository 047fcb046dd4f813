"""The whole answer for Vercel's AI SDK: one `UIMessage`, as `useChat` builds it from a stream.

The `tool.result` of a call becomes the output of the call's part: `useChat` merges `tool-output-available` in this way.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gai_fast.core.result import Result
from gai_fast.formats._base import WholeEncoder, result_text
from gai_fast.formats.vercel.stream import (
    failure_text,
    file_part,
    message_metadata,
    server_tool_id,
    signature_metadata,
    source_part,
)
from gai_fast.kernels import encode_json
from gai_fast.model.events import Event


class WholeUIMessage(WholeEncoder):
    """Events → one `UIMessage`. It has no audio: the audio parts of a stream are transient."""

    others: ClassVar[tuple[str, ...]] = (
        *("approval.decided", "approval.required", "image", "safety", "server_tool", "step.start", "tool.call"),
        "tool.result",
    )

    def _answer(self, result: Result) -> bytes:
        parts: list[dict[str, Any]] = [] if self._collector.is_run else [{"type": "step-start"}]
        tools: dict[str, dict[str, Any]] = {}
        for part in self._collector.parts(self.others):
            new = self._of_event(part["event"], tools) if part["type"] == "event" else self._part(part, result.provider)
            if new is not None:
                parts.append(new)
            if new is not None and "toolCallId" in new:
                tools[new["toolCallId"]] = new
        parts += [source_part(citation, number) for number, citation in enumerate(result.citations, 1)]
        message = {
            "id": f"msg-{self._context.stream_id}",
            "role": "assistant",
            "metadata": message_metadata(result.usage, result.finish_reason),
            "parts": parts,
        }
        return encode_json(message)

    def _part(self, part: dict[str, Any], provider: str | None) -> dict[str, Any]:
        if part["type"] == "provider_block":
            return {"type": "data-provider-block", "data": {"provider": part["provider"], "block": part["block"]}}
        if part["type"] == "tool_call":
            call_part = {
                "type": f"tool-{part['name']}",
                "toolCallId": part["call_id"],
                "state": "input-available",
                "input": part["input"],
            }
            if "signature" in part:
                call_part["callProviderMetadata"] = signature_metadata(part, provider)
            return call_part
        text_part = {"type": part["type"], "text": part["text"], "state": "done"}
        if "signature" in part:
            text_part["providerMetadata"] = signature_metadata(part, provider)
        return text_part

    def _of_event(self, event: Event, tools: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
        """Returns the part for an event, or None if the event updates an earlier part or has none.

        Args:
            event: An event of a type in `others`.
            tools: The parts of tools so far, by their ids.
        """
        kind = event["type"]
        if kind == "image":
            return None if event["image"].get("partial") else file_part(event["image"])
        if kind == "safety":
            return {"type": "data-safety", "data": event["safety"]}
        if kind == "server_tool":
            return self._server_tool(event["server_tool"], tools)
        if kind == "step.start":
            return {"type": "step-start"}
        if kind == "tool.call":
            return self._gateway_call(event)
        if kind in ("approval.required", "approval.decided"):
            return self._approval(event, tools)
        call_id, output = event.get("call_id", ""), event.get("tool_result")
        if call_id not in tools:
            return {"type": "data-tool-result", "data": {"call_id": call_id, "tool_result": output}}
        if event.get("is_error"):
            tools[call_id] |= {"state": "output-error", "errorText": result_text(event)}
        else:
            tools[call_id] |= {"state": "output-available", "output": event.get("parts", output)}
        return None

    def _approval(self, event: Event, tools: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
        identifier, data = event["approval"]["id"], {"call_id": event["call_id"], **event["approval"]}
        key = f"approval {identifier}"
        if key in tools:
            tools[key]["data"] = data
            return None
        tools[key] = {"type": "data-approval", "id": identifier, "data": data}
        return tools[key]

    def _gateway_call(self, event: Event) -> dict[str, Any]:
        call = event["tool_call"]
        return {
            "type": "dynamic-tool",
            "toolName": call.get("name", ""),
            "toolCallId": event["call_id"],
            "state": "input-available",
            "input": call.get("input", {}),
            "providerExecuted": True,
        }

    def _server_tool(self, tool: dict[str, Any], tools: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
        identifier = server_tool_id(tool)
        known = tools.get(identifier)
        part = known or {
            "type": f"tool-{tool.get('name', '')}",
            "toolCallId": identifier,
            "state": "input-available",
            "input": {},
            "providerExecuted": True,
        }
        if "input" in tool:
            part["input"] = tool["input"]
        if tool.get("status") == "completed":
            part |= {"state": "output-available", "output": tool.get("output")}
        elif tool.get("status") == "failed":
            part |= {"state": "output-error", "errorText": failure_text(tool.get("output"))}
        return None if known else part
