"""Helpers of the tests of the Responses dialect: events in, events out."""

from __future__ import annotations

from typing import Any

from gai_fast.model.events import Event
from tests.unit.providers import answer_reading as answers

OPENAI = "openai:responses"


EVERYBODY = [
    f"{name}:responses" for name in "openai azure xai groq deepseek openrouter perplexity openai-compatible".split()
]


def response(status: str | None = "in_progress", **keys: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "status": status, "model": "gpt", "output": [], **keys}


def event(kind: str, **keys: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **keys}


def end(status: str = "completed", **keys: Any) -> dict[str, Any]:
    return event(status, response=response(status, **keys))


def added(index: int, kind: str, **keys: Any) -> dict[str, Any]:
    return event("output_item.added", output_index=index, item={"type": kind, "id": f"i{index}", **keys})


def done(index: int, kind: str, **keys: Any) -> dict[str, Any]:
    return event("output_item.done", output_index=index, item={"type": kind, "id": f"i{index}", **keys})


def text(delta: str, index: int = 0, part: int = 0, **keys: Any) -> dict[str, Any]:
    return event("output_text.delta", output_index=index, content_index=part, delta=delta, **keys)


def fragment(delta: str, index: int = 0) -> dict[str, Any]:
    return event("function_call_arguments.delta", output_index=index, delta=delta)


def said(words: str, **keys: Any) -> dict[str, Any]:
    """Returns a part of a message."""
    return {"type": "output_text", "text": words, **keys}


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(parts)}


BEGIN = event("created", response=response())


def read(*chunks: Any, provider: str = OPENAI) -> list[Event]:
    return answers.read(provider, *chunks, done=False)
