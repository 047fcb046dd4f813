"""Each member of a request with each wrong type, in each dialect: a 400 that names the member, in the dialect's form.

Requests of one dialect are sent to a provider of another, so that the gateway reads all of them. To a provider of their
own dialect they may pass: then they are the provider's to refuse, and never an error of the gateway.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.replaced import replaced
from tests.requests.gateway import Answer, Bench
from tests.requests.targets import TARGETS, Target

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
SCHEMA = {"type": "object", "properties": {}}
CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "?"},
                {"type": "image_url", "image_url": {"url": "https://a.example/i.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": "Well",
            "reasoning_content": "Hm",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "4"},
        {"role": "user", "content": "?"},
    ],
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": "auto",
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
    "temperature": 0.5,
    "top_p": 0.5,
    "max_tokens": 50,
    "max_completion_tokens": 50,
    "stop": ["a"],
    "seed": 1,
    "n": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {"1": 1},
    "logprobs": True,
    "top_logprobs": 2,
    "parallel_tool_calls": True,
    "reasoning_effort": "low",
    "verbosity": "low",
    "service_tier": "auto",
    "user": "u",
    "safety_identifier": "s",
    "metadata": {"a": "b"},
    "prompt_cache_key": "k",
    "stream": True,
    "stream_options": {"include_usage": True},
}
RESPONSES: dict[str, Any] = {
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm"}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "4"},
        {"role": "user", "content": "?"},
    ],
    "instructions": "Be brief.",
    "tools": [{"type": "function", **FUNCTION}],
    "tool_choice": "auto",
    "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "temperature": 0.5,
    "top_p": 0.5,
    "max_output_tokens": 50,
    "top_logprobs": 2,
    "include": ["message.output_text.logprobs"],
    "parallel_tool_calls": True,
    "service_tier": "auto",
    "user": "u",
    "safety_identifier": "s",
    "metadata": {"a": "b"},
    "prompt_cache_key": "k",
    "store": False,
    "stream": True,
    "stream_options": {"include_obfuscation": False},
}
MESSAGES: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm", "signature": "c2ln"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "4", "is_error": False}]},
    ],
    "system": [{"type": "text", "text": "Be brief."}],
    "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": False},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    "thinking": {"type": "adaptive"},
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "max_tokens": 50,
    "stop_sequences": ["a"],
    "metadata": {"user_id": "u"},
    "stream": True,
}
GAI: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "reasoning", "text": "Hm", "provider": "test"},
                {"type": "tool_call", "call_id": "c", "name": "f", "input": {}},
            ],
        },
        {"role": "tool", "call_id": "c", "content": "4", "is_error": False},
    ],
    "query": "?",
    "system": "Be brief.",
    "tools": [FUNCTION],
    "tool_choice": "auto",
    "response_format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True},
    "reasoning": {"effort": "low"},
    "temperature": 0.5,
    "top_p": 0.5,
    "max_tokens": 50,
    "stop": ["a"],
    "seed": 1,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "logit_bias": {"1": 1},
    "logprobs": True,
    "top_logprobs": 2,
    "parallel_tool_calls": True,
    "verbosity": "low",
    "user": "u",
    "safety_identifier": "s",
    "cache": {"key": "k"},
    "metadata": {"a": "b"},
    "provider_options": {"openai": {}},
    "extra": {},
    "stream": True,
}
PNG = "data:image/png;base64,iVBORw0KGgo="
SIGNED = {"gai": {"signature": "c2ln", "provider": "test"}}
VERCEL: dict[str, Any] = {
    "id": "c1",
    "trigger": "submit-message",
    "messageId": "m1",
    "messages": [
        {"id": "m0", "role": "system", "parts": [{"type": "text", "text": "Be brief."}]},
        {
            "id": "m1",
            "role": "user",
            "metadata": {"a": 1},
            "parts": [
                {"type": "text", "text": "?", "state": "done"},
                {"type": "file", "mediaType": "image/png", "url": PNG, "filename": "a.png"},
                {"type": "data-weather", "id": "d", "data": {"a": 1}},
            ],
        },
        {
            "id": "m2",
            "role": "assistant",
            "parts": [
                {"type": "step-start"},
                {"type": "reasoning", "text": "Hm", "state": "done", "providerMetadata": SIGNED},
                {"type": "source-url", "sourceId": "s", "url": "https://a.example", "title": "t"},
                {
                    "type": "tool-f",
                    "toolCallId": "c",
                    "state": "output-available",
                    "input": {},
                    "output": {"a": 1},
                    "providerExecuted": False,
                    "callProviderMetadata": {"gai": {"signature": "c2ln"}},
                },
                {
                    "type": "dynamic-tool",
                    "toolName": "f",
                    "toolCallId": "d",
                    "state": "output-error",
                    "input": {},
                    "errorText": "no",
                },
                {
                    "type": "tool-f",
                    "toolCallId": "e",
                    "state": "output-denied",
                    "input": {},
                    "approval": {"id": "a", "approved": False, "reason": "no"},
                },
            ],
        },
        {"id": "m3", "role": "user", "parts": [{"type": "text", "text": "?"}]},
    ],
    "tools": [FUNCTION],
    "temperature": 0.5,
}
AGUI: dict[str, Any] = {
    "threadId": "t",
    "runId": "r",
    "parentRunId": "p",
    "state": {},
    "messages": [
        {"id": "m0", "role": "system", "content": "Be brief.", "name": "n"},
        {"id": "m1", "role": "developer", "content": "Be brief."},
        {
            "id": "m2",
            "role": "user",
            "content": [
                {"type": "text", "text": "?"},
                {"type": "image", "source": {"type": "data", "value": "iVBORw0KGgo=", "mimeType": "image/png"}},
            ],
        },
        {"id": "m3", "role": "reasoning", "content": "Hm"},
        {
            "id": "m4",
            "role": "assistant",
            "content": "Well",
            "toolCalls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"id": "m5", "role": "tool", "toolCallId": "c", "content": "4", "error": "e"},
        {"id": "m6", "role": "activity", "activityType": "a", "content": {"a": 1}},
        {"id": "m7", "role": "user", "content": "?"},
    ],
    "tools": [{"name": "f", "description": "d", "parameters": SCHEMA}],
    "context": [{"description": "d", "value": "v"}],
    "forwardedProps": {"temperature": 0.5, "tool_choice": "auto"},
}
BODIES = {"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES, "gai": GAI, "vercel": VERCEL, "agui": AGUI}
OTHERS = {
    "chat": "gemini",
    "responses": "gemini",
    "messages": "openai",
    "gai": "openai",
    "vercel": "gemini",
    "agui": "gemini",
}
"""A provider of another dialect for each door, which supports most of its members."""
OWN = {"chat": "openai", "responses": "openai:responses", "messages": "anthropic"}
WRONG: tuple[Any, ...] = (True, 1, 1.5, "x", [], {}, [5], {"x": 5})

Path = tuple[str | int, ...]


_FREE = {*"parameters schema input_schema metadata logit_bias input output data".split()}
"""Members that hold any JSON, which is not walked; of `input` that of the Responses API is."""


def paths_of(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yields the paths of all members of a body."""
    pairs: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*path, key)
        if key not in _FREE or key == "input":
            yield from paths_of(inner, (*path, key))


def wrong_for(value: Any) -> Iterator[Any]:
    """Values of another JSON type; a number is one type."""
    for wrong in WRONG:
        is_number = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (value, wrong))
        if type(wrong) is not type(value) and not is_number:
            yield wrong


def target_of(name: str) -> Target:
    return next(target for target in TARGETS if target.name == name)


def written(path: Path) -> str:
    return "$" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)


def is_named(path: Path, answer: Answer) -> bool:
    """Returns whether an error names a member: by a path to it, to what holds it or to what it holds."""
    found = [each.removesuffix("[...]") for each in re.findall(r"`(?:\$\.)?([^`]*)`", answer.error)]
    own = written(path).removeprefix("$.")
    return any(own.startswith(each) or each.startswith(own) for each in found if each)


def cases(door: str) -> list[tuple[Path, Any]]:
    body = BODIES[door]
    found = []
    for path in paths_of(body):
        holder: Any = body
        for key in path:
            holder = holder[key]
        found += [(path, wrong) for wrong in wrong_for(holder)]
    return found


def is_allowed(door: str, path: Path, wrong: Any) -> bool:
    """Whether the dialect has the other type too: texts for lists of parts, lists for texts, any input of a call."""
    last = path[-1]
    if last in ("content", "output", "system", "input") and wrong in ("x", []):
        return True
    if door == "agui" and path[0] != "forwardedProps":
        return is_run_input(replaced(AGUI, path, wrong))
    return (door, last, wrong) == ("chat", "stop", "x") or last in FREE.get(door, ())


FREE: dict[str, tuple[str, ...]] = {
    "gai": ("input",),
    # Values of the tools and of the page.
    "vercel": ("input", "output", "data", "metadata"),
}
"""Members of any type."""


def is_run_input(body: dict[str, Any]) -> bool:
    """Returns whether AG-UI's own model accepts a body."""
    from ag_ui.core import RunAgentInput
    from pydantic import ValidationError

    try:
        RunAgentInput.model_validate(body)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("door", BODIES)
def test_the_whole_body_is_accepted(bench: Bench, door: str) -> None:
    answer, received = bench.ask(target_of(OTHERS[door]), "drop", door, BODIES[door])
    assert (answer.status, received is not None) == (200, True), answer.error


@pytest.mark.parametrize("door", BODIES)
def test_a_member_of_a_wrong_type_is_refused_by_its_name(bench: Bench, door: str) -> None:
    for path, wrong in cases(door):
        answer, _ = bench.ask(target_of(OTHERS[door]), "drop", door, replaced(BODIES[door], path, wrong))
        if is_allowed(door, path, wrong):
            assert answer.status in (200, 400), (path, wrong, answer)
            continue
        assert answer.status == 400, (path, wrong, answer)
        assert is_named(path, answer), (path, wrong, answer.error)
        body = json.loads(answer.body)
        if door in ("chat", "responses"):
            assert body["error"]["type"] == "invalid_request_error", body
        elif door == "messages":
            assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")


@pytest.mark.parametrize("door", OWN)
def test_a_member_of_a_wrong_type_breaks_nothing_on_the_way_to_its_own_provider(bench: Bench, door: str) -> None:
    for path, wrong in cases(door):
        answer, _ = bench.ask(target_of(OWN[door]), "plain", door, replaced(BODIES[door], path, wrong))
        assert answer.status in (200, 400), (path, wrong, answer)
