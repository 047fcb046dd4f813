"""`gai_fast.runtime.threads.py`: a plain iterator in a thread of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from gai_fast.model.errors import Error
from gai_fast.runtime.threads import ThreadIterator
from tests.waiting import SECONDS


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch) -> threading.BoundedSemaphore:
    """Returns two sources at a time."""
    semaphore = threading.BoundedSemaphore(2)
    monkeypatch.setattr("gai_fast.runtime.threads._places.free", semaphore)
    return semaphore


def blocking(released: threading.Event, said: list[str]) -> Iterator[str]:
    try:
        yield "first"
        released.wait(60)
        said.append("released")
        yield "second"
    finally:
        said.append("closed")


async def test_items_come_one_by_one_from_one_thread() -> None:
    names = []

    def items() -> Iterator[int]:
        for number in range(3):
            names.append(threading.current_thread())
            yield number

    assert [item async for item in ThreadIterator(items())] == [0, 1, 2]
    assert len({*names}) == 1
    assert names[0] is not threading.current_thread()


async def test_nothing_is_taken_that_nobody_asks_for() -> None:
    taken = []
    source = ThreadIterator(taken.append(number) or number for number in range(3))  # type: ignore[func-returns-value]  # None
    await anext(source)
    await anext(source)
    await source.aclose()
    assert taken == [0, 1]


async def test_what_the_source_raises_is_raised() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("a")

    source = ThreadIterator(items())
    assert await anext(source) == 1
    with pytest.raises(KeyError):
        await anext(source)
    await source.aclose()


@pytest.mark.parametrize(
    "problem",
    [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), StopAsyncIteration()],
    ids=lambda problem: type(problem).__name__,
)
@pytest.mark.parametrize("is_closed", [False, True])
async def test_what_would_end_the_loop_or_the_task_is_an_error_of_the_source(
    problem: BaseException, is_closed: bool
) -> None:
    class Items:
        def __iter__(self) -> Iterator[str]:
            return self

        def __next__(self) -> str:
            if is_closed:
                return "a"
            raise problem

        def close(self) -> None:
            if is_closed:
                raise problem

    source = ThreadIterator(Items())
    if is_closed:
        assert await anext(source) == "a"
    with pytest.raises(RuntimeError, match=f"raised {type(problem).__name__}") as raised:
        await (source.aclose() if is_closed else anext(source))
    assert raised.value.__cause__ is problem
    await source.aclose()


async def test_a_source_whose_close_says_that_it_is_at_its_end_is_closed() -> None:
    class Items(list[str]):
        def __next__(self) -> str:
            return "a"

        def close(self) -> None:
            raise StopIteration

    source = ThreadIterator(Items())
    await anext(source)
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        await source.aclose()


async def test_closing_waits_for_the_cleanup_of_a_source_that_does_not_block() -> None:
    said: list[str] = []
    source = ThreadIterator(blocking(threading.Event(), said))
    await anext(source)
    await source.aclose()
    assert said == ["closed"]
    await source.aclose()


async def test_a_source_that_blocks_is_closed_when_it_returns() -> None:
    said: list[str] = []
    released = threading.Event()
    source = ThreadIterator(blocking(released, said))
    await anext(source)
    second = asyncio.ensure_future(anext(source))
    await asyncio.sleep(0)
    second.cancel()
    await source.aclose()
    assert said == []
    released.set()
    await source.ended()
    assert said == ["released", "closed"]
    await source.ended()


async def test_more_sources_than_the_limit_are_refused_until_one_ends(places: threading.BoundedSemaphore) -> None:
    first, second, third = (ThreadIterator(iter("ab")) for _ in range(3))
    assert await anext(first) == await anext(second) == "a"
    with pytest.raises(Error, match=r"limits\.source_threads") as refused:
        await anext(third)
    assert refused.value.code == "overloaded"
    await first.aclose()
    assert await asyncio.to_thread(places.acquire, timeout=10), "its thread has ended"
    places.release()
    assert await anext(third) == "a"
    await third.aclose()
    await second.aclose()


FORKED = """
import asyncio, os
from gai_fast.model.errors import Error
from gai_fast.runtime import threads

async def begun():
    sources = []
    while True:
        sources.append(threads.ThreadIterator(iter("ab")))
        try:
            await anext(sources[-1])
        except Error:
            return len(sources) - 1

most = asyncio.run(begun())
child = os.fork()
if child == 0:
    os._exit(0 if asyncio.run(begun()) == most > 0 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_forked_process_has_all_places() -> None:
    """Each thread of its parent kept a place in it, for good."""
    change = "from gai_fast.runtime import limits\nobject.__setattr__(limits.LIMITS, 'source_threads', 3)\n"
    subprocess.run([sys.executable, "-c", change + FORKED], check=True, timeout=SECONDS)


async def test_a_system_without_threads_is_overloaded_and_no_place_is_lost(
    places: threading.BoundedSemaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    source = ThreadIterator(iter("ab"))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        for _ in range(3):
            with pytest.raises(Error, match="starts no more threads") as problem:
                await anext(source)
            assert problem.value.code == "overloaded"
    assert await anext(source) == "a"
    await source.aclose()


@pytest.mark.parametrize("is_refused", [False, True])
async def test_a_source_that_is_never_read_is_closed(places: threading.BoundedSemaphore, is_refused: bool) -> None:
    closed = []

    class Items:
        def __iter__(self) -> Iterator[str]:
            return self

        def __next__(self) -> str:
            raise AssertionError("it is not read")

        def close(self) -> None:
            closed.append(True)

    source = ThreadIterator(Items())
    if is_refused:
        assert places.acquire(blocking=False)
        assert places.acquire(blocking=False)
        with pytest.raises(Error, match=r"limits\.source_threads"):
            await anext(source)
    await source.aclose()
    assert closed
