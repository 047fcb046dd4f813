"""One stream that has every event that an answer can hold, for the tests of formats; and the same in other orders."""

from __future__ import annotations

import random
from typing import Final

from gai_fast.model.events import Event
from tests.unit.formats.streams import DONE, START, USAGE, call, call_delta, call_start, finish, text

EVERY_EVENT: Final[list[Event]] = [
    START,
    {"type": "reasoning.delta", "text": "Hm"},
    {"type": "reasoning.signature", "signature": "signed"},
    {"type": "reasoning.signature", "signature": "opaque", "redacted": True},
    text("Hi"),
    text(" you"),
    {
        "type": "citations",
        "citations": [{"uri": "https://a.example", "title": "A", "start": 0, "end": 2}, {"title": "T"}],
    },
    {
        "type": "server_tool",
        "server_tool": {"id": "s1", "name": "web_search", "status": "started", "input": {"q": "x"}},
    },
    {"type": "server_tool", "server_tool": {"id": "s1", "name": "web_search", "status": "completed", "output": [1]}},
    {"type": "provider.block", "provider": "demo", "block": {"type": "code_result", "id": "s2"}, "index": 3},
    {"type": "server_tool", "server_tool": {"id": "s2", "name": "code", "status": "failed", "output": {"e": "x"}}},
    {"type": "image", "image": {"data": "aGk=", "media_type": "image/png"}},
    {"type": "audio.delta", "audio": {"chunk": "aGk=", "format": "wav"}},
    {"type": "json.snapshot", "json": {"a": 1}},
    {"type": "json.snapshot", "json": {"a": 2}},
    {"type": "safety", "safety": {"category": "violence", "action": "flagged"}},
    {"type": "warning", "reason": "malformed_chunk"},
    {"type": "step.end", "step": 1},
    text("more"),
    call_start(),
    call_delta('{"city":'),
    call_delta('"Oslo"}'),
    call(signature="signed call"),
    {"type": "tool.result", "call_id": "call_1", "tool_result": {"degrees": 4}},
    {"type": "tool.result", "call_id": "other", "tool_result": "x"},
    {"type": "refusal.delta", "text": "No"},
    {"type": "usage", "usage": USAGE},
    finish("tool_calls"),
    DONE,
]


FULL_ANSWER: Final[list[Event]] = [
    {"type": "reasoning.delta", "text": "Hm."},
    {"type": "reasoning.signature", "signature": "one", "block": 0},
    {"type": "reasoning.signature", "signature": "two", "redacted": True, "block": 1},
    text("Grüße, "),
    text("Welt"),
    {"type": "citations", "citations": [{"uri": "https://a.example", "title": "A", "start": 0, "end": 2}]},
    {"type": "citations", "citations": [{"uri": "https://b.example", "title": "B", "start": 2, "end": 4}]},
    {"type": "server_tool", "server_tool": {"id": "s", "name": "web_search", "status": "started"}},
    {"type": "server_tool", "server_tool": {"id": "s", "name": "web_search", "status": "completed"}},
    call_start("call_1", 0),
    call_delta('{"city":', "call_1", 0),
    call_start("call_2", 1),
    call_delta('"Oslo"}', "call_1", 0),
    call("call_1"),
    call("call_2", "{}", signature="sig"),
    {"type": "warning", "reason": "malformed_chunk"},
    finish("tool_calls", usage={**USAGE, "cached_input_tokens": 4, "reasoning_tokens": 5}),
    DONE,
]
"""An answer behind its `start`: events that official SDKs put together, and none that they have no place for."""


def in_another_order(seed: int) -> list[Event]:
    """Returns the same events in a random order: only those of the frame and of one call keep theirs.

    Args:
        seed: Of the order.
    """
    dice = random.Random(seed)
    begin, *events, finish, done = EVERY_EVENT
    called = [event for event in events if event.get("call_id") == "call_1"]
    others = [event for event in events if event.get("call_id") != "call_1"]
    dice.shuffle(others)
    for event in reversed(called):
        places = [at for at, other in enumerate(others) if other.get("call_id") == "call_1"]
        others.insert(dice.randint(0, min(places, default=len(others))), event)
    return [begin, *others, finish, done]
