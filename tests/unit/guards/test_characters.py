"""Sets of code points, case, neighbours and surrogates."""

from __future__ import annotations

import re
import sys

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.guards import characters
from gai_fast.guards.characters import (
    ANYTHING,
    BEYOND,
    OF_WORDS,
    Neighbours,
    complement,
    contains,
    folded,
    joined,
    of,
    of_text,
    orbit,
    ranges_of,
    size_of,
    union,
)

codes = st.integers(0, sys.maxunicode)
ranges = st.lists(st.tuples(codes, codes).map(lambda both: (min(both), max(both))), max_size=5)


@given(ranges, codes)
def test_a_set_has_the_code_points_of_its_ranges(some: list[tuple[int, int]], code: int) -> None:
    points = of(*some)
    assert contains(points, code) == any(first <= code <= last for first, last in some)
    assert of(*ranges_of(points)) == points == union([points, points])
    assert list(points) == sorted(set(points))


@given(ranges, codes)
def test_the_complement_has_the_others(some: list[tuple[int, int]], code: int) -> None:
    points = of(*some)
    other = complement(points)
    assert contains(other, code) != contains(points, code)
    assert complement(other) == points
    assert size_of(points) + size_of(other) == BEYOND


@pytest.mark.parametrize(
    ("letter", "equal"),
    [("k", "kK\u212a"), ("s", "sS\u017f"), ("σ", "Σσς"), ("ß", "ßẞ"), ("İ", "İ"), ("ﬁ", "ﬁ"), ("1", "1"), ("ǆ", "Ǆǅǆ")],
)
def test_simple_folding_is_of_one_character(letter: str, equal: str) -> None:
    assert {chr(code) for code in orbit(ord(letter))} == set(equal)


@given(st.characters(categories=("Lu", "Ll", "Lt")))
def test_letters_are_equal_as_for_re2(letter: str) -> None:
    for other in {letter.lower(), letter.upper(), letter.swapcase(), letter.casefold()}:
        if len(other) == 1 and ord(other) in orbit(ord(letter)):
            assert re2.fullmatch(f"(?i)\\x{{{ord(letter):x}}}", other)


def test_a_folded_set_has_both_cases() -> None:
    assert folded(of_text("a-1")) == of_text("Aa-1")
    assert folded(of((0, BEYOND - 1))) == of((0, BEYOND - 1))
    assert contains(folded(of((0x41, 0x3000))), ord("a"))


def test_what_counts_as_a_word_is_pythons() -> None:
    word = re.compile(r"\w")
    for code in [*range(0x3000), *range(0xD7F0, 0xE000), 0x1D7D8, 0x20000]:
        assert characters.is_word(code) == (word.match(chr(code)) is not None)


def test_neighbours() -> None:
    assert not ANYTHING.contain(ord("a"))
    both = Neighbours(of_text("-"), words=True)
    assert [both.contain(ord(each)) for each in "-aé_漢 ."] == [True] * 5 + [False] * 2
    assert [OF_WORDS.contain(ord(each)) for each in "aé_1ж漢かカไลកမ"] == [True] * 5 + [False] * 7


def test_halves_of_a_pair_meet() -> None:
    assert joined("", "a\ud83d") == ("a", "\ud83d")
    assert joined("\ud83d", "\ude00b") == ("\U0001f600b", "")
    assert joined("\ud83d", "b") == ("\ufffdb", "")
    assert joined("\ud83d", "\ud83d") == ("\ufffd", "\ud83d")
    assert joined("", "") == ("", "")
