"""`gai_fast/net/judges/functions.py`: plain and async functions, and what they may do to the process: nothing."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, NoReturn

import pytest

from gai_fast.guards.verdicts import Failed, JudgeVerdict, Question
from gai_fast.model.errors import Error
from gai_fast.net.judges.functions import FunctionWay
from gai_fast.runtime.thread_pool import ThreadPool
from tests.conftest import ChangeLimits
from tests.waiting import SECONDS, until

ASKED = Question("policy", "output", "text", "what nobody may read", "m", "anna", "s1")
BAD = {"flagged": True, "category": "x", "spans": [[0, 4]]}
VERDICT = JudgeVerdict(True, "x", None, ((0, 4),))


def unwanted(answer: JudgeVerdict | Failed) -> None:
    raise AssertionError("a question that was given up has an answer")


def nothing() -> None: ...


@pytest.fixture
async def threads() -> AsyncIterator[ThreadPool]:
    pool = ThreadPool(2, "of-this-test")
    yield pool
    pool.close()


Ask = Callable[[Callable[..., Any]], Any]


@pytest.fixture
def ask(threads: ThreadPool) -> Ask:
    async def asked(function: Callable[..., Any]) -> JudgeVerdict | Failed:
        way = FunctionWay(function, threads, asyncio.get_running_loop())
        answer: asyncio.Future[JudgeVerdict | Failed] = asyncio.get_running_loop().create_future()
        freed: list[bool] = []
        way.ask(ASKED, answer.set_result, lambda: freed.append(True))
        async with asyncio.timeout(SECONDS):
            found = await answer
        assert freed == [True]
        return found

    return asked


async def test_a_plain_function_is_called_in_a_thread(ask: Ask) -> None:
    seen: list[Any] = []

    def check(asked: dict[str, Any]) -> Any:
        seen.append((asked, threading.current_thread().name))
        return BAD

    assert await ask(check) == VERDICT
    assert seen == [(ASKED.members(), "of-this-test")]


async def test_an_async_function_is_called_on_the_loop(ask: Ask) -> None:
    seen: list[Any] = []

    async def check(asked: dict[str, Any]) -> Any:
        seen.append((asked, threading.current_thread()))
        await asyncio.sleep(0)
        return BAD

    assert await ask(check) == VERDICT
    assert await ask(partial(check)) == VERDICT
    assert {thread for _, thread in seen} == {threading.main_thread()}


async def test_an_object_may_be_called_too(ask: Ask) -> None:
    class Check:
        async def __call__(self, asked: dict[str, Any]) -> Any:
            assert threading.current_thread() is threading.main_thread()
            return BAD

    assert await ask(Check()) == VERDICT


async def test_what_a_plain_function_returns_may_be_awaited(ask: Ask) -> None:
    async def later() -> Any:
        return BAD

    assert await ask(lambda asked: later()) == VERDICT


@pytest.mark.parametrize("answer", [None, "no", {"flagged": "yes"}, {"flagged": True, "spans": [[0, 99]]}])
async def test_what_is_no_verdict(ask: Ask, answer: Any) -> None:
    found = await ask(lambda asked: answer)
    assert (found.fault, found.counts) == ("form", True)
    assert found.text.startswith("its answer ")


def own_error(text: str) -> Error:
    return Error("content_filtered", text)


RAISED: list[Callable[[str], BaseException]] = [
    own_error,
    ValueError,
    MemoryError,
    SystemExit,
    KeyboardInterrupt,
    StopIteration,
    GeneratorExit,
    asyncio.CancelledError,
]


@pytest.mark.parametrize("kind", RAISED)
async def test_what_a_plain_function_raises_is_a_failure(ask: Ask, kind: Callable[[str], BaseException]) -> None:
    def check(asked: dict[str, Any]) -> NoReturn:
        raise kind(asked["text"])

    found = await ask(check)
    assert found.fault == "exception"
    assert found.text.startswith(f"it raised {type(kind('')).__name__} in check, line ")
    assert "nobody" not in found.text


@pytest.mark.parametrize("kind", RAISED)
async def test_what_an_async_function_raises_is_a_failure(ask: Ask, kind: Callable[[str], BaseException]) -> None:
    async def check(asked: dict[str, Any]) -> NoReturn:
        raise kind(asked["text"])

    found = await ask(check)
    assert found.fault == "exception"
    assert "nobody" not in found.text


async def test_a_question_that_is_given_up_is_cancelled(threads: ThreadPool) -> None:
    ends: list[str] = []

    async def check(asked: dict[str, Any]) -> Any:
        try:
            await asyncio.sleep(SECONDS)
        finally:
            ends.append("cancelled")

    way = FunctionWay(check, threads, asyncio.get_running_loop())
    freed: list[bool] = []
    give_up = way.ask(ASKED, unwanted, lambda: freed.append(True))
    await asyncio.sleep(0)
    give_up()
    give_up()
    await until(lambda: freed)
    assert freed == [True]
    assert ends == ["cancelled"]


async def test_a_function_that_ignores_its_cancellation_holds_its_place(threads: ThreadPool) -> None:
    go_on = asyncio.Event()
    freed: list[bool] = []

    async def check(asked: dict[str, Any]) -> Any:
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue
        return BAD

    way = FunctionWay(check, threads, asyncio.get_running_loop())
    give_up = way.ask(ASKED, unwanted, lambda: freed.append(True))
    await asyncio.sleep(0)
    give_up()
    await asyncio.sleep(0.01)
    assert freed == []
    go_on.set()
    await until(lambda: freed == [True])


async def test_a_function_that_blocks_its_thread_holds_its_place_and_harms_no_other(threads: ThreadPool) -> None:
    gate, begun = threading.Event(), threading.Event()
    freed: list[bool] = []

    def check(asked: dict[str, Any]) -> Any:
        begun.set()
        gate.wait(SECONDS)
        return BAD

    blocked = FunctionWay(check, threads, asyncio.get_running_loop())
    assert blocked.places == 8
    give_up = blocked.ask(ASKED, unwanted, lambda: freed.append(True))
    await until(begun.is_set)
    give_up()
    answers: list[Any] = []
    FunctionWay(lambda asked: BAD, threads, asyncio.get_running_loop()).ask(ASKED, answers.append, nothing)
    await until(lambda: answers)
    assert freed == []
    gate.set()
    await until(lambda: freed == [True])


async def test_a_question_that_waits_for_a_thread_is_dropped(threads: ThreadPool) -> None:
    gate = threading.Event()
    blockers = [threads.call(gate.wait, SECONDS) for _ in range(2)]
    freed: list[bool] = []
    way = FunctionWay(unwanted, threads, asyncio.get_running_loop())
    give_up = way.ask(ASKED, unwanted, lambda: freed.append(True))
    await asyncio.sleep(0)
    give_up()
    await until(lambda: freed == [True])
    gate.set()
    assert await asyncio.gather(*blockers) == [True, True]


async def test_a_system_without_threads_is_a_failure_of_its_own(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: Any) -> NoReturn:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", start)
        found = await ask(lambda asked: BAD)
    assert (found.fault, found.counts) == ("exception", False)
    assert "starts no more threads" in found.text
    assert await ask(lambda asked: BAD) == VERDICT


async def test_the_end_does_not_wait_for_threads(threads: ThreadPool) -> None:
    gate, begun = threading.Event(), threading.Semaphore(0)

    def check(asked: dict[str, Any]) -> Any:
        begun.release()
        gate.wait(SECONDS)

    way = FunctionWay(check, threads, asyncio.get_running_loop())
    give_up = way.ask(ASKED, unwanted, nothing)
    way.ask(ASKED, lambda answer: None, nothing)
    for _ in range(2):
        await asyncio.to_thread(begun.acquire)
    give_up()
    await asyncio.sleep(0)
    async with asyncio.timeout(SECONDS / 2):
        await way.close()
    gate.set()


async def test_the_end_waits_for_functions_but_not_for_ever(threads: ThreadPool, change_limits: ChangeLimits) -> None:
    change_limits(function_end=0.02)
    go_on = asyncio.Event()

    async def check(asked: dict[str, Any]) -> Any:
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue

    freed: list[bool] = []
    way = FunctionWay(check, threads, asyncio.get_running_loop())
    give_up = way.ask(ASKED, unwanted, lambda: freed.append(True))
    await asyncio.sleep(0)
    give_up()
    await way.close()
    assert len(asyncio.all_tasks()) == 1, "a task that hangs does not hold up the end of the loop"
    go_on.set()
    await until(lambda: freed)
    way.retire()
    await way.close()


async def test_nothing_of_a_question_is_kept(ask: Ask) -> None:
    class Text(str):
        __slots__ = ("__weakref__",)

    seen: list[Any] = []

    def check(asked: dict[str, Any]) -> Any:
        asked["text"] = Text("x")
        seen.append(weakref.ref(asked["text"]))
        return BAD

    await ask(check)
    await ask(lambda asked: BAD)
    gc.collect()
    assert seen[0]() is None
