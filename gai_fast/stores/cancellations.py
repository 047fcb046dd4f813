"""Cancelling streams that run in another process, through the store.

Owns these requests. If the workers of a server reach each other by their bus, the store is not used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.stores.backend import Backend, StoreError
from gai_fast.stores.health import Health, logger, out_of_reach
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.memory import StreamLog

CancelHere = Callable[[str], None]
"""Cancels a stream of this process by its id; one that is unknown here, or has ended, is no error."""


class Cancellations:
    """Requests to cancel a stream: of this process to others, and of others to this one.

    Args:
        backend: The store; open.
        health: Notes whether the store works.
        own: The name of this process as a worker.
    """

    def __init__(self, backend: Backend, health: Health, own: str) -> None:
        self._backend = backend
        self._health = health
        self._own = own

    async def cancel(self, log: StreamLog, worker: str) -> None:
        """Has a stream cancelled by its worker; returns when the log here has its end.

        Args:
            log: The copy of its log in this process, which is kept filled.
            worker: The worker's name.

        Raises:
            Error: The store is out of reach, or the worker does not answer.
        """
        self._health.check()
        over = _UntilOver()
        log.watch(over)
        try:
            await self._backend.ask_to_cancel(worker, log.header.stream_id)
            if not log.is_over:
                async with asyncio.timeout(SHARED.bus_wait):
                    await over.event.wait()
        except StoreError as problem:
            self._health.failed(problem)
            raise out_of_reach() from None
        except TimeoutError:
            text = "the process that runs the stream was asked to cancel it, and has not done so: ask again"
            raise Error("overloaded", text, reason="worker", retry_after_ms=int(SHARED.note_life * 1000)) from None
        finally:
            log.unwatch(over)

    async def serve(self, cancel_here: CancelHere) -> None:
        """Cancels streams of this process that others ask it to cancel; until it is cancelled.

        Args:
            cancel_here: Cancels one.
        """
        while True:
            try:
                for stream_id in await self._backend.asked_to_cancel(self._own, LIMITS.cancel_wait):
                    self._cancel(stream_id, cancel_here)
                continue
            except StoreError as problem:
                self._health.failed(problem)
            except Exception as bug:  # noqa: BLE001  # of ours, on the way to the store
                self._health.broke("streams cannot be cancelled for other processes", bug)
            await asyncio.sleep(SHARED.store_retry)

    def _cancel(self, stream_id: str, cancel_here: CancelHere) -> None:
        try:
            cancel_here(stream_id)
        except Exception as bug:  # noqa: BLE001  # of one stream: the others are cancelled all the same
            logger.error("stream %s: it cannot be cancelled: a bug", stream_id, exc_info=bug)


class _UntilOver:
    """Watches a log until it is over."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Nothing: its events are not read."""

    def ended(self) -> None:
        """The log has ended, or is broken off."""
        self.event.set()
