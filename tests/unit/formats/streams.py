"""Helpers of the tests of all formats: a stream's context, its events, and readers of its bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

from gai_fast.formats import Encoder, StreamContext
from gai_fast.kernels import Part
from gai_fast.model.events import Event, JSONText

STREAM_ID = "abcdefghijklmnopqrstuv"
NOW_MS = 1_700_000_000_123
CREATED = 1_700_000_000

START: Event = {"type": "start", "provider": "test", "model": "test-model", "stream_id": STREAM_ID}
DONE: Event = {"type": "done", "finished": True}
NOT_DONE: Event = {"type": "done", "finished": False}
ERROR: Event = {
    "type": "error",
    "error": {"code": "network", "message": 'cut "off"', "temporary": True, "reason": "truncated"},
}
USAGE = {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30}


def context(**changes: Any) -> StreamContext:
    given: dict[str, Any] = {
        "stream_id": STREAM_ID,
        "request_id": "req_1",
        "trace_id": None,
        "model": "asked-model",
        "clock": lambda: NOW_MS,
    }
    return StreamContext(**{**given, **changes})


def _event(keys: dict[str, Any]) -> Event:
    return cast(Event, keys)


def text(said: str, **keys: Any) -> Event:
    return _event({"type": "text.delta", "text": said, **keys})


def reasoning(said: str) -> Event:
    return {"type": "reasoning.delta", "text": said}


def finish(reason: str = "stop", **keys: Any) -> Event:
    return _event({"type": "finish", "provider": "test", "model": "test-model", "finish_reason": reason, **keys})


def call(call_id: str = "call_1", arguments: str = '{"city":"Oslo"}', **keys: Any) -> Event:
    value = JSONText(arguments, json.loads(arguments))
    return _event({"type": "tool.call", "call_id": call_id, "tool_call": {"name": "weather", "input": value}, **keys})


def call_start(call_id: str = "call_1", index: int = 0, **keys: Any) -> Event:
    return _event(
        {"type": "tool.call.start", "call_id": call_id, "tool_call": {"name": "weather"}, "index": index, **keys}
    )


def call_delta(arguments: str, call_id: str = "call_1", index: int = 0, **keys: Any) -> Event:
    return _event({"type": "tool.call.delta", "call_id": call_id, "index": index, "arguments": arguments, **keys})


def encoded(encoder: Encoder, events: Iterable[Event]) -> bytes:
    for event in events:
        encoder.event(event)
    return encoder.take()


def filled(parts: Iterable[Part], seq: int, text: bytes) -> bytes:
    """Returns the bytes of a delta that a kernel writes from an encoder's parts.

    Args:
        parts: From `delta_parts`.
        seq: The number of the delta.
        text: Its text, escaped.
    """
    values: dict[Part, bytes] = {"seq": b"%d" % seq, "text": text}
    return b"".join(part if isinstance(part, bytes) else values[part] for part in parts)


def data_of(body: bytes) -> list[str]:
    """Returns the data of each SSE frame, which must be one `data:` line and a blank line."""
    frames = body.decode().split("\n\n")
    assert frames.pop() == ""
    lines = [frame.split("\n")[-1] for frame in frames]
    assert all(line.startswith("data: ") for line in lines)
    return [line.removeprefix("data: ") for line in lines]


def objects_of(body: bytes) -> list[Any]:
    """Returns the objects of an SSE body, without `[DONE]`."""
    return [json.loads(data) for data in data_of(body) if data != "[DONE]"]
