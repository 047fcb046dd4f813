"""The connections to one upstream, and their assignment to exchanges.

Owns the number of connections, the queue of exchanges that wait for one, those that are kept ready, the time that an
idle one is kept, and the one transparent retry of a pooled connection that was dead. It must not know how a connection
is made (`pool.py`, whose coroutines stay interpreted), the meaning of a response, other retries and other upstreams.

An exchange that finds no idle connection has one made for it. Where that takes time, it takes whichever is there first:
that one, or one that another exchange has done with. An attempt that is no longer needed goes on, and its connection
stays idle.

An exchange that has met a dead connection takes a fresh one only: its upstream may have closed all that it had, and a
request is sent again once.
"""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mypy_extensions import mypyc_attr

from gai_fast.model.errors import Error
from gai_fast.model.limits import LIMITS
from gai_fast.net.upstream.connection import Exchange, Receiver, Timeouts, UpstreamConnection
from gai_fast.net.upstream.http_request import Origin, RequestEncoder
from gai_fast.net.upstream.http_response import KnownResponseHeads
from gai_fast.net.upstream.idle_time import IdleTime
from gai_fast.runtime.timers import Timer, Timers


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


class Attempt:
    """A connection that is being made.

    Attributes:
        exchange: The exchange that it is made for, which fails with it; `None`: it is made for whoever comes.
        work: Done when the work is.
        stop: Stops the work.
        is_stopped: Whether `stop` was called.
        timer: Stops it in time where no exchange does that.
    """

    __slots__ = ("exchange", "is_stopped", "stop", "timer", "work")

    def __init__(self, exchange: Exchange | None) -> None:
        self.exchange = exchange
        self.work: asyncio.Future[None] | None = None
        self.stop: Callable[[], object] = _nothing
        self.is_stopped = False
        self.timer: Timer | None = None


def _nothing() -> None: ...


_LOOK: Final = LIMITS.pool_look  # a constant, because every request asks


@mypyc_attr(allow_interpreted_subclasses=True)
class ConnectionPool(ABC):
    """The connections to one upstream, idle ones included; belongs to one loop and its thread.

    Args:
        origin: Where the upstream is.
        timeouts: The time limits of an exchange.
        timers: The loop's wheel; its clock is the pool's.
        max_connections: Connections in all, idle and connecting ones included; more requests wait, first come, first
            served, up to `limits.pool_waiting`.
        min_idle: Connections that `keep_ready` keeps idle for requests to come.
        loop: The loop.
    """

    def __init__(
        self,
        origin: Origin,
        timeouts: Timeouts,
        *,
        timers: Timers,
        max_connections: int,
        min_idle: int = 0,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.origin = origin
        self._peer = origin.peer
        self._encoder = RequestEncoder(origin)
        self._timers = timers
        self._clock: Callable[[], float] = timers.clock
        self._timeouts = timeouts
        self._max_connections = max_connections
        self._min_idle = min_idle
        self._loop = loop
        self._open: set[UpstreamConnection] = set()
        self._idle: dict[UpstreamConnection, float] = {}  # → since when; the longest idle first
        self._idle_time = IdleTime()
        self._attempts: dict[Attempt, None] = {}
        self._seeking: dict[Exchange, Attempt] = {}  # the one that came first, first
        self._waiting: OrderedDict[Exchange, None] = OrderedDict()  # those for which there is no room
        self._expiry: Timer | None = None
        self._keeps_idle = True
        self._keeps_ready = False
        self._refill: Timer | None = None  # until it fires no connection is made for whoever comes
        self._refill_wait = LIMITS.ready_retry_first
        self._known = KnownResponseHeads()
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
        request = self._encoder.encode(method, path, headers, body)
        exchange = Exchange(self._peer, method, request, receiver, self._timeouts, self._timers)
        if self._closed:
            self._loop.call_soon(exchange.fail, self._gone())
        elif _serve(self, exchange):
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

    def keep_ready(self) -> None:
        """Makes `min_idle` connections for requests to come, and from now on keeps as many idle."""
        self._keeps_ready = self._min_idle > 0
        self._fill()

    def connect_ahead(self) -> bool:
        """Makes one connection for requests to come, if there is room; returns whether the pool is still open."""
        if not self._closed and self._has_room():
            self._make_ahead()
        return not self._closed

    @property
    def stats(self) -> PoolStats:
        """The counts so far."""
        return PoolStats(
            open=len(self._open),
            idle=len(self._idle),
            connecting=len(self._attempts),
            pending=len(self._waiting),
            opened=self._opened,
            reused=self._reused,
            retried=self._retried,
        )

    @abstractmethod
    def _make_at_once(self) -> UpstreamConnection | None:
        """Makes a connection, where that takes no time; `None`: `_make` does, or tells why not."""
        raise NotImplementedError

    @abstractmethod
    def _make(self, attempt: Attempt) -> None:
        """Begins to make a connection; ends with a call of `_made` or `_failed`, in a later turn of the loop."""
        raise NotImplementedError

    # ---- which exchange gets which connection

    def _has_room(self) -> bool:
        return len(self._open) + len(self._attempts) < self._max_connections

    def _connect(self, exchange: Exchange) -> None:
        """Has a connection made for an exchange."""
        attempt = Attempt(exchange)
        self._seeking[exchange] = attempt
        self._attempts[attempt] = None
        exchange.begin_connecting(functools.partial(self._abandon, exchange))
        self._make(attempt)

    def _abandon(self, exchange: Exchange) -> None:
        """Stops the attempt of an exchange that has ended."""
        attempt = self._seeking.pop(exchange, None)
        if attempt is not None:
            attempt.exchange = None
            self._stop(attempt)

    def _stop(self, attempt: Attempt) -> None:
        attempt.is_stopped = True
        attempt.stop()

    def _hand_over(self, connection: UpstreamConnection, *, reused: bool) -> bool:
        """Gives a connection to the exchange that has waited longest; returns whether there was one."""
        for exchange, attempt in self._seeking.items():
            if not (reused and exchange.resent):
                del self._seeking[exchange]
                attempt.exchange = None
                self._bound(attempt)
                self._reused += reused
                _begin(exchange, connection, self._loop, reused=reused)
                return True
        if not self._waiting:
            return False
        exchange, _ = self._waiting.popitem(last=False)
        self._reused += reused
        _begin(exchange, connection, self._loop, reused=reused)
        return True

    def _bound(self, attempt: Attempt) -> None:
        """Limits the time of an attempt that belongs to no exchange."""
        until = self._clock() + self._timeouts.connect
        attempt.timer = self._timers.schedule(until, functools.partial(self._give_up, attempt))

    def _give_up(self, attempt: Attempt) -> None:
        """Stops an attempt that has taken too long."""
        self._fill_later()
        self._stop(attempt)

    def _serve_waiting(self) -> None:
        while self._waiting and not self._closed:
            exchange = next(iter(self._waiting))
            if not _serve(self, exchange):
                return
            del self._waiting[exchange]

    def _gone(self) -> Error:
        return Error("network", f"the connections to {self._peer} are being closed", reason="closed")

    # ---- what becomes of an attempt

    def _made(self, attempt: Attempt, connection: UpstreamConnection) -> None:
        """Lends a new connection to the exchange that it was made for, or to another."""
        self._opened += 1
        exchange = self._forget(attempt)
        if attempt.is_stopped:
            connection.abort()
        elif connection.is_closing:
            text = f"{self._peer} closed the connection, or spoke, before it was asked: check base_url"
            self._fail(exchange, Error("network", text, reason="reset"))
        elif exchange is not None:
            _begin(exchange, connection, self._loop, reused=False)
        elif not self._hand_over(connection, reused=False):
            _keep(self, connection)

    def _failed(self, attempt: Attempt, error: Error) -> None:
        """Fails the exchange that the connection was to be for."""
        exchange = self._forget(attempt)
        if not attempt.is_stopped:
            self._fail(exchange, error)

    def _broke(self, attempt: Attempt, problem: Exception) -> None:
        """Fails that exchange because of a bug of the gateway.

        Raises:
            Exception: The bug, where there is no exchange.
        """
        exchange = self._forget(attempt)
        if exchange is None:
            self._fill_later()
            raise problem
        exchange.broke(problem)

    def _ended(self, attempt: Attempt) -> None:
        """Has connections made for those that wait, now that there is room."""
        self._forget(attempt)
        self._serve_waiting()
        self._fill()

    def _forget(self, attempt: Attempt) -> Exchange | None:
        exchange, attempt.exchange = attempt.exchange, None
        self._attempts.pop(attempt, None)
        if attempt.timer is not None:
            attempt.timer.cancel()
        if exchange is not None:
            self._seeking.pop(exchange, None)
        return exchange

    def _fail(self, exchange: Exchange | None, error: Error) -> None:
        if exchange is not None:
            exchange.fail(error)
        else:
            self._fill_later()

    def _fill_later(self) -> None:
        """Makes no connection for requests to come for a while, which is longer each time."""
        if self._keeps_ready and self._refill is None and not self._closed:
            self._refill = self._timers.schedule(self._clock() + self._refill_wait, self._refill_again)
            self._refill_wait = min(2 * self._refill_wait, LIMITS.ready_retry)

    def _refill_again(self) -> None:
        self._refill = None
        self._fill()

    def _fill(self) -> None:
        """Makes connections where fewer than `min_idle` are idle."""
        if not self._keeps_ready or self._closed or not self._keeps_idle or self._refill is not None:
            return
        while len(self._attempts) < LIMITS.ready_connecting and self._has_room():
            if len(self._idle) + len(self._attempts) - len(self._seeking) >= self._min_idle:
                return
            self._make_ahead()

    def _make_ahead(self) -> None:
        attempt = Attempt(None)
        self._attempts[attempt] = None
        self._bound(attempt)
        self._make(attempt)

    # ---- upstream.ConnectionCallbacks

    def connection_made(self, connection: UpstreamConnection) -> None:
        """Counts a connection that has a socket."""
        self._open.add(connection)
        self._emptied.clear()

    def connection_free(self, connection: UpstreamConnection) -> None:
        """Gives the connection to an exchange that waits, or keeps it idle."""
        if self._idle_time.told(connection.idle_timeout):
            self._expire()
        is_wanted = bool(self._seeking or self._waiting)
        if not (is_wanted and self._hand_over(connection, reused=True)):
            _keep(self, connection)

    def connection_lost(self, connection: UpstreamConnection, exchange: Exchange | None, exc: Exception | None) -> None:
        """Forgets a connection; a request on a pooled one that was dead gets a fresh one before those that wait."""
        self._open.discard(connection)
        if not self._open:
            self._emptied.set()
        since = self._idle.pop(connection, None)
        if since is not None:
            age = self._clock() - since
            self._idle_time.ended(age)
            self._idled(age)
            self._expire()
        if exchange is not None:
            if exchange.has_met_a_dead_connection and not self._closed:
                self._retried += 1
                self._connect(exchange)
            else:
                exchange.connection_lost(exc)
        self._serve_waiting()
        self._fill()

    def _expire(self) -> None:
        """Closes the connections that have been idle for too long, and sets a timer for the rest."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        now, longest = self._clock(), self._idle_time.limit
        for connection, since in tuple(self._idle.items()):
            if now < since + longest:
                self._expiry = self._timers.schedule(since + longest, self._expire)
                break
            del self._idle[connection]
            self._idle_time.outlived()
            self._idled(now - since)
            connection.abort()

    def _idled(self, age: float) -> None:
        """Notes the age of an idle connection that has ended; where they end young, ready ones are made more rarely."""
        if age < LIMITS.pool_idle_least:
            self._fill_later()
        else:
            self._refill_wait = LIMITS.ready_retry_first


def _serve(pool: ConnectionPool, exchange: Exchange) -> bool:
    """Gives an exchange an idle connection, or has one made for it; returns whether that was possible."""
    # Functions, because a method of a class with an interpreted subclass is called through the interpreter.
    while pool._idle:
        connection, since = pool._idle.popitem()  # the last one used is the least likely to have been closed
        is_young = pool._clock() < since + _LOOK
        if not connection.is_closing and (is_young or connection.is_quiet):
            pool._reused += 1
            _begin(exchange, connection, pool._loop, reused=True)
            if pool._keeps_ready:
                pool._fill()
            return True
        pool._idle_time.ended(pool._clock() - since)
        connection.abort()
    if not pool._has_room():
        return False
    try:
        made = pool._make_at_once()
    except Exception as problem:  # noqa: BLE001  # a bug of ours must not leave the exchange without an end
        pool._loop.call_soon(exchange.broke, problem)
        return True
    if made is None:
        pool._connect(exchange)
    else:
        pool._opened += 1
        _begin(exchange, made, pool._loop, reused=False)
    return True


def _keep(pool: ConnectionPool, connection: UpstreamConnection) -> None:
    """Keeps a connection for requests to come."""
    if not pool._keeps_idle or pool._closed:
        connection.abort()
        return
    pool._idle[connection] = pool._clock()
    if pool._expiry is None:
        pool._expire()


def _begin(
    exchange: Exchange, connection: UpstreamConnection, loop: asyncio.AbstractEventLoop, *, reused: bool
) -> None:
    try:
        exchange.begin(connection, reused=reused)
    except Exception as problem:  # noqa: BLE001  # a bug of ours must not leave the exchange without an end
        loop.call_soon(exchange.broke, problem)
