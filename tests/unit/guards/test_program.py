"""The nodes of rules: their number is bounded, and building lets other threads run."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gai_fast.guards.automaton import compile_rules
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.program import Program, Rule, TooLarge, Words
from gai_fast.guards.syntax import parse
from tests.conftest import ChangeLimits
from tests.unit.guards.searching import cut, put_back, searched, sizes, spans


def test_a_repeat_of_n_has_n_copies() -> None:
    program = Program()
    program.add(Rule("x", parse("ab{3}")))
    assert len(program.kinds) == 5  # four characters and the end


def test_words_share_their_beginnings() -> None:
    program = Program()
    program.add_words(Words("words", ["kestrel", "kestrels", "Kestrel"]))
    assert len(program.kinds) == 11  # eight letters, two ends, a split


def test_a_guard_has_no_more_positions_than_the_limit(change_limits: ChangeLimits) -> None:
    change_limits(positions=10)
    with pytest.raises(TooLarge, match="the rules need more than 10 positions: lower repeats, or write two guards"):
        compile_rules([Rule("x", parse("a{6}")), Rule("x", parse("b{5}"))])
    with pytest.raises(TooLarge):
        compile_rules([Words("words", ["abcdef", "bcdefg"])])
    compile_rules([Rule("x", parse("a{5}")), Words("words", ["abcde", "abcd"])])


def test_building_pauses_every_few_milliseconds() -> None:
    pauses: list[int] = []
    words = [f"{number:05}" for number in range(10_000)]
    compile_rules([Words("words", words), *[Rule("x", parse("a{1000}"))] * 20], pause=lambda: pauses.append(1))
    assert len(pauses) >= 30_000 / LIMITS.built


@pytest.mark.parametrize("normal", [False, True])
def test_long_words_pause_after_their_letters_however_few_nodes_they_need(normal: bool) -> None:
    pauses: list[int] = []
    program = Program(normal=normal, pause=lambda: pauses.append(len(program.kinds)))
    program.add_words(Words("words", [f"{'a' * 250}{number:03}" for number in range(1_000)]))
    assert len(program.kinds) < LIMITS.built
    assert len(pauses) >= 253_000 / (LIMITS.built + 253)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kestrel", ["kestrel"]),
        ("Kestrel, KESTREL", ["Kestrel", "KESTREL"]),
        ("kestrels akestrel _kestrel kestrel1 ékestrel", []),
        ("kestrel-two", ["kestrel"]),
        ("two words two  words", ["two words"]),
        ("漢kestrel字 ไkestrel", ["kestrel", "kestrel"]),
        ("我爱北京天安门", ["北京"]),
        ("a北京b", ["北京"]),
        ("C++ c++x", ["C++"]),
        ("kestrel kestrel", ["kestrel", "kestrel"]),
        ("strasse straße STRAẞE", ["straße", "STRAẞE"]),
        ("two words more", ["two words more"]),
        ("two words mor", ["two words"]),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_words_stand_alone(text: str, found: list[str], size: int) -> None:
    words = ["kestrel", "two words", "two words more", "北京", "c++", "straße"]
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    matches = spans(searched(compile_rules([Words("words", words)]).scan(), pieces))
    assert [text[start:end] for start, end in matches] == found


def judged_words(words: list[str], text: str) -> list[str]:
    """Returns the matches by the definition: at each place the longest word that stands alone."""
    beside = re.compile(r"[^\W漢か]")
    free = re.compile("[漢か]")
    found, at = [], 0
    while at < len(text):
        ends = [
            at + len(word)
            for word in words
            if text[at : at + len(word)].lower() == word.lower()
            if free.match(word) or not at or not beside.match(text[at - 1])
            if free.match(word[-1]) or not beside.match(text, at + len(word))
        ]
        if ends:
            found.append(text[at : max(ends)])
        at = max(ends, default=at + 1)
    return found


@given(
    st.lists(st.text(alphabet="aBé漢か -_1", min_size=1, max_size=4), min_size=1, max_size=6),
    st.text(alphabet="aAbBéÉ漢か -_1\n", max_size=24),
    sizes,
)
@settings(max_examples=settings().max_examples * 3 // 2)
def test_words_are_what_their_definition_says(words: list[str], text: str, sizes: list[int]) -> None:
    found = searched(compile_rules([Words("words", words)]).scan(), cut(text, sizes))
    assert [text[start:end] for start, end in spans(found)] == judged_words(words, text)
    assert put_back(found, text) == text
