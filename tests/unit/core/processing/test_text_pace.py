"""`core/processing/text_pace.py`: how much text processors get in a turn of the loop."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.processing.chain import Chain
from gai_fast.core.processing.text_pace import TextPace
from gai_fast.model.events import DELTAS, Event
from gai_fast.processors.json_stream import JSONStreamProcessor
from tests.limits import LIMITS
from tests.unit.formats.streams import call_delta, finish, text


def turns(made: Any, *events: Any) -> list[list[Any]]:
    """Returns what leaves in each turn of the loop."""
    left: list[list[Any]] = []
    now, waiting = 1, [*events]
    while waiting or made.due_ms == 0:
        left.append([*(made.process(waiting.pop(0), now) if waiting else made.flush(now))])
        now += 1
    return left


def texts(events: list[Any]) -> str:
    return "".join([each[DELTAS[each["type"]]] for each in events if each["type"] in DELTAS])


@pytest.mark.parametrize("make", [text, call_delta])
def test_a_long_delta_passes_in_turns_and_all_events_behind_it(make: Any) -> None:
    long = "abcdefgh" * LIMITS.turn_text
    usage: Event = {"type": "usage", "usage": {"input_tokens": 1}}
    left = turns(TextPace(), make(long), usage, make("!"))
    assert all(len(texts(each)) <= LIMITS.turn_text for each in left)
    assert len(left) <= 11
    events = [event for turn in left for event in turn]
    assert texts(events) == long + "!"
    assert [each["type"] for each in events][-2:] == ["usage", make("!")["type"]]


def test_deltas_of_one_turn_are_counted_together() -> None:
    made = TextPace()
    long = "x" * (LIMITS.turn_text - 1)
    assert [*made.process(text(long), 1)] == [text(long)]
    assert texts([*made.process(text("abc"), 1)]) == "a"
    assert (made.holds, made.waiting, made.due_ms) == (True, 2, 0)
    assert [*made.release(1)] == []
    assert texts([*made.flush(2)]) == "bc"
    assert (made.holds, made.waiting, made.due_ms) == (False, 0, None)


def test_what_passes_at_once_is_the_same_object() -> None:
    event = text("abc")
    [passed] = TextPace().process(event, 1)
    assert passed is event


@pytest.mark.parametrize("token", ["x", "abc", "y" * (LIMITS.turn_text - 1)])
def test_probabilities_stay_with_their_text(token: str) -> None:
    tokens = [token] * (LIMITS.turn_text * 3 // len(token))
    long: Event = {**text("".join(tokens)), "logprobs": [{"token": each} for each in tokens]}
    left = turns(TextPace(), long)
    assert len(left) > 2
    for [event] in left:
        assert len(event["text"]) <= LIMITS.turn_text
        assert "".join([each["token"] for each in event["logprobs"]]) == event["text"]
    assert "".join([event["text"] for [event] in left]) == long["text"]


@pytest.mark.parametrize("token", ["", "other", "x" * LIMITS.turn_text * 2])
def test_a_text_passes_in_turns_whatever_its_tokens_spell(token: str) -> None:
    long: Event = {**text("x" * LIMITS.turn_text * 2 + "!"), "logprobs": [{"token": token}, {"token": "?"}]}
    left = [event for turn in turns(TextPace(), long) for event in turn]
    assert all(len(event["text"]) <= LIMITS.turn_text for event in left)
    assert texts(left) == long["text"]
    assert [each for event in left for each in event.get("logprobs", ())] == long["logprobs"]


def test_a_reset_drops_what_waits_and_an_end_has_one_turn_more() -> None:
    made = TextPace()
    [*made.process(text("x" * LIMITS.turn_text * 3), 1)]
    reset: Event = {"type": "stream.reset"}
    assert [*made.process(reset, 1)] == [reset]
    assert not made.holds
    [*made.process(text("x" * LIMITS.turn_text * 3), 2)]
    end = finish("cancelled")
    left = [*made.process(end, 2)]
    assert (len(texts(left)), left[-1]) == (LIMITS.turn_text, end)
    assert (made.holds, made.waiting) == (False, 0)


@pytest.mark.parametrize("value", ["1,", '{"a":[1]},', '"abc",'])
def test_a_turn_of_reading_json_has_a_bound(value: str) -> None:
    """Counted are the characters that are read, and the size of the snapshots."""
    document = "[" + value * (400_000 // len(value)) + "0]"
    reader = JSONStreamProcessor(snapshots_ms=1)
    chain = Chain([TextPace(), reader])
    position = 0
    snapshots: list[int] = []
    now = 1
    left = [*chain.process(text(document), now)]
    while True:
        assert reader._reader.position - position <= LIMITS.turn_text
        position = reader._reader.position
        snapshots += [position for each in left if each["type"] == "json.snapshot"]
        assert sum(each["type"] == "json.snapshot" for each in left) <= 1
        if chain.due_ms is None or not chain.holds:
            break
        now += 5
        left = [*chain.flush(now)]
    assert snapshots[-1] == len(document)
    assert all(each <= LIMITS.json_snapshot for each in snapshots[:-1])
    assert len(snapshots) > 5
