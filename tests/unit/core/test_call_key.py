"""`core/call_key.py`: keys are SHA-256 of canonical JSON, whatever the arguments hold."""

from __future__ import annotations

import re
import struct
import sys
from hashlib import sha256
from math import inf, isfinite, nextafter
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.core.call_key import approval_digest, canonical_json, idempotency_key

BITS = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("d", struct.pack("Q", bits))[0]).filter(isfinite)
DECIMAL = st.builds(
    lambda digits, exponent: float(f"{digits}e{exponent}"), st.integers(-(10**17), 10**17), st.integers(-30, 25)
)
WRITTEN = (
    st.none()
    | st.booleans()
    | st.integers(1 - 2**53, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | BITS
    | DECIMAL
    | st.text()
)
"""What RFC 8785 has a form for."""


def _nested(leaves: st.SearchStrategy[Any], names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=10
    )


ANY_TEXT = st.text(st.characters(exclude_categories=()))
JSON = _nested(WRITTEN | st.integers() | ANY_TEXT, ANY_TEXT)


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ({"b": 1, "a": [True, None]}, '{"a":[true,null],"b":1}'),
        ({"n": [1.0, 0.000001, 1e21, 333333333.33333329, -0.0]}, '{"n":[1,0.000001,1e+21,333333333.3333333,0]}'),
        ({"\u20ac": "\u000f\n", "\r": "é"}, '{"\\r":"é","€":"\\u000f\\n"}'),
        ({"\ufb33": 1, "\U0001f600": 2}, '{"\U0001f600":2,"\ufb33":1}'),
        ({"id": 2**53 - 1}, '{"id":9007199254740991}'),
        ({"id": 2**53}, '{"id":"9007199254740992"}'),
        ({"a": "\ud800"}, '{"a":"\ufffd"}'),
        ({"a": "\ud83d\ude00"}, '{"a":"\U0001f600"}'),
    ],
)
def test_a_key_is_the_hash_of_canonical_json(arguments: Any, written: str) -> None:
    whole = f'["alice","request-1",2,0,"docs.search",{written}]'
    assert idempotency_key("alice", "request-1", 2, 0, "docs.search", arguments) == sha256(whole.encode()).hexdigest()
    digest = sha256(f'["appr_1","docs.search",{written}]'.encode()).hexdigest()
    assert approval_digest("appr_1", "docs.search", arguments) == digest


def test_the_order_of_members_does_not_count_and_every_part_does() -> None:
    key = idempotency_key("a", "r", 1, 0, "t", {"x": 1, "y": 2})
    assert key == idempotency_key("a", "r", 1, 0, "t", {"y": 2.0, "x": 1})
    others = [
        idempotency_key("b", "r", 1, 0, "t", {"x": 1, "y": 2}),
        idempotency_key("a", "s", 1, 0, "t", {"x": 1, "y": 2}),
        idempotency_key("a", "r", 2, 0, "t", {"x": 1, "y": 2}),
        idempotency_key("a", "r", 1, 1, "t", {"x": 1, "y": 2}),
        idempotency_key("a", "r", 1, 0, "u", {"x": 1, "y": 2}),
        idempotency_key("a", "r", 1, 0, "t", {"x": 1, "y": "2"}),
    ]
    assert len({key, *others}) == 7


@given(JSON)
def test_every_json_has_a_key(arguments: Any) -> None:
    assert re.fullmatch("[0-9a-f]{64}", idempotency_key("a", "r", 1, 0, "t", arguments))


@given(_nested(WRITTEN, st.text()))
def test_canonical_json_is_that_of_the_reference(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@given(st.lists(BITS | DECIMAL | DECIMAL.map(round).map(float), max_size=50))
def test_numbers_are_written_as_ecmascript_writes_them(numbers: list[float]) -> None:
    assert canonical_json(numbers) == rfc8785.dumps(numbers)


@pytest.mark.parametrize("power", range(-12, 24))
def test_numbers_around_a_power_of_ten_are_written_as_ecmascript_writes_them(power: int) -> None:
    around = float(f"1e{power}")
    numbers = [around, nextafter(around, 0), nextafter(around, inf), around * 1.5, -around, around * 123.456]
    assert canonical_json(numbers) == rfc8785.dumps(numbers)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_has_no_form(number: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        canonical_json({"a": [number]})


@pytest.mark.parametrize(
    ("item", "calls"),
    [(1, 0), ("text", 0), (None, 0), ([], 1), ({"a": 1}, 2), (1.5, 2), (1e20, 3), ({"\u20ac": 1}, 3)],
)
def test_large_arguments_take_few_steps(item: Any, calls: int) -> None:
    """They are hashed in the loop: what orjson can write is not looked at one by one."""
    count, most = 1_000, 30
    made = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal made
        made += event == "call"

    arguments = {"items": [item] * count}
    sys.setprofile(note)
    try:
        canonical_json(arguments)
    finally:
        sys.setprofile(None)
    assert made <= calls * count + most
