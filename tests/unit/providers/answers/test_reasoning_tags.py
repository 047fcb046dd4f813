"""Reasoning that a server writes into the text of its answers, between tags."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.model.events import Event
from gai_fast.providers import get_provider
from gai_fast.providers.answers.reasoning_tags import TaggedAdapter, _Split, _Told
from tests.conftest import ChangeLimits
from tests.unit.providers.answer_reading import call, chunk, text_of

TEXT = "a < b <think>one </thin two</think>\n<thin c <think>three"


def read(*chunks: Any, done: bool = True) -> list[Event]:
    adapter = TaggedAdapter(get_provider("openai-compatible").adapter(), "<think>")
    events: list[Event] = []
    for one in [*map(json.dumps, chunks), *(["[DONE]"] if done else [])]:
        events += adapter.receive("", one)
    assert not adapter.copyable
    return events + (adapter.finish() if done else adapter.abort())


@pytest.mark.parametrize("size", range(1, len(TEXT) + 1))
def test_text_between_the_tags_is_reasoning_wherever_it_is_cut(size: int) -> None:
    pieces = [TEXT[at : at + size] for at in range(0, len(TEXT), size)]
    events = read(*(chunk({"content": piece}) for piece in pieces), chunk(finish="stop"))
    assert text_of(events) == "a < b \n<thin c "
    assert text_of(events, "reasoning.delta") == "one </thin twothree"
    assert (events[0]["type"], events[-1]["type"]) == ("start", "finish")


def test_what_begins_like_a_tag_and_is_none_comes_before_a_call_and_at_the_end() -> None:
    start = chunk(call("{}", name="f", index=0, id="c"))
    events = read(chunk({"content": "x <thi"}), start, chunk({"content": "<"}), chunk(finish="tool_calls"))
    kinds = [event["type"] for event in events]
    assert text_of(events) == "x <thi<"
    assert kinds.index("text.delta") < kinds.index("tool.call" if "tool.call.delta" not in kinds else "tool.call.delta")
    assert text_of(read(chunk({"content": "y <"}), done=False)) == "y <"


def test_choices_have_tags_of_their_own() -> None:
    events = read(
        chunk({"content": "<think>a"}),
        chunk({"content": "b"}, index=1),
        chunk({"content": "</think>c"}),
        chunk(finish="stop"),
        chunk(finish="stop", index=1),
    )
    result = [(event["type"], event.get("choice", 0), event["text"]) for event in events if "text" in event]
    assert result == [("reasoning.delta", 0, "a"), ("text.delta", 1, "b"), ("text.delta", 0, "c")]


def test_a_whole_answer_is_read_alike() -> None:
    message = {"role": "assistant", "content": "<think>hm</think>Yes"}
    answer = {"id": "a", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    adapter = TaggedAdapter(get_provider("openai-compatible").adapter(), "<think>")
    events = adapter.receive_whole(answer) + adapter.finish()
    assert (text_of(events, "reasoning.delta"), text_of(events)) == ("hm", "Yes")


THOUGHT = "The end. The end of it"
CONTENT = f"<think>\n{THOUGHT}\n</think>\nYes"


def cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize("other", [1, 4, 7, 100])
@pytest.mark.parametrize("lead", [0, 3, 50])
def test_a_thought_that_a_member_tells_too_is_told_once(size: int, other: int, lead: int) -> None:
    """Both at once, or one of them first."""
    members, contents = cut(THOUGHT, size), cut(CONTENT, other)
    for first, second, names in (
        (members, contents, ("reasoning_content", "content")),
        (contents, members, ("content", "reasoning_content")),
    ):
        deltas: list[dict[str, Any]] = [{names[0]: piece} for piece in first[:lead]]
        rest = first[lead:]
        for at in range(max(len(rest), len(second))):
            delta = {names[0]: rest[at]} if at < len(rest) else {}
            if at < len(second):
                delta[names[1]] = second[at]
            deltas.append(delta)
        events = read(*map(chunk, deltas), chunk(finish="stop"))
        assert text_of(events, "reasoning.delta").strip() == THOUGHT
        assert text_of(events).strip() == "Yes"


def test_thoughts_that_differ_are_both_told() -> None:
    deltas = [{"reasoning_content": "First."}, {"content": "<think>Second.</think>Yes"}]
    events = read(*map(chunk, deltas), chunk(finish="stop"))
    assert text_of(events, "reasoning.delta") == "First.Second."
    assert text_of(events) == "Yes"


def test_a_member_without_tags_in_the_text_is_told_as_it_is() -> None:
    deltas = [{"reasoning_content": " a"}, {"reasoning_content": " b"}, {"content": "Yes"}]
    events = read(*map(chunk, deltas), chunk(finish="stop"))
    assert (text_of(events, "reasoning.delta"), text_of(events)) == (" a b", "Yes")


def test_what_is_kept_of_a_thought_has_a_bound(change_limits: ChangeLimits) -> None:
    change_limits(repeated_thoughts=4)
    deltas = [{"reasoning_content": "abcdef"}, {"content": "<think>abcdef</think>Yes"}]
    events = read(*map(chunk, deltas), chunk(finish="stop"))
    assert text_of(events, "reasoning.delta") == "abcdefabcdef"


class Counted(str):
    """A text that counts the characters that are copied from it."""

    copied = 0

    def __getitem__(self, at: Any) -> Counted:
        part = str.__getitem__(self, at)
        Counted.copied += len(part)
        return Counted(part)

    def __add__(self, other: str) -> Counted:
        return Counted(str.__add__(self, other))

    def __radd__(self, other: str) -> Counted:
        return Counted(other + str(self))

    def partition(self, tag: str) -> Any:
        parts = str.partition(self, tag)
        Counted.copied += sum(map(len, parts))
        return tuple(map(Counted, parts))


def test_many_tags_in_one_text_cost_its_size() -> None:
    Counted.copied = 0
    text = Counted("<think>a</think>" * 1000)
    assert len(_Split("<think>").feed(text)) == 1000
    assert Counted.copied <= 2 * len(text)


def test_many_pieces_that_one_text_repeats_cost_its_size() -> None:
    told, text = _Told(), Counted("abc" * 1000)
    for _ in range(1000):
        told.new("member", "abc")
    Counted.copied = 0
    assert told.new("tags", text) == ""
    assert Counted.copied <= 2 * len(text)
