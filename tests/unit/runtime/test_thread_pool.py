"""`gai_fast/runtime/thread_pool.py`: functions that may block, in a few threads."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import Any, NoReturn

import pytest

from gai_fast.runtime.thread_pool import EndingError, NoThreadError, ThreadPool
from tests.waiting import SECONDS, until


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "of-this-test"]


def pool(most: int = 2) -> ThreadPool:
    return ThreadPool(most, "of-this-test")


async def test_a_call_gives_what_the_function_returns() -> None:
    made = pool()
    assert await made.call(divmod, 7, 2) == (3, 1)
    made.close()
    await until(lambda: not threads())


async def test_one_thread_does_calls_that_follow_each_other() -> None:
    made = pool(8)
    used = [await made.call(threading.get_ident) for _ in range(5)]
    assert len(set(used)) == len(threads()) == 1
    assert used[0] != threading.get_ident()
    made.close()
    await until(lambda: not threads())


async def test_there_are_so_many_threads_and_other_calls_wait() -> None:
    made, gate = pool(2), threading.Event()
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        gate.wait(SECONDS)
        return number

    calls = [made.call(work, number) for number in range(5)]
    await until(lambda: len(begun) == 2)
    assert (len(threads()), sorted(begun)) == (2, [0, 1])
    gate.set()
    assert await asyncio.gather(*calls) == [0, 1, 2, 3, 4]
    made.close()
    await until(lambda: not threads())


async def test_nothing_is_kept_of_a_call_that_was_cancelled_before_its_turn() -> None:
    made, gate = pool(1), threading.Event()
    begun: list[int] = []
    first = made.call(gate.wait, SECONDS)
    others = [made.call(begun.append, number) for number in range(3)]
    for other in others[:2]:
        other.cancel()
    await asyncio.sleep(0)
    assert len(made._calls) <= 2
    gate.set()
    assert await first
    await others[2]
    assert begun == [2]
    assert await made.call(len, "abc") == 3
    assert made._pending == 0
    made.close()
    await until(lambda: not threads())


async def test_a_call_that_is_cancelled_while_it_runs_ends_in_silence() -> None:
    made, gate, begun = pool(1), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        gate.wait(SECONDS)

    call = made.call(work)
    await until(begun.is_set)
    call.cancel()
    gate.set()
    assert await made.call(len, "ab") == 2
    assert made._pending == 0
    made.close()
    await until(lambda: not threads())


@pytest.mark.parametrize("raised", [ValueError("x"), KeyError(1)])
async def test_what_a_function_raises_is_raised(raised: Exception) -> None:
    def work() -> NoReturn:
        raise raised

    made = pool()
    with pytest.raises(type(raised)):
        await made.call(work)
    made.close()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, StopIteration, GeneratorExit, asyncio.CancelledError])
async def test_what_would_end_the_loop_does_not(kind: type[BaseException]) -> None:
    def work() -> NoReturn:
        raise kind

    made = pool(1)
    with pytest.raises(EndingError, match=kind.__name__) as caught:
        await made.call(work)
    assert type(caught.value.__cause__) is kind
    assert await made.call(len, "the thread goes on") == 18
    made.close()


async def test_a_system_without_threads_is_an_error_unless_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: Any) -> NoReturn:
        raise RuntimeError("can't start new thread")

    made, gate = pool(2), threading.Event()
    first = made.call(gate.wait, SECONDS)
    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", start)
        second = made.call(len, "ab")
        with pytest.raises(NoThreadError, match="starts no more threads"):
            pool().call(len, "")
    gate.set()
    assert (await first, await second) == (True, 2)
    made.close()


def test_a_function_that_never_returns_does_not_keep_the_process() -> None:
    program = """
import asyncio, threading
from gai_fast.runtime.thread_pool import ThreadPool

async def main():
    call = ThreadPool(1, "t").call(threading.Event().wait)
    await asyncio.sleep(0.01)
    call.cancel()

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=SECONDS)
