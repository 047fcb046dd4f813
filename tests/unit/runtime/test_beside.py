"""Work beside the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial

import pytest

from gai_fast.model.errors import Error
from gai_fast.runtime import beside as beside_module
from gai_fast.runtime.beside import Beside
from gai_fast.runtime.breathing import breathe
from tests.limits import replaced


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


async def test_callers_take_turns() -> None:
    beside, go = Beside(asyncio.get_running_loop()), threading.Event()
    done: list[str] = []
    first = beside.do(go.wait, "one")
    names = ("one 1", "one 2", "one 3", "two 1", "two 2", "three 1")
    results = [beside.do(partial(done.append, name), name.split()[0]) for name in names]
    go.set()
    await asyncio.gather(first, *results)
    assert done == ["one 1", "two 1", "three 1", "one 2", "two 2", "one 3"]
    beside.close()


async def test_no_caller_fills_the_room_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside_module, "LIMITS", replaced(beside_waiting=4))
    beside, go = Beside(asyncio.get_running_loop()), threading.Event()
    first = beside.do(go.wait, "one")
    waiting = [beside.do(lambda: None, "one") for _ in range(2)]
    with pytest.raises(Error, match="limit beside_waiting") as raised:
        beside.do(lambda: None, "one")
    assert (raised.value.code, raised.value.reason) == ("overloaded", "large_requests")
    waiting += [beside.do(lambda: None, name) for name in ("two", "three")]
    with pytest.raises(Error, match="limit beside_waiting"):
        beside.do(lambda: None, "four")
    waiting.pop(0).cancel()  # its client has left
    await asyncio.sleep(0)
    waiting.append(beside.do(lambda: None, "four"))
    go.set()
    await asyncio.gather(first, *waiting)
    beside.close()


async def test_callers_without_names_have_all_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside_module, "LIMITS", replaced(beside_waiting=4))
    beside, go = Beside(asyncio.get_running_loop()), threading.Event()
    first = beside.do(go.wait)
    waiting = [beside.do(lambda: None) for _ in range(4)]
    with pytest.raises(Error, match="limit beside_waiting"):
        beside.do(lambda: None)
    go.set()
    await asyncio.gather(first, *waiting)
    beside.close()


async def test_what_waits_at_the_end_is_cancelled() -> None:
    beside, go = Beside(asyncio.get_running_loop()), threading.Event()
    first, second = beside.do(go.wait), beside.do(lambda: None)
    beside.close()
    assert second.cancelled()
    go.set()
    assert await first
