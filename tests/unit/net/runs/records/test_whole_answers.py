"""The events of a run with a whole answer: what its record has of them, and what the answer gets again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gai_fast.kernels import Piece, encode_json
from gai_fast.model.events import Event, JSONText
from gai_fast.net.runs.records.whole_answers import ToldEvents, decode_told, encode_told


class Answer:
    """An encoder that notes what it gets."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def event(self, event: Event) -> None:
        self.events.append(event)

    def heartbeat(self) -> None:
        """Does nothing."""

    def take_pieces(self) -> Sequence[Piece]:
        return ()


def text(said: str, **more: Any) -> Any:
    return {"type": "text.delta", "text": said, **more}


CALL: Any = {
    "type": "tool.call",
    "step": 1,
    "call_id": "a",
    "tool_call": {"name": "f", "input": JSONText("[1.10]", [1.1])},
}


def told(*events: Any) -> list[Event]:
    output = ToldEvents(Answer())
    for event in events:
        output.event(event)
    return output.take()


def test_adjacent_deltas_are_kept_as_one() -> None:
    reasoning: Any = {"type": "reasoning.delta", "text": "hm"}
    assert told(text("a"), text("b"), reasoning, text("c")) == [text("ab"), reasoning, text("c")]
    assert told({**text("a"), "seq": 2}, {**text("b"), "seq": 3}, CALL, text("c")) == [text("ab"), CALL, text("c")]


def test_deltas_with_more_than_text_stay_apart() -> None:
    first, second = text("a", logprobs=[{"token": "a"}]), text("a", logprobs=[{"token": "a"}])
    assert told(first, second, text("b")) == [first, second, text("b")]
    assert told(text("a", choice=1), text("b", choice=1), text("c")) == [text("ab", choice=1), text("c")]


def test_an_empty_delta_is_no_other_than_its_like() -> None:
    assert told(text(""), text("a"), text(""), text("b")) == [text("ab")]
    assert told(text(""), CALL) == [text(""), CALL], "the answer reads its text"


def test_what_was_taken_is_not_taken_again() -> None:
    answer = Answer()
    output = ToldEvents(answer)
    output.event(text("a"))
    assert output.take() == [text("a")]
    output.event(text("b"))
    assert output.take() == [text("b")]
    assert output.take() == []
    assert answer.events == [text("a"), text("b")]


def test_events_that_no_answer_shows_are_left_out() -> None:
    assert told({"type": "tool.progress", "call_id": "a", "progress": 1}, text("a")) == [text("a")]


def test_events_and_parts_are_read_as_they_were_written() -> None:
    parts = [[{"type": "text", "text": "ab"}], [{"type": "text", "text": "c"}]]
    added = [encode_told([text("ab"), CALL], parts[0]), encode_told([], None), encode_told([text("c")], parts[1])]
    events, turns = decode_told(added)
    assert turns == parts
    assert encode_json(events) == encode_json([text("ab"), CALL, text("c")])
    assert events[1]["tool_call"]["input"].text == "[1.10]", "as the model has written it"


def test_recalled_events_go_to_the_answer_and_are_not_kept_again() -> None:
    answer = Answer()
    output = ToldEvents(answer)
    output.recall([text("a"), CALL])
    assert answer.events == [text("a"), CALL]
    assert output.take() == []


@pytest.mark.parametrize(
    "damaged", [b"", b"[]", b"{}", b'{"told":[1]}', b'{"told":[{}]}', b'{"told":[],"parts":{"a":1}}']
)
def test_what_is_damaged_is_said(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_told([damaged])
