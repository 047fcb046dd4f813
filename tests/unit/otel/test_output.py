"""`OutputMessages`: what `tests/unit/otel/test_trace.py` leaves out."""

from __future__ import annotations

import json

from gai_fast.model.events import JSONText
from gai_fast.otel.output import OutputMessages
from tests.limits import LIMITS


def test_arguments_are_reported_as_they_came_and_large_ones_are_left_out() -> None:
    output = OutputMessages()
    given = JSONText('{"n":1}', {"n": 1})
    output.event({"type": "tool.call", "call_id": "a", "tool_call": {"name": "f", "input": given}})
    output.event({"type": "tool.call", "call_id": "b", "tool_call": {"name": "f", "input": "x" * LIMITS.otel_text}})
    output.event({"type": "text.delta", "text": "late"})
    (message,) = json.loads(output.json())
    assert message["parts"] == [{"type": "tool_call", "id": "a", "name": "f", "arguments": {"n": 1}}]


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    assert json.loads(OutputMessages().json()) == [{"role": "assistant", "parts": []}]
