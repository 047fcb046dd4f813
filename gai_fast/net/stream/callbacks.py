"""Calls the functions of an `EventManager` and isolates the stream from their failures.

Owns the task of a stream with async callbacks, and its limit. An exception of a user's function is logged here, without
the contents of the event.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from gai_fast.core.callbacks import EventManager
from gai_fast.model.events import Event
from gai_fast.net.limits import LIMITS

_log: Final = logging.getLogger("gai_fast.core.callbacks")
_OF_THE_PROCESS: Final = (SystemExit, KeyboardInterrupt)
"""Exceptions by which a program ends."""


class CallbackRunner:
    """Runs the callbacks of one stream: plain ones at once, async ones in at most one task, in order.

    Args:
        manager: The functions.
        loop: The running loop.
        pause: Called when `limits.callbacks_waiting` async calls wait: the upstream should not be read.
        resume: Called when half of these calls are done.
    """

    def __init__(
        self,
        manager: EventManager,
        loop: asyncio.AbstractEventLoop,
        *,
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self._manager = manager
        self._loop = loop
        self._pause = pause
        self._resume = resume
        self._waiting: deque[Awaitable[Any]] = deque()
        self._is_paused = False
        self._is_closed = False
        self._task: asyncio.Task[None] | None = None
        self._failed: set[str] = set()

    def dispatch(self, events: Iterable[Event]) -> None:
        """Calls the callbacks for the events of one read."""
        if self._is_closed:
            return
        for event in events:
            try:
                wanted = self._manager.wanted(event)  # a subclass may have its own
            except _OF_THE_PROCESS:
                raise
            except BaseException as problem:  # noqa: BLE001  # a user's function must not harm the stream
                self._note(event, problem)
                continue
            for callback in wanted:
                try:
                    # An async function's body does not run before it is awaited.
                    answer = callback(event)
                except _OF_THE_PROCESS:
                    raise
                except BaseException as problem:  # noqa: BLE001  # as above; it may have awaited a cancelled future
                    self._note(event, problem)
                else:
                    if inspect.isawaitable(answer):
                        self._waiting.append(answer)
        if self._waiting and self._task is None:
            self._task = self._loop.create_task(self._run())
        if not self._is_paused and len(self._waiting) >= LIMITS.callbacks_waiting:
            self._is_paused = True
            self._pause()

    async def close(self, seconds: float = LIMITS.callbacks_end) -> None:
        """Waits for the async callbacks, and cancels those that take longer.

        Args:
            seconds: The maximum time to wait.
        """
        try:
            if self._task is not None:
                await asyncio.wait([self._task], timeout=seconds)
        finally:
            self.cancel()

    async def leave(self, kind: type[BaseException] | None, *, is_early: bool) -> None:
        """Waits for the callbacks when a program leaves a stream, or cancels them.

        Cancels them if the program leaves early or by an exception such as a cancellation.

        Args:
            kind: The type of the exception by which the program leaves. `None` if there is none.
            is_early: Whether the stream has not ended.
        """
        if is_early or (kind is not None and not issubclass(kind, Exception)):
            self.cancel()
        else:
            await self.close()

    def cancel(self) -> None:
        """Cancels running callbacks, and calls no further callbacks. Idempotent."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
        while self._waiting:
            answer = self._waiting.popleft()
            if inspect.iscoroutine(answer):
                answer.close()

    async def _run(self) -> None:
        try:
            while self._waiting:
                try:
                    await self._waiting.popleft()
                except _OF_THE_PROCESS:
                    raise
                except BaseException as problem:  # as above
                    if self._is_closed:
                        raise
                    self._note(None, problem)  # if cancelled, something in the callback was, not the stream's task
                if self._is_paused and len(self._waiting) <= LIMITS.callbacks_waiting // 2:
                    self._is_paused = False
                    self._resume()
        finally:
            self._task = None

    def _note(self, event: Event | None, problem: BaseException) -> None:
        """Logs the first failure of each kind with its traceback, without the contents of the event."""
        kind = type(problem).__name__
        if kind not in self._failed:
            self._failed.add(kind)
            where = f" for {event['type']!r}" if event is not None else ""
            _log.warning("a callback%s raised %s; the stream goes on", where, kind, exc_info=problem)
