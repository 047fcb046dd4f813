"""The running calls of a server, and their end.

Owns when a call ends that its client has not ended: the server stops, or the client reads nothing. Knows no message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gai_fast.grpc.limits import LIMITS
from gai_fast.model.errors import Error


class RemoteCall:
    """One running call.

    Attributes:
        sent: The messages that the client's connection has taken.
        waits: Whether the call waits for the client to read.
        is_stopped: Whether the call must end after the message that it writes, because the server stops.
    """

    __slots__ = ("_sent_before", "_task", "is_stopped", "sent", "waits")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.sent = 0
        self.waits = False
        self.is_stopped = False
        self._task = task
        self._sent_before = -1

    def stop(self) -> None:
        """Ends the call because the server stops. It then tells its client, which a message that is being written must
        not break."""
        self.is_stopped = True
        if not self.waits:
            self._task.cancel()

    def look(self) -> None:
        """Cancels the call if its client has read nothing since the last check."""
        if self.waits and self.sent == self._sent_before:
            self._task.cancel()
        self._sent_before = self.sent if self.waits else -1


class Calls:
    """The running calls of a server.

    Attributes:
        is_draining: Whether new calls are refused.
    """

    def __init__(self) -> None:
        self.is_draining = False
        self._calls: set[RemoteCall] = set()
        self._ended = asyncio.Event()

    @contextmanager
    def running(self) -> Iterator[RemoteCall]:
        """Counts the running task as a call.

        Raises:
            Overloaded: The server stops.
        """
        if self.is_draining:
            raise draining()
        task = asyncio.current_task()
        assert task is not None, "a call is a task of grpcio"
        call = RemoteCall(task)
        self._calls.add(call)
        try:
            yield call
        finally:
            self._calls.discard(call)
            self._ended.set()

    async def watch(self) -> None:
        """Ends calls whose clients read nothing. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(LIMITS.grpc_unread)
            for call in list(self._calls):
                call.look()

    async def drain(self) -> None:
        """Refuses new calls, and returns when the running ones have ended. After `limits.grpc_grace` seconds they are
        stopped; after `limits.grpc_stop` more it returns in any case."""
        self.is_draining = True
        await self._until_none(LIMITS.grpc_grace)
        for call in list(self._calls):
            call.stop()
        await self._until_none(LIMITS.grpc_stop)

    async def _until_none(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self._calls:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            return


_DRAINING: Final = "this server stops: call again, which reaches another one or its successor"


def draining() -> Error:
    """Returns the error of a call to a server that stops."""
    return Error("overloaded", _DRAINING, reason="draining")
