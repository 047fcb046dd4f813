"""Streams as responses of ASGI applications: `sse_response`, `ndjson_response`, `sse_handler`, `ndjson_handler`,
`error_response`.

If Starlette is installed, responses are Starlette's, and handlers are endpoints for Starlette and FastAPI. Otherwise
both are plain ASGI callables, and `prepare` gets a `ASGIRequest` of this module. They run on asyncio's loops.

ASGI has no message for the bytes that a client has received: a response fails if one `send` takes longer than
`write_timeout`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl

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
from gai_fast.integrations.limits import LIMITS
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.server.http.replies import Headers, Reply

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

StarletteRequest: Any = None
StarletteResponse: Any = None
if find_spec("starlette") is not None:
    StarletteRequest = import_module("starlette.requests").Request
    StarletteResponse = import_module("starlette.responses").Response


def sse_response(events: Items, *, request: Any = None, **options: Any) -> Any:
    """Returns a response that sends a source's items as SSE: a Starlette response, or an ASGI callable without it.

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


def ndjson_response(events: Items, *, request: Any = None, **options: Any) -> Any:
    """Returns a response like `sse_response`, but as NDJSON, one object per line."""
    return _sourced(events, request, "ndjson", options)


def error_response(error: Error, *, request: Any = None) -> Any:
    """Returns the response for an error that a route raised: its status, headers and JSON body.

    Args:
        error: The error.
        request: The request, whose `X-Request-ID` the response has.
    """
    return _response(_Whole(refusal(error, {} if request is None else request.headers)))


def sse_handler(gateway: GatewayLike, prepare: Prepare, **options: Any) -> Any:
    """Returns a handler that sends a gateway's answer as SSE: a Starlette endpoint, or an ASGI callable without it.

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


def ndjson_handler(gateway: GatewayLike, prepare: Prepare, **options: Any) -> Any:
    """Returns a handler like `sse_handler`, but for NDJSON, one object per line."""
    return _handler(gateway, prepare, "ndjson", options)


class EventApp:
    """An ASGI application that answers one request with a source.

    Args:
        source: The source of the items.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send, own: Headers = ()) -> None:
        """Answers a request.

        Args:
            scope: ASGI's scope.
            receive: ASGI's callable for messages from the client.
            send: ASGI's callable for messages to the client.
            own: Headers of the program; they replace the usual headers with these names.

        Raises:
            TimeoutError: One `send` took longer than `write_timeout`.
        """
        body = self._source.body(_headers_of(scope))
        listening = asyncio.get_running_loop().create_task(_listen(receive, body))
        try:
            if scope["method"] == "HEAD":
                await _send_whole(send, Reply(200, headers=body.headers, has_length=False), own)
                return
            reply = await body.begin()
            if reply is not None:
                await _send_whole(send, reply, own)
                return
            await self._send(send, _head(200, body.headers, own))
            async for chunk in body:
                await self._send(send, {"type": "http.response.body", "body": chunk, "more_body": True})
            if not body.is_cancelled:
                await self._send(send, {"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            listening.cancel()
            await body.close()

    async def _send(self, send: Send, message: MutableMapping[str, Any]) -> None:
        async with asyncio.timeout(self._source.stream.write_timeout):
            await send(message)


async def _listen(receive: Receive, body: SourceBody) -> None:
    """Cancels the source when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
    body.cancel()


def _head(status: int, headers: Headers, own: Headers = ()) -> MutableMapping[str, Any]:
    names = {name.lower() for name, _ in own}
    written = [*own, *(header for header in headers if header[0] not in names)]
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in written]
    return {"type": "http.response.start", "status": status, "headers": encoded}


async def _send_whole(send: Send, reply: Reply, own: Headers = ()) -> None:
    names = {name for name, _ in reply.headers}
    kept = [header for header in own if header[0].lower() not in names]
    length = [("content-length", str(len(reply.body)))] if reply.has_length else []
    await send(_head(reply.status, [*reply.headers, *length], kept))
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})


def _headers_of(scope: Scope) -> Mapping[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


class ASGIRequest:
    """A request, if Starlette is not installed.

    Args:
        scope: ASGI's scope.
        receive: ASGI's callable for messages from the client.

    Attributes:
        scope: ASGI's scope.
        method: GET, POST, …
        path: The path.
        headers: The headers, by their names in lower case.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = _headers_of(scope)
        self._receive = receive
        self._body: bytes | None = None

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the query string.

        Raises:
            InvalidRequest: There are more than `SHARED.query_fields` parameters.
        """
        text = self.scope["query_string"].decode("latin-1")
        try:
            return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=SHARED.query_fields))
        except ValueError:
            many = f"more than {SHARED.query_fields} query parameters"
            raise Error("invalid_request", many, reason="query") from None

    async def body(self) -> bytes:
        """Returns the whole body.

        Raises:
            InvalidRequest: The body is larger than `LIMITS.asgi_body` (413), or the client has disconnected.
        """
        if self._body is None:
            received, more = bytearray(), True
            while more:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise Error("invalid_request", "the client left before the end of its body", reason="http")
                received += message.get("body", b"")
                more = message.get("more_body", False)
                if len(received) > LIMITS.asgi_body:
                    text = f"the body is larger than {LIMITS.asgi_body} bytes"
                    raise Error("invalid_request", text, reason="max_body", status=413)
            self._body = bytes(received)
        return self._body

    async def json(self) -> Any:
        """Returns the body, parsed as JSON.

        Raises:
            InvalidRequest: The body is not JSON, is too large, or the client has disconnected.
        """
        try:
            return json.loads(await self.body())
        except (ValueError, RecursionError):
            raise Error("invalid_request", "the body is not JSON", reason="json") from None


def _sourced(events: Items, request: Any, framing: Framing, options: dict[str, Any]) -> Any:
    headers = None if request is None else request.headers
    try:
        return _response(EventApp(response_source(events, headers, framing, options)))
    except Error as error:
        return error_response(error, request=request)


def _handler(gateway: GatewayLike, prepare: Prepare, framing: Framing, options: dict[str, Any]) -> Any:
    options = checked(options)
    check_prepare(prepare)

    async def answer(request: Any, headers: Mapping[str, str]) -> Any:
        """Returns the ASGI callable, or the program's own response, for a request."""
        try:
            prepared = await call(prepare, request)
            if callable(prepared):
                return prepared
            return EventApp(source_of(gateway, prepared, headers, framing, options))
        except Error as error:
            return _Whole(refusal(error, headers))

    async def endpoint(request: Any) -> Any:
        answered = await answer(request, request.headers)
        if isinstance(answered, StarletteResponse):
            return answered
        return _response(answered if isinstance(answered, EventApp | _Whole) else _OwnApp(answered))

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        request = ASGIRequest(scope, receive)
        await (await answer(request, request.headers))(scope, receive, send)

    if StarletteResponse is None:
        return application
    # FastAPI reads the annotations.
    endpoint.__annotations__ = {"request": StarletteRequest, "return": StarletteResponse}
    return endpoint


class _Whole:
    """An ASGI application that sends one whole response."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send, own: Headers = ()) -> None:
        await _send_whole(send, self._reply, own)


class _OwnApp:
    """Wraps a program's own ASGI application, and adds no headers to its response."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send, own: Headers = ()) -> None:
        await self._app(scope, receive, send)


def _response(app: EventApp | _Whole | _OwnApp) -> Any:
    """Returns the application as a Starlette response, or unchanged if Starlette is not installed."""
    return app if StarletteResponse is None else EventResponse(app)


if StarletteResponse is not None:

    class EventResponse(StarletteResponse):  # type: ignore[misc]  # the type checker may run without Starlette
        """A Starlette response that sends a stream; the program may set its headers and cookies.

        Args:
            app: The application that sends the response.
        """

        def __init__(self, app: EventApp | _Whole | _OwnApp) -> None:
            self._app = app
            self.status_code = 200
            self.background: Any = None
            self.init_headers()

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            """Sends the stream, then runs the background task."""
            own = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw_headers]
            await self._app(scope, receive, send, own)
            if self.background is not None:
                await self.background()
