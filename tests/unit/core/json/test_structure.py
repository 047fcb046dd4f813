"""`core/json/structure.py`: the limits of a client's JSON, whatever the pieces in which it is read."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from gai_fast.core.json.structure import Structure
from gai_fast.model.errors import InvalidRequest
from tests.limits import LIMITS


def read(text: bytes, size: int, depth: int = 5) -> str | None:
    """What a text is refused for, read in pieces of a size."""
    structure = Structure(depth)
    try:
        for start in range(0, len(text), size):
            structure.feed(text[start : start + size])
    except InvalidRequest as refused:
        return refused.reason
    return None


def value(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(4 if depth else 2)
    if kind == 0:
        return chance.choice(["", '"', "\\", '\\"[', "{:,", "[[[[[[[", "]]", "a" * 9, "\\\\"])
    if kind == 1:
        return chance.choice([1, None, 2.5])
    inner = [value(chance, depth - 1) for _ in range(chance.randrange(4))]
    return inner if kind == 2 else {f'{at}":[\\': each for at, each in enumerate(inner)}


def depth_of(one: Any) -> int:
    if isinstance(one, dict):
        one = [*one.values()]
    return 1 + max(map(depth_of, one), default=0) if isinstance(one, list) else 0


@pytest.mark.parametrize("seed", range(40))
def test_the_nesting_is_exact_in_pieces_of_any_size(seed: int) -> None:
    chance = random.Random(seed)
    tree = [value(chance, 8) for _ in range(6)]
    text, depth = json.dumps(tree).encode(), depth_of(tree)
    for size in (1, 2, 3, 7, len(text)):
        assert read(text, size, depth) is None, size
        assert read(text, size, depth - 1) == "depth", size


@pytest.mark.parametrize("size", [1000, 4096, 1 << 30])
def test_the_limits_of_values_hold_in_pieces_of_any_size(size: int) -> None:
    def members(count: int) -> bytes:
        return b"{%b}" % b",".join([b'"%d":",:"' % at for at in range(count)])

    def containers(count: int) -> bytes:
        return b"[%b]" % b",".join([b"{}"] * (count - 1))

    def values(count: int) -> bytes:
        return b"[%b]" % b",".join([b'"[,:"'] * count)

    def objects(count: int) -> bytes:
        return b"[%b]" % b",".join([members(LIMITS.object_members)] * (count // LIMITS.object_members) + [b'{"x":0}'])

    assert read(objects(LIMITS.json_members - LIMITS.object_members), size) is None
    assert read(objects(LIMITS.json_members), size) == "items"
    for made, most in (
        (members, LIMITS.object_members),
        (containers, LIMITS.json_containers),
        (values, LIMITS.json_values),
    ):
        assert read(made(most), size) is None, made
        assert read(made(most + 1), size) == "items", made


@pytest.mark.parametrize("size", [4096, 1 << 18, 1 << 30])
def test_digits_of_long_numbers_are_limited_in_pieces_of_any_size(size: int) -> None:
    """Reading and writing a number takes time that grows with the square of its digits."""
    number = b"1" * 1000
    most = LIMITS.json_long_digits // len(number)
    text = b'"%b"' % (b"2" * 1_000_000)
    short = b",".join([b"1" * LIMITS.short_number] * 10_000)
    assert read(b"[%b,%b,%b]" % (b",".join([number] * (most // 2)), text, short), size) is None
    for between in (b"", b"1,"):
        numbers = b",".join([between + b"-%b" % number] * (2 * most))
        assert read(b"[%b,%b]" % (text, numbers), size) == "items", between
    assert read(b"[%b]" % b",".join([b"0." + number, b"1e-" + number] * most), size) == "items"


def test_pieces_split_escapes_anywhere() -> None:
    text = json.dumps(["\\" * odd + '"[[[[[[' for odd in range(9)]).encode()
    for size in range(1, 12):
        assert read(text, size, 1) is None
