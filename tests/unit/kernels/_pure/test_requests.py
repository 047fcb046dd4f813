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
    start = kernels.body_start(head + body, BEFORE, AFTER, True)
    assert start == len(head)
    assert kernels.body_start(head + body, BEFORE, AFTER, False) == len(head)
    for end in range(len(head + body)):
        is_head = end >= len(head)
        assert kernels.body_start((head + body)[:end], BEFORE, AFTER, False) == (len(head) if is_head else -1)
        assert kernels.body_start((head + body)[:end], BEFORE, AFTER, True) == -1, "it has not come whole"
    assert kernels.body_start(head + body + b"P", BEFORE, AFTER, True) == -1, "more has come"
    assert kernels.body_start(head + body + b"P", BEFORE, AFTER, False) == len(head)


@pytest.mark.parametrize(
    "length",
    [
        *(b"", b"01", b"00", b"+1", b" 1", b"1 ", b"-1", b"1_0", b"0x1", b"1.", b"\xd9\xa1", b"18446744073709551617"),
        *(b"9" * LIMITS.max_body_digits, b"9" * (LIMITS.max_body_digits + 1), b"0" * LIMITS.max_body_digits + b"1"),
    ],
)
def test_no_other_length_than_the_bodys_is_taken(kernels: ModuleType, length: bytes) -> None:
    assert kernels.body_start(BEFORE + length + AFTER + b"x", BEFORE, AFTER, True) == -1


@pytest.mark.parametrize("at", range(len(BEFORE) + 1 + len(AFTER)))
def test_a_head_that_differs_in_a_byte_is_another(kernels: ModuleType, at: int) -> None:
    head = bytearray(BEFORE + b"1" + AFTER)
    head[at] ^= 1
    assert kernels.body_start(bytes(head) + b"x", BEFORE, AFTER, True) == -1
    is_length = at == len(BEFORE)
    assert kernels.body_start(bytes(head) + b"x", BEFORE, AFTER, False) == (len(head) if is_length else -1)


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
@pytest.mark.parametrize(
    ("drawn", "rest"),
    [
        (b"\xff" * 10, "-7fff-bfff-ffffffffffff"),
        (bytes(10), "-7000-8000-000000000000"),
        (bytes(range(10)), "-7001-8203-040506070809"),
    ],
)
def test_an_id_is_its_time_its_version_and_what_was_drawn(
    kernels: ModuleType, ms: int, began: str, drawn: bytes, rest: str
) -> None:
    made = kernels.timed_id(ms, drawn)
    assert made == began + rest
    assert (uuid.UUID(made).version, uuid.UUID(made).variant) == (7, uuid.RFC_4122)
    assert hash(made) == hash(str(made.encode(), "ascii"))


@pytest.mark.parametrize("size", [0, 9, 11])
def test_an_id_has_ten_random_bytes(kernels: ModuleType, size: int) -> None:
    with pytest.raises(ValueError, match="ten random bytes"):
        kernels.timed_id(0, bytes(size))
