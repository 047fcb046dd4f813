"""`net/runs/sink.py`: what a run adds to the events of its stream, and what it learns from them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.processing.chain import Chain
from gai_fast.kernels import encode_json
from gai_fast.net.runs.sink import RunSink, TurnContent


class Output:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def event(self, event: Any) -> None:
        self.events.append(event)

    def heartbeat(self) -> None:
        self.events.append("heartbeat")

    def take_pieces(self) -> list[bytes]:
        return [b"x"]


class Listener:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.resets = 0

    def call_came(self, call_id: str, name: str, arguments: Any) -> str:
        self.calls.append((call_id, name, arguments))
        return call_id

    def turn_reset(self) -> None:
        self.resets += 1

    def steps_so_far(self) -> list[dict[str, Any]]:
        return [{"step": 1}]


def made(chain: Chain | None = None) -> tuple[RunSink, Output, Listener, TurnContent]:
    output, listener, content = Output(), Listener(), TurnContent()
    return (
        RunSink(output, None, listener, {"docs__a": "docs", "own": ""}, {"client's"}, content, chain),
        output,
        listener,
        content,
    )


def called(name: str, call_id: str = "c") -> list[Any]:
    call = {"name": name, "input": {}}
    return [
        {"type": "tool.call.start", "call_id": call_id, "tool_call": {"name": name}},
        {"type": "tool.call.delta", "call_id": call_id, "arguments": "{}"},
        {"type": "tool.call", "call_id": call_id, "tool_call": call},
    ]


def test_the_first_start_is_the_stream_s_and_each_turn_has_its_own() -> None:
    sink, output, _, _ = made()
    sink.event({"type": "start", "provider": "p", "model": "m"})
    sink.begin_step(2)
    sink.event({"type": "start", "provider": "q", "model": "n"})
    assert [(event["type"], event.get("step")) for event in output.events] == [
        ("start", None),
        ("step.start", 1),
        ("step.start", 2),
    ]
    assert sink.providers == {1: ("p", "m"), 2: ("q", "n")}
    assert [event.get("provider") for event in output.events] == ["p", None, "q"]  # a fallback has answered the second


def test_a_reset_is_that_of_a_step() -> None:
    sink, output, listener, content = made()
    sink.event({"type": "text.delta", "text": "Hm"})
    sink.event({"type": "stream.reset", "reason": "network"})
    assert output.events[-1] == {"type": "step.reset", "step": 1, "reason": "network"}
    assert (listener.resets, content.take()) == (1, [])


def test_events_have_their_step_but_not_deltas_nor_those_of_the_stream() -> None:
    sink, output, _, _ = made()
    told: list[Any] = [{"type": "text.delta", "text": "x"}, {"type": "usage", "usage": {}}, {"type": "done"}]
    for event in told:
        sink.event(event)
    assert ["step" in event for event in output.events] == [False, True, False]
    sink.event({"type": "finish", "finish_reason": "stop"})
    assert output.events[-1]["steps"] == [{"step": 1}]


def test_calls_say_who_makes_them() -> None:
    sink, output, listener, _ = made()
    for name in ("docs__a", "own", "client's", "nobody's"):
        for event in called(name, name):
            sink.event(event)
    told = [(event.get("executed_by"), event.get("server")) for event in output.events if event["type"] == "tool.call"]
    assert told == [("gateway", "docs"), ("gateway", None), (None, None), ("gateway", None)]
    assert [name for _, name, _ in listener.calls] == ["docs__a", "own", "client's", "nobody's"]


def test_an_id_of_a_turn_before_is_replaced_from_the_call_s_start_on() -> None:
    sink, output, listener, content = made()
    for event in called("own"):
        sink.event(event)
    sink.begin_step(2)
    output.events.clear()
    for event in called("own"):
        sink.event(event)
    assert [event["call_id"] for event in output.events] == ["call_2_0"] * 3
    assert listener.calls[-1][0] == "call_2_0"
    assert [part["call_id"] for part in content.take()] == ["c", "c"]


def test_an_id_of_a_void_turn_is_replaced_from_the_call_s_start_on() -> None:
    sink, output, listener, _ = made()
    for _ in range(3):
        output.events.clear()
        for event in called("own"):
            sink.event(event)
        assert {event["call_id"] for event in output.events} == {listener.calls[-1][0]}
        sink.event({"type": "stream.reset", "reason": "network"})
    assert [call_id for call_id, _, _ in listener.calls] == ["c", "call_1_0", "call_1_0_"]


def test_later_turns_do_not_tell_how_their_requests_were_changed() -> None:
    chain = Chain([])
    sink, output, _, _ = made(chain)
    sink.event({"type": "warning", "reason": "request_changed"})
    sink.begin_step(2)
    sink.event({"type": "warning", "reason": "request_changed"})
    assert len(output.events) == 1


def test_what_the_run_sends_itself_is_no_content() -> None:
    sink, _, _, content = made()
    sink.event({"type": "text.delta", "text": "Hm"})
    sink.event({"type": "tool.result", "step": 1, "call_id": "c", "tool_result": {"a": 1}})
    sink.event({"type": "step.end", "step": 1, "finish_reason": "stop"})
    assert content.take() == [{"type": "text", "text": "Hm"}]


def test_the_rest_is_the_encoder_s() -> None:
    sink, output, _, _ = made()
    sink.heartbeat()
    assert (output.events, sink.take_pieces(), sink.delta_parts({"type": "text.delta"}, "text")) == (
        ["heartbeat"],
        [b"x"],
        None,
    )


def chat(*calls: tuple[str, str, str]) -> list[Any]:
    """Returns the events of calls whose completion is known at the end of the turn alone: id, name, arguments."""
    events: list[Any] = []
    for call_id, name, given in calls:
        events.append({"type": "tool.call.start", "call_id": call_id, "tool_call": {"name": name}})
        events.append({"type": "tool.call.delta", "call_id": call_id, "arguments": given})
    for call_id, name, given in calls:
        value: Any = json.loads(given) if given.endswith("}") else given
        events.append({"type": "tool.call", "call_id": call_id, "tool_call": {"name": name, "input": value}})
    return events


def test_a_call_is_complete_once_another_one_begins_and_is_announced_once() -> None:
    chain = Chain(())
    sink, output, listener, _ = made(chain)
    for event in chat(("a", "own", '{"q": 1}'), ("b", "client's", '{"q": 2}'), ("c", "own", "{}")):
        sink.event(event)
    kinds = [(event["type"], event["call_id"]) for event in output.events]
    assert kinds == [
        *[("tool.call.start", "a"), ("tool.call.delta", "a"), ("tool.call", "a")],
        *[("tool.call.start", "b"), ("tool.call.delta", "b"), ("tool.call", "b")],
        *[("tool.call.start", "c"), ("tool.call.delta", "c"), ("tool.call", "c")],
    ]
    assert listener.calls == [("a", "own", {"q": 1}), ("b", "client's", {"q": 2}), ("c", "own", {})]
    assert encode_json(output.events[2]["tool_call"]) == b'{"name":"own","input":{"q":1}}'


DEEP = '{"q":' + "[" * 254 + "]" * 254 + "}"
"""Arguments that can be read, while an event with them cannot."""


@pytest.mark.parametrize("broken", ["", "{", "[1]", '"text"', '{"q": 1} x', pytest.param(DEEP, id="deep")])
def test_calls_behind_one_that_is_not_complete_wait_for_the_end(broken: str) -> None:
    sink, output, listener, _ = made()
    for event in chat(("a", "own", broken), ("b", "own", '{"q": 2}'), ("c", "own", "{}")):
        sink.event(event)
    assert [event["type"] for event in output.events[-3:]] == ["tool.call"] * 3
    assert [call_id for call_id, _, _ in listener.calls] == ["a", "b", "c"]


def test_a_void_turn_announces_nothing_of_the_next() -> None:
    sink, output, listener, _ = made()
    for event in chat(("a", "own", '{"q": 1}'), ("b", "own", "{}"))[:4]:
        sink.event(event)
    sink.event({"type": "stream.reset", "reason": "network"})
    for event in chat(("a", "own", '{"q": 3}')):
        sink.event(event)
    assert [arguments for _, _, arguments in listener.calls] == [{"q": 1}, {"q": 3}]
    assert output.events[-1]["type"] == "tool.call"
