"""A request that is sent later. It stands for the exchange that it becomes."""

from __future__ import annotations

from collections.abc import Callable

from gai_fast.model.errors import Error
from gai_fast.net.upstream.connection import OpenExchange, Receiver


class DeferredExchange:
    """A request that waits for what it needs to be sent.

    Args:
        receiver: Gets the response, or the failure.
    """

    is_waiting = False
    """It waits for no connection."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._exchange: OpenExchange | None = None
        self._is_paused = False
        self._silence: float | None = None  # seconds, if they are limited

    def become(self, send: Callable[[], OpenExchange]) -> None:
        """Sends the request.

        Args:
            send: Raises nothing but an `Error`.
        """
        try:
            self._exchange = send()
        except Error as error:
            self._receiver.exchange_ended(error)
            return
        if self._silence is not None:
            self._exchange.limit_silence(self._silence)
        if self._is_paused:
            self._exchange.pause_reading()

    def fail(self, error: Error) -> None:
        """Ends the wait without a request."""
        self._receiver.exchange_ended(error)

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

    def limit_silence(self, seconds: float) -> None:
        """Works as `OpenExchange.limit_silence`."""
        self._silence = seconds
        if self._exchange is not None:
            self._exchange.limit_silence(seconds)

    def close(self) -> None:
        """Aborts; a request that waits is not sent."""
        if self._exchange is not None:
            self._exchange.close()
