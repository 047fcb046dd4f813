"""Anthropic's whole message: one JSON object, built from events.

Values without a place in the dialect are in `x_gai`: finish reasons, the source of usage, warnings, and whole events.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, ClassVar

from gai_fast.core.result import Result
from gai_fast.formats._base import CALLS_TOO, StreamContext, WholeEncoder
from gai_fast.formats.messages.parts import (
    citation_of,
    container_of,
    input_of,
    is_refusal,
    marked,
    native_author,
    note_warning,
    refusal_of,
    run_of,
    server_tool_block,
    stop_reason_of,
    stop_sequence_of,
    usage_of,
)
from gai_fast.kernels import encode_json
from gai_fast.model.events import NO_EVENT, Event


class WholeMessage(WholeEncoder):
    """Events → one `message`."""

    others: ClassVar[tuple[str, ...]] = (*CALLS_TOO, "provider.block")

    def __init__(self, context: StreamContext) -> None:
        super().__init__(context)
        self._finish: Event = NO_EVENT
        self._safety: Mapping[str, Any] | None = None
        self._warnings: list[dict[str, Any]] = []

    def event(self, event: Event) -> None:
        """Collects one event."""
        kind = event["type"]
        if kind == "warning":
            note_warning(self._warnings, event)
        elif kind == "safety":
            self._safety = event["safety"]
        elif kind == "finish":
            self._finish = event
        super().event(event)

    def _answer(self, result: Result) -> bytes:
        reason, x_gai = stop_reason_of(self._finish, has_calls=bool(result.tool_calls))
        counts, beside = usage_of(result.usage or {})
        if self._warnings:
            beside["warnings"] = self._warnings
        among = ("server_tool", "provider.block") if result.provider == native_author() else ()
        details = refusal_of(self._safety, reason)
        # The category of a refusal is in `stop_details` already.
        placed = self._safety if details is not None and is_refusal(self._safety) else None
        others = (one for one in self._collector.others() if one["type"] not in among)
        events = [one for one in others if placed is None or one.get("safety") != placed]
        if events:
            beside["events"] = events
        answer = {
            "id": f"msg_{self._context.stream_id}",
            "type": "message",
            "role": "assistant",
            "model": result.model or self._context.model,
            "content": self._content(result, among),
            "stop_reason": reason,
            "stop_sequence": stop_sequence_of(self._finish),
            "stop_details": details,
            "usage": counts,
            **container_of(self._finish),
        }
        x_gai |= beside
        if x_gai:
            answer["x_gai"] = x_gai
        return encode_json(answer)

    def _content(self, result: Result, among: tuple[str, ...]) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = []
        texts: list[dict[str, Any]] = []
        ends: list[int] = []  # the end of each text block, in code points of the visible text
        run = ""  # the run whose own block came last: its `server_tool` follows
        for part in self._collector.parts(among, blocks=bool(among)):
            if part["type"] == "event":
                tool = part["event"]["server_tool"]
                if not run or tool.get("id") != run:
                    blocks.append(server_tool_block(tool))
            elif part["type"] == "provider_block":
                if part["provider"] == native_author():
                    blocks.append(part["block"])
                    run = run_of(part["block"])
            elif part["type"] == "tool_call":
                blocks += self._call(part, result.provider)
            elif part["type"] == "reasoning":
                blocks.append(self._reasoning(part, result.provider))
            else:
                blocks.append({"type": "text", "text": part["text"]})
                texts.append(blocks[-1])
                ends.append(len(part["text"]) + (ends[-1] if ends else 0))
        if len(blocks) > 1 and blocks[-2].get("type") == "text" and blocks[-1].get("thinking") == "":
            blocks.pop()  # a signature after the text: rule 2 of `stream.py`
        for citation in filter(None, result.citations):
            # A citation belongs to the block in which its span ends; without a span, to the first block.
            at = bisect_left(ends, citation.get("end") or 0)
            if at < len(texts):
                texts[at].setdefault("citations", []).append(citation_of(citation))
        return blocks

    def _reasoning(self, part: Mapping[str, Any], provider: str | None) -> dict[str, Any]:
        signature = marked(part["signature"], provider) if part.get("signature") else ""
        if part.get("redacted"):
            return {"type": "redacted_thinking", "data": signature}
        return {"type": "thinking", "thinking": part["text"], "signature": signature}

    def _call(self, part: Mapping[str, Any], provider: str | None) -> list[dict[str, Any]]:
        call = {"type": "tool_use", "id": part["call_id"], "name": part["name"], "input": input_of(part["input"])}
        if not part.get("signature"):
            return [call]
        data = marked(part["signature"], provider, part["call_id"])
        return [{"type": "redacted_thinking", "data": data}, call]
