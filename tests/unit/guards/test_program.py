"""The nodes of rules: their number is bounded, and building lets other threads run."""

from __future__ import annotations

import pytest

from gai_fast.guards.automaton import compile_rules
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.program import Program, Rule, TooLarge, Words
from gai_fast.guards.syntax import parse
from tests.conftest import ChangeLimits
from tests.unit.guards.searching import searched, spans


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
