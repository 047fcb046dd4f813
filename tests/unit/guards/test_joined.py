"""`gai_fast/guards/joined.py`: the texts of a request as one text, its pieces, and replacements in them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gai_fast.guards.joined import JoinedTexts, edits_of
from gai_fast.guards.verdicts import JudgeVerdict
from tests.limits import LIMITS


def test_texts_are_joined_by_a_blank_line() -> None:
    joined = JoinedTexts(["One", "", "two\nthree"])
    assert joined.text == "One\n\ntwo\nthree"
    assert joined.pieces() == [(0, "One\n\ntwo\nthree")]


def test_without_text_there_is_no_piece() -> None:
    assert JoinedTexts([]).pieces() == JoinedTexts(["", ""]).pieces() == []
    assert JoinedTexts(["", ""]).masked([]) == ["", ""]


def test_a_piece_ends_behind_a_word() -> None:
    words = "word " * 10_000
    pieces = JoinedTexts([words]).pieces()
    assert [(start, len(text)) for start, text in pieces] == [(0, 32_765), (32_765, 17_235)]
    assert pieces[0][1].endswith("word ")


def test_a_text_without_white_space_is_cut_at_the_limit() -> None:
    assert [len(text) for _, text in JoinedTexts(["x" * 70_000]).pieces()] == [32_768, 32_768, 4464]
    far = " " + "x" * (LIMITS.judged_most + 100)
    assert [len(text) for _, text in JoinedTexts([far]).pieces()] == [32_768, 101]
    assert [len(text) for _, text in JoinedTexts(["x" * 32_768]).pieces()] == [32_768]


@given(st.lists(st.text(st.sampled_from("ab \n"), max_size=30_000), max_size=4))
def test_the_pieces_are_the_whole(texts: list[str]) -> None:
    joined = JoinedTexts([text * 3 for text in texts])
    pieces = joined.pieces()
    assert "".join(text for _, text in pieces) == joined.text
    assert all(joined.text.startswith(text, start) and 0 < len(text) <= 32_768 for start, text in pieces)


def test_replacements_stand_in_their_texts() -> None:
    joined = JoinedTexts(["One two", "", "three", "four"])
    assert joined.text[4:7] == "two"
    assert joined.text[9:14] == "three"
    assert joined.masked([(9, 14, "[b]"), (4, 7, "[a]")]) == ["One [a]", "", "[b]", "four"]
    assert joined.masked([(0, len(joined.text), "[x]")]) == ["[x]", "", "[x]", "[x]"]
    assert joined.masked([(5, 11, "[x]")]) == ["One t[x]", "", "[x]ree", "four"]
    assert joined.masked([(7, 9, "[x]")]) == ["One two", "", "three", "four"], "the blank line is of no text"
    assert joined.masked([]) == ["One two", "", "three", "four"]


class Counting(str):
    """A text that counts how often a part of it is taken."""

    taken = 0

    def __getitem__(self, key: Any) -> str:
        Counting.taken += 1
        return super().__getitem__(key)


def test_texts_without_a_replacement_are_not_looked_at() -> None:
    texts = [Counting("ab") for _ in range(1000)]
    masked = JoinedTexts(texts).masked([(1, 2, "x"), (4, 5, "y"), (4 * 999 - 1, 4 * 999 + 1, "z")])
    assert masked == ["ax", "yb", *["ab"] * 997, "zb"]
    assert Counting.taken < 20


def test_where_replacements_overlap_the_first_one_stands() -> None:
    joined = JoinedTexts(["abcdefgh"])
    assert joined.masked([(3, 6, "[2]"), (1, 4, "[1]")]) == ["a[1]gh"]
    assert joined.masked([(1, 8, "[1]"), (3, 4, "[2]")]) == ["a[1]"]
    assert joined.masked([(1, 3, "[1]"), (3, 4, "[2]")]) == ["a[1][2]efgh"]


def test_a_verdict_replaces_its_spans_or_the_piece() -> None:
    assert edits_of(10, "abcdef", JudgeVerdict(True, None, None, ((0, 2), (4, 5))), "[x]") == [
        (10, 12, "[x]"),
        (14, 15, "[x]"),
    ]
    assert edits_of(10, "abcdef", JudgeVerdict(True), "[x]") == [(10, 16, "[x]")]
    assert edits_of(10, "abcdef", JudgeVerdict(False), "[x]") == []
