"""`gai_fast/net/tools/crashes.py`: a crash is of the caller who was alone at it, or there twice in a row."""

from __future__ import annotations

import asyncio

from gai_fast.net.tools.crashes import Crash, Crashes
from tests.conftest import ChangeLimits


def crash(*callers: str) -> Crash:
    return Crash(frozenset(callers))


def test_a_caller_alone_at_a_crash_is_its_cause() -> None:
    assert Crashes().is_cause(crash("a"), "a")


def test_who_is_there_at_two_crashes_in_a_row_is_the_cause_of_the_second() -> None:
    crashes, first, second = Crashes(), crash("a", "b"), crash("a", "c")
    assert [crashes.is_cause(first, each) for each in ("a", "b")] == [False, False]
    assert [crashes.is_cause(second, each) for each in ("a", "c")] == [True, False]
    assert not crashes.is_cause(first, "a"), "what was decided of a crash stands"


def test_a_call_that_the_process_survives_ends_the_doubt() -> None:
    crashes = Crashes()
    crashes.is_cause(crash("a", "b"), "a")
    crashes.survived("b")
    last = crash("a", "b")
    assert [crashes.is_cause(last, each) for each in ("a", "b")] == [True, False]


async def test_those_in_doubt_are_told_apart() -> None:
    crashes, running, most = Crashes(), 0, 0

    async def call(caller: str) -> None:
        nonlocal running, most
        has_turn = await crashes.take_turn(caller)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        if has_turn:
            crashes.give_turn_back()

    await asyncio.gather(call("a"), call("b"))
    assert most == 2
    crashes.is_cause(crash("a", "b"), "a")
    most = 0
    await asyncio.gather(call("a"), call("b"))
    assert most == 1
    crashes.survived("a")
    await asyncio.gather(call("a"), call("b"))
    assert most == 2


async def test_a_call_in_doubt_waits_for_no_long_one(change_limits: ChangeLimits) -> None:
    change_limits(crash_wait=0.01)
    crashes = Crashes()
    crashes.is_cause(crash("a", "b"), "a")
    assert await crashes.take_turn("a")
    assert not await crashes.take_turn("b"), "it goes on without its turn"
    assert not await crashes.take_turn("c"), "it is not in doubt"
    crashes.give_turn_back()
    assert await crashes.take_turn("b")
