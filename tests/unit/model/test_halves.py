"""Surrogate pairs that are split between deltas: one character, whatever stands between."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.model.halves import joined

HIGH, LOW, LONE = "\ud83d", "\ude00", "\ufffd"
PAIR = "\U0001f600"


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text.delta", "text": value, **more}


def arguments(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "tool.call.delta", "arguments": value, **more}


def written(*events: Any) -> list[Any]:
    halves: dict[Any, Any] = {}
    return [made for event in events for made in joined(halves, event)]


REASONING = {"type": "reasoning.delta", "text": "r"}
START = {"type": "tool.call.start", "index": 0}
FIRST, SECOND = {"call_id": "a", "index": 0}, {"call_id": "b", "index": 1}
CALL = {"type": "tool.call", "call_id": "a", "tool_call": {}}
FINISH = {"type": "finish", "finish_reason": "stop"}


CASES: list[tuple[list[Any], list[Any]]] = [
    ([text("a" + HIGH), text(LOW + "b")], [text("a"), text(PAIR + "b")]),
    ([text(HIGH), text(LOW)], [text(PAIR)]),
    ([text(HIGH), text("b")], [text(LONE + "b")]),
    ([text(HIGH), text(HIGH), text(LOW)], [text(LONE), text(PAIR)]),
    ([text(LOW)], [text(LONE)]),
    ([text("a")], [text("a")]),
    ([text("")], [text("")]),
    # each channel, choice and call for itself
    ([text(HIGH), REASONING, text(LOW)], [REASONING, text(PAIR)]),
    ([text(HIGH), text("x", choice=1), text(LOW)], [text("x", choice=1), text(PAIR)]),
    ([text(HIGH, choice=1), START, text(LOW, choice=1)], [START, text(PAIR, choice=1)]),
    ([text(HIGH, choice=0), START, text(LOW)], [text(LONE, choice=0), START, text(LONE)]),
    (
        [arguments(HIGH, index=0), arguments("x", index=1), arguments(LOW, index=0)],
        [arguments("x", index=1), arguments(PAIR, index=0)],
    ),
    # parallel calls take turns
    (
        [arguments(HIGH, **FIRST), {**START, **SECOND}, arguments(LOW, **FIRST)],
        [{**START, **SECOND}, arguments(PAIR, **FIRST)],
    ),
    (
        [arguments(HIGH, **FIRST), {**CALL, "call_id": "b"}, arguments(LOW, **FIRST)],
        [{**CALL, "call_id": "b"}, arguments(PAIR, **FIRST)],
    ),
    (
        [arguments(HIGH, **FIRST), CALL, arguments(LOW, **FIRST)],
        [arguments(LONE, **FIRST), CALL, arguments(LONE, **FIRST)],
    ),
    ([arguments(HIGH), CALL], [arguments(LONE), CALL]),
    ([text(HIGH), CALL], [text(LONE), CALL]),
    # asides do not separate, other events do, an end separates all choices
    ([text(HIGH), {"type": "usage", "usage": {}}, text(LOW)], [{"type": "usage", "usage": {}}, text(PAIR)]),
    ([text(HIGH), START, text(LOW)], [text(LONE), START, text(LONE)]),
    ([text(HIGH), text(HIGH, choice=1), FINISH], [text(LONE), text(LONE, choice=1), FINISH]),
    # a number of its own is kept
    ([text("a" + HIGH, seq=5), text(LOW, seq=6)], [text("a" + LONE, seq=5), text(LONE, seq=6)]),
    ([text(HIGH), text(LOW, seq=6)], [text(PAIR, seq=6)]),
    # what is no event is not judged here
    ([None, {"type": 1}, text(HIGH), {"type": "text.delta"}], [None, {"type": 1}, {"type": "text.delta"}]),
]
"""Events that a program writes, and what they become."""


@pytest.mark.parametrize(("events", "expected"), CASES)
def test_halves_of_a_pair_are_joined_within_their_channel_and_choice(events: list[Any], expected: list[Any]) -> None:
    assert written(*events) == expected
