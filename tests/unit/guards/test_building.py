"""`guards/building.py`: the automaton of a guard's settings."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.guards.automaton import Match
from gai_fast.guards.building import build
from gai_fast.guards.syntax import BadPattern
from gai_fast.model.settings import GuardSettings


def found(text: str, use: Any, **values: Any) -> list[str | tuple[str, int, int]]:
    scan = build(GuardSettings("g", use, **values)).scan()
    pieces = [*scan.feed(text), *scan.end()]
    return [(each.category, each.start, each.end) if isinstance(each, Match) else each for each in pieces]


def test_patterns_words_and_kinds_are_found() -> None:
    assert found("a sk-1 b", "patterns", patterns=("sk-[0-9]",)) == ["a ", ("patterns", 2, 6), " b"]
    assert found("a Kestrel.", "words", words=("kestrel",), category="bird") == ["a ", ("bird", 2, 9), "."]
    assert found("to a@b.example", "pii", kinds=("email", "ip")) == ["to ", ("email", 3, 14)]


def test_normalized_text_is_compared() -> None:
    text = "kes\u200btrel"
    assert found(text, "words", words=("kestrel",), normalize=True) == [("words", 0, 8)]
    assert found(text, "words", words=("kestrel",)) == [text]


def test_a_bad_pattern_is_refused() -> None:
    with pytest.raises(BadPattern):
        build(GuardSettings("g", "patterns", patterns=("a[^c]*d",)))


def test_each_pattern_that_is_read_may_pause() -> None:
    pauses: list[int] = []
    patterns = tuple(f"sk{number}[0-9]" for number in range(500))
    build(GuardSettings("g", "patterns", patterns=patterns), pause=lambda: pauses.append(1))
    assert len(pauses) >= len(patterns)
