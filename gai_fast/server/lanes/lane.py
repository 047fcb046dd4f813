"""The fast lane: answers ordinary requests to hot routes, and hands every other connection over to the general server.

Clients cannot tell the lane's responses from the general server's, as with `_native` and `_pure`. The lane owns the
order of its responses, keep-alive, and every time limit of its connections. `request_reader.py` decides which requests
are ordinary; the routes decide the responses.

1. Requests of a connection are answered one after the other. During a response at most `limits.read_ahead` is read.
2. Every response ends exactly once: with `send`, with `answered`, or with the connection.
3. A connection is handed over between two responses, once and for good, with all bytes from the first unanswered one.
   Afterwards the lane has no timer for it, does not count it and does not refer to it.
4. A connection always has a timer, whatever the client does. Once the connection has ended, it has none.

Handlers are called, not awaited: a request needs no task, no payload stream and no writer.
"""

from __future__ import annotations

import asyncio
import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, cast

from mypy_extensions import mypyc_attr

from gai_fast.kernels import Borrower
from gai_fast.model.errors import Error
from gai_fast.net.logs.writer import HTTP_CHUNKS, BodyFraming
from gai_fast.net.sockets.sockets import peer_address, unacknowledged_bytes
from gai_fast.runtime.ids import new_request_id
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.edge.connections import OpenConnections
from gai_fast.server.edge.listening import set_user_timeout
from gai_fast.server.http.deadlines import CHECKS_PER_TIMEOUT, WriteProgress, body_due
from gai_fast.server.http.replies import Reply, StreamHead, error_reply, header_lines
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.http.transport import CLIENT_CLOSED_REQUEST, ClientTransport, SocketLender, StreamCallbacks
from gai_fast.server.lanes.request_reader import BODY, HAND_OVER, HEAD, KnownHeads, RequestReader
from gai_fast.server.limits import LIMITS


@mypyc_attr(allow_interpreted_subclasses=True)
class LaneRoutes(ABC):
    """The part of `router.Router` that the lane calls. A class, not a protocol, like `Timers`."""

    @abstractmethod
    def handle(self, http: HTTPRequest) -> Reply | None:
        """Answers a request; returns the reply, or None if a stream has started."""

    @abstractmethod
    def refuse(self, http: HTTPRequest) -> Reply | None:
        """Returns the refusal of a request by its headers alone; None if they are acceptable."""

    @abstractmethod
    def refusal(self, http: HTTPRequest, error: Error) -> Reply:
        """Returns the response for an error, in the form of the request's route."""

    @abstractmethod
    def uploader(self, http: HTTPRequest) -> str:
        """Returns the caller that an incomplete body is counted for; empty if it may have all of `upload_bytes`."""

    @abstractmethod
    def refuse_unreadable(self, remote: str, error: Error) -> Reply:
        """Returns the refusal of a request with incomplete headers, after counting and logging it with the address."""

    @abstractmethod
    def ended(self, http: HTTPRequest, status: int) -> None:
        """Counts and logs a request whose response has ended."""


_CHUNKED: Final = header_lines(HTTP_CHUNKS.headers)


class _State(enum.Enum):
    """State of a connection."""

    IDLE = "waits for a request"
    HEAD = "waits for the rest of the headers"
    BODY = "waits for the rest of a body"
    ANSWERING = "answers a request"
    CLOSING = "waits until the client has read the last bytes"
    LINGERING = "drops received bytes after a refusal"
    GONE = "is lost or handed over"


# As constants: reading an enum's attribute costs 75 ns on Python 3.11; see `net/upstream/connection.py`.
_IDLE: Final = _State.IDLE
_HEAD: Final = _State.HEAD
_BODY: Final = _State.BODY
_ANSWERING: Final = _State.ANSWERING
_CLOSING: Final = _State.CLOSING
_LINGERING: Final = _State.LINGERING
_GONE: Final = _State.GONE
_READING: Final = (_IDLE, _HEAD, _BODY)
"""The states in which the next request may be answered."""


class _Input(enum.Enum):
    """The client's half of the connection."""

    OPEN = "is read"
    PAUSED = "is not read for now"
    ENDED = "is closed: the client sends nothing more"


_OPEN: Final = _Input.OPEN
_PAUSED: Final = _Input.PAUSED
_ENDED: Final = _Input.ENDED


class LaneConnection(ClientTransport):
    """One client connection of the lane: an asyncio protocol by its methods.

    Attributes:
        transport: The connection's transport.
        answering: The request that is being answered; None between responses.
        stream: The stream that answers the request; None if no stream does.
        write_timeout: Seconds after which a client that reads nothing is disconnected; set by each stream.
    """

    def __init__(self, lane: FastLane) -> None:
        self._lane = lane
        self._loop = lane.loop
        self._reader: RequestReader | None = RequestReader(
            self, lane.hot, lane.routes.refuse, lane.max_body, lane.known_heads
        )
        self._remote: str | None = None
        self.transport: asyncio.Transport
        # The transport's methods, looked up once: each lookup costs as much as the call.
        self._send: Callable[[bytes], None]
        self._is_closing: Callable[[], bool]
        self._unsent: Callable[[], int]
        self._lender = SocketLender()
        self.stream: StreamCallbacks | None = None
        self.answering: HTTPRequest | None = None
        self.write_timeout = lane.write_timeout
        self._state = _IDLE
        self._input = _OPEN
        self._is_paused = False
        self._high_water = 0
        self._timer: Timer | None = None
        self._armed = self._due = self._upload_began = 0.0
        self._uploaded = 0  # the counted bytes of the incomplete body
        self._uploader = ""
        self._has_caller = False  # the last request had a valid key
        self._written = 0
        self._progress = WriteProgress()

    # -- asyncio --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the time limit of the first request's headers; a client that sends nothing is closed silently."""
        self.transport = cast("asyncio.Transport", transport)
        self._send = self.transport.write
        self._is_closing = self.transport.is_closing
        self._unsent = self.transport.get_write_buffer_size
        self._lane.connections.add(self, self.transport)
        now = self._loop.time()
        self._state, self._due = _HEAD, now + min(self._lane.header_timeout, self._lane.client_idle)
        # Early enough that the first request need not set the timer again, which costs as much as setting it.
        self._arm(min(self._due, now + self.write_timeout / CHECKS_PER_TIMEOUT))

    def begin_drain(self) -> None:
        """Starts to close the connection soon if it has no request."""
        if self._state in _READING and self._reader is not None and not self._reader.size:
            self._set_due(self._state, self._loop.time() + self._lane.client_idle)

    def data_received(self, data: bytes) -> None:
        """Receives bytes of requests."""
        reader, state = self._reader, self._state
        if reader is None or state is _CLOSING or state is _LINGERING:
            return
        reader.receive_data(data)
        if state is not _ANSWERING and not self._is_paused:
            self._next()
        elif reader.size > LIMITS.read_ahead and self._input is _OPEN:
            self._input = _PAUSED
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """Notes that the client has half-closed the connection.

        During a stream the connection is aborted, as by nginx: unsent bytes must not keep the stream alive. Otherwise
        the requests that were sent are answered first, up to a request that a stream would answer. The general server
        gets an incomplete request.

        Returns:
            Whether the connection stays open to answer requests.
        """
        self._input = _ENDED
        if self.stream is not None:
            self.transport.abort()
            return False
        reader = self._reader
        if reader is None or not reader.size or self._state not in _READING:
            return False
        self._loop.call_soon(self._next)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the connection, and its stream at once."""
        if self._state is _GONE:
            return
        request, self.answering = self.answering, None
        stream, self.stream = self.stream, None
        if self._state is _BODY and self._reader is not None:
            request = self._reader.request  # the client left during its body
            if request is not None:
                request.began = self._upload_began
        self._release()
        self._lane.connections.remove(self)
        if stream is not None:
            stream.connection_lost()
        if request is not None:
            self._lane.routes.ended(request, CLIENT_CLOSED_REQUEST)

    def _release(self) -> None:
        """Releases all that belongs to the connection, and breaks reference cycles."""
        self._state = _GONE
        self._end_upload()
        self._lender.end()
        self._reader = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pause_writing(self) -> None:
        """Pauses the stream: the high-water mark is exceeded."""
        self._is_paused = True
        if self.stream is not None:
            self.stream.pause_writing()

    def resume_writing(self) -> None:
        """Resumes the stream, or answers the next request: the client has caught up."""
        self._is_paused = False
        if self.stream is not None:
            self.stream.resume_writing()
        else:
            self._next()

    # -- requests --

    def _next(self) -> None:
        """Answers the next request, if there is one and the client reads its responses."""
        reader = self._reader
        if reader is None or self._state not in _READING or self._is_paused or self._is_closing():
            return
        if self._input is _PAUSED:  # no response is active: the rest of a request must be read
            self._input = _OPEN
            self.transport.resume_reading()
        request = reader.next_request()
        if isinstance(request, HTTPRequest):
            self._answer(request)
        elif isinstance(request, Reply):
            self._refuse(reader.request, request)
        elif request is HAND_OVER:
            self._hand_over(reader.unread())
        elif self._input is not _ENDED:
            self._await_more(reader)
        elif reader.size:
            self._hand_over(reader.unread())
        else:
            self.transport.close()

    def _await_more(self, reader: RequestReader) -> None:
        """Sets the time limit for the next part of a request."""
        now = self._loop.time()
        if reader.part is BODY:
            request = reader.request
            if self._state is not _BODY:
                self._upload_began = now
                self._uploader = "" if request is None else self._lane.routes.uploader(request)
            try:
                self._lane.server_limits.begin_upload(reader.body_size - self._uploaded, self._uploader, self._uploaded)
            except Error as error:
                if request is not None:
                    self._refuse(request, self._lane.routes.refusal(request, error))
                return
            self._uploaded = reader.body_size
            self._set_due(_BODY, body_due(self._upload_began, reader.body_size, now, self._lane.body_timeout))
        elif reader.part is HEAD:
            if self._state is not _HEAD:
                self._set_due(_HEAD, now + self._lane.header_timeout)
        else:
            self._set_due(_IDLE, now + self._lane.client_idle)

    def _end_upload(self) -> None:
        if self._uploaded:
            self._lane.server_limits.end_upload(self._uploaded, self._uploader)
            self._uploaded = 0

    def _answer(self, request: HTTPRequest) -> None:
        now = self._loop.time()
        self._end_upload()
        request.began = now
        if self._lane.is_draining and (self._reader is None or not self._reader.size):
            request.keep_alive = False
        if not self._unsent():
            self._progress.restart(self._written, 0, now)
        self._arm(now + self.write_timeout / CHECKS_PER_TIMEOUT)
        self._state = _ANSWERING
        self.answering = request
        written = self._written
        try:
            reply = self._lane.routes.handle(request)
            if reply is not None:
                self.send(reply)
        except Exception as problem:  # noqa: BLE001  # a bug of ours; if it propagated, the connection would be lost
            context = {"message": "a request could not be handled", "exception": problem, "protocol": self}
            self._loop.call_exception_handler(context)
            self._fail(request, is_begun=self._written != written)

    def _fail(self, request: HTTPRequest, *, is_begun: bool) -> None:
        """Ends a response that failed because of a bug; if it has started, it must not look complete."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.connection_lost()
        if is_begun or self.answering is not request:
            self.transport.abort()
            return
        error = Error("internal", "The server failed to handle this request")
        self._send_reply(error_reply(error, request.request_id or new_request_id(), close=True))

    def _hand_over(self, data: bytes) -> None:
        """Hands the connection to the general server, which starts with these bytes."""
        transport, is_paused, has_ended = self.transport, self._is_paused, self._input is _ENDED
        high_water, write_timeout = self._high_water, self.write_timeout
        head_since = self._due - self._lane.header_timeout if self._state is _HEAD else None
        self._release()
        handler = self._lane.general(head_since)
        transport.set_protocol(handler)
        handler.connection_made(transport)
        self._lane.connections.remove(self)
        if is_paused:
            handler.pause_writing()
        if high_water:
            transport.set_write_buffer_limits()
        if write_timeout != self._lane.write_timeout:
            set_user_timeout(transport.get_extra_info("socket"), self._lane.write_timeout)
        handler.data_received(data)
        if has_ended and not handler.eof_received():
            transport.close()

    # -- responses: ClientTransport --

    def is_evictable(self, now: float) -> bool:
        """Works as `Evictable.is_evictable`."""
        if self._has_caller or not (self._state is _IDLE or self._state is _HEAD):
            return False
        lane = self._lane
        limit = lane.client_idle if self._state is _IDLE else min(lane.header_timeout, lane.client_idle)
        return now - (self._due - limit) >= LIMITS.evictable_after

    @property
    def is_paused(self) -> bool:
        """Whether more than the high-water mark is unsent."""
        return self._is_paused

    @property
    def remote(self) -> str:
        """The address of the client; empty if the connection has none, such as a unix socket."""
        if self._remote is None:
            self._remote = peer_address(self.transport)  # a system call
        return self._remote

    def begin_stream(self, stream: StreamCallbacks, high_water: int, write_timeout: float) -> None:
        """Works as `ClientTransport.begin_stream`."""
        if self._input is _ENDED:  # as in `eof_received`, but earlier responses are still sent
            self.transport.close()
            self._loop.call_soon(stream.connection_lost)
            return
        self.stream = stream
        if write_timeout != self.write_timeout:
            self.write_timeout = write_timeout
            set_user_timeout(self.transport.get_extra_info("socket"), write_timeout)
            self._arm(self._loop.time() + write_timeout / CHECKS_PER_TIMEOUT)
        if high_water != self._high_water:
            self._high_water = high_water
            self.transport.set_write_buffer_limits(high=high_water)

    def commit(self, head: StreamHead) -> tuple[bytes, BodyFraming]:
        """Works as `ClientTransport.commit`; the stream writes the head itself."""
        keep_alive = self.answering is not None and self.answering.keep_alive
        return head.to_bytes(_CHUNKED, keep_alive=keep_alive), HTTP_CHUNKS

    def write(self, data: bytes) -> None:
        """Writes bytes of a response."""
        if self._lender.borrower is not None:
            self._lender.end()
        if not self._is_closing():
            self._send(data)
            self._written += len(data)

    def lend(self, borrower: Borrower) -> int:
        """Works as `LendingTransport.lend`: ends with the next write."""
        return self._lender.lend(self.transport, borrower)

    def answered(self, status: int) -> None:
        """Works as `ClientTransport.answered`."""
        if self.answering is not None:
            self._end_answer(status, self.answering.keep_alive)

    def abort(self) -> None:
        """Works as `ClientTransport.abort`; `connection_lost` cleans up."""
        if self.answering is not None:
            self._lender.end()
            self.transport.abort()

    def send(self, reply: Reply) -> None:
        """Works as `ClientTransport.send`."""
        if self.answering is not None:
            self._send_reply(reply)

    def _send_reply(self, reply: Reply) -> None:
        request = self.answering
        keep_alive = request is not None and request.keep_alive and not reply.close
        self.write(reply.to_bytes(keep_alive=keep_alive))
        if reply.close and not self._is_closing():
            self._linger(reply.status)
        else:
            self._end_answer(reply.status, keep_alive)

    def _end_answer(self, status: int, keep_alive: bool) -> None:
        self._log_answer(status)
        if not keep_alive:
            self.transport.close()
            self._set_due(_CLOSING, self._loop.time() + self.write_timeout / CHECKS_PER_TIMEOUT)
            return
        self._set_due(_IDLE, self._loop.time() + self._lane.client_idle)
        if self._input is _ENDED or (self._reader is not None and self._reader.size):
            self._loop.call_soon(self._next)

    def _log_answer(self, status: int) -> None:
        request, self.answering = self.answering, None
        self.stream = None
        if request is not None:
            self._has_caller = request.key is not None
            self._lane.routes.ended(request, status)

    def _linger(self, status: int) -> None:
        """Half-closes, and drops received bytes (RFC 9112, 9.6).

        Closing at once would reset the connection of a client that still sends, and could discard the response.
        """
        self._log_answer(status)
        if self._input is _PAUSED:  # bytes must be read to be dropped
            self._input = _OPEN
            self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._set_due(_LINGERING, self._loop.time() + LIMITS.lingering)

    # -- time --

    def _set_due(self, state: _State, due: float) -> None:
        """Enters a state that lasts until `due` at most."""
        self._state = state
        self._due = due
        self._arm(due)

    def _arm(self, at: float) -> None:
        """Ensures that `_check_deadline` is called at `at` at the latest; it may be called earlier, without effect."""
        if self._timer is None or at < self._armed:
            if self._timer is not None:
                self._timer.cancel()
            self._armed = at
            self._timer = self._lane.timers.schedule(at, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        now, state = self._loop.time(), self._state
        if state is _ANSWERING or self.transport.get_write_buffer_size():
            self._check_writing(now)
        elif now < self._due:
            self._arm(self._due)
        elif state is _LINGERING:
            self.transport.abort()
        elif state is _HEAD and self._reader is not None and self._reader.size:
            self._refuse_late("head", "header_timeout")
        elif state is _BODY:
            self._refuse_late("body", "body_timeout")
        else:
            self.transport.close()

    def _refuse_late(self, part: str, reason: str) -> None:
        """Refuses an incomplete request, and reads no more."""
        self._set_due(_CLOSING, self._loop.time() + LIMITS.lingering)  # rule 4, even if the routes raise
        error = Error("timeout", f"the request's {part} did not arrive in time", reason=reason, status=408)
        request = self._reader.request if self._reader is not None else None
        if request is None:
            reply = self._lane.routes.refuse_unreadable(self.remote, error)
        else:
            reply = self._lane.routes.refusal(request, error)
        self._refuse(request, reply)

    def _refuse(self, request: HTTPRequest | None, reply: Reply) -> None:
        """Answers an incomplete request, as the last one of the connection."""
        if request is not None:
            request.began = self._loop.time()
        reply.close = True
        self._end_upload()
        self.answering = request
        self._send_reply(reply)

    def _check_writing(self, now: float) -> None:
        """Aborts the connection if the client has read nothing for `write_timeout`."""
        if self._progress.is_stuck(self._written, unacknowledged_bytes(self.transport), now, self.write_timeout):
            self.transport.abort()
        else:
            self._arm(now + self.write_timeout / CHECKS_PER_TIMEOUT)


class FastLane:
    """Creates a `LaneConnection` for every client, and holds the lane's connections.

    Args:
        routes: Answers the requests.
        hot: The paths whose `POST` requests the lane answers.
        general: Creates the general server's protocol for a connection that is handed over. Its argument is the time
            at which incomplete headers began, in seconds of the loop's clock; None if they begin now.
        timers: The loop's timer wheel.
        loop: The running loop.
        keep_alive: Seconds for which a connection without a request is kept.
        header_timeout: Seconds for the headers of a request.
        body_timeout: Seconds between two reads of a request body.
        write_timeout: Seconds after which a client that reads nothing is disconnected.
        max_body: The maximum size of a request body, in bytes.
        server_limits: The totals of the server.

    Attributes:
        client_idle: `keep_alive`, or less while the server drains.
        is_draining: Whether a connection closes after a response if no byte of another request has arrived.
    """

    def __init__(
        self,
        routes: LaneRoutes,
        hot: frozenset[str],
        general: Callable[[float | None], asyncio.Protocol],
        *,
        timers: Timers,
        loop: asyncio.AbstractEventLoop,
        keep_alive: float,
        header_timeout: float,
        body_timeout: float,
        write_timeout: float,
        max_body: int,
        server_limits: ServerLimits,
    ) -> None:
        self.routes = routes
        self.server_limits = server_limits
        self.hot = hot
        self.general = general
        self.timers = timers
        self.loop = loop
        self.header_timeout = header_timeout
        self.body_timeout = body_timeout
        self.write_timeout = write_timeout
        self.max_body = max_body
        self.client_idle = keep_alive
        self.is_draining = False
        self.connections = OpenConnections()
        self.known_heads = KnownHeads()

    def __call__(self) -> LaneConnection:
        return LaneConnection(self)

    def begin_drain(self) -> None:
        """Starts the drain of every connection."""
        self.is_draining = True
        self.client_idle = LIMITS.drain_idle
        for connection in self.connections:
            cast(LaneConnection, connection).begin_drain()
