"""Streams as responses of Django under ASGI: `sse_response`, `ndjson_response`, `sse_handler`, `ndjson_handler`.

Owns how a body goes through a `StreamingHttpResponse`. Django sends the head before it asks for the first bytes, so a
response that a view makes always has the status 200, and a failure is an event of its stream. The handlers are views
that wait for the first event, and give an early failure its own status.

Under WSGI Django would gather a whole stream before it sends the first byte, on a loop of its own for each request:
responses and handlers refuse that.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from gai_fast.formats._base import MEDIA_TYPES, Framing
from gai_fast.integrations._body import Body, checked, checked_source
from gai_fast.integrations._handlers import GatewayLike, Prepare, call, source_of
from gai_fast.model.errors import Error
from gai_fast.runtime.ids import request_id
from gai_fast.server.http.replies import Reply, error_reply

View = Callable[..., Awaitable[HttpResponseBase]]


def sse_response(events: AsyncIterable[Any], **options: Any) -> StreamingHttpResponse:
    """A response that sends what a source gives, as SSE. Return it from a view; an ASGI server must run Django.

    Args:
        events: An async iterable of events, texts or objects, or an async context manager that gives one.
        options: Keywords (docs/library.md, "Answer in a web framework").

    Raises:
        TypeError: `events` is no async iterable, or there is no such keyword.
        ValueError: A value is out of range.
    """
    return _response(events, "sse", options)


def ndjson_response(events: AsyncIterable[Any], **options: Any) -> StreamingHttpResponse:
    """As `sse_response`, but NDJSON, one object a line; arguments and errors are the same."""
    return _response(events, "ndjson", options)


def sse_handler(gateway: GatewayLike, prepare: Prepare, **options: Any) -> View:
    """A view that asks a gateway and sends the answer as SSE.

    A request with `Last-Event-ID` gets the rest of that stream, which must be a durable one of the gateway.

    Args:
        gateway: A `Gateway`, or what `connect` gives; the first request opens one that is not open.
        prepare: Called with each request, sync or async; gives a native request, or a response of its own.
        options: As for `sse_response`, and `commit_after` and `compression`; the `[stream]` of the gateway's model has
            the defaults.

    Raises:
        TypeError: There is no such keyword.
        ValueError: A value is out of range.
    """
    return _handler(gateway, prepare, "sse", options)


def ndjson_handler(gateway: GatewayLike, prepare: Prepare, **options: Any) -> View:
    """As `sse_handler`, but NDJSON, one object a line; arguments and errors are the same."""
    return _handler(gateway, prepare, "ndjson", options)


NOT_HERE = ("write_timeout",)
"""Keywords that Django cannot honour: a response does not see the connection of its client."""


def _possible(options: dict[str, Any], *more: str) -> dict[str, Any]:
    for name in (*NOT_HERE, *more):
        if name in options:
            raise TypeError(f"a response of Django has no keyword {name!r}: it does not see its request's connection")
    return options


def _response(events: AsyncIterable[Any], framing: Framing, options: dict[str, Any]) -> StreamingHttpResponse:
    options = _possible(options, "commit_after", "compression")
    return _streaming(_Chunks(checked_source(events, framing, options).body()))


class EventResponse(StreamingHttpResponse):  # type: ignore[misc]  # Django has no types
    """A response whose body is made while it is sent."""

    def __iter__(self) -> Iterator[bytes]:
        """Refuses to be sent under WSGI.

        Raises:
            ImproperlyConfigured: Always: only WSGI iterates in this way.
        """
        raise _no_wsgi()


def _no_wsgi() -> ImproperlyConfigured:
    return ImproperlyConfigured("a stream needs ASGI: run the project's ASGI application, by uvicorn or the like")


def _streaming(chunks: _Chunks) -> StreamingHttpResponse:
    response = EventResponse(chunks, content_type=MEDIA_TYPES[chunks.body.framing])
    for name, value in chunks.body.headers:
        response[name] = value
    return response


class _Chunks:
    """The content of a response: its chunks, once it is iterated.

    Args:
        body: The body of the response.
        has_begun: Its source runs already.
    """

    def __init__(self, body: Body, *, has_begun: bool = False) -> None:
        self.body = body
        self._has_begun = has_begun
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):  # in a sync view, which runs in a thread
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
        """Ends the source of a response that is not sent, or not to its end; Django calls this in any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.body.leave)

    # Django closes no response whose client leaves while middleware has it.
    __del__ = close


def _handler(gateway: GatewayLike, prepare: Prepare, framing: Framing, options: dict[str, Any]) -> View:
    options = checked(_possible(options))

    async def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if isinstance(request, WSGIRequest):
            raise _no_wsgi()
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            prepared = await call(prepare if inspect.iscoroutinefunction(prepare) else sync_to_async(prepare), request)
            if isinstance(prepared, HttpResponseBase):
                return prepared
            await _open(gateway)
            body = source_of(gateway, prepared, headers, framing, options).body(headers)
        except Error as error:
            return _whole(error_reply(error, request_id(headers.get("x-request-id"))))
        if request.method == "HEAD":
            await body.close()
            return _whole(Reply(200, headers=body.headers))
        return await _begun(body)

    return view


_opening: Final[WeakKeyDictionary[GatewayLike, asyncio.Lock]] = WeakKeyDictionary()


async def _open(gateway: GatewayLike) -> None:
    """Opens a gateway that is not open; of several first requests one does."""
    if not gateway.is_open:
        async with _opening.setdefault(gateway, asyncio.Lock()):
            if not gateway.is_open:
                await gateway.__aenter__()


async def _begun(body: Body) -> HttpResponseBase:
    """The response to a request whose source has begun, or failed."""
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
