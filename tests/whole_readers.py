"""As `readers.py`, for `"stream": false`: what each format's client makes of a whole answer, which has no failure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.readers import STOP_REASONS, Told, count_chat, count_messages, count_response, count_run, response_end


def read_gai(answer: Mapping[str, Any]) -> Told:
    """docs/http-api.md."""
    told = Told(answer["text"] or "", answer["refusal"] or "", answer["reasoning"] or "")
    told.calls = {call["call_id"]: [call["name"], call["arguments"]] for call in answer["tool_calls"]}
    told.finish_reason = answer["finish_reason"]
    told.count(**answer["usage"] or {})
    return told


def read_simple(answer: Mapping[str, Any]) -> Told:
    """The one member."""
    return Told(answer["content"])


def read_chat(answer: Mapping[str, Any]) -> Told:
    """OpenAI's `ChatCompletion`."""
    [choice] = answer["choices"]
    message = choice["message"]
    told = Told(message["content"] or "", message["refusal"] or "", message.get("reasoning_content", ""))
    for call in message.get("tool_calls", ()):
        told.calls[call["id"]] = [call["function"]["name"], call["function"]["arguments"]]
    told.finish_reason = answer.get("x_gai", {}).get("finish_reason") or choice["finish_reason"]
    if "usage" in answer:
        count_chat(told, answer["usage"])
    return told


def read_completions(answer: Mapping[str, Any]) -> Told:
    """OpenAI's `Completion`."""
    [choice] = answer["choices"]
    told = Told(choice["text"])
    told.finish_reason = answer.get("x_gai", {}).get("finish_reason") or choice["finish_reason"]
    if "usage" in answer:
        count_chat(told, answer["usage"])
    return told


def read_messages(answer: Mapping[str, Any]) -> Told:
    """Anthropic's `Message`."""
    told = Told()
    for block in answer["content"]:
        told.text += block.get("text", "")
        told.reasoning += block.get("thinking", "")
        if block["type"] == "tool_use":
            told.calls[block["id"]] = [block["name"], json.dumps(block["input"])]
    told.finish_reason = answer.get("x_gai", {}).get("finish_reason") or STOP_REASONS[answer["stop_reason"]]
    count_messages(told, answer["usage"])
    return told


def read_ui_message(answer: Mapping[str, Any]) -> Told:
    """The AI SDK's `UIMessage`."""
    told = Told()
    for part in answer["parts"]:
        if part["type"] == "text":
            told.text += part["text"]
        elif part["type"] == "reasoning":
            told.reasoning += part["text"]
        elif part["type"].startswith("tool-") and not part.get("providerExecuted"):
            given = part["input"]
            text = given if isinstance(given, str) else json.dumps(given)
            told.calls[part["toolCallId"]] = [part["type"].removeprefix("tool-"), text]
    told.finish_reason = answer["metadata"]["finish_reason"]
    told.count(**answer["metadata"].get("usage", {}))
    return told


def read_run(answer: Mapping[str, Any]) -> Told:
    """The result of AG-UI's `runAgent`."""
    told = Told()
    for message in answer["newMessages"]:
        if message["role"] == "reasoning":
            told.reasoning += message["content"]
        elif message["role"] == "assistant":
            told.text += message.get("content", "")
        for call in message.get("toolCalls", ()):
            told.calls[call["id"]] = [call["function"]["name"], call["function"]["arguments"]]
    told.finish_reason = answer["result"]["finish_reason"]
    count_run(told, answer)
    return told


def read_response(answer: Mapping[str, Any]) -> Told:
    """OpenAI's `Response`."""
    told = Told()
    for item in answer["output"]:
        if item["type"] == "message":
            told.text += "".join(part.get("text", "") for part in item["content"])
            told.refusal += "".join(part.get("refusal", "") for part in item["content"])
        elif item["type"] == "reasoning":
            told.reasoning += "".join(part["text"] for part in item["summary"])
        elif item["type"] == "function_call" and item["status"] == "completed":
            told.calls[item["call_id"]] = [item["name"], item["arguments"]]
    told.finish_reason = response_end(told, answer)
    count_response(told, answer.get("usage") or {})
    return told


WHOLE_READERS: Final[Mapping[str, Callable[[Any], Told]]] = {
    "gai": read_gai,
    "openai": read_chat,
    "responses": read_response,
    "anthropic": read_messages,
    "vercel": read_ui_message,
    "agui": read_run,
    "simple": read_simple,
    "completions": read_completions,
}
