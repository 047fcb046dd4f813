"""Streams as responses of aiohttp's server: `sse_response`, `ndjson_response`, `sse_handler`, `ndjson_handler`,
`error_response`; and the whole server as an application, `application`.

Owns how an `aiohttp.web.StreamResponse` sends a body, and how its source is cancelled if the client disconnects.

During a stream, a protocol wraps aiohttp's: a handler of aiohttp notices a lost connection only when it writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from gai_fast.config import load
from gai_fast.formats._base import Framing
from gai_fast.integrations._body import Items, Source, SourceBody, checked
from gai_fast.integrations._handlers import (
    GatewayLike,
    Prepare,
    call,
    check_prepare,
    refusal,
    response_source,
    source_of,
)
from gai_fast.library.gateway import Gateway
from gai_fast.model.errors import Error
from gai_fast.model.settings import Settings, StreamSettings
from gai_fast.runtime.timers import TimerWheel
from gai_fast.server.application import build_application
from gai_fast.server.http.replies import Headers, Reply
from gai_fast.server.http.write_watch import WriteWatch

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def sse_response(events: Items, *, request: web.Request | None = None, **options: Any) -> web.StreamResponse:
    """Returns a response that sends a source's items as SSE, for a handler.

    Args:
        events: An async iterable of events, texts or objects, or an async context manager that returns one; or a plain
            iterator of them, which is iterated in a thread.
        request: The request, for `gateway.stream(…)`: its `Last-Event-ID` resumes that durable stream in place of a new
            one, and the `[stream]` of the gateway's model has the defaults.
        options: Keywords (docs/frameworks.md, "What a response sends").

    Raises:
        TypeError: `events` is neither an async iterable nor an iterator, or with `request` no stream of a gateway; or a
            keyword is unknown.
        ValueError: A value is out of range.
    """
    return _sourced(events, request, "sse", options)


def ndjson_response(events: Items, *, request: web.Request | None = None, **options: Any) -> web.StreamResponse:
    """Returns a response like `sse_response`, but as NDJSON, one object per line."""
    return _sourced(events, request, "ndjson", options)


def error_response(error: Error, *, request: web.Request | None = None) -> web.Response:
    """Returns the response for an error that a route raised: its status, headers and JSON body.

    Args:
        error: The error.
        request: The request, whose `X-Request-ID` the response has.
    """
    return _whole(refusal(error, {} if request is None else request.headers))


def sse_handler(gateway: GatewayLike, prepare: Prepare, **options: Any) -> Handler:
    """Returns a handler that sends a gateway's answer as SSE.

    A request with `Last-Event-ID` gets the rest of that stream, which must be a durable stream of the gateway.

    Args:
        gateway: An open `Gateway`, or the client from `connect`.
        prepare: Called with each request, sync or async; returns a native request, or a response of its own.
        options: As for `sse_response`; the `[stream]` of the gateway's model has the defaults.

    Raises:
        TypeError: A keyword is unknown.
        ValueError: A value is out of range.
    """
    return _handler(gateway, prepare, "sse", options)


def ndjson_handler(gateway: GatewayLike, prepare: Prepare, **options: Any) -> Handler:
    """Returns a handler like `sse_handler`, but for NDJSON, one object per line."""
    return _handler(gateway, prepare, "ndjson", options)


def application(gateway_or_config: Any) -> web.Application:
    """Returns an application with every route of the server; mount it under any prefix, or run it with any server.

    Args:
        gateway_or_config: A configuration (the path of a file, or `Settings`) or a `Gateway`. A `Gateway` must be open
            on the application's loop when the application starts, and stays open when it stops; both have the same
            streams.

    Raises:
        ConfigError: The file is not a valid configuration.
        TypeError: The argument is none of these.
    """
    if isinstance(gateway_or_config, Gateway):
        return build_application(gateway_or_config.settings, gateway_or_config.engine)
    if isinstance(gateway_or_config, str | os.PathLike):
        return build_application(load(Path(gateway_or_config)))
    if not isinstance(gateway_or_config, Settings):
        kind = type(gateway_or_config).__name__
        raise TypeError(f"an application takes a Gateway, Settings or the path of a configuration; this is {kind}")
    return build_application(gateway_or_config)


def _sourced(
    events: Items, request: web.Request | None, framing: Framing, options: dict[str, Any]
) -> web.StreamResponse:
    try:
        return EventResponse(response_source(events, None if request is None else request.headers, framing, options))
    except Error as error:
        return error_response(error, request=request)


def _handler(gateway: GatewayLike, prepare: Prepare, framing: Framing, options: dict[str, Any]) -> Handler:
    options = checked(options)
    check_prepare(prepare)

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            prepared = await call(prepare, request)
            if isinstance(prepared, web.StreamResponse):
                return prepared
            return EventResponse(source_of(gateway, prepared, request.headers, framing, options))
        except Error as error:
            return error_response(error, request=request)

    return handle


class EventResponse(web.StreamResponse):
    """A response that sends its body as the source yields items.

    Args:
        source: The source of the items.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._running: tuple[SourceBody, _Connection] | None = None
        self._whole_body = b""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Starts the source, and sends the headers; if the source fails at once, the headers of an error response."""
        if self.prepared:
            return await super().prepare(request)
        body = self._source.body(request.headers)
        if request.method == "HEAD":
            await body.close()
            self._add(body.headers)
            return await super().prepare(request)
        connection = _Connection(request, body, self._source.stream)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(body.close)
            stack.callback(connection.restore)
            reply = await body.begin()
            if reply is not None:
                await stack.aclose()
                self._answer_with(reply)
                return await super().prepare(request)
            self._add(body.headers)
            writer = await super().prepare(request)
            self._running = body, connection
            stack.pop_all()
            return writer

    def _answer_with(self, reply: Reply) -> None:
        self.set_status(reply.status)
        self._add(reply.headers)
        self._whole_body = reply.body
        if reply.has_length:
            self.content_length = len(reply.body)

    def _add(self, headers: Headers) -> None:
        """Adds headers; headers that the program has set stay."""
        own = {name.lower() for name in self.headers}
        for name, value in headers:
            if name not in own:
                self.headers[name] = value

    async def write_eof(self, data: bytes = b"") -> None:
        """Sends the body to its end.

        Raises:
            ConnectionError: The client has disconnected.
        """
        running, self._running = self._running, None
        if running is None:
            await super().write_eof(data or self._whole_body)
            return
        body, connection = running
        try:
            async for chunk in body:
                connection.count(len(chunk))
                await self.write(chunk)
        finally:
            connection.restore()
            await body.close()
        if body.is_cancelled:
            raise ConnectionResetError("the client has left")
        await super().write_eof(data)


class _Connection(asyncio.Protocol):
    """The protocol of a client's connection during one response; it wraps aiohttp's protocol.

    It forwards every call. A lost connection cancels the source at once. A client that accepts no bytes for
    `write_timeout` is disconnected.

    Args:
        request: The request.
        body: The body of the response.
        stream: The settings of the response.
    """

    def __init__(self, request: web.BaseRequest, body: SourceBody, stream: StreamSettings) -> None:
        self._body = body
        self._watch: WriteWatch | None = None
        self._transport = transport = request.transport
        if transport is None or transport.is_closing():
            self._transport = None
            asyncio.get_running_loop().call_soon(body.cancel)
            return
        self._protocol = cast("asyncio.Protocol", transport.get_protocol())
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=stream.client_buffer)
        self._watch = WriteWatch(transport, TimerWheel(asyncio.get_running_loop()), stream.write_timeout)
        self._watch.start()

    def count(self, size: int) -> None:
        """Counts bytes before they are written."""
        if self._watch is not None:
            self._watch.written += size

    def restore(self) -> None:
        """Restores aiohttp's protocol on the connection; idempotent."""
        transport, self._transport = self._transport, None
        if self._watch is not None:
            self._watch.stop()
        if transport is not None and transport.get_protocol() is self:
            transport.set_protocol(self._protocol)
            if not transport.is_closing():
                transport.set_write_buffer_limits()

    def data_received(self, data: bytes) -> None:
        """Forwards data: the client's next requests."""
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        """Forwards the end of the client's data: aiohttp closes the connection then."""
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the source, and forwards the loss of the connection."""
        self.restore()
        self._body.cancel()
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Forwards the pause: the write buffer is full."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Forwards the end of the pause: the write buffer has drained."""
        self._protocol.resume_writing()


def _whole(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body, headers=CIMultiDict(reply.headers))
