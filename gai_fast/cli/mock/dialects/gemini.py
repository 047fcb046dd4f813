"""The dialect of Gemini's `generateContent`: the path names the model, and whether to stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gai_fast.cli.mock.dialects._base import ANY_PREFIX, MockAnswer, to_json


class GeminiAnswer(MockAnswer):
    """One answer of Gemini."""

    route = ANY_PREFIX + "{model:[^/:]+}:{verb:generateContent|streamGenerateContent}"
    prompt = "contents"
    required = ("contents",)
    limits = ("max_tokens",)

    @classmethod
    def asked(cls, body: Mapping[str, Any], path: Mapping[str, str]) -> Mapping[str, Any]:
        generation = body.get("generationConfig")
        limit = generation.get("maxOutputTokens") if isinstance(generation, dict) else None
        return {**body, "model": path["model"], "stream": path["verb"] == "streamGenerateContent", "max_tokens": limit}

    def _answer(self, text: str, tokens: int, finish_reason: str | None = None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
        if finish_reason:
            candidate["finishReason"] = finish_reason
        usage = {"promptTokenCount": self.input_tokens, "candidatesTokenCount": tokens}
        return {
            "candidates": [candidate],
            "usageMetadata": {**usage, "totalTokenCount": self.input_tokens + tokens},
            "modelVersion": self.model,
            "responseId": f"mock-{self.number}",
        }

    def opening(self) -> list[bytes]:
        return []

    def delta(self, text: str) -> bytes:
        return b"data: %b\n\n" % to_json(self._answer(text, 1))

    def closing(self, tokens: int, cut_short: bool) -> list[bytes]:
        return [b"data: %b\n\n" % to_json(self.whole([""] * tokens, cut_short))]

    def whole(self, texts: Sequence[str], cut_short: bool) -> dict[str, Any]:
        return self._answer("".join(texts), len(texts), "MAX_TOKENS" if cut_short else "STOP")

    @classmethod
    def error(cls, status: int, message: str) -> dict[str, Any]:
        kinds = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
        return {"error": {"code": status, "message": message, "status": kinds.get(status, "INTERNAL")}}

    @classmethod
    def error_frame(cls, status: int, message: str) -> bytes:
        return b"data: %b\n\n" % to_json(cls.error(status, message))
