"""The functions of an `EventManager` that an event calls."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.callbacks import NAMES, EventManager
from gai_fast.model.events import Event

EVENTS: list[Any] = [
    {"type": "start", "model": "m"},
    {"type": "text.delta", "text": "a"},
    {"type": "reasoning.delta", "text": "b"},
    {"type": "tool.call.delta", "arguments": "{}"},
    {"type": "usage", "usage": {"input_tokens": 1}},
    {"type": "citations", "citations": []},
    {"type": "finish", "usage": {"input_tokens": 2}},
    {"type": "error", "error": {}},
    {"type": "done", "finished": True},
]


def notify(manager: EventManager, events: list[Any]) -> None:
    for event in events:
        for callback in manager.wanted(event):
            callback(event)


def test_every_event_calls_those_that_want_it() -> None:
    seen: list[tuple[str, str]] = []
    functions: Any = {name: lambda event, name=name: seen.append((name, event["type"])) for name in NAMES}
    notify(EventManager(**functions), EVENTS)
    assert seen == [
        ("on_start", "start"),
        *(("on_delta", kind) for kind in ("text.delta", "reasoning.delta", "tool.call.delta")),
        *(("on_usage", "usage"), ("on_usage", "finish"), ("on_complete", "finish"), ("on_error", "error")),
    ]


def test_methods_of_a_subclass_are_callbacks_too() -> None:
    class Counting(EventManager):
        count = 0

        def on_delta(self, event: Event) -> None:
            self.count += 1

    manager = Counting(on_error=lambda event: None)
    notify(manager, EVENTS)
    assert manager.count == 3


def test_functions_may_be_assigned_later() -> None:
    manager = EventManager()
    notify(manager, EVENTS)
    seen: list[Event] = []
    manager.on_complete = seen.append
    notify(manager, EVENTS)
    assert [event["type"] for event in seen] == ["finish"]


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ValueError, match="on_delta must be a function of one event"):
        EventManager(on_delta="print")
