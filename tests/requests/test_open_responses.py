"""What the compliance suite of Open Responses asks for over HTTP, with providers of other dialects.

Written from the suite's facts (github.com/openresponses/openresponses, version 2026-04-24): eight conversations, the
members that its schemas require, and that a compaction names its model. It shares no code with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from tests.requests.gateway import Bench
from tests.requests.targets import TARGETS

NUMBER = (int, float)
TEXT = (str,)
REQUIRED: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "object", "model", "status", "truncation", "service_tier"), TEXT),
    **dict.fromkeys(("created_at", "top_logprobs"), (int,)),
    **dict.fromkeys(("completed_at", "max_output_tokens", "max_tool_calls"), (int, type(None))),
    **dict.fromkeys(("temperature", "top_p", "presence_penalty", "frequency_penalty"), NUMBER),
    **dict.fromkeys(("parallel_tool_calls", "store", "background"), (bool,)),
    **dict.fromkeys(("output", "tools"), (list,)),
    **dict.fromkeys(("text", "metadata"), (dict,)),
    **dict.fromkeys(("incomplete_details", "error", "reasoning", "usage"), (dict, type(None))),
    **dict.fromkeys(
        ("previous_response_id", "instructions", "user", "safety_identifier", "prompt_cache_key"), (str, type(None))
    ),
    "tool_choice": (str, dict),
}
"""The members of `ResponseResource`, all of them required, and their types."""
ITEMS: dict[str, tuple[str, ...]] = {
    "message": ("id", "status", "role", "content"),
    "reasoning": ("id", "summary"),
    "function_call": ("id", "call_id", "name", "arguments", "status"),
}
"""The required members of the items of an output, by type."""
DELTA = ("item_id", "output_index", "content_index", "delta", "logprobs")
IMAGE = "data:image/png;base64,iVBORw0KGgo="
TOOL: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "Returns the weather of a place.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}


def said(role: str, content: Any, **members: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content, **members}


SEEN = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": IMAGE}]
TALKS: dict[str, dict[str, Any]] = {
    "basic-response": {"input": [said("user", "Say hello.")]},
    "streaming-response": {"input": [said("user", "Count to five.")], "stream": True},
    "system-prompt": {"input": [said("system", "You are a pirate."), said("user", "Say hello.")]},
    "image-input": {"input": [said("user", SEEN)]},
    "multi-turn": {
        "input": [said("user", "I am Ann."), said("assistant", "Hello Ann."), said("user", "What is my name?")]
    },
    "assistant-phase": {
        "input": [
            said("assistant", "I look it up.", phase="commentary"),
            said("assistant", "It is four.", phase="final_answer"),
            said("user", "Again, please."),
        ]
    },
}
PROVIDERS = ("openai", "anthropic", "gemini", "mistral", "cohere", "ollama")
CALLING = ("openai", "anthropic", "gemini", "groq", "mistral")
"""The fakes that answer with calls."""


def faults(response: Any) -> Iterable[str]:
    """What the schema refuses in a response."""
    for name, kinds in REQUIRED.items():
        if name not in response:
            yield f"{name}: missing"
        elif not isinstance(response[name], kinds) or (isinstance(response[name], bool) and bool not in kinds):
            yield f"{name}: {type(response[name]).__name__}"
    for item in response["output"]:
        yield from (f"{item['type']}.{name}: missing" for name in ITEMS[item["type"]] if name not in item)
        for part in item.get("content") or ():
            if part["type"] == "output_text" and not {"text", "annotations", "logprobs"} <= part.keys():
                yield f"output_text: {sorted(part)}"
    for tool in response["tools"]:
        if not {"type", "name", "description", "parameters", "strict"} <= tool.keys():
            yield f"tools: {sorted(tool)}"
    usage = response["usage"]
    if usage is not None:
        counts = [usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")]
        counts += [usage["input_tokens_details"]["cached_tokens"], usage["output_tokens_details"]["reasoning_tokens"]]
        yield from (f"usage: {each!r}" for each in counts if type(each) is not int)


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        (provider, name)
        for provider in PROVIDERS
        for name in TALKS
        if (provider, name) != ("cohere", "image-input")  # its model reads no images
    ],
)
def test_a_conversation_of_the_suite_has_a_valid_response(bench: Bench, provider: str, name: str) -> None:
    [target] = [each for each in TARGETS if each.name == provider]
    answer, _ = bench.ask(target, "plain", "responses", TALKS[name])
    assert answer.status == 200, answer.body
    if not TALKS[name].get("stream"):
        response = json.loads(answer.body)
    else:
        events = events_of(answer.body)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        deltas = [event for event in events if event["type"] == "response.output_text.delta"]
        assert deltas
        assert all({*DELTA} <= event.keys() for event in deltas)
        for event in events:
            assert [*faults(event["response"])] == [] if "response" in event else True, event["type"]
        assert events[-1]["type"] == "response.completed"
        response = events[-1]["response"]
    assert [*faults(response)] == []
    assert (response["status"], bool(response["output"])) == ("completed", True)


@pytest.mark.parametrize("provider", CALLING)
def test_a_call_of_the_suite_has_a_valid_response(bench: Bench, provider: str) -> None:
    asked = {"input": [said("user", "What is the weather in Oslo and Rome?")], "tools": [TOOL]}
    response = bench.history(provider, "responses", asked)
    assert [*faults(response)] == []
    assert "function_call" in {item["type"] for item in response["output"]}


@pytest.mark.parametrize("tool", [{"type": "function", "name": "f"}, {**TOOL, "strict": True}])
def test_tools_have_all_members_that_the_schema_requires(bench: Bench, tool: dict[str, Any]) -> None:
    assert [*faults(bench.history("anthropic", "responses", {"input": "?", "tools": [tool]}))] == []


def test_a_compaction_without_a_model_is_refused(bench: Bench) -> None:
    answer = bench.post("/v1/responses/compact", {"input": [said("user", "Hi")]})
    assert answer.status in (400, 422), answer


def events_of(body: bytes) -> list[Any]:
    """Returns the objects of a stream; each frame has the name of its event."""
    found = []
    frames = b""
    while not body.startswith(b"0"):  # chunked
        size, _, body = body.partition(b"\r\n")
        frames, body = frames + body[: int(size, 16)], body[int(size, 16) + 2 :]
    for frame in frames.decode().strip().split("\n\n"):
        name, data = frame.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found
