"""JSON read as it comes: the value at any moment, the first wrong character, and work that grows with the text only."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gai_fast.kernels import encode_json
from gai_fast.model.limits import SHARED
from gai_fast.processors._json_text import JSONReader, NotJSONText, same_json
from gai_fast.processors.json_stream import JSONStreamProcessor
from tests.limits import LIMITS

from .streams import pieces

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def read(text: str, edges: Any = ()) -> JSONReader:
    reader = JSONReader()
    for piece in pieces(text, edges):
        at = reader.feed(piece)
        assert at == len(piece) or reader.complete
    reader.close()
    return reader


def written(value: Any, ascii_only: bool, indent: int | None) -> str:
    # Halves of surrogate pairs are no text.
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@given(VALUES, st.booleans(), st.sampled_from([None, 1]), st.lists(st.integers(min_value=0), max_size=6))
def test_however_it_is_cut_the_value_is_that_of_the_document(
    value: Any, ascii_only: bool, indent: int | None, edges: list[int]
) -> None:
    text = written(value, ascii_only, indent)
    expected = json.loads(text)
    for cut in (edges, 1, 3):
        reader = read(text, cut)
        assert reader.complete
        assert same_json(reader.value, expected)
        assert same_json(reader.snapshot(), expected)


def grows(before: Any, after: Any) -> bool:
    """Returns whether a value may have become the other as more of its text came."""
    if isinstance(before, dict) and isinstance(after, dict):
        return all(key in after and grows(before[key], after[key]) for key in before)
    if isinstance(before, list) and isinstance(after, list):
        return len(before) <= len(after) and all(map(grows, before, after))
    if isinstance(before, str) and isinstance(after, str):
        return after.startswith(before)
    return bool(before == after)


@settings(max_examples=settings().max_examples // 4)
@given(VALUES, st.booleans())
def test_snapshots_only_grow_and_stay_as_they_were(value: Any, ascii_only: bool) -> None:
    text = written(value, ascii_only, None)
    reader = JSONReader()
    before: list[tuple[Any, str]] = []
    for character in text:
        reader.feed(character)
        if reader.began:
            assert reader.changed or before
            now = reader.snapshot()
            assert not before or grows(before[-1][0], now)
            before.append((now, repr(now)))
    assert all(repr(snapshot) == result for snapshot, result in before)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a', {}),
        ('{"a":', {}),
        ('{"a":1', {}),
        ('{"a":1,', {"a": 1}),
        ('{"a":tru', {}),
        ('{"a":true', {"a": True}),
        ('{"a":"', {"a": ""}),
        ('{"a":"x', {"a": "x"}),
        ('{"a":"x\\', {"a": "x"}),
        ('{"a":"x\\u00e', {"a": "x"}),
        ('{"a":"x\\u00e9', {"a": "xé"}),
        ('{"a":"x\\ud83d', {"a": "x"}),
        ('{"a":"x\\ud83d\\ude', {"a": "x"}),
        ('{"a":"x\\ud83d\\ude00', {"a": "x😀"}),
        ('{"a":"\\ud83dy', {"a": "�y"}),
        ("[1,[2,3", [1, [2]]),
        ("[1,[2,3]", [1, [2, 3]]),
        ('[{"a":[', [{"a": []}]),
    ],
)
def test_of_what_is_not_whole_only_the_beginning_of_a_string_counts(text: str, value: Any) -> None:
    reader = JSONReader()
    reader.feed(text)
    assert reader.snapshot() == value
    assert not reader.complete


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("x", 0),
        ("  +1", 2),
        ('{"a":nul}', 8),
        ('{"a" 1}', 5),
        ('{"a":1 "b"', 7),
        ('{"a":1,}', 7),
        ("{,", 1),
        ("{1", 1),
        ("[,", 1),
        ("[1,]", 3),
        ("[1 2", 3),
        ("[1}", 2),
        ("[01", 2),
        ("[-x", 2),
        ("[1.]", 3),
        ("[1.e", 3),
        ("[1e]", 3),
        ("[1e+]", 4),
        ("[.5", 1),
        ("[NaN", 1),
        ("[Infinity", 1),
        ('["a\nb', 3),
        ('["\\x', 3),
        ('["\\u12g', 6),
        ("['a'", 1),
        ("[٣", 1),
        ("[1\u00a0", 2),
        ("[tRue", 2),
        ("[" * 256, 255),
        ("[" + "1" * 4301 + ",", 4302),
    ],
)
def test_what_is_no_json_is_reported_at_its_first_wrong_character(text: str, at: int) -> None:
    for size in (1, 2, len(text)):
        reader = JSONReader()
        with pytest.raises(NotJSONText, match=f"at character {at}$") as raised:
            for piece in pieces(text, size):
                reader.feed(piece)
        assert raised.value.position == at


@given(
    st.text(alphabet='{}[]",:\\u0019-+.eE truefalsnd\n', max_size=30), st.lists(st.integers(min_value=0), max_size=4)
)
def test_it_takes_exactly_what_the_standard_library_takes(text: str, edges: list[int]) -> None:
    def refuse(name: str) -> None:
        raise ValueError(name)

    def taken() -> Any:
        reader = JSONReader()
        rest = ""
        for piece in pieces(text, edges):
            rest += piece[reader.feed(piece) :]
        if not reader.close() or rest.strip(" \n"):
            raise ValueError("not whole, or too much")
        return reader.value

    try:
        expected = json.loads(text, parse_constant=refuse)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011  # which of the two reasons does not matter
            taken()
    else:
        assert same_json(taken(), expected)


def test_it_stops_behind_the_document() -> None:
    reader = JSONReader()
    assert reader.feed("xx [1] [2]", 2) == len("xx [1]")
    assert reader.complete
    assert reader.feed(" [2]") == 0


def test_a_bare_number_is_whole_when_nothing_follows() -> None:
    reader = JSONReader()
    reader.feed("-12")
    assert not reader.complete
    assert reader.close()
    assert reader.value == -12
    unfinished = JSONReader()
    unfinished.feed("1.")
    assert not unfinished.close()


def test_members_of_the_outermost_object_are_reported_as_they_become_whole() -> None:
    reader = JSONReader()
    seen = []
    for character in '{"a":{"x":1},"b":[2],"c":3}':
        reader.feed(character)
        seen += [(name, reader.value[name]) for name in reader.members]
        reader.members.clear()
    assert seen == [("a", {"x": 1}), ("b", [2]), ("c", 3)]


def test_numbers_keep_what_python_can_say() -> None:
    value = read("[12345678901234567890123, 1.5, -0, 1e999]").value
    assert value[:3] == [12345678901234567890123, 1.5, 0]
    assert value[3].text == "1e999"
    assert read("[" + "1" * LIMITS.integer_digits + "]").complete


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True),
        ([True], [1], False),
        ([1], [1.0], True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([1, 2], [1], False),
        ({"a": {}}, {"a": []}, False),
    ],
)
def test_values_are_the_same_where_their_json_is(one: Any, other: Any, same: bool) -> None:
    assert same_json(one, other) is same


def calls(work: Callable[[], object]) -> int:
    """Returns the number of function calls, of ours and of built-in ones."""
    count = 0

    def note(*_: object) -> None:
        nonlocal count
        count += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


MEMBERS = ['"key":{"n":[1,-2.5e3,true,null],"s":"text with \\"escapes\\" and more"}', '"long":"' + "x" * 200 + '"']


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("member", MEMBERS)
def test_twice_the_text_costs_twice_the_steps(size: int, member: str) -> None:
    def document(count: int) -> list[str]:
        return pieces("{" + ",".join([member] * count) + "}", size)

    def work(count: int) -> Callable[[], None]:
        cut = document(count)

        def run() -> None:
            reader = JSONReader()
            for piece in cut:
                reader.feed(piece)
            assert reader.complete

        return run

    small, large = calls(work(50)), calls(work(100))
    assert large < 2.05 * small


MEGABYTE = 1 << 20


def filled(unit: str) -> str:
    return unit * (MEGABYTE // len(unit))


@pytest.mark.parametrize(
    "text",
    [
        "[" + filled("1,") + "1]",
        "[" + filled("1,"),
        "[" + filled("[],") + "1]",
        '{"items":[' + filled('{"a":1,"b":[1,2]},'),
        '"' + filled("\\n") + '"',
        '"' + filled("\\ud83d\\ude00") + '"',
        filled("[" * 200 + "]" * 200 + ","),
    ],
    ids=lambda text: text[:24],
)
def test_one_delta_costs_a_bounded_number_of_steps(text: str) -> None:
    """The event loop waits for it: a megabyte took two seconds."""
    processor = JSONStreamProcessor(snapshots_ms=0)
    assert calls(lambda: list(processor.process({"type": "text.delta", "text": text}))) < 40 * LIMITS.json_steps


LONG = " " * LIMITS.json_steps
"""Makes a text long enough to be read in another way."""


@pytest.mark.parametrize(
    "text",
    [
        '{"a":[1,2.5,-0,1e2,true,null],"a":{"b":"\\u00e9\\n\\ud83d\\ude00"},"c":"\\ud800"}',
        '{"a":[1e999,12345678901234567890,1.10]}',
        "[" * LIMITS.json_levels + "]" * LIMITS.json_levels,
        "[" * (LIMITS.json_levels + 1) + "]" * (LIMITS.json_levels + 1),
        '{"a":[1,[2,{"b":',
        '{"a":NaN}',
        '[1,"\x01"]',
        "[" + "9" * (SHARED.integer_digits + 1) + "]",
        "[[1],[2],]",
    ],
    ids=lambda text: text[:24],
)
def test_a_long_text_is_read_as_its_characters_are(text: str) -> None:
    def outcome(edges: Any) -> Any:
        reader = JSONReader()
        try:
            for piece in pieces(LONG + text, edges):
                reader.feed(piece)
        except NotJSONText as problem:
            return str(problem)
        return (
            encode_json(reader.snapshot()),
            reader.complete,
            reader.sure or reader.complete,
            reader.members,
            reader.position,
        )

    assert outcome(()) == outcome(1000)
