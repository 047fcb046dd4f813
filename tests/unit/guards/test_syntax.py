"""The syntax of patterns, judged by RE2; and refusals, which name what, where and what to do."""

from __future__ import annotations

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from gai_fast.guards.automaton import compile_rules
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.syntax import BadPattern, literal, parse
from tests.unit.guards.searching import judged, pattern_rules, searched, spans

TEXT = "".join(map(chr, range(0x180))) + "\u017f\u212a ßẞ σςΣ 漢字 \U0001f600 {a} a{x a-b [ ] ^ $ aa11__\t\r\n"


@pytest.mark.parametrize(
    "pattern",
    [
        r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", ".", r"\n", r"\t", r"\r", r"\x41", r"\x{1F600}", r"\.", r"\_", r"\/",
        r"(?i)\w", r"(?i)\W", r"(?i)[\w]", r"(?i)[^\w]", r"(?i)[\W]", r"(?i)k", r"(?i)[^k]", r"(?i)ß", "(?i)σ",
        "(?i)[a-c]",        "[a-c]", "[^a-c]", "[]a]", "[^]a]",
        "[a-]", "[-a]", r"[a\-c]", r"[\d-z]", "[[]", "[a^]", r"[\n\t]", r"[\]]",
        r"[\x41-\x{43}]", "{a}", "a{x", "a{2}", "a{1,2}", "a{1,}", "a{1,2}?", "a+?", "a??b", "(a)(b)", "(?:a|b)+",
        "(?P<name>a)b", "a|b|", "}", "]", "(|a)b", "a{0}b", "é", "漢字", "a-b",
    ],
)  # fmt: skip
def test_a_pattern_matches_what_it_matches_for_re2(pattern: str) -> None:
    if pattern == "a|b|":
        with pytest.raises(BadPattern):
            parse(pattern)
        return
    assert spans(searched(compile_rules(pattern_rules([pattern])).scan(), [TEXT])) == judged([pattern], TEXT)


@given(st.text(alphabet="ab0|()[]{}?*+.,^-\\dwn1", max_size=8))
@settings(max_examples=settings().max_examples * 2)
def test_what_is_accepted_re2_accepts_too_and_matches_alike(pattern: str) -> None:
    try:
        rules = pattern_rules([pattern])
    except BadPattern:
        return
    text = "ab0|()[]{}?*+.,^-\\dwn1\naabb{1,2}(?"
    try:
        expected = judged([pattern], text)
    except re2.error:  # RE2 multiplies repeats within each other
        return
    assert spans(searched(compile_rules(rules).scan(), [text])) == expected


REFUSALS = {
    "": "``, which matches the empty string, at character 1: require at least one character",
    "a*": "`a*`, which matches the empty string, at character 1: require at least one character",
    "(a?|b)": "`(a?|b)`, which matches the empty string, at character 1: require at least one character",
    "^a": r"the anchor `^` at character 1: remove it; write `\^` for the character",
    "a$": r"the anchor `$` at character 2: remove it; write `\$` for the character",
    r"a\b": r"the anchor `\b` at character 2: remove it; a list of `words` matches whole words alone",
    r"\Aa": r"the anchor `\A` at character 1: remove it; a list of `words` matches whole words alone",
    "a(?=b)": "the look-ahead `(?=` at character 2: write what follows as a part of the match",
    "a(?!b)": "the look-ahead `(?!` at character 2: write what follows as a part of the match",
    "(?<=a)b": "the look-behind `(?<=` at character 1: write what stands before as a part of the match",
    "(?<!a)b": "the look-behind `(?<!` at character 1: write what stands before as a part of the match",
    r"(a)\1": r"the back reference `\1` at character 4: repeat the group's text",
    r"(?P<n>a)(?P=n)": "the back reference `(?P=` at character 9: repeat the group's text",
    r"\k<n>": r"the back reference `\k` at character 1: repeat the group's text",
    r"\p{Greek}": r"the Unicode property `\p` at character 1: write a class of ranges: `[\x{370}-\x{3FF}]`",
    "(?>a)": "the atomic group `(?>` at character 1: write `(?:…)`: nothing is tried twice",
    "(?#a)b": "the comment `(?#` at character 1: in a file of patterns, a line that begins with # is one",
    "a(?i)b": "the flag `(?i` at character 2: `(?i)` stands at the beginning of the pattern, and counts for all of it",
    "(?s)a": "`(?s)` at character 1: write `(?i)` at the beginning of the pattern, a group as `(?:…)`",
    "(a": r"a group that is not closed at character 1: add `)`, or write `\(` for the character",
    "a)": r"`)` at character 2: it closes no group; write `\)` for the character",
    "[a": r"a class that is not closed at character 1: add `]`, or write `\[` for the character",
    "[b-a]": "the range `b-a` at character 2: its end is before its beginning",
    r"[a-\d]": r"a range whose end is a class at character 2: write `\-` for the character",
    "[[:alpha:]]": "a POSIX class at character 2: write its ranges: `a-z`",
    r"[^\x00-\x{10FFFF}]": "a class without a character at character 1: name what it matches",
    "*a": r"`*` at character 1: it repeats nothing; write `\*` for the character",
    "a**": "a second repeat `*` at character 3: write `(?:a*)` before it",
    "a{2}{3}": "a second repeat `{3}` at character 5: write `(?:a{2})` before it",
    "a{,3}": r"`{,3}` at character 2: write `{0,3}`, or `\{` for the character",
    "a{3,2}": "`{3,2}` at character 2: the first number is the smaller one",
    "a{1001}": "a repeat of 1001 at character 2: 1000 are allowed",
    r"\q": r"the escape `\q` at character 1: there is none; write the character itself",
    r"\f": r"the escape `\f` at character 1: write the code point: `\x0C`",
    r"\x4": r"`\x4` at character 1: write `\xHH` or `\x{H…}`",
    r"\x{110000}": "the code point 110000 at character 1: the last one is 10FFFF",
    "a\\": r"`\` at character 2: write `\\` for the character",
    "(?:a{1000}){501}": "a pattern of 501000 positions at character 1: 500000 are allowed; lower its repeats",
}


@pytest.mark.parametrize("pattern", REFUSALS)
def test_a_refusal_names_what_where_and_what_to_do(pattern: str) -> None:
    with pytest.raises(BadPattern) as refused:
        parse(pattern)
    assert str(refused.value) == REFUSALS[pattern]
    assert f"character {refused.value.position + 1}:" in str(refused.value)


def test_lengths_and_depths_have_limits() -> None:
    parse("a" * LIMITS.pattern)
    with pytest.raises(BadPattern, match="a pattern of 1025 characters"):
        parse("a" * (LIMITS.pattern + 1))
    deep = LIMITS.pattern_depth
    parse("(" * deep + "a" + ")" * deep)
    parse("(?:" * deep + "a" + "b?)" * deep)
    with pytest.raises(BadPattern, match=f"groups {deep + 1} deep at character {deep + 1}"):
        parse("(" * (deep + 1) + "a" + ")" * (deep + 1))
    with pytest.raises(BadPattern, match="a repeat of 99999999999999999999 at"):
        parse("a{" + "9" * 900 + "}")


def test_a_literal_has_a_set_for_each_character() -> None:
    assert literal("aK") == [(97, 98), (75, 76)]
    assert literal("k", fold=True) == [(75, 76, 107, 108, 0x212A, 0x212B)]
    assert literal("ﬁ\u200b", normal=True) == [(102, 103), (105, 106)]
