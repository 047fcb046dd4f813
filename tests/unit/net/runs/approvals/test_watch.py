"""The look at approvals that are waited for, at records and a time of its own."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest

from gai_fast.net.limits import LIMITS
from gai_fast.net.runs.approvals.watch import ApprovalWatch
from gai_fast.stores.backend import StoreError
from tests.unit.net.fakes import FakeTime


class Records:
    """Approvals: whether each is decided, and which are damaged. The store fails while `is_out`."""

    def __init__(self) -> None:
        self.decided: set[str] = set()
        self.damaged: set[str] = set()
        self.slow: set[str] = set()
        self.read: list[str] = []
        self.is_out = False

    async def is_decided(self, approval_id: str) -> bool:
        self.read.append(approval_id)
        if self.is_out:
            raise StoreError("unreachable", "a test")
        if approval_id in self.slow:
            raise StoreError("slow", "a test")
        if approval_id in self.damaged:
            raise StoreError("damaged", "a test")
        return approval_id in self.decided


class Run:
    """A run that waits; it hears of a decision once."""

    def __init__(self, watch: ApprovalWatch, *approvals: str) -> None:
        self.watch = watch
        self.heard: list[str] = []
        for approval_id in approvals:
            watch.add(approval_id, self)

    def hear(self, approval_id: str) -> None:
        self.heard.append(approval_id)
        self.watch.remove(approval_id, self)


class Scene:
    def __init__(self) -> None:
        self.time = FakeTime()
        self.records = Records()
        given: Any = self.records
        self.work: Coroutine[Any, Any, None] | None = None
        self.watch = ApprovalWatch(given, self.time, self.start)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        self.work = work

    async def looked(self) -> list[str]:
        """Lets the time of a look pass; returns what was read."""
        self.records.read.clear()
        self.time.advance(LIMITS.approval_look + 1)
        if self.work is not None:
            await self.work
            self.work = None
        return self.records.read


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_a_decision_of_which_nobody_has_told_is_found(scene: Scene) -> None:
    run, other = Run(scene.watch, "a-1", "a-2"), Run(scene.watch, "b-1")
    assert await scene.looked() == ["a-1", "a-2", "b-1"]
    scene.records.decided |= {"a-2", "b-1"}
    await scene.looked()
    assert (run.heard, other.heard) == (["a-2"], ["b-1"])
    assert await scene.looked() == ["a-1"]


async def test_while_nobody_waits_nothing_is_read_and_no_timer_runs(scene: Scene) -> None:
    run = Run(scene.watch, "a-1")
    scene.watch.remove("a-1", run)
    assert await scene.looked() == []
    assert scene.watch._timer is None
    Run(scene.watch, "b-1")
    assert await scene.looked() == ["b-1"]


async def test_a_store_that_fails_is_asked_again_at_the_next_look(scene: Scene) -> None:
    run = Run(scene.watch, "a-1", "a-2")
    scene.records.decided.add("a-1")
    scene.records.is_out = True
    assert await scene.looked() == ["a-1"]
    assert await scene.looked() == ["a-2"]
    scene.records.is_out = False
    assert await scene.looked() == ["a-1", "a-2"]
    assert run.heard == ["a-1"]


async def test_an_approval_that_the_store_is_slow_with_hides_none_of_another_caller(scene: Scene) -> None:
    slow, other = Run(scene.watch, "a-1", "a-2"), Run(scene.watch, "b-1")
    scene.records.slow |= {"a-1", "a-2"}
    scene.records.decided.add("b-1")
    assert await scene.looked() == ["a-1", "a-2", "b-1"]
    assert (slow.heard, other.heard) == ([], ["b-1"])
    Run(scene.watch, "c-1")
    scene.watch.remove("a-2", slow)
    Run(scene.watch, "d-1")
    assert await scene.looked() == ["a-1", "c-1", "d-1"]
    assert await scene.looked() == ["c-1", "d-1", "a-1"]


async def test_a_damaged_approval_hides_no_other_one(scene: Scene) -> None:
    run = Run(scene.watch, "a-1", "a-2")
    scene.records.damaged.add("a-1")
    scene.records.decided.add("a-2")
    assert await scene.looked() == ["a-1", "a-2"]
    assert run.heard == ["a-2"]


async def test_whoever_waits_last_hears_of_it(scene: Scene) -> None:
    """A run that leaves its session: the session ends its wait behind the beginning of the other."""
    session = Run(scene.watch, "a-1")
    parked = Run(scene.watch, "a-1")
    scene.watch.remove("a-1", session)
    scene.records.decided.add("a-1")
    await scene.looked()
    assert (session.heard, parked.heard) == ([], ["a-1"])


async def test_who_ends_its_wait_amid_a_look_hears_nothing(scene: Scene) -> None:
    run = Run(scene.watch, "a-1")
    scene.records.decided.add("a-1")
    scene.time.advance(LIMITS.approval_look + 1)
    assert scene.work is not None
    scene.watch.remove("a-1", run)
    await scene.work
    assert run.heard == []
