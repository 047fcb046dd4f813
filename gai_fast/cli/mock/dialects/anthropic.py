"""The dialect of Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gai_fast.cli.mock.dialects._base import ANY_PREFIX, MockAnswer, to_json


class AnthropicAnswer(MockAnswer):
    """One message."""

    route = ANY_PREFIX + "messages"
    required = ("model", "messages", "max_tokens")
    limits = ("max_tokens",)

    @staticmethod
    def _frame(event: dict[str, Any]) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), to_json(event))

    def _message(self, content: list[dict[str, Any]], stop_reason: str | None, output_tokens: int) -> dict[str, Any]:
        return {
            "id": f"msg_mock_{self.number}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {"input_tokens": self.input_tokens, "output_tokens": output_tokens},
        }

    def opening(self) -> list[bytes]:
        block = {"type": "text", "text": ""}
        return [
            self._frame({"type": "message_start", "message": self._message([], None, 1)}),
            self._frame({"type": "content_block_start", "index": 0, "content_block": block}),
            self._frame({"type": "ping"}),
        ]

    def delta(self, text: str) -> bytes:
        return self._frame(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        )

    def closing(self, tokens: int, cut_short: bool) -> list[bytes]:
        delta = {"stop_reason": "max_tokens" if cut_short else "end_turn", "stop_sequence": None}
        return [
            self._frame({"type": "content_block_stop", "index": 0}),
            self._frame({"type": "message_delta", "delta": delta, "usage": {"output_tokens": tokens}}),
            self._frame({"type": "message_stop"}),
        ]

    def whole(self, texts: Sequence[str], cut_short: bool) -> dict[str, Any]:
        content = [{"type": "text", "text": "".join(texts)}]
        return self._message(content, "max_tokens" if cut_short else "end_turn", len(texts))

    @classmethod
    def error(cls, status: int, message: str) -> dict[str, Any]:
        kinds = {
            400: "invalid_request_error",
            404: "not_found_error",
            429: "rate_limit_error",
            503: "overloaded_error",
        }
        return {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": message}}

    @classmethod
    def error_frame(cls, status: int, message: str) -> bytes:
        return cls._frame(cls.error(status, message))
