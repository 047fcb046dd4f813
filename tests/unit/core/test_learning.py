"""`gai_fast/core/learning.py`: the deltas that a copier learns, and what makes it forget."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gai_fast.core.learning import Learning
from gai_fast.kernels import Frame
from gai_fast.model.events import Event
from tests.unit.core.test_relay import FakeAdapter, FakeAPI
from tests.unit.formats.streams import call_delta, reasoning, text

FRAME = Frame(b"data: x\n\n", "", "x", None)
PARTS = (b"<", "text", b">")


class Copier:
    """Notes what it is shown."""

    learns = True

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def learn(self, frame: Frame, event: Event, key: str, parts: Any, always: bool = False) -> None:
        self.calls.append(("learn", event, key, always))

    def expect(self, event: Event, key: str, parts: Any) -> None:
        self.calls.append(("expect", event, key))

    def forget(self) -> None:
        self.calls.append("forget")


class Sink:
    """A sink of deltas that are written as `PARTS`."""

    has_blocks = False
    collects_text = False
    parts: Any = PARTS

    def delta_parts(self, event: Event, key: str) -> Any:
        return self.parts


class Expecting(FakeAdapter):
    """An adapter that knows the first delta."""

    def expected(self) -> Event | None:
        return text("")


class Fixture:
    """Learning with a copier that notes it."""

    def __init__(self, adapter: type[FakeAdapter] = FakeAdapter, *, collects_text: bool = False) -> None:
        self.adapter = adapter(FakeAPI())
        self.sink = Sink()
        self.sink.collects_text = collects_text
        self.copier = Copier()
        self.learning = Learning(self.adapter, cast(Any, self.sink), cast(Any, self.copier))

    def after(self, *events: Event, joins: bool = False, has_content: bool = True) -> list[Any]:
        """Returns the calls of the copier for one frame that became these events."""
        self.copier.calls = []
        self.learning.receive(FRAME, list(events), joins=joins, has_content=has_content)
        return self.copier.calls


@pytest.mark.parametrize(("delta", "key"), [(text("Hi"), "text"), (call_delta("{"), "arguments")])
def test_a_frame_that_became_one_delta_is_learned(delta: Event, key: str) -> None:
    assert Fixture().after(delta) == [("learn", delta, key, False)]


def test_a_frame_that_became_nothing_changes_nothing() -> None:
    assert Fixture().after() == []


def test_after_any_other_frame_all_is_forgotten() -> None:
    made = Fixture()
    assert made.after({"type": "usage", "usage": {}}) == ["forget"]
    assert made.after(text("a"), text("b")) == ["forget"]
    made.adapter.copyable = False
    assert made.after(text("a")) == ["forget"]


def test_nothing_is_learned_that_would_not_be_copied() -> None:
    made = Fixture()
    assert made.after(text("a"), joins=True) == []
    made.sink.parts = None
    assert made.after(text("a")) == []
    made.copier.learns = False
    assert made.after(text("a")) == []


def test_the_frames_of_the_block_before_are_forgotten() -> None:
    made = Fixture()
    made.sink.has_blocks = True
    assert made.after(text("a"))[0] == "forget"
    assert "forget" not in made.after(text("b"))
    assert made.after(reasoning("c"))[0] == "forget"
    assert made.after(call_delta("{", index=0))[0] == "forget"
    assert made.after(call_delta("{", index=1))[0] == "forget"


def test_the_beginning_of_an_answer_is_expected_until_there_is_content() -> None:
    made = Fixture(Expecting)
    assert made.after(has_content=False) == [("expect", text(""), "text")]
    assert made.after(has_content=False, joins=True) == []
    assert made.after() == []
    assert Fixture().after(has_content=False) == []


def test_texts_are_expected_after_a_frame_that_is_the_start_and_a_text() -> None:
    start: Event = {"type": "start", "provider": "p"}
    made = Fixture(Expecting)
    assert made.after(start, text("a")) == ["forget", ("expect", text(""), "text")]
    assert made.after(start, text("a"), joins=True) == ["forget"]
    assert made.after(start, text("a", choice=1)) == ["forget"]
    assert made.after(start, reasoning("a")) == ["forget"]
    assert made.after(text("a"), text("b")) == ["forget"]


def test_text_that_is_collected_has_the_key_of_arguments() -> None:
    made = Fixture(Expecting, collects_text=True)
    assert made.after(text("a", choice=1)) == [
        ("learn", {"type": "text.delta", "arguments": "a", "choice": 1}, "arguments", False)
    ]
    assert made.after(has_content=False) == [("expect", {"type": "text.delta", "arguments": ""}, "arguments")]
