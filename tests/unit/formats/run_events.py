"""The events of one run: two calls of the gateway, of which one fails, an approval, and a call that is the client's."""

from __future__ import annotations

import json
from typing import Any, Final, cast

from gai_fast.formats import get_format
from gai_fast.model.events import Event, JSONText
from tests.unit.formats.streams import DONE, START, USAGE, context, encoded, finish, text

GATEWAY: Final = {"executed_by": "gateway", "server": "docs"}
PENDING: Final = {
    "id": "approval-1",
    "tool": "docs.write",
    "server": "docs",
    "input": {"page": "Home"},
    "digest": "d1",
    "expires": 1_700_000_600_000,
}


def _event(**keys: Any) -> Event:
    return cast("Event", keys)


def called(call_id: str, index: int, name: str, arguments: str, step: int, **keys: Any) -> list[Event]:
    """Returns the events of one call, as a run sends them: deltas have no `step`."""
    own = {"call_id": call_id, "step": step, **keys}
    given = JSONText(arguments, json.loads(arguments))
    half = len(arguments) // 2
    return [
        _event(type="tool.call.start", **own, index=index, tool_call={"name": name}),
        _event(type="tool.call.delta", call_id=call_id, index=index, arguments=arguments[:half]),
        _event(type="tool.call.delta", call_id=call_id, index=index, arguments=arguments[half:]),
        _event(type="tool.call", **own, tool_call={"name": name, "input": given}),
    ]


def result(call_id: str, value: Any, step: int, *, is_error: bool = False) -> Event:
    counts = {"is_error": is_error, "attempt": 1, "duration_ms": 12}
    return _event(type="tool.result", step=step, call_id=call_id, tool_result=value, **counts)


def as_read(events: list[Event]) -> list[Any]:
    """Returns events as a client of `gai.events.v1` reads them."""
    lines = encoded(get_format("gai").encoder("ndjson", context()), events)
    return [json.loads(line) for line in lines.splitlines()]


def step_end(step: int, reason: str) -> Event:
    return _event(type="step.end", step=step, usage=USAGE, finish_reason=reason)


RUN_EVENTS: Final[list[Event]] = [
    START,
    _event(type="step.start", step=1),
    {"type": "reasoning.delta", "text": "Hm"},
    _event(type="reasoning.signature", step=1, signature="signed"),
    text("Let me look. "),
    *called("search_1", 0, "docs__search", '{"q":"x"}', 1, **GATEWAY),
    *called("weather_1", 1, "weather", "{}", 1, executed_by="gateway"),
    _event(type="tool.progress", step=1, call_id="search_1", progress=0, total=2, text="Half"),
    result("weather_1", "no such city", 1, is_error=True),
    result("search_1", {"hits": [20000000000000000000]}, 1),
    step_end(1, "tool_calls"),
    _event(type="step.start", step=2),
    text("I will write. "),
    *called("write_1", 0, "docs__write", '{"page":"Home"}', 2, **GATEWAY),
    _event(type="approval.required", step=2, call_id="write_1", approval=PENDING),
    _event(
        type="approval.decided",
        step=2,
        call_id="write_1",
        approval={"id": "approval-1", "decision": "approve", "by": "ann"},
    ),
    result("write_1", "written", 2),
    step_end(2, "tool_calls"),
    _event(type="step.start", step=3),
    text("Now you. "),
    *called("search_2", 0, "docs__search", '{"q":"y"}', 3, **GATEWAY),
    *called("show_1", 1, "show", '{"page":"Home"}', 3),
    *called("show_2", 2, "show", '{"page":"Away"}', 3),
    result("search_2", "y", 3),
    step_end(3, "tool_calls"),
    finish(
        "tool_calls",
        usage=USAGE,
        steps=[
            {"step": step, "provider": "test", "model": "test-model", "usage": USAGE, "tool_calls": calls}
            for step, calls in ((1, 2), (2, 1), (3, 1))
        ],
    ),
    DONE,
]
"""Three turns."""

TEXT: Final = "Let me look. I will write. Now you. "
CLIENT_CALLS: Final = ["show_1", "show_2"]
GATEWAY_CALLS: Final = ["search_1", "weather_1", "write_1", "search_2"]

ASKS: Final[list[Event]] = [
    START,
    _event(type="step.start", step=1),
    *called("write_1", 0, "docs__write", '{"page":"Home"}', 1, **GATEWAY),
    _event(type="approval.required", step=1, call_id="write_1", approval=PENDING),
    step_end(1, "tool_calls"),
    finish(usage=USAGE),
    DONE,
]
"""A run that ends with a question, as a response of OpenAI's does."""

_SECOND: Final = next(at for at, event in enumerate(RUN_EVENTS) if event["type"] == "step.start" and event["step"] == 2)

VOIDED: Final[list[Event]] = [
    *RUN_EVENTS[: _SECOND + 1],
    text("void "),
    *called("void_1", 0, "docs__write", '{"page":"No"}', 2, **GATEWAY),
    _event(type="step.reset", step=2, reason="truncated"),
    *RUN_EVENTS[_SECOND:],
]
"""The same run, whose second turn is asked anew."""
