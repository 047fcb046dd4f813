"""The `aiohttp.web.Application` with every route: the server that `serve` runs, and a part of anybody's own.

Owns the way between aiohttp's requests and responses and the handlers: reading a body within its limits, `Expect`,
unknown paths. The guards, the routes and the errors are those of `routes.py`, as for the fast lane. Some requests are
answered here because aiohttp itself answers them differently: versions other than HTTP/1.0 and 1.1, any transfer coding
but `chunked`, heads that are too large.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.web_protocol import RequestPayloadError
from yarl import URL

from gai_fast.ledger import SharedHome, new_ledger
from gai_fast.model.addresses import is_local
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ANONYMOUS, ServerSettings, Settings
from gai_fast.net.stream.streams import Engine
from gai_fast.net.upstream.sockets import reset
from gai_fast.providers import get_provider
from gai_fast.runtime.ids import request_id
from gai_fast.server.admin.routes import AdminRoutes
from gai_fast.server.admission.admit import Admission, body_too_large
from gai_fast.server.admission.auth_throttle import Guesses
from gai_fast.server.admission.forwarding import Forwarding
from gai_fast.server.admission.loop_lag import LoopLag
from gai_fast.server.admission.memory import MemoryWatch, Shed, watch_memory
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.http.deadlines import body_due
from gai_fast.server.http.replies import Reply, id_headers
from gai_fast.server.http.request import HTTPRequest, headers_too_large
from gai_fast.server.http.transport import LEFT
from gai_fast.server.lanes.aiohttp_transport import AiohttpTransport, whole_response
from gai_fast.server.lanes.operations import OperationRoutes
from gai_fast.server.lanes.router import Mount, Router
from gai_fast.server.lanes.routes import HOT_PATHS, ROUTES, Handlers, Route
from gai_fast.server.limits import LIMITS
from gai_fast.server.observe.access_log import AccessLog
from gai_fast.server.observe.counts import CostLabels
from gai_fast.server.observe.metrics import PrometheusSink, engine_gauges
from gai_fast.server.observe.process import process_figures
from gai_fast.server.observe.spend import SpendSink
from gai_fast.server.requests.streams import StreamRoutes
from gai_fast.server.websocket.handshake import WebSocketRoutes
from gai_fast.stores.backend import Backend

_log: Final = logging.getLogger("gai_fast.server")


class _Unreadable(Exception):
    """A request that cannot be understood: the answer repeats nothing of it."""

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error


class Service:
    """The routes over one engine, on one loop.

    Args:
        engine: Starts the streams.
        metrics: Counts requests and streams.
        server_limits: What the server may take on.
        mount: Where the application is; `None`: each request tells by its socket, and by its path.

    Attributes:
        router: The routes.
        engine: The engine.
        metrics: Counts requests and streams.
        server_limits: What the server may take on.
        forwarding: The proxies that are believed whose request it is.
        guesses: Counts wrong keys.
        streams: The handlers of streams.
        operations: The handlers of operations.
        sockets: The handlers of WebSockets.
        admin: The handlers of the admin API.
    """

    def __init__(
        self, engine: Engine, metrics: PrometheusSink, server_limits: ServerLimits, mount: Mount | None
    ) -> None:
        settings = engine.settings
        self.engine = engine
        self.metrics = metrics
        self.server_limits = server_limits
        self._spend = SpendSink(engine.ledger)
        engine.ledger.use(settings.keys, settings.prices.currency)
        self._access_log = AccessLog(engine.streams)
        engine.sinks += [metrics, self._spend, self._access_log]
        self._memory: MemoryWatch | None = None
        self._loop_lag = LoopLag(asyncio.get_running_loop(), metrics.loop_lag.observe)
        self.streams = StreamRoutes(engine)
        self.operations = OperationRoutes(settings, metrics, engine.store, engine.ledger, ROUTES)
        self.sockets = WebSocketRoutes(engine, self.streams)
        self.admin = AdminRoutes(engine, metrics, self.operations.scrapes)
        handlers = Handlers(self.streams, self.operations, self.sockets, self.admin)
        self.forwarding = Forwarding(settings.server.forwarded_allow_ips)
        self.guesses = Guesses()
        self.router = Router(
            self._admission(settings), handlers, metrics, mount or Mount(on_loopback=True), forwarding=self.forwarding
        )
        self.router.limits_of = self.streams.quotas.headers
        self.router.telemetry = engine.telemetry
        self.router.scheme = settings.server.scheme
        self.router.access_log = self._access_log
        self.sockets.router = self.router

    def use(self, settings: Settings) -> None:
        """Answers the requests that come from now on by another configuration; streams that run keep theirs.

        Args:
            settings: With `[server]` and `[store]` as before.
        """
        self.engine.use(settings)
        self.metrics.use(settings.models)
        _expect_models(self.metrics, settings)
        self.server_limits.use(settings.limits)
        self.engine.ledger.use(settings.keys, settings.prices.currency)
        if self._memory is not None:
            self._memory.use(settings.limits)
        self.streams.use(settings)
        self.operations.use(settings)
        self.admin.use(settings)
        self.router.use(self._admission(settings))
        self.router.telemetry = self.engine.telemetry

    def _admission(self, settings: Settings) -> Admission:
        only_demo = all(get_provider(upstream.provider).recording for upstream in settings.upstreams.values())
        return Admission(
            settings.server, settings.keys, only_demo=only_demo, forwarding=self.forwarding, guesses=self.guesses
        )

    def watch_memory(self, shed: Shed) -> None:
        """Begins to watch the memory of the process.

        Args:
            shed: Called where it is not enough to begin no stream.
        """
        self._memory = watch_memory(self.engine.settings.limits, self.server_limits, shed, self.engine.timers)

    def close(self) -> Awaitable[None]:
        """Ends every stream; as `Engine.close`. The ends are counted, charged and logged as all others."""
        try:
            return self.engine.close()
        finally:
            self.leave()

    def leave(self) -> None:
        """Leaves the engine as it was before, with its streams."""
        self.admin.close()
        self._loop_lag.close()
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
        if self.engine.guards is self.server_limits:
            self.engine.guards = None
        for sink in (self.metrics, self._spend, self._access_log):
            if sink in self.engine.sinks:
                self.engine.sinks.remove(sink)


def new_service(
    settings: Settings, mount: Mount | None = None, memory: Backend | None = None, limits: SharedHome | None = None
) -> Service:
    """A service with an engine of its own, on the running loop; the caller closes it.

    Args:
        settings: The configuration.
        mount: As for `Service`.
        memory: As for `Engine`.
        limits: As `memory` of `ledger.new_ledger`.
    """
    ledger = new_ledger(settings.store, limits)
    return _service_over(Engine(settings, asyncio.get_running_loop(), memory, ledger), mount)


def _service_over(engine: Engine, mount: Mount | None = None) -> Service:
    settings = engine.settings
    server_limits = engine.guards = ServerLimits(settings.limits)
    metrics = PrometheusSink(settings.models, engine_gauges(engine, server_limits.refused), process_figures)
    _expect_models(metrics, settings)
    return Service(engine, metrics, server_limits, mount)


def _expect_models(metrics: PrometheusSink, settings: Settings) -> None:
    models = islice(settings.models.values(), LIMITS.models_from_zero)
    for labels in islice(_costs(settings), LIMITS.models_from_zero):
        metrics.add_cost(labels, 0)
    metrics.expect([(each.upstream.provider.partition(":")[0], each.name) for each in models], sorted(HOT_PATHS))


def _costs(settings: Settings) -> Iterator[CostLabels]:
    """The labels of the costs that are expected."""
    keys = [key.name for key in settings.keys] or [ANONYMOUS]
    for model in settings.models.values():
        price = settings.price(model)
        if price is not None:
            for key in keys:
                yield key, model.name, model.upstream.provider.partition(":")[0], price.currency


def build_application(settings: Settings, find_engine: Callable[[], Engine] | None = None) -> web.Application:
    """An application with every route, to be mounted in another one with `add_subapp` or to be run by any server.

    Requests need a key where there is a `[[key]]`. The `Host` rule of loopback addresses holds where the request's own
    socket has one. Of `[server]` only what guards a request applies: `allowed_hosts`, `cors_origins`,
    `allow_get_start`, `max_body` and `body_timeout`, and `websocket_compression`; `forwarded_allow_ips` for the
    client's address. Streams start with the application and end with its clean-up.

    Args:
        settings: The configuration.
        find_engine: Gives the engine of somebody else when the application starts, which goes on after its clean-up;
            by default it has an engine of its own.

    Example:
        ```python
        app = web.Application(middlewares=[mine])
        app.add_subapp("/ai", build_application(settings))
        web.run_app(app)
        ```
    """
    app = web.Application()
    adapter = add_routes(app, settings.server)

    async def run(app: web.Application) -> AsyncIterator[None]:
        engine = None if find_engine is None else find_engine()
        service = adapter.service = new_service(settings) if engine is None else _service_over(engine)
        try:
            if engine is None:
                await service.engine.begin()
            service.watch_memory(lambda _: 0)  # the connections are the outer application's
            yield
        finally:
            if engine is None:
                await service.close()
            else:
                service.leave()

    async def stop(app: web.Application) -> None:
        if hasattr(adapter, "service"):  # else it has not started
            adapter.service.sockets.begin_drain()
            adapter.service.admin.begin_drain()
            adapter.service.operations.probes.begin_drain()
            adapter.service.engine.part(0.0)

    app.cleanup_ctx.append(run)
    app.on_shutdown.append(stop)
    return app


def add_routes(app: web.Application, settings: ServerSettings, mount: Mount | None = None) -> Adapter:
    """Adds every route to an application.

    Args:
        app: The application, not started.
        settings: `[server]`.
        mount: Where the application is, where it is always the same place.

    Returns:
        The adapter; its `service` must be set before the first request.
    """
    adapter = Adapter(settings, mount)
    resources: dict[str, web.Resource] = {}
    for route in ROUTES:
        resource = resources.get(route.path)
        if resource is None:
            # Always one of our own: `add_resource` would reuse the last one that --app has added for the same path.
            if route.is_prefix:
                resource = web.DynamicResource(f"{route.path}{{tail:.*}}")
            else:
                resource = web.PlainResource(route.path)
            resources[route.path] = resource
            app.router.register_resource(resource)
        for method in _methods(route):
            resource.add_route(method, adapter.answer, expect_handler=_expect_nothing)
    for resource in resources.values():  # OPTIONS, and methods that the path does not take
        resource.add_route("*", adapter.answer, expect_handler=_expect_nothing)
    app.router.register_resource(adapter.anything)
    return adapter


def _methods(route: Route) -> tuple[str, ...]:
    return ("GET", "HEAD") if route.method == "GET" and route.whole else (route.method,)


async def _expect_nothing(request: web.Request) -> None:
    """In place of aiohttp's answer to `Expect`: the adapter looks at the head first."""


class Anything(web.AbstractResource):
    """Every path that no other resource has, so that its error is ours. Must be registered last.

    Args:
        handler: Answers.

    Attributes:
        prefix: The path that the application is mounted under, without its last slash.
    """

    def __init__(self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        super().__init__()
        self.prefix = ""
        self._route = web.ResourceRoute("*", handler, self, expect_handler=_expect_nothing)

    @property
    def canonical(self) -> str:
        """The path by which aiohttp finds the resource: that of the application."""
        return f"{self.prefix}/"

    def url_for(self, **kwargs: str) -> URL:
        """The root of the application."""
        return URL(self.canonical)

    def add_prefix(self, prefix: str) -> None:
        """Is called when the application is mounted."""
        self.prefix = prefix + self.prefix

    def get_info(self) -> Any:
        """For introspection."""
        return {"path": self.canonical}

    def raw_match(self, path: str) -> bool:
        """Whether `add_resource` may reuse this one."""
        return False

    async def resolve(self, request: web.Request) -> tuple[web.UrlMappingMatchInfo, set[str]]:
        """Matches."""
        return web.UrlMappingMatchInfo({}, self._route), set()

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        return iter((self._route,))


class Adapter:
    """Answers aiohttp's requests by the handlers.

    Args:
        settings: `[server]`.
        mount: Where the application is; `None`: it is mounted in another one, wherever that puts it.

    Attributes:
        service: The routes.
        anything: The resource of unknown paths.
    """

    service: Service

    def __init__(self, settings: ServerSettings, mount: Mount | None) -> None:
        self._settings = settings
        self._mount = mount
        self.anything = Anything(self.answer)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answers one request."""
        client = AiohttpTransport(request, self.service.engine.timers)
        try:
            http = _read_head(request, client)
        except _Unreadable as unreadable:
            return self._refuse(client, unreadable)
        mount = self._mount_of(request)
        try:
            reply = _to_the_root(http, mount) or await self._reply(request, http, mount)
        except _Unreadable as unreadable:
            return self._refuse(client, unreadable)
        except ConnectionError:  # of the client, amid its body: nobody is there to be answered
            return web.Response()
        except Exception as problem:  # noqa: BLE001  # a bug of ours, or a body that is not aiohttp's: one 500
            reply = self._failed(request, http, mount, problem)
        if reply is not None:
            client.send_instead(reply)
        status = LEFT
        try:
            response = await client.finish()
            status = client.status or LEFT
            return response
        except ConnectionError:
            return web.Response()
        except Exception as problem:  # noqa: BLE001  # of a signal or a writer that is not ours: one 500, never a hang
            internal = self._failed(request, http, mount, problem)
            status = internal.status
            return whole_response(internal)
        finally:
            self.service.router.ended(http, status)

    def _refuse(self, client: AiohttpTransport, unreadable: _Unreadable) -> web.Response:
        """The response to a request that cannot be understood."""
        return whole_response(self.service.router.refuse_unreadable(client.remote, unreadable.error))

    def _failed(self, request: web.Request, http: HTTPRequest, mount: Mount | None, problem: Exception) -> Reply:
        """Logs an unexpected exception; returns the reply in place of the answer."""
        _log.error("%s %r could not be answered", http.method, http.target.partition("?")[0], exc_info=problem)
        if request.writer.output_size and request.transport is not None:
            reset(request.transport)  # what has begun must not look complete
        return self.service.router.refusal(http, Error("internal", "The server failed to answer"), mount)

    async def _reply(self, request: web.Request, http: HTTPRequest, mount: Mount | None) -> Reply | None:
        """The reply; `None` where a stream has begun."""
        router = self.service.router
        try:
            refusal = self._refusal_of_head(request, http, mount)
            if refusal is not None:
                return refusal
            http.body = await self._read_body(request)
        except Error as error:
            return router.refusal(http, error, mount)
        http.began = time.monotonic()
        return router.handle(http, mount)

    def _refusal_of_head(self, request: web.Request, http: HTTPRequest, mount: Mount | None) -> Reply | None:
        """The refusal of a request whose body need not be read for that.

        Raises:
            Error: The reason, where the route has no say.
        """
        length = http.headers.get("content-length", "0")
        if len(length) > SHARED.max_body_digits or int(length) > self._settings.max_body:
            raise body_too_large(self._settings.max_body)
        expectation = http.headers.get("expect") if http.is_http_1_1 else None  # RFC 9110, 10.1.1
        if expectation is not None and expectation.lower() != "100-continue":
            raise Error("invalid_request", "only 100-continue can be expected", reason="expect", status=417)
        if expectation is None and request.content.is_eof():
            return None
        refusal = self.service.router.refuse(http, mount)
        if refusal is None and expectation is not None and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return refusal

    async def _read_body(self, request: web.Request) -> bytes:
        """All of the body.

        Raises:
            Error: Larger than `max_body` (413), or too late (408).
        """
        content = request.content
        if content.is_eof():
            body = content.read_nowait()
            if len(body) > self._settings.max_body:
                raise body_too_large(self._settings.max_body)
            # A middleware may have read it already; aiohttp has kept it then.
            return body if body or not request.body_exists else await request.read()
        loop, received = asyncio.get_running_loop(), bytearray()
        began = loop.time()
        try:
            async with asyncio.timeout_at(body_due(began, 0, began, self._settings.body_timeout)) as limit:
                while not content.at_eof():
                    received += await content.readany()
                    if len(received) > self._settings.max_body:
                        raise body_too_large(self._settings.max_body)
                    limit.reschedule(body_due(began, len(received), loop.time(), self._settings.body_timeout))
        except TimeoutError:
            late = "the body did not arrive in time"
            raise Error("timeout", late, reason="body_timeout", status=408) from None
        except RequestPayloadError:
            raise _Unreadable(_not_http()) from None
        return bytes(received)

    def _mount_of(self, request: web.Request) -> Mount | None:
        if self._mount is not None:
            return self._mount
        address = request.transport.get_extra_info("sockname") if request.transport is not None else None
        return Mount(address is not None and _is_local(address), self.anything.prefix)


_IN_QUERY: Final = "!$&'()*+,;=:@/?%"
"""The characters of a query beside letters, digits and `-._~` (RFC 3986, 3.4)."""


def _to_the_root(http: HTTPRequest, mount: Mount | None) -> Reply | None:
    """The way from the prefix to the root below it, whose page has relative addresses."""
    if mount is None or not mount.prefix or http.method != "GET":
        return None
    path, mark, query = http.target.partition("?")
    if path != mount.prefix:
        return None
    http.request_id = request_id(http.headers.get("x-request-id"))
    location = f"{mount.prefix}/{mark}{quote(query.encode('latin-1'), safe=_IN_QUERY)}"
    return Reply(308, headers=[("location", location), *id_headers(http.request_id)])


_is_local = lru_cache(SHARED.known_values)(is_local)


def _read_head(request: web.Request, client: AiohttpTransport) -> HTTPRequest:
    """A request of aiohttp as handlers know it.

    Raises:
        _Unreadable: It is no request that is understood here.
    """
    given = request.headers
    headers = {name.lower(): value for name, value in given.items()}
    values = "".join(headers.values())
    if len(headers) != len(given) or not values.isascii():
        headers = _joined(request.raw_headers)
        values = "".join(headers.values())
    size = len(values) + sum(map(len, headers)) + len(given) * LIMITS.header_overhead
    if size > LIMITS.request_head:
        raise _Unreadable(headers_too_large())
    version = request.version
    if version not in (HttpVersion10, HttpVersion11):
        text = "only HTTP/1.0 and HTTP/1.1 are spoken here"
        raise _Unreadable(Error("invalid_request", text, reason="http_version", status=505))
    if headers.get("transfer-encoding", "chunked").lower() != "chunked":
        raise _Unreadable(Error("invalid_request", "the only transfer coding accepted is chunked", reason="http"))
    target = request.raw_path
    if not target.isascii():
        target = target.encode("utf-8", "surrogateescape").decode("latin-1")
    is_http_1_1 = version == HttpVersion11
    http = HTTPRequest(
        client,
        request.method,
        target,
        headers,
        is_http_1_1=is_http_1_1,
        # Clients of HTTP/1.0 expect a header where a connection is kept.
        keep_alive=is_http_1_1 and request.keep_alive,
    )
    http.began = time.monotonic()
    return http


def _joined(raw_headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers some of which are repeated, or not ASCII."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw_headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _not_http() -> Error:
    return Error("invalid_request", "The request is not valid HTTP/1.1", reason="http")
