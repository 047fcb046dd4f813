"""Events changed by a function, and words replaced wherever the deltas are cut."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.processors import StreamInfo, read_processor
from gai_fast.processors.transform import ReplaceProcessor, TransformProcessor
from tests.conftest import ChangeLimits

from .streams import DONE, FINISH, START, delta, pieces, stream, text_of, through, types_of


def test_a_function_changes_or_drops_events() -> None:
    def louder(event: Any) -> Any:
        return None if event["text"] == "b" else {**event, "text": event["text"].upper()}

    out = through(TransformProcessor(louder), stream("a", "b", "c"))
    assert text_of(out) == "AC"
    assert types_of(out) == ["start", "text.delta", "text.delta", "finish", "done"]


@pytest.mark.parametrize("made", [{"type": "finish"}, {"type": "done"}, {}, "text", {"type": None}])
def test_a_function_cannot_frame_the_stream(made: Any) -> None:
    with pytest.raises(ValueError, match="must return an event that does not frame the stream"):
        through(TransformProcessor(lambda event: made), [delta("a")])


WORDS = {"ACME": "***", "ACME Corp": "###", "cat": "dog", "aab": "X", "b": "Y"}


@given(
    st.lists(st.sampled_from([*WORDS, "AC", "a", "aa", "c", " ", "ACME Co", "x"]), max_size=12).map("".join),
    st.lists(st.integers(min_value=0), max_size=6),
)
def test_however_the_text_is_cut_the_same_words_are_replaced(text: str, edges: list[int]) -> None:
    longest_first = re.compile("|".join(sorted(WORDS, key=len, reverse=True)))
    expected = longest_first.sub(lambda found: WORDS[found[0]], text)
    for cut in (edges, 1, 2):
        assert text_of(through(ReplaceProcessor(WORDS), stream(*pieces(text, cut)))) == expected


def test_what_is_held_back_comes_before_the_next_event() -> None:
    reasoning: Any = {"type": "reasoning.delta", "text": "ME"}
    out = through(ReplaceProcessor(WORDS), [START, delta("xAC"), reasoning, delta("ACM"), {"type": "usage"}, FINISH])
    assert [(event["type"], event.get("text")) for event in out] == [
        *(("start", None), ("text.delta", "x"), ("text.delta", "AC"), ("reasoning.delta", "ME")),
        *(("text.delta", "ACM"), ("usage", None), ("finish", None)),
    ]


def test_what_stands_beside_the_text_cuts_no_word() -> None:
    aside: Any = {"type": "warning", "reason": "malformed_chunk"}
    events: Any = [START, delta("a sec"), aside, delta("re"), aside, delta("t, s"), aside, FINISH, DONE]
    out = through(ReplaceProcessor({"secret": "***"}), [{**event, "seq": n} for n, event in enumerate(events, 1)])
    assert text_of(out) == "a ***, s"
    assert types_of(out) == [
        *("start", "text.delta", "warning", "warning", "text.delta", "text.delta", "warning", "finish", "done"),
    ]
    numbers = [event["seq"] for event in out]
    assert numbers == sorted(numbers)


def test_nothing_in_place_of_a_word_is_no_event() -> None:
    out = through(ReplaceProcessor({"a": "", "ab": "x"}), stream("a"))
    assert types_of(out) == ["start", "finish", "done"]


def test_tool_arguments_are_left_as_they_are() -> None:
    call: Any = {"type": "tool.call.delta", "arguments": '{"a": "ACME"}', "index": 0}
    assert through(ReplaceProcessor(WORDS), [call]) == [call]


@pytest.mark.parametrize("replace", [{}, {"": "x"}])
def test_a_replacement_needs_words(replace: Any) -> None:
    with pytest.raises(ValueError, match="needs words"):
        ReplaceProcessor(replace)
    with pytest.raises(ValueError, match="'transform', parameter 'replace"):
        read_processor({"use": "transform", "replace": replace})


def test_the_configuration_makes_one() -> None:
    made = read_processor({"use": "transform", "replace": {"cat": "dog"}}).processor(StreamInfo())
    assert made is not None
    assert text_of(through(made, stream("a c", "at"))) == "a dog"


def test_no_more_than_so_many_events_wait_beside_held_text(change_limits: ChangeLimits) -> None:
    change_limits(held_beside=3)
    processor = ReplaceProcessor({"cat": "dog"})
    out = list(processor.process(delta("ca")))
    for _ in range(10):
        out += processor.process({"type": "usage", "usage": {"total_tokens": 1}})
        assert len(processor._beside) <= 3
    out += processor.process(FINISH)
    assert text_of(out) == "ca"
    assert types_of(out).count("usage") == 10
