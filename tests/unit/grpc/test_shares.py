"""`gai_fast/grpc/shares.py`: who makes room."""

from __future__ import annotations

from gai_fast.grpc.shares import from_the_most


def test_those_of_the_address_that_has_the_most_come_first_and_in_order() -> None:
    held = {"a": [1, 2, 3, 4], "b": [5, 6], "c": [], "d": [7]}
    assert list(from_the_most(held, 3)) == [1, 2, 3]
    assert list(from_the_most(held, 5)) == [1, 2, 3, 5, 4]
    assert sorted(from_the_most(held, 99)) == [1, 2, 3, 4, 5, 6, 7]
    assert list(from_the_most({}, 3)) == []


def test_each_that_makes_room_costs_a_few_steps() -> None:
    class Counted(str):
        steps = 0
        __slots__ = ()

        def __lt__(self, other: str) -> bool:
            Counted.steps += 1
            return str.__lt__(self, other)

    for size in (500, 1000):
        Counted.steps = 0
        assert len(list(from_the_most({Counted(at): [at] for at in range(size)}, size // 10))) == size // 10
        assert Counted.steps <= 4 * size
