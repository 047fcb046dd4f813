"""`net/runs/approvals/waits.py`: what a run reads of its record, and when it leaves its session."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from typing import Any

import pytest

from gai_fast.net.runs.approvals import waits as run_waits
from gai_fast.net.runs.approvals.waits import RecalledRun, kept_turns, known, park
from gai_fast.net.runs.records.records import KeptRun
from gai_fast.stores.backend import StoreError

RUN = KeptRun(b"", [], {})


class Kept:
    """The records of a run: what each call returns or raises, in order."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = [*outcomes]
        self.asked: list[Any] = []

    async def _next(self, *asked: Any) -> Any:
        self.asked.append(asked)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def go_on(self, epoch: int, *, is_own: bool) -> Any:
        return await self._next(epoch, is_own)

    async def keep_now(self, state: bytes, added: bytes) -> Any:
        return await self._next(state, added)


def recalled(run: KeptRun) -> RecalledRun:
    return RecalledRun(run.state, [], [], run.begun)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_waits, "SHARED", dataclasses.replace(run_waits.SHARED, store_retry=0.001))


async def test_a_store_that_fails_is_asked_again_as_one_that_may_have_the_epoch() -> None:
    kept: Any = Kept(StoreError("unreachable", "a test"), RUN)
    assert await kept_turns(kept, 2, recalled, "s", is_own=False) == (recalled(RUN), {})
    assert kept.asked == [(2, False), (2, True)]


async def test_what_is_damaged_stays_so() -> None:
    kept: Any = Kept(StoreError("damaged", "a test"), RUN)
    with pytest.raises(StoreError):
        await kept_turns(kept, 2, recalled, "s", is_own=False)


async def test_nothing_is_kept_of_a_run_that_has_kept_nothing() -> None:
    kept: Any = Kept(None)
    assert await kept_turns(kept, 2, recalled, "s", is_own=True) is None


class Waiting:
    """A run that waits, and its approvals."""

    def __init__(self, *held: bool) -> None:
        self.work: list[asyncio.Future[None]] = []
        self.expires = 1 << 60
        self.executed = [1, 1, 1]
        self.held = [*held]
        self.left: list[dict[str, int]] = []

    def open(self) -> dict[str, int]:
        return {"s-1": self.expires}

    def waits(self) -> int | None:
        return self.executed.pop(0) if self.executed else None

    def holds(self) -> bool:
        return bool(self.held and self.held.pop(0))

    async def park(self, kept: Any) -> list[dict[str, int]]:
        approvals: Any = self
        await park(kept, approvals, self.waits, self.holds, lambda: (b"state", b"told"), self.left.append)
        return self.left


async def test_a_run_leaves_once_all_is_kept() -> None:
    waiting, kept = Waiting(True), Kept(True)
    assert await waiting.park(kept) == [{"s-1": 1 << 60}]
    assert kept.asked == [(b"state", b"told")]


async def test_a_run_that_its_store_has_not_kept_tries_again() -> None:
    waiting, kept = Waiting(), Kept(False, True)
    waiting.executed.append(1)
    assert len(await waiting.park(kept)) == 1
    assert len(kept.asked) == 2


async def test_a_run_stays_that_does_something_as_it_is_kept() -> None:
    waiting = Waiting()
    waiting.executed = [1, 2]
    assert await waiting.park(Kept(True)) == []


@pytest.mark.parametrize(("kept", "expires"), [(None, 1 << 60), (True, 0)])
async def test_a_run_stays_that_is_too_large_or_whose_approval_expires(kept: bool | None, expires: int) -> None:
    waiting = Waiting()
    waiting.expires = expires
    assert await waiting.park(Kept(kept)) == []


async def test_work_on_approvals_ends_first() -> None:
    waiting, loop = Waiting(), asyncio.get_running_loop()
    work = loop.create_future()
    waiting.work = [work]
    work.add_done_callback(lambda _: waiting.work.clear())
    loop.call_later(0.01, work.set_result, None)
    assert len(await waiting.park(Kept(True))) == 1
    assert work.done()


async def test_what_is_known_is_awaited_at_once() -> None:
    assert await asyncio.wait_for(known(True), math.inf)
