"""Streams as responses of WSGI applications (PEP 3333), as Flask and Bottle make: `sse_response`, `ndjson_response`,
`sse_handler`, `ndjson_handler`, `error_response`.

Owns the loop on which async sources run: one for all responses of the process, in a thread that the first response
starts. So sources of several responses may share objects of a loop, such as an open `Gateway`.

1. The server sends status and headers before it reads the first bytes of a response. So a failure of a program's own
   source is an event of the stream.
2. A handler, and a response with `request`, wait for the first event, in the thread of the request, and open the
   gateway if it is not open. An early failure has its own status.
3. A handler is a WSGI application, and a view of Flask and of Bottle, which keep the request aside.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeVar

from gai_fast.formats._base import Framing
from gai_fast.integrations._body import Items, Source, SourceBody, checked
from gai_fast.integrations._handlers import (
    GatewayLike,
    Prepare,
    check_prepare,
    open_once,
    refusal,
    response_source,
    source_of,
)
from gai_fast.model.errors import Error
from gai_fast.server.http.replies import Reply

_log: Final = logging.getLogger("gai_fast.integrations")
_T = TypeVar("_T")
Environ = Mapping[str, Any]
StartResponse = Callable[..., Any]

UNSUPPORTED: Final = ("commit_after", "compression", "write_timeout")
"""Keywords that a response cannot support: it sees neither its request nor its connection."""
UNSUPPORTED_OF_HANDLERS: Final = ("write_timeout",)
"""Keywords that a handler, or a response with `request`, cannot support: it sees no connection."""


def sse_response(events: Items, *, request: Any = None, **options: Any) -> Response:
    """Returns a response that sends a source's items as SSE.

    With Flask: `Response(body, body.status, body.headers)`; with Bottle: `HTTPResponse(body, body.status,
    body.headers)`. In a WSGI application: `return body(environ, start_response)`.

    Args:
        events: An async iterable of events, texts or objects, or an async context manager that returns one; or a plain
            iterator of them, which is iterated in a thread.
        request: The request of Flask or Bottle, or the `environ`, for `gateway.stream(…)`: its `Last-Event-ID` resumes
            that durable stream in place of a new one, the response waits for the first event (rule 2), and the
            `[stream]` of the gateway's model has the defaults.
        options: Keywords (docs/frameworks.md, "What a response sends").

    Raises:
        TypeError: `events` is neither an async iterable nor an iterator, or with `request` no stream of a gateway; or a
            keyword is unknown.
        ValueError: A value is out of range.
    """
    return _response(events, request, "sse", options)


def ndjson_response(events: Items, *, request: Any = None, **options: Any) -> Response:
    """Returns a response like `sse_response`, but as NDJSON, one object per line."""
    return _response(events, request, "ndjson", options)


def sse_handler(gateway: GatewayLike, prepare: Prepare, **options: Any) -> WSGIHandler:
    """Returns a handler that sends a gateway's answer as SSE: a view of Flask or Bottle, and a WSGI application.

    A request with `Last-Event-ID` gets the rest of that stream, which must be a durable stream of the gateway.

    Args:
        gateway: A `Gateway`, or the client from `connect`; the first request opens it if it is not open.
        prepare: Called with each request (Flask's or Bottle's, otherwise the `environ`), sync or async; returns a
            native request, or a response of its own.
        options: As for `sse_response`, and `commit_after` and `compression`; the `[stream]` of the gateway's model has
            the defaults.

    Raises:
        TypeError: A keyword is unknown.
        ValueError: A value is out of range.
    """
    return WSGIHandler(gateway, prepare, "sse", options)


def ndjson_handler(gateway: GatewayLike, prepare: Prepare, **options: Any) -> WSGIHandler:
    """Returns a handler like `sse_handler`, but for NDJSON, one object per line."""
    return WSGIHandler(gateway, prepare, "ndjson", options)


def error_response(error: Error, *, request: Any = None) -> Response:
    """Returns the response for an error that a route raised: its status, headers and JSON body.

    Args:
        error: The error.
        request: The request of Flask or Bottle, or the `environ`; the response has its `X-Request-ID`.
    """
    return WSGIReply(refusal(error, {} if request is None else _headers_of(_environ_of(request))))


def _response(events: Any, request: Any, framing: Framing, options: dict[str, Any]) -> Response:
    if request is None:
        return WSGIChunks(response_source(events, None, framing, _supported(options, UNSUPPORTED)).body())
    environ = _environ_of(request)
    headers = _headers_of(environ)
    options = _supported(options, UNSUPPORTED_OF_HANDLERS)
    try:
        source = response_source(events, headers, framing, options)
    except Error as error:
        return WSGIReply(refusal(error, headers))
    return _begun(events.gateway, lambda: source, environ, headers)


def _supported(options: dict[str, Any], unsupported: tuple[str, ...]) -> dict[str, Any]:
    for name in unsupported:
        if name in options:
            raise TypeError(f"a WSGI response has no keyword {name!r}: it does not see its request's connection")
    return options


def _begun(
    gateway: GatewayLike, source: Callable[[], Source], environ: Environ, headers: Mapping[str, str]
) -> Response:
    """Opens the gateway, starts the source and waits for its first event: rule 2."""

    async def begin() -> SourceBody | Reply:
        try:
            await open_once(gateway)
            body = source().body(headers)
        except Error as error:
            return refusal(error, headers)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(body.close)
            if environ["REQUEST_METHOD"] == "HEAD":
                return Reply(200, headers=body.headers, has_length=False)
            reply = await body.begin()
            if reply is None:
                stack.pop_all()
            return reply or body

    begun = _wait(background_loop(), begin())
    return WSGIReply(begun) if isinstance(begun, Reply) else WSGIChunks(begun, has_begun=True)


def _environ_of(request: Any) -> Environ:
    """Returns the `environ` of a request of Flask, Bottle or Werkzeug, or the `environ` itself.

    Raises:
        TypeError: It is neither.
    """
    environ = request if isinstance(request, dict) else getattr(request, "environ", None)
    if not isinstance(environ, dict):
        raise TypeError(
            f"`request` must be Flask's or Bottle's request, or the environ; this is {type(request).__name__}"
        )
    return environ


def _headers_of(environ: Environ) -> Mapping[str, str]:
    return {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}


class Response(ABC):
    """A response: an iterator of chunks, which the server closes, and a WSGI application that sends it.

    Attributes:
        status: The status line, such as `200 OK`.
        headers: The headers, as pairs of name and value.
    """

    status: str
    headers: list[tuple[str, str]]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Sends the response: PEP 3333."""
        start_response(self.status, self.headers)
        return self

    def __iter__(self) -> Iterator[bytes]:
        return self

    @abstractmethod
    def __next__(self) -> bytes:
        """Returns the next chunk."""

    @abstractmethod
    def close(self) -> None:
        """Ends the response; idempotent."""


class WSGIReply(Response):
    """A response that is complete.

    Args:
        reply: The response.
    """

    def __init__(self, reply: Reply) -> None:
        self.status = f"{reply.status} {HTTPStatus(reply.status).phrase}"
        length = [("content-length", str(len(reply.body)))] if reply.has_length else []
        self.headers = [*reply.headers, *length]
        self._chunks = iter([reply.body] if reply.body else [])

    def __next__(self) -> bytes:
        """Returns the body, once."""
        return next(self._chunks)

    def close(self) -> None:
        """Drops the body."""
        self._chunks = iter([])


class WSGIChunks(Response):
    """A response that streams.

    The source runs on the loop of this module, from the first chunk on. While it gives nothing, the iterator gives a
    keep-alive each `heartbeat` seconds; the write of one is how the server notices that a client has left.

    Args:
        body: The body; the first chunk starts it.
        has_begun: The body's source is already running.
    """

    def __init__(self, body: SourceBody, *, has_begun: bool = False) -> None:
        self.status = "200 OK"
        self.headers = list(body.headers)
        self._body = body
        self._chunks = aiter(body)
        self._loop: asyncio.AbstractEventLoop | None = background_loop() if has_begun else None
        self._is_closed = False

    def __next__(self) -> bytes:
        """Waits for the next chunk, and returns it."""
        if self._is_closed:
            raise StopIteration
        if self._loop is None:
            self._loop = background_loop()
            _wait(self._loop, self._begin())
        chunk = _wait(self._loop, self._next())
        if chunk is None:
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Cancels the source unless it has ended, and waits for its cleanup, at most `limits.source_end`; idempotent.

        A plain iterator that blocks is closed when it returns; `close` does not wait for that.
        """
        if self._is_closed:
            return
        self._is_closed = True
        loop = self._loop or background_loop()
        _wait(loop, self._body.close())

    async def _begin(self) -> None:
        await self._body.begin(is_committed=True)

    async def _next(self) -> bytes | None:
        return await anext(self._chunks, None)


class WSGIHandler:
    """Sends a gateway's answers: rule 3. Made by `sse_handler` and `ndjson_handler`.

    Args:
        gateway: As for `sse_handler`.
        prepare: As for `sse_handler`.
        framing: The framing of the responses.
        options: As for `sse_handler`.
    """

    def __init__(self, gateway: GatewayLike, prepare: Prepare, framing: Framing, options: dict[str, Any]) -> None:
        check_prepare(prepare)
        self.__name__ = getattr(prepare, "__name__", "handler")  # Flask names the route by it
        self._gateway = gateway
        self._prepare = prepare
        self._framing: Framing = framing
        self._options = checked(_supported(options, UNSUPPORTED_OF_HANDLERS))

    def __call__(self, *wsgi: Any, **parts: Any) -> Any:
        """Answers a request.

        Args:
            wsgi: As a WSGI application: the `environ` and `start_response`. A view gets neither.
            parts: As a view: the parts of the URL, which `prepare` finds in the request.

        Returns:
            The framework's response.
        """
        if wsgi:
            environ, start_response = wsgi
            return self._answered(environ, environ)(environ, start_response)
        request, made = _of_framework()
        answered = self._answered(request, request.environ)
        return made(answered) if isinstance(answered, Response) else answered

    def _answered(self, request: Any, environ: Environ) -> Any:
        """Returns the response; the program's own if `prepare` has given one."""
        headers = _headers_of(environ)
        try:
            prepared = self._prepare(request)
            if inspect.isawaitable(prepared):
                prepared = _wait(background_loop(), _awaited(prepared))
            if not isinstance(prepared, Mapping):
                return prepared
        except Error as error:
            return WSGIReply(refusal(error, headers))
        return _begun(
            self._gateway,
            lambda: source_of(self._gateway, prepared, headers, self._framing, self._options),
            environ,
            headers,
        )


async def _awaited(prepared: Awaitable[_T]) -> _T:
    return await prepared


def _of_framework() -> tuple[Any, Callable[[Response], Any]]:
    """Returns the request that Flask or Bottle answers in this thread, and what makes a response of it.

    Raises:
        RuntimeError: There is no such request.
    """
    flask, bottle = sys.modules.get("flask"), sys.modules.get("bottle")
    if flask is not None and flask.has_request_context():
        return flask.request, lambda each: flask.Response(each, each.status, each.headers)
    if bottle is not None and "REQUEST_METHOD" in bottle.request.environ:
        # `bottle.request` is another one in each thread, and an async `prepare` runs in the loop's.
        request = bottle.Request(bottle.request.environ)
        return request, lambda each: bottle.HTTPResponse(each, each.status, each.headers)
    raise RuntimeError("a handler is called as a view of Flask or Bottle, or as a WSGI application")


def iterated(chunks: AsyncIterable[bytes]) -> Iterator[bytes]:
    """Yields the chunks of an async iterable, which runs on `background_loop`."""
    loop, items = background_loop(), aiter(chunks)

    async def follow() -> bytes | None:
        return await anext(items, None)

    while (chunk := _wait(loop, follow())) is not None:
        yield chunk


class _Background:
    """The loop of this module and its thread, which the first use starts. A forked process starts its own."""

    def __init__(self) -> None:
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Forgets the loop and the lock: a fork copies neither the thread nor the owner of the lock."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(loop,), name="gai-fast-wsgi", daemon=True).start()
                self._loop = loop
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Runs the loop, and on after a program's function has ended it by `SystemExit` or `KeyboardInterrupt`: asyncio
    hands these to the caller, who waits for the function, and to `run_forever`."""
    while not loop.is_closed():
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            _log.exception("a function of the program has tried to end the process from the loop of all responses")


_background: Final = _Background()


def background_loop() -> asyncio.AbstractEventLoop:
    """Returns the loop on which the sources of this process run."""
    return _background.loop()


async def on_background_loop(function: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Runs a coroutine function on `background_loop`, and waits for its result on the running loop."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(function(), background_loop()))


def _wait(loop: asyncio.AbstractEventLoop, awaitable: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run_coroutine_threadsafe(awaitable, loop).result()
