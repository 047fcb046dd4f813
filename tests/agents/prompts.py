"""The prompts of requests, as five APIs have them: what a provider caches, without the marks of a cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

MARKS: Final = ("cache_control", "prompt_cache_breakpoint")
OF_ANSWER: Final = ("stream", "stream_options")
NOT_SHOWN: Final = ("id", "status", "internal_chat_message_metadata_passthrough")
"""Members of an item of Responses that no model is shown."""


@dataclass(frozen=True)
class Prompt:
    """The prompt of one request.

    Args:
        names: The names of its tools.
        results: The results of tools since the user's last word.
        tools: The tools, as JSON.
        head: The system texts that stand beside the messages, as JSON.
        messages: The messages, as JSON.
        rest: All other members.
    """

    names: Sequence[str]
    results: int
    tools: str
    head: str
    messages: str
    rest: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The prompt in the order in which providers read it, without the brackets that close it."""
        return f"{self.tools[:-1]}{self.head}{self.messages[:-1]}"


def without_marks(value: Any) -> Any:
    """A value without the marks of a cache."""
    if isinstance(value, dict):
        return {key: without_marks(each) for key, each in value.items() if key not in MARKS}
    return [without_marks(each) for each in value] if isinstance(value, list) else value


def common_beginning(one: str, other: str) -> int:
    """The length of what two texts begin with."""
    most = min(len(one), len(other))
    low, high = 0, most
    while low < high:  # the longest equal beginning, by halving
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def _made(
    body: dict[str, Any], names: Sequence[str], messages: str, head: str, is_result: Callable[[Any], int]
) -> Prompt:
    clean = without_marks(body)
    results = 0
    for message in clean[messages]:
        found = is_result(message)
        results = 0 if found < 0 else results + found
    rest = {key: value for key, value in clean.items() if key not in ("tools", messages, head, *OF_ANSWER)}
    texts = [json.dumps(clean.get(key) or [], ensure_ascii=False) for key in ("tools", head, messages)]
    return Prompt(names, results, *texts, rest)


def _chat(body: dict[str, Any]) -> Prompt:
    names = [tool["function"]["name"] for tool in body.get("tools") or ()]
    return _made(body, names, "messages", "", lambda one: {"tool": 1, "user": -1}.get(one["role"], 0))


def _responses(body: dict[str, Any]) -> Prompt:
    body.pop("client_metadata", None)  # Codex's own ids of each turn, no part of the prompt
    # Over its socket Codex goes on from the newest response, whose items are the upstream's own. A new process of it
    # sends the whole in its own words: the same items, with their members in another order.
    body["input"] = [
        {name: item[name] for name in sorted(item) if name not in NOT_SHOWN} if isinstance(item, dict) else item
        for item in body["input"]
    ]
    names = [tool.get("name", "") for tool in body.get("tools") or ()]
    result = "function_call_output"
    return _made(
        body,
        names,
        "input",
        "instructions",
        lambda one: 1 if one.get("type") == result else -1 if one.get("role") == "user" else 0,
    )


def _messages(body: dict[str, Any]) -> Prompt:
    # Claude Code's own wrapping goes up as it is: a string, or a part where the mark is this time.
    for message in body["messages"]:
        if isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]

    def results(message: Any) -> int:
        blocks = message["content"]
        found = sum(block["type"] == "tool_result" for block in blocks)
        return found or (-1 if message["role"] == "user" else 0)

    return _made(body, [tool["name"] for tool in body.get("tools") or ()], "messages", "system", results)


def _gemini(body: dict[str, Any]) -> Prompt:
    names = [each["name"] for tool in body.get("tools") or () for each in tool.get("functionDeclarations", ())]

    def results(turn: Any) -> int:
        found = sum("functionResponse" in part for part in turn["parts"])
        return found or (-1 if turn["role"] == "user" else 0)

    return _made(body, names, "contents", "systemInstruction", results)


PROMPTS: Final[Mapping[str, Callable[[dict[str, Any]], Prompt]]] = {
    "chat": _chat,
    "responses": _responses,
    "messages": _messages,
    "gemini": _gemini,
    "ollama": _chat,
}
