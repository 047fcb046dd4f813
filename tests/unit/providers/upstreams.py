"""A small answer of each API of an upstream, piece by piece: what every adapter must read alike."""

from __future__ import annotations

import json
from typing import Any

PROVIDERS = (
    "openai",
    "openai-compatible",
    "azure",
    "deepseek",
    "groq",
    "mistral",
    "openrouter",
    "perplexity",
    "xai",
    "openai:completions",
    "openai:responses",
    "openrouter:responses",
    "azure:responses",
    "anthropic",
    "cohere",
    "gemini",
    "ollama",
    "ollama:generate",
)
"""One name for each adapter, and for each API that reads errors in its own way."""

_CHAT = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
_TEXT = {"id": "c", "object": "text_completion", "created": 1, "model": "m"}
_OF_RESPONSE = {"id": "r", "object": "response", "model": "m"}


def dialect(provider: str) -> str:
    """Returns the grammar of a provider's answers."""
    name, _, api = provider.partition(":")
    if api:
        return "generate" if api == "generate" else api
    return name if name in ("anthropic", "cohere", "gemini", "ollama") else "chat"


def frame(provider: str, chunk: Any) -> bytes:
    """Returns a chunk as the upstream sends it. A text is sent as it is."""
    data = chunk if isinstance(chunk, str) else json.dumps(chunk)
    if dialect(provider) in ("ollama", "generate"):
        return data.encode() + b"\n"
    name = chunk.get("type") if isinstance(chunk, dict) else None
    named = f"event: {name}\n" if dialect(provider) in ("anthropic", "responses") and isinstance(name, str) else ""
    return f"{named}data: {data}\n\n".encode()


def opening(provider: str) -> list[Any]:
    """Returns the chunks up to the text `Hi`."""
    match dialect(provider):
        case "completions":
            return [{**_TEXT, "choices": [{"index": 0, "text": "Hi", "finish_reason": None}]}]
        case "responses":
            at = {"item_id": "i", "output_index": 0, "content_index": 0}
            return [
                {"type": "response.created", "response": {**_OF_RESPONSE, "status": "in_progress", "output": []}},
                {"type": "response.output_text.delta", **at, "delta": "Hi"},
            ]
        case "anthropic":
            message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
            return [
                {"type": "message_start", "message": {**message, "usage": {"input_tokens": 1, "output_tokens": 1}}},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
            ]
        case "cohere":
            return [
                {"type": "message-start", "id": "c"},
                {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
                {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hi"}}}},
            ]
        case "gemini":
            return [{"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": "Hi"}]}}]}]
        case "ollama":
            return [{"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": False}]
        case "generate":
            return [{"model": "m", "response": "Hi", "done": False}]
    return [{**_CHAT, "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}]


def ending(provider: str, word: str) -> list[Any]:
    """Returns the chunks that end the answer with a finish reason, without a separate end mark."""
    match dialect(provider):
        case "completions":
            return [{**_TEXT, "choices": [{"index": 0, "text": "", "finish_reason": word}]}]
        case "responses":
            response = {**_OF_RESPONSE, "status": "incomplete", "incomplete_details": {"reason": word}, "output": []}
            return [{"type": "response.incomplete", "response": response}]
        case "anthropic":
            return [
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": word}, "usage": {"output_tokens": 1}},
            ]
        case "cohere":
            return [{"type": "content-end", "index": 0}, {"type": "message-end", "delta": {"finish_reason": word}}]
        case "gemini":
            return [{"candidates": [{"index": 0, "content": {"parts": []}, "finishReason": word}]}]
        case "ollama":
            return [{"model": "m", "message": {"content": ""}, "done": True, "done_reason": word}]
        case "generate":
            return [{"model": "m", "response": "", "done": True, "done_reason": word}]
    return [{**_CHAT, "choices": [{"index": 0, "delta": {}, "finish_reason": word}]}]


def end_mark(provider: str) -> list[Any]:
    """Returns the end mark; empty if the finish reason itself is the end mark, or there is none."""
    match dialect(provider):
        case "anthropic":
            return [{"type": "message_stop"}]
        case "chat" | "completions":
            return ["[DONE]"]
    return []


def frames(provider: str, chunks: list[Any]) -> list[bytes]:
    """Returns chunks as the upstream sends them."""
    return [frame(provider, chunk) for chunk in chunks]
