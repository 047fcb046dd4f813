"""Messages about streams, from any process to the worker that owns the stream.

Owns the messages and how they are received. The backend transports them; `server/workers/peers.py` does so over the
bus of a server.

1. A message is a short text. A worker ignores an unknown one, because the sender may be of a later release, and a
   message about a stream that has ended.
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
"""Handles a message about a stream of this process. Its arguments are the stream's id, which may be unknown, and the
message."""


class StoreMessages:
    """Sends messages to other processes, and receives the messages to this process.

    Args:
        backend: The store; open.
        health: Records whether the store works.
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
            stream_id: The id of one of the worker's streams.
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
        """Makes a worker cancel its stream; returns when the log here has ended.

        Args:
            log: The mirror of the stream's log in this process.
            worker: The worker's name.

        Raises:
            Error: As `tell`; also if the stream does not end within `limits.bus_wait`.
        """
        over = UntilOver()
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
            hear: Handles each message.
        """
        while True:
            try:
                for stream_id, message in await self._backend.messages(self._own, LIMITS.message_wait):
                    self._hear(stream_id, message, hear)
                continue
            except StoreError as problem:
                self._health.failed(problem)
            except Exception as bug:  # noqa: BLE001  # a bug of the gateway on the way to the store
                self._health.broke("messages of other processes are not received", bug)
            await asyncio.sleep(SHARED.store_retry)

    def _hear(self, stream_id: str, message: str, hear: Hear) -> None:
        try:
            hear(stream_id, message)
        except Exception as bug:  # noqa: BLE001  # the other messages must still be handled
            logger.error("stream %s: a message cannot be handled: a bug", stream_id, exc_info=bug)


class UntilOver:
    """Watches a log until it is over."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Does nothing: only the end matters."""

    def ended(self) -> None:
        """Ends the wait."""
        self.event.set()
