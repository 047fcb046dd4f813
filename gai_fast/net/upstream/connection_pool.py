"""The connections to one upstream, and their assignment to exchanges.

Owns the number of connections, the queue of waiting exchanges, the connections kept ready, the time that an idle
connection is kept, and the one transparent retry after a dead pooled connection. It must not know how a connection is
made (`pool.py`, whose coroutines stay interpreted), the meaning of a response, other retries and other upstreams.

Above the maximum number exchanges wait: the connections go in turns to their callers, and one caller has half of the
room to wait in.

If processes share the maximum number, each has a part of it, and borrows a place for each connection beyond its part.
Another process may need the place: the connection is kept idle only for `limits.pool_borrowed_idle`.

If an exchange finds no idle connection, the pool makes one. If that takes time, the exchange gets the first connection
available: the new one, or one released by another exchange. An attempt that is no longer needed continues, and its
connection becomes idle.

After a dead connection an exchange gets only a fresh one: the upstream may have closed all pooled connections, and a
request is sent again only once; if it may not come twice, never.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from mypy_extensions import mypyc_attr

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.net.limits import LIMITS
from gai_fast.net.upstream.connection import (
    ConnectionCallbacks,
    Exchange,
    Receiver,
    Timeouts,
    Upload,
    UpstreamConnection,
)
from gai_fast.net.upstream.http_request import Origin, RequestEncoder, encode_once
from gai_fast.net.upstream.http_response import KnownResponseHeads
from gai_fast.net.upstream.idle_time import IdleTime
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.runtime.turns import CallerTurns


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Counts of one pool.

    Attributes:
        open: Open sockets, now.
        idle: Idle connections among them.
        connecting: Connections being made, now.
        pending: Requests that wait for a connection, now.
        opened: Connections opened, in total.
        reused: Reuses of a connection, in total.
        retried: Requests sent again because their pooled connection was dead, in total.
    """

    open: int
    idle: int
    connecting: int
    pending: int
    opened: int
    reused: int
    retried: int


class ConnectAttempt:
    """A connection that is being made.

    Attributes:
        exchange: The exchange that needs the connection and fails if the attempt fails. None if the connection is made
            for future requests.
        work: The attempt's task. None if it has none.
        stop: Stops the attempt.
        is_stopped: Whether the attempt was stopped.
        timer: Limits the time of an attempt that has no exchange.
    """

    def __init__(self, exchange: Exchange | None) -> None:
        self.exchange = exchange
        self.work: asyncio.Future[None] | None = None
        self.stop: Callable[[], object] = _nothing
        self.is_stopped = False
        self.timer: Timer | None = None


def _nothing() -> None: ...


NoteWait = Callable[[float], None]
"""Called with the seconds that a request has waited for a connection of a full pool."""


def ignore_wait(seconds: float) -> None: ...


@mypyc_attr(allow_interpreted_subclasses=True)
class ConnectionShare(ABC):
    """The connections to one upstream that this process may have, if several processes share their maximum number.

    Args:
        part: The connections that it makes without asking.
        most: The most connections that it can have.
    """

    def __init__(self, part: int, most: int) -> None:
        self.part = part
        self.most = most

    @abstractmethod
    def borrow(self, then: Callable[[bool], object]) -> None:
        """Asks for the place of another connection.

        Args:
            then: Called in a later turn of the loop, with whether there is one.
        """

    @abstractmethod
    def give_back(self) -> None:
        """Returns a place that was borrowed."""


Shares = Callable[[str, int], ConnectionShare | None]
"""Returns this process's share of the connections to an upstream: its name, the maximum number. None if it shares them
with no other process."""


def no_share(upstream: str, most: int) -> None: ...


_NONE_FREE: Final = "no connection to the upstream came free within {:g} s (pool_wait)"
_log: Final = logging.getLogger("gai_fast.upstream")
_LOOK: Final = LIMITS.pool_check  # a constant, because every request reads it


@mypyc_attr(allow_interpreted_subclasses=True)
class ConnectionPool(ABC):
    """The connections to one upstream, idle ones included; belongs to one loop and its thread.

    Changes with the rules by which exchanges get connections. `UpstreamPool` changes with the ways to an upstream.

    Args:
        origin: The upstream's address.
        timeouts: The time limits of an exchange.
        timers: The loop's wheel; its clock is the pool's.
        max_connections: Maximum number of connections, including idle ones and those being made. Further requests wait,
            up to `limits.pool_waiting`.
        pool_wait: Seconds after which a waiting request fails.
        waited: As `NoteWait`.
        min_idle: Connections that `keep_ready` keeps idle for future requests, within this process's part.
        share: This process's share of `max_connections`. None if it shares them with no other process.
        loop: The loop.
    """

    def __init__(
        self,
        origin: Origin,
        timeouts: Timeouts,
        *,
        timers: Timers,
        max_connections: int,
        pool_wait: float = 1.0,
        waited: NoteWait = ignore_wait,
        min_idle: int = 0,
        share: ConnectionShare | None = None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.origin = origin
        self._peer = origin.peer
        self._encoder = RequestEncoder(origin)
        self._timers = timers
        self._clock: Callable[[], float] = timers.clock
        self._timeouts = timeouts
        self._max_connections = max_connections
        self._share = share
        self._room = max_connections if share is None else share.part  # the connections that it may have now
        self._borrowed = 0  # of them
        self._asking = 0  # asked for, and not answered
        self._next_ask: Timer | None = None  # until it fires, no place is asked for
        self._borrowed_expiry: Timer | None = None
        self._pool_wait = pool_wait
        self._longest_wait = pool_wait if share is None else max(pool_wait, LIMITS.pool_ask)
        self._note_wait = waited
        self._min_idle = min_idle
        self._loop = loop
        self._open: set[UpstreamConnection] = set()
        self._idle: dict[UpstreamConnection, float] = {}  # → when it became idle; longest idle first
        self._idle_time = IdleTime()
        self._attempts: dict[ConnectAttempt, None] = {}
        self._seeking: dict[Exchange, ConnectAttempt] = {}  # in order of arrival
        self._waiting: OrderedDict[Exchange, float] = OrderedDict()  # above max_connections → since when
        self._turns: CallerTurns[Exchange] = CallerTurns()  # the same ones
        self._wait_timer: Timer | None = None  # for the exchange that has waited longest
        self._failed_waits = 0  # since the last warning
        self._next_warning = 0.0
        self._expiry: Timer | None = None
        self._keeps_idle = True
        self._keeps_ready = False
        self._refill: Timer | None = None  # until it fires, no connection is made for future requests
        self._refill_wait = LIMITS.ready_retry_first
        self._known = KnownResponseHeads()
        self._closed = False
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._opened = self._reused = self._retried = 0

    def open(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, receiver: Receiver, caller: str
    ) -> Exchange:
        """Starts a request and returns at once; the receiver is called in a later turn of the loop.

        Args:
            path: Relative to the base URL, with its query; begins with `/`.
            headers: All headers except those that the connection sets: `Host`, `Content-Length`, `Accept-Encoding`, ….
            caller: The name of its caller, whose turn it waits for.

        Raises:
            ValueError: An argument would break the request's framing; see `encode_request`.
        """
        request = self._encoder.encode(method, path, headers, body)
        now = self._clock()
        exchange = Exchange(self._peer, method, request, receiver, self._timeouts, self._timers, now)
        _start(self, exchange, now, caller)
        return exchange

    def open_once(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        receiver: Receiver,
        caller: str,
        upload: Upload | None = None,
        length: int = -1,
        is_repeatable: bool = True,
    ) -> Exchange:
        """Starts a request as `open` does; its head is not cached.

        Args:
            method: As for `open`.
            path: As for `open`.
            headers: As for `open`.
            body: The body, or its first bytes if there is an upload, framed.
            receiver: As for `open`.
            caller: As for `open`.
            upload: Sends the rest of the body. None if there is no rest.
            length: The length of an uploaded body; negative if it is sent in HTTP chunks.
            is_repeatable: Whether the upstream may get the request twice: if not, it is not sent again after a dead
                pooled connection, whose peer may have read it.

        Raises:
            ValueError: As `open`.
        """
        request = encode_once(self.origin, method, path, headers, body, upload is not None, length)
        now = self._clock()
        exchange = Exchange(self._peer, method, request, receiver, self._timeouts, self._timers, now, upload)
        exchange.is_repeatable = is_repeatable
        _start(self, exchange, now, caller)
        return exchange

    def _end_waits(self) -> None:
        """Fails the exchanges that have waited for `pool_wait`, and sets a timer for the others."""
        self._wait_timer = None
        now = self._clock()
        for exchange, since in tuple(self._waiting.items()):
            if now < since + self._longest_wait:
                self._wait_timer = self._timers.schedule(since + self._longest_wait, self._end_waits)
                break
            self._note_wait(now - since)
            exchange.fail(self._full(_NONE_FREE.format(self._pool_wait)))

    def _full(self, text: str) -> Error:
        """Returns the error of an exchange that gets no connection; logs a warning once in `limits.pool_warning`."""
        self._failed_waits += 1
        now = self._clock()
        if now >= self._next_warning:
            warning = "%s: requests without a connection: %d; all of max_connections = %d are in use (pool_wait = %g s)"
            _log.warning(warning, self._peer, self._failed_waits, self._max_connections, self._pool_wait)
            self._failed_waits = 0
            self._next_warning = now + LIMITS.pool_warning
        text = f"{text}: all of max_connections = {self._max_connections} are in use"
        return Error("overloaded", text, reason="upstream_pool", retry_after_ms=SHARED.overloaded_ms)

    def keep_idle(self, keeps: bool) -> None:
        """Sets whether connections are kept for future requests. If not, closes the idle ones at once."""
        self._keeps_idle = keeps
        if not keeps:
            idle = tuple(self._idle)
            self._idle.clear()
            for connection in idle:
                connection.abort()

    def keep_ready(self) -> None:
        """Makes `min_idle` connections for future requests, and from then on keeps that many idle."""
        self._keeps_ready = self._min_idle > 0
        self._fill()

    def connect_ahead(self) -> bool:
        """Makes one connection for future requests, if there is room. Returns whether the pool is still open."""
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
        """Makes a connection if that takes no time. None if not: the caller then uses `_make`, which reports errors."""
        raise NotImplementedError

    @abstractmethod
    def _make(self, attempt: ConnectAttempt) -> None:
        """Starts making a connection. Calls `_made` or `_failed` in a later turn of the loop."""
        raise NotImplementedError

    # ---- which exchange gets which connection

    def _has_room(self) -> bool:
        return len(self._open) + len(self._attempts) < self._room

    def _connect(self, exchange: Exchange) -> None:
        """Starts making a connection for an exchange."""
        attempt = ConnectAttempt(exchange)
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

    def _stop(self, attempt: ConnectAttempt) -> None:
        attempt.is_stopped = True
        attempt.stop()

    def _hand_over(self, connection: UpstreamConnection, *, reused: bool) -> bool:
        """Gives a connection to the next exchange. Returns False if no exchange waits."""
        for exchange, attempt in self._seeking.items():
            if not (reused and exchange.resent):
                del self._seeking[exchange]
                attempt.exchange = None
                self._bound(attempt)
                self._reused += reused
                _begin(exchange, connection, self._loop, reused=reused)
                return True
        following = self._next()
        if following is None:
            return False
        self._reused += reused
        _begin(following, connection, self._loop, reused=reused)
        return True

    def _next(self) -> Exchange | None:
        """Takes out the waiting exchange whose turn it is. None if there is none."""
        exchange = self._turns.take()
        if exchange is not None:
            self._note_wait(self._clock() - self._waiting.pop(exchange))
        return exchange

    def _leave(self, exchange: Exchange, caller: str) -> None:
        """Lets an exchange wait no longer."""
        if self._turns.remove(caller, exchange):
            del self._waiting[exchange]

    def _bound(self, attempt: ConnectAttempt) -> None:
        """Limits the time of an attempt that belongs to no exchange."""
        until = self._clock() + self._timeouts.connect
        attempt.timer = self._timers.schedule(until, functools.partial(self._give_up, attempt))

    def _give_up(self, attempt: ConnectAttempt) -> None:
        """Stops an attempt that has taken too long."""
        self._fill_later()
        self._stop(attempt)

    def _serve_waiting(self) -> None:
        while not self._closed and self._has_room() and (exchange := self._next()) is not None:
            _serve(self, exchange, self._clock())  # there is room for it

    # ---- places that are shared with other processes

    def _borrow(self) -> None:
        """Asks for a place for a waiting exchange, unless one was refused a moment ago."""
        share = self._share
        if share is None or self._closed or self._next_ask is not None:
            return
        if self._asking < len(self._waiting) and self._room + self._asking < share.most:
            self._asking += 1
            share.borrow(self._answered)

    def _answered(self, is_granted: bool) -> None:
        """Serves a waiting exchange by the place that was asked for, or asks later again."""
        self._asking -= 1
        if is_granted:
            self._borrowed += 1
            self._room += 1
            self._serve_waiting()
            self._give_back()
            self._borrow()
        elif self._waiting and not self._closed and self._next_ask is None:
            self._next_ask = self._timers.schedule(self._clock() + LIMITS.pool_ask, self._ask_again)

    def _ask_again(self) -> None:
        self._next_ask = None
        self._borrow()

    def _give_back(self) -> None:
        """Returns the borrowed places that no connection needs."""
        share = self._share
        while share is not None and self._borrowed and self._has_room():
            self._borrowed -= 1
            self._room -= 1
            share.give_back()

    def _expire_borrowed(self) -> None:
        """Closes connections that have been idle for too long in borrowed places, and sets a timer for the rest."""
        self._borrowed_expiry = None
        now = self._clock()
        for connection, since in tuple(islice(self._idle.items(), self._borrowed)):
            if now < since + LIMITS.pool_borrowed_idle:
                self._borrowed_expiry = self._timers.schedule(since + LIMITS.pool_borrowed_idle, self._expire_borrowed)
                break
            del self._idle[connection]
            connection.abort()

    def _gone(self) -> Error:
        return Error("network", f"the connections to {self._peer} are being closed", reason="closed")

    # ---- the outcome of an attempt

    def _made(self, attempt: ConnectAttempt, connection: UpstreamConnection) -> None:
        """Gives a new connection to its exchange or to a waiting one, else keeps it idle."""
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

    def _failed(self, attempt: ConnectAttempt, error: Error) -> None:
        """Fails the exchange that the attempt was made for, unless the attempt was stopped."""
        exchange = self._forget(attempt)
        if not attempt.is_stopped:
            self._fail(exchange, error)

    def _broke(self, attempt: ConnectAttempt, problem: Exception) -> None:
        """Fails the attempt's exchange because of a bug in the gateway.

        Raises:
            Exception: The bug, if the attempt has no exchange.
        """
        exchange = self._forget(attempt)
        if exchange is None:
            self._fill_later()
            raise problem
        exchange.broke(problem)

    def _ended(self, attempt: ConnectAttempt) -> None:
        """Serves waiting exchanges, now that there is room."""
        self._forget(attempt)
        self._serve_waiting()
        self._give_back()
        self._fill()

    def _forget(self, attempt: ConnectAttempt) -> Exchange | None:
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
        """Suspends making connections for future requests, for a longer time after each call."""
        if self._keeps_ready and self._refill is None and not self._closed:
            self._refill = self._timers.schedule(self._clock() + self._refill_wait, self._refill_again)
            self._refill_wait = min(2 * self._refill_wait, LIMITS.ready_retry)

    def _refill_again(self) -> None:
        self._refill = None
        self._fill()

    def _fill(self) -> None:
        """Makes connections if fewer than `min_idle` are idle."""
        if not self._keeps_ready or self._closed or not self._keeps_idle or self._refill is not None:
            return
        while len(self._attempts) < LIMITS.ready_connecting and self._has_room():
            if len(self._idle) + len(self._attempts) - len(self._seeking) >= self._min_idle:
                return
            self._make_ahead()

    def _make_ahead(self) -> None:
        attempt = ConnectAttempt(None)
        self._attempts[attempt] = None
        self._bound(attempt)
        self._make(attempt)

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
        """Notes the age of an idle connection that has ended. If it was young, `min_idle` is refilled only later."""
        if age < LIMITS.pool_idle_least:
            self._fill_later()
        else:
            self._refill_wait = LIMITS.ready_retry_first


class PoolCallbacks(ConnectionCallbacks):
    """The callbacks of a pool's connections.

    A class of its own: the methods of a class with an interpreted subclass are called through the interpreter, which
    took 500 instructions a request.

    Args:
        pool: The pool.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def connection_made(self, connection: UpstreamConnection) -> None:
        """Counts a connection that has a socket."""
        self._pool._open.add(connection)
        self._pool._emptied.clear()

    def connection_free(self, connection: UpstreamConnection) -> None:
        """Gives the connection to a waiting exchange, or keeps it idle."""
        pool = self._pool
        if pool._idle_time.note_header(connection.idle_timeout):
            pool._expire()
        is_wanted = bool(pool._seeking or pool._waiting)
        if not (is_wanted and pool._hand_over(connection, reused=True)):
            _keep(pool, connection)

    def connection_lost(self, connection: UpstreamConnection, exchange: Exchange | None, exc: Exception | None) -> None:
        """Forgets a connection. If it was a dead pooled one, its request gets a fresh one before waiting requests."""
        pool = self._pool
        pool._open.discard(connection)
        if not pool._open:
            pool._emptied.set()
        since = pool._idle.pop(connection, None)
        if since is not None:
            age = pool._clock() - since
            pool._idle_time.ended(age)
            pool._idled(age)
            pool._expire()
        if exchange is not None:
            if exchange.has_met_a_dead_connection and not pool._closed:
                pool._retried += 1
                pool._connect(exchange)
            else:
                exchange.connection_lost(exc)
        pool._serve_waiting()
        pool._give_back()
        pool._fill()


def _start(pool: ConnectionPool, exchange: Exchange, now: float, caller: str) -> None:
    """Gives an exchange, made at `now`, a connection, or lets it wait for one."""
    if pool._closed:
        pool._loop.call_soon(exchange.fail, pool._gone())
    elif _serve(pool, exchange, now):
        pass
    elif pool._turns.has_room(caller, LIMITS.pool_waiting):
        pool._waiting[exchange] = now
        pool._turns.add(caller, exchange)
        exchange.begin_waiting(functools.partial(pool._leave, exchange, caller))
        if pool._wait_timer is None:
            pool._wait_timer = pool._timers.schedule(now + pool._longest_wait, pool._end_waits)
        pool._borrow()
    else:
        text = "too many requests wait for a connection to the upstream, or half as many of this caller"
        pool._loop.call_soon(exchange.fail, pool._full(text))


def _serve(pool: ConnectionPool, exchange: Exchange, now: float) -> bool:
    """Gives an exchange an idle connection, or makes one for it. Returns False if there is no room."""
    # A function, because a method of a class with an interpreted subclass is called through the interpreter.
    while pool._idle:
        connection, since = pool._idle.popitem()  # the last one used is the least likely to have been closed
        is_young = now < since + _LOOK and exchange.is_repeatable  # nothing mends a dead connection for the others
        if not connection.is_closing and (is_young or connection.is_quiet):
            pool._reused += 1
            _begin(exchange, connection, pool._loop, reused=True)
            if pool._keeps_ready:
                pool._fill()
            return True
        pool._idle_time.ended(now - since)
        connection.abort()
    if not pool._has_room():
        return False
    try:
        new = pool._make_at_once()
    except Exception as problem:  # noqa: BLE001  # a bug of ours must not leave the exchange without an end
        pool._loop.call_soon(exchange.broke, problem)
        return True
    if new is None:
        pool._connect(exchange)
    else:
        pool._opened += 1
        _begin(exchange, new, pool._loop, reused=False)
    return True


def _keep(pool: ConnectionPool, connection: UpstreamConnection) -> None:
    """Keeps a connection for future requests, or closes it if none is kept."""
    if not pool._keeps_idle or pool._closed:
        connection.abort()
        return
    pool._idle[connection] = now = pool._clock()
    if pool._expiry is None:
        pool._expire()
    if pool._borrowed and pool._borrowed_expiry is None:
        pool._borrowed_expiry = pool._timers.schedule(now + LIMITS.pool_borrowed_idle, pool._expire_borrowed)


def _begin(
    exchange: Exchange, connection: UpstreamConnection, loop: asyncio.AbstractEventLoop, *, reused: bool
) -> None:
    try:
        exchange.begin(connection, reused=reused)
    except Exception as problem:  # noqa: BLE001  # a bug of ours must not leave the exchange without an end
        loop.call_soon(exchange.broke, problem)
