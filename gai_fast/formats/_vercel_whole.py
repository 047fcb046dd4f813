"""The whole answer for Vercel's AI SDK: one `UIMessage`, as `useChat` has it at the end of a stream."""

from __future__ import annotations

from typing import Any

from gai_fast._impl import encode_json
from gai_fast.formats._base import WholeEncoder
from gai_fast.formats._vercel_stream import message_metadata, signature_metadata, source_part
from gai_fast.result import Result


class WholeMessage(WholeEncoder):
    """Events → one `UIMessage`."""

    def _answer(self, result: Result) -> bytes:
        parts: list[dict[str, Any]] = [{"type": "step-start"}]
        parts += [self._part(part, result.provider) for part in result.message["content"]]
        parts += [source_part(citation, number) for number, citation in enumerate(result.citations, 1)]
        message = {
            "id": f"msg-{self._context.stream_id}",
            "role": "assistant",
            "metadata": message_metadata(result.usage, result.finish_reason),
            "parts": parts,
        }
        return encode_json(message)

    def _part(self, part: dict[str, Any], provider: str | None) -> dict[str, Any]:
        if part["type"] == "tool_call":
            called = {
                "type": f"tool-{part['name']}",
                "toolCallId": part["call_id"],
                "state": "input-available",
                "input": part["input"],
            }
            if "signature" in part:
                called["callProviderMetadata"] = signature_metadata(part, provider)
            return called
        said = {"type": part["type"], "text": part["text"], "state": "done"}
        if "signature" in part:
            said["providerMetadata"] = signature_metadata(part, provider)
        return said
