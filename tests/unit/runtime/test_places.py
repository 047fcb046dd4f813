"""Places that callers share."""

import asyncio

import pytest

from gai_fast.model.settings import ANONYMOUS
from gai_fast.runtime.places import HalvedPlaces, NoPlace, Places


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


# ---- places of which a caller has half ---


class World:
    """Requests, in the order in which they were sent."""

    def __init__(self, most: int) -> None:
        self.turns = HalvedPlaces(most)
        self.sent: list[str] = []

    async def ask(self, *callers: str) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self._take(caller)) for caller in callers]
        await asyncio.sleep(0)
        return tasks

    async def _take(self, caller: str) -> None:
        await self.turns.take(caller)
        self.sent.append(caller)

    async def answer(self, caller: str) -> None:
        self.turns.give_back(caller)
        await asyncio.sleep(0)


async def test_a_caller_whose_requests_hang_leaves_half_of_the_places_to_others() -> None:
    world = World(4)
    await world.ask("anna", "anna", "anna", "anna", "bert")
    assert world.sent == ["anna", "anna", "bert"]
    await world.answer("bert")
    await world.ask("bert", "bert")
    assert world.sent[3:] == ["bert", "bert"]


async def test_who_waits_takes_turns_and_no_place_is_kept_empty() -> None:
    world = World(2)
    await world.ask("anna", "bert", "anna", "anna", "anna", "bert", "carl")
    for caller in ("anna", "bert", "carl", "anna", "bert", "anna"):
        await world.answer(caller)
    assert world.sent == ["anna", "bert", "anna", "bert", "carl", "anna", "anna"]


@pytest.mark.parametrize("caller", ["", ANONYMOUS])
async def test_the_gateway_itself_and_those_without_a_key_have_all_places(caller: str) -> None:
    world = World(4)
    await world.ask(*[caller] * 5)
    assert len(world.sent) == 4


async def test_what_waits_fails_with_a_request_of_its_caller_and_of_no_other() -> None:
    world = World(2)
    await world.ask("anna", "bert")
    anna, bert = await world.ask("anna", "bert")
    world.turns.fail("anna", TimeoutError())
    with pytest.raises(TimeoutError):
        await anna
    await world.answer("bert")
    await bert
    assert world.sent == ["anna", "bert", "bert"]


async def test_a_request_that_is_cancelled_keeps_no_place() -> None:
    world = World(1)
    await world.ask("")
    early, late = await world.ask("", "")
    early.cancel()
    await asyncio.sleep(0)
    world.turns.give_back("")  # the turn of the late one, which is cancelled in the same moment
    late.cancel()
    await asyncio.wait([early, late])
    await world.ask("")
    assert world.sent == ["", ""]
