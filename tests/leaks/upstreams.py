"""What upstreams say: the frames of an answer in each dialect, from the pieces of its channels."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

Said = tuple[str, str]
"""A piece of an answer: `text`, `reasoning`, `refusal`, `call` or `call2`, and the piece. An empty call begins it.
Among the pieces of a text stand `usage`, and `citation` with its title."""

CALLS: Final = ("call", "call2")
ADDRESS: Final = "https://u.u/"
"""Where citations are; no guard of a case finds anything in it."""


def sse(value: Any, *, named: bool = False) -> bytes:
    name = f"event: {value['type']}\n" if named else ""
    return f"{name}data: {json.dumps(value)}\n\n".encode()


def chat(pieces: Sequence[Said]) -> list[bytes]:
    """OpenAI's chat completions, with the reasoning of compatible servers."""
    frames: list[bytes] = []
    for at, (kind, text) in enumerate(pieces):
        delta: dict[str, Any]
        if kind == "usage":
            frames.append(_usage(len(frames)))
            continue
        if kind == "citation":
            cited = {"url": f"{ADDRESS}{_number(pieces, at)}", "title": text}
            delta = {"annotations": [{"type": "url_citation", "url_citation": cited}]}
        elif kind in CALLS:
            index = CALLS.index(kind)
            function = {"arguments": text} if text else {"name": "f", "arguments": ""}
            begin = {} if text else {"id": f"call_{index + 1}", "type": "function"}
            delta = {"tool_calls": [{"index": index, **begin, "function": function}]}
        else:
            delta = {{"text": "content", "reasoning": "reasoning_content"}.get(kind, kind): text}
        frames.append(_chunk(delta))
    has_call = any(kind in CALLS for kind, _ in pieces)
    return [*frames, _chunk({}, "tool_calls" if has_call else "stop"), _usage(4), b"data: [DONE]\n\n"]


def _usage(count: int) -> bytes:
    usage = {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": 3 + count}
    return sse(
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage}
    )


def _number(pieces: Sequence[Said], at: int) -> int:
    """Returns the number of a citation among those of its answer."""
    return sum(kind == "citation" for kind, _ in pieces[:at])


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return sse({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices})


def messages(pieces: Sequence[Said]) -> list[bytes]:
    """Anthropic's Messages."""
    usage = {"input_tokens": 3, "output_tokens": 1}
    message = {"id": "m1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    frames = [sse({"type": "message_start", "message": message}, named=True)]
    index, latest = -1, ""
    for at, (kind, text) in enumerate(pieces):
        if kind == "usage":
            frames.append(sse({"type": "ping"}, named=True))
            continue
        if kind == "citation":
            place = {"type": "web_search_result_location", "encrypted_index": "", "cited_text": "Title"}
            cited = {**place, "url": f"{ADDRESS}{_number(pieces, at)}", "title": text}
            event = {"type": "content_block_delta", "index": index}
            frames.append(sse({**event, "delta": {"type": "citations_delta", "citation": cited}}, named=True))
            continue
        if kind != latest:
            if latest:
                frames.append(sse({"type": "content_block_stop", "index": index}, named=True))
            index, latest = index + 1, kind
            block = {
                "text": {"type": "text", "text": ""},
                "reasoning": {"type": "thinking", "thinking": "", "signature": ""},
                "call": {"type": "tool_use", "id": "call_1", "name": "f", "input": {}},
                "call2": {"type": "tool_use", "id": "call_2", "name": "f", "input": {}},
            }[kind]
            frames.append(sse({"type": "content_block_start", "index": index, "content_block": block}, named=True))
        delta = {
            "text": {"type": "text_delta", "text": text},
            "reasoning": {"type": "thinking_delta", "thinking": text},
        }.get(kind, {"type": "input_json_delta", "partial_json": text})
        frames.append(sse({"type": "content_block_delta", "index": index, "delta": delta}, named=True))
    frames.append(sse({"type": "content_block_stop", "index": index}, named=True))
    reason = "tool_use" if latest in CALLS else "end_turn"
    stop = {"stop_reason": reason, "stop_sequence": None}
    frames.append(sse({"type": "message_delta", "delta": stop, "usage": {"output_tokens": 4}}, named=True))
    return [*frames, sse({"type": "message_stop"}, named=True)]


def responses(pieces: Sequence[Said]) -> list[bytes]:
    """OpenAI's Responses."""
    numbers = iter(range(1 << 20))
    answer = {"id": "r1", "object": "response", "created_at": 1, "model": "m", "output": []}

    def event(kind: str, **members: Any) -> bytes:
        return sse({"type": f"response.{kind}", "sequence_number": next(numbers), **members}, named=True)

    frames = [event("created", response={**answer, "status": "in_progress"})]
    items: list[dict[str, Any]] = []
    wholes: list[str] = []
    under_way: dict[str, int] = {}  # items by their kinds: calls take turns
    for number, (kind, text) in enumerate([*pieces, ("", "")]):
        if kind == "usage":
            frames.append(event("in_progress", response={**answer, "status": "in_progress"}))
            continue
        if kind == "citation":
            cited = {"type": "url_citation", "url": f"{ADDRESS}{_number(pieces, number)}", "title": text}
            cited |= {"start_index": 0, "end_index": 0}
            at = under_way["text"]
            place = {"output_index": at, "item_id": items[at]["id"], "content_index": 0}
            frames.append(event("output_text.annotation.added", **place, annotation_index=0, annotation=cited))
            continue
        if kind not in under_way:
            for each, at in [*under_way.items()]:
                if not (kind in CALLS and each in CALLS):
                    items[at] = _done(items[at], each, wholes[at])
                    frames.append(event("output_item.done", output_index=at, item=items[at]))
                    del under_way[each]
            if not kind:
                break
            at = under_way[kind] = len(items)
            items.append(_ITEMS[kind](at))
            wholes.append("")
            frames.append(event("output_item.added", output_index=at, item=items[at]))
        at = under_way[kind]
        wholes[at] += text
        place = {"output_index": at, "item_id": items[at]["id"], "delta": text}
        if kind in CALLS:
            if text:
                frames.append(event("function_call_arguments.delta", **place))
        elif kind == "reasoning":
            frames.append(event("reasoning_summary_text.delta", summary_index=0, **place))
        else:
            name = "output_text" if kind == "text" else "refusal"
            frames.append(event(f"{name}.delta", content_index=0, **place))
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    frames.append(event("completed", response={**answer, "status": "completed", "output": items, "usage": usage}))
    return frames


_ITEMS: Final[dict[str, Callable[[int], dict[str, Any]]]] = {
    "text": lambda at: {"type": "message", "id": f"i{at}", "role": "assistant", "status": "x", "content": []},
    "refusal": lambda at: {"type": "message", "id": f"i{at}", "role": "assistant", "status": "x", "content": []},
    "reasoning": lambda at: {"type": "reasoning", "id": f"i{at}", "summary": []},
    "call": lambda at: {"type": "function_call", "id": f"i{at}", "call_id": "call_1", "name": "f", "arguments": ""},
    "call2": lambda at: {"type": "function_call", "id": f"i{at}", "call_id": "call_2", "name": "f", "arguments": ""},
}


def _done(item: dict[str, Any], kind: str, text: str) -> dict[str, Any]:
    if kind in CALLS:
        return {**item, "arguments": text, "status": "completed"}
    if kind == "reasoning":
        return {**item, "summary": [{"type": "summary_text", "text": text}]}
    part = {"type": "output_text", "text": text, "annotations": []} if kind == "text" else {"type": kind, kind: text}
    return {**item, "status": "completed", "content": [part]}


def gemini(pieces: Sequence[Said]) -> list[bytes]:
    """Gemini's `streamGenerateContent`: a call comes as a whole, and usage with each piece."""
    frames = []
    for kind, text in pieces:
        if kind in ("text", "reasoning"):
            part: dict[str, Any] = {"text": text, "thought": True} if kind == "reasoning" else {"text": text}
            frames.append(_candidate([part]))
    for number, call in enumerate(CALLS, 1):
        arguments = "".join(text for kind, text in pieces if kind == call)
        if arguments:
            part = {"functionCall": {"id": f"call_{number}", "name": "f", "args": json.loads(arguments)}}
            frames.append(_candidate([part]))
    return [*frames, _candidate([{"text": ""}], finishReason="STOP")]


def _candidate(parts: list[dict[str, Any]], **more: Any) -> bytes:
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}
    candidate = {"content": {"parts": parts, "role": "model"}, "index": 0, **more}
    return sse({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"})


DIALECTS: Final[dict[str, tuple[Callable[[Sequence[Said]], list[bytes]], frozenset[str]]]] = {
    "openai-compatible": (chat, frozenset({"text", "reasoning", "refusal", "call"})),
    "anthropic": (messages, frozenset({"text", "reasoning", "call"})),
    "openai:responses": (responses, frozenset({"text", "reasoning", "refusal", "call"})),
    "gemini": (gemini, frozenset({"text", "reasoning", "call"})),
}
"""The frames of each dialect, and the channels that it has."""

TAKE_TURNS: Final = ("openai-compatible", "openai:responses")
"""The dialects in which calls may take turns."""
CITES: Final = ("openai-compatible", "openai:responses", "anthropic")
"""The dialects in which a citation may stand between two pieces of a text."""
