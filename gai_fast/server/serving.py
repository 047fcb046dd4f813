"""The running server: the application, the fast lane in front of it, sockets, start and end.

Owns the order of start and stop. Decides nothing about a request.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

from aiohttp import web

from gai_fast.addresses import is_loopback
from gai_fast.limits import LIMITS
from gai_fast.net.engine import Engine
from gai_fast.server.application import Service, add_routes, new_service
from gai_fast.server.connections import OpenConnections
from gai_fast.server.extension import extend, load, may_be_passed_by
from gai_fast.server.handler import HandlerFactory, Times
from gai_fast.server.lane import FastLane
from gai_fast.server.listening import base_url, listen
from gai_fast.server.routes import HOT_PATHS, Mount
from gai_fast.settings import Settings

logger = logging.getLogger("gai_fast.server")


async def serve(settings: Settings, *, ready: Callable[[str], None], record: Path | None = None) -> None:
    """Serves until SIGINT, SIGTERM or SIGHUP; the last is heard unless the process was started with it ignored (nohup).

    Args:
        settings: The configuration.
        ready: Called once with the base URL, when the server takes requests.
        record: As for `start`.

    Raises:
        OSError: The address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, stop.set)
    running = await start(settings, record)
    try:
        ready(running.url)
        await stop.wait()
    finally:
        await running.close()


class Running:
    """A running server. Made by `start`.

    Attributes:
        engine: Its streams.
        url: Its base URL.
        connections: The open connections, by kind.
    """

    def __init__(
        self,
        engine: Engine,
        runner: web.AppRunner,
        connections: Sequence[OpenConnections],
        listeners: Sequence[asyncio.Server],
        url: str,
    ) -> None:
        self.engine = engine
        self.url = url
        self.connections = connections
        self._runner = runner
        self._listeners = listeners

    async def close(self) -> None:
        """Stops: no new connection, every stream and every connection ended."""
        for listener in self._listeners:
            listener.close()
        try:
            await self.engine.close()
            await self._runner.cleanup()  # runs the user's `on_cleanup` signals, which may raise
        finally:
            await asyncio.gather(*map(close_connections, self.connections))


async def close_connections(connections: OpenConnections) -> None:
    """Ends connections; clients that take their last bytes have `limits.closing` seconds."""
    connections.close()
    try:
        async with asyncio.timeout(LIMITS.closing):
            await connections.emptied.wait()
    except TimeoutError:
        connections.abort()
        await connections.emptied.wait()


async def start(settings: Settings, record: Path | None = None) -> Running:
    """Starts a server on the running loop.

    Args:
        settings: The configuration.
        record: The folder where every upstream's answer is written to; it must be there.

    Raises:
        OSError: The address cannot be bound.
        ExtensionError: `app` of `[server]` names no function.
    """
    extension = None if settings.server.app is None else load(settings.server.app)
    sockets = listen(settings.server, settings.stream.write_timeout)
    async with AsyncExitStack() as stack:
        for sock in sockets:
            stack.enter_context(sock)
        mount = Mount(on_loopback=is_loopback(settings.server.host))
        service = new_service(settings, mount)
        stack.push_async_callback(service.engine.close)
        service.engine.record = record
        app = web.Application()
        if extension is not None:
            await extend(app, extension)  # first: a route of the user's goes before ours
        has_lane = settings.server.fast_lane == "auto" and may_be_passed_by(app, HOT_PATHS)
        service.operations.fast_lane = has_lane
        add_routes(app, settings.server, mount).service = service
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=LIMITS.closing)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        general = _handlers(runner, service, settings)
        servers: list[FastLane | HandlerFactory] = [general]
        if has_lane:
            servers.insert(0, _lane(service, settings, general))
        loop = asyncio.get_running_loop()
        protocols = cast("Callable[[], asyncio.Protocol]", servers[0])  # a compiled class has no base
        listeners: list[asyncio.Server] = []
        for sock in sockets:
            listeners.append(await loop.create_server(protocols, sock=sock, backlog=LIMITS.backlog))
            stack.callback(listeners[-1].close)
        stack.pop_all()
    url = base_url(settings.server.host, sockets[0].getsockname()[1])
    return Running(service.engine, runner, [each.connections for each in servers], listeners, url)


def _handlers(runner: web.AppRunner, service: Service, settings: Settings) -> HandlerFactory:
    times = Times(header=settings.server.header_timeout, write=settings.stream.write_timeout)
    server = cast("web.Server", runner.server)
    return HandlerFactory(server, service.engine.timers, times, service.router.refuse_unreadable)


def _lane(service: Service, settings: Settings, general: HandlerFactory) -> FastLane:
    return FastLane(
        service.router,
        HOT_PATHS,
        general,
        timers=service.engine.timers,
        loop=asyncio.get_running_loop(),
        header_timeout=settings.server.header_timeout,
        body_timeout=settings.server.body_timeout,
        write_timeout=settings.stream.write_timeout,
        max_body=settings.server.max_body,
    )


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)


def tune_process() -> None:
    """Tunes a process that only serves: freed memory is kept, and the garbage collector runs seldom.

    Streams leave no cycles, so their memory is freed without the collector, while each of its runs may visit every open
    stream. With 4,000 of them that saves 7 % of the CPU.

    Reads and writes of a burst are 64 to 256 KiB each. Mapping, clearing and unmapping their pages took 30 % of the CPU
    of a burst of 1,000 deltas. Only glibc has a call for that; with other C libraries nothing changes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(LIMITS.collected_objects, *gc.get_threshold()[1:])
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LIMITS.heap_block)
        mallopt(_M_TRIM_THRESHOLD, LIMITS.heap_kept)
