"""aiohttp's `RequestHandler` for `serve`: adds time limits and refusals that aiohttp lacks.

1. If a request's headers are incomplete after `header_timeout`, the request is refused (408). A connection without a
   single byte is closed silently. If the headers began to arrive during an earlier request, the time starts when the
   earlier response ends.
2. If a client reads nothing for `write_timeout`, its connection is closed, whatever is being sent.
3. Errors for unparsable requests have our JSON body, which contains nothing of the request.
4. Broken framing ends a body at once; aiohttp would wait for the rest of the body.
5. If a client half-closes the connection, the requests that it sent before are still answered.
6. The status line has the server's version, HTTP/1.1, whatever the request's.
7. If the client may still send, a connection is closed in two steps (RFC 9112, 9.6): closing it at once would reset it,
   and the client would never see the response.

Only this module, `aiohttp_transport.py` and `websocket/connection.py` use aiohttp's private parts;
`tests/unit/server/lanes/test_handler.py` fails if a release changes them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from gai_fast.model.errors import Error
from gai_fast.net.sockets.sockets import peer_address
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.server.edge.connections import OpenConnections
from gai_fast.server.http.replies import Reply
from gai_fast.server.http.request import headers_too_large
from gai_fast.server.http.write_watch import WriteWatch
from gai_fast.server.lanes.aiohttp_transport import AiohttpWriter, whole_response
from gai_fast.server.limits import LIMITS

_log: Final = logging.getLogger("gai_fast.server")


class ClientTimeouts(NamedTuple):
    """The time limits of a client, in seconds.

    Attributes:
        header: For the headers of a request.
        write: For the client to read a byte while any are unsent.
        idle: For which a connection without a request is kept.
    """

    header: float
    write: float
    idle: float


RefuseUnreadable = Callable[[str, Error], Reply]
"""The type of `Router.refuse_unreadable`."""


class HandlerFactory:
    """Creates a handler for every connection.

    Args:
        server: aiohttp's server, of a runner that has been set up.
        timers: The timers of the loop.
        times: The time limits.
        refuse_unreadable: Creates the response to an unparsable request.

    Attributes:
        connections: The open connections.
        is_draining: Whether a connection closes after a response if no other request waits on it.
    """

    def __init__(
        self, server: web.Server, timers: Timers, times: ClientTimeouts, refuse_unreadable: RefuseUnreadable
    ) -> None:
        self.server = server
        self.timers = timers
        self.times = times
        self.refuse_unreadable = refuse_unreadable
        self.connections = OpenConnections()
        self.is_draining = False
        self._loop = asyncio.get_running_loop()

    def __call__(self, head_since: float | None = None) -> Handler:
        return Handler(self, self._loop, head_since)

    def begin_drain(self) -> None:
        """Starts the drain of every connection."""
        self.is_draining = True
        for connection in self.connections:
            cast(Handler, connection).begin_drain()


class Handler(RequestHandler):
    """One connection of aiohttp's server.

    Args:
        factory: The factory that creates the handler.
        loop: The running loop.
        head_since: When the incomplete headers of a handed-over connection began, in seconds of the loop's clock; None
            if they begin now.

    Attributes:
        has_caller: Whether a request on the connection had a valid key.
        has_ended_input: Whether the client has half-closed the connection.
    """

    __slots__ = (
        "_answered_at",
        "_end",
        "_factory",
        "_has_failed",
        "_has_received",
        "_head_at",
        "_head_since",
        "_idle_timer",
        "_is_quiet",
        "_last_body",
        "_timer",
        "_watch",
        "_wire",
        "has_caller",
        "has_ended_input",
    )

    def __init__(
        self, factory: HandlerFactory, loop: asyncio.AbstractEventLoop, head_since: float | None = None
    ) -> None:
        super().__init__(
            factory.server,
            loop=loop,
            access_log=cast("logging.Logger", None),  # the application writes our own log
            auto_decompress=False,
            keepalive_timeout=factory.times.idle,
            lingering_time=LIMITS.lingering,
            max_field_size=LIMITS.key_header,
            max_headers=LIMITS.request_headers,
            max_line_size=LIMITS.request_line,
            tcp_keepalive=False,  # the listening socket has set it
        )
        self._factory = factory
        self._request_factory = self._make_request
        self._wire: asyncio.Transport
        self._watch: WriteWatch
        self._timer: Timer | None = None
        self._idle_timer: Timer | None = None
        self._is_quiet = False  # no byte has arrived since `_idle_timer` was set
        self._head_since = head_since
        self._head_at = 0.0  # when the incomplete headers began to arrive, or the connection was made; 0 if complete
        self._answered_at = 0.0  # when the last response ended
        self._has_received = False
        self._has_failed = False  # the parser has met an error; further bytes are dropped
        self.has_caller = False
        self.has_ended_input = False
        self._last_body: StreamReader | None = None  # the body of the last parsed request
        self._end: asyncio.Future[None] | None = None  # set at the client's half-close, if `_linger` waits for it

    # -- asyncio --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the timer for the first headers."""
        self._wire = cast("asyncio.Transport", transport)
        self._watch = WriteWatch(self._wire, self._factory.timers, self._factory.times.write, until_empty=True)
        self._factory.connections.add(self, self._wire)
        super().connection_made(transport)
        self._await_head(self._head_since)
        if self._factory.is_draining:
            self.begin_drain()

    def begin_drain(self) -> None:
        """Starts to close the connection if it is idle for `limits.drain_idle` seconds."""
        timers = self._factory.timers
        self._is_quiet = self._is_idle
        self._idle_timer = timers.schedule(timers.clock() + LIMITS.drain_idle, self._close_if_quiet)

    def _close_if_quiet(self) -> None:
        self._idle_timer = None
        if self._is_idle and self._is_quiet:
            self.force_close()
        else:
            self.begin_drain()

    def data_received(self, data: bytes) -> None:
        """Parses bytes of requests."""
        if self._has_failed:
            return
        self._has_received = True
        self._is_quiet = False
        super().data_received(data)
        if self._messages:
            self._head_at = 0.0
            for at, (message, body) in enumerate(self._messages):
                if isinstance(message, _ErrInfo):
                    self._has_failed = True
                    self._break_body()
                elif _may_be_a_request(message):
                    self._last_body = body
                else:
                    self._messages[at] = _ErrInfo(400, BadHttpMessage(message.method), ""), EMPTY_PAYLOAD
                    self._has_failed = True
        elif self._is_idle and not self._head_at and data:
            self._await_head()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Skips aiohttp's call for every piece of a body: each would run the parser on no bytes."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio reads the result; aiohttp returns none
        """Notes that the client has half-closed; the requests that it has sent are still answered."""
        self.has_ended_input = True
        if self._end is not None and not self._end.done():
            self._end.set_result(None)
        self._break_body()
        if not self._messages:
            self._close = True  # the current response is the last
        return not self._head_at and not self._is_idle

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stops the timers, and ends the connection."""
        for timer in (self._timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._idle_timer = None
        self._watch.stop()
        if self._end is not None and not self._end.done():
            self._end.set_result(None)
        self._last_body = None  # breaks a reference cycle, which would wait for the garbage collector
        super().connection_lost(exc)
        self._factory.connections.remove(self)

    def pause_writing(self) -> None:
        """Starts the write watch: more than the high-water mark is unsent."""
        super().pause_writing()
        self._watch_writing()

    # -- aiohttp --

    async def start(self) -> None:
        """Answers the requests, then closes the connection in any case: aiohttp leaves it open after some bugs."""
        try:
            await super().start()
        finally:
            self.force_close()

    def _make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        _: RequestHandler,
        __: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if self._factory.is_draining and not self._messages:
            message = message._replace(should_close=True)
        if message.url.absolute and message.url.raw_path == "/":
            # An empty path is `/` (RFC 9110, 4.2.3); for aiohttp it is none, which no route may answer.
            message = message._replace(url=message.url.with_path("/").with_query(message.url.query))
        writer = AiohttpWriter(self, self._loop)
        return self._factory.server.request_factory(message, payload, self, writer, task)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Ends a response; it is the last one if the client has half-closed and no request waits."""
        if self.has_ended_input and not self._messages and isinstance(resp, web.StreamResponse):
            resp.force_close()  # other types are a bug in a user's handler; aiohttp answers them
        response, is_lost = await super().finish_response(request, resp, start_time)
        if not is_lost and self.transport is not None:
            if self._wire.get_write_buffer_size():
                self._watch_writing()
            if self.has_ended_input and not request.content.is_eof():
                self.force_close()  # aiohttp would wait for the rest of the body
            elif not response.keep_alive and not self.has_ended_input and (self._has_failed or request.keep_alive):
                await self._linger()
            else:
                self._answered_at = self._factory.timers.clock()
                self._schedule_head_check(self._answered_at)
        return response, is_lost

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Returns the response to an unparsable request, or to a request whose handler has failed.

        Raises:
            ConnectionError: A response has started: its connection is closed.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("a response has begun")
        if isinstance(exc, HttpProcessingError):
            error = error_of(exc)
        else:
            error = Error("internal", "The server failed to handle this request")
            if not isinstance(exc, ConnectionError):
                _log.error("%s %r could not be handled", request.method, request.path, exc_info=exc)
        return whole_response(self._refusal(error))

    # -- inside --

    @property
    def _is_idle(self) -> bool:
        """Whether no request is waiting or being answered."""
        return self._waiter is not None and not self._waiter.done() and not self._messages

    def is_evictable(self, now: float) -> bool:
        """Works as `Evictable.is_evictable`."""
        return (
            self._is_idle
            and not self.has_caller
            and now - max(self._head_at, self._answered_at) >= LIMITS.evictable_after
        )

    def _await_head(self, since: float | None = None) -> None:
        self._head_at = self._factory.timers.clock() if since is None else since
        self._schedule_head_check(self._head_at)

    def _schedule_head_check(self, began: float) -> None:
        if self._timer is None:
            self._timer = self._factory.timers.schedule(began + self._factory.times.header, self._check_head)

    def _check_head(self) -> None:
        self._timer = None
        began = self._head_at or self._answered_at
        if self._force_close:
            return
        if self._factory.timers.clock() < began + self._factory.times.header:
            self._schedule_head_check(began)
        elif not self._has_received:
            self.force_close()
        elif self._is_idle and (self._head_at or self._holds_part_of_a_head()):
            late = "The request head did not arrive in time"
            reply = self._refusal(Error("timeout", late, reason="header_timeout", status=408))
            self._wire.write(reply.to_bytes(keep_alive=False))
            self._half_close()

    def _holds_part_of_a_head(self) -> bool:
        """Returns whether headers have begun after the last request; if so, the parser is unusable afterwards.

        Only the parser knows. Empty lines end any headers, complete or invalid; without any, empty lines are ignored
        (RFC 9112, 2.2).
        """
        if self._parser is None:
            return False
        try:
            return bool(self._parser.feed_data(b"\r\n\r\n")[0])
        except HttpProcessingError:
            return True

    async def _linger(self) -> None:
        """Half-closes, and waits until the client half-closes or `limits.lingering` is over."""
        self._half_close()
        self._end = self._loop.create_future()
        await self._end
        self.force_close()

    def _half_close(self) -> None:
        """Half-closes the connection; until the client does too, received bytes are dropped."""
        self._has_failed = True
        if self._wire.can_write_eof() and not self._wire.is_closing():
            self._wire.write_eof()
        if self._wire.get_write_buffer_size():
            self._watch_writing()
        if self._timer is not None:
            self._timer.cancel()
        self._stop_lingering_later()

    def _stop_lingering_later(self) -> None:
        timers = self._factory.timers
        self._timer = timers.schedule(timers.clock() + LIMITS.lingering, self._stop_lingering)

    def _stop_lingering(self) -> None:
        if self._wire.get_write_buffer_size():  # if the client reads none of it, the write watch ends the connection
            self._stop_lingering_later()
        else:
            self._wire.abort()

    def _watch_writing(self) -> None:
        """Starts the watch for unread bytes; the bytes of a stream are watched by its transport."""
        if not self._watch.is_running and self._wire.get_protocol() is self:
            self._watch.start()

    def _break_body(self) -> None:
        """Ends the last body if its rest will never arrive or cannot be parsed; all earlier bodies are complete."""
        body = self._last_body
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(RequestPayloadError("the body is not valid HTTP/1.1"))

    def _refusal(self, error: Error) -> Reply:
        """Returns the response to an unparsable request."""
        return self._factory.refuse_unreadable(peer_address(self._wire), error)


def _may_be_a_request(message: RawRequestMessage) -> bool:
    """Returns whether aiohttp can create a request from a message; if it cannot, its exception would end all responses.

    `CONNECT` is for proxies: its target has no path, so no route could refuse it. A host may be an invalid domain name.
    """
    try:
        return message.method != "CONNECT" and (not message.url.absolute or message.url.host is not None)
    except ValueError:
        return False


_TOO_MANY_HEADERS: Final = "Too many headers received"
_HOST_PROBLEMS: Final = frozenset(("Missing 'Host' header in request.", "Duplicate 'Host' header found."))


def error_of(problem: HttpProcessingError) -> Error:
    """Converts an error of aiohttp's parser to an `Error` that contains nothing of the request.

    Args:
        problem: The parser's error.
    """
    if isinstance(problem, LineTooLong):
        # The error contains the limit that was exceeded; targets and headers have different limits.
        if problem.args[1] == LIMITS.request_line:
            return Error("invalid_request", "The request line is too long", reason="uri_too_long", status=414)
        return headers_too_large()
    if problem.message == _TOO_MANY_HEADERS:
        return headers_too_large()
    if problem.message in _HOST_PROBLEMS:
        return Error("invalid_request", "the request must have one valid Host header", reason="host")
    return Error("invalid_request", "The request is not valid HTTP/1.1", reason="http")
