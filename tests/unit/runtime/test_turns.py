"""Turns of callers, and places that they share."""

import asyncio

import pytest

from gai_fast.model.settings import ANONYMOUS
from gai_fast.runtime.turns import CallerTurns, NoPlace, Places


def test_callers_take_turns_and_of_one_the_first_is_first() -> None:
    turns: CallerTurns[str] = CallerTurns()
    for name in ("a1", "a2", "a3", "b1", "c1"):
        turns.add(name[0], name)
    assert [turns.take() for _ in range(6)] == ["a1", "b1", "c1", "a2", "a3", None]


def test_a_caller_whose_turn_it_is_not_keeps_its_place() -> None:
    turns: CallerTurns[str] = CallerTurns()
    turns.add("a", "a1")
    turns.add("b", "b1")
    assert turns.take(lambda caller: caller != "a") == "b1"
    assert turns.take(lambda caller: caller != "a") is None
    assert turns.take() == "a1"


def test_what_waits_no_longer_is_removed() -> None:
    turns: CallerTurns[str] = CallerTurns()
    turns.add("a", "a1")
    assert turns.remove("a", "a1")
    assert not turns.remove("a", "a1")
    assert (turns.count, turns.take()) == (0, None)


def test_a_caller_has_half_of_the_room() -> None:
    turns: CallerTurns[int] = CallerTurns()
    for number in range(2):
        assert turns.has_room("a", 4)
        turns.add("a", number)
    assert not turns.has_room("a", 4)
    assert turns.has_room("b", 4)
    assert turns.has_room(ANONYMOUS, 4)


async def _taken(places: Places, caller: str, order: list[str], name: str) -> None:
    await places.take(caller)
    order.append(name)


async def test_a_free_place_goes_in_turns_to_those_who_wait() -> None:
    places, order = Places(1, 8), list[str]()
    await places.take("a")
    waiting = [asyncio.create_task(_taken(places, name[0], order, name)) for name in ("a1", "a2", "a3", "b1")]
    await asyncio.sleep(0)
    for _ in waiting:
        places.give_back()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert order == ["a1", "b1", "a2", "a3"]


async def test_one_caller_leaves_half_of_the_room_to_others() -> None:
    places = Places(1, 4)
    await places.take("a")
    waiting = [asyncio.create_task(places.take("a")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(NoPlace):
        await places.take("a")
    other = asyncio.create_task(places.take("b"))
    await asyncio.sleep(0)
    places.give_back()
    places.give_back()
    await asyncio.wait_for(other, 5)
    for each in waiting:
        each.cancel()


@pytest.mark.parametrize("is_given", [False, True])
async def test_who_leaves_keeps_no_place(is_given: bool) -> None:
    places = Places(1, 4)
    await places.take("a")
    left = asyncio.create_task(places.take("a"))
    await asyncio.sleep(0)
    if is_given:
        places.give_back()
    left.cancel()
    await asyncio.wait((left,))
    if not is_given:
        places.give_back()
    await asyncio.wait_for(places.take("b"), 5)
