"""A request that waits for a token. It stands for the exchange that it becomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gai_fast.model.errors import Error
from gai_fast.model.settings import UpstreamSettings
from gai_fast.net.identity.grant import Grant
from gai_fast.net.upstream.connection import OpenExchange, Receiver

Send = Callable[[Grant], OpenExchange]
"""Sends a request with the credential of a grant; raises nothing but an `Error`."""


class WaitingExchange:
    """A request that is sent once there is a token.

    Args:
        upstream: The upstream.
        receiver: Gets the response, or the failure.
        send: Sends the request.
        waiting: The requests that wait: this one joins them, and leaves them by itself.
    """

    is_waiting = False
    """It waits for no connection."""

    def __init__(
        self,
        upstream: UpstreamSettings,
        receiver: Receiver,
        send: Send,
        waiting: dict[WaitingExchange, None],
    ) -> None:
        self.upstream = upstream
        self._receiver = receiver
        self._send = send
        self._others = waiting
        self._exchange: OpenExchange | None = None
        self._is_paused = False
        self._timer: asyncio.TimerHandle | None = None
        waiting[self] = None

    def wait(self, loop: asyncio.AbstractEventLoop, seconds: float, error: Error) -> None:
        """Limits the wait.

        Args:
            loop: The loop.
            seconds: The longest wait.
            error: The failure after it.
        """
        self._timer = loop.call_later(seconds, self.fail, error)

    def go_on(self, grant: Grant) -> None:
        """Sends the request."""
        self._leave()
        try:
            self._exchange = self._send(grant)
        except Error as error:
            self._receiver.exchange_ended(error)
            return
        if self._is_paused:
            self._exchange.pause_reading()

    def fail(self, error: Error) -> None:
        """Ends the wait without a token."""
        self._leave()
        self._receiver.exchange_ended(error)

    def _leave(self) -> None:
        self._others.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- as an exchange --

    @property
    def is_complete(self) -> bool:
        """Whether the response has been read to its end."""
        return self._exchange is not None and self._exchange.is_complete

    @property
    def sent(self) -> bool:
        """Whether the request was handed to a connection."""
        return self._exchange is not None and self._exchange.sent

    @property
    def resent(self) -> bool:
        """Whether the request was written twice."""
        return self._exchange is not None and self._exchange.resent

    def pause_reading(self) -> None:
        """Stops reading the response."""
        self._is_paused = True
        if self._exchange is not None:
            self._exchange.pause_reading()

    def resume_reading(self) -> None:
        """Goes on reading."""
        self._is_paused = False
        if self._exchange is not None:
            self._exchange.resume_reading()

    def close(self) -> None:
        """Aborts; a request that waits is not sent."""
        self._leave()
        if self._exchange is not None:
            self._exchange.close()
