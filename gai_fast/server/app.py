"""The running server: its routes, its socket, its end.

Owns the order in which things start and stop. Decides nothing about a request.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from gai_fast.addresses import is_loopback
from gai_fast.limits import LIMITS
from gai_fast.net.engine import Engine
from gai_fast.providers import get_provider
from gai_fast.server.connection import Server
from gai_fast.server.listening import base_url, listen
from gai_fast.server.metrics import PrometheusSink, engine_gauges
from gai_fast.server.operations import OperationRoutes
from gai_fast.server.routes import Handlers, Mount, Router
from gai_fast.server.streams import StreamRoutes
from gai_fast.settings import Settings

logger = logging.getLogger("gai_fast.server")


def build_router(engine: Engine, metrics: PrometheusSink) -> Router:
    """The routes of a server."""
    settings = engine.settings
    only_demo = all(get_provider(upstream.provider).recording for upstream in settings.upstreams.values())
    handlers = Handlers(StreamRoutes(engine), OperationRoutes(settings, metrics))
    mount = Mount(on_loopback=is_loopback(settings.server.host))
    return Router(settings.server, handlers, metrics, mount, only_demo=only_demo)


async def serve(settings: Settings, *, ready: Callable[[str], None], record: Path | None = None) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        settings: The configuration.
        ready: Called once with the base URL, when the server takes requests.
        record: As for `start`.

    Raises:
        OSError: The address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    running = await start(settings, record)
    try:
        ready(running.url)
        await stop.wait()
    finally:
        await running.close()


class Running:
    """A server that takes requests. Made by `start`."""

    def __init__(self, engine: Engine, server: Server, listeners: Sequence[asyncio.Server], url: str) -> None:
        self.engine = engine
        self.url = url
        self._server = server
        self._listeners = listeners

    async def close(self) -> None:
        """Stops: no new connection, every stream and every connection ended."""
        for listener in self._listeners:
            listener.close()
        await self.engine.close()
        await close_connections(self._server)


async def close_connections(server: Server) -> None:
    """Ends every connection; clients that take their last bytes have `limits.closing` seconds."""
    server.close()
    try:
        async with asyncio.timeout(LIMITS.closing):
            await server.emptied.wait()
    except TimeoutError:
        server.abort()
        await server.emptied.wait()


async def start(settings: Settings, record: Path | None = None) -> Running:
    """Starts a server on the running loop.

    Args:
        settings: The configuration.
        record: The folder where every upstream's answer is written to; it must be there.

    Raises:
        OSError: The address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    engine = Engine(settings, loop)
    engine.record = record
    metrics = PrometheusSink(settings.models, engine_gauges(engine))
    engine.sinks.append(metrics)
    router = build_router(engine, metrics)
    server = Server(
        router.handle,
        router.refuse,
        router.ended,
        timers=engine.timers,
        loop=loop,
        header_timeout=settings.server.header_timeout,
        body_timeout=settings.server.body_timeout,
        write_timeout=settings.stream.write_timeout,
        max_body=settings.server.max_body,
    )
    sockets = listen(settings.server, settings.stream.write_timeout)
    protocols = cast("Callable[[], asyncio.Protocol]", server)  # by their methods: a compiled class has no base
    listeners = [await loop.create_server(protocols, sock=sock, backlog=LIMITS.backlog) for sock in sockets]
    return Running(engine, server, listeners, base_url(settings.server.host, sockets[0].getsockname()[1]))


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)


def tune_process() -> None:
    """For a process that does nothing but serve: keeps freed memory, and lets the garbage collector come seldom.

    What a stream leaves is freed without the collector, each of whose visits may look at all streams that are open:
    4,000 of them cost 7 % less CPU so.

    Reads and writes of a burst are 64 to 256 KiB each; mapping, clearing and unmapping their pages was 30 % of the CPU
    of a burst of 1,000 deltas. Only glibc has the call for that; other C libraries are left alone.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(LIMITS.collected_objects, *gc.get_threshold()[1:])
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LIMITS.heap_block)
        mallopt(_M_TRIM_THRESHOLD, LIMITS.heap_kept)
