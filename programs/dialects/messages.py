"""Anthropic's Messages."""

from __future__ import annotations

import json
from typing import Any

from programs.script import INPUT_TOKENS, OUTPUT_TOKENS, Answer, Asked, cut_in_two, texts_of


def read(body: dict[str, Any]) -> Asked:
    """Reads a request."""
    said = [texts_of(one["content"]) for one in body["messages"] if one["role"] == "user"]
    blocks = [block for one in body["messages"] if isinstance(one["content"], list) for block in one["content"]]
    return Asked(
        said="\n".join(said),
        tools=[tool["name"] for tool in body.get("tools") or ()],
        results=[texts_of(block.get("content")) for block in blocks if block["type"] == "tool_result"],
    )


def frames(answer: Answer, body: dict[str, Any], number: int) -> list[bytes]:
    """The frames of a streamed answer."""
    [block] = _content(answer, number)
    if answer.tool:
        begin, rest = cut_in_two(json.dumps(answer.arguments))
        opened = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", begin, rest)]
    else:
        opened = {**block, "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in answer.pieces]
    begun = {**whole(answer, body, number), "content": [], "stop_reason": None, "usage": _usage(1)}
    ended = {"stop_reason": _reason(answer), "stop_sequence": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": opened},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": OUTPUT_TOKENS}},
        {"type": "message_stop"},
    ]
    return [f"event: {one['type']}\ndata: {json.dumps(one, ensure_ascii=False)}\n\n".encode() for one in events]


def whole(answer: Answer, body: dict[str, Any], number: int) -> dict[str, Any]:
    """The answer as one object."""
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": _content(answer, number),
        "stop_reason": _reason(answer),
        "stop_sequence": None,
        "usage": _usage(OUTPUT_TOKENS),
    }


def _content(answer: Answer, number: int) -> list[dict[str, Any]]:
    if answer.tool:
        return [{"type": "tool_use", "id": f"toolu_{number}", "name": answer.tool, "input": answer.arguments}]
    return [{"type": "text", "text": answer.text}]


def _reason(answer: Answer) -> str:
    return "tool_use" if answer.tool else "end_turn"


def _usage(output_tokens: int) -> dict[str, int]:
    return {"input_tokens": INPUT_TOKENS, "output_tokens": output_tokens}
