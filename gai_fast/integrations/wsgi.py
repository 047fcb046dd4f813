"""Streams as responses of WSGI applications (PEP 3333), as Flask and Bottle make: `sse_response`, `ndjson_response`.

Owns the loop on which async sources run: one for all responses of the process, in a thread that the first response
starts. So sources of several responses may share what belongs to a loop, such as an open `Gateway`.

The server sends status and headers before it reads the first bytes, so a failure is an event of the stream.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterable, Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

from gai_fast.formats._base import Framing
from gai_fast.integrations._body import Body, Items, checked_source

_log: Final = logging.getLogger("gai_fast.integrations")
_T = TypeVar("_T")

UNSUPPORTED: Final = ("commit_after", "compression", "write_timeout")
"""Keywords that a response cannot support: it sees neither its request nor its connection."""


def sse_response(events: Items, **options: Any) -> Chunks:
    """Returns the body of a response that sends a source's items as SSE.

    With Flask: `Response(body, headers=body.headers)`. In a WSGI application: `start_response("200 OK", body.headers)`,
    then `return body`.

    Args:
        events: An async iterable of events, texts or objects, or an async context manager that returns one; or a plain
            iterator of them, which is iterated in a thread.
        options: Keywords (docs/frameworks.md, "What a response sends").

    Raises:
        TypeError: `events` is neither an async iterable nor an iterator, or a keyword is unknown.
        ValueError: A value is out of range.
    """
    return _response(events, "sse", options)


def ndjson_response(events: Items, **options: Any) -> Chunks:
    """Returns the body of a response like `sse_response`, but as NDJSON, one object per line."""
    return _response(events, "ndjson", options)


def _response(events: Items, framing: Framing, options: dict[str, Any]) -> Chunks:
    for name in UNSUPPORTED:
        if name in options:
            raise TypeError(f"a WSGI response has no keyword {name!r}: it does not see its request's connection")
    return Chunks(checked_source(events, framing, options).body())


class Chunks:
    """The body of a WSGI response: an iterator of chunks, which the server closes.

    The source runs on the loop of this module, from the first chunk on. While it gives nothing, the iterator gives a
    keep-alive each `heartbeat` seconds; the write of one is how the server notices that a client has left.

    Args:
        body: The body; the first chunk starts it.

    Attributes:
        headers: The headers of the response, as pairs of name and value.
    """

    def __init__(self, body: Body) -> None:
        self.headers: list[tuple[str, str]] = list(body.headers)
        self._body = body
        self._chunks = aiter(body)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

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
