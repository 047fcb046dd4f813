"""OpenAI's chat completions."""

from __future__ import annotations

import json
from typing import Any, Final

from programs.script import CREATED, INPUT_TOKENS, OUTPUT_TOKENS, Answer, Asked, cut_in_two, texts_of

USAGE: Final = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
}


def read(body: dict[str, Any]) -> Asked:
    """Reads a request."""
    messages = body["messages"]
    return Asked(
        said="\n".join(texts_of(one["content"]) for one in messages if one["role"] == "user"),
        tools=[tool["function"]["name"] for tool in body.get("tools") or () if tool["type"] == "function"],
        results=[texts_of(one["content"]) for one in messages if one["role"] == "tool"],
    )


def frames(answer: Answer, body: dict[str, Any], number: int) -> list[bytes]:
    """The frames of a streamed answer."""
    head: dict[str, Any] = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": body["model"],
    }
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if answer.tool else ""}]
    if answer.tool:
        begin, rest = cut_in_two(json.dumps(answer.arguments))
        call = {"index": 0, "id": f"call_{number}", "type": "function"}
        deltas.append({"tool_calls": [{**call, "function": {"name": answer.tool, "arguments": ""}}]})
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in (begin, rest)]
    else:
        deltas += [{"content": piece} for piece in answer.pieces]
    choices: list[dict[str, Any]] = [
        {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas
    ]
    choices.append({"index": 0, "delta": {}, "logprobs": None, "finish_reason": _reason(answer)})
    chunks = [{**head, "choices": [choice]} for choice in choices]
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks = [{**chunk, "usage": None} for chunk in chunks]
        chunks.append({**head, "choices": [], "usage": USAGE})
    return [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode() for chunk in chunks] + [b"data: [DONE]\n\n"]


def whole(answer: Answer, body: dict[str, Any], number: int) -> dict[str, Any]:
    """The answer as one object."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.tool:
        function = {"name": answer.tool, "arguments": json.dumps(answer.arguments)}
        message["tool_calls"] = [{"id": f"call_{number}", "type": "function", "function": function}]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(answer)}
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": CREATED,
        "model": body["model"],
        "choices": [choice],
        "usage": USAGE,
    }


def _reason(answer: Answer) -> str:
    return "tool_calls" if answer.tool else "stop"
