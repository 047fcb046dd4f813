"""The time of a run, on a clock of its own."""

from __future__ import annotations

import math

import pytest

from gai_fast.net.runs.clock import RunClock
from tests.unit.net.fakes import FakeTime


class Run:
    """A clock of 10 seconds, and when it has ended."""

    def __init__(self) -> None:
        self.time = FakeTime()
        self.ended_at: list[float] = []
        self.clock = RunClock(self.time, 10.0, self.end)

    def end(self) -> None:
        self.ended_at.append(self.time.now)


@pytest.fixture
def run() -> Run:
    return Run()


def test_the_time_ends_once(run: Run) -> None:
    run.clock.go_on()
    run.time.advance(9)
    assert run.clock.left() == pytest.approx(1)
    run.time.advance(2)
    run.clock.go_on()
    run.time.advance(20)
    assert run.ended_at == [10]
    assert run.clock.left() == 0.0


def test_it_stands_still_while_the_run_waits(run: Run) -> None:
    assert run.clock.since_wait() == math.inf
    run.clock.go_on()
    run.time.advance(4)
    run.clock.wait()
    run.time.advance(60)
    assert run.clock.left() == pytest.approx(6)
    run.clock.go_on()
    assert run.clock.since_wait() == 60
    run.time.advance(7)
    assert run.ended_at == [70]


def test_going_on_twice_is_going_on(run: Run) -> None:
    run.clock.go_on()
    run.time.advance(6)
    run.clock.go_on()
    run.time.advance(5)
    assert run.ended_at == [10]


def test_a_loop_that_was_late_as_the_run_began_to_wait_does_not_make_its_time_endless(run: Run) -> None:
    run.clock.go_on()
    run.time.now += 12  # without a turn for timers
    run.clock.wait()
    assert run.clock.left() < 0
    run.clock.go_on()
    run.time.advance(1)
    assert run.ended_at == [12]


def test_a_run_that_goes_on_elsewhere_has_what_was_left(run: Run) -> None:
    run.clock.set_left(3.0)
    run.clock.go_on()
    run.time.advance(4)
    assert run.ended_at == [3]


def test_a_run_that_has_ended_has_no_timer(run: Run) -> None:
    run.clock.go_on()
    run.clock.stop()
    run.clock.stop()
    run.time.advance(60)
    assert not run.ended_at
    assert run.clock.left() == 10.0
