"""Disconnects a client that reads none of the bytes written to it."""

from __future__ import annotations

import asyncio

from gai_fast.net.sockets.sockets import reset_connection, unacknowledged_bytes
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.server.http.deadlines import CHECKS_PER_TIMEOUT, WriteProgress


class WriteWatch:
    """Checks at intervals whether the client of a transport reads bytes, and resets the connection if not.

    Args:
        transport: The connection.
        timers: The timers of the loop.
        seconds: The time within which the client must read a byte while any are unsent.
        until_empty: Whether to stop once no byte is unsent.

    Attributes:
        written: The number of bytes written to the transport since `start`. The writer must count them: the number of
            unsent bytes alone does not show whether the client reads any.
    """

    def __init__(
        self, transport: asyncio.Transport, timers: Timers, seconds: float, *, until_empty: bool = False
    ) -> None:
        self._transport = transport
        self._timers = timers
        self._seconds = seconds
        self._until_empty = until_empty
        self._timer: Timer | None = None
        self.written = 0
        self._progress = WriteProgress()

    @property
    def is_running(self) -> bool:
        """Whether a check is scheduled."""
        return self._timer is not None

    def start(self) -> None:
        """Starts the checks; the client's time starts now."""
        self.stop()
        now = self._timers.clock()
        self._progress.restart(self.written, unacknowledged_bytes(self._transport), now)
        self._timer = self._timers.schedule(now + self._seconds / CHECKS_PER_TIMEOUT, self._check)

    def stop(self) -> None:
        """Stops the checks; idempotent."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _check(self) -> None:
        self._timer = None
        now = self._timers.clock()
        unsent = unacknowledged_bytes(self._transport)
        if not unsent and self._until_empty:
            return
        if self._progress.is_stuck(self.written, unsent, now, self._seconds):
            reset_connection(self._transport)
            return
        self._timer = self._timers.schedule(now + self._seconds / CHECKS_PER_TIMEOUT, self._check)
