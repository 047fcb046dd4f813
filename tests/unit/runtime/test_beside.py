"""Work beside the loop."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from gai_fast.runtime.beside import Beside
from gai_fast.runtime.breathing import breathe


async def test_the_loop_goes_on_while_there_is_work() -> None:
    beside, turns = Beside(asyncio.get_running_loop()), threading.Semaphore(0)

    def work() -> str:
        while not turns.acquire(blocking=False):  # spins: it holds the interpreter but where it breathes
            breathe()
        return threading.current_thread().name

    result = beside.do(work)
    await asyncio.sleep(0.01)
    assert not result.done()
    turns.release()
    assert (await result).startswith("gai-fast-beside")
    beside.close()


async def test_pieces_of_work_are_done_one_after_another() -> None:
    beside, at_once, most = Beside(asyncio.get_running_loop()), 0, 0

    def work() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.002)
        at_once -= 1

    await asyncio.gather(*[beside.do(work) for _ in range(5)])
    assert most == 1
    beside.close()


async def test_an_error_is_the_result_and_work_that_was_given_up_is_not_begun() -> None:
    beside, begun, go = Beside(asyncio.get_running_loop()), 0, threading.Event()

    def fail() -> None:
        raise ValueError("no")

    def count() -> None:
        nonlocal begun
        begun += 1

    with pytest.raises(ValueError, match="no"):
        await beside.do(fail)
    first = beside.do(go.wait)
    second = beside.do(count)
    second.cancel()
    await asyncio.sleep(0)  # the executor hears of it
    go.set()
    await first
    await beside.do(lambda: None)
    assert begun == 0
    beside.close()


async def test_it_may_be_closed_without_work_and_twice() -> None:
    beside = Beside(asyncio.get_running_loop())
    beside.close()
    await beside.do(lambda: None)
    beside.close()
    beside.close()
