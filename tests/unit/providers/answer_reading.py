"""Helpers of the tests of all providers: chunks in, events out, and the bodies of requests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, cast

from pydantic import TypeAdapter

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.events import Event, JSONText
from gai_fast.providers import Target, UpstreamRequest, get_provider

_MADE = re.compile("call_[0-9a-f]{24}")


def chunk(delta: Any = None, *, finish: str | None = None, index: int = 0, **keys: Any) -> dict[str, Any]:
    """Returns one chunk of the chat dialect."""
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return {"id": "c1", "model": "m1", "choices": [choice], **keys}


def call(arguments: Any = "", *, name: str | None = None, **keys: Any) -> dict[str, Any]:
    """Returns a delta with one fragment of a tool call."""
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {"tool_calls": [{**keys, "function": function}]}


def read(provider: str, *chunks: Any, done: bool = True) -> list[Event]:
    """Returns the events of a stream, `start` and `finish` included; `done` sends the chat dialect's end mark."""
    adapter = get_provider(provider).adapter()
    events = []
    for one in [*chunks, *(["[DONE]"] if done else [])]:
        events += adapter.receive("", one if isinstance(one, str) else json.dumps(one))
    return plain(events + adapter.finish())


def read_whole(provider: str, answer: Any, text: str | None = None) -> list[Event]:
    """Returns the events of an answer that is one JSON object."""
    adapter = get_provider(provider).adapter()
    return plain(adapter.receive_whole(answer, json.dumps(answer) if text is None else text) + adapter.finish())


def plain(events: list[Event]) -> list[Event]:
    """The events with arguments as their JSON text, so that digits can be compared, and ids of our making numbered."""
    said = []
    numbers: dict[str, str] = {}
    for event in events:
        if _MADE.fullmatch(event.get("call_id", "")):
            event = {**event, "call_id": numbers.setdefault(event["call_id"], f"call_{len(numbers)}")}
        given = event.get("tool_call", {}).get("input")
        if isinstance(given, JSONText):
            event = cast(Event, {**event, "tool_call": {**event["tool_call"], "input": given.text}})
        said.append(event)
    return said


def of_type(events: list[Event], *kinds: str) -> list[Event]:
    return [event for event in events if event["type"] in kinds]


def between(events: list[Event]) -> list[Event]:
    """Returns all but `start` and `finish`."""
    return [event for event in events if event["type"] not in ("start", "finish")]


def text_of(events: list[Event], kind: str = "text.delta") -> str:
    return "".join(event["text"] for event in of_type(events, kind) if "choice" not in event)


def calls_of(events: list[Event]) -> list[tuple[str, str, Any]]:
    """Complete calls as (call_id, name, input)."""
    complete = of_type(events, "tool.call")
    return [(event["call_id"], event["tool_call"]["name"], event["tool_call"]["input"]) for event in complete]


def request(provider: str, *, model: str = "m1", api_key: str | None = "k", **fields: Any) -> UpstreamRequest:
    """Returns the body for a native request; without messages it asks "Hi"."""
    if "messages" not in fields:
        fields.setdefault("query", "Hi")
    return get_provider(provider).build_request(parse_request(json.dumps(fields).encode()), Target(model, api_key))


def body(provider: str, **fields: Any) -> Any:
    """Returns the JSON body of `request`."""
    return json.loads(request(provider, **fields).body)


def body_without(provider: str, **fields: Any) -> tuple[Any, list[str]]:
    """Returns the JSON body if `on_unsupported` is `drop`, and what was left out."""
    if "messages" not in fields:
        fields.setdefault("query", "Hi")
    target = Target("m1", "k", "drop")
    sent = get_provider(provider).build_request(parse_request(json.dumps(fields).encode()), target)
    return json.loads(sent.body), target.changes.dropped


def validated(kind: Any, value: Any) -> Any:
    """Returns the value by an SDK's type, with what pydantic would only check when it is read."""

    def read_out(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: read_out(inner) for key, inner in part.items()}
        if isinstance(part, str | bytes) or not isinstance(part, Iterable):
            return part
        return [read_out(inner) for inner in part]

    adapter = TypeAdapter(kind)  # what is read out still needs it
    return read_out(adapter.validate_python(value))
