"""JSON objects of a known shape: what the native reader reads; the pure one leaves all to a parser."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.kernels import load

CHUNK = {
    "id": "text",
    "created": "any",
    "choices": [{"index": "count", "delta": {"role": "any", "content": "text"}}],
    "usage": "object",
}
"""Its values: id, how many choices, index, content, usage."""


def read(kernels: ModuleType, text: str, shape: dict[str, Any] = CHUNK) -> tuple[Any, ...] | None:
    return kernels.Shape(shape).read(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"id":"x","created":1.5e3,"choices":[{"index":0,"delta":{"content":"Hi"}}]}', ("x", 1, 0, "Hi", None)),
        ('{"usage":{"a":[1,{"b":2}]},"choices":[],"id":""}', ("", 0, None, None, {"a": [1, {"b": 2}]})),
        (' {\t"id" : "x" , "choices" : [ { "index" : 12 } ] } ', ("x", 1, 12, None, None)),
        ("{}", (None, None, None, None, None)),
        ('{"id":null,"choices":null,"usage":null}', (None, None, None, None, {})),
        ('{"choices":[{"delta":null}]}', (None, 1, None, None, None)),
        ('{"created":{"b":["}",true,[]],"c":{}}}', (None, None, None, None, None)),
        ('{"id":"a","more":null,"id":"b"}', ("b", None, None, None, None)),
        ('{"id":"a\\u00e9\\ud83d\\ude00\\n\\"\\\\"}', ('a\u00e9\U0001f600\n"\\', None, None, None, None)),
        ('{"choices":[{"index":1,"delta":{"content":"a"}}],"choices":[{}]}', (None, 1, None, None, None)),
    ],
    ids=["in order", "in another order", "blanks", "empty", "null is none", "null inside", "left out",
         "the last counts", "escapes", "the last object counts, too"],
)  # fmt: skip
def test_values_are_read_in_the_order_of_the_shape(native: ModuleType, text: str, values: tuple[Any, ...]) -> None:
    assert read(native, text) == values
    assert read(load("pure"), text) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"id":"x","more":1}',
        '{"id":1}',
        '{"id":"\\ud83d"}',
        '{"id":"\\x"}',
        '{"id":"ä"}',
        '{"id":"a\tb"}',
        '{"choices":[{},{}]}',
        '{"choices":{}}',
        '{"choices":[1]}',
        '{"choices":[{"index":-1}]}',
        '{"choices":[{"index":1.0}]}',
        '{"choices":[{"index":1234567890123456}]}',
        '{"choices":[{"delta":[]}]}',
        '{"usage":[]}',
        "[]",
        '"id"',
        "null",
        "1",
    ],
)
def test_another_shape_is_none(kernels: ModuleType, text: str) -> None:
    assert read(kernels, text) is None


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "{", "{}}", "{} x", '{"id"}', '{"id":}', '{"id":"x}', '{"id":"x"', '{"id":"x",}',
        '{"id":"x" "a":null}',
        '{":null}', '{"choices":[{}', '{"choices":[{}}', '{"created":01}', '{"created":nul}', '{"created":[1,]}',
        '{"more":nul}', '{"usage":{"a":}}', '{"usage":{"a":1}', "{id:null}", '{"choices":[{"index":01}]}',
    ],
)  # fmt: skip
def test_what_is_no_json_is_none(kernels: ModuleType, text: str) -> None:
    assert read(kernels, text) is None


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"a": {}},
        {"a": []},
        {"a": [{"b": "text"}, {"c": "text"}]},
        {"a": "texts"},
        {"a": 1},
        {str(number): "any" for number in range(33)},
    ],
)
def test_a_shape_that_cannot_be_is_refused(kernels: ModuleType, shape: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a shape"):
        kernels.Shape(shape)
