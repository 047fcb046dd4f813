"""Conversations that no provider takes, with `drop`: what is left is in the form that each provider takes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.requests.gateway import Bench
from tests.requests.rules import RULES
from tests.requests.targets import TARGETS, Target

ASK = {"role": "user", "content": "?"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "4"}
PARAMETERS = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOLS = {"tools": [{"type": "function", "function": {"name": "f", "parameters": PARAMETERS}}]}
TALKS: dict[str, dict[str, Any]] = {
    "a call without its result": {"messages": [ASK, CALLED, ASK], **TOOLS},
    "a result without its call": {"messages": [ASK, {**RESULT, "tool_call_id": "d"}, ASK], **TOOLS},
    "one result of two calls": {
        "messages": [ASK, {**CALLED, "tool_calls": [CALL, {**CALL, "id": "d"}]}, RESULT, ASK],
        **TOOLS,
    },
    "a message between a call and its result": {"messages": [ASK, CALLED, ASK, RESULT, ASK], **TOOLS},
    "a call at the end": {"messages": [ASK, CALLED], **TOOLS},
    "a choice without tools": {"messages": [ASK], "tool_choice": "required"},
    "system messages alone": {"messages": [{"role": "system", "content": "Say hello."}]},
    "the assistant at the beginning": {"messages": [{"role": "assistant", "content": "Well?"}, ASK]},
}


@pytest.mark.parametrize("name", TALKS)
@pytest.mark.parametrize("target", [pytest.param(target, id=target.name) for target in TARGETS])
def test_what_is_left_has_the_form_that_the_provider_takes(bench: Bench, target: Target, name: str) -> None:
    answer, received = bench.ask(target, "drop", "chat", {**TALKS[name], "stream": True})
    assert received is not None, answer.error
    faults = [fault for rule in RULES[target.name] for fault in rule(received)]
    assert (answer.status, faults, target.types().problems(received.body)) == (200, [], [])
