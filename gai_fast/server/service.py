"""The service: an engine with all that a server keeps beside it, from keys and limits to figures and routes.

Owns the order in which the parts begin and end, and what a reload changes. Knows no HTTP server: `application.py` puts
it behind aiohttp, `serving.py` behind the fast lane too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterator
from functools import partial
from itertools import islice

from gai_fast.ledger import Homes, new_ledger, new_server_ledger
from gai_fast.library.own_models import call_function
from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS, KeySettings, Settings
from gai_fast.net.engine.engine import Engine
from gai_fast.net.identity.token_source import Fetch
from gai_fast.net.stream.guarding import Built
from gai_fast.providers import get_provider
from gai_fast.server.admin.routes import AdminRoutes
from gai_fast.server.admission.admit import Admission
from gai_fast.server.admission.auth_throttle import AuthThrottle
from gai_fast.server.admission.forwarding import Forwarding
from gai_fast.server.admission.loop_lag import LoopLag
from gai_fast.server.admission.memory import FreeMemory, MemoryWatch, watch_memory
from gai_fast.server.admission.reads import Reads
from gai_fast.server.admission.run_time_keys import RunTimeKeys
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.admission.token_callers import TokenCallers
from gai_fast.server.limits import LIMITS
from gai_fast.server.observe.access_log import AccessLog
from gai_fast.server.observe.audit import audit_stop
from gai_fast.server.observe.call_log import log_call
from gai_fast.server.observe.counts import CostLabels
from gai_fast.server.observe.metrics import PrometheusSink, engine_gauges
from gai_fast.server.observe.process import process_figures
from gai_fast.server.observe.spend import RunningSpend, SpendSink
from gai_fast.server.pass_through.routes import PassThroughRoutes
from gai_fast.server.requests.kinds.stream_routes import StreamRoutes
from gai_fast.server.routes.approvals import ApprovalRoutes
from gai_fast.server.routes.operations import OperationRoutes
from gai_fast.server.routes.router import Mount, Router
from gai_fast.server.routes.table import HOT_PATHS, PATHS, ROUTES, Handlers
from gai_fast.server.websocket.handshake import WebSocketRoutes
from gai_fast.stores.backend import Backend
from gai_fast.stores.stored_keys import REVOKED


class Service:
    """The routes over one engine, on one loop.

    Args:
        engine: Starts the streams.
        metrics: Counts requests and streams.
        server_limits: The limits of streams and requests in the server.
        mount: Where the application is mounted; None to find out per request, by its socket and its path.

    Attributes:
        router: The routes.
        engine: The engine.
        metrics: Counts requests and streams.
        server_limits: The limits of streams and requests in the server.
        forwarding: The trusted proxies, whose forwarding headers name the client.
        auth_throttle: Counts wrong keys.
        streams: The handlers of streams.
        operations: The handlers of operations.
        sockets: The handlers of WebSockets.
        admin: The handlers of the admin API.
        keys: The keys of the store.
        pass_through: The handlers of the pass-through.
    """

    def __init__(
        self, engine: Engine, metrics: PrometheusSink, server_limits: ServerLimits, mount: Mount | None
    ) -> None:
        settings = engine.settings
        self.engine = engine
        self.metrics = metrics
        self.server_limits = server_limits
        self._spend = SpendSink(engine.ledger)
        self._running_spend: RunningSpend | None = None
        if engine.ledger.outlives_worker:
            self._running_spend = RunningSpend(asyncio.get_running_loop(), engine.streams, self._spend)
        self.keys = RunTimeKeys(engine.store.keys, settings)
        self.keys.changed = self._keys_changed
        self.keys.revoked = self._revoked
        engine.takeovers.key_home = self.keys.home_of
        engine.ledger.use(_limited(settings), settings.prices.currency)
        self._access_log = AccessLog(engine.streams)
        engine.sinks += [metrics, self._spend, self._access_log]
        self._memory: MemoryWatch | None = None
        engine.upstreams.note_wait = metrics.pool_wait.observe
        engine.guarding.tallies.note_delay = metrics.note_guard_delay
        engine.guarding.tallies.audit = audit_stop
        engine.runs.note_seconds = metrics.note_tool_duration
        engine.runs.note_steps = metrics.run_steps.observe
        engine.runs.log = log_call
        self._loop_lag = LoopLag(asyncio.get_running_loop(), metrics.loop_lag.observe)
        self.streams = StreamRoutes(engine)
        self.operations = OperationRoutes(settings, metrics, engine.store, engine.ledger, ROUTES)
        self.sockets = WebSocketRoutes(engine, self.streams, server_limits)
        self.admin = AdminRoutes(engine, metrics, self.operations.scrapes, self.keys)
        engine.sinks.append(self.admin.recent)
        self.admin.last_hour.begin(asyncio.get_running_loop())
        self.pass_through = PassThroughRoutes(engine)
        self.approvals = ApprovalRoutes(engine)
        handlers = Handlers(self.streams, self.operations, self.sockets, self.admin, self.pass_through, self.approvals)
        self.forwarding = Forwarding(settings.server.forwarded_allow_ips)
        self.auth_throttle = AuthThrottle()
        self._tokens = TokenCallers(self.auth_throttle)
        self.router = Router(
            self._admission(settings),
            handlers,
            metrics,
            mount or Mount(on_loopback=True),
            forwarding=self.forwarding,
            reads=Reads(engine.ledger, server_limits.refused),
        )
        self.router.limits_of = self.streams.quotas.headers
        self.router.telemetry = engine.telemetry
        self.router.scheme = settings.server.scheme
        self.router.access_log = self._access_log
        self.admin.audit = self.router.audit_begun
        self.router.recent = self.admin.recent
        self.router.login = self.operations.login
        self.sockets.router = self.router

    def use(self, settings: Settings, built: Built = ()) -> None:
        """Applies another configuration to new requests; running streams keep theirs.

        Args:
            settings: The configuration, with unchanged `[server]` and `[store]`.
            built: As for `Engine.use`.

        Raises:
            SetupError: A guard or a tool cannot be used: nothing changes.
        """
        self.engine.use(settings, built)
        self.metrics.use(settings.models)
        _expect_models(self.metrics, settings)
        self.server_limits.use(settings.limits)
        if self._memory is not None:
            self._memory.use(settings.limits)
        self.streams.use(settings)
        self.operations.use(settings)
        self.admin.use(settings)
        self.keys.use(settings)
        self._keys_changed()
        self.router.telemetry = self.engine.telemetry

    def _admission(self, settings: Settings) -> Admission:
        only_demo = all(get_provider(upstream.provider).recording for upstream in settings.upstreams.values())
        self._tokens.use(settings.issuers)
        return Admission(
            settings.server,
            settings.keys,
            paths=PATHS,
            only_demo=only_demo,
            forwarding=self.forwarding,
            auth_throttle=self.auth_throttle,
            tokens=self._tokens if settings.issuers else None,
            stored=self.keys.callers,
            takes_credentials=settings.takes_credentials,
        )

    def _keys_changed(self) -> None:
        """Lets other keys count for new requests."""
        settings = self.engine.settings
        self.engine.ledger.use([*_limited(settings), *self.keys.keys.values()], settings.prices.currency)
        self.router.use(self._admission(settings))

    def _revoked(self, names: Collection[str]) -> None:
        """Ends the streams of revoked keys."""
        error = Error("unauthorized", "the key of this request has been revoked", reason=REVOKED)
        self.engine.end_callers(names, REVOKED, error)

    async def begin(self) -> None:
        """Opens the engine, and reads the keys of the store and of issuers. Must be called before the first request.

        Raises:
            StoreError: The store cannot be used.
            SetupError: A guard or a tool cannot be used.
        """
        await self.engine.begin()
        await self.keys.open()
        await self._tokens.begin()

    def watch_memory(self, shed: FreeMemory) -> None:
        """Starts to watch the memory of the process.

        Args:
            shed: Called if it is not enough to start no more streams and to drop what sockets remember.
        """
        free = partial(_free, self.sockets, shed)
        self._memory = watch_memory(self.engine.settings.limits, self.server_limits, free, self.engine.timers)

    def close(self) -> Awaitable[None]:
        """Ends every stream, as `Engine.close`; the ends are counted, charged and logged like all others."""
        try:
            return self.engine.close()
        finally:
            self.detach()

    def detach(self) -> None:
        """Detaches the service from its engine, which keeps its streams."""
        self.admin.close()
        self._tokens.close()
        self.keys.close()
        self._loop_lag.close()
        if self._running_spend is not None:
            self._running_spend.close()
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
        if self.engine.limits is self.server_limits:
            self.engine.limits = None
        for sink in (self.metrics, self._spend, self._access_log, self.admin.recent):
            if sink in self.engine.sinks:
                self.engine.sinks.remove(sink)


def _free(sockets: WebSocketRoutes, shed: FreeMemory, size: int) -> int:
    """Frees memory: first what sockets remember, which costs no client its answer. Returns as `FreeMemory`."""
    return shed(max(0, size - sockets.forget(size)))


def new_service(
    settings: Settings,
    mount: Mount | None = None,
    memory: Backend | None = None,
    limits: Homes | None = None,
    fetch: Fetch | None = None,
) -> Service:
    """Creates a service with an engine of its own, on the running loop; the caller must close it.

    Args:
        settings: The configuration.
        mount: As for `Service`.
        memory: As for `Engine`.
        limits: As `memory` of `ledger.new_ledger`.
        fetch: As for `Engine`.
    """
    ledger = new_ledger(settings.store, limits)
    server_limits = _server_limits(settings, limits)
    engine = Engine(settings, asyncio.get_running_loop(), memory, ledger, server_limits, fetch)
    engine.upstreams.call_function = call_function
    return service_over(engine, server_limits, mount)


def service_over(engine: Engine, server_limits: ServerLimits, mount: Mount | None = None) -> Service:
    """Creates a service over an engine that it does not own; detach it in place of closing it.

    Args:
        engine: The engine.
        server_limits: The limits of the server.
        mount: As for `Service`.
    """
    settings = engine.settings
    engine.limits = server_limits
    metrics = PrometheusSink(settings.models, engine_gauges(engine, server_limits.refused), process_figures)
    _expect_models(metrics, settings)
    return Service(engine, metrics, server_limits, mount)


def _server_limits(settings: Settings, homes: Homes | None) -> ServerLimits:
    if homes is None:
        return ServerLimits(settings.limits)
    return ServerLimits(settings.limits, new_server_ledger(settings.store, homes), settings.server.workers)


def _limited(settings: Settings) -> list[KeySettings]:
    """Returns the holders of limits: the keys, and each issuer for its callers."""
    return [*settings.keys, *(issuer.rights for issuer in settings.issuers)]


def _expect_models(metrics: PrometheusSink, settings: Settings) -> None:
    models = islice(settings.models.values(), LIMITS.models_from_zero)
    for labels in islice(_cost_labels(settings), LIMITS.models_from_zero):
        metrics.add_cost(labels, 0)
    metrics.expect([(each.upstream.provider.partition(":")[0], each.name) for each in models], sorted(HOT_PATHS))


def _cost_labels(settings: Settings) -> Iterator[CostLabels]:
    """Yields the labels of the expected costs."""
    keys = [each.name for each in _limited(settings)] or [ANONYMOUS]
    for model in settings.models.values():
        price = settings.price(model)
        if price is not None:
            for key in keys:
                yield key, model.name, model.upstream.provider.partition(":")[0], price.currency
