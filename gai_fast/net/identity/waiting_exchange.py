"""A request that waits for a token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from gai_fast.model.errors import Error
from gai_fast.model.settings import UpstreamSettings
from gai_fast.net.identity.grant import Grant
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.net.upstream.deferred_exchange import DeferredExchange

Send = Callable[[Grant], OpenExchange]
"""Sends a request with the credential of a grant; raises nothing but an `Error`."""


class WaitingExchange(DeferredExchange):
    """A request that is sent once there is a token.

    Args:
        upstream: The upstream.
        receiver: Gets the response, or the failure.
        send: Sends the request.
        waiting: The requests that wait: this one joins them, and leaves them by itself.
    """

    def __init__(
        self,
        upstream: UpstreamSettings,
        receiver: Receiver,
        send: Send,
        waiting: dict[WaitingExchange, None],
    ) -> None:
        super().__init__(receiver)
        self.upstream = upstream
        self._send = send
        self._others = waiting
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
        self.become(partial(self._send, grant))

    def fail(self, error: Error) -> None:
        """Ends the wait without a token."""
        self._leave()
        super().fail(error)

    def close(self) -> None:
        """Aborts; a request that waits is not sent."""
        self._leave()
        super().close()

    def _leave(self) -> None:
        self._others.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
