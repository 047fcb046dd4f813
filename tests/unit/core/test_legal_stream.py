"""`gai_fast/core/legal_stream.py`: the events that each state of a stream allows, and what becomes of them."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from gai_fast.core.legal_stream import TRANSITIONS, IllegalTransition, State
from gai_fast.model.events import TYPES, Event
from tests.unit.core.test_relay import DELTAS, HELLO, STOP, Recorder, Stream, chunk, relayed

# ---- the table -------------------------------------------------------------------------------------------------------


def in_state(state: State) -> Stream:
    stream = Stream()
    if state is not State.IDLE:
        stream.send(HELLO)
    stream.relay.state = state
    return stream


LEGAL = {
    State.IDLE: {"start", "error"},
    State.STREAMING: TYPES - {"start", "done", "stream.gap"},
    State.RESET: {"start", "error"},
    State.TURNED: {
        "start",
        "finish",
        "error",
        "tool.result",
        "tool.progress",
        "step.end",
        "approval.required",
        "approval.decided",
        "warning",
        "safety",
    },
    State.FINISHED: {"done"},
    State.FAILED: {"done"},
    State.CLOSED: set[str](),
    State.TAIL: set[str](),
    State.CUT: set[str](),
}


def test_the_table_allows_exactly_what_the_contract_does() -> None:
    assert {state: set(events) for state, events in TRANSITIONS.items()} == LEGAL


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (state, kind)
        for state, legal in LEGAL.items()
        for kind in sorted(TYPES | {"unheard.of"} - legal)
        if kind not in legal
    ],
)
def test_an_illegal_event_is_our_bug_and_never_reaches_the_client(state: State, kind: str) -> None:
    stream = in_state(state)
    before = list(stream.events)
    with pytest.raises(
        IllegalTransition, match=rf"stream: '{re.escape(kind)}' is not allowed in state '{state.value}'"
    ):
        stream.relay._emit(cast(Event, {"type": kind, "text": "x", "arguments": "{}"}))
    assert (stream.events, stream.relay.state) == (before, state)


# ---- what an event becomes -------------------------------------------------------------------------------------------


def test_an_adapter_may_tell_the_same_metadata_of_all_its_answers() -> None:
    result = {"region": "eu"}
    stream = Stream(upstream="main")
    stream.relay._emit({"type": "start", "provider": "fake", "provider_metadata": result})
    assert stream.events[0]["provider_metadata"] == {"region": "eu", "upstream": "main"}
    assert result == {"region": "eu"}
    assert stream.relay.error is None


def test_a_watcher_gets_what_the_sink_has_taken_until_another_takes_its_place() -> None:
    stream, first, second = Stream(), Recorder(), Recorder()
    stream.relay.watch(first)
    stream.send(HELLO)
    stream.relay.watch(second)
    stream.send(chunk(text="!"))
    stream.relay.watch(None)
    stream.send(STOP).end()
    assert first.events + second.events == stream.events[:3]
    assert [event["type"] for event in first.events] == ["start", "text.delta"]


def test_deltas_and_other_events_are_counted() -> None:
    relay = relayed(HELLO, chunk(text="!"), STOP).relay
    assert (relay.deltas, relay.others, relay.end["type"]) == (2, 3, "finish")


def test_content_is_delivered_with_the_first_delta_or_medium() -> None:
    stream = Stream().send(chunk(id="m1"))
    assert (stream.relay.awaits_first_event, stream.relay.has_content, stream.relay.delivered) == (False, False, False)
    stream.send(chunk(events=[{"type": "audio.delta", "audio": {"chunk": "aGk="}}]))
    assert (stream.relay.has_content, stream.relay.delivered) == (True, True)


# ---- surrogates ------------------------------------------------------------------------------------------------------


def spoken(*chunks: Any) -> list[Event]:
    return relayed(*chunks, STOP).events[1:-2]


@pytest.mark.parametrize(
    ("member", "key"), [("text", "text"), ("think", "text"), ("refuse", "text"), ("args", "arguments")]
)
def test_halves_in_two_deltas_are_one_character(member: str, key: str) -> None:
    call = chunk(events=[{"type": "tool.call.start", "call_id": "c", "index": 0}])
    keys = {"call_id": "c", "index": 0} if member == "args" else {}
    said = spoken(call, chunk(**{member: "a\ud83d"}, keys=keys), chunk(**{member: "\ude00b"}, keys=keys))[1:]
    assert said == [{"type": DELTAS[member], key: "a", **keys}, {"type": DELTAS[member], key: "😀b", **keys}]


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        (["\ud83d", "\ude00"], ["😀"]),
        (["\ud83d", "x"], ["\ufffdx"]),
        (["\ud83d", "\ud83d", "\ude00"], ["\ufffd", "😀"]),
        (["\ude00"], ["\ufffd"]),
        (["\ud83d"], ["\ufffd"]),  # noqa: PT014  # ruff takes all halves for equal
        (["a\ud83db\ude00"], ["a\ufffdb\ufffd"]),
        (["\ud83d\ude00"], ["😀"]),
    ],
)
def test_a_half_that_stays_alone_is_replaced(deltas: list[str], expected: list[str]) -> None:
    assert [event["text"] for event in spoken(*(chunk(text=text) for text in deltas))] == expected


def test_halves_of_different_choices_kinds_and_calls_are_not_joined() -> None:
    start = [{"type": "tool.call.start", "call_id": f"c{index}", "index": index} for index in (0, 1)]
    high, low = "\ud83d", "\ude00"
    said = spoken(
        chunk(events=start),
        chunk(text=high), chunk(text=high, keys={"choice": 1}), chunk(think=high),
        chunk(args=high, keys={"call_id": "c0", "index": 0}), chunk(args=high, keys={"call_id": "c1", "index": 1}),
        chunk(args=low + "1", keys={"call_id": "c1", "index": 1}),
        chunk(args=low + "0", keys={"call_id": "c0", "index": 0}),
        chunk(think=low + "t"), chunk(text=low + "1", keys={"choice": 1}), chunk(text=low + "0"),
    )[2:]  # fmt: skip
    assert said == [
        {"type": "tool.call.delta", "arguments": "😀1", "call_id": "c1", "index": 1},
        {"type": "tool.call.delta", "arguments": "😀0", "call_id": "c0", "index": 0},
        {"type": "reasoning.delta", "text": "😀t"},
        {"type": "text.delta", "text": "😀1", "choice": 1},
        {"type": "text.delta", "text": "😀0"},
    ]


def test_usage_and_warnings_between_two_halves_do_not_part_them() -> None:
    usage = chunk(events=[{"type": "usage", "usage": {"input_tokens": 1}}])
    assert [event["type"] for event in spoken(chunk(text="\ud83d"), usage, '{"events": 5}', chunk(text="\ude00"))] == [
        "usage", "warning", "text.delta",
    ]  # fmt: skip


def test_an_event_of_another_choice_does_not_part_them() -> None:
    """The start of a call of choice 0 made two U+FFFD of an emoji of choice 1."""
    start = chunk(events=[{"type": "tool.call.start", "call_id": "c", "index": 0}])
    high, low = (chunk(text=half, keys={"choice": 1}) for half in ("\ud83d", "\ude00"))
    said = spoken(high, start, low)
    assert [event.get("text") for event in said] == [None, "\U0001f600"]


def test_whatever_else_comes_between_parts_them() -> None:
    said = spoken(chunk(text="\ud83d"), chunk(events=[{"type": "citations", "citations": [{}]}]), chunk(text="\ude00"))
    assert [event.get("text") for event in said] == ["\ufffd", None, "\ufffd"]


@pytest.mark.parametrize("last", [STOP, chunk(error="no")])
def test_a_half_is_reported_before_the_end(last: dict[str, Any]) -> None:
    stream = relayed(HELLO, chunk(text="\ud83d"), last)
    assert stream.events[2] == {"type": "text.delta", "text": "\ufffd"}
    assert stream.kinds[3] in ("finish", "error")


def test_a_half_that_was_all_there_was_makes_the_error_one_of_mid_stream() -> None:
    stream = relayed(chunk(text="\ud83d"))
    assert stream.kinds == ["start", "text.delta", "error", "done"]
    assert stream.error["phase"] == "mid_stream"
