"""Plain iterators as sources of streams: `ThreadIterator` iterates one in a thread of its own.

A plain iterator may block, so it can run neither on an event loop nor in one of the loop's few shared threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from queue import SimpleQueue
from typing import Any, Final

from gai_fast.model.errors import Error
from gai_fast.runtime.limits import LIMITS

_END: Final = object()
_OF_THE_LOOP: Final = (
    asyncio.CancelledError,
    GeneratorExit,
    KeyboardInterrupt,
    StopAsyncIteration,
    StopIteration,
    SystemExit,
)
"""Exceptions by which a loop ends a task, an iteration or itself. A source that raises one must not end the loop."""


class _Places:
    """The places of the threads of this process.

    Attributes:
        free: Counts the free ones. A forked process has none of the threads, so its places are all free.
    """

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Frees all places."""
        self.free = threading.BoundedSemaphore(LIMITS.source_threads)


_places: Final = _Places()


class ThreadIterator:
    """An async iterator over a plain one.

    Each item is taken in the same thread, so a generator sees one thread from its beginning to its end. An item is
    taken only when it is asked for: a slow client slows the source down.

    A thread cannot be interrupted. If the source blocks when it is closed, it is closed as soon as it returns; only
    `ended` waits for that. The thread is a daemon: a source that never returns does not keep the process alive.

    Args:
        items: The iterator; closed at the end if it has `close`.
    """

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._has_thread = False
        self._is_closed = False
        self._closing: asyncio.Future[None] | None = None  # of a source that blocked when it was closed
        self._pending = 0  # calls that have not returned

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        """Returns the next item.

        Raises:
            Error: Too many sources run in threads (`overloaded`); or what the source raises.
            RuntimeError: The source raises what is of the loop, such as `SystemExit`.
        """
        item = await self._call(self._next)
        if item is _END:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """Closes the source, and waits for its cleanup unless it blocks; idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        close = getattr(self._items, "close", _nothing)
        if not self._has_thread:  # never read, or refused: closing it must not be refused, too
            await asyncio.to_thread(close)
            return
        blocks = self._pending > 0
        closed = self._call(close)
        self._calls.put(None)
        if blocks:
            closed.add_done_callback(_forget)
            self._closing = closed
        else:
            await closed

    async def ended(self) -> None:
        """Waits for the cleanup of a source that blocked when it was closed; raises what that raises."""
        if self._closing is not None:
            await self._closing

    def _call(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Calls a function in the thread; the first call starts the thread."""
        if not self._has_thread:
            places = _places.free
            if not places.acquire(blocking=False):
                text = "too many plain iterators are the sources of streams at once (limits.source_threads)"
                raise Error("overloaded", text, reason="source_threads")
            thread = threading.Thread(target=_serve, args=(self._calls, places), name="gai-fast-source", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                places.release()
                text = "the system starts no more threads for this process: raise its limit (of pids, or ulimit -u)"
                raise Error("overloaded", text, reason="source_threads") from None
            self._has_thread = True
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            result: Any = None
            problem: BaseException | None = None
            try:
                result = function()
            except _OF_THE_LOOP as raised:
                problem = RuntimeError(f"a plain iterator raised {type(raised).__name__}")
                problem.__cause__ = raised
            except BaseException as raised:  # noqa: BLE001  # the waiting task gets it
                problem = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: no task waits
                loop.call_soon_threadsafe(self._settle, future, result, problem)

        self._pending += 1
        self._calls.put(run)
        return future

    def _settle(self, future: asyncio.Future[Any], result: Any, problem: BaseException | None) -> None:
        self._pending -= 1
        if future.done():  # cancelled
            return
        if problem is None:
            future.set_result(result)
        else:
            future.set_exception(problem)

    def _next(self) -> Any:
        return next(self._items, _END)


def _serve(calls: SimpleQueue[Callable[[], None] | None], places: threading.BoundedSemaphore) -> None:
    try:
        while (call := calls.get()) is not None:
            call()
    finally:
        places.release()


def _nothing() -> None:
    """Closes an iterator that has no `close`."""


def _forget(done: asyncio.Future[Any]) -> None:
    """Drops the exception of a source that was closed while it blocked."""
    if not done.cancelled():
        done.exception()
