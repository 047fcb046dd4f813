"""Arguments: each string and each key is searched decoded, and all else stays as it came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.guards.arguments import ArgumentSearch, escaped, unescaped
from gai_fast.guards.automaton import Match, Piece, compile_rules
from gai_fast.guards.program import Words
from gai_fast.guards.restore import Placeholders, Restorer
from tests.unit.guards.searching import cut, judged, pattern_rules, searched, sizes, spans

SECRET = compile_rules(pattern_rules(["sk-[a-z]{4,}"]))


def written(pieces: list[Piece], replacement: str = "[secret]") -> str:
    return "".join(each if isinstance(each, str) else escaped(replacement) for each in pieces)


def masked(text: str, size: int, replacement: str = "[secret]") -> str:
    return written(searched(ArgumentSearch(SECRET.scan()), cut(text, [size])), replacement)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": "sk-abcd", "b": 1}', '{"a": "[secret]", "b": 1}'),
        ('{"sk-abcd": {"x": ["sk-abcdefg."]}}', '{"[secret]": {"x": ["[secret]."]}}'),
        (r'{"a": "\u0073k-abcd\n"}', r'{"a": "[secret]\n"}'),
        (r'{"a": "x\t\u00e9\/ sk-\u0061bc\u0064e\u0020\"y\""}', r'{"a": "x\t\u00e9\/ [secret]\u0020\"y\""}'),
        (r'["\ud83d\ude00sk-abcd\uD83D\uDE00", "\ud83d"]', r'["\ud83d\ude00[secret]\uD83D\uDE00", "\ud83d"]'),
        (r'{"a": "\ud83d\ud83d\ude00 \ude00 \ud83d\n sk-abc\ud83d"}', None),
        ('{"a": "sk-", "b": "abcd"}', None),
        ('{"a": "sk-abc"}', None),
        ('sk-abcd 1 "sk-ab', '[secret] 1 "sk-ab'),
        ('\n it\'s "sk-abcd" \\n sk-abcde', '\n it\'s "[secret]" \\n [secret]'),
        ('{"a": [true, false,null, -1.5e+3, 1E5]}', None),
        ('{"a": "\\u0073k-abcd", b: "sk-abcd"}', '{"a": "[secret]", b: "[secret]"}'),
        ('{"a": trues sk-abcd}', '{"a": trues [secret]}'),
        ('{"a": \'sk-abcd\'}', '{"a": \'[secret]\'}'),
        ('["a"] é"sk-abcd', '["a"] é"[secret]'),
        ('["a"] nul', None),
        (r'{"n": [NaN, -Infinity], "a": "\u0073k-abcd"}', '{"n": [NaN, -Infinity], "a": "[secret]"}'),
        ('["a"] true', None),
        ("null", None),
        ('"é漢\U0001f600 sk-abcd\U0001f600"', '"é漢\U0001f600 [secret]\U0001f600"'),
        (r'"\q \u12 sk-abcd \u12"', r'"\q \u12 [secret] \u12"'),
        (r'"sk-abcd\u00', r'"[secret]\u00'),
        (r'"sk-\ud83d\u', None),
        ("", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_strings_and_keys_are_searched_and_bytes_beside_a_match_stay(
    text: str, expected: str | None, size: int
) -> None:
    assert masked(text, size) == (text if expected is None else expected)


def test_a_replacement_is_escaped() -> None:
    assert masked('{"a": "sk-abcd"}', 3, 'é"\\\n') == '{"a": "é\\"\\\\\\n"}'
    assert json.loads(masked('["sk-abcd"]', 3, '"\x00')) == ['"\x00']


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_match_in_a_word_between_strings_is_found(size: int) -> None:
    search = ArgumentSearch(compile_rules([Words("words", ["nut", "tr"])]).scan())
    text = '{"a": nut, "b": true, tr'
    assert spans(searched(search, cut(text, [size]))) == [(0, 3), (16, 18)]
    are_texts = [search.is_text]
    assert spans(searched(search, cut('["nut", true]', [size]))) == [(0, 3)]
    are_texts.append(search.is_text)
    assert are_texts == [True, False]
    assert spans(searched(search, cut('{"a": tr', [size]))) == [(0, 2)]


def test_what_may_become_a_match_is_held_with_its_escapes() -> None:
    search = ArgumentSearch(SECRET.scan())
    assert search.feed(r'{"a": "x\u0073') == ['{"a": "x']
    assert search.held == 1
    assert search.feed("k") == []
    assert search.feed("\\") == []
    assert search.held == 3
    assert search.feed("n") == [r"\u0073k\n"]
    assert search.feed(r"\ud83d") == []
    assert search.feed('", ') == [r'\ud83d", ']
    assert search.feed('"\ud83d') == ['"']
    assert search.feed("\ude00") == ["\U0001f600"]


def test_each_string_is_a_text_of_its_own() -> None:
    search = ArgumentSearch(compile_rules([Words("words", ["kestrel"])]).scan())
    assert spans(searched(search, ['["kestrel", "a kestrel", "kestr", "el", "akestrel"]'])) == [(0, 7), (2, 9)]


def test_a_search_that_holds_nothing_passes_each_piece_at_once() -> None:
    search = ArgumentSearch(SECRET.scan(holds=False), holds=False)
    assert search.feed(r'{"a": "\u00') == [r'{"a": "\u00']
    assert search.feed("73k-abc") == ["73k-abc"]
    assert search.held == 0
    assert search.feed('d"') == ['d"', Match("found", 0, 7, 0)]
    assert search.feed('"sk-abcd') == ['"sk-abcd']
    assert search.end() == [Match("found", 0, 7, 0)]
    assert search.feed("") == []


def test_own_words_come_back_in_arguments() -> None:
    placeholders = Placeholders()
    placeholders.issue("email", 'a"b@x.com')
    restorer = Restorer(placeholders)
    text = r'{"to": "\u003cEMAIL_1>", "b": "<EMAIL_2> <EMAIL", "c": 1}'
    for size in (1, 3, 100):
        out = searched(ArgumentSearch(restorer), cut(text, [size]))
        restored = "".join(each if isinstance(each, str) else escaped(restorer.value(each)) for each in out)
        assert restored == r'{"to": "a\"b@x.com", "b": "<EMAIL_2> <EMAIL", "c": 1}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'{"a": "\u0073k", "b": "\u00e9\ud83d\ude00"}', '{"a": "sk", "b": "é\U0001f600"}'),
        (r'["\\u0073 \u0022\u005c\u000a \/"]', r'["\\u0073 \"\\\n \/"]'),
        (r'["\u00 \ux"]', None),
        ("{}", None),
    ],
)
def test_escapes_are_read_as_their_characters(text: str, expected: str | None) -> None:
    assert unescaped(text) == (text if expected is None else expected)


keys = st.text("sk-abc", max_size=8)
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(alphabet='ak-sbc"\\\n\U0001f600é', max_size=12)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=6,
)


def replaced(value: Any) -> Any:
    """Returns a value whose strings and keys have their matches replaced, by RE2."""
    if isinstance(value, str):
        for start, end in reversed(judged(["sk-[a-z]{2,}"], value)):
            value = f"{value[:start]}*{value[end:]}"
        return value
    if isinstance(value, list):
        return [replaced(each) for each in value]
    if isinstance(value, dict):
        return [(replaced(name), replaced(each)) for name, each in value.items()]
    return value


@given(values, st.booleans(), sizes)
def test_any_json_over_any_cut_is_the_same_value_with_its_matches_replaced(
    value: Any, is_ascii: bool, sizes: list[int]
) -> None:
    automaton = compile_rules(pattern_rules(["sk-[a-z]{2,}"]))
    text = json.dumps(value, ensure_ascii=is_ascii)
    pieces = searched(ArgumentSearch(automaton.scan()), cut(text, sizes))
    out = json.loads(written(pieces, "*"), object_pairs_hook=list)
    assert json.dumps(out) == json.dumps(replaced(value))
    if not any(isinstance(each, Match) for each in pieces):
        assert "".join(map(str, pieces)) == text
