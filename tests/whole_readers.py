"""As `readers.py`, for `"stream": false`: what each format's client makes of a whole answer, which has no failure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.readers import STOP_REASONS, ClientState, count_chat, count_messages, count_response, count_run, response_end


def read_gai(answer: Mapping[str, Any]) -> ClientState:
    """docs/http-api.md."""
    state = ClientState(answer["text"] or "", answer["refusal"] or "", answer["reasoning"] or "")
    state.calls = {call["call_id"]: [call["name"], call["arguments"]] for call in answer["tool_calls"]}
    state.finish_reason = answer["finish_reason"]
    state.count(**answer["usage"] or {})
    return state


def read_simple(answer: Mapping[str, Any]) -> ClientState:
    """Returns the one member."""
    return ClientState(answer["content"])


def read_chat(answer: Mapping[str, Any]) -> ClientState:
    """OpenAI's `ChatCompletion`; of several choices the first."""
    choice = answer["choices"][0]
    message = choice["message"]
    state = ClientState(message["content"] or "", message["refusal"] or "", message.get("reasoning_content", ""))
    for call in message.get("tool_calls", ()):
        state.calls[call["id"]] = [call["function"]["name"], call["function"]["arguments"]]
    state.finish_reason = answer.get("x_gai", {}).get("finish_reason") or choice["finish_reason"]
    if "usage" in answer:
        count_chat(state, answer["usage"])
    return state


def read_completions(answer: Mapping[str, Any]) -> ClientState:
    """OpenAI's `Completion`."""
    [choice] = answer["choices"]
    state = ClientState(choice["text"])
    state.finish_reason = answer.get("x_gai", {}).get("finish_reason") or choice["finish_reason"]
    if "usage" in answer:
        count_chat(state, answer["usage"])
    return state


def read_messages(answer: Mapping[str, Any]) -> ClientState:
    """Anthropic's `Message`."""
    state = ClientState()
    for block in answer["content"]:
        state.text += block.get("text", "")
        state.reasoning += block.get("thinking", "")
        if block["type"] == "tool_use":
            state.calls[block["id"]] = [block["name"], json.dumps(block["input"])]
    state.finish_reason = answer.get("x_gai", {}).get("finish_reason") or STOP_REASONS[answer["stop_reason"]]
    count_messages(state, answer["usage"])
    return state


def read_ui_message(answer: Mapping[str, Any]) -> ClientState:
    """Returns the AI SDK's `UIMessage`."""
    state = ClientState()
    for part in answer["parts"]:
        if part["type"] == "text":
            state.text += part["text"]
        elif part["type"] == "reasoning":
            state.reasoning += part["text"]
        elif part["type"].startswith("tool-") and not part.get("providerExecuted"):
            given = part["input"]
            text = given if isinstance(given, str) else json.dumps(given)
            state.calls[part["toolCallId"]] = [part["type"].removeprefix("tool-"), text]
    state.finish_reason = answer["metadata"]["finish_reason"]
    state.count(**answer["metadata"].get("usage", {}))
    return state


def read_run(answer: Mapping[str, Any]) -> ClientState:
    """Returns the result of AG-UI's `runAgent`."""
    state = ClientState()
    for message in answer["newMessages"]:
        if message["role"] == "reasoning":
            state.reasoning += message["content"]
        elif message["role"] == "assistant":
            state.text += message.get("content", "")
        for call in message.get("toolCalls", ()):
            state.calls[call["id"]] = [call["function"]["name"], call["function"]["arguments"]]
    state.finish_reason = answer["result"]["finish_reason"]
    count_run(state, answer)
    return state


def read_response(answer: Mapping[str, Any]) -> ClientState:
    """OpenAI's `Response`."""
    state = ClientState()
    for item in answer["output"]:
        if item["type"] == "message":
            state.text += "".join(part.get("text", "") for part in item["content"])
            state.refusal += "".join(part.get("refusal", "") for part in item["content"])
        elif item["type"] == "reasoning":
            state.reasoning += "".join(part["text"] for part in item["summary"])
        elif item["type"] == "function_call" and item["status"] == "completed":
            state.calls[item["call_id"]] = [item["name"], item["arguments"]]
    state.finish_reason = response_end(state, answer)
    count_response(state, answer.get("usage") or {})
    return state


WHOLE_READERS: Final[Mapping[str, Callable[[Any], ClientState]]] = {
    "gai": read_gai,
    "openai": read_chat,
    "responses": read_response,
    "anthropic": read_messages,
    "vercel": read_ui_message,
    "agui": read_run,
    "simple": read_simple,
    "completions": read_completions,
}
