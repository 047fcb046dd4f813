"""What a character is compared as."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.guards.automaton import Words, compile_rules
from gai_fast.guards.characters import contains, of, of_text
from gai_fast.guards.normal import IGNORED, LOOK_ALIKES, normalize, normalized
from tests.conftest import ChangeLimits
from tests.unit.guards.searching import cut, pattern_rules, put_back, searched, sizes, spans


def test_ignored_code_points_are_those_without_a_look() -> None:
    marks = "\u00ad\u200b\u200f\u202a\u202e\u2060\u2064\u2066\u2069\ufe00\ufe0f\ufeff"
    assert [normalize(each) for each in marks] == [""] * len(marks)
    outside = "\u00ac\u200a\u2010\u2029\u202f\u2065\u206a\ufdff\ufe10\ufefe"
    assert not any(contains(IGNORED, ord(each)) for each in outside)


def test_a_look_alike_is_a_letter_of_greek_or_cyrillic_and_looks_like_a_latin_one() -> None:
    for each, letter in LOOK_ALIKES.items():
        assert unicodedata.name(each).split()[0] in ("CYRILLIC", "GREEK")
        assert letter.isascii()
        assert letter.isalpha()
    assert "".join(normalize(each) for each in "раураӏ КΑΤΕ") == "paypal KATE"


@given(st.characters())
def test_every_other_character_is_its_nfkc(character: str) -> None:
    if contains(IGNORED, ord(character)):
        return
    plain = unicodedata.normalize("NFKC", character)
    if not set(plain) & LOOK_ALIKES.keys():
        assert normalize(character) == "".join(each for each in plain if not contains(IGNORED, ord(each)))


def test_a_set_has_what_its_characters_are_compared_as() -> None:
    assert normalized(of_text("а²")) == of_text("аa²2")
    assert contains(normalized(of((0x400, 0x2FFFF))), ord("a"))
    assert normalized(of_text("ab")) == of_text("ab")


@pytest.mark.parametrize(
    "hidden",
    [
        "kestrel",
        "KESTREL",
        "k\u200bes\u00adtrel",
        "ｋｅｓｔｒｅｌ",
        "кеѕtrеl",
        "\U0001d424estrel",
        "kest\u2060\u202e\ufe0frel",
        "ⓚⓔⓢⓣⓡⓔⓛ",
    ],
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_the_original_characters_of_a_hidden_word_are_its_match(hidden: str, size: int) -> None:
    automaton = compile_rules([Words("words", ["Kestrel"])], normal=True)
    text = f"a \u200b{hidden}\u200b b"
    found = searched(automaton.scan(), cut(text, [size]))
    assert spans(found) == [(3, 3 + len(hidden))]
    assert put_back(found, text) == text


def test_a_character_that_is_several_is_replaced_whole_and_once() -> None:
    automaton = compile_rules(pattern_rules(["f", "i"], normal=True), normal=True)
    assert spans(searched(automaton.scan(), ["aﬁb"])) == [(1, 2)]
    automaton = compile_rules([Words("words", ["ﬁne"])], normal=True)
    assert spans(searched(automaton.scan(), ["so fi", "ne, ", "ﬁn", "e"])) == [(3, 7), (9, 12)]


def test_without_normalize_a_look_alike_is_another_character() -> None:
    automaton = compile_rules([Words("words", ["kestrel"])])
    assert spans(searched(automaton.scan(), ["kеstrel k\u200bestrel"])) == []


@given(st.text(alphabet="kb\u200b\u00adК\u212a fiﬁ²2", max_size=12), sizes)
def test_any_cut_gives_what_the_whole_text_does(text: str, sizes: list[int]) -> None:
    automaton = compile_rules([Words("words", ["kb", "fi", "2"])], normal=True)
    found = searched(automaton.scan(), cut(text, sizes))
    assert found == searched(automaton.scan(), [text])
    assert put_back(found, text) == text


def test_characters_without_width_take_no_more_memory_than_the_limit(change_limits: ChangeLimits) -> None:
    change_limits(held=100)
    scan = compile_rules([Words("words", ["kestrel"])], normal=True).scan()
    out = "".join(str(each) for _ in range(50) for each in scan.feed("k" + "\u200b" * 10))
    assert scan.held <= 111
    out += "".join(str(each) for each in scan.end())
    assert out == ("k" + "\u200b" * 10) * 50


def test_a_pattern_is_compared_with_normalized_text() -> None:
    automaton = compile_rules(pattern_rules(["(?i)сс-[0-9]{2}"], normal=True), normal=True)  # Cyrillic
    assert spans(searched(automaton.scan(), ["cc-12 СС-１２ cc-1"])) == [(0, 5), (6, 11)]
