"""Objects of a known shape: the native readers say what a parser would, or leave the text to one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.native

SHAPE = {"a": "text", "b": "count", "c": "object", "d": "any", "e": {"f": "text", "a": "count"}, "g": [{"b": "text"}]}
SCALARS = st.none() | st.booleans() | st.integers(-3, 10**16) | st.floats() | st.text('ab"\\{}[]:, äé豆😀', max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abcdefgh"), inner, max_size=4)
)
LIKELY = st.fixed_dictionaries(
    {},
    optional={
        "a": st.text("ab {}:,", max_size=30),
        "b": st.integers(0, 10**15),
        "c": VALUES,
        "d": VALUES,
        "e": st.fixed_dictionaries({}, optional={"f": st.text("xy"), "a": st.integers(0, 9), "z": st.none()}),
        "g": st.lists(st.fixed_dictionaries({}, optional={"b": st.text("xy")}), max_size=2),
        "z": st.none(),
    },
)
DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from('"\\{}[]:, 0ané\0')), max_size=2)


def parsed(members: Mapping[str, Any], found: Any) -> list[Any] | None:
    """Returns the values of a parsed object, if it has this shape."""
    if not isinstance(found, dict) or any(found[name] is not None for name in found.keys() - members.keys()):
        return None
    values: list[Any] = []
    for name, kind in members.items():
        if kind != "any":
            read = parsed_member(kind, found[name]) if name in found else [None] * places(kind)
            if read is None:
                return None
            values += read
    return values


def parsed_member(kind: Any, value: Any) -> list[Any] | None:
    if kind == "object" and (value is None or isinstance(value, dict)):
        return [value or {}]
    if value is None:
        return [None] * places(kind)
    if kind == "text":
        return [value] if isinstance(value, str) else None
    if kind == "count":
        return [value] if type(value) is int and 0 <= value < 10**15 else None
    if isinstance(kind, dict):
        return parsed(kind, value)
    if isinstance(kind, list) and isinstance(value, list) and len(value) < 2:
        inner = parsed(kind[0], value[0]) if value else [None] * (places(kind) - 1)
        return None if inner is None else [len(value), *inner]
    return None


def places(kind: Any) -> int:
    """Returns the number of values of a member."""
    if isinstance(kind, list):
        return 1 + places(kind[0])
    return sum(map(places, kind.values())) if isinstance(kind, dict) else int(kind != "any")


def expected(text: str) -> tuple[Any, ...] | None:
    try:
        values = parsed(SHAPE, orjson.loads(text))
    except ValueError:
        return None
    return None if values is None else tuple(values)


@given(value=LIKELY | VALUES, blanks=st.booleans(), damage=DAMAGE)
def test_what_is_said_is_what_a_parser_says(
    native: ModuleType, value: Any, blanks: bool, damage: list[tuple[float, str]]
) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=None if blanks else (",", ":"))
    for place, character in damage:
        at = int(place * len(text))
        text = text[:at] + character + text[at + 1 :]
    said = native.Shape(SHAPE).read(text)
    assert said is None or said == expected(text)


@given(base=LIKELY, others=st.lists(LIKELY, max_size=4), blanks=st.booleans(), damage=DAMAGE)
def test_what_was_read_before_changes_nothing(
    native: ModuleType,
    base: dict[str, Any],
    others: list[dict[str, Any]],
    blanks: bool,
    damage: list[tuple[float, str]],
) -> None:
    """A reader knows the beginning of the last text again."""
    shape = native.Shape(SHAPE)
    for value in [base, *({**base, **other} for other in others), base]:
        text = json.dumps(value, separators=None if blanks else (",", ":"))
        damaged = text
        for place, character in damage:
            at = int(place * len(text))
            damaged = damaged[:at] + character + damaged[at + 1 :]
        for one in (text, damaged, text):
            assert shape.read(one) == native.Shape(SHAPE).read(one)


@pytest.mark.parametrize(
    "text",
    [
        *("{}", "{ }", '{"n":1}', '{ "n" : 1 , "m" : 0 }', '{"n":null}', '{"n":{"m":{"o":3}},"p":2}', '{"n":1,"n":2}'),
        *('{"n":{"m":{"o":{"p":4}}}}', '{"n":1.5}', '{"n":-1}', '{"n":1e3}', '{"n":"x"}', '{"n":[1]}', '{"n":true}'),
        *('{"n":123456789012345}', '{"n":1234567890123456}', '{"a\\u0062":1}', '{"' + "n" * 99 + '":1}', '{"":0}'),
        *('{"n":01}', '{"n":1,}', '{"n":1', '{"n"}', '{"n":}', "{,}", '{"n":1 "m":2}', '{"n":{}', "[]", "1"),
    ],
)
def test_an_object_is_what_a_parser_makes_of_it(native: ModuleType, text: str) -> None:
    try:
        whole: Any = orjson.loads(text)
    except ValueError:
        whole = None
    said = native.Shape({"c": "object"}).read(f'{{"c":{text}}}')
    assert said == ((whole,) if isinstance(whole, dict) else None)


@given(value=LIKELY)
def test_what_is_plain_is_read(native: ModuleType, value: dict[str, Any]) -> None:
    value["c"] = value["d"] = {"n": [1, "x", None, {"m": 1.5}]}
    text = json.dumps(value)
    assert native.Shape(SHAPE).read(text) == expected(text)


NAMES = st.sampled_from(["model", "a", "mod", "models", "", "\x7f", 'a"', "é", "a\\", " "])
SPACES = st.sampled_from(["", "", " ", "\n", "\r\n\t "])


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """Returns the text of an object, whose names may repeat, with any white space; mostly JSON."""
    pairs = draw(st.lists(st.tuples(NAMES, VALUES | st.just("m")), max_size=5))
    pairs += draw(st.lists(st.tuples(st.just("model"), st.text("mé\\", max_size=3)), max_size=2))
    is_ascii, separators = draw(st.booleans()), draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    parts = []
    for name, value in pairs:
        written = json.dumps(value, ensure_ascii=is_ascii, separators=separators)
        parts.append(f"{draw(SPACES)}{json.dumps(name, ensure_ascii=is_ascii)}{draw(SPACES)}:{draw(SPACES)}{written}")
    text = f"{draw(SPACES)}{{{(draw(SPACES) + ',').join(parts)}{draw(SPACES)}}}{draw(SPACES)}"
    for place, character in draw(DAMAGE):
        at = int(place * len(text))
        text = text[:at] + character + text[at + 1 :]
    return text.encode("utf-8", "surrogatepass")


@given(text=objects())
def test_what_is_cut_is_what_a_parser_would_write(native: ModuleType, text: bytes) -> None:
    cut = native.cut_member(text, b"model")
    if cut is None:
        return
    name, before, behind = cut
    members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    assert msgspec.json.decode(members["model"]) == name
    members["model"] = msgspec.Raw(b'"other"')
    assert before + b'"other"' + behind == msgspec.json.encode(members)


@given(
    members=st.dictionaries(st.text("ab_ }", max_size=4), st.text() | st.booleans() | st.integers(0, 9), max_size=5),
    at=st.integers(0, 5),
)
def test_a_plain_object_is_cut(native: ModuleType, members: dict[str, Any], at: int) -> None:
    asked = [*members.items()]
    asked.insert(at, ("model", "m"))
    for is_ascii in (True, False):
        name, before, behind = native.cut_member(json.dumps(dict(asked), ensure_ascii=is_ascii).encode(), b"model")
        assert name == "m"
        assert json.loads(before + b'"other"' + behind) == dict(asked) | {"model": "other"}


@given(inner=st.dictionaries(st.text("ab_ }", max_size=3), VALUES, max_size=6), damage=DAMAGE, blanks=st.booleans())
def test_placed_members_are_those_of_a_parser(
    both: tuple[ModuleType, ModuleType], inner: dict[str, Any], damage: list[tuple[float, str]], blanks: bool
) -> None:
    native, pure = both
    data = json.dumps({"type": "x", "a": inner, "b": 1}, ensure_ascii=False, separators=None if blanks else (",", ":"))
    for place, character in damage:
        at = int(place * len(data))
        data = data[:at] + character + data[at + 1 :]
    frame = b"data: %b\n\n" % data.encode()
    names: tuple[tuple[bytes, ...], tuple[bytes, ...]] = ((b"b", b"a"), (b"a", b"b", b"ab"))
    places = native.frame_members(frame, *names)
    for said in ((b'"b":1',), (b'"a":{', b'"ab":true'), (b'"type":"x"', b'"b":')):
        found = pure.frame_members(frame, *names, b"", (b"x", b"data: {"), said)
        assert native.frame_members(frame, *names, b"", (b"x", b"data: {"), said) == (places if found is None else ())
    if places is None or b'"a"' not in frame:  # what cannot be read is not looked at
        assert not places
        return
    members = msgspec.json.decode(data.encode(), type=dict[str, msgspec.Raw])
    found = [frame[places[at] : places[at + 1]] for at in range(0, len(places), 2)]
    if not found:
        assert not bytes(members.get("a", b"")).startswith(b"{")
        return
    within = msgspec.json.decode(members["a"], type=dict[str, msgspec.Raw])
    assert found == [bytes(members.get(name, b"")) for name in "ba"] + [
        bytes(within.get(name, b"")) for name in ("a", "b", "ab")
    ]


ENDS = st.sampled_from(
    [*(b'"', b'"usage"', b":", b"{", b"}", b'"a"', b'"b\\""', b",", b"1", b"0", b"12"), b"null", b" ", b"\n", b"\xc3"]
)


@given(
    before=st.binary(max_size=3) | st.just(b"{" * 600),
    pieces=st.lists(ENDS, max_size=12),
    counts=st.dictionaries(st.text('ab"é', max_size=2), st.none() | st.integers(-1, 10**15), max_size=3),
    blanks=st.booleans(),
    damage=DAMAGE,
)
def test_the_end_of_an_answer_is_read_the_same(
    both: tuple[ModuleType, ModuleType],
    before: bytes,
    pieces: list[bytes],
    counts: dict[str, int | None],
    blanks: bool,
    damage: list[tuple[float, str]],
) -> None:
    native, pure = both
    text = json.dumps({"usage": counts}, ensure_ascii=False, indent=1 if blanks else None)
    for place, character in damage:
        at = int(place * len(text))
        text = text[:at] + character + text[at + 1 :]
    for each in (before + text.encode(), before + b"".join(pieces), before + b'"usage":{' + b"".join(pieces) + b"}}"):
        assert native.closing_counts(each) == pure.closing_counts(each)
