"""What is kept of a run, as events: those of its log, or those that a whole answer amounts to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tests.integration.stores.test_serve import frames
from tests.soak.kill_runs.clients import Got

Events = list[dict[str, Any]]


def events_of(answer: Got) -> Events:
    """Returns the events of a stream or of a whole answer. None if it is neither."""
    if answer.status != 200:
        return []
    if answer.headers["content-type"].startswith("application/json"):
        return _events_of_whole(json.loads(answer.body))
    return [event for _, event in frames(b"\r\n\r\n" + answer.body)]


def _events_of_whole(answer: Mapping[str, Any]) -> Events:
    """Returns what the messages of a whole answer amount to, with its own results."""
    results = {event["call_id"]: event for event in answer["events"] if event["type"] == "tool.result"}
    if len(results) != sum(event["type"] == "tool.result" for event in answer["events"]):
        raise ValueError("a call has two results")
    events: Events = []
    step = 0
    for message in answer["messages"]:
        if message["role"] == "tool":
            events.insert(-1, results[message["call_id"]])  # before the end of the step
            continue
        step += 1
        events.append({"type": "step.start", "step": step})
        for part in message["content"]:
            if part["type"] == "text":
                events.append({"type": "text.delta", "text": part["text"]})
            else:
                called = {"name": part["name"], "input": part["input"]}
                events.append({"type": "tool.call", "call_id": part["call_id"], "tool_call": called})
        events.append({"type": "step.end", "step": step})
    return [*events, {"type": "finish", "finish_reason": answer["finish_reason"]}]


def texts_of(events: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """Returns the text of each step, without those that were void."""
    texts: dict[int, str] = {}
    step = 0
    for event in events:
        if event["type"] == "step.start":
            step = event["step"]
            texts[step] = ""
        elif event["type"] == "step.reset":
            texts[event["step"]] = ""
        elif event["type"] == "text.delta":
            texts[step] = texts.get(step, "") + event["text"]
    return texts
