"""Helpers of the tests of Gemini: chunks in, events out."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from tests.unit.providers import answer_reading as answers


def chunk(*parts: Any, finish: Any = None, index: Any = 0, **beside: Any) -> dict[str, Any]:
    """Returns a chunk with one candidate; `usage` stands beside the candidate, the rest in it."""
    usage = {"usageMetadata": beside.pop("usage")} if "usage" in beside else {}
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": index, **beside}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], **usage, "modelVersion": "m1", "responseId": "r1"}


def text(said: str, **keys: Any) -> dict[str, Any]:
    return {"text": said, **keys}


def call(name: str = "", signature: str = "", **keys: Any) -> dict[str, Any]:
    part: dict[str, Any] = {"functionCall": ({"name": name} if name else {}) | keys}
    return part | ({"thoughtSignature": signature} if signature else {})


def piece(path: str, *, more: bool = False, **value: Any) -> dict[str, Any]:
    return {"jsonPath": path, **value} | ({"willContinue": True} if more else {})


STOP = chunk(text(""), finish="STOP")


def read(*chunks: Any) -> list[Event]:
    return answers.read("gemini", *chunks, done=False)


def failed(*chunks: Any) -> Error:
    with pytest.raises(Error) as caught:
        read(*chunks)
    return caught.value


def grounding(*supports: tuple[int, int, int], sources: Any = ({"uri": "u", "title": "t"},)) -> dict[str, Any]:
    return {
        "groundingChunks": [{"web": source} for source in sources],
        "groundingSupports": [
            {"segment": {"startIndex": start, "endIndex": end}, "groundingChunkIndices": [index]}
            for start, end, index in supports
        ],
    }
