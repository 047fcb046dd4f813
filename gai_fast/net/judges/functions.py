"""Judges that are functions of the operator's: plain ones in threads, async ones on the loop.

Owns how a function is called, and what may come back. It must not know time limits nor breakers (`judge.py`).

1. A plain function is called in one of the worker's `limits.judge_threads` threads. If all of them are taken, it waits.
   An awaitable that it returns is awaited on the loop.
2. A question that is given up is cancelled. Its place stays taken until its function has ended: one that ignores
   cancellation, or blocks its thread, holds its place.
3. Whatever a function raises is a failure, also what would end the process. The log gets the type and the line, never
   the text, which may quote what is judged.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Final

from gai_fast.guards.verdicts import Failed, JudgeVerdict, Question
from gai_fast.net.judges.dialects import NotAVerdict, read_verdict
from gai_fast.net.judges.judge import Answered, Way
from gai_fast.net.limits import LIMITS
from gai_fast.runtime.thread_pool import EndingError, NoThreadError, ThreadPool

_OF_THE_LOOP: Final = (asyncio.CancelledError, GeneratorExit)
"""Exceptions that end a call from outside."""


class FunctionWay(Way):
    """The way to a function.

    Args:
        function: The function. It gets `Question.members()`.
        threads: The worker's threads.
        loop: The running loop.
    """

    def __init__(self, function: Callable[..., Any], threads: ThreadPool, loop: asyncio.AbstractEventLoop) -> None:
        self._function = function
        self._is_async = iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004  # its kind
        self.places = LIMITS.judge_requests if self._is_async else LIMITS.judge_threads
        self._threads = threads
        self._is_closed = False
        self._loop = loop
        self._tasks: set[asyncio.Task[JudgeVerdict | Failed]] = set()

    def ask(self, question: Question, answered: Answered, freed: Callable[[], None]) -> Callable[[], None]:
        """Calls the function in a later turn of the loop; as `Way.ask`."""
        task = self._loop.create_task(self._call(question))
        self._tasks.add(task)
        call = _Call(answered)
        task.add_done_callback(partial(self._ended, call, freed))
        return partial(call.give_up, task)

    def retire(self) -> None:
        """Does nothing: a function is not kept ready."""

    async def close(self) -> None:
        """As `Way.close`, within `limits.function_end`. What has not ended by then no longer counts as the loop's."""
        self._is_closed = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=LIMITS.function_end)
            for task in late:
                asyncio._unregister_task(task)  # documented in "Extending asyncio"

    async def _call(self, question: Question) -> JudgeVerdict | Failed:
        try:
            asked = question.members()
            returned = self._function(asked) if self._is_async else await self._in_thread(asked)
            return read_verdict(await returned if isawaitable(returned) else returned, question)
        except _OF_THE_LOOP:
            raise
        except NotAVerdict as problem:
            return Failed("form", f"its answer {problem}")
        except NoThreadError as problem:
            return Failed("exception", str(problem), counts=False)
        except BaseException as problem:  # noqa: BLE001  # rule 3
            return Failed("exception", f"it raised {_named(problem)}")

    async def _in_thread(self, asked: dict[str, Any]) -> Any:
        begun = threading.Event()
        call = self._threads.call(self._begin, begun, asked)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            if not begun.is_set():
                call.cancel()
            elif not self._is_closed:
                await asyncio.wait((call,))  # rule 2
            raise

    def _begin(self, begun: threading.Event, asked: dict[str, Any]) -> Any:
        begun.set()
        return self._function(asked)

    def _ended(self, call: _Call, freed: Callable[[], None], task: asyncio.Task[JudgeVerdict | Failed]) -> None:
        self._tasks.discard(task)
        freed()
        if task.cancelled() or task.exception() is not None:
            call.settle(Failed("exception", "it was cancelled"))
        else:
            call.settle(task.result())


class _Call:
    """One call of a function, and who waits for its verdict."""

    def __init__(self, answered: Answered) -> None:
        self._answered: Answered | None = answered

    def settle(self, answer: JudgeVerdict | Failed) -> None:
        """Passes the answer on, unless the question was given up."""
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(answer)

    def give_up(self, task: asyncio.Task[JudgeVerdict | Failed]) -> None:
        """Cancels the call: rule 2."""
        if self._answered is not None:
            self._answered = None
            task.cancel()


def _named(problem: BaseException) -> str:
    """Returns the type of an exception, and the line that raised it."""
    inner = problem.__cause__ or problem if isinstance(problem, EndingError) else problem
    trace = inner.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" in {trace.tb_frame.f_code.co_name}, line {trace.tb_lineno}"
    return f"{type(inner).__name__}{where}"
