"""One request to one upstream over a connection: state, time limits and backpressure.

Called by the loop, calls a receiver. It must not know the bytes of requests and responses (`http_request.py`,
`http_response.py`), the queue for connections (`connection_pool.py`), retries of failed requests, the deadline of the
first event, providers or JSON.

    UpstreamConnection   one TCP or TLS connection; an asyncio protocol, a few lines
    Exchange             one request and its response on it: state, timeouts, backpressure, the calls to the receiver

The states of an exchange; `close()` and every failure lead to ENDED from anywhere:

    QUEUED ─► CONNECTING ─► HEAD ─► BODY ─► ENDED
       │           ▲          │
       └───────────┼──────────┴► (if the pooled connection was dead: CONNECTING, once, for a fresh one)
                   └─ a request that gets a pooled connection begins in HEAD
"""

from __future__ import annotations

import enum
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, cast

from mypy_extensions import mypyc_attr

from gai_fast.kernels import FastPath, ReadBatch, TLSRecords
from gai_fast.model.errors import Error
from gai_fast.net.limits import LIMITS
from gai_fast.net.sockets.socket_transport import Transport
from gai_fast.net.sockets.sockets import descriptor_of, has_arrived
from gai_fast.net.upstream.http_response import KnownResponseHeads, ResponseReader
from gai_fast.runtime.timers import Timer, Timers


@mypyc_attr(allow_interpreted_subclasses=True)
class Receiver:
    """Receives a response. Called synchronously from the loop, never from within `UpstreamPool.open`.

    A class, not a protocol, like `Timers`.
    """

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        """Receives the head of the final response: lower-case names, the values of duplicates joined by `", "`."""
        raise NotImplementedError

    def body_received(self, data: bytes) -> FastPath | None:
        """Receives the bytes of the body that one read brought, without their framing.

        Returns:
            The fast path for the next reads, or None. Bytes that a fast path does not handle are passed to this
            method; there may be none.
        """
        raise NotImplementedError

    def exchange_ended(self, error: Error | None) -> None:
        """Called exactly once, last, unless the exchange was closed.

        Args:
            error: None after a complete, correctly framed body; else `network`, `timeout`, `provider_unavailable` or
                `overloaded`, after the bytes received before it. Its phase is `connect` if there was no connection,
                else not set. `internal`, without a phase, is a bug in the gateway, which is its cause; it is never a
                failure of the upstream.
        """
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Upload:
    """Sends the rest of a request's body while it arrives. A class, not a protocol, like `Timers`."""

    def begin(self) -> None:
        """Called when the head was written: `Exchange.write` may follow. Called again if it was written again."""
        raise NotImplementedError

    def resume(self) -> None:
        """Called when the upstream has taken all that was written, after it had not taken it at once."""
        raise NotImplementedError


class OpenExchange(Protocol):
    """A running request to an upstream and its response."""

    @property
    def is_complete(self) -> bool:
        """Whether the whole response has arrived, although the receiver may not have its last bytes yet."""

    @property
    def is_waiting(self) -> bool:
        """Whether the request still waits in the queue for a connection."""

    @property
    def sent(self) -> bool:
        """Whether the request was handed to an established connection, so that the upstream may work on it.

        False while a connection is made; stays as it is after the end.
        """

    @property
    def resent(self) -> bool:
        """Whether the request was written twice because its first connection, a pooled one, was dead."""

    def pause_reading(self) -> None:
        """Stops reading the response; idempotent."""

    def resume_reading(self) -> None:
        """Resumes reading; idempotent."""

    def limit_silence(self, seconds: float) -> None:
        """Sets the longest silence of the response, in place of the upstream's `idle_timeout`.

        Args:
            seconds: Seconds without a byte while reading is on.
        """

    def close(self) -> None:
        """Aborts the exchange. May be called at any time; the receiver is not called afterwards; idempotent."""


# ---- one request and its response ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits of an exchange, in seconds.

    Args:
        connect: DNS, TCP and TLS together.
        idle: Time without a byte while reading is on.
        total: Time from `open` to the end.
    """

    connect: float
    idle: float
    total: float


class _State(enum.Enum):
    QUEUED = enum.auto()
    CONNECTING = enum.auto()
    HEAD = enum.auto()  # the request is written
    BODY = enum.auto()  # the head was delivered
    ENDED = enum.auto()


# Constants, because an attribute of an enum costs 75 ns on 3.11 and each read needs two. Annotated with the enum's
# type: mypyc assumes that an attribute narrowed to a member stays so (docs/architecture/kernels.md, "Compiled modules").
_QUEUED: Final[_State] = _State.QUEUED
_CONNECTING: Final[_State] = _State.CONNECTING
_HEAD: Final[_State] = _State.HEAD
_BODY: Final[_State] = _State.BODY
_ENDED: Final[_State] = _State.ENDED


class _NullReceiver(Receiver):
    """Null receiver, installed once an exchange has ended, so that the exchange no longer refers to its receiver."""

    def head_received(self, status: int, headers: dict[str, str]) -> None: ...

    def body_received(self, data: bytes) -> FastPath | None:
        return None

    def exchange_ended(self, error: Error | None) -> None: ...


_NULL_RECEIVER: Final = _NullReceiver()


class Exchange:
    """One request and its response. Made by `UpstreamPool.open`; belongs to the thread of its loop.

    Attributes:
        sent: Whether the request may have been written, so that the upstream may be working on it.
        reused: Whether the exchange runs on a pooled connection.
        resent: Whether the request was written again because its pooled connection was dead.
        is_repeatable: Whether it may be: the upstream may get the request twice.
        fast_path: Handles the next reads, once the body has begun and the reads are likely to bring only deltas.
    """

    def __init__(
        self,
        peer: str,
        method: str,
        request: bytes,
        receiver: Receiver,
        timeouts: Timeouts,
        timers: Timers,
        now: float,
        upload: Upload | None = None,
    ) -> None:
        self.sent = False
        self.reused = False
        self.resent = False
        self.is_repeatable = True
        self._peer = peer
        self._method = method
        self._request: bytes | None = request  # until the first byte of the response
        self._receiver = receiver
        self._upload = upload  # until the whole request is written
        self._timeouts = timeouts
        self._timers = timers
        self._clock: Callable[[], float] = timers.clock
        self._state = _QUEUED
        self._abandon: Callable[[], object] | None = None  # cancels waiting or connecting, for close()
        self._connection: UpstreamConnection | None = None
        self._response: ResponseReader  # from `begin` on
        self.fast_path: FastPath | None = None
        self._paused = False
        self._idle = timeouts.idle
        self._total_by = now + timeouts.total
        self._read_at = now
        self._connect_by = self._armed = 0.0
        self._timer: Timer | None = None

    # -- for the receiver's side

    @property
    def is_complete(self) -> bool:
        """Whether the whole response has arrived, although the receiver may not have been called for it yet."""
        return self._connection is not None and self._response.complete

    @property
    def has_ended(self) -> bool:
        """Whether the exchange has ended; the receiver is not called any more."""
        return self._state is _ENDED

    @property
    def is_waiting(self) -> bool:
        """Whether the exchange still waits for a connection."""
        return self._state is _QUEUED

    def pause_reading(self) -> None:
        """Stops reading and suspends `idle_timeout` until `resume_reading`; idempotent."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause_reading()

    def resume_reading(self) -> None:
        """Resumes reading and restarts `idle_timeout`."""
        if self._paused:
            self._paused = False
            if self._connection is not None:
                self._read_at = self._clock()
                self._connection.resume_reading()
                self._arm()

    def limit_silence(self, seconds: float) -> None:
        """Works as `OpenExchange.limit_silence`."""
        self._idle = seconds
        if self._state is not _ENDED:
            self._arm()

    @property
    def unsent(self) -> int:
        """The bytes of the request that the upstream has not taken yet."""
        return 0 if self._connection is None else self._connection.unsent

    def write(self, data: bytes) -> None:
        """Sends more of the request's body, framed. The request is not sent on another connection from then on."""
        if self._upload is not None and self._connection is not None:
            self._request = None
            self._read_at = self._clock()  # while the body is still sent, the upstream is not silent
            self._connection.write(data)

    def end_body(self) -> None:
        """Notes that the whole body has been written: the connection may carry another request afterwards."""
        self._upload = None

    def resume_writing(self) -> None:
        """Lets the upload go on."""
        if self._upload is not None:
            self._upload.resume()

    def close(self) -> None:
        """Aborts the exchange and its connection, which is never reused; the receiver is not called any more."""
        if self._state is not _ENDED:
            self._drop()

    # -- for the pool

    def begin_waiting(self, abandon: Callable[[], object]) -> None:
        """Notes that the exchange is in the pool's queue; `abandon` removes it."""
        self._abandon = abandon
        self._arm()

    def begin_connecting(self, abandon: Callable[[], object]) -> None:
        """Notes that a connection is being made for the exchange; `abandon` stops that."""
        self._state = _CONNECTING
        self._abandon = abandon
        self._connection = None
        self.resent = self.sent
        self.sent = self.reused = False
        self._connect_by = self._clock() + self._timeouts.connect
        self._arm()

    def begin(self, connection: UpstreamConnection, *, reused: bool) -> None:
        """Writes the request to a connection, which then belongs to this exchange."""
        self._state = _HEAD
        if self._abandon is not None:  # it has waited since it was made
            self._read_at = self._clock()
            self._abandon = None
        self._connection = connection
        self._response = ResponseReader(self._peer, self._method, connection.known)
        self.sent = True
        self.reused = reused
        connection.begin(self, cast(bytes, self._request))
        if self._paused:
            connection.pause_reading()
        self._arm()
        if self._upload is not None:
            self._upload.begin()

    def fail(self, error: Error) -> None:
        """Ends the exchange with an error; aborts its connection, established or not."""
        if self._state is not _ENDED:
            if error.code != "internal" and (self._state is _QUEUED or self._state is _CONNECTING):
                error.phase = "connect"  # later phases are set by the relay, which knows the response's progress
            self._drop().exchange_ended(error)

    def broke(self, problem: Exception) -> None:
        """Ends the exchange because of a bug in the gateway; aborts its connection."""
        error = Error("internal", f"the gateway failed while it asked {self._peer}")
        error.__cause__ = problem
        self.fail(error)

    @property
    def has_met_a_dead_connection(self) -> bool:
        """Whether the request is sent again: the lost connection came from the pool, and the peer has most likely
        closed it before it saw the request."""
        may_go = self.reused and self.is_repeatable and self._request is not None
        return may_go and self._clock() - self._read_at <= LIMITS.pool_stale

    # -- for the connection

    def now(self) -> float:
        """Returns the time in seconds, by the clock of the timers."""
        return self._clock()

    def data_received(self, data: bytes, now: float) -> None:
        """Handles the bytes of one read."""
        try:
            if self.fast_path is None:
                self._pass_on(self._response.feed(data), now)
            else:
                rest = self.fast_path.feed(data, now)
                if rest is not None:
                    self.rest_received(rest, now)
        except Exception as problem:  # noqa: BLE001  # otherwise a bug here would look like a broken connection
            self.broke(problem)

    def rest_received(self, body: bytes, now: float) -> None:
        """Handles the bytes of a read that the fast path did not handle; there may be none."""
        try:
            self._response.look_at_chunks()
            self._pass_on(body, now)
        except Exception as problem:  # noqa: BLE001  # as above
            self.broke(problem)

    def _pass_on(self, body: bytes, now: float) -> None:
        response = self._response
        self._read_at = now
        self._request = None
        # The receiver may close the exchange in any of these calls; the null receiver gets the later ones.
        if self._state is _HEAD and response.head is not None:
            self._state = _BODY
            status, headers = response.head
            self._receiver.head_received(status, headers)
        if body or self.fast_path is not None:
            self._shorten(self._receiver.body_received(body))
        if response.error is not None:
            self.fail(response.error)
        elif response.complete:
            self._complete(response.is_reusable)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the exchange because its connection is gone. `exc` is None if the peer closed the connection."""
        response = self._response
        if exc is not None and not isinstance(exc, ssl.SSLEOFError):
            reason = "tls" if isinstance(exc, ssl.SSLError) else "reset"
            text = f"the connection to {self._peer} broke before the end of its answer"
            self.fail(Error("network", text, reason=reason))
            return
        response.feed_eof()
        if response.error is not None:
            self.fail(response.error)
        elif exc is not None:  # a third party on the path can end a TCP connection and cut a body without a length
            text = f"{self._peer} closed the connection without the end that TLS has (close_notify)"
            self.fail(Error("network", f"{text}: its answer may be cut", reason="truncated"))
        else:
            self._complete(False)

    # -- own

    def _shorten(self, fast_path: FastPath | None) -> None:
        """Installs the fast path for the next reads, or removes it."""
        if self._state is _ENDED:
            return
        if self.fast_path is not None and self.fast_path is not fast_path:
            self.fast_path.chunks = None
        if fast_path is not None:
            fast_path.chunks = self._response.chunks
        self.fast_path = fast_path if self._response.chunks is not None else None

    def _complete(self, is_reusable: bool) -> None:
        if self._state is not _ENDED:
            connection = cast(UpstreamConnection, self._connection)
            connection.idle_timeout = self._response.idle_timeout
            is_whole = self._upload is None
            receiver = self._end()
            connection.release(is_reusable and is_whole)
            receiver.exchange_ended(None)

    def _drop(self) -> Receiver:
        """Ends the exchange, cancels pending work and aborts its connection; returns the receiver, as `_end` does."""
        abandon, connection = self._abandon, self._connection
        receiver = self._end()
        if abandon is not None:
            abandon()
        if connection is not None:
            connection.abort()
        return receiver

    def _end(self) -> Receiver:
        """Releases everything; returns the receiver, for a last call if one is due."""
        receiver, self._receiver = self._receiver, _NULL_RECEIVER
        self._state = _ENDED
        self._abandon = self._connection = self._request = self._upload = None
        if self.fast_path is not None:
            self.fast_path.chunks = None
            self.fast_path = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return receiver

    def _deadline(self) -> float:
        if self._state is _CONNECTING:
            return min(self._total_by, self._connect_by)
        if self._state is _QUEUED or self._paused:
            return self._total_by
        read_at = self._read_at if self.fast_path is None else max(self._read_at, self.fast_path.at)
        return min(self._total_by, read_at + self._idle)

    def _arm(self) -> None:
        """Makes sure that a timer fires no later than the deadline. If it fires earlier, `look` sets it again."""
        deadline = self._deadline()
        if self._timer is None and self._connection is not None:
            self._connection.watch(deadline, self._timers)
        elif self._timer is None or deadline < self._armed:
            if self._timer is not None:
                self._timer.cancel()
            self._armed = deadline
            self._timer = self._timers.schedule(deadline, self.look)

    def look(self) -> None:
        """Ends the exchange if its time is over. Called by its own timer or by its connection's timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock()
        if now < self._deadline():
            self._arm()
        elif now >= self._total_by:
            text = f"{self._peer} did not end its answer within {self._timeouts.total:g} s (total_timeout)"
            self.fail(Error("timeout", text, reason="total"))
        elif self._state is _CONNECTING:
            text = f"no connection to {self._peer} within {self._timeouts.connect:g} s (connect_timeout)"
            self.fail(Error("timeout", f"{text}: check base_url and the network", reason="connect"))
        else:
            text = f"{self._peer} sent nothing for {self._idle:g} s (idle_timeout)"
            self.fail(Error("timeout", text, reason="idle"))


# ---- one connection ------------------------------------------------------------------------------------------------


@mypyc_attr(allow_interpreted_subclasses=True)
class ConnectionCallbacks(ABC):
    """The callbacks of a connection, implemented by `PoolCallbacks`. A class, not a protocol, like `Timers`."""

    @abstractmethod
    def connection_made(self, connection: UpstreamConnection) -> None:
        """Called when the connection has a socket, which it keeps until `connection_lost`."""

    @abstractmethod
    def connection_free(self, connection: UpstreamConnection) -> None:
        """Called when the connection's exchange has ended and the connection may carry another."""

    @abstractmethod
    def connection_lost(self, connection: UpstreamConnection, exchange: Exchange | None, exc: Exception | None) -> None:
        """Called when the socket is gone. `exchange` ran on the connection and has not ended yet; None if none ran."""


class UpstreamConnection:
    """One TCP or TLS connection, which carries one exchange at a time.

    It may carry another only after a complete, correctly framed response. Closing an exchange aborts the connection, so
    that the rest of one caller's response never becomes another's.

    Args:
        callbacks: Called when its socket is made, free or gone.
        batch: Handles reads together with other connections' reads; without a batch each read is handled at once.
        known: The response heads shared by all connections to the upstream; a new, private one if not given.

    Attributes:
        known: The response heads of this connection, or of all connections to the upstream if they are shared.
        idle_timeout: Seconds after which the peer closes the idle connection, by its last response. None if the
            response did not give a time.
    """

    def __init__(
        self,
        callbacks: ConnectionCallbacks,
        batch: ReadBatch | None = None,
        known: KnownResponseHeads | None = None,
    ) -> None:
        self._callbacks = callbacks
        self._batch = batch
        self.known = KnownResponseHeads() if known is None else known
        self.idle_timeout: float | None = None
        self._exchange: Exchange | None = None
        self._borrower: FastPath | None = None  # reads the socket in place of the transport
        self._broken: OSError | None = None
        self._is_paused = False
        self._timer: Timer | None = None  # kept when an exchange ends: the next exchange seldom needs an earlier timer
        self._watched = 0.0
        self._transport: Transport

    def connection_made(self, transport: Transport) -> None:
        self._transport = transport
        self._callbacks.connection_made(self)

    def data_received(self, data: bytes) -> None:
        exchange, batch = self._exchange, self._batch
        if exchange is None:
            self.abort()  # unsolicited bytes
            return
        fast_path = exchange.fast_path
        if batch is None or fast_path is None:
            exchange.data_received(data, exchange.now())
        else:
            batch.add(self, exchange, fast_path, data)

    def handle(self, exchange: Exchange, data: bytes, now: float) -> None:
        """Handles a read that was delayed by its batch."""
        self._give(exchange, exchange.data_received, data, now)

    def handle_rest(self, exchange: Exchange, body: bytes, now: float) -> None:
        """Handles the bytes of a batched read that the fast path did not handle."""
        self._give(exchange, exchange.rest_received, body, now)

    def _give(self, exchange: Exchange, take: Callable[[bytes, float], None], data: bytes, now: float) -> None:
        if self._exchange is exchange:
            take(data, now)
        else:
            self.drop()  # the exchange has ended: unsolicited bytes

    def failed(self, exchange: Exchange, problem: Exception) -> None:
        """Ends the exchange because the read batch failed on one of its reads, which is a bug in the gateway."""
        if self._exchange is exchange:
            exchange.broke(problem)
        else:
            self.drop()

    def lend(self, borrower: FastPath) -> int:
        """Lends the socket to a fast path, until `take_back` or any other call; see `Reader`."""
        transport = self._transport
        records = self.records
        descriptor = descriptor_of(transport) if records is None else records.descriptor
        if descriptor < 0 or transport.is_closing() or not transport.is_reading() or transport.get_write_buffer_size():
            return -1  # a pending write may close the socket, and its descriptor may be given to another socket
        transport.pause_reading()
        self._borrower = borrower
        return descriptor

    @property
    def records(self) -> TLSRecords | None:
        """The records of a TLS connection. None if the connection is plain."""
        return cast("TLSRecords | None", self._transport.get_extra_info("tls_records"))

    def take_back(self) -> None:
        """Takes the socket back from its borrower and resumes reading."""
        borrower, self._borrower = self._borrower, None
        if borrower is not None:
            borrower.end_reading()
            self._transport.resume_reading()

    def broke(self, problem: OSError) -> None:
        """Aborts; the running exchange fails with `problem`."""
        self._broken = problem
        self.drop()

    def drop(self) -> None:
        """Aborts; the running exchange fails because its connection is lost."""
        self.take_back()
        self._transport.abort()

    def eof_received(self) -> None:
        # The response is complete or cut. close(), the transport's default, would first wait for unsent bytes. If bytes
        # came with the end, a fast path may have borrowed the socket: it must not read a descriptor that is closed.
        self.drop()

    def resume_writing(self) -> None:
        """Lets the upload of the running exchange go on, if it has one."""
        if self._exchange is not None:
            self._exchange.resume_writing()

    @property
    def unsent(self) -> int:
        """The number of written bytes that the socket has not accepted yet."""
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Writes more of the running exchange's request."""
        self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.take_back()
        self._unwatch()
        exchange, self._exchange = self._exchange, None
        self._callbacks.connection_lost(self, exchange, exc or self._broken)

    @property
    def is_closing(self) -> bool:
        """Whether the socket is closed or about to be."""
        return self._transport.is_closing()

    @property
    def is_quiet(self) -> bool:
        """Whether the socket of an idle connection has neither bytes nor an end of input to read."""
        return not has_arrived(self._transport)

    def begin(self, exchange: Exchange, request: bytes) -> None:
        """Begins an exchange: sends its request."""
        self._exchange = exchange
        self._transport.write(request)

    def release(self, is_reusable: bool) -> None:
        """Ends the complete exchange. Keeps the connection if it may carry another, else aborts it."""
        self.take_back()
        self._exchange = None
        # If the peer answers before it has the whole request, it cannot distinguish the rest from the next request.
        if is_reusable and not self._transport.is_closing() and not self._transport.get_write_buffer_size():
            if self._is_paused:
                self.resume_reading()
            self._callbacks.connection_free(self)
        else:
            self._unwatch()
            self._transport.abort()

    def watch(self, due: float, timers: Timers) -> None:
        """Schedules a check of the exchange's deadline no later than `due`."""
        if self._timer is None or due < self._watched:
            self._unwatch()
            self._watched = due
            self._timer = timers.schedule(due, self._look)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._exchange is not None:
            self._exchange.look()

    def pause_reading(self) -> None:
        """Stops reading the socket."""
        self.take_back()
        self._is_paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Resumes reading the socket."""
        self._is_paused = False
        self._transport.resume_reading()

    def fail(self, error: Error) -> None:
        """Aborts; the running exchange, if any, ends with the error."""
        if self._exchange is not None:
            self._exchange.fail(error)
        else:
            self.abort()

    def abort(self) -> None:
        """Aborts without a call to the running exchange."""
        self.take_back()
        self._unwatch()
        self._exchange = None
        self._transport.abort()
