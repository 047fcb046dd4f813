"""Callbacks run in order, one batch per read, and harm no stream."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from gai_fast.core.callbacks import EventManager
from gai_fast.net.stream.callbacks import CallbackRunner
from tests.limits import LIMITS
from tests.waiting import SECONDS

DELTA: Any = {"type": "text.delta", "text": "a"}
FINISH: Any = {"type": "finish"}


class Upstream:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")


def runner(manager: EventManager, upstream: Upstream | None = None) -> CallbackRunner:
    upstream = upstream or Upstream()
    return CallbackRunner(manager, asyncio.get_running_loop(), pause=upstream.pause, resume=upstream.resume)


async def test_plain_functions_are_called_at_once() -> None:
    seen: list[Any] = []
    run = runner(EventManager(on_delta=seen.append, on_complete=seen.append))
    run.dispatch([DELTA, DELTA, FINISH])
    assert seen == [DELTA, DELTA, FINISH]
    await run.close()


async def test_async_functions_run_in_order_in_one_task() -> None:
    seen: list[Any] = []
    tasks: set[Any] = set()

    async def note(event: Any) -> None:
        await asyncio.sleep(0.001 if len(seen) % 2 else 0)
        tasks.add(asyncio.current_task())
        seen.append(event["text"])

    run = runner(EventManager(on_delta=note))
    run.dispatch([{**DELTA, "text": str(number)} for number in range(10)])
    assert seen == []
    run.dispatch([{**DELTA, "text": "10"}])
    await run.close()
    assert seen == [str(number) for number in range(11)]
    assert len(tasks) == 1


async def test_a_function_that_raises_is_logged_once_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    def bad(event: Any) -> None:
        seen.append(event)
        raise RuntimeError("not for the log of others: " + "x")

    async def bad_later(event: Any) -> None:
        seen.append(event)
        raise ValueError("worse")

    with caplog.at_level(logging.WARNING, "gai_fast.core.callbacks"):
        run = runner(EventManager(on_delta=bad, on_complete=bad_later, on_usage=bad_later))
        run.dispatch([DELTA, DELTA, {**FINISH, "usage": {}}])
        await run.close()
    assert len(seen) == 4
    assert [record.getMessage().split(" raised ")[1] for record in caplog.records] == [
        "RuntimeError; the stream goes on",
        "ValueError; the stream goes on",
    ]


async def test_what_is_cancelled_within_a_callback_is_not_the_stream() -> None:
    seen: list[Any] = []

    async def cancelled(event: Any) -> None:
        seen.append(event)
        raise asyncio.CancelledError

    run = runner(EventManager(on_delta=cancelled))
    run.dispatch([DELTA, DELTA])
    await run.close()
    assert len(seen) == 2


async def test_callbacks_that_fall_behind_stop_the_upstream() -> None:
    gate = asyncio.Event()
    upstream = Upstream()

    async def slow(event: Any) -> None:
        await gate.wait()

    run = runner(EventManager(on_delta=slow), upstream)
    run.dispatch([DELTA] * (LIMITS.callbacks_waiting - 1))
    assert upstream.calls == []
    run.dispatch([DELTA] * 2)
    assert upstream.calls == ["pause"]
    await asyncio.sleep(0)
    gate.set()
    await run.close()
    assert upstream.calls == ["pause", "resume"]


async def test_one_that_never_ends_is_cancelled_in_the_end() -> None:
    ended: list[str] = []

    async def hanging(event: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    run = runner(EventManager(on_delta=hanging))
    run.dispatch([DELTA, DELTA])
    await run.close(0.01)
    await asyncio.sleep(0)
    assert ended == ["cancelled"]
    run.dispatch([DELTA])
    run.cancel()
    await asyncio.sleep(0)
    assert ended == ["cancelled"]


@pytest.mark.parametrize(
    ("kind", "is_early", "is_waited_for"),
    [(None, False, True), (ValueError, False, True), (asyncio.CancelledError, False, False), (None, True, False)],
)
async def test_only_a_program_that_leaves_at_the_end_waits_for_the_callbacks(
    kind: type[BaseException] | None, is_early: bool, is_waited_for: bool
) -> None:
    done = False

    async def slow(event: Any) -> None:
        nonlocal done
        await asyncio.sleep(0)
        done = True

    run = runner(EventManager(on_delta=slow))
    run.dispatch([DELTA])
    await run.leave(kind, is_early=is_early)
    assert done is is_waited_for


async def test_a_plain_function_that_asks_a_cancelled_future_harms_nothing() -> None:
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    seen: list[Any] = []
    run = runner(EventManager(on_delta=lambda event: cancelled.result(), on_complete=seen.append))
    run.dispatch([DELTA, DELTA, FINISH])
    assert seen == [FINISH]
    await run.close()


async def test_who_is_cancelled_while_waiting_for_the_callbacks_leaves_none_behind() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hanging(event: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    run = runner(EventManager(on_delta=hanging))
    run.dispatch([DELTA])
    await begun.wait()
    closing = asyncio.create_task(run.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await asyncio.wait_for(ended.wait(), SECONDS)
