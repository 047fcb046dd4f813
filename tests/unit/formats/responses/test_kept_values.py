"""`formats/responses/kept_values.py`: the items of a kept JSON array, one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.json.structure import Structure
from gai_fast.formats.responses.kept_values import item_texts, value_of, values
from gai_fast.model.errors import Error
from tests.limits import LIMITS

ITEMS: list[Any] = [{"a": [1, "]"]}, 'x, \\ " y', None, 5, [[]], "\u00e4"]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("odd", [[], ["\ud800"], ["a\\ud800", "\ud83d\ude00", {"b": "\udfff\\"}]])
def test_each_item_is_a_text_of_its_own_whatever_characters_it_has(odd: list[Any], indent: int | None) -> None:
    items = [*ITEMS, *odd, *ITEMS]
    text = json.dumps(items, indent=indent).encode()
    assert [value_of(each) for each in item_texts(text)] == json.loads(text)
    assert values(text) == values(text, Structure()) == json.loads(text)
    padded = b"\xef\xbb\xbf " + text + b" " * LIMITS.parsed_bytes
    assert values(padded) == json.loads(text)


def test_what_is_no_array_has_no_items_and_what_is_no_json_is_damaged() -> None:
    assert values(b"5") == values(b'{"a":"\\ud800"}', Structure()) == []
    for text in (b"[", b'["\\ud800"', b""):
        with pytest.raises(Error) as damaged:
            values(text, Structure())
        assert damaged.value.reason == "log_damaged"


def test_invalid_utf_8_is_replaced_in_its_own_item_alone() -> None:
    assert values(b'["\xff", "a"]', Structure()) == ["\ufffd", "a"]


@pytest.mark.parametrize("wrong", ["", "]", "NaN", '"\\x"', "{]"])
def test_a_long_item_with_half_of_a_pair_has_the_value_of_a_short_one_and_no_other(wrong: str) -> None:
    """C code would read it at once."""
    value = {"a": ["\ud83d", 1, 2.5, 10**30, None, True, {"": [[]]}, "😀"], "b": "x" * LIMITS.parsed_bytes}
    text = json.dumps([value]).encode()
    if not wrong:
        assert values(text) == [value]
        return
    with pytest.raises(Error, match="damaged"):
        value_of(b'{"half": "\\ud83d", "long": "%b", "wrong": %b}' % (b"x" * LIMITS.parsed_bytes, wrong.encode()))
