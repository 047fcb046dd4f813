"""The pieces of one write, on both implementations."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import load

PIECES = st.lists(st.binary(max_size=40).flatmap(lambda data: st.sampled_from([data, memoryview(data)])), max_size=5)


def test_pieces_are_one_chunk_between_head_and_tail(kernels: ModuleType) -> None:
    pieces = [b"data: ", memoryview(b"1\n\n"), b"", b"x" * 8]
    assert kernels.size_of(pieces) == 17
    assert kernels.frame_chunk(b"HEAD", pieces, b"TAIL") == b"HEAD11\r\ndata: 1\n\nxxxxxxxx\r\nTAIL"


@pytest.mark.parametrize("pieces", [[], (), [b"", memoryview(b"")]])
def test_nothing_is_no_chunk(kernels: ModuleType, pieces: Any) -> None:
    assert kernels.size_of(pieces) == 0
    assert kernels.frame_chunk(b"HEAD", pieces, b"TAIL") == b"HEADTAIL"


@pytest.mark.parametrize("pieces", [None, 1, [b"x", 1], [b"x", "text"], [None]])
def test_anything_else_is_refused(kernels: ModuleType, pieces: Any) -> None:
    with pytest.raises(TypeError):
        kernels.frame_chunk(b"", pieces, b"")


@pytest.mark.parametrize("size", [15, 16, 255, 256, 70_000])
def test_a_size_has_as_many_digits_as_it_needs(kernels: ModuleType, size: int) -> None:
    assert kernels.frame_chunk(b"", [b"x" * size], b"") == b"%x\r\n%b\r\n" % (size, b"x" * size)


class Liar(bytes):
    """Says that it has another size."""

    claimed = 0

    def __len__(self) -> int:
        return self.claimed


@pytest.mark.native
@pytest.mark.parametrize("claimed", [0, 2, 4])
def test_a_piece_that_is_not_as_long_as_it_says_harms_nothing(claimed: int) -> None:
    liar = Liar(b"abc")
    liar.claimed = claimed
    with pytest.raises(ValueError, match="pieces have"):
        load("native").frame_chunk(b"", (b"x", liar), b"")


@pytest.mark.native
@given(head=st.binary(max_size=9), pieces=PIECES, tail=st.binary(max_size=9))
def test_native_equals_pure(head: bytes, pieces: list[bytes | memoryview], tail: bytes) -> None:
    made = [
        (kernels.size_of(pieces), kernels.frame_chunk(head, pieces, tail)) for kernels in map(load, ("pure", "native"))
    ]
    assert made[0] == made[1]
