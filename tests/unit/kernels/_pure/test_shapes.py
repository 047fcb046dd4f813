"""JSON objects of a known shape: what the native readers read; the pure ones leave nearly all to a parser."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.kernels import load
from tests.limits import LIMITS

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


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (b'{"model":"m","input":["a"]}', ("m", b'{"model":', b',"input":["a"]}')),
        (b'{"model":"m"}', ("m", b'{"model":', b"}")),
        (b'{"a":1,"b":{"model":"x"},"model":"m"}', ("m", b'{"a":1,"b":{"model":"x"},"model":', b"}")),
        (b'{"":"","models":null,"model":"m"}', ("m", b'{"":"","models":null,"model":', b"}")),
        (
            b' {\n "a" : [1, 2.5] ,\r\n\t"model" : "m" , "t": "\\u00e9\\/\xc3\xa9" } \n',
            ("m", b'{"a":[1, 2.5],"model":', b',"t":"\\u00e9\\/\xc3\xa9"}'),
        ),
    ],
    ids=["first", "alone", "last", "a longer and an empty name", "white space"],
)
def test_an_object_is_cut_at_a_text(native: ModuleType, text: bytes, cut: tuple[str, bytes, bytes]) -> None:
    assert native.cut_member(text, b"model") == cut
    assert load("pure").cut_member(text, b"model") is None


@pytest.mark.parametrize(
    "text",
    [
        b'{"input":"m"}', b'{"model":1}', b'{"model":null}', b'{"model":["m"]}', b'{"model":""}',
        b'{"a":{"model":"m"}}',
        b'{"model":"m","model":"n"}', b'{"model":"m","a":1,"a":2}', b'{"model":"m","mod\\u0065l":"n"}',
        b'{"model":"\\u006d"}', b'{"model":"\xc3\xa9"}', b'{"\xc3\xa9":1,"model":"m"}',
        b'{"model":"m","a":' + 33 * b"[" + 33 * b"]" + b"}", b'{"model":"m","a":1234567890123456789}',
        b'{"model":"m",%b}' % b",".join(b'"%d":0' % at for at in range(32)),
        b"", b" ", b"{", b"{}", b"[]", b'"model"', b'[{"model":"m"}]', b'{"model"', b'{"model":', b'{"model":"m',
        b'{"model":"m"', b'{"model":"m",', b'{"model":"m",}', b'{"model":"m"}}', b'{"model":"m"} x', b'{"model":"m"}\0',
        b'{"model":"m" "a":1}', b'{"model" "m"}', b"{model:1}", b'{"model":"m","a":01}', b'{"model":"m","a":[1,]}',
        b'{"model":"m","a":"\t"}', b'{"model":"m","a":"\xff"}', b'{"model":"m","a":"\\ud83d"}',
        b'{"model":"m","a":nul}',
        b'\xef\xbb\xbf{"model":"m"}', b'{"model":"m","a":NaN}', b"{'model':'m'}",
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_left_to_a_parser(kernels: ModuleType, text: bytes) -> None:
    assert kernels.cut_member(text, b"model") is None


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (
            b'{"data":[0],"usage":{"prompt_tokens":8,"total_tokens":8}}',
            ("usage", {"prompt_tokens": 8, "total_tokens": 8}),
        ),
        (b'1],"usage" :\n {\r\n\t"a" : 0 ,\n "b":null } \n }\n', ("usage", {"a": 0, "b": None})),
        (b'"x":{}}', ("x", {})),
        (b'"":{"":1}}', ("", {"": 1})),
        (b'"x":{"a":1,"b":2,"a":3}}', ("x", {"a": 3, "b": 2})),
        (b'"x":{"a":999999999999999}}', ("x", {"a": 999_999_999_999_999})),
        (b'"x":{"a}]":1}}', ("x", {"a}]": 1})),
        (b'"%b":{"a":1}}' % (b"n" * 99), ("n" * 99, {"a": 1})),
    ],
)
def test_the_counts_at_the_end_of_an_object_are_read(kernels: ModuleType, text: bytes, counts: Any) -> None:
    for before in (b"", b"x" * 9000, b'{"a":"\xff', b"}" * 700):
        assert kernels.closing_counts(before + text) == counts


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"}", b"{}", b"{}}", b":{}}", b'":{}}', b'"x"{}}', b'x":{}}', b'"x":{}', b'"x":{}}}', b'"x":{}} x',
        b'"x":{}}\0', b'"x":[{}}', b'"x":{"a":{"b":1}}}', b'"x":{"a":[1]}}', b'"x":{"a":"1"}}', b'"x":{"a":1.5}}',
        b'"x":{"a":-1}}', b'"x":{"a":01}}', b'"x":{"a":1e3}}', b'"x":{"a":true}}', b'"x":{"a":1234567890123456}}',
        b'"x":{"a":}}', b'"x":{"a"}}', b'"x":{a:1}}', b'"x":{"a":1,}}', b'"x":{,}}', b'"x":{"a":1 "b":2}}',
        b'"x":{"a":nul}}', b'"x":{"a":nullx}}', b'"x":{"\\u0061":1}}', b'"x":{"\xc3\xa9":1}}', b'"\xc3\xa9":{"a":1}}',
        b'"x\\u0061":{"a":1}}', b'"x\n":{"a":1}}', b'"x":{"a{":1}}', b'"x":{"a":1\x0b}}', b'"x":{"a":1}}data: [DONE]',
    ],
)  # fmt: skip
def test_an_end_with_other_values_has_no_counts(kernels: ModuleType, text: bytes) -> None:
    for before in (b"", b" " * 9000, b"{"):
        assert kernels.closing_counts(before + text) is None


def test_counts_are_read_at_the_very_end_alone(kernels: ModuleType) -> None:
    shortest = b'"x":{"a":1}}'
    for size in range(LIMITS.closing_counts - len(shortest) - 3, LIMITS.closing_counts - len(shortest) + 3):
        is_near = size + len(shortest) <= LIMITS.closing_counts
        assert kernels.closing_counts(b"{" + shortest + b" " * size) == (("x", {"a": 1}) if is_near else None)
        assert kernels.closing_counts(b'{"x":' + b" " * size + b'{"a":1}}') == (("x", {"a": 1}) if is_near else None)
