"""Work on a large request beside the loop: in a thread, which lets the loop go on after every message.

Compiled code and C code hold the interpreter's lock until they return, so a thread alone would hold the loop as long.
What walks the messages of a request calls `breathe` for each one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from gai_fast.runtime.breathing import begin_work, end_work

_T = TypeVar("_T")


class Beside:
    """Does work beside one loop, one piece after another: two at a time would only share the processor.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._executor: ThreadPoolExecutor | None = None

    def do(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Begins work, and returns its result later.

        Args:
            work: It shares nothing that changes with the loop. If the result is cancelled, work that has begun goes on
                to its end.
        """
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="gai-fast-beside")
        return self._loop.run_in_executor(self._executor, partial(_breathing, work))

    def close(self) -> None:
        """Ends the thread after its work; does nothing if there is none."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None


def _breathing(work: Callable[[], _T]) -> _T:
    begin_work()
    try:
        return work()
    finally:
        end_work()
