"""Functions that may block, called in a few threads beside a loop: `ThreadPool`.

asyncio's own threads are no place for them: the end of the process waits for each, and other work needs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

_OF_THE_LOOP: Final = (
    asyncio.CancelledError,
    GeneratorExit,
    KeyboardInterrupt,
    StopAsyncIteration,
    StopIteration,
    SystemExit,
)
"""Exceptions by which a loop ends a task, an iteration or itself. A function that raises one must not end the loop."""


class NoThreadError(RuntimeError):
    """The system starts no thread."""


class EndingError(RuntimeError):
    """A function has raised what would end the loop or the process; its exception is the cause."""


class ThreadPool:
    """A few threads that call functions, first come, first served. Belongs to one loop.

    A thread cannot be interrupted: a function that never returns keeps it. The threads are daemons, so the process ends
    nevertheless.

    Args:
        most: The most threads. Each is started once it is needed.
        name: The name of the threads.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._calls: deque[Callable[[], None] | None] = deque()
        self._signal = threading.Semaphore(0)  # released for each call
        self._threads = 0
        self._pending = 0  # calls that have not returned

    def call(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Calls a function in a thread.

        Args:
            function: The function.
            arguments: Its arguments.

        Returns:
            What the function returns or raises; what is of the loop, such as `SystemExit`, as an `EndingError`. A call
            that is cancelled before its turn is not made, and nothing is kept of it.

        Raises:
            NoThreadError: There is no thread, and the system starts none.
        """
        if self._pending >= self._threads and self._threads < self._most:
            self._start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        call = partial(self._run, loop, future, partial(function, *arguments))
        future.add_done_callback(partial(self._drop, call))
        self._pending += 1
        self._put(call)
        return future

    def close(self) -> None:
        """Ends the threads, each once its function has returned."""
        for _ in range(self._threads):
            self._put(None)
        self._threads = 0

    def _put(self, call: Callable[[], None] | None) -> None:
        self._calls.append(call)
        self._signal.release()

    def _drop(self, call: Callable[[], None], future: asyncio.Future[Any]) -> None:
        """Removes a call that was cancelled before its turn."""
        if future.cancelled():
            with contextlib.suppress(ValueError):  # it has begun
                self._calls.remove(call)
                self._pending -= 1

    def _start(self) -> None:
        arguments = self._calls, self._signal
        thread = threading.Thread(target=_serve, args=arguments, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                text = "the system starts no more threads for this process: raise its limit (of pids, or ulimit -u)"
                raise NoThreadError(text) from None
            return  # the others will do
        self._threads += 1

    def _run(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], function: Callable[[], Any]) -> None:
        result: Any = None
        problem: BaseException | None = None
        try:
            result = function()
        except _OF_THE_LOOP as raised:
            problem = EndingError(f"a function raised {type(raised).__name__}")
            problem.__cause__ = raised
        except BaseException as raised:  # noqa: BLE001  # the waiting task gets it
            problem = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: no task waits
            loop.call_soon_threadsafe(self._settle, future, result, problem)

    def _settle(self, future: asyncio.Future[Any], result: Any, problem: BaseException | None) -> None:
        self._pending -= 1
        if future.done():  # cancelled
            return
        if problem is None:
            future.set_result(result)
        else:
            future.set_exception(problem)


def _serve(calls: deque[Callable[[], None] | None], signal: threading.Semaphore) -> None:
    while True:
        signal.acquire()
        try:
            call = calls.popleft()
        except IndexError:  # the call was cancelled
            continue
        if call is None:
            return
        call()
        del call  # it refers to what was called with
