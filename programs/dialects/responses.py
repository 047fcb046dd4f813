"""OpenAI's Responses."""

from __future__ import annotations

import json
from typing import Any, Final

from programs.script import CREATED, INPUT_TOKENS, OUTPUT_TOKENS, Answer, Asked, cut_in_two, texts_of

USAGE: Final = {
    "input_tokens": INPUT_TOKENS,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": OUTPUT_TOKENS,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
}
_AT: Final = {"output_index": 0, "content_index": 0}


def read(body: dict[str, Any]) -> Asked:
    """Reads a request."""
    asked = body["input"]
    items = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    return Asked(
        said="\n".join(texts_of(item["content"]) for item in items if item.get("role") == "user"),
        tools=[tool["name"] for tool in body.get("tools") or () if tool["type"] == "function"],
        results=[texts_of(item["output"]) for item in items if item.get("type") == "function_call_output"],
    )


def frames(answer: Answer, body: dict[str, Any], number: int) -> list[bytes]:
    """The frames of a streamed answer."""
    ended = whole(answer, body, number)
    begun = {**ended, "status": "in_progress", "completed_at": None, "output": [], "usage": None}
    [item] = ended["output"]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        *(_call_events(item) if answer.tool else _text_events(item, answer)),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": ended},
    ]
    numbered = [{**event, "sequence_number": at} for at, event in enumerate(events)]
    return [f"event: {one['type']}\ndata: {json.dumps(one, ensure_ascii=False)}\n\n".encode() for one in numbered]


def _call_events(item: dict[str, Any]) -> list[dict[str, Any]]:
    at = {"item_id": item["id"], "output_index": 0}
    kind = "response.function_call_arguments"
    opened = {**item, "status": "in_progress", "arguments": ""}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": opened},
        *({"type": f"{kind}.delta", **at, "delta": piece} for piece in cut_in_two(item["arguments"])),
        {"type": f"{kind}.done", **at, "name": item["name"], "arguments": item["arguments"]},
    ]


def _text_events(item: dict[str, Any], answer: Answer) -> list[dict[str, Any]]:
    at = {"item_id": item["id"], **_AT}
    [part] = item["content"]
    kind = "response.output_text"
    opened = {**item, "status": "in_progress", "content": []}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": opened},
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *({"type": f"{kind}.delta", **at, "delta": piece, "logprobs": []} for piece in answer.pieces),
        {"type": f"{kind}.done", **at, "text": answer.text, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
    ]


def whole(answer: Answer, body: dict[str, Any], number: int) -> dict[str, Any]:
    """The answer as one object."""
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": CREATED,
        "completed_at": CREATED,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": {},
        "model": body["model"],
        "output": [_item(answer, number)],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": body.get("store", True),
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": USAGE,
        "user": None,
    }


def _item(answer: Answer, number: int) -> dict[str, Any]:
    if answer.tool:
        called = {"call_id": f"call_{number}", "name": answer.tool, "arguments": json.dumps(answer.arguments)}
        return {"id": f"fc_{number}", "type": "function_call", "status": "completed", **called}
    part = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
    return {"id": f"msg_{number}", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
