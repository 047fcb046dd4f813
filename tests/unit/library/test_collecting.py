"""`gai_fast/library/collecting.py`: asynchronous events amount to the same result."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from gai_fast.library.collecting import acollect, collect
from gai_fast.model.events import Event

EVENTS: list[Any] = [
    {"type": "start", "provider": "anthropic", "model": "m"},
    {"type": "text.delta", "text": "a"},
    {"type": "tool.call.delta", "call_id": "c1", "index": 0, "arguments": "{}"},
    {"type": "tool.call", "call_id": "c1", "tool_call": {"name": "look", "input": {}}},
    {"type": "finish", "finish_reason": "tool_calls"},
    {"type": "done", "finished": True},
]


async def told(events: list[Any]) -> AsyncIterator[Event]:
    for event in events:
        yield cast(Event, event)


async def test_asynchronous_events_amount_to_the_same() -> None:
    assert await acollect(told(EVENTS)) == collect(EVENTS)


async def test_what_is_no_event_is_named_by_its_number() -> None:
    with pytest.raises(ValueError, match="at event 2"):
        await acollect(told([EVENTS[0], {"type": "text.delta", "text": 1}]))
