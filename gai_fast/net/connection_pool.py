"""The connections to one upstream, and their assignment to exchanges.

Owns the number of connections, the queue of exchanges that wait for one, the time that an idle one is kept, and the
one transparent retry of a pooled connection that was dead. It must not know how a connection is made (`pool.py`, whose
coroutines stay interpreted), nor the meaning of a response, other retries and other upstreams.
"""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from mypy_extensions import mypyc_attr

from gai_fast.errors import Error
from gai_fast.limits import LIMITS
from gai_fast.net.http_request import Origin, encode_request
from gai_fast.net.http_response import KnownResponseHead
from gai_fast.net.upstream import Exchange, Receiver, Timeouts, UpstreamConnection
from gai_fast.timers import Timer, Timers


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Counts of one pool. At present: `open` sockets, `idle` ones among them, `connecting`, and `pending` requests that
    wait for a connection. In total: `opened` connections, `reused` ones, `retried` requests whose pooled connection was
    dead."""

    open: int
    idle: int
    connecting: int
    pending: int
    opened: int
    reused: int
    retried: int


@mypyc_attr(allow_interpreted_subclasses=True)
class ConnectionPool(ABC):
    """The connections to one upstream, idle ones included; belongs to one loop and its thread.

    Args:
        origin: Where the upstream is.
        timeouts: The time limits of an exchange.
        timers: The loop's wheel; its clock is the pool's.
        max_connections: Connections in all, idle and connecting ones included; more requests wait, first come, first
            served, up to `limits.pool_waiting`.
        loop: The loop.
    """

    def __init__(
        self,
        origin: Origin,
        timeouts: Timeouts,
        *,
        timers: Timers,
        max_connections: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.origin = origin
        self._peer = origin.peer
        self._timers = timers
        self._timeouts = timeouts
        self._max_connections = max_connections
        self._loop = loop
        self._open: set[UpstreamConnection] = set()
        self._idle: dict[UpstreamConnection, float] = {}  # → since when; the longest idle first
        self._connecting: dict[asyncio.Task[None], Exchange] = {}
        self._waiting: OrderedDict[Exchange, None] = OrderedDict()
        self._expiry: Timer | None = None
        self._keeps_idle = True
        self._known: KnownResponseHead | None = (
            None  # the head of the last answer: the next one on another connection may have the same
        )
        self._closed = False
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._opened = self._reused = self._retried = 0

    def open(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, receiver: Receiver
    ) -> Exchange:
        """Starts a request and returns at once; the receiver is called in a later turn of the loop.

        Args:
            path: From the base URL on, with its query; begins with `/`.
            headers: All but those that the connection sets: `Host`, `Content-Length`, `Accept-Encoding`, ….

        Raises:
            ValueError: Something would break the request's framing; see `encode_request`.
        """
        request = encode_request(self.origin, method, path, headers, body)
        exchange = Exchange(self._peer, method, request, receiver, self._timeouts, self._timers)
        if self._closed:
            self._loop.call_soon(exchange.fail, self._gone())
        elif self._serve(exchange):
            pass
        elif len(self._waiting) < LIMITS.pool_waiting:
            self._waiting[exchange] = None
            exchange.begin_waiting(functools.partial(self._waiting.pop, exchange, None))
        else:
            text = f"{len(self._waiting)} requests wait for a connection to {self._peer} (max_connections)"
            self._loop.call_soon(exchange.fail, Error("overloaded", text, reason="upstream_pool"))
        return exchange

    def keep_idle(self, keeps: bool) -> None:
        """Decides whether connections are kept for requests to come; those that are idle go at once where not."""
        self._keeps_idle = keeps
        if not keeps:
            idle = tuple(self._idle)
            self._idle.clear()
            for connection in idle:
                connection.abort()

    @property
    def stats(self) -> PoolStats:
        """The counts so far."""
        return PoolStats(
            open=len(self._open),
            idle=len(self._idle),
            connecting=len(self._connecting),
            pending=len(self._waiting),
            opened=self._opened,
            reused=self._reused,
            retried=self._retried,
        )

    @abstractmethod
    def _connect(self, exchange: Exchange) -> None:
        """Makes a connection for an exchange."""
        raise NotImplementedError

    # ---- which exchange gets which connection

    def _serve(self, exchange: Exchange) -> bool:
        """Gives an exchange an idle connection, or makes one for it; returns whether that was possible."""
        while self._idle:
            connection, _ = self._idle.popitem()  # the last one used is the least likely to have been closed
            if not connection.is_closing:
                self._reused += 1
                try:
                    exchange.begin(connection, reused=True)
                except Exception as problem:  # noqa: BLE001  # a bug of ours must not leave the exchange without an end
                    self._loop.call_soon(exchange.broke, problem)
                return True
        if len(self._open) + len(self._connecting) < self._max_connections:
            self._connect(exchange)
            return True
        return False

    def _serve_waiting(self) -> None:
        while self._waiting and not self._closed:
            exchange = next(iter(self._waiting))
            if not self._serve(exchange):
                return
            del self._waiting[exchange]

    def _gone(self) -> Error:
        return Error("network", f"the connections to {self._peer} are being closed", reason="closed")

    # ---- upstream.ConnectionCallbacks

    def connection_made(self, connection: UpstreamConnection) -> None:
        """Counts a connection that has a socket."""
        connection.known = self._known
        self._open.add(connection)
        self._emptied.clear()

    def connection_free(self, connection: UpstreamConnection) -> None:
        """Gives the connection to an exchange that waits, or keeps it idle."""
        self._known = connection.known
        if not self._keeps_idle and not self._waiting:
            connection.abort()
            return
        self._idle[connection] = self._timers.clock()
        if self._waiting:
            self._serve_waiting()
        elif self._expiry is None:
            self._expire()

    def connection_lost(self, connection: UpstreamConnection, exchange: Exchange | None, exc: Exception | None) -> None:
        """Forgets a connection; a request on a pooled one that was dead gets a fresh one before those that wait."""
        self._open.discard(connection)
        if not self._open:
            self._emptied.set()
        self._idle.pop(connection, None)
        if exchange is not None:
            if exchange.has_met_a_dead_connection and not self._closed:
                self._retried += 1
                self._connect(exchange)
            else:
                exchange.connection_lost(exc)
        self._serve_waiting()

    def _expire(self) -> None:
        """Closes the connections that have been idle for too long, and sets a timer for the rest."""
        self._expiry = None
        now = self._timers.clock()
        for connection, since in tuple(self._idle.items()):
            if now < since + LIMITS.pool_idle:
                self._expiry = self._timers.schedule(since + LIMITS.pool_idle, self._expire)
                return
            del self._idle[connection]
            connection.abort()
