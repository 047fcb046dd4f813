"""The running server: the application, the fast lane in front of it, sockets, start and shutdown.

Owns the order of start and shutdown. Decides nothing about a request.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple, cast

from aiohttp import web

from gai_fast.config.environment import activated_sockets
from gai_fast.ledger import Homes
from gai_fast.model.settings import Settings
from gai_fast.net.identity.token_source import Fetch
from gai_fast.net.stream.guarding import Built
from gai_fast.server.application import add_routes
from gai_fast.server.drain import drain
from gai_fast.server.edge.certificate import Certificate, certificate_of
from gai_fast.server.edge.connections import OpenConnections, abort_slowest
from gai_fast.server.edge.entrance import Entrance, Layer, connection_limits
from gai_fast.server.edge.listening import (
    Listener,
    OpenAddress,
    SocketListener,
    is_on_loopback,
    is_open,
    listen,
    server_url,
)
from gai_fast.server.edge.proxied import ProxiedConnection, Refusals
from gai_fast.server.edge.tls import ClientHandshakes, TLSConnection, plain_http
from gai_fast.server.extension import can_bypass, extend, load
from gai_fast.server.http.replies import Reply
from gai_fast.server.lanes.handler import ClientTimeouts, HandlerFactory
from gai_fast.server.lanes.lane import FastLane
from gai_fast.server.limits import LIMITS
from gai_fast.server.reload import Reload, Reloaded, audit_signal
from gai_fast.server.routes.router import Mount
from gai_fast.server.routes.table import HOT_PATHS
from gai_fast.server.service import Service, new_service
from gai_fast.stores.backend import Backend

logger = logging.getLogger("gai_fast.server")


async def serve(
    settings: Settings,
    *,
    ready: Callable[[str], None],
    load_settings: Callable[[], Settings],
    record: Path | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM, then drains (`drain.py`); a second signal ends the drain at once.

    The first signal may arrive during the start. SIGHUP reloads the configuration (`reload.py`), unless the process was
    started with SIGHUP ignored (nohup); during the start the reload waits for its end. The caller may have blocked
    SIGHUP. If the third signal is SIGINT, it interrupts a shutdown blocked by user code.

    Args:
        settings: The configuration.
        ready: Called once with the server's URL (`BoundAddresses.url`) when the server accepts requests.
        load_settings: As `load` for `Reload`.
        record: As for `start`.

    Raises:
        CannotListen: The address cannot be bound.
        CertificateError: The certificate cannot be used.
        OpenAddress: Other machines could reach a server without keys.
        StoreError: The store cannot be used.
    """
    stop, hurry, stale = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    bound = bind(settings)
    reload = Reload(settings, load_settings, is_open=bound.is_open, certificate=bound.certificate)
    starting = loop.create_task(start(settings, record, bound))

    def on_stop_signal() -> None:
        if not stop.is_set():
            stop.set()
            starting.cancel()
            return
        hurry.set()
        loop.remove_signal_handler(signal.SIGINT)

    reloads: set[asyncio.Task[None]] = set()

    async def renew() -> Reloaded:
        return await reload.beside(starting.result().renew)

    async def renew_by_signal() -> None:
        audit_signal(await renew())

    def on_sighup() -> None:
        if starting.done():
            task = loop.create_task(renew_by_signal())
            reloads.add(task)
            task.add_done_callback(reloads.discard)
        else:
            stale.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_stop_signal)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, on_sighup)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))
    try:
        running = await starting
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        return

    async def reload_now() -> Mapping[str, Any]:
        return (await renew()).report

    running.service.admin.reload = reload_now
    if stale.is_set():
        await renew_by_signal()
    try:
        ready(running.url)
        await stop.wait()
        await running.drain(settings.server.grace, hurry)
    finally:
        for task in reloads:
            task.cancel()
        await running.close()


class BoundAddresses(NamedTuple):
    """The addresses of a server.

    Attributes:
        sockets: The listening sockets.
        path: The path of a unix socket, which is removed at the end; None if there is none.
        certificate: The certificate for clients; None for a server without TLS.
        url: The URL, or `unix:` and a path.
        on_loopback: The result of `listening.is_on_loopback`.
        is_open: The result of `listening.is_open`.
    """

    sockets: Sequence[socket.socket]
    path: str | None
    certificate: Certificate | None
    url: str
    on_loopback: bool
    is_open: bool


def bind(settings: Settings) -> BoundAddresses:
    """Takes over or creates the listening sockets.

    Args:
        settings: The configuration.

    Raises:
        CannotListen: As `listen`.
        CertificateError: The certificate cannot be used.
        OpenAddress: Other machines can reach the inherited socket, and `insecure` does not allow that.
    """
    server = settings.server
    certificate = certificate_of(server)
    if certificate is not None:
        certificate.warn()
    sockets = listen(server, settings.stream.write_timeout, activated_sockets(os.getpid()))
    url = server_url(server, sockets[0])
    open_ = is_open(sockets)
    if server.fd is not None and open_ and not server.insecure and not settings.needs_key:
        for each in sockets:
            each.close()
        what = f"the socket of `fd` ({url}) is open to other machines, and there are no keys"
        raise OpenAddress(f"{what}: add a [[key]], or allow that by `insecure = true` in [server]")
    path = server.uds if server.fd is None else None
    return BoundAddresses(sockets, path, certificate, url, is_on_loopback(sockets), open_)


class RunningServer:
    """A running server; created by `start`.

    Args:
        service: The routes and streams.
        runner: aiohttp's application, set up.
        servers: The servers that hold the connections.
        entrance: Creates the protocol of each new connection.
        listener: The source of the connections.
        url: The URL, as `BoundAddresses.url`.

    Attributes:
        service: The routes and streams.
        engine: The engine of the streams.
        url: The URL, as `BoundAddresses.url`.
        connections: The open connections, by kind.
    """

    def __init__(
        self,
        service: Service,
        runner: web.AppRunner,
        servers: Sequence[FastLane | HandlerFactory],
        entrance: Entrance,
        listener: Listener,
        url: str,
    ) -> None:
        self.engine = service.engine
        self.url = url
        self.connections = [each.connections for each in servers]
        self.service = service
        self._entrance = entrance
        self._runner = runner
        self._servers = servers
        self._listener = listener

    @property
    def unanswered(self) -> int:
        """The number of open connections; if there are none, the number of running streams."""
        return sum(map(len, self.connections)) or len(self.engine.streams)

    def begin_drain(self) -> None:
        """Answers `/readyz` with 503, and closes each connection after its current requests."""
        self.service.operations.is_draining = True
        self.service.sockets.begin_drain()
        self.service.admin.begin_drain()
        self.service.operations.probes.begin_drain()
        self.engine.begin_drain()
        for each in self._servers:
            each.begin_drain()

    def use(self, settings: Settings, built: Built = ()) -> None:
        """Applies another configuration to new requests.

        Args:
            settings: The configuration, with unchanged `[server]` and, but for its keys, `[store]`.
            built: As for `Engine.use`.

        Raises:
            SetupError: A guard or a tool cannot be used: nothing changes.
        """
        self.service.use(settings, built)
        self._entrance.use(settings.limits)

    async def renew(self, settings: Settings) -> None:
        """Applies another configuration as `use`, and builds its guards before, while requests are served."""
        self.use(settings, await self.engine.build_guards(settings))

    async def drain(self, grace: float, hurry: asyncio.Event) -> None:
        """Waits until all clients have been answered; see `drain.drain`. `close` must follow."""
        await drain(self, self._listener, grace=grace, hurry=hurry)

    async def close(self) -> None:
        """Stops the server: accepts no more, and ends all streams and connections within `limits.closing` seconds."""
        self._listener.close()
        loop = asyncio.get_running_loop()
        until = loop.time() + LIMITS.closing
        self.engine.disconnect_clients(loop.time() + LIMITS.final_frame)
        while True:
            is_settled = not self.engine.durable.followers and not self.engine.store.is_taking_over
            if is_settled or loop.time() >= until:
                break
            await asyncio.sleep(LIMITS.drain_check)
        await self.engine.let_go()
        streams = self.service.close()
        others = [close_connections(each, until) for each in (*self.connections[:-1], self._entrance.refused)]
        ended = await asyncio.gather(streams, *others, self._close_general(until), return_exceptions=True)
        for problem in ended:
            if problem is not None:
                raise problem

    async def _close_general(self, until: float) -> None:
        try:
            await self._runner.cleanup()  # runs the user's `on_cleanup` signals, which may raise
        finally:
            await close_connections(self.connections[-1], until)


async def close_connections(connections: OpenConnections, until: float) -> None:
    """Closes connections; aborts those whose clients have not read their last bytes by `until`.

    Args:
        connections: The connections.
        until: The deadline, in seconds of the loop's clock.
    """
    connections.close()
    try:
        async with asyncio.timeout_at(until):
            await connections.emptied.wait()
    except TimeoutError:
        connections.abort()
        await connections.emptied.wait()


async def start(
    settings: Settings,
    record: Path | None = None,
    bound: BoundAddresses | None = None,
    listener: Listener | None = None,
    memory: Backend | None = None,
    limits: Homes | None = None,
    fetch: Fetch | None = None,
) -> RunningServer:
    """Starts a server on the running loop.

    Args:
        settings: The configuration.
        record: The existing folder to which every upstream response is recorded; None to record nothing.
        bound: The addresses; None to bind them here.
        listener: The source of the connections; None for the sockets of `bound`.
        memory: As for `Engine`.
        limits: As `memory` of `ledger.new_ledger`.
        fetch: As for `Engine`.

    Raises:
        CannotListen: The address cannot be bound.
        CertificateError: As `bind`.
        OpenAddress: As `bind`.
        FunctionError: `app` of `[server]` names no function.
        StoreError: The store cannot be used.
    """
    bound = bind(settings) if bound is None else bound
    listener = SocketListener(bound.sockets, bound.path) if listener is None else listener
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        extension = None if settings.server.app is None else load(settings.server.app)
        mount = Mount(on_loopback=bound.on_loopback)
        service = new_service(settings, mount, memory, limits, fetch)
        stack.push_async_callback(service.close)
        await service.begin()
        service.engine.upstreams.record = record
        app = web.Application()
        if extension is not None:
            await extend(app, extension)  # first, so that the user's routes take precedence over ours
        has_lane = settings.server.fast_lane == "auto" and can_bypass(app, HOT_PATHS)
        service.operations.fast_lane = has_lane
        add_routes(app, settings.server, mount).service = service
        # aiohttp waits this long twice: for handlers to end, and for the handlers that it has cancelled.
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=LIMITS.closing / 2)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        general = _handlers(runner, service, settings)
        servers: list[FastLane | HandlerFactory] = [general]
        if has_lane:
            servers.insert(0, _lane(service, settings, general))
        connections = [each.connections for each in servers]
        service.watch_memory(lambda size: abort_slowest(connections, size))
        entrance = _entrance(service, settings, servers, bound.certificate)
        await listener.start(entrance)
        stack.pop_all()
    return RunningServer(service, runner, servers, entrance, listener, bound.url)


def _entrance(
    service: Service,
    settings: Settings,
    servers: Sequence[FastLane | HandlerFactory],
    certificate: Certificate | None,
) -> Entrance:
    def refuse(remote: str) -> Reply:
        return service.router.refuse_unreadable(remote, service.server_limits.no_place())

    protocols = cast("Callable[[], asyncio.Protocol]", servers[0])  # a compiled class has no base
    connections, workers = [each.connections for each in servers], settings.server.workers
    places = connection_limits(settings.limits.connections, workers)
    layers = _layers(service, settings, certificate)
    return Entrance(protocols, connections, places, refuse, service.engine.timers, layers, service.forwarding, workers)


def _layers(service: Service, settings: Settings, certificate: Certificate | None) -> list[Layer]:
    """Returns the layers in front of the protocol of each connection."""
    layers: list[Layer] = []
    if certificate is not None:

        def refuse_plain(remote: str) -> bytes:
            return service.router.refuse_unreadable(remote, plain_http()).to_bytes(keep_alive=False)

        handshakes = ClientHandshakes(refuse_plain)

        def encrypted(protocol: asyncio.Protocol) -> asyncio.Protocol:
            return cast("asyncio.Protocol", TLSConnection(certificate.for_connection(), protocol, handshakes))

        layers.append(encrypted)
    if settings.server.proxy_protocol:
        forwarding, refusals = service.forwarding, Refusals()
        layers.append(lambda protocol: ProxiedConnection(forwarding, protocol, refusals))
    return layers


def _handlers(runner: web.AppRunner, service: Service, settings: Settings) -> HandlerFactory:
    given, write = settings.server, settings.stream.write_timeout
    times = ClientTimeouts(header=given.header_timeout, write=write, idle=given.keep_alive)
    server = cast("web.Server", runner.server)
    return HandlerFactory(server, service.engine.timers, times, service.router.refuse_unreadable)


def _lane(service: Service, settings: Settings, general: HandlerFactory) -> FastLane:
    return FastLane(
        service.router,
        HOT_PATHS,
        general,
        timers=service.engine.timers,
        loop=asyncio.get_running_loop(),
        keep_alive=settings.server.keep_alive,
        header_timeout=settings.server.header_timeout,
        body_timeout=settings.server.body_timeout,
        write_timeout=settings.stream.write_timeout,
        max_body=settings.server.max_body,
        server_limits=service.server_limits,
    )
