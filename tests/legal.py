"""The rules of a legal stream of events (docs/events.md), and how they are tried on any body."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, cast

from gai_fast.core.relay import Relay
from gai_fast.library.decoding import OrderedEvents
from gai_fast.model.errors import Error
from gai_fast.model.events import KEY_RANK, TYPES, Event, is_empty
from gai_fast.providers import Adapter

_DELTA_KEYS = {"text.delta": "text", "reasoning.delta": "text", "refusal.delta": "text", "tool.call.delta": "arguments"}

Run: TypeAlias = Callable[[Iterable[bytes], Error | None], list[Event]]
"""Makes events of the pieces of a body and of what broke it."""


def sse(*chunks: Any) -> bytes:
    """Returns a body of these chunks: bytes as they are, text and JSON as data."""
    return b"".join(
        chunk
        if isinstance(chunk, bytes)
        else f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n".encode()
        for chunk in chunks
    )


def split(body: bytes, edges: Iterable[int]) -> list[bytes]:
    """Returns the body cut at these places, whatever their order and size."""
    inner = sorted(edge % (len(body) + 1) for edge in edges)
    return [body[begin:end] for begin, end in itertools.pairwise([0, *inner, len(body)])]


def relaying(adapter: Callable[[], Adapter]) -> Run:
    """Runs bodies through a fresh relay each; events are numbered as users see them."""

    def run(pieces: Iterable[bytes], broke: Error | None) -> list[Event]:
        sink = OrderedEvents("compact")
        relay = Relay(adapter(), sink)
        for piece in pieces:
            relay.receive_data(piece)
        relay.receive_eof(broke)
        return sink.take()

    return run


def check_any_cut(run: Run, body: bytes, cut: int, edges: Sequence[int]) -> None:
    """Asserts the promise: legal whatever happens, the same however it is split, never more than what was produced."""
    whole = run([body], None)
    check_legal(whole, numbered=True)
    assert _without_envelope(run(split(body, edges), None)) == _without_envelope(whole)
    for broke in (None, Error("network", "reset", reason="reset")):
        part = run(split(body[: cut % (len(body) + 1)], edges), broke)
        check_legal(part, numbered=True)
        for kind, choice in itertools.product(("text.delta", "reasoning.delta", "refusal.delta"), (0, 1)):
            # Half a character becomes U+FFFD if the body ended between the halves.
            said = texts(part, kind, choice)
            assert texts(whole, kind, choice).startswith(said.removesuffix("\ufffd"))


def _without_envelope(events: Iterable[Event]) -> list[Event]:
    own = ("ts", "request_id")
    return [cast(Event, {key: value for key, value in event.items() if key not in own}) for event in events]


def check_legal(events: Sequence[Event], *, numbered: bool = False) -> None:
    """Asserts the legal order; with `numbered` also keys, numbers and the compact envelope, as users see them."""
    kinds = [event["type"] for event in events]
    assert set(kinds) <= TYPES, kinds
    assert kinds[0] in ("start", "error"), kinds
    assert kinds.count("start") == (kinds[0] == "start"), kinds
    assert kinds[-1] == "done", kinds
    assert kinds[-2] in ("finish", "error"), kinds
    assert not {"finish", "error", "done"} & set(kinds[:-2]), kinds
    assert events[-1] == {"type": "done", "finished": kinds[-2] == "finish"}
    for event in events:
        key = _DELTA_KEYS.get(event["type"])
        assert key is None or event[key], event
    _check_calls(events)
    if numbered:
        _check_envelope(events)


def _check_calls(events: Iterable[Event]) -> None:
    """Every call has a start, its fragments, then `tool.call`; indices are dense in each choice and step."""
    opened: dict[int, list[str]] = {}
    closed = set()
    for event in events:
        if event["type"] == "step.start":  # the model's calls are counted anew
            opened = {}
        if not event["type"].startswith("tool.call"):
            continue
        choice, call_id = event.get("choice", 0), event["call_id"]
        calls = opened.setdefault(choice, [])
        if event["type"] == "tool.call.start":
            assert call_id not in calls, event
            assert event["index"] == len(calls), event
            calls.append(call_id)
        else:
            assert call_id in calls, event
        assert (choice, call_id) not in closed, event
        if event["type"] == "tool.call":
            closed.add((choice, call_id))


def _check_envelope(events: Sequence[Event]) -> None:
    for number, event in enumerate(events[:-1], 1):
        assert event["seq"] == number
        assert list(event) == sorted(event, key=KEY_RANK.__getitem__), list(event)
        assert not any(is_empty(value) for value in event.values()), event
        assert {"schema", "ts", "request_id"} <= event.keys() if number == 1 else "schema" not in event, event


def texts(events: Iterable[Event], kind: str = "text.delta", choice: int = 0) -> str:
    """Returns all texts of one kind and choice, joined."""
    said: list[Any] = [
        event[_DELTA_KEYS[kind]] for event in events if event["type"] == kind and event.get("choice", 0) == choice
    ]
    return "".join(said)
