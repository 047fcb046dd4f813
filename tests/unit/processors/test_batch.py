"""Neighbouring deltas joined, by size and by time."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.processors import StreamInfo, read_processor
from gai_fast.processors.batch import BatchProcessor
from tests.limits import LIMITS

from .streams import FINISH, START, delta, stream, text_of, through


def texts(events: list[Any]) -> list[str]:
    return [event["text"] for event in events if "text" in event]


def test_deltas_are_joined_up_to_a_size() -> None:
    out = through(BatchProcessor(characters=5), stream("ab", "cd", "ef", "g"))
    assert texts(out) == ["abcdef", "g"]
    assert [(event.get("from_seq"), event.get("seq")) for event in out if "text" in event] == [(-2, 0), (None, None)]
    assert [event["type"] for event in out] == ["start", "text.delta", "text.delta", "finish", "done"]


def test_the_first_after_a_silence_is_never_held_for_a_time() -> None:
    processor = BatchProcessor(milliseconds=50)
    events = [START, *map(delta, "abcdef"), FINISH]
    assert texts(through(processor, events, [0, 10, 20, 30, 60, 61, 200, 200])) == ["a", "bcd", "ef"]


def test_a_clock_that_is_set_back_holds_nothing_longer() -> None:
    processor = BatchProcessor(milliseconds=50)
    out = through(processor, [delta(text) for text in "abcd"], [100_000, 100_010, 20, 30])
    assert [event["text"] for event in out] == ["a", "bc"]
    assert processor.due_ms == 70


def test_what_is_held_is_due() -> None:
    processor = BatchProcessor(milliseconds=50)
    through(processor, [delta("a"), delta("b")], [100, 120])
    assert processor.due_ms == 150
    assert texts(list(processor.flush(150))) == ["b"]
    assert processor.due_ms is None
    assert texts(through(processor, [delta("c")], [190])) == []
    assert processor.due_ms == 200
    by_size = BatchProcessor(characters=9)
    through(by_size, [delta("a")])
    assert by_size.due_ms is None


def test_both_bounds_count() -> None:
    processor = BatchProcessor(characters=3, milliseconds=50)
    assert texts(through(processor, [*map(delta, "abcdef")], [0, 1, 2, 3, 53, 54])) == ["a", "bcd", "e"]


def test_only_neighbours_of_one_kind_are_joined() -> None:
    def fragment(text: str, index: int) -> Any:
        return {"type": "tool.call.delta", "call_id": f"c{index}", "index": index, "arguments": text}

    reasoning: Any = {"type": "reasoning.delta", "text": "r"}
    usage: Any = {"type": "usage", "usage": {}}
    events = [
        *(delta("a"), delta("b"), delta("c", choice=1), reasoning, reasoning),
        *(delta("d"), usage, delta("e"), fragment("{", 0), fragment("}", 0), fragment("{}", 1)),
    ]
    out = through(BatchProcessor(characters=100), [*events, FINISH])
    said = [(event["type"].partition(".")[0], event.get("text") or event.get("arguments")) for event in out]
    assert said == [
        *(("text", "ab"), ("text", "c"), ("reasoning", "rr"), ("text", "d"), ("usage", None), ("text", "e")),
        *(("tool", "{}"), ("tool", "{}"), ("finish", None)),
    ]


def test_envelopes_may_differ() -> None:
    events: Any = [delta("a", ts=1, seq=4, request_id="r"), delta("b", ts=2, seq=5, request_id="r")]
    out = through(BatchProcessor(characters=2), events)
    assert out == [delta("ab", ts=1, seq=5, request_id="r", from_seq=4)]


def test_no_character_is_lost() -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 20
    for size in (1, 2, 7, 10_000):
        assert text_of(through(BatchProcessor(characters=size), stream(*text))) == text


@pytest.mark.parametrize("options", [{}, {"characters": 0}, {"milliseconds": 0}, {"characters": -1, "milliseconds": 5}])
def test_a_batch_without_a_bound_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"batch needs|must be positive"):
        BatchProcessor(**options)


def test_the_configuration_makes_one_for_every_stream() -> None:
    settings = read_processor({"use": "batch", "milliseconds": 20})
    first, second = settings.processor(StreamInfo()), settings.processor(StreamInfo())
    assert isinstance(first, BatchProcessor)
    assert first is not second


def test_deltas_without_text_are_held_up_to_a_number() -> None:
    processor = BatchProcessor(characters=5)
    for _ in range(LIMITS.batched - 1):
        assert not list(processor.process(delta("")))
    (joined,) = processor.process(delta(""))
    assert (joined["seq"] - joined["from_seq"] + 1, joined["text"]) == (LIMITS.batched, "")
    assert processor.due_ms is None
    assert not list(processor.flush())
