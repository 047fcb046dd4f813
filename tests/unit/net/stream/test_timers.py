"""The timers of one stream."""

from __future__ import annotations

import math
from functools import partial

from gai_fast.net.stream.timers import StreamTimers
from tests.unit.net.fakes import FakeTime


def test_one_due_time_replaces_the_other_and_infinity_is_none() -> None:
    time, calls = FakeTime(), list[str]()
    timers = StreamTimers(time, time)  # type: ignore[arg-type]  # a loop too
    timers.wait_until(1.0, lambda: calls.append("first"))
    timers.wait_until(2.0, lambda: calls.append("second"))
    time.advance(3)
    timers.wait_until(math.inf, lambda: calls.append("never"))
    assert (calls, time.armed, timers.now()) == (["second"], 0, 3.0)


def test_it_is_known_which_of_the_others_run_and_stopping_cancels_all() -> None:
    time = FakeTime()
    timers = StreamTimers(time, time)  # type: ignore[arg-type]  # a loop too
    assert (timers.awaits_attempt, timers.awaits_tick) == (False, False)
    for wait in (timers.wait_until, timers.wait_for_attempt, partial(timers.wait_for_tick, 1000)):
        wait(1.0, lambda: None)
    assert (timers.awaits_attempt, timers.awaits_tick) == (True, True)
    timers.attempt_begins()
    assert (timers.awaits_attempt, timers.awaits_tick) == (False, True)
    timers.ticks()
    assert not timers.awaits_tick
    timers.wait_for_attempt(1.0, lambda: None)
    timers.wait_for_tick(1000, 1.0, lambda: None)
    timers.stop()
    timers.stop()
    assert (timers.awaits_attempt, timers.awaits_tick) == (False, False)
