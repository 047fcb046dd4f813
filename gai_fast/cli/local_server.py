"""A small aiohttp server on this machine, for commands that act as an upstream.

Owns its socket, its shutdown, the reading of request bodies, and everything below HTTP: refusing, resetting and cutting
a connection. aiohttp is imported when a server is created, because `gai-fast --help` imports this module.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final, Protocol, Self, cast

from gai_fast.model.limits import SHARED

if TYPE_CHECKING:
    from aiohttp import web

BODY_TIMEOUT: Final = 10.0
"""Seconds for a request's body."""
_SHUTDOWN: Final = 0.05
"""Seconds in which a handler may end when the server stops, before it is cancelled."""
_SEND_TIME: Final = 0.01
"""Seconds for the kernel to send written bytes before a reset, which discards the rest."""


class LocalServer:
    """Serves an aiohttp application. A handler is cancelled as soon as its client disconnects.

    Args:
        app: The application.
        host: The address to listen on.
        port: The port; 0 chooses a free one.
        listens: Whether the server listens; if false, the port is bound and refuses every connection.
    """

    def __init__(self, app: web.Application, *, host: str = "127.0.0.1", port: int = 0, listens: bool = True) -> None:
        self.connections = 0
        """Connections accepted so far."""
        self.resets_all = False
        """Whether new connections are reset before any read."""
        from aiohttp import web

        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, logger=_log(), shutdown_timeout=_SHUTDOWN
        )
        self._address = (host, port)
        self._listens = listens
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Scheme, host and port. Only valid after `start`."""
        assert self._socket is not None, "the server has not been started"
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}"

    async def start(self) -> None:
        """Starts to listen.

        Raises:
            OSError: The port is taken.
        """
        await self._runner.setup()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(self._address)
            # If a bound socket does not listen, the kernel refuses connections, and no other process can use the port.
            if self._listens:
                loop = asyncio.get_running_loop()
                self._server = await loop.create_server(self._accept, sock=self._socket, backlog=SHARED.backlog)
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stops listening and closes every connection."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()
        if self._socket is not None:
            self._socket.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self.stop()

    def _accept(self) -> asyncio.BaseProtocol:
        self.connections += 1
        handlers = self._runner.server
        return _Reset() if handlers is None or self.resets_all else handlers()


def _log() -> logging.Logger:
    """Returns a logger for aiohttp that drops invalid requests and disconnects: aiohttp logs a traceback for each."""
    logger = logging.getLogger(__name__)
    logger.addFilter(_is_ours)
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    """Returns whether a log record is not about a client's fault."""
    from aiohttp.http_exceptions import HttpProcessingError
    from aiohttp.web import RequestPayloadError

    faults = HttpProcessingError | RequestPayloadError | ConnectionError
    return not (record.exc_info and isinstance(record.exc_info[1], faults))


async def read_body(request: web.Request) -> bytes:
    """Reads a request's body.

    Raises:
        HTTPException: The body cannot be read (400), does not arrive in time (408), or is too large (413).
    """
    from aiohttp import web

    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except web.RequestPayloadError:
        raise web.HTTPBadRequest from None


class _Reset(asyncio.Protocol):
    """Resets its connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        _reset(transport)


def cut(request: web.BaseRequest) -> None:
    """Closes a request's connection after the written bytes, so that a chunked response lacks its last HTTP chunk."""
    if request.transport is not None:
        request.transport.close()


async def reset(request: web.BaseRequest) -> None:
    """Resets a request's connection (a real RST)."""
    await asyncio.sleep(_SEND_TIME)
    if request.transport is not None:
        _reset(request.transport)


def _reset(transport: asyncio.BaseTransport) -> None:
    # l_onoff = 1, l_linger = 0: closing sends RST instead of FIN.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    cast("asyncio.Transport", transport).abort()


class _HasURL(Protocol):
    @property
    def url(self) -> str: ...


async def run_until_signal(server: AbstractAsyncContextManager[_HasURL], ready: Callable[[str], None]) -> None:
    """Runs a server until SIGINT or SIGTERM.

    Args:
        server: The server, as a context manager that this function enters and exits.
        ready: Called with the server's URL, once it listens.

    Raises:
        OSError: The port is taken.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with server as running:
        ready(running.url)
        await stopped.wait()
