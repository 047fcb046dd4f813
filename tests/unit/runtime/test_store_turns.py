"""`gai_fast/runtime/store_turns.py`: no caller keeps others from a store."""

from __future__ import annotations

import asyncio

import pytest

from gai_fast.model.settings import ANONYMOUS
from gai_fast.runtime.store_turns import StoreTurns
from gai_fast.stores.backend import StoreError


class World:
    """Requests, in the order in which they were sent."""

    def __init__(self, most: int) -> None:
        self.turns = StoreTurns(most)
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
    world.turns.fail("anna", StoreError("slow", "no answer"))
    with pytest.raises(StoreError):
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
