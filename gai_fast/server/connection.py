"""Client connections: aiohttp parses requests, we answer.

Everything this package relies on in aiohttp beyond its public interface stands in this file, and
`tests/integration/test_aiohttp_contract.py` fails when a release changes it: `RequestHandler` (its constructor, the
protocol callbacks, `handle_error`, `_current_request`, `_messages`, `_waiter`, `_request_count`), `_ErrInfo` for what
the parser refuses, `web.Server.__call__`, and that a handler may return any object with `prepare`, `write_eof` and
`keep_alive`.

What aiohttp does not do and is done here: a time limit for request heads, JSON bodies for requests that cannot be
parsed (which echo nothing of them), an end for bodies that cannot be parsed, telling a running stream at once that its
client is gone or slow, an end for clients that take nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from gai_fast._impl import encode_json
from gai_fast.errors import Error
from gai_fast.ids import new_request_id
from gai_fast.limits import LIMITS
from gai_fast.net.timers import TimerHandle, TimerWheel

logger = logging.getLogger("gai_fast.server")

Headers = list[tuple[str, str]]


class Reply:
    """A whole response, written in one piece.

    Args:
        status: The HTTP status.
        body: Its bytes.
        headers: Without `content-length` and `connection`, which are added.
        close: Close the connection afterwards: not all of the request has been read, or nobody knows where it ends.
    """

    __slots__ = ("body", "close", "headers", "keep_alive", "status")

    def __init__(self, status: int, body: bytes = b"", headers: Headers | None = None, *, close: bool = False) -> None:
        self.status = status
        self.body = body
        self.headers = headers or []
        self.close = close
        self.keep_alive = False

    async def prepare(self, request: web.BaseRequest) -> None:
        """Called by aiohttp when the handler has returned."""
        self.keep_alive = may_keep_alive(request) and not self.close
        transport = request.transport
        if transport is not None and not transport.is_closing():
            transport.write(self.to_bytes(keep_alive=self.keep_alive, head_only=request.method == "HEAD"))
            connection = cast(Connection, request.protocol)
            await connection.drain(request)
            if self.close:
                await connection.linger()

    def to_bytes(self, *, keep_alive: bool, head_only: bool = False) -> bytes:
        """The response as it goes on the wire."""
        headers = self.headers
        if self.status not in (204, 304):  # RFC 9110, 8.6: these never have a length
            headers = [*headers, ("content-length", str(len(self.body)))]
        head = head_bytes(self.status, headers, keep_alive)
        return head if head_only else head + self.body

    async def write_eof(self, data: bytes = b"") -> None:
        """Called by aiohttp after `prepare`: everything is written already."""


class Written:
    """Tells aiohttp that a handler has written its response itself."""

    __slots__ = ("keep_alive", "status")

    def __init__(self, keep_alive: bool, status: int = 200) -> None:
        self.keep_alive = keep_alive
        self.status = status

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to do."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to do."""


_REASONS: Mapping[int, str] = {status.value: status.phrase for status in HTTPStatus}


def may_keep_alive(request: web.BaseRequest) -> bool:
    """Whether the connection may carry another request: never in HTTP/1.0, whose clients would have to be told so."""
    return request.keep_alive and request.version >= (1, 1)


def head_bytes(status: int, headers: Headers, keep_alive: bool) -> bytes:
    """A response head.

    Raises:
        ValueError: A header holds a line end or a NUL; the text names it.
    """
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}", f"date: {_date(int(time.time()))}"]
    for name, value in headers:
        if not value.isprintable() or not value.isascii():
            raise ValueError(f"header {name!r} cannot be written: it holds control or non-ASCII characters")
        lines.append(f"{name}: {value}")
    if not keep_alive:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


class Stream(Protocol):
    """What a connection tells the stream that runs on it."""

    def connection_lost(self) -> None:
        """The client is gone."""

    def pause_writing(self) -> None:
        """More than the connection's high-water mark is unsent."""

    def resume_writing(self) -> None:
        """The client has caught up."""


class Connection(RequestHandler):
    """One client connection."""

    __slots__ = ("_head_timer", "_lost", "_server", "stream")

    def __init__(self, server: Server, *, loop: asyncio.AbstractEventLoop, **kwargs: Any) -> None:
        super().__init__(server, loop=loop, **kwargs)
        self._server = server
        self._head_timer: TimerHandle | None = None
        self._lost: asyncio.Future[None] | None = None  # whoever lingers waits for it
        self.stream: Stream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected: its first request head is due."""
        super().connection_made(transport)
        self._server.opened(self, cast(asyncio.WriteTransport, transport))
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            self._set_tcp_option(socket.TCP_NOTSENT_LOWAT, LIMITS.kernel_unsent)
        self.limit_silence(self._server.write_timeout)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; a head that is not complete yet has a time limit."""
        if self._lost is not None:
            return
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._stop_head_timer()
            self._end_broken_body()
        elif self._head_timer is None and self._waiter is not None:
            self._expect_head()

    def eof_received(self) -> None:
        """A client that says no more is gone, as for nginx; what is unsent must not keep its stream alive."""
        if self._current_request is not None and self.stream is not None and self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone; the stream learns of it before anything else."""
        self._stop_head_timer()
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.connection_lost()
        super().connection_lost(exc)
        self._server.lost(self)
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)

    def pause_writing(self) -> None:
        """The high-water mark is passed."""
        super().pause_writing()
        if self.stream is not None:
            self.stream.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        if self.stream is not None:
            self.stream.resume_writing()

    def handle_error(  # type: ignore[override]  # a Reply is all that aiohttp needs, see the module's docstring
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> Reply:
        """A request that cannot be parsed, or a bug of ours: JSON, without a word of the request."""
        if isinstance(exc, ConnectionError):
            error = Error("network", "The client left before its request was complete", reason="client_gone")
        elif status == HTTPStatus.REQUEST_TIMEOUT:
            error = Error("timeout", "The request head did not arrive in time", reason="header_timeout", status=status)
        elif status >= 500:
            logger.error("a handler failed: %s", type(exc).__name__, exc_info=exc)
            error = Error("internal", "The server failed to handle this request")
        elif isinstance(exc, LineTooLong) and exc.args[1] == LIMITS.request_line:
            error = Error("invalid_request", "The request line is too long", reason="uri_too_long", status=414)
        elif isinstance(exc, LineTooLong) or message == _TOO_MANY_HEADERS:
            error = Error(
                "invalid_request", "The request's headers are too large", reason="headers_too_large", status=431
            )
        else:
            error = Error("invalid_request", "The request is not valid HTTP/1.1", reason="http")
        return error_reply(error, new_request_id(), close=True)

    async def drain(self, request: web.BaseRequest) -> None:
        """Waits while too much is unsent: whoever asks and asks and reads nothing must not fill the memory."""
        try:
            async with asyncio.timeout(self._server.write_timeout):
                await request.writer.drain()
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()

    async def linger(self) -> None:
        """Half-closes and drops what still comes (RFC 9112, 9.6).

        Closing at once would reset the connection under a client that still sends, and take the answer back.
        """
        if self.transport is None or self.transport.is_closing():
            return
        self._lost = self._loop.create_future()
        if self.transport.can_write_eof():
            with suppress(OSError):  # the client may have reset the connection, which we shall hear later
                self.transport.write_eof()
        self.transport.resume_reading()
        with suppress(TimeoutError):
            async with asyncio.timeout(LIMITS.lingering):
                await self._lost

    def limit_silence(self, seconds: float) -> None:
        """Lets the kernel give up a client that acknowledges nothing for so long, where the kernel can (Linux).

        A client whose machine is gone says no more, and what is written to it fits into the kernel's buffers for long.
        """
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            self._set_tcp_option(socket.TCP_USER_TIMEOUT, max(1, int(seconds * 1000)))

    def _set_tcp_option(self, option: int, value: int) -> None:
        handle = None if self.transport is None else self.transport.get_extra_info("socket")
        if handle is not None:
            handle.setsockopt(socket.IPPROTO_TCP, option, value)

    def _end_broken_body(self) -> None:
        """Where the parser gave up within a body: aiohttp would let its reader wait for the rest."""
        request = self._current_request
        if request is not None and isinstance(self._messages[-1][0], _ErrInfo) and not request.content.is_eof():
            request.content.set_exception(web.RequestPayloadError())

    def _expect_head(self) -> None:
        due = self._loop.time() + self._server.header_timeout
        self._head_timer = self._server.timers.schedule(due, self._no_head)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _no_head(self) -> None:
        self._head_timer = None
        if self._waiter is not None and not self._waiter.done():
            self._messages.append((_ErrInfo(HTTPStatus.REQUEST_TIMEOUT, TimeoutError(), ""), EMPTY_PAYLOAD))
            self._waiter.set_result(None)


_TOO_MANY_HEADERS = "Too many headers received"
"""aiohttp's own words; there is no class for it."""


def error_reply(
    error: Error, request_id: str, body: bytes | None = None, headers: Headers | None = None, *, close: bool = False
) -> Reply:
    """The response for an error.

    Args:
        error: What went wrong.
        request_id: Told in the body and in both request-id headers.
        body: In the format of the route; the native shape where not given.
        headers: More headers.
        close: Close the connection afterwards.
    """
    if body is None:
        body = encode_json({"error": {**error.payload(), "request_id": request_id}})
    return Reply(error.status, body, [*(headers or []), *error_headers(error, request_id)], close=close)


def error_headers(error: Error, request_id: str) -> Headers:
    """The headers of an error response (CONTRACT §4 "Headers")."""
    headers = [*json_headers(request_id)]
    if error.code != "internal" or error.phase is None:
        headers.append(("x-should-retry", "true" if error.temporary else "false"))
    if error.temporary and error.retry_after_ms is not None:
        headers.append(("retry-after", str(-(-error.retry_after_ms // 1000))))
        headers.append(("retry-after-ms", str(error.retry_after_ms)))
    return headers


def id_headers(request_id: str) -> Headers:
    """The request id, as the OpenAI and as the Anthropic SDK look for it."""
    return [("x-request-id", request_id), ("request-id", request_id)]


def json_headers(request_id: str) -> Headers:
    """The headers of a JSON response that is no stream."""
    return [("content-type", "application/json"), ("cache-control", "no-store"), *id_headers(request_id)]


Handler = Callable[[web.BaseRequest], Awaitable[Any]]


class Server(web.Server):
    """Makes a `Connection` for every client.

    Args:
        handler: Answers a request.
        timers: The loop's timer wheel.
        header_timeout: Seconds for a request head.
        write_timeout: Seconds after which a client that takes nothing is given up.
        max_body: Bytes of a request body.
    """

    def __init__(
        self, handler: Handler, *, timers: TimerWheel, header_timeout: float, write_timeout: float, max_body: int
    ) -> None:
        super().__init__(
            handler,
            request_factory=self._request,
            access_log=None,
            auto_decompress=False,
            max_line_size=LIMITS.request_line,
            max_field_size=LIMITS.header_field,
            keepalive_timeout=LIMITS.client_idle,
            lingering_time=0.0,  # see `linger`
        )
        self.timers = timers
        self.header_timeout = header_timeout
        self.write_timeout = write_timeout
        self._max_body = max_body
        self._open: dict[Connection, asyncio.WriteTransport] = {}
        self._emptied = asyncio.Event()
        self._emptied.set()

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)

    def opened(self, connection: Connection, transport: asyncio.WriteTransport) -> None:
        """A client has connected."""
        self._open[connection] = transport
        self._emptied.clear()

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        self._open.pop(connection, None)
        if not self._open:
            self._emptied.set()

    async def close(self) -> None:
        """Ends every connection; handlers, and clients that take their last bytes, have `limits.closing` seconds."""
        await self.shutdown(LIMITS.closing)
        try:
            async with asyncio.timeout(LIMITS.closing):
                await self._emptied.wait()
        except TimeoutError:
            for transport in tuple(self._open.values()):
                transport.abort()
            await self._emptied.wait()

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: Any,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=self._max_body)
