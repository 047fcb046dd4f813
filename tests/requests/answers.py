"""What fakes of providers answer: short texts, and answers with thoughts and calls that leave a history.

Written after the recordings of `corpus`; the ids of calls are each provider's own kind.
"""

from __future__ import annotations

import json
from typing import Any


def _sse(*objects: Any, named: bool = False, done: bool = False) -> bytes:
    lines = []
    for each in objects:
        event = f"event: {each['type']}\n" if named else ""
        lines.append(f"{event}data: {json.dumps(each)}\n\n")
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def _lines(*objects: Any) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in objects).encode()


USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


def _chat(*deltas: dict[str, Any], finish: str = "stop") -> bytes:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    chunks = [{**head, "choices": [choice]} for choice in choices]
    return _sse(*chunks, {**head, "choices": [], "usage": USAGE}, done=True)


def _called(*calls: tuple[str | None, str, str]) -> dict[str, Any]:
    return {
        "tool_calls": [
            {"index": at, "id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}
            for at, (identifier, name, arguments) in enumerate(calls)
        ]
    }


def _response(*items: dict[str, Any]) -> bytes:
    whole = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": "completed",
        "output": list(items),
        "usage": {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4},
    }
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}
    ]
    for at, item in enumerate(items):
        begun = {**item, "content": []} if item["type"] == "message" else item
        events.append({"type": "response.output_item.added", "output_index": at, "item": begun})
        if item["type"] == "message":
            text = item["content"][0]["text"]
            place = {"item_id": item["id"], "output_index": at, "content_index": 0}
            part = {"type": "output_text", "text": "", "annotations": []}
            events.append({"type": "response.content_part.added", **place, "part": part})
            events.append({"type": "response.output_text.delta", **place, "delta": text})
            events.append({"type": "response.output_text.done", **place, "text": text})
        if item["type"] == "function_call":
            place = {"item_id": item["id"], "output_index": at}
            events.append({"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]})
        events.append({"type": "response.output_item.done", "output_index": at, "item": item})
    events.append({"type": "response.completed", "response": whole})
    return _sse(*({**event, "sequence_number": at} for at, event in enumerate(events)), named=True)


def _said(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


def _message(*blocks: dict[str, Any], stop: str = "end_turn") -> bytes:
    usage = {"input_tokens": 3, "output_tokens": 1}
    begun = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
    for at, block in enumerate(blocks):
        kind = block["type"]
        deltas = {
            "text": [{"type": "text_delta", "text": block.get("text")}],
            "thinking": [
                {"type": "thinking_delta", "thinking": block.get("thinking")},
                {"type": "signature_delta", "signature": block.get("signature")},
            ],
            "tool_use": [{"type": "input_json_delta", "partial_json": json.dumps(block.get("input"))}],
        }[kind]
        empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}[kind]
        events.append({"type": "content_block_start", "index": at, "content_block": {**block, **empty}})
        events += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": at})
    events.append({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage})
    return _sse(*events, {"type": "message_stop"}, named=True)


def _gemini(*parts: dict[str, Any]) -> bytes:
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 1, "totalTokenCount": 4}
    content = {"role": "model", "parts": list(parts)}
    return _sse({"candidates": [{"content": content, "index": 0, "finishReason": "STOP"}], "usageMetadata": usage})


def _cohere(text: str, plan: str = "", calls: tuple[tuple[str, str, str], ...] = ()) -> bytes:
    events: list[dict[str, Any]] = [{"type": "message-start", "id": "c1", "delta": {"message": {"role": "assistant"}}}]
    if plan:
        events.append({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": plan}}})
    if text:
        content = {"type": "text", "text": ""}
        events.append({"type": "content-start", "index": 0, "delta": {"message": {"content": content}}})
        events.append({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}})
        events.append({"type": "content-end", "index": 0})
    for at, (identifier, name, arguments) in enumerate(calls):
        call = {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}
        events.append({"type": "tool-call-start", "index": at, "delta": {"message": {"tool_calls": call}}})
        events.append({"type": "tool-call-end", "index": at})
    usage = {"tokens": {"input_tokens": 3, "output_tokens": 1}}
    reason = "TOOL_CALL" if calls else "COMPLETE"
    return _sse(*events, {"type": "message-end", "delta": {"finish_reason": reason, "usage": usage}}, named=True)


_END = {
    "model": "m",
    "created_at": "2026-01-01T00:00:00Z",
    "message": {"role": "assistant", "content": ""},
    "done": True,
}
_OLLAMA_END = {**_END, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 1}

ANSWERS: dict[str, bytes] = {
    "chat": _chat({"role": "assistant", "content": "Hi"}),
    "responses": _response(_said("Hi")),
    "messages": _message({"type": "text", "text": "Hi"}),
    "gemini": _gemini({"text": "Hi"}),
    "cohere": _cohere("Hi"),
    "ollama": _lines({**_END, "done": False, "message": {"role": "assistant", "content": "Hi"}}, _OLLAMA_END),
    "generate": _lines(
        {"model": "m", "response": "Hi", "done": False},
        {"model": "m", "response": "", "done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 1},
    ),
    "completions": _sse(
        {
            "id": "c1",
            "object": "text_completion",
            "created": 1,
            "model": "m",
            "choices": [{"text": "Hi", "index": 0, "finish_reason": "stop"}],
            "usage": USAGE,
        },
        done=True,
    ),
}
"""A short answer of each dialect, as a stream."""

WHOLE: dict[str, bytes] = {
    "chat": json.dumps(
        {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
            "usage": USAGE,
        }
    ).encode(),
    "responses": json.dumps(
        {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": "m",
            "status": "completed",
            "output": [_said("Hi")],
            "usage": {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4},
        }
    ).encode(),
    "messages": json.dumps(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [{"type": "text", "text": "Hi"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 1},
        }
    ).encode(),
}
"""A short answer of each dialect that passes whole answers."""

_OSLO, _ROME = '{"city": "Oslo"}', '{"city": "Rome"}'
_THOUGHT = "I look it up."
_LOOK = "Let me look."


def _function_call(number: int, arguments: str) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_0{number}",
        "call_id": f"call_0{number}",
        "name": "weather",
        "arguments": arguments,
        "status": "completed",
    }


HISTORIES: dict[str, bytes] = {
    "openai": _chat(
        {"role": "assistant", "content": _LOOK},
        _called(
            ("call_9sXq2eBPbpGQmQ3TqMCqE1aB", "weather", _OSLO), ("call_8sXq2eBPbpGQmQ3TqMCqE1aB", "weather", _ROME)
        ),
        finish="tool_calls",
    ),
    "openai:responses": _response(
        {
            "type": "reasoning",
            "id": "rs_01",
            "summary": [{"type": "summary_text", "text": _THOUGHT}],
            "encrypted_content": "gAAAAsealed",
        },
        _said(_LOOK),
        _function_call(1, _OSLO),
        _function_call(2, _ROME),
    ),
    "anthropic": _message(
        {"type": "thinking", "thinking": _THOUGHT, "signature": "EqQBCgIYAhIM"},
        {"type": "text", "text": _LOOK},
        {"type": "tool_use", "id": "toolu_01A", "name": "weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "toolu_01B", "name": "weather", "input": {"city": "Rome"}},
        stop="tool_use",
    ),
    "gemini": _gemini(
        {"text": _THOUGHT, "thought": True},
        {"text": _LOOK},
        {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}, "thoughtSignature": "Z2VtaW5p"},
        {"functionCall": {"name": "weather", "args": {"city": "Rome"}}},
    ),
    "groq": _chat(
        {"role": "assistant", "reasoning": _THOUGHT},
        {"content": _LOOK},
        _called(("fc_4a5b6c7d-0000-4000-8000-000000000001", "weather", _OSLO), ("y1tz", "weather", _ROME)),
        finish="tool_calls",
    ),
    "mistral": _chat(
        {"role": "assistant", "content": [{"type": "thinking", "thinking": [{"type": "text", "text": _THOUGHT}]}]},
        {"content": _LOOK},
        _called(("D681PevKs", "weather", _OSLO), ("aB3dE6gH9", "weather", _ROME)),
        finish="tool_calls",
    ),
    "xai": _chat(
        {"role": "assistant", "reasoning_content": _THOUGHT},
        {"content": _LOOK},
        _called(("call_14703621", "weather", _OSLO), ("call_14703622", "weather", _ROME)),
        finish="tool_calls",
    ),
    "deepseek": _chat(
        {"role": "assistant", "content": None, "reasoning_content": _THOUGHT},
        {"content": _LOOK},
        _called(("call_00_j4F2yq6EqmXjWvD", "weather", _OSLO), ("call_01_j4F2yq6EqmXjWvD", "weather", _ROME)),
        finish="tool_calls",
    ),
    "cohere": _cohere(
        _LOOK, _THOUGHT, (("weather_b2m4k7q1", "weather", _OSLO), ("weather_c3n5l8r2", "weather", _ROME))
    ),
    "ollama": _lines(
        {**_END, "done": False, "message": {"role": "assistant", "content": "", "thinking": _THOUGHT}},
        {**_END, "done": False, "message": {"role": "assistant", "content": _LOOK}},
        {
            **_END,
            "done": False,
            "message": {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"function": {"name": "weather", "arguments": {"city": "Oslo"}}},
                    {"function": {"name": "weather", "arguments": {"city": "Rome"}}},
                ],
            },
        },
        _OLLAMA_END,
    ),
    "openrouter": _chat(
        {
            "role": "assistant",
            "content": "",
            "reasoning": _THOUGHT,
            "reasoning_details": [
                {
                    "type": "reasoning.text",
                    "text": _THOUGHT,
                    "signature": "EqQBCgIYAhIM",
                    "format": "anthropic-claude-v1",
                    "index": 0,
                }
            ],
        },
        {"content": _LOOK},
        _called(("toolu_vrtx_01A", "weather", _OSLO), ("toolu_vrtx_01B", "weather", _ROME)),
        finish="tool_calls",
    ),
    "openai-compatible": _chat(
        {"role": "assistant", "reasoning_content": _THOUGHT},
        {"content": _LOOK},
        _called(("functions.weather:0", "weather", _OSLO), ("functions.weather:1" + "x" * 60, "weather", _ROME)),
        finish="tool_calls",
    ),
}
"""An answer of a provider with thoughts, a text and two calls: Oslo and Rome."""
