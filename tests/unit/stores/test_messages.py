"""`gai_fast/stores/messages.py`: the owner of a stream hears what others send, and a cancel waits for the end."""

from __future__ import annotations

import asyncio

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import StoreSettings
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import Ending, LogHeader, StreamLog
from gai_fast.stores.health import Health
from gai_fast.stores.memory import LogMemory
from gai_fast.stores.messages import StoreMessages
from tests.conftest import ChangeLimits
from tests.unit.stores.fake_backend import FakeBackend, World
from tests.waiting import until

CANCELLED = Ending("cancelled", "cancelled")


class Process:
    """A process with one log, be it the stream's own or a copy."""

    def __init__(self, world: World, timers: TimerWheel, name: str) -> None:
        self.log: StreamLog = LogMemory(StoreSettings(), timers).create(LogHeader("s", "caller", "m", "gai", "sse"))
        self.health = Health(timers.clock)
        self.messages = StoreMessages(FakeBackend(world), self.health, name)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def here(world: World, timers: TimerWheel) -> Process:
    return Process(world, timers, "here")


async def test_the_owner_is_asked_and_the_end_is_waited_for(world: World, timers: TimerWheel, here: Process) -> None:
    there = Process(world, timers, "there")
    heard: list[tuple[str, str]] = []
    serving = asyncio.ensure_future(there.messages.serve(lambda *each: heard.append(each)))
    asking = asyncio.ensure_future(here.messages.cancel(here.log, "there"))
    await until(lambda: heard == [("s", "cancel")])
    assert not asking.done()
    here.log.end(CANCELLED)
    await asking
    assert here.log.watchers == 0
    serving.cancel()


async def test_an_owner_that_does_not_answer_is_reported(here: Process, change_limits: ChangeLimits) -> None:
    change_limits(bus_wait=0.01)
    with pytest.raises(Error, match="has not done so") as caught:
        await here.messages.cancel(here.log, "there")
    assert (caught.value.code, caught.value.reason) == ("overloaded", "worker")
    assert here.log.watchers == 0


async def test_a_worker_that_dies_meanwhile_ends_the_wait(world: World, here: Process) -> None:
    asking = asyncio.ensure_future(here.messages.cancel(here.log, "there"))
    await until(lambda: "there" in world.messages)
    here.log.break_off(Error("network", "gone", reason="worker_lost"))
    await asking


async def test_a_store_that_fails_is_reported_and_asked_again(
    world: World, timers: TimerWheel, here: Process, change_limits: ChangeLimits
) -> None:
    change_limits(store_retry=0.01, message_wait=0.01)
    there = Process(world, timers, "there")
    heard: list[tuple[str, str]] = []
    serving = asyncio.ensure_future(there.messages.serve(lambda *each: heard.append(each)))
    world.fail()
    with pytest.raises(Error) as caught:
        await here.messages.cancel(here.log, "there")
    assert (caught.value.code, caught.value.reason) == ("overloaded", "store")
    await until(lambda: there.health.problem is not None)
    world.problem = ZeroDivisionError("a bug")
    await until(lambda: "bug" in str(there.health.problem))
    world.mend()
    world.messages["there"] = [("s", "cancel")]
    await until(lambda: heard == [("s", "cancel")])
    serving.cancel()


async def test_a_bug_while_one_message_is_handled_leaves_the_others(world: World, timers: TimerWheel) -> None:
    there = Process(world, timers, "there")
    heard: list[tuple[str, str]] = []

    def hear(stream_id: str, message: str) -> None:
        if stream_id == "bad":
            raise ZeroDivisionError
        heard.append((stream_id, message))

    world.messages["there"] = [("bad", "cancel"), ("s", "cancel")]
    serving = asyncio.ensure_future(there.messages.serve(hear))
    await until(lambda: heard == [("s", "cancel")])
    assert not serving.done()
    serving.cancel()
