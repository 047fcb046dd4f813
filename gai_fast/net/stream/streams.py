"""Starts streams: from a spec to a session with an open upstream.

Owns the pools, the timers and the running streams of this process. Knows no HTTP server: the server, the command line
and the library all use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random, randrange
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast

from msgspec import UNSET

from gai_fast.core.prompt_prefix import beginning
from gai_fast.ledger import Ledger, LocalLedger
from gai_fast.model.errors import Error
from gai_fast.model.limits import LIMITS
from gai_fast.model.metrics import MetricsSink, Outcome, StreamMetrics, Tallies
from gai_fast.model.request import Request
from gai_fast.model.settings import ANONYMOUS, ModelSettings, Secret, Settings, StreamSettings, UpstreamSettings
from gai_fast.model.upstream_errors import for_client
from gai_fast.net.attempts.attempt import Translate
from gai_fast.net.attempts.balance import Balancer, Place, TargetCondition, Visit, as_target, place_of
from gai_fast.net.attempts.error_redaction import ForClient
from gai_fast.net.attempts.key_ring import KeyRing
from gai_fast.net.attempts.recording import RecordedExchange, secrets_of
from gai_fast.net.attempts.recording_player import ReplayExchange, load_recording
from gai_fast.net.attempts.retry import Breaker, RetryPolicy
from gai_fast.net.attempts.spec import LIBRARY, Clock, StreamSpec
from gai_fast.net.logs.delivery import Client
from gai_fast.net.logs.follower import Follower
from gai_fast.net.logs.publication import Numbered, Publication
from gai_fast.net.logs.view import View
from gai_fast.net.logs.whole_follower import WholeFollower
from gai_fast.net.sharing.answers import Answers
from gai_fast.net.sharing.remainder import Nobody
from gai_fast.net.stream.metrics_sinks import tell_sinks
from gai_fast.net.stream.session import EngineCallbacks, Session
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.net.upstream.pool import UpstreamPool, close_all, close_together, open_all
from gai_fast.net.upstream.proxy import Proxy
from gai_fast.net.upstream.sockets import no_descriptors
from gai_fast.net.upstream.tls import TLSFileError, TLSFiles
from gai_fast.otel.trace import Target as TracedTarget
from gai_fast.processors import Chain, StreamInfo, describe, make_chain, read_processor
from gai_fast.providers import API, Adapter, Target, TokenCount, UpstreamRequest, get_provider
from gai_fast.runtime.timers import Timer, TimerWheel
from gai_fast.stores import LogHeader, Store, StreamLog, open_store
from gai_fast.stores.backend import Backend
from gai_fast.stores.mirror import IsGone

if TYPE_CHECKING:
    from gai_fast.otel.telemetry import Telemetry

logger = logging.getLogger("gai_fast.engine")

_UNSET: Final = UNSET  # a constant, because to look a name up costs 30 ns
_LOGGED_FIELDS: Final = 20
_LOGGED_CHARACTERS: Final = 100


class Pool(Protocol):
    """The part of `UpstreamPool` that the engine uses."""

    def open(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, receiver: Receiver
    ) -> OpenExchange:
        """Starts a request."""

    def keep_ready(self) -> None:
        """Makes connections for requests to come, as many as the upstream is configured to have."""


class StreamGuards(Protocol):
    """Decides whether a stream may start."""

    def check(self, streams: int, of_caller: int) -> None:
        """Raises an `Error` where there are too many streams already, in all or of the caller."""


class Engine(EngineCallbacks):
    """The streams of one process, on one loop.

    Args:
        settings: The configuration.
        loop: The running loop.
        memory: As for `stores.open_store`.
        ledger: What keys use of their limits, and what they spend; the engine's from now on. `None`: one of its own.
    """

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        memory: Backend | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.settings = settings
        self.streams: dict[str, Session] = {}
        """The sessions that have not ended for their clients, by stream id."""
        self.active: dict[str, int] = {"sse": 0, "ndjson": 0, "ws": 0, "json": 0}
        """The number of sessions in `streams`, by transport: a scrape must not walk them all."""
        self.callers: dict[str, int] = {}
        """The number of sessions in `streams`, by the caller that they belong to."""
        self.guards: StreamGuards | None = None
        """Asked before a stream starts, where the server has limits."""
        self.timers = TimerWheel(loop)
        self.store = open_store(settings.store, self.timers, claim_ttl=settings.idempotency.ttl, memory=memory)
        """The logs of durable streams."""
        self.store.cancel_here = self._cancel_here
        self.ledger: Ledger = LocalLedger() if ledger is None else ledger
        """Counts the use of keys' limits, and their spend."""
        self.answers: Answers | None = None
        """The answers that streams share; made for the first stream that asks for one."""
        self._memory = memory
        self._is_gone: IsGone | None = None
        self._loop = loop
        self._pools: dict[_PoolKey, UpstreamPool] = {}
        self._pool_of: dict[str, tuple[UpstreamSettings, UpstreamPool]] = {}  # by upstream: the last one asked for
        self._breakers: dict[str, Breaker] = {}
        self._breaker_looks: dict[str, Timer] = {}  # by upstream: the next attempt to connect to it
        self._key_rings: dict[str, KeyRing] = {}
        self._use_upstreams(_upstreams(settings), {})
        self._chance = Random()  # spreads requests
        self._balancers = {name: Balancer(each, self._chance) for name, each in settings.models.items() if each.targets}
        self._alone: dict[str, ModelSettings] = {}  # models without targets that are taken out, as `as_target` has them
        self._silent_until: dict[str, float] = {}  # by upstream: the time of the next warning
        self._publications: dict[str, Publication] = {}
        self.followers: set[Follower] = set()
        """The clients of durable streams."""
        self._drains = 0
        self._endings: set[asyncio.Task[None]] = set()  # of telemetry that was replaced
        self._looks: set[asyncio.Task[float]] = set()  # for followers in other processes
        self.policy = RetryPolicy()
        """Decides on failed attempts of all streams."""
        self._processors = [read_processor(entry) for entry in settings.processors]
        self.record: Path | None = None
        """The folder that every upstream's response is recorded in; `None`: nothing is recorded."""
        self.telemetry = _telemetry(settings)
        """Traces requests and streams; `None`: nothing is exported."""
        self.sinks: list[MetricsSink] = []
        """Receive the figures of every stream at its end."""
        self.tallies = Tallies()
        """Counts of this process beside those figures."""
        self._keep_ready()

    def begin(self) -> Awaitable[None]:
        """Opens the store and the ledger, by awaiting the result: before the first stream.

        Raises:
            StoreError: One of them cannot be used.
        """
        return open_all([self.store, self.ledger])

    def chain(
        self, request: Request, stream_id: str, request_id: str, trace_id: str | None = None, model: str = ""
    ) -> Chain | None:
        """Makes the processors of a stream.

        Args:
            request: The request.
            stream_id: As for `processors.describe`, as the next three.
            request_id: The request's id.
            trace_id: The trace's id.
            model: The model it asks for.

        Raises:
            Error: A processor cannot serve this request.
        """
        if not self._processors and request.json_snapshots is _UNSET:
            return None
        described = describe(request, stream_id=stream_id, request_id=request_id, trace_id=trace_id, model=model)
        return make_chain(self._processors, described)

    def is_processed(self, *, wants_json: bool) -> bool:
        """Whether a stream gets processors of the configuration, so that its bytes cannot be passed through unread."""
        if not self._processors:
            return False
        stream = StreamInfo(wants_json=wants_json)
        return any(each.processor(stream) is not None for each in self._processors)

    def breaker(self, upstream: UpstreamSettings) -> Breaker | None:
        """Returns the upstream's breaker, where it has one by the configuration of now."""
        return self._breakers.get(upstream.name)

    def breaker_states(self) -> dict[str, str]:
        """Returns the states of the breakers by upstream."""
        now = self._loop.time()
        return {name: breaker.state(now) for name, breaker in self._breakers.items()}

    # -- targets --

    def place(
        self, model: ModelSettings, request: Request | dict[str, Any], without: Container[Place]
    ) -> ModelSettings | None:
        """Chooses a target of a model; as `AttemptRunner.place`."""
        balancer = self._balancers.get(model.name)
        if balancer is None:  # a configuration without these targets has been loaded meanwhile
            return None
        began = beginning(request) if balancer.uses_beginning else ""
        return balancer.choose(began, self._loop.time(), self._upstream_wait, without)

    def placed(self, model: ModelSettings, request: Request | dict[str, Any]) -> ModelSettings:
        """Returns the model with the target for a new request, before its spec is made.

        Args:
            model: The model that the request asks for.
            request: As for `StreamSpec`.

        Returns:
            The model itself where it has no targets. Where none is ready, the one that will be soonest: the attempt
            decides what happens then.
        """
        if not model.targets:
            return self._alone.get(model.name, model) if self._alone else model
        placed = self.place(model, request, ())
        if placed is None and model.name in self._balancers:
            placed = self._balancers[model.name].soonest(self._loop.time(), self._upstream_wait)
        return placed or model

    def visit(self, model: ModelSettings, now: float) -> Visit | None:
        """Begins a request at a target; as `AttemptRunner.visit`."""
        balancer = self._balancers.get(model.name)
        return None if balancer is None else balancer.begin(model, now)

    def is_premature(self, model: ModelSettings, now: float) -> bool:
        """Returns whether a request should wait before it is sent to a target; as `Balancer.is_premature`."""
        balancer = self._balancers.get(model.name)
        return balancer is not None and balancer.is_premature(model, now, self._upstream_wait)

    def target_wait(self, model: ModelSettings, *, any_target: bool) -> float:
        """Returns the seconds until the model's target, or any of its targets, is ready; 0: now."""
        balancer = self._balancers.get(model.name)
        if balancer is None:
            return 0.0
        now = self._loop.time()
        if any_target:
            return balancer.wait(now, self._upstream_wait)
        target = balancer.targets.get(place_of(model))
        return 0.0 if target is None else target.wait(now, self._upstream_wait(model.upstream))

    def targets(self) -> list[tuple[str, Place, TargetCondition, int]]:
        """Returns every target: its model, its upstream and id, its condition, and its live streams.

        A model without targets has one all the same, its upstream.
        """
        now = self._loop.time()
        live = Counter((each.spec.model.name, place_of(each.spec.model)) for each in self.streams.values())
        found: list[tuple[str, Place, TargetCondition, int]] = []
        for name, model in self.settings.models.items():
            streams = live[name, place_of(model)]
            if name in self._alone:
                found.append((name, place_of(model), "draining" if streams else "drained", streams))
            elif not model.targets:
                found.append((name, place_of(model), self._upstream_condition(model.upstream) or "ready", streams))
            else:
                found += [
                    (name, place, target.condition(now, self._upstream_condition(target.model.upstream)), target.live)
                    for place, target in self._balancers[name].targets.items()
                ]
        return found

    def _upstream_condition(self, upstream: UpstreamSettings) -> Literal["open", "cooling"] | None:
        """Why nothing is sent to it now; `None`: it is."""
        if self._breaker_wait(upstream) > 0:
            return "open"
        return "cooling" if self._upstream_wait(upstream) > 0 else None

    def drain_target(self, model: str, upstream: str, identifier: str) -> bool:
        """Takes a target out: its streams go on, and no other begins; returns whether there is such a target."""
        place = (upstream, identifier)
        alone = self.settings.models.get(model)
        if model not in self._balancers and alone is not None and place_of(alone) == place:
            self._alone[model] = as_target(alone)
            self._balancers[model] = Balancer(self._alone[model], self._chance)
        balancer = self._balancers.get(model)
        return balancer is not None and balancer.drain(place)

    def restore_target(self, model: str, upstream: str, identifier: str) -> bool:
        """Takes a target back in; returns whether there is such a target."""
        place = (upstream, identifier)
        configured = self.settings.models.get(model)
        if configured is not None and not configured.targets:
            is_there = place_of(configured) == place
            if is_there and model in self._alone:
                del self._alone[model], self._balancers[model]
            return is_there
        balancer = self._balancers.get(model)
        return balancer is not None and balancer.restore(place, self._loop.time())

    def key_ring(self, upstream: UpstreamSettings) -> KeyRing:
        """Returns the keys of an upstream that has several: where it is a former configuration's, those of that one."""
        ring = self._key_rings.get(upstream.name)
        return ring if ring is not None and ring.upstream == upstream else KeyRing(upstream)

    def _upstream_wait(self, upstream: UpstreamSettings) -> float:
        """Seconds until its breaker admits a request and one of its keys can be used; 0: now."""
        ring = self._key_rings.get(upstream.name)
        breaker = self._breaker_wait(upstream)
        return breaker if ring is None else max(breaker, ring.wait(self._loop.time()))

    def _breaker_wait(self, upstream: UpstreamSettings) -> float:
        breaker = self._breakers.get(upstream.name)
        return 0.0 if breaker is None else breaker.wait(self._loop.time())

    def connections(self) -> dict[str, int]:
        """Returns the number of open connections by upstream."""
        counts = dict.fromkeys(_upstreams(self.settings), 0)
        for key, pool in self._pools.items():
            counts[key[0]] = counts.get(key[0], 0) + pool.stats.open
        return counts

    def use(self, settings: Settings) -> None:
        """Starts streams by another configuration from now on; those that run keep theirs, and their connections.

        Args:
            settings: With `[store]` as before.
        """
        old, self.settings = self.settings, settings
        self.store.use(settings.idempotency.ttl)
        if self.answers is not None:
            self.answers.use(settings.cache)
        if settings.otel != old.otel:
            self._replace_telemetry(settings)
        self._processors = [read_processor(entry) for entry in settings.processors]
        upstreams, formers = _upstreams(settings), _upstreams(old)
        wanted = {_pool_key(each) for each in upstreams.values()}
        for key, pool in list(self._pools.items()):
            pool.keep_idle(key in wanted)
            stats = pool.stats
            if key not in wanted and not (stats.open or stats.connecting or stats.pending):
                del self._pools[key]
                pool.close_empty()
        self._pool_of.clear()
        self._use_upstreams(upstreams, formers)
        self._use_targets(settings)
        self._keep_ready()

    def _use_upstreams(
        self, upstreams: Mapping[str, UpstreamSettings], formers: Mapping[str, UpstreamSettings]
    ) -> None:
        """Takes over upstreams; breakers and keys that stay keep their state.

        They are made here and not for the first request: that of an older stream would bring former ones back.
        """
        breakers, rings = self._breakers, self._key_rings
        self._breakers, self._key_rings = {}, {}
        for name, new in upstreams.items():
            former = formers.get(name)
            if new.breaker is not None:
                is_same = former is not None and (new.breaker, new.base_url) == (former.breaker, former.base_url)
                self._breakers[name] = breakers[name] if is_same else Breaker(new.breaker)
            if new.more_api_keys:
                ring = self._key_rings[name] = rings.get(name) or KeyRing(new)
                ring.use(new)

    def _use_targets(self, settings: Settings) -> None:
        now = self._loop.time()
        balancers: dict[str, Balancer] = {}
        alone: dict[str, ModelSettings] = {}
        for name, configured in settings.models.items():
            model, former = configured, self._balancers.get(name)
            if not model.targets and former is not None and former.is_drained(place_of(model)):
                model = alone[name] = as_target(model)
            if model.targets:
                balancer = balancers[name] = former or Balancer(model, self._chance)
                balancer.use(model, now)
        self._balancers, self._alone = balancers, alone

    def _replace_telemetry(self, settings: Settings) -> None:
        former, self.telemetry = self.telemetry, _telemetry(settings)
        if former is not None:
            ending = self._loop.create_task(former.close())
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)

    def _keep_ready(self) -> None:
        """Makes the connections that upstreams are to have before anybody asks."""
        for upstream in _upstreams(self.settings).values():
            with contextlib.suppress(Error):  # a file that has just been replaced: requests fail until it can be used
                _tls_context(upstream)  # reading the authorities takes 20 ms, which no stream should wait for
                if upstream.min_idle:
                    self._pool(upstream).keep_ready()

    def start(self, spec: StreamSpec, client: Client, stream_id: str, clock: Clock) -> Session:
        """Starts a stream.

        Args:
            spec: The first attempt.
            client: The response.
            stream_id: The stream's id, never used before.
            clock: Shared with the spec's output.

        Raises:
            Error: The request cannot be made of this upstream; nothing was sent.
        """
        caller = spec.caller
        if spec.trace is None and self.telemetry is not None and spec.transport == LIBRARY:
            spec.trace = self.telemetry.begin(None, None, route=None)
            spec.trace_id = spec.trace.trace_id
        try:
            of_caller = self.callers.get(caller, 0)
            if self.guards is not None:
                self.guards.check(len(self.streams), of_caller)
            session = Session(self, spec, client, stream_id=stream_id, clock=clock, loop=self._loop)
            self.streams[stream_id] = session
            self.active[spec.transport] = self.active.get(spec.transport, 0) + 1
            self.callers[caller] = of_caller + 1
        except Error as error:
            self._refused(spec, stream_id, error)
            raise
        return session

    def read_on(self, spec: StreamSpec, stream_id: str, clock: Clock) -> None:
        """Starts a stream that is for its figures alone: it has no client, and counts as none.

        Args:
            spec: The first attempt.
            stream_id: As for `start`.
            clock: As for `start`.

        Raises:
            Error: As `start`.
        """
        Session(self, spec, Nobody(), stream_id=stream_id, clock=clock, loop=self._loop)

    # -- durable streams --

    def publish(self, spec: StreamSpec, clock: Clock) -> Publication:
        """Starts a durable stream, which nobody follows yet.

        Args:
            spec: The first attempt; it has a log header, and its output is an encoder.
            clock: As for `start`.

        Raises:
            Error: As `start`; or there is no room for another log.
        """
        header = cast("LogHeader", spec.log_header)
        stream_id = header.stream_id
        log = self.store.create(header)
        publication = Publication(self, log, cast("Numbered", spec.output), spec.model.stream)
        try:
            self._publications[stream_id] = publication
            publication.begin(self.start(spec, publication, stream_id, clock))
        except Exception as problem:  # whatever it is: a log without an end would count as running for ever
            publication.refused(
                problem if isinstance(problem, Error) else Error("internal", "the gateway failed to start this stream")
            )
            raise
        finally:
            if stream_id not in self.streams:
                self._publications.pop(stream_id, None)
        return publication

    def publication(self, stream_id: str) -> Publication | None:
        """Returns a durable stream that runs in this process; `None`: there is none of this id."""
        return self._publications.get(stream_id)

    def follow(
        self,
        log: StreamLog,
        client: Client,
        view: View,
        after: int,
        stream: StreamSettings,
        *,
        is_first: bool = False,
        is_answer: bool = False,
    ) -> Follower:
        """Makes a follower of a durable stream; its response must be given it before `begin` is called.

        Args:
            log: The stream's log.
            client: The follower's response.
            view: What it is sent.
            after: The number of the last event that the client has.
            stream: The settings of the response.
            is_first: The client has started the stream.
            is_answer: The client's request asks for the stream, as the first one or again.
        """
        publication = self.publication(log.header.stream_id)
        return Follower(
            log,
            client,
            view,
            after,
            stream,
            publication,
            is_first=is_first,
            is_answer=is_answer,
            home=self.followers,
            timers=self.timers,
            loop=self._loop,
        )

    def look_elsewhere(self, log: StreamLog, found: Callable[[float], None]) -> None:
        """Finds out when a stream was followed in another process last; as `PublicationRunner.look_elsewhere`."""
        self.look_in(self.store, log, found)

    def look_in(self, store: Store, log: StreamLog, found: Callable[[float], None]) -> None:
        """As `look_elsewhere`, for a log of any store."""
        if not store.is_shared:
            found(math.inf)
            return

        look = self._loop.create_task(store.followed_ago(log))
        self._looks.add(look)
        look.add_done_callback(partial(self._looked, log, found))

    def _looked(self, log: StreamLog, found: Callable[[float], None], look: asyncio.Task[float]) -> None:
        self._looks.discard(look)
        if look.cancelled():
            return
        bug = look.exception()
        if bug is not None:  # a stream that nobody ends would go on for ever
            logger.error("stream %s: its followers are not known: a bug", log.header.stream_id, exc_info=bug)
        found(math.inf if bug is not None else look.result())

    def await_answer(self, log: StreamLog, client: Client, *, is_first: bool) -> WholeFollower:
        """Makes the follower of a durable answer that is one JSON object; as `follow`.

        Args:
            log: The answer's log.
            client: The follower's response.
            is_first: The client has started the stream.
        """
        return WholeFollower(log, client, self._publications.get(log.header.stream_id), is_first=is_first)

    def know_workers(self, is_gone: IsGone) -> None:
        """As `Store.know_workers`, for every store of the engine."""
        self._is_gone = is_gone
        self.store.know_workers(is_gone)

    def shared_answers(self, now_ms: Callable[[], int]) -> Answers | None:
        """Returns the answers that streams share; `None` where none are (`[cache] ttl` is 0).

        Args:
            now_ms: Milliseconds since the epoch.
        """
        settings = self.settings
        if not settings.cache.ttl:
            return None
        if self.answers is None:
            self.answers = Answers(
                self, settings.cache, settings.store, self._loop, now_ms, self._memory, self._is_gone
            )
        return self.answers

    def may_drain(self) -> bool:
        """Whether one more stream may go on without a follower until its end; if so, it is counted."""
        may = self._drains < self.settings.limits.drains
        self._drains += may
        return may

    def drained(self) -> None:
        """One of them has ended, or is followed again."""
        self._drains -= 1

    # -- one stream --

    def cancel(self, stream_id: str) -> None:
        """Cancels a stream that runs."""
        self.streams[stream_id].cancel()

    def _cancel_here(self, stream_id: str) -> None:
        session = self.streams.get(stream_id)  # it may have ended meanwhile
        if session is not None:
            session.cancel()

    def open(
        self, spec: StreamSpec, receiver: Receiver, stream_id: str, number: int, key: Secret | None
    ) -> tuple[Adapter, Translate, OpenExchange]:
        """Sends a request to the upstream of a spec.

        Args:
            spec: One attempt.
            receiver: Gets the response.
            stream_id: The stream's id.
            number: The number of the attempt, from 1.
            key: The upstream's key.

        Returns:
            The reader of the answer, the translation of its errors for clients, and the request under way.

        Raises:
            Error: It cannot be asked for this; nothing was sent. `internal` where the adapter failed for a bug, which
                is logged.
        """
        try:
            secret = None if key is None else key.reveal()
            if spec.sharing is None:
                return self._open(spec, receiver, stream_id, number, secret)
            return spec.sharing.open(spec, receiver, lambda call: self._open(spec, call, stream_id, number, secret))
        except Error:
            raise
        except Exception as problem:
            lack = no_descriptors(problem) if isinstance(problem, OSError) else None
            if lack is not None:
                raise lack  # noqa: B904  # it has its cause; see "Compiled modules" in docs/architecture.md
            logger.error("stream %s: its request cannot be built: a bug", stream_id, exc_info=problem)
        name = spec.model.upstream.name
        raise Error("internal", f"the gateway failed to build the request for upstream {name!r}", reason="request")

    def _open(
        self, spec: StreamSpec, receiver: Receiver, stream_id: str, number: int, key: str | None
    ) -> tuple[Adapter, Translate, OpenExchange]:
        upstream = spec.model.upstream
        api = get_provider(upstream.provider)
        target = Target(spec.model.id, key, spec.model.stream.on_unsupported)
        for path in spec.left_out:
            api.leave_out(path, target)
        adapter: Adapter | None = None
        if isinstance(spec.request, dict):
            if spec.counts:
                adapter = TokenCount(api, spec.model.id)
                request = api.build_count(spec.request, target, spec.headers)
            else:
                request = api.build_passthrough(spec.request, target, spec.headers)
        else:
            request = api.build_request(spec.request, target)
        if target.dropped:
            _log_dropped(stream_id, upstream, target.dropped)
        adapter = adapter or api.adapter(spec.model.id)
        translate = ForClient(upstream.name, (upstream,), api.dialect == spec.dialect)
        if spec.trace is not None:
            asked = self._traced(api, spec.model)
            request.headers = [*request.headers, *spec.trace.attempted(asked, spec.request)]
        if self.record is None:
            exchange = self._send(api, upstream, request, receiver)
        else:
            name = stream_id if number == 1 else f"{stream_id}.{number}"
            recorded = self._recorded(self.record / f"{name}.ndjson", spec, stream_id, receiver, key)
            exchange = recorded.open(lambda receiver: self._send(api, upstream, request, receiver))
        return adapter, translate, exchange

    def _traced(self, api: API, model: ModelSettings) -> TracedTarget:
        return TracedTarget(
            operation=api.operation,
            provider=api.telemetry_name or api.provider,
            model=model.id,
            is_known=model.name in self.settings.models,
            upstream=model.upstream.name,
            base_url=model.upstream.base_url,
        )

    def _recorded(
        self, file: Path, spec: StreamSpec, stream_id: str, receiver: Receiver, key: str | None
    ) -> RecordedExchange:
        upstream = spec.model.upstream
        about = {
            "provider": upstream.provider,
            "model": spec.model.id,
            "upstream": upstream.name,
            "stream_id": stream_id,
        }
        return RecordedExchange(file, about, receiver, self._loop.time, secrets_of(key, upstream.headers))

    def _send(self, api: API, upstream: UpstreamSettings, request: UpstreamRequest, receiver: Receiver) -> OpenExchange:
        if api.recording:
            return ReplayExchange(load_recording(api.recording), receiver, self._loop)
        headers = request.headers
        if upstream.headers:
            own = {name.lower() for name in upstream.headers}
            headers = [item for item in headers if item[0].lower() not in own]
            headers += upstream.headers.items()
        return self._pool(upstream).open(request.method, request.path, headers, request.body, receiver)

    def _pool(self, upstream: UpstreamSettings) -> Pool:
        last = self._pool_of.get(upstream.name)
        if last is not None and last[0] is upstream:
            return last[1]
        key = _pool_key(upstream)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = UpstreamPool(
                upstream.base_url,
                timers=self.timers,
                connect_timeout=upstream.connect_timeout,
                idle_timeout=upstream.idle_timeout,
                total_timeout=upstream.total_timeout,
                max_connections=upstream.max_connections,
                min_idle=upstream.min_idle,
                proxy=Proxy.parse(upstream.proxy.reveal()) if upstream.proxy is not None else None,
                ssl_context=_tls_context(upstream),
                loop=self._loop,
            )
        self._pool_of[upstream.name] = upstream, pool
        return pool

    def attempt_failed(self, upstream: UpstreamSettings, error: Error) -> None:
        """Warns of failures that only the operator can mend, also where a fallback hides them from clients."""
        shown = for_client(error, upstream.name, keep_details=True)
        now = self._loop.time()
        if shown is not error and now >= self._silent_until.get(upstream.name, now):
            self._silent_until[upstream.name] = now + LIMITS.warning_interval
            logger.warning("%s", shown)

    def breaker_opened(self, upstream: UpstreamSettings, error: Error) -> None:
        """Warns that nothing is sent to an upstream for a while."""
        seconds = upstream.breaker.open if upstream.breaker is not None else 0.0
        why = f"{error.code}, {error.reason}" if error.reason else error.code
        logger.warning("upstream %r keeps failing (%s): nothing is sent to it for %g s", upstream.name, why, seconds)
        pool, breaker = self._pool_of.get(upstream.name), self._breakers.get(upstream.name)
        if error.phase == "connect" and error.reason == "connect" and pool is not None and breaker is not None:
            self._look_later(upstream.name, breaker, pool[1], pool[1].stats.opened)

    def _look_later(self, upstream: str, breaker: Breaker, pool: UpstreamPool, opened: int) -> None:
        former = self._breaker_looks.get(upstream)
        if former is not None:
            former.cancel()
        due, look = self.timers.clock() + LIMITS.breaker_look, partial(self._look_at, upstream, breaker, pool, opened)
        self._breaker_looks[upstream] = self.timers.schedule(due, look)

    def _look_at(self, upstream: str, breaker: Breaker, pool: UpstreamPool, opened: int) -> None:
        """Ends the wait of an open breaker once its upstream can be connected to, which costs no token.

        Args:
            upstream: The upstream's name.
            breaker: The breaker, which opened because no connection could be made.
            pool: The connections to the upstream.
            opened: How many there had been in all when the breaker opened.
        """
        del self._breaker_looks[upstream]
        now = self._loop.time()
        if self._breakers.get(upstream) is not breaker or breaker.state(now) != "open":
            return
        stats = pool.stats
        if stats.opened > opened and stats.idle:  # one that lasts: a proxy may accept what it cannot pass on
            breaker.end_wait(now)
        elif stats.connecting or pool.connect_ahead():
            self._look_later(upstream, breaker, pool, opened)

    def broke(self, session: Session, fault: Exception) -> None:
        """Logs the bug that ended a stream, with its traceback."""
        logger.error("stream %s failed: a bug of the gateway", session.stream_id, exc_info=fault)

    def ended(self, session: Session, outcome: Outcome) -> asyncio.Future[None] | None:
        """Forgets a stream that has ended, and hands out its figures; as `EngineCallbacks.ended`."""
        if self.streams.pop(session.stream_id, None) is not None:
            self.active[session.transport] -= 1
            self.callers[session.caller] -= 1
        if self._publications:
            self._publications.pop(session.stream_id, None)
        sharing = session.spec.sharing
        try:
            session.metrics = metrics = session.measured(outcome)
            told = metrics if sharing is None else sharing.ended(session.spec, metrics, session.earlier_charges)
        except Exception:
            self.ledger.settle(session.stream_id, 0)  # a bug: else its key would have one stream less for ever
            raise
        if told is not None:
            self._tell(told)
        trace = session.spec.trace
        if trace is not None:
            tell_sinks([trace], metrics)
        return None if session.caller == ANONYMOUS else self.ledger.reported(session.caller)

    def _tell(self, metrics: StreamMetrics) -> None:
        """Gives the figures of a stream to the ledger, which counts for keys alone, and to the sinks."""
        if metrics.key != ANONYMOUS:
            tell_sinks([self.ledger], metrics)
        tell_sinks(self.sinks, metrics)

    def _refused(self, spec: StreamSpec, stream_id: str, error: Error) -> None:
        """Gives the sinks the figures of a stream that never began."""
        upstream = spec.model.upstream
        metrics = StreamMetrics(
            duration=0.0,
            outcome="refused",
            code=error.code,
            provider=upstream.provider.partition(":")[0],
            upstream=upstream.name,
            model=spec.model.name,
            endpoint=spec.endpoint,
            transport=spec.transport,
            stream_id=stream_id,
            request_id=spec.request_id,
            trace_id=spec.trace_id,
            key=spec.caller,
        )
        self._tell(metrics)

    def part(self, until: float) -> None:
        """Ends clients' plain streams with an error, and cuts off followers of durable ones, who may come back.

        Those of a program in this process go on: it may have an open gateway behind a server that ends.

        Args:
            until: Seconds of the loop's clock: the time that followers have to get a last frame.
        """
        for session in list(self.streams.values()):
            if session.stream_id not in self._publications and session.spec.transport != LIBRARY:
                session.fail(_stopped())
        for follower in tuple(self.followers):
            follower.part(LIMITS.parting_retry_ms + randrange(LIMITS.parting_retry_spread_ms), until)

    def close(self) -> Awaitable[None]:
        """Ends every stream with an error; awaiting the result also closes every upstream connection and the store."""
        for session in list(self.streams.values()):
            session.fail(_stopped())
        for look in self._breaker_looks.values():
            look.cancel()
        answers = [] if self.answers is None else [self.answers]
        closing = close_all([*self._pools.values(), self.ledger, *answers, self.store])
        return closing if self.telemetry is None else close_together(closing, self.telemetry.close())


def _telemetry(settings: Settings) -> Telemetry | None:
    if settings.otel is None:
        return None
    from gai_fast.otel.telemetry import Telemetry  # brings aiohttp's client, which programs seldom need

    return Telemetry(settings.otel)


def _stopped() -> Error:
    return Error("overloaded", "this server is being stopped", reason="draining")


def _upstreams(settings: Settings) -> dict[str, UpstreamSettings]:
    """The upstreams of a configuration by name, with those that only a model has."""
    return {**{model.upstream.name: model.upstream for model in settings.models.values()}, **settings.upstreams}


_PoolKey = tuple[str, str, float, float, float, int, int, str, TLSFiles, tuple[int, ...]]


def _pool_key(upstream: UpstreamSettings) -> _PoolKey:
    """The settings that a pool is made of: upstreams that differ in any of them share no connection."""
    return (
        upstream.name,
        upstream.base_url,
        upstream.connect_timeout,
        upstream.idle_timeout,
        upstream.total_timeout,
        upstream.max_connections,
        upstream.min_idle,
        upstream.proxy.reveal() if upstream.proxy is not None else "",
        _tls_files(upstream),
        _tls_files(upstream).version,
    )


def _tls_files(upstream: UpstreamSettings) -> TLSFiles:
    return TLSFiles(upstream.ca_file, upstream.client_cert, upstream.client_key)


def _tls_context(upstream: UpstreamSettings) -> ssl.SSLContext | None:
    """Returns the context of an upstream's connections; `None`: they have no TLS.

    Raises:
        Error: One of its files cannot be used any more.
    """
    if not upstream.base_url.startswith("https:"):
        return None
    try:
        return _tls_files(upstream).context()
    except TLSFileError as problem:
        text = f"the file that `{problem.key}` of upstream {upstream.name!r} names cannot be used any more"
        raise Error("network", text, reason="tls", phase="connect") from None


def _log_dropped(stream_id: str, upstream: UpstreamSettings, fields: Sequence[str]) -> None:
    # A path may hold text of the client: it is logged as a literal, so that it cannot end the line.
    paths = ", ".join(repr(path[:_LOGGED_CHARACTERS]) for path in fields[:_LOGGED_FIELDS])
    more = f" and {len(fields) - _LOGGED_FIELDS} more" if len(fields) > _LOGGED_FIELDS else ""
    logger.info("stream %s: upstream %s has no place for %s%s: left out", stream_id, upstream.name, paths, more)
