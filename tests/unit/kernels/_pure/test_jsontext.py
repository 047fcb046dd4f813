"""`escape`, `encode_json`, `compact_json` and `parse_exact`, on both implementations."""

from __future__ import annotations

import datetime
import enum
import inspect
import itertools
import json
import re
import sys
from collections import OrderedDict
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from gai_fast.model.events import JSONText
from tests.limits import LIMITS

DEEP = LIMITS.arguments_depth


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


# ---- escape --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", b'""'),
        ("a/b<c>\x7f", b'"a/b<c>\x7f"'),
        ('"\\\b\t\n\f\r', rb'"\"\\\b\t\n\f\r"'),
        ("\x00\x0b\x1f", rb'"\u0000\u000b\u001f"'),
        ("é\u0085\u2028豆😀", '"é\u0085\u2028豆😀"'.encode()),
        # the borders of UTF-8's lengths
        ("\x80\u07ff", '"\x80\u07ff"'.encode()),
        ("\u0800\ud7ff\ue000\uffff", '"\u0800\ud7ff\ue000\uffff"'.encode()),
        ("\U00010000\U0010ffff", '"\U00010000\U0010ffff"'.encode()),
    ],
)
def test_only_what_must_be_escaped_is(kernels: ModuleType, text: str, written: bytes) -> None:
    assert kernels.escape(text) == written


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("\ud83d\ude00", "😀"),
        ("\ud800", "\ufffd"),
        ("\udc00\ud800", "\ufffd\ufffd"),
        ("a\ud800b", "a\ufffdb"),
        ("\ud800\ud83d\ude00\ude00", "\ufffd😀\ufffd"),
        ("😀\ud83d\ude00\ud83d", "😀😀\ufffd"),
        ("\ud83d😀", "\ufffd😀"),
    ],
)
def test_surrogate_halves_join_and_lone_ones_are_replaced(kernels: ModuleType, text: str, meant: str) -> None:
    assert kernels.escape(text) == f'"{meant}"'.encode()
    assert kernels.encode_json({text: [text]}) == f'{{"{meant}":["{meant}"]}}'.encode()


@pytest.mark.parametrize("filler", ["a", "é", "豆", "😀"])
@pytest.mark.parametrize("special", ["\n", "\x01", '"', "\\", "\ud83d\ude00"])
def test_an_escape_is_found_wherever_it_stands(kernels: ModuleType, filler: str, special: str) -> None:
    for before in range(20):
        for after in (0, 1, 7, 8, 9):
            text = filler * before + special + filler * after
            meant = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            assert json.loads(kernels.escape(text)) == meant


@pytest.mark.parametrize("character", ["\x01", '"', "a", "é", "豆", "😀", "\ud800"])
def test_a_text_larger_than_any_first_buffer_is_written_whole(kernels: ModuleType, character: str) -> None:
    expected = {"\x01": b"\\u0001", '"': b'\\"', "\ud800": b"\xef\xbf\xbd"}.get(character) or character.encode()
    assert kernels.escape(character * 5000) == b'"' + expected * 5000 + b'"'


@pytest.mark.parametrize("value", [None, 5, b"x", ["x"]])
def test_escape_refuses_what_is_not_text(kernels: ModuleType, value: object) -> None:
    with pytest.raises(ValueError, match=f"text must be str, not {type(value).__name__}"):
        kernels.escape(value)


# ---- join_json -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces", [[], [b""], [b"[", "", b"]"], ["a", "\ud800\n"], [b'{"a":', "é\U0001f600" * 2000, b"," + b"x" * 5000]]
)
def test_pieces_of_json_are_joined_with_texts_as_its_strings(kernels: ModuleType, pieces: list[bytes | str]) -> None:
    joined = b"".join(piece if isinstance(piece, bytes) else kernels.escape(piece) for piece in pieces)
    assert kernels.join_json(pieces) == joined


@pytest.mark.parametrize("piece", [None, 1, bytearray(b"a"), ["a"]])
def test_a_piece_that_is_neither_json_nor_text_is_refused(kernels: ModuleType, piece: object) -> None:
    with pytest.raises(ValueError, match="text must be str"):
        kernels.join_json([b"[", "a", piece])


# ---- encode_json ---------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: float
    y: object = None


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, b"null"),
        (True, b"true"),
        (False, b"false"),
        (0, b"0"),
        (-(2**63), b"-9223372036854775808"),
        (2**63, b"9223372036854775808"),
        (10**30, b"1" + b"0" * 30),
        (-(10**30), b"-1" + b"0" * 30),
        (1.0, b"1.0"),
        (-0.0, b"-0.0"),
        (0.1, b"0.1"),
        ("", b'""'),
        ([], b"[]"),
        ({}, b"{}"),
        ((1, 2), b"[1,2]"),
        ({"b": [1, {"a": None}], "a": "é"}, '{"b":[1,{"a":null}],"a":"é"}'.encode()),
        (OrderedDict(b=1, a=2), b'{"b":1,"a":2}'),
        (Colour.RED, b'"red"'),
        (Point(1.5), b'{"x":1.5,"y":null}'),
        (Point(1.5, 10**30), b'{"x":1.5,"y":1' + b"0" * 30 + b"}"),
        (datetime.date(2026, 11, 20), b'"2026-11-20"'),
        (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        ([10**30, 1.5, True, None, (), Colour.RED, {"k": UUID(int=1)}], None),
    ],
)
def test_values_are_written_canonically(kernels: ModuleType, value: object, written: bytes | None) -> None:
    if written is None:
        uuid = "00000000-0000-0000-0000-000000000001"
        written = b'[1%b,1.5,true,null,[],"red",{"k":"%b"}]' % (b"0" * 30, uuid.encode())
    assert kernels.encode_json(value) == written


def test_an_integer_of_any_length_is_written(kernels: ModuleType) -> None:
    assert kernels.encode_json([10**5000]) == b"[1" + b"0" * 5000 + b"]"


def test_json_text_is_written_verbatim_at_any_depth(kernels: ModuleType) -> None:
    text = JSONText('{"n":12345678901234567890,"f":1.10}', None)
    assert kernels.encode_json(text) == text.text.encode()
    assert kernels.encode_json({"a": [text, 10**30]}) == f'{{"a":[{text.text},1{"0" * 30}]}}'.encode()
    assert kernels.encode_json([JSONText('"é\ud800"', None)]) == '["é\ufffd"]'.encode()


@pytest.mark.parametrize("text", ["[1,\n2]", "1\r"])
def test_json_text_with_line_ends_is_refused(kernels: ModuleType, text: str) -> None:
    with pytest.raises(ValueError, match=r"^\$\.a: a JSONText must not hold line ends$"):
        kernels.encode_json({"a": JSONText(text, None)})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "$: NaN and Infinity are not JSON"),
        ({"a": [1, {"b": float("inf")}]}, "$.a[1].b: NaN and Infinity are not JSON"),
        ([10**30, float("-inf")], "$[1]: NaN and Infinity are not JSON"),
        ([None, Point(float("nan"))], "$[1].x: NaN and Infinity are not JSON"),
        ({1: 2}, "$: a key must be str, not int"),
        ({"a": [{None: 2}]}, "$.a[0]: a key must be str, not NoneType"),
        ({"a": object()}, "$.a: object is not a JSON type"),
        ([b"x"], "$[0]: bytes is not a JSON type"),
        ({1, 2}, "$: set is not a JSON type"),
        (nested(DEEP + 1), f"nested deeper than {DEEP} levels (limits.arguments_depth)"),
    ],
)
def test_what_json_cannot_say_is_refused_with_its_place(kernels: ModuleType, value: object, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$") as raised:
        kernels.encode_json(value)
    assert isinstance(raised.value, TypeError)


def test_none_is_not_mistaken_for_nan(kernels: ModuleType) -> None:
    assert kernels.encode_json([None, {"a": (None, 1.5)}, "null"]) == b'[null,{"a":[null,1.5]},"null"]'


def test_nesting_is_written_up_to_the_limit_and_cycles_end(kernels: ModuleType) -> None:
    assert kernels.encode_json(nested(DEEP)) == b"[" * DEEP + b"]" * DEEP
    cycle: list[Any] = []
    cycle.append({"again": cycle})
    with pytest.raises(ValueError, match=r"limits\.arguments_depth"):
        kernels.encode_json(cycle)


def test_a_deep_stack_never_lets_a_recursion_error_out(kernels: ModuleType) -> None:
    value = [*nested(200), 10**30]

    def dig(left: int) -> bytes:
        return dig(left - 1) if left else kernels.encode_json(value)

    depth = len(inspect.stack())
    with pytest.raises(ValueError, match="nested deeper"):
        dig(sys.getrecursionlimit() - depth - 120)


# ---- compact_json, parse_exact -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "compact"),
    [
        (
            ' { "a b" : [ 1.10 , 12345678901234567890 ,\r\n\t"\\u00e9 \\" \\\\" ] } ',
            '{"a b":[1.10,12345678901234567890,"\\u00e9 \\" \\\\"]}',
        ),
        ('"  "', '"  "'),
        ("1e400", "1e400"),
        ('"\\ud800"', '"\\ud800"'),
        (' "\ud800" ', '"\ud800"'),
        ("-0", "-0"),
        ("null", "null"),
        ("[" * DEEP + "]" * DEEP, "[" * DEEP + "]" * DEEP),
        (f'["{"[" * 300}"]', f'["{"[" * 300}"]'),
        ("[]," * 300, None),
        (f"[{'[],' * 300}[]]", f"[{'[],' * 300}[]]"),
        ("", None),
        (" ", None),
        ("{", None),
        ('{"a":1}}', None),
        ('["@1234567890123456789012@",{"\\\\":"\\"1234567890123456789012"}]',) * 2,
        ('["\\"",1234567890123456789012,"é 1234567890123456789012"]',) * 2,
        ("NaN", None),
        ("[Infinity]", None),
        ("-Infinity", None),
        ("[1,]", None),
        ("01", None),
        ("+1", None),
        (".5", None),
        ("'a'", None),
        ('"a\nb"', None),
        ('"\\x"', None),
        ("\u00a01", None),
        ("\ufeff1", None),
        ("1 2", None),
        ("[" * (DEEP + 1) + "]" * (DEEP + 1), None),
        ("[" * 100_000, None),
        ("[" * 100_000 + "]" * 100_000, None),
        ("9" * LIMITS.integer_digits, "9" * LIMITS.integer_digits),
        ("9" * (LIMITS.integer_digits + 1), None),
        ("0." + "9" * 5000, "0." + "9" * 5000),
        ('"' + '\\"' * 50_000, None),
    ],
)
def test_compact_json_drops_white_space_and_nothing_else(kernels: ModuleType, text: str, compact: str | None) -> None:
    assert kernels.compact_json(text) == compact


@pytest.mark.parametrize("ascii_only", [True, False])
def test_no_escape_is_taken_for_the_end_of_a_string(kernels: ModuleType, ascii_only: bool) -> None:
    pieces = ("\\", '"', " ", "\n", "é", "n", "😀", "\0", "{ ")
    for length in range(5):
        texts = ["".join(each) for each in itertools.product(pieces, repeat=length)]
        value = {"a b": texts, '\\" ': [{}, [], {"\\": "\\"}, True, -1.5e3]}
        spaced, compact = (
            json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators)
            for indent, separators in ((1, (" ,\r\n", "\t: ")), (None, (",", ":")))
        )
        assert kernels.compact_json(spaced) == kernels.compact_json(compact) == compact


def test_integers_are_parsed_exactly(kernels: ModuleType) -> None:
    text = "[18446744073709551616,-9223372036854775809,12345678901234567890123,1.5,1e2]"
    assert kernels.parse_exact(text) == [2**64, -(2**63) - 1, 12345678901234567890123, 1.5, 100.0]


def test_escaped_lone_surrogates_stay_in_the_value(kernels: ModuleType) -> None:
    assert kernels.parse_exact('["\\ud83d","\\ud83d\\ude00"]') == ["\ud83d", "😀"]


def test_the_last_of_duplicate_keys_counts(kernels: ModuleType) -> None:
    assert kernels.parse_exact('{"a":1,"a":2}') == {"a": 2}
    assert kernels.parse_exact('{"a":1,"a":12345678901234567890}') == {"a": 12345678901234567890}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[1,]", "not JSON: Illegal trailing comma before end of array at character 3|not JSON: Expecting value"),
        ("[NaN]", "not JSON: NaN is no JSON value"),
        ("[" * 2000, "not JSON|nested deeper"),
        ("[" * 300 + "]" * 300, f"nested deeper than {DEEP} levels"),
        ("9" * 5000, "more than 4300 digits"),
    ],
)
def test_what_is_not_json_says_why(kernels: ModuleType, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        kernels.parse_exact(text)


@pytest.mark.parametrize("name", ["compact_json", "parse_exact"])
def test_only_text_is_read(kernels: ModuleType, name: str) -> None:
    with pytest.raises(TypeError, match="text must be str, not bytes"):
        getattr(kernels, name)(b"1")
