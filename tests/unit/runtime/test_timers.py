from __future__ import annotations

import asyncio
import gc
import random
import weakref
from functools import partial

import pytest

from gai_fast.runtime.timers import TimerHandle, TimerWheel
from tests.limits import LIMITS
from tests.unit.fake_loop import FakeLoop
from tests.waiting import SECONDS


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def wheel(loop: FakeLoop) -> TimerWheel:
    return TimerWheel(loop)


def test_a_timer_never_fires_early_and_at_most_one_tick_late(loop: FakeLoop, wheel: TimerWheel) -> None:
    chance = random.Random(1)
    fired: dict[float, float] = {}
    deadlines = [1000 + chance.random() * 20 for _ in range(500)] + [1000 + n * LIMITS.timer_tick for n in range(100)]
    for deadline in deadlines:
        wheel.schedule(deadline, lambda deadline=deadline: fired.setdefault(deadline, loop.now))
    loop.advance(30)
    assert len(fired) == len(set(deadlines))
    for deadline, at in fired.items():
        assert deadline <= at <= deadline + LIMITS.timer_tick * 1.001


def test_nothing_runs_while_no_timer_is_set(loop: FakeLoop, wheel: TimerWheel) -> None:
    assert not loop.handles
    wheel.schedule(1001, lambda: None)
    timer = wheel.schedule(1005, lambda: None)
    assert len(loop.handles) == 1
    loop.advance(2)
    timer.cancel()
    assert not loop.handles
    assert len(wheel) == 0


def test_a_distant_timer_costs_no_turns_until_it_is_due(loop: FakeLoop, wheel: TimerWheel) -> None:
    wheel.schedule(1000 + 600, lambda: None)
    loop.advance(599)
    assert loop.runs == 0
    loop.advance(2)
    assert loop.runs == 1


def test_an_earlier_timer_is_not_held_up_by_a_later_one(loop: FakeLoop, wheel: TimerWheel) -> None:
    order: list[str] = []
    wheel.schedule(1010, lambda: order.append("late"))
    wheel.schedule(1001, lambda: order.append("early"))
    loop.advance(2)
    assert order == ["early"]
    loop.advance(10)
    assert order == ["early", "late"]


def test_a_cancelled_timer_never_fires_whoever_cancels_it(loop: FakeLoop, wheel: TimerWheel) -> None:
    fired: list[str] = []
    timers: dict[str, TimerHandle] = {}

    def fire(name: str, other: str) -> None:
        fired.append(name)
        timers[other].cancel()

    timers["a"] = wheel.schedule(1001, lambda: fire("a", "b"))  # the same tick: only one of them may run
    timers["b"] = wheel.schedule(1001, lambda: fire("b", "a"))
    timers["c"] = wheel.schedule(1001, lambda: fired.append("c"))
    timers["c"].cancel()
    timers["c"].cancel()
    loop.advance(5)
    assert len(fired) == 1
    timers[fired[0]].cancel()
    assert len(wheel) == 0


def test_a_timer_for_the_past_fires_soon_and_never_within_the_same_turn(loop: FakeLoop, wheel: TimerWheel) -> None:
    fired: list[float] = []

    def again() -> None:
        fired.append(loop.now)
        if len(fired) < 4:
            wheel.schedule(0, again)

    wheel.schedule(0, again)
    loop.stand_still(0)
    assert len(fired) <= 1
    loop.advance(1)
    assert len(fired) == 4
    assert len(set(fired)) == 4


def test_a_callback_that_raises_harms_no_other_timer(loop: FakeLoop, wheel: TimerWheel) -> None:
    fired: list[int] = []
    for n in range(3):
        wheel.schedule(1001, lambda n=n: fired.append(n))
        wheel.schedule(1001, lambda: 1 // 0)
    wheel.schedule(1002, lambda: fired.append(9))
    loop.advance(3)
    assert sorted(fired) == [0, 1, 2, 9]
    assert len(loop.errors) == 3
    assert len(wheel) == 0


@pytest.mark.parametrize("late", [0.2, 60])
def test_after_a_standstill_the_sockets_are_read_before_a_timer_fires(
    loop: FakeLoop, wheel: TimerWheel, late: float
) -> None:
    fired: list[float] = []
    wheel.schedule(1005, lambda: fired.append(loop.now))
    loop.stand_still(5 + late)
    assert fired == []
    loop.advance(LIMITS.timer_tick)
    assert len(fired) == 1


def test_timers_set_while_the_wheel_waits_after_a_standstill_fire_too(loop: FakeLoop, wheel: TimerWheel) -> None:
    fired: list[str] = []
    wheel.schedule(1005, lambda: fired.append("old"))
    loop.stand_still(65)
    wheel.schedule(1004, lambda: fired.append("older"))
    wheel.schedule(1066, lambda: fired.append("new"))
    loop.advance(3)
    assert sorted(fired) == ["new", "old", "older"]


def test_the_wheel_keeps_nothing_of_timers_that_are_over(loop: FakeLoop, wheel: TimerWheel) -> None:
    class Owner:
        def fire(self) -> None: ...

    owners = [Owner() for _ in range(100)]
    timers = [wheel.schedule(1000 + n, owner.fire) for n, owner in enumerate(owners)]
    for timer in timers[::2]:
        timer.cancel()
    loop.advance(200)
    watched = [weakref.ref(owner) for owner in owners]
    del owners, timers, timer
    gc.collect()
    assert not any(ref() for ref in watched)


def test_setting_and_cancelling_does_not_grow_the_wheel(loop: FakeLoop, wheel: TimerWheel) -> None:
    keep = wheel.schedule(1000 + 10_000, lambda: None)
    for _ in range(20_000):
        wheel.schedule(loop.now + 60, lambda: None).cancel()
        loop.advance(0.01)
    assert len(wheel) == 1
    assert len(wheel._slots) <= 60 / LIMITS.timer_tick + 2
    keep.cancel()
    assert not wheel._slots
    assert not loop.handles


@pytest.mark.parametrize("order", [1, -1])
def test_a_tick_whose_timers_are_all_cancelled_keeps_none_of_them(
    loop: FakeLoop, wheel: TimerWheel, order: int
) -> None:
    keep = wheel.schedule(1000 + 10_000, lambda: None)
    for timer in [wheel.schedule(1060, lambda: None) for _ in range(1000)][::order]:
        timer.cancel()
    assert {slot.first for slot in wheel._slots.values()} == {None, keep}


def test_the_timers_of_a_tick_that_are_left_run_the_last_one_first(loop: FakeLoop, wheel: TimerWheel) -> None:
    ran: list[int] = []
    timers = [wheel.schedule(1060, partial(ran.append, number)) for number in range(5)]
    for number in (0, 2, 4):  # at either end, and between others
        timers[number].cancel()
    timers.append(wheel.schedule(1060, partial(ran.append, 5)))
    loop.advance(61)
    assert ran == [5, 3, 1]


async def test_a_real_loop_runs_it() -> None:
    loop = asyncio.get_running_loop()
    wheel = TimerWheel(loop)
    fired: list[str] = []
    done = loop.create_future()
    now = loop.time()
    wheel.schedule(now + 0.12, lambda: done.set_result(fired.append("late")))
    wheel.schedule(now + 0.02, lambda: fired.append("early"))
    await asyncio.wait_for(done, SECONDS)
    assert fired == ["early", "late"]
    assert len(wheel) == 0
