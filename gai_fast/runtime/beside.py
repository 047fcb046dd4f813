"""Work on a large request beside the loop: in a thread, which lets the loop go on after every message.

Compiled code and C code hold the interpreter's lock until they return, so a thread alone would hold the loop as long.
What walks the messages of a request calls `breathe` for each one.

Callers take turns: who asks for much waits for itself, and others wait for one piece of each caller before them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ANONYMOUS
from gai_fast.runtime.breathing import begin_work, breathe, end_work
from gai_fast.runtime.limits import LIMITS

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
        # By caller, in the order of their turns: the work that has not begun, by its result. Both give their first one
        # at once: a dict would look at each place from which one was taken before.
        self._waiting: OrderedDict[str, OrderedDict[asyncio.Future[Any], Callable[[], Any]]] = OrderedDict()

    def do(self, work: Callable[[], _T], caller: str = ANONYMOUS) -> asyncio.Future[_T]:
        """Begins work when it is its caller's turn, and returns its result later.

        Args:
            work: It shares nothing that changes with the loop. If the result is cancelled, work that has begun goes on
                to its end.
            caller: The caller that the work is counted for.

        Raises:
            Error: `overloaded`: too much work waits.
        """
        own = self._waiting.get(caller) or OrderedDict()
        most = LIMITS.beside_waiting if caller == ANONYMOUS else LIMITS.beside_waiting // 2
        if len(own) >= most or sum(map(len, self._waiting.values())) >= LIMITS.beside_waiting:
            raise _too_much()
        result: asyncio.Future[_T] = self._loop.create_future()
        result.add_done_callback(partial(self._forget, caller))
        own[result] = work
        self._waiting[caller] = own
        self._begin()
        return result

    def close(self) -> None:
        """Ends the thread after its work, and cancels what waits; does nothing if there is none."""
        waiting, self._waiting = self._waiting, OrderedDict()
        for own in waiting.values():
            for result in own:
                result.cancel()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    def _begin(self) -> None:
        """Begins the oldest work of the caller whose turn it is, if none is under way."""
        while self._waiting and not self._is_busy:
            caller, own = self._waiting.popitem(last=False)
            result, work = own.popitem(last=False)
            if own:
                self._waiting[caller] = own  # behind all others
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
        own = self._waiting.get(caller)
        if own is not None and own.pop(result, None) is not None and not own:
            del self._waiting[caller]


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
