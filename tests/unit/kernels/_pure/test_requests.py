"""Heads, ids and depths of requests: both implementations."""

from __future__ import annotations

import uuid
from types import ModuleType

import pytest
from hypothesis import given, strategies

from tests.limits import LIMITS

BEFORE, AFTER = b"POST /x HTTP/1.1\r\nContent-Length: ", b"\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("body", [b"", b"x", b"{}" * 5, b"x" * 1234, AFTER])
def test_the_body_of_a_known_head_is_found(kernels: ModuleType, body: bytes) -> None:
    head = BEFORE + b"%d" % len(body) + AFTER
    start = kernels.body_start(head + body, BEFORE, AFTER)
    assert start == len(head)
    for end in range(len(head + body)):
        assert kernels.body_start((head + body)[:end], BEFORE, AFTER) == -1, "it has not come whole"
    assert kernels.body_start(head + body + b"P", BEFORE, AFTER) == -1, "more has come"


@pytest.mark.parametrize(
    "length",
    [
        *(b"", b"01", b"00", b"+1", b" 1", b"1 ", b"-1", b"1_0", b"0x1", b"1.", b"\xd9\xa1", b"18446744073709551617"),
        *(b"9" * LIMITS.max_body_digits, b"9" * (LIMITS.max_body_digits + 1), b"0" * LIMITS.max_body_digits + b"1"),
    ],
)
def test_no_other_length_than_the_bodys_is_taken(kernels: ModuleType, length: bytes) -> None:
    assert kernels.body_start(BEFORE + length + AFTER + b"x", BEFORE, AFTER) == -1


@pytest.mark.parametrize("at", range(len(BEFORE) + 1 + len(AFTER)))
def test_a_head_that_differs_in_a_byte_is_another(kernels: ModuleType, at: int) -> None:
    head = bytearray(BEFORE + b"1" + AFTER)
    head[at] ^= 1
    assert kernels.body_start(bytes(head) + b"x", BEFORE, AFTER) == -1


@given(text=strategies.binary())
def test_opening_brackets_are_counted_wherever_they_stand(kernels: ModuleType, text: bytes) -> None:
    for each in (text, text * 40, b"[" + text + b'{"[{' + text):
        assert kernels.count_opening(each) == each.count(b"[") + each.count(b"{")


@pytest.mark.parametrize(
    ("ms", "began"),
    [
        (0, "00000000-0000"),
        (0x0123456789AB, "01234567-89ab"),
        (2**48 - 1, "ffffffff-ffff"),
        (2**48, "00000000-0000"),
        (-1, "ffffffff-ffff"),
    ],
)
def test_an_id_begins_with_its_time(kernels: ModuleType, ms: int, began: str) -> None:
    made = kernels.timed_id(ms, "-7fff-bfff-ffffffffffff")
    assert made == f"{began}-7fff-bfff-ffffffffffff"
    assert uuid.UUID(made).version == 7
    assert hash(made) == hash(str(made.encode(), "ascii"))
    assert kernels.timed_id(ms, "") == began


@pytest.mark.parametrize("rest", ["é", "豆", "-7fff\U0001f600"])
def test_an_id_is_ascii(kernels: ModuleType, rest: str) -> None:
    with pytest.raises(ValueError, match="ASCII"):
        kernels.timed_id(0, rest)
