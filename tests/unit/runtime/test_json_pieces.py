"""`runtime/json_pieces.py`: a long JSON text has the value that it has if it is read at once."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gai_fast.runtime.json_pieces import UNREADABLE, items_of, read_value, without_halves
from tests.limits import LIMITS

LONG = "x" * LIMITS.json_piece
ESCAPED = '\\" \n \\ud800 \U0001f600 \u00e9 \\' * 8_000
VALUES: list[Any] = [
    {"id": 1, "result": {"content": [{"type": "resource", "resource": {"text": ESCAPED}}, {"text": LONG}], "a": {}}},
    [*range(40_000), LONG, {"a": LONG, "b": [[]] * 40_000}, *range(5)],
    {LONG: ESCAPED, "b": None},
    [[[[[[[[[[ESCAPED, 1.5]]]]]]]]]],
    LONG,
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
@pytest.mark.parametrize("is_ascii", [True, False])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_long_text_has_the_same_value(value: Any, is_ascii: bool, indent: int | None) -> None:
    assert read_value(json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode()) == value


def test_what_a_strict_parser_refuses_is_read_by_itself() -> None:
    read = list[bytes]()

    def exact(text: bytes) -> Any:
        read.append(text)
        return json.loads(text)

    value = [LONG, {"a": LONG, "b": ["\ud800", 1]}, "\udfff", 2]
    assert read_value(json.dumps(value).encode(), exact) == value
    value = [LONG, "\udfff", 2]
    assert read_value(msgspec.json.encode([LONG])[:-1] + b',"\\udfff",2]', exact) == value


@pytest.mark.parametrize("text", [b"", b"[", b'["\\ud800"]', b'{"a":"' + LONG.encode(), b'["' + LONG.encode() + b'",]'])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(UNREADABLE):
        read_value(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"a"', '"a"'),
        (r'"\ud83d\ude00"', r'"\ud83d\ude00"'),
        (r'"\uD83D\uDE00\uDE00"', r'"\uD83D\uDE00\ufffd"'),
        (r'"\ud800\ud83d\ude00\udbff"', r'"\ufffd\ud83d\ude00\ufffd"'),
        (r'"\\ud800 \\\ud800 \\\\ud800"', r'"\\ud800 \\\ufffd \\\\ud800"'),
        (r'"\n\\ud83d\ude00"', r'"\n\\ud83d\ufffd"'),
        (r'"\ud83d\n\ude00"', r'"\ufffd\n\ufffd"'),
    ],
)
def test_halves_of_surrogate_pairs_are_replaced(text: str, expected: str) -> None:
    assert without_halves(text.encode(), b"\\ufffd").decode() == expected


def test_the_items_of_an_array_are_its_texts() -> None:
    items = ["\ud800", {"a": ["\udfff, "]}, 1, "\U0001f600"]
    for text in (json.dumps(items), json.dumps(items, indent=2)):
        assert [json.loads(bytes(each)) for each in items_of(text.encode())] == items
    with pytest.raises(UNREADABLE):
        items_of(b"{}")
