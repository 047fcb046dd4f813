"""`gai_fast/net/logs/joined.py`: which deltas of an answer are kept as one."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.net.logs.joined import JoinedEvents


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text.delta", "text": said, **more}


USAGE = {"type": "usage", "usage": {"input_tokens": 1}}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], []),
        ([text("a"), text("b"), text("c")], [text("abc")]),
        ([text("a"), USAGE, text("b")], [text("a"), USAGE, text("b")]),
        ([USAGE, USAGE], [USAGE, USAGE]),
        ([text("a"), {"type": "reasoning.delta", "text": "b"}], [text("a"), {"type": "reasoning.delta", "text": "b"}]),
        ([text("a", step=1), text("b", step=1), text("c", step=2)], [text("ab", step=1), text("c", step=2)]),
        ([text("a", logprobs=[1]), text("a", logprobs=[1])], [text("a", logprobs=[1]), text("a", logprobs=[1])]),
        ([text("a"), text("a", logprobs=[1]), text("b")], [text("a"), text("a", logprobs=[1]), text("b")]),
    ],
)
def test_deltas_that_differ_in_their_text_alone_are_one(given: list[Any], kept: list[Any]) -> None:
    events = JoinedEvents()
    for event in given:
        events.add({**event})
    assert events.take() == kept


def test_what_was_taken_is_not_taken_again() -> None:
    events = JoinedEvents()
    events.add(text("a"))
    assert events.take() == [text("a")]
    events.add(text("b"))
    assert (events.take(), events.take()) == ([text("b")], [])
