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


OUTER, INNER = (b"type", b"response"), (b"id", b"store")


def placed(native: ModuleType, frame: bytes) -> list[bytes] | None:
    """Returns the values that are placed; an empty one for a member that is missing."""
    places = native.frame_members(frame, OUTER, INNER)
    return None if places is None else [frame[places[at] : places[at + 1]] for at in range(0, len(places), 2)]


@pytest.mark.native
@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b'{"type":"x","response":{"id":"r","store":true}}', [b'"x"', b'{"id":"r","store":true}', b'"r"', b"true"]),
        (b'{"response" : {"store": null } , "n":[{"id":1}]}', [b"", b'{"store": null }', b"", b"null"]),
        (b'{"id":1,"store":2,"type":{},"response":{}}', [b"{}", b"{}", b"", b""]),
        (b'{"response":{"a":{"id":1},"b":[{"store":2}],"id":"\xc3\xa9\\n"}}', [b"", None, b'"\xc3\xa9\\n"', b""]),
        (b'{"a":{"response":{"id":"r"}}}', []),
        (b'{"type":"x","response":null}', []),
        (b'{"type":"response"}', []),
        (b"{}", []),
    ],
)
def test_members_of_a_frame_are_placed(native: ModuleType, data: bytes, values: list[bytes | None]) -> None:
    for head in (b"data: ", b"event: response.created\ndata: ", b"event: \ndata: "):
        found = placed(native, head + data + b"\n\n")
        assert found is not None
        assert len(found) == len(values)
        assert all(value is None or each == value for each, value in zip(found, values, strict=True))
    pure = load("pure").frame_members(b"data: " + data + b"\n\n", OUTER, INNER)
    assert pure == (None if b'"response"' in data else ())


@pytest.mark.parametrize(
    "frame",
    [
        b"", b"\n\n", b"data: {", b"data: {\n\n", b"data: {}", b"data: {}\n", b"event: x\n\n", b"event: x",
        b": ping\n\n", b"data:{}\n\n", b"data: {}\r\n\r\n", b"event: x\rdata: {}\n\n", b"id: 1\ndata: {}\n\n",
        b"data: {}\nid: 1\n\n", b"data: [DONE]\n\n", b"data: {} \n\n", b"data: {}x\n\n", b"data: {\ndata: }\n\n",
        b"\xef\xbb\xbfdata: {}\n\n", b'data: {"response":{"a":1,"b":2,"a":3}}\n\n', b'data: {"a":1,"a":2}\n\n',
        b'data: {"response":{},"response":{}}\n\n', b'data: {"response":{"\\u0069d":1}}\n\n',
        b'data: {"\xc3\xa9":1}\n\n', b'data: {"a":"\xff"}\n\n', b'data: {"a":NaN}\n\n',
        b'data: {"a":"\\ud800"}\n\n', b'data: {"a":1,}\n\n', b'data: {"a"}\n\n', b'data: {"a":}\n\n',
        b'data: {"a":1\n\n', b'data: {"response":{"id":1}\n\n', b'data: {"a":%b}\n\n' % (33 * b"[" + 33 * b"]"),
        b"data: {%b}\n\n" % b",".join(b'"%d":0' % at for at in range(65)),
    ],
)  # fmt: skip
def test_a_frame_whose_members_cannot_be_placed_is_left(kernels: ModuleType, frame: bytes) -> None:
    if b'"response"' in frame:
        assert kernels.frame_members(frame, OUTER, INNER) is None
    else:
        assert kernels.frame_members(frame, OUTER, INNER) == ()
        assert kernels.frame_members(frame.replace(b'"a"', b'"response"'), OUTER, INNER) in (None, ())


@pytest.mark.native
def test_a_known_object_is_compared(native: ModuleType) -> None:
    known = b'{"id":"r","store":true}'
    frame = b'data: {"type":"x","response":%b,"n":1}\n\n'
    begin = len(b'data: {"type":"x","response":')
    assert native.frame_members(frame % known, OUTER, INNER, known) == (14, 17, begin, begin + len(known))
    for other in (b'{"id":"s","store":true}', known[:-1] + b',"a":1}', b"{}"):
        assert native.frame_members(frame % other, OUTER, INNER, known) == native.frame_members(
            frame % other, OUTER, INNER
        )
    assert native.frame_members(b'data: {"n":{"id":"r"}, "a":"response"}\n\n', OUTER, INNER, b'{"id":"r"}') == ()
    assert native.frame_members(frame % known + b" ", OUTER, INNER, known) is None


HEADS, SAID = (b"event: a\n", b"data: {"), (b'"store":true', b'"id":null')


@pytest.mark.parametrize(
    ("frame", "is_read"),
    [
        (b'data: {"response":{"store":true,"id":null,"a":{"store":true}}}\n\n', False),
        (b'event: a\ndata: {"response":{}}\n\n', False),
        (b'event: b\ndata: {"response":{}}\n\n', True),
        (b'data: {"response":{"store":false}}\n\n', True),
        (b'data: {"response":{"id":null,"store": true}}\n\n', True),
        (b'data: {"response":{"a":{"store":tru}}}\n\n', True),
        (b'data: {"response":{"store":true,"a":[{"store":false}]}}\n\n', True),
        (b'data: {"response":{"store":true,"id":"r"}}\n\n', True),
        (b'data: {"response":{"store":true,"a":"store"}}\n\n', True),
        (b'data: {"response":{"stor\\u0065":false,"a":"\\"store\\":false"}}\n\n', False),
        (b'data: {"response":{"a":"\\"store"}}\n\n', True),
        (b'data: {"response":{"store":true,"id":', True),
        (b'data: {"response":{"store', False),
        (b'data: {"response""id"id":null', True),
    ],
)
def test_a_frame_that_says_nothing_else_is_not_read(kernels: ModuleType, frame: bytes, is_read: bool) -> None:
    found = kernels.frame_members(frame, OUTER, INNER, b"", HEADS, SAID)
    assert found == (kernels.frame_members(frame, OUTER, INNER) if is_read else ())
    for heads, said in ((HEADS, ()), ((), SAID), ((), ())):
        assert kernels.frame_members(frame, OUTER, INNER, b"", heads, said) == kernels.frame_members(
            frame, OUTER, INNER
        )


@pytest.mark.parametrize("member", [b"", b'"', b"store", b'"store'])
def test_what_a_frame_says_begins_with_a_name(kernels: ModuleType, member: bytes) -> None:
    with pytest.raises(ValueError, match="begins with a name"):
        kernels.frame_members(b'data: {"response":{}}\n\n', OUTER, INNER, b"", HEADS, (member,))


def test_the_number_of_sought_names_is_bounded(kernels: ModuleType) -> None:
    for outer, inner in (((), ()), ((b"a",) * 8, (b"b",) * 9), ((b"a" * 31,), ())):
        with pytest.raises(ValueError, match="1 to 16 names are sought"):
            kernels.frame_members(b"data: {}\n\n", outer, inner)


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
