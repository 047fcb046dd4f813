"""Chunked bodies: native equals pure, however the bytes are cut and whatever is wrong with them."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

CHUNK = st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from([b"", b";a=b", b" ", b"\t;x"])).map(
    lambda chunk: b"%x%b\r\n%b\r\n" % (len(chunk[0]), chunk[1], chunk[0])
)
BODY = st.tuples(
    st.lists(CHUNK, max_size=5).map(b"".join),
    st.sampled_from([b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"0\r\n\r\nrest", b"", b"5\r\nhe", b"0\r\n\r"]),
).map(b"".join)
DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(b"\0\r\n0;xaG ")), max_size=2)


def outcome(kernel: type, data: bytes, cuts: list[float], ahead: bytes = b"") -> tuple[object, ...]:
    """Returns the result of a body; each read stands behind other bytes, as the first one stands behind a head."""
    body = kernel()
    out = b""
    ends = [*sorted(int(cut * len(data)) for cut in cuts), len(data)]
    at = 0
    for end in ends:
        if body.complete or body.broken:
            break
        out += body.feed(ahead + data[at:end], len(ahead))
        at = end
    # Once it is broken nobody asks how much of it was looked at.
    return (out, "broken") if body.broken else (out, body.complete, body.rest, body.overhead)


@given(
    data=BODY, damage=DAMAGE, cuts=st.lists(st.floats(0, 1), max_size=6), ahead=st.sampled_from([b"", b"1\r\na\r\n"])
)
def test_native_equals_pure(
    both: tuple[ModuleType, ModuleType], data: bytes, damage: list[tuple[float, int]], cuts: list[float], ahead: bytes
) -> None:
    native, pure = both
    spoilt = bytearray(data)
    for place, octet in damage:
        if spoilt:
            spoilt[int(place * len(spoilt))] = octet
    expected = outcome(pure.ChunkedBody, bytes(spoilt), cuts)
    assert outcome(native.ChunkedBody, bytes(spoilt), cuts) == expected
    assert outcome(native.ChunkedBody, bytes(spoilt), cuts, ahead) == expected
    assert outcome(pure.ChunkedBody, bytes(spoilt), cuts, ahead) == expected


@pytest.mark.parametrize("place", [-1, 4])
def test_a_place_that_is_not_in_the_bytes_is_refused(both: tuple[ModuleType, ModuleType], place: int) -> None:
    for kernels in both:
        with pytest.raises(ValueError, match="no place in these bytes"):
            kernels.ChunkedBody().feed(b"1\r\n", place)
