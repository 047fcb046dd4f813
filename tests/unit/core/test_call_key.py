"""`core/call_key.py`: keys are SHA-256 of canonical JSON, whatever the arguments hold."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.core.call_key import approval_digest, idempotency_key

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


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
