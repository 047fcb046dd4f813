"""Streams as responses of Django: `sse_response`, `ndjson_response`, `sse_handler`, `ndjson_handler`, `error_response`.

Owns how a `StreamingHttpResponse` sends a body. Django sends the headers before it reads the first bytes, so a response
made by a view always has the status 200, and a failure is an event of its stream. The handlers are views that wait for
the first event, and return an early failure with its own status.

Under WSGI, Django would collect a whole stream before it sends the first byte, with a new loop for each request. So a
response iterates its body itself there, and sources and gateways run on the loop of `wsgi.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from gai_fast.formats._base import MEDIA_TYPES, Framing
from gai_fast.integrations import wsgi
from gai_fast.integrations._body import Items, SourceBody, checked, checked_source
from gai_fast.integrations._handlers import GatewayLike, Prepare, call, check_prepare, open_once, refusal, source_of
from gai_fast.model.errors import Error
from gai_fast.server.http.replies import Reply

View = Callable[..., Awaitable[HttpResponseBase]]


def sse_response(events: Items, **options: Any) -> StreamingHttpResponse:
    """Returns a response that sends a source's items as SSE, for a view.

    Args:
        events: An async iterable of events, texts or objects, or an async context manager that returns one; or a plain
            iterator of them, which is iterated in a thread.
        options: Keywords (docs/frameworks.md, "What a response sends").

    Raises:
        TypeError: `events` is neither an async iterable nor an iterator, or a keyword is unknown.
        ValueError: A value is out of range.
    """
    return _response(events, "sse", options)


def ndjson_response(events: Items, **options: Any) -> StreamingHttpResponse:
    """Returns a response like `sse_response`, but as NDJSON, one object per line."""
    return _response(events, "ndjson", options)


def sse_handler(gateway: GatewayLike, prepare: Prepare, **options: Any) -> View:
    """Returns a view that sends a gateway's answer as SSE.

    A request with `Last-Event-ID` gets the rest of that stream, which must be a durable stream of the gateway.

    Args:
        gateway: A `Gateway`, or the client from `connect`; the first request opens it if it is not open.
        prepare: Called with each request, sync or async; returns a native request, or a response of its own.
        options: As for `sse_response`, and `commit_after` and `compression`; the `[stream]` of the gateway's model has
            the defaults.

    Raises:
        TypeError: A keyword is unknown.
        ValueError: A value is out of range.
    """
    return _handler(gateway, prepare, "sse", options)


def ndjson_handler(gateway: GatewayLike, prepare: Prepare, **options: Any) -> View:
    """Returns a view like `sse_handler`, but for NDJSON, one object per line."""
    return _handler(gateway, prepare, "ndjson", options)


def error_response(error: Error, *, request: HttpRequest | None = None) -> HttpResponse:
    """Returns the response for an error that a route raised: its status, headers and JSON body.

    Args:
        error: The error.
        request: The request, whose `X-Request-ID` the response has.
    """
    return _whole(refusal(error, {} if request is None else _headers_of(request)))


UNSUPPORTED = ("write_timeout",)
"""Keywords that Django cannot support: a response has no access to its client's connection."""


def _supported(options: dict[str, Any], *more: str) -> dict[str, Any]:
    if "request" in options:
        raise TypeError("a response of Django takes no `request`: a view that resumes is made with `sse_handler`")
    for name in (*UNSUPPORTED, *more):
        if name in options:
            raise TypeError(f"a response of Django has no keyword {name!r}: it does not see its request's connection")
    return options


def _response(events: Items, framing: Framing, options: dict[str, Any]) -> StreamingHttpResponse:
    options = _supported(options, "commit_after", "compression")
    return _streaming(_Chunks(checked_source(events, framing, options).body()))


class EventResponse(StreamingHttpResponse):  # type: ignore[misc]  # Django has no types
    """A response that sends its body as the source yields items.

    Args:
        chunks: Its content.
    """

    def __init__(self, chunks: _Chunks) -> None:
        super().__init__(chunks, content_type=MEDIA_TYPES[chunks.body.framing])

    def __iter__(self) -> Iterator[bytes]:
        """Returns the chunks for a WSGI server, as middleware has left them; only WSGI iterates in this way."""
        content: Iterator[bytes] = wsgi.iterated(self.streaming_content) if self.is_async else super().__iter__()
        return content


def _streaming(chunks: _Chunks) -> StreamingHttpResponse:
    response = EventResponse(chunks)
    for name, value in chunks.body.headers:
        response[name] = value
    return response


class _Chunks:
    """The content of a response, an async iterable of chunks.

    Args:
        body: The body of the response.
        has_begun: The body's source is already running.
    """

    def __init__(self, body: SourceBody, *, has_begun: bool = False) -> None:
        self.body = body
        self._has_begun = has_begun
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):  # a sync view runs in a thread without a loop
            self._loop = asyncio.get_running_loop()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not self._has_begun:
            self._loop = asyncio.get_running_loop()
            await self.body.begin(is_committed=True)
        try:
            async for chunk in self.body:
                yield chunk
        finally:
            await self.body.close()

    def close(self) -> None:
        """Cancels the source of a response that is not sent to its end; Django calls this in any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.body.cancel)

    # Django does not close a response if the client disconnects while middleware handles it.
    __del__ = close


def _handler(gateway: GatewayLike, prepare: Prepare, framing: Framing, options: dict[str, Any]) -> View:
    options = checked(_supported(options))
    check_prepare(prepare)

    async def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        headers = _headers_of(request)
        try:
            prepared = await call(prepare if inspect.iscoroutinefunction(prepare) else sync_to_async(prepare), request)
        except Error as error:
            return _whole(refusal(error, headers))
        if isinstance(prepared, HttpResponseBase):
            return prepared

        async def answer() -> HttpResponseBase:
            try:
                await open_once(gateway)
                body = source_of(gateway, prepared, headers, framing, options).body(headers)
            except Error as error:
                return _whole(refusal(error, headers))
            if request.method == "HEAD":
                await body.close()
                return _whole(Reply(200, headers=body.headers))
            return await _start(body)

        # Under WSGI the running loop ends with the view, but the gateway and the stream live on.
        return await (wsgi.on_background_loop(answer) if isinstance(request, WSGIRequest) else answer())

    return view


def _headers_of(request: HttpRequest) -> Mapping[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


async def _start(body: SourceBody) -> HttpResponseBase:
    """Starts the source, and returns the response: a stream, or a whole response after an early failure."""
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(body.close)
        reply = await body.begin()
        if reply is None:
            stack.pop_all()
            return _streaming(_Chunks(body, has_begun=True))
        return _whole(reply)


def _whole(reply: Reply) -> HttpResponse:
    response = HttpResponse(reply.body, status=reply.status)
    del response["content-type"]
    for name, value in reply.headers:
        response[name] = value
    return response
