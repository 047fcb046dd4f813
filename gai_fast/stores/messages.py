"""Messages about streams, from any process to the worker that owns the stream.

Owns what is sent and how it is received. The backend carries it; over the bus of a server, `server/workers/peers.py`.

1. A message is a short text. `CANCEL` is the only one. A worker ignores a text that it does not know, and a stream that
   has ended: the sender may be of a later release, or late.
2. A message has no reply. The sender of a cancel waits for the end of the stream's log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.stores.backend import CANCEL, Backend, StoreError
from gai_fast.stores.health import Health, logger, out_of_reach
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.memory import StreamLog

Hear = Callable[[str, str], None]
"""Handles a message about a stream of this process: the stream's id, perhaps unknown, and the message."""


class Messages:
    """Messages of this process to others, and of others to this one.

    Args:
        backend: The store; open.
        health: Notes whether the store works.
        own: The name of this process as a worker.
    """

    def __init__(self, backend: Backend, health: Health, own: str) -> None:
        self._backend = backend
        self._health = health
        self._own = own

    async def tell(self, worker: str, stream_id: str, message: str) -> None:
        """Sends a message to a worker.

        Args:
            worker: The worker's name.
            stream_id: The id of a stream of its own.
            message: The message.

        Raises:
            Error: The store or, over a bus, the worker is out of reach.
        """
        self._health.check()
        try:
            await self._backend.tell(worker, stream_id, message)
        except StoreError as problem:
            self._health.failed(problem)
            raise out_of_reach() from None

    async def cancel(self, log: StreamLog, worker: str) -> None:
        """Has a stream cancelled by its worker; returns when the log here has its end.

        Args:
            log: The copy of its log in this process, which is kept filled.
            worker: The worker's name.

        Raises:
            Error: As `tell`, or the worker does not answer.
        """
        over = _UntilOver()
        log.watch(over)
        try:
            await self.tell(worker, log.header.stream_id, CANCEL)
            if not log.is_over:
                async with asyncio.timeout(SHARED.bus_wait):
                    await over.event.wait()
        except TimeoutError:
            text = "the process that runs the stream was asked to cancel it, and has not done so: ask again"
            raise Error("overloaded", text, reason="worker", retry_after_ms=int(SHARED.note_life * 1000)) from None
        finally:
            log.unwatch(over)

    async def serve(self, hear: Hear) -> None:
        """Receives the messages to this process until it is cancelled.

        Args:
            hear: Handles each.
        """
        while True:
            try:
                for stream_id, message in await self._backend.messages(self._own, LIMITS.message_wait):
                    self._hear(stream_id, message, hear)
                continue
            except StoreError as problem:
                self._health.failed(problem)
            except Exception as bug:  # noqa: BLE001  # of ours, on the way to the store
                self._health.broke("messages of other processes are not received", bug)
            await asyncio.sleep(SHARED.store_retry)

    def _hear(self, stream_id: str, message: str, hear: Hear) -> None:
        try:
            hear(stream_id, message)
        except Exception as bug:  # noqa: BLE001  # of one stream: the other messages are handled all the same
            logger.error("stream %s: a message cannot be handled: a bug", stream_id, exc_info=bug)


class _UntilOver:
    """Watches a log until it is over."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Does nothing: its events are not read."""

    def ended(self) -> None:
        """Ends the wait."""
        self.event.set()
