"""`net/taskless.py`: coroutines of a loop without a task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gai_fast.net import taskless
from tests.waiting import until


async def awaits(futures: list[asyncio.Future[None]], seen: list[str]) -> None:
    for future in futures:
        try:
            await future
        except LookupError:
            seen.append("failed")
        else:
            seen.append("there")
    if not futures:
        raise ValueError("at once")


def begin(*futures: asyncio.Future[None]) -> tuple[list[str], list[Any]]:
    """Runs a coroutine that awaits these; what it has seen, and how it has ended."""
    seen: list[str] = []
    ends: list[Any] = []
    taskless.run(asyncio.get_running_loop(), awaits(list(futures), seen), ends.append)
    return seen, ends


async def test_it_goes_on_as_its_futures_come_and_tells_its_end_once() -> None:
    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    seen, ends = begin(first, second)
    first.set_exception(LookupError())
    await until(lambda: seen == ["failed"])
    assert not ends
    second.set_result(None)
    await until(lambda: ends == [None])
    assert seen == ["failed", "there"]


async def test_one_that_ends_at_once_tells_it_in_a_later_turn() -> None:
    _, ends = begin()
    assert not ends
    await until(lambda: len(ends) == 1)
    assert isinstance(ends[0], ValueError)


@pytest.mark.parametrize("problem", [OSError("gone"), LookupError("a bug")])
async def test_the_exception_that_ends_it_is_told(problem: Exception) -> None:
    future = asyncio.get_running_loop().create_future()

    async def fails() -> None:
        await future
        raise problem

    ends: list[Any] = []
    taskless.run(asyncio.get_running_loop(), fails(), ends.append)
    future.set_result(None)
    await until(lambda: ends == [problem])


async def test_a_future_that_is_cancelled_ends_it_as_a_broken_connection() -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    _, ends = begin(future)
    future.cancel()
    await until(lambda: len(ends) == 1)
    assert isinstance(ends[0], ConnectionAbortedError)

    async def is_cancelled_at_once() -> None:
        raise asyncio.CancelledError

    taskless.run(loop, is_cancelled_at_once(), ends.append)
    assert len(ends) == 1
    await until(lambda: len(ends) == 2)
    assert isinstance(ends[1], ConnectionAbortedError)
