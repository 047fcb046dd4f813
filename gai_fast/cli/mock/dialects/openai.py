"""The dialect of OpenAI's Chat Completions API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gai_fast.cli.mock.dialects._base import ANY_PREFIX, CREATED, MockAnswer, to_json


class OpenAIAnswer(MockAnswer):
    """One chat completion."""

    route = ANY_PREFIX + "chat/completions"
    required = ("model", "messages")
    limits = ("max_completion_tokens", "max_tokens")

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
        chunk: dict[str, Any] = {
            "id": f"chatcmpl-mock-{self.number}",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": self.model,
            "choices": choices,
        }
        if self._wants_usage():
            chunk["usage"] = usage
        return b"data: %b\n\n" % to_json(chunk)

    def _choice(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}

    def _wants_usage(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    def _usage(self, tokens: int) -> dict[str, int]:
        total = self.input_tokens + tokens
        return {"prompt_tokens": self.input_tokens, "completion_tokens": tokens, "total_tokens": total}

    def opening(self) -> list[bytes]:
        return [self._chunk([self._choice({"role": "assistant", "content": "", "refusal": None})])]

    def delta(self, text: str) -> bytes:
        return self._chunk([self._choice({"content": text})])

    def closing(self, tokens: int, cut_short: bool) -> list[bytes]:
        frames = [self._chunk([self._choice({}, "length" if cut_short else "stop")])]
        if self._wants_usage():
            frames.append(self._chunk([], self._usage(tokens)))
        return [*frames, b"data: [DONE]\n\n"]

    def whole(self, texts: Sequence[str], cut_short: bool) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(texts), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length" if cut_short else "stop"}
        return {
            "id": f"chatcmpl-mock-{self.number}",
            "object": "chat.completion",
            "created": CREATED,
            "model": self.model,
            "choices": [choice],
            "usage": self._usage(len(texts)),
        }

    @classmethod
    def error(cls, status: int, message: str) -> dict[str, Any]:
        kinds = {400: "invalid_request_error", 404: "invalid_request_error", 429: "rate_limit_error"}
        code = {429: "rate_limit_exceeded"}.get(status)
        return {
            "error": {"message": message, "type": kinds.get(status, "server_error"), "param": None, "code": code},
        }

    @classmethod
    def error_frame(cls, status: int, message: str) -> bytes:
        return b"data: %b\n\n" % to_json(cls.error(status, message))
