"""Work on a large request beside the loop: in a thread, which lets the loop go on after every message.

Compiled code and C code hold the interpreter's lock until they return, so a thread alone would hold the loop as long.
What walks the messages of a request calls `breathe` for each one.

Callers take turns: who asks for much waits for itself, and others wait for one piece of each caller before them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ANONYMOUS
from gai_fast.runtime.breathing import begin_work, breathe, end_work
from gai_fast.runtime.limits import LIMITS
from gai_fast.runtime.turns import CallerTurns

LARGE_REQUESTS: Final = "large_requests"
"""The reason of a request for which too much work waits."""

_T = TypeVar("_T")


class Beside:
    """Does work beside one loop, one piece after another: two at a time would only share the processor.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._executor: ThreadPoolExecutor | None = None
        self._is_busy = False
        self._waiting: CallerTurns[asyncio.Future[Any]] = CallerTurns()  # the results of work that has not begun
        self._work: dict[asyncio.Future[Any], Callable[[], Any]] = {}  # by its result

    def do(self, work: Callable[[], _T], caller: str = ANONYMOUS) -> asyncio.Future[_T]:
        """Begins work when it is its caller's turn, and returns its result later.

        Args:
            work: It shares nothing that changes with the loop. If the result is cancelled, work that has begun goes on
                to its end.
            caller: The caller that the work is counted for.

        Raises:
            Error: `overloaded`: too much work waits.
        """
        if not self._waiting.has_room(caller, LIMITS.beside_waiting):
            raise _too_much()
        result: asyncio.Future[_T] = self._loop.create_future()
        result.add_done_callback(partial(self._forget, caller))
        self._waiting.add(caller, result)
        self._work[result] = work
        self._begin()
        return result

    def close(self) -> None:
        """Ends the thread after its work, and cancels what waits; does nothing if there is none."""
        while (result := self._waiting.take()) is not None:
            result.cancel()
        self._work.clear()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    def _begin(self) -> None:
        """Begins the oldest work of the caller whose turn it is, if none is under way."""
        while not self._is_busy and (result := self._waiting.take()) is not None:
            work = self._work.pop(result)
            if not result.done():
                self._is_busy = True
                if self._executor is None:
                    self._executor = ThreadPoolExecutor(1, thread_name_prefix="gai-fast-beside")
                done = self._loop.run_in_executor(self._executor, partial(breathing, work))
                done.add_done_callback(partial(self._ended, result))

    def _ended(self, result: asyncio.Future[Any], done: asyncio.Future[Any]) -> None:
        self._is_busy = False
        problem = None if done.cancelled() else done.exception()
        if result.done():
            pass  # its request was given up
        elif done.cancelled():
            result.cancel()
        elif problem is not None:
            result.set_exception(problem)
        else:
            result.set_result(done.result())
        self._begin()

    def _forget(self, caller: str, result: asyncio.Future[Any]) -> None:
        """Forgets work whose result was cancelled before it began."""
        if self._waiting.remove(caller, result):
            del self._work[result]


def _too_much() -> Error:
    text = f"more than {LIMITS.beside_waiting} large requests wait, or half as many of this caller"
    return Error(
        "overloaded",
        f"{text} (limit beside_waiting): try again, or send fewer at a time",
        reason=LARGE_REQUESTS,
        retry_after_ms=SHARED.overloaded_ms,
        phase="connect",  # nothing was sent
    )


def breathing(work: Callable[[], _T]) -> _T:
    """Does work in this thread, which lets the loop go on where it breathes (`breathing.py`)."""
    begin_work()
    try:
        breathe()  # the thread waited
        return work()
    finally:
        end_work()
