"""aiohttp's `RequestHandler` as `serve` uses it: the time limits and verdicts that aiohttp does not have.

1. A head that is not whole after `header_timeout` is refused (408) where a byte of it came; a connection that never
   sent one is closed silently. The time of a head that began behind a request runs from the end of that answer.
2. A client that takes nothing for `write_timeout` is cut off, whatever it is being sent.
3. Errors of requests that cannot be parsed have our JSON body, which repeats nothing of them.
4. Framing that breaks amid a body ends the body at once; aiohttp would wait for the rest of it.
5. Requests that were sent before the client ended its side of the connection are answered.
6. A connection that is closed although its client may still send is closed in two steps (RFC 9112, 9.6): closed at
   once it would be reset, and the client would never see why.

This module, `aiohttp_transport.py` and `websocket/connection.py` are the only ones that rely on aiohttp's private
parts, and `tests/unit/server/lanes/test_handler.py` fails where a release changes them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from gai_fast.model.errors import Error
from gai_fast.net.upstream.sockets import peer_address
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.server.edge.connections import OpenConnections
from gai_fast.server.http.replies import Reply
from gai_fast.server.http.request import headers_too_large
from gai_fast.server.http.write_watch import WriteWatch
from gai_fast.server.lanes.aiohttp_transport import whole_response
from gai_fast.server.limits import LIMITS

_log: Final = logging.getLogger("gai_fast.server")


class Times(NamedTuple):
    """The time that a client has, in seconds.

    Attributes:
        header: For the head of a request.
        write: Until it has taken a byte, where any are unsent.
    """

    header: float
    write: float


RefuseUnreadable = Callable[[str, Error], Reply]
"""As `Router.refuse_unreadable`."""


class HandlerFactory:
    """Makes a handler for every connection.

    Args:
        server: aiohttp's server, of a runner that has been set up.
        timers: The timers of the loop.
        times: The time limits.
        refuse_unreadable: Makes the reply to a request that cannot be read.

    Attributes:
        connections: The open connections.
        is_draining: A request behind which no other one waits is the last one of its connection.
    """

    def __init__(self, server: web.Server, timers: Timers, times: Times, refuse_unreadable: RefuseUnreadable) -> None:
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
        """The server has been asked to end."""
        self.is_draining = True
        for connection in self.connections:
            cast(Handler, connection).begin_drain()


class Handler(RequestHandler):
    """One connection of aiohttp's server.

    Args:
        factory: Its maker.
        loop: The running loop.
        head_since: Seconds of the loop's clock when the incomplete head began that the fast lane hands over; `None`: it
            begins now.

    Attributes:
        has_ended_input: The client has ended its side.
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
        "has_ended_input",
    )

    def __init__(
        self, factory: HandlerFactory, loop: asyncio.AbstractEventLoop, head_since: float | None = None
    ) -> None:
        super().__init__(
            factory.server,
            loop=loop,
            access_log=cast("logging.Logger", None),  # our own log is written by the application
            auto_decompress=False,
            keepalive_timeout=LIMITS.client_idle,
            lingering_time=LIMITS.lingering,
            max_field_size=LIMITS.header_field,
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
        self._is_quiet = False  # no byte has come since `_idle_timer` was set
        self._head_since = head_since
        self._head_at = 0.0  # when the head that is not whole yet began, or the connection
        self._answered_at = 0.0  # when the last answer ended
        self._has_received = False
        self._has_failed = False  # the parser has met an error: it reads no more
        self.has_ended_input = False
        self._last_body: StreamReader | None = None  # the body of the request that was read last
        self._end: asyncio.Future[None] | None = None  # set when the client ends its side, where something waits for it

    # -- asyncio --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected: its first head is due."""
        self._wire = cast("asyncio.Transport", transport)
        self._watch = WriteWatch(self._wire, self._factory.timers, self._factory.times.write, until_empty=True)
        self._factory.connections.add(self, self._wire)
        super().connection_made(transport)
        self._await_head(self._head_since)
        if self._factory.is_draining:
            self.begin_drain()

    def begin_drain(self) -> None:
        """From now on the connection is closed if it is idle for `limits.drain_idle` seconds."""
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
        """Bytes of requests."""
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
        """A body is being read. aiohttp calls this for every piece, and would run its parser on no bytes each time."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio reads the result; aiohttp returns none
        """The client has ended its side; the requests that it has sent are answered."""
        self.has_ended_input = True
        if self._end is not None and not self._end.done():
            self._end.set_result(None)
        self._break_body()
        if not self._messages:
            self._close = True  # the answer that is under way is the last
        return not self._head_at and not self._is_idle

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        for timer in (self._timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._idle_timer = None
        self._watch.stop()
        if self._end is not None and not self._end.done():
            self._end.set_result(None)
        self._last_body = None  # it refers to this: the cycle would wait for the garbage collector
        super().connection_lost(exc)
        self._factory.connections.remove(self)

    def pause_writing(self) -> None:
        """More than the high-water mark is unsent."""
        super().pause_writing()
        self._watch_writing()

    # -- aiohttp --

    async def start(self) -> None:
        """Answers the requests. Whatever ends that ends the connection: aiohttp leaves it open after some bugs."""
        try:
            await super().start()
        finally:
            self.force_close()

    def _make_request(self, message: RawRequestMessage, *others: Any) -> web.BaseRequest:
        if self._factory.is_draining and not self._messages:
            message = message._replace(should_close=True)
        return self._factory.server.request_factory(message, *others)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Ends a response; it is the last one where the client has asked for no more."""
        if self.has_ended_input and not self._messages and isinstance(resp, web.StreamResponse):
            resp.force_close()  # anything else is a bug of a user's handler, which aiohttp answers
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
                self._look_at_head_by(self._answered_at)
        return response, is_lost

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The response to a request that cannot be parsed, and to one whose handler has failed.

        Raises:
            ConnectionError: A response has begun: its connection is closed.
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
        """Whether no request is there."""
        return self._waiter is not None and not self._waiter.done() and not self._messages

    def _await_head(self, since: float | None = None) -> None:
        self._head_at = self._factory.timers.clock() if since is None else since
        self._look_at_head_by(self._head_at)

    def _look_at_head_by(self, began: float) -> None:
        if self._timer is None:
            self._timer = self._factory.timers.schedule(began + self._factory.times.header, self._look_at_head)

    def _look_at_head(self) -> None:
        self._timer = None
        began = self._head_at or self._answered_at
        if self._force_close:
            return
        if self._factory.timers.clock() < began + self._factory.times.header:
            self._look_at_head_by(began)
        elif not self._has_received:
            self.force_close()
        elif self._is_idle and (self._head_at or self._holds_part_of_a_head()):
            late = "The request head did not arrive in time"
            reply = self._refusal(Error("timeout", late, reason="header_timeout", status=408))
            self._wire.write(reply.to_bytes(keep_alive=False))
            self._half_close()

    def _holds_part_of_a_head(self) -> bool:
        """Whether a head began in the bytes behind the last request; if so, the parser is of no further use.

        Only the parser knows. Empty lines end the head, complete or wrong; where there is none they mean nothing (RFC
        9112, 2.2).
        """
        if self._parser is None:
            return False
        try:
            return bool(self._parser.feed_data(b"\r\n\r\n")[0])
        except HttpProcessingError:
            return True

    async def _linger(self) -> None:
        """Half-closes, and waits until the client ends its side or its time is over."""
        self._half_close()
        self._end = self._loop.create_future()
        await self._end
        self.force_close()

    def _half_close(self) -> None:
        """Ends our side; until the end of the client's, what comes is dropped."""
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
        if self._wire.get_write_buffer_size():  # a client that takes nothing of it is given up by the watch
            self._stop_lingering_later()
        else:
            self._wire.abort()

    def _watch_writing(self) -> None:
        """Looks after bytes that the client does not take; those of a stream are looked after by its transport."""
        if not self._watch.is_running and self._wire.get_protocol() is self:
            self._watch.start()

    def _break_body(self) -> None:
        """Ends the last body where its rest will never come or cannot be read; all others are whole."""
        body = self._last_body
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(RequestPayloadError("the body is not valid HTTP/1.1"))

    def _refusal(self, error: Error) -> Reply:
        """The reply to a request that cannot be read."""
        return self._factory.refuse_unreadable(peer_address(self._wire), error)


def _may_be_a_request(message: RawRequestMessage) -> bool:
    """Whether aiohttp can make a request of a message; where it cannot, its exception would end all answers.

    `CONNECT` is for proxies: its target has no path, so no route could refuse it. A host may be no domain name.
    """
    try:
        return message.method != "CONNECT" and (not message.url.absolute or message.url.host is not None)
    except ValueError:
        return False


_TOO_MANY: Final = "Too many headers received"
_OF_HOST: Final = frozenset(("Missing 'Host' header in request.", "Duplicate 'Host' header found."))


def error_of(problem: HttpProcessingError) -> Error:
    """Our error for one of aiohttp's parser; nothing of the request is in it.

    Args:
        problem: The parser's.
    """
    if isinstance(problem, LineTooLong):
        # The parser tells the limit that was passed, and those of targets and headers differ.
        if problem.args[1] == LIMITS.request_line:
            return Error("invalid_request", "The request line is too long", reason="uri_too_long", status=414)
        return headers_too_large()
    if problem.message == _TOO_MANY:
        return headers_too_large()
    if problem.message in _OF_HOST:
        return Error("invalid_request", "the request must have one valid Host header", reason="host")
    return Error("invalid_request", "The request is not valid HTTP/1.1", reason="http")
