"""A large request, which is written for its upstream beside the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from gai_fast.net.sockets.sockets import unsent_error
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.net.upstream.deferred_exchange import DeferredExchange
from gai_fast.providers import UpstreamRequest


class WrittenExchange(DeferredExchange):
    """A request that is sent once it is written.

    Args:
        receiver: Gets the response, or the failure.
        request: The request, as `Beside.do` returns it.
        send: Sends the request.
        upstream: The upstream's name.
    """

    def __init__(
        self,
        receiver: Receiver,
        request: asyncio.Future[UpstreamRequest],
        send: Callable[[UpstreamRequest], OpenExchange],
        upstream: str,
    ) -> None:
        super().__init__(receiver)
        self._request = request
        self._send = send
        self._upstream = upstream
        request.add_done_callback(self._written)

    def close(self) -> None:
        """Aborts; a request that is not written yet is not sent."""
        self._request.cancel()
        super().close()

    def _written(self, request: asyncio.Future[UpstreamRequest]) -> None:
        if request.cancelled():
            return
        problem = request.exception()
        if isinstance(problem, Exception):
            self.fail(unsent_error(problem, self._upstream))
        else:
            self.become(partial(self._sent, request.result()))

    def _sent(self, request: UpstreamRequest) -> OpenExchange:
        try:
            return self._send(request)
        except Exception as problem:  # a bug ends one request, with an answer
            raise unsent_error(problem, self._upstream) from problem
