"""Objects of a known shape: the native reader says what the pure one does, or leaves the text to a parser."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

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


@given(value=LIKELY | VALUES, blanks=st.booleans(), damage=DAMAGE)
def test_native_equals_pure_or_leaves_it(
    both: tuple[ModuleType, ModuleType], value: Any, blanks: bool, damage: list[tuple[float, str]]
) -> None:
    native, pure = both
    text = json.dumps(value, ensure_ascii=False, separators=None if blanks else (",", ":"))
    for place, character in damage:
        at = int(place * len(text))
        text = text[:at] + character + text[at + 1 :]
    said = native.Shape(SHAPE).read(text)
    assert said is None or said == pure.Shape(SHAPE).read(text)


@given(value=LIKELY)
def test_what_is_plain_is_read(both: tuple[ModuleType, ModuleType], value: dict[str, Any]) -> None:
    native, pure = both
    value["c"] = value["d"] = {"n": [1, "x", None, {"m": 1.5}]}
    text = json.dumps(value)
    assert native.Shape(SHAPE).read(text) == pure.Shape(SHAPE).read(text)
