"""The frames of a socket's formats; `test_stream.py` has their messages."""

from __future__ import annotations

import json
from typing import Any

from gai_fast.formats import Format, StreamContext
from gai_fast.model.errors import Error
from gai_fast.server.websocket.formats import CHUNKS, EVENTS


def objects(frames: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in frames.decode().splitlines() if line.startswith("data: ")]


def context(*, ids: bool = False) -> StreamContext:
    return StreamContext("s" * 22, "r", None, "m", lambda: 5, ids=ids, retry_ms=3 if ids else None)


def test_a_refusal_is_a_stream_that_is_an_error() -> None:
    error = Error("rate_limited", "too much", reason="x")
    first, last = objects(EVENTS.error_body(error, "r-1"))
    assert (first["schema"], first["type"], first["seq"], first["request_id"]) == ("gai.events.v1", "error", 1, "r-1")
    assert first["error"] == error.payload()
    assert last == {"type": "done", "finished": False}
    assert objects(CHUNKS.error_body(error, "r-1")) == [{"type": "error", "error": error.payload()}]


def test_chunks_are_the_text_and_the_end() -> None:
    encoder = CHUNKS.encoder("sse", context(ids=True))
    events: list[Any] = [
        {"type": "start", "model": "m"},
        {"type": "text.delta", "text": 'a"b'},
        {"type": "reasoning.delta", "text": "hm"},
        {"type": "refusal.delta", "text": "no"},
        {"type": "text.delta", "text": "other", "choice": 1},
        {"type": "finish", "finish_reason": "stop"},
        {"type": "done", "finished": True},
    ]
    for event in events:
        encoder.event(event)
    frames = encoder.take()
    assert b"id:" not in frames
    assert objects(frames) == [
        {"type": "chunk", "content": 'a"b', "timestamp": 5},
        {"type": "chunk", "content": "no", "timestamp": 5},
        {"type": "done"},
    ]
    assert encoder.seq == 6


def test_the_parts_of_a_chunk_are_what_is_written() -> None:
    encoder = CHUNKS.encoder("sse", context())
    values = {"text": b"word", "ts": b"5", "seq": b"7"}
    delta: Any = {"type": "text.delta", "text": "word"}
    parts = encoder.delta_parts(delta, "text")
    assert parts is not None
    written = b"".join(values[part] if isinstance(part, str) else part for part in parts)
    encoder.event(delta)
    assert encoder.take() == written
    assert encoder.delta_parts({"type": "reasoning.delta", "text": "hm"}, "text") is None
    other: Any = {"type": "text.delta", "text": "hm", "choice": 1}
    assert encoder.delta_parts(other, "text") is None


def test_they_are_no_formats_of_http() -> None:
    formats: tuple[Format, ...] = (EVENTS, CHUNKS)
    assert [each.name for each in formats] == ["gai", "simple"]
    assert [each.can_reset for each in formats] == [True, False]
