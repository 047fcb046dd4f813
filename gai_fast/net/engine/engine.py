"""Starts streams: from a spec to a session with an open upstream.

Owns the running streams of this process, their figures and traces. `durable.py` has their logs and followers,
`targets.py` chooses the models' targets and sends the requests, `upstreams.py` has the connections. Must not know an
HTTP server: the server, the command line and the library all use it.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from msgspec import UNSET
from mypy_extensions import mypyc_attr

from gai_fast.core.requests.reading import estimated_tokens
from gai_fast.guards.active import Guards
from gai_fast.guards.input import LetThrough
from gai_fast.ledger import NO_DEMAND, Demand, Ledger, LocalLedger, Reservation
from gai_fast.model.errors import Error, ToolError
from gai_fast.model.events import Event
from gai_fast.model.metrics import MetricsSink, Outcome, StreamMetrics, Tallies
from gai_fast.model.request import Request
from gai_fast.model.settings import ANONYMOUS, Settings, UpstreamSettings, figure_label
from gai_fast.net.attempts.balance import TargetCondition, TargetKey, target_key
from gai_fast.net.attempts.spec import LIBRARY, Clock, StreamSpec
from gai_fast.net.engine.durable import DurableStreams
from gai_fast.net.engine.takeover import TakeOvers
from gai_fast.net.engine.targets import Targets
from gai_fast.net.engine.upstreams import Upstreams
from gai_fast.net.identity.token_source import Fetch
from gai_fast.net.logs.closing import closing_of
from gai_fast.net.logs.writer import Client
from gai_fast.net.runs.approvals.desk import ApprovalDesk
from gai_fast.net.runs.tallies import RunTallies
from gai_fast.net.runs.waiting import WaitingRuns
from gai_fast.net.sharing.answers import SharedAnswers
from gai_fast.net.sharing.remainder import NullClient
from gai_fast.net.stream.guarding import Built, StreamGuards
from gai_fast.net.stream.metrics_sinks import notify_sinks
from gai_fast.net.stream.session import EngineCallbacks, Session, lost_worker
from gai_fast.net.upstream.connection_pool import ConnectionShare, no_share
from gai_fast.net.upstream.pool import close_all, close_together, open_all
from gai_fast.otel.trace import Trace
from gai_fast.processors import Chain, ProcessorSettings, StreamInfo, describe, make_chain, read_processor
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import Seals, Store, StreamLog, open_store
from gai_fast.stores._base import EndsInstead
from gai_fast.stores.alive import IsGone
from gai_fast.stores.backend import CANCEL, DECIDED, DROP, Backend

if TYPE_CHECKING:
    from gai_fast.net.runs.offers import RunTools
    from gai_fast.otel.telemetry import Telemetry

logger = logging.getLogger("gai_fast.engine")

_UNSET: Final = UNSET  # a constant: a name look-up costs 30 ns


Fail = Callable[[Error], object]
"""Ends a request that is passed through with an error."""
PASS_THROUGH: Final = "pass_through"
"""The transport of the figures of such a request."""


class Count:
    """A mutable count: to replace a number in a dict costs 400 instructions."""

    def __init__(self) -> None:
        self.number = 0


@mypyc_attr(allow_interpreted_subclasses=True)
class StreamLimits(ABC):
    """The limits of a server, as the engine checks them.

    Args:
        ledger: The ledger of these limits, which the engine opens and closes. None if there is none.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger = ledger

    @abstractmethod
    def share(self, upstream: str, most: int) -> ConnectionShare | None:
        """Returns this process's share of the connections to an upstream; as `Shares`.

        Args:
            upstream: The name of the upstream.
            most: The most connections that all processes of the server may have.
        """

    @abstractmethod
    def must_ask(self, caller: str, running: int, of_caller: int) -> bool:
        """Returns whether a stream must be admitted by `admit` before it starts.

        Args:
            caller: The name of its caller.
            running: The number of streams in this process.
            of_caller: The number of its caller's streams in this process.
        """

    @abstractmethod
    def admit(
        self, stream_id: str, caller: str, running: int, of_caller: int
    ) -> Coroutine[object, object, None] | None:
        """Admits a stream, which starts next, or `ended` is called. Until then it counts as one.

        Args:
            stream_id: The stream's id.
            caller: As for `must_ask`.
            running: As for `must_ask`.
            of_caller: As for `must_ask`.

        Returns:
            A coroutine that waits for the ledger, and raises an `Error` if there are too many streams. None if the
            stream may start at once.

        Raises:
            Error: There is too little memory; or there are too many streams, and no ledger.
        """

    @abstractmethod
    def check(self, stream_id: str, caller: str, running: int, of_caller: int) -> None:
        """Checks whether a stream may start. One that was admitted may.

        Args:
            stream_id: The stream's id.
            caller: As for `must_ask`.
            running: As for `must_ask`.
            of_caller: As for `must_ask`.

        Raises:
            Error: There are too many streams, or there is too little memory.
        """

    @abstractmethod
    def has_room(self, running: int) -> bool:
        """Returns whether another stream may be admitted, by this process alone. Counts no refusal.

        Args:
            running: As for `must_ask`.
        """

    @abstractmethod
    def begin_upload(self, size: int, caller: str = "", counted: int = 0) -> None:
        """Counts bytes of a request that is not read yet; `end_upload` must follow.

        Args:
            size: The number of bytes that came since the last call.
            caller: The name of its caller; empty if it may have all bytes.
            counted: The bytes of this request that were counted before.

        Raises:
            Error: There are too many such bytes. These are not counted.
        """

    @abstractmethod
    def end_upload(self, size: int, caller: str = "") -> None:
        """Takes bytes that `begin_upload` has counted off the count.

        Args:
            size: All bytes of the request that were counted.
            caller: The caller that they were counted for.
        """

    @abstractmethod
    def ended(self, stream_id: str, caller: str) -> asyncio.Future[None] | None:
        """Counts a stream no more. Does nothing if it does not count.

        Args:
            stream_id: The stream's id.
            caller: As for `must_ask`.

        Returns:
            What the end of the stream must wait for; None if it is nothing.
        """


class Engine(EngineCallbacks):
    """The streams of one process, on one loop.

    Args:
        settings: The configuration.
        loop: The running loop.
        memory: As for `stores.open_store`.
        ledger: Counts the keys' use of their limits and their spend. The engine owns it. `None` if the engine makes
            one.
        limits: The limits of the server; None without a server.
        fetch: As for `Targets`.
        functions: Functions of the program that are tools.
    """

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        memory: Backend | None = None,
        ledger: Ledger | None = None,
        limits: StreamLimits | None = None,
        fetch: Fetch | None = None,
        functions: Sequence[Callable[..., object]] = (),
    ) -> None:
        self.streams: dict[str, Session] = {}
        """The sessions that are not over for their clients, by stream id."""
        self.transfers: dict[str, tuple[str, Fail]] = {}
        """The callers of requests that are passed through, and how these are ended, by stream id. Each counts as a
        stream."""
        # A scrape must not iterate over all streams.
        self._active = {name: Count() for name in ("sse", "ndjson", "ws", "json", PASS_THROUGH)}
        self._callers: dict[str, Count] = {}
        self.limits = limits
        """The limits of the server; None without a server."""
        self.timers = TimerWheel(loop)
        self._seals = Seals(settings.store.encryption)
        self.store = open_store(
            settings.store, self.timers, claim_ttl=settings.idempotency.ttl, memory=memory, seals=self._seals
        )
        """The logs of durable streams."""
        self.store.hear = self.hear
        self.store.stop_generation = self.leave_to_other
        self.store.closing_of = closing_of
        self.store.responses.use(settings.responses, has_credentials=settings.takes_credentials)
        self.ledger: Ledger = LocalLedger() if ledger is None else ledger
        """Counts the keys' use of their limits, and their spend."""
        self.ledger.name(self.store.worker)
        self.durable = DurableStreams(self.start, self.store, self.ledger, self.timers, loop, settings.limits.drains)
        """The durable streams of this process, and their followers."""
        self.answers: SharedAnswers | None = None
        """The answers that streams share. `None` until the first stream that shares an answer."""
        self._memory = memory
        self._is_gone: IsGone | None = None
        self._loop = loop
        self._endings: set[asyncio.Task[None]] = set()  # closing tasks of replaced telemetry, and changes of keys
        self._read_on: set[Session] = set()  # the streams of `read_on`
        self._processors = [read_processor(entry) for entry in settings.processors]
        self.guarding = StreamGuards(self.timers, loop)
        """The guards of new streams, from `begin` on."""
        self._guard: ProcessorSettings | None = None
        self.has_processors = bool(self._processors)
        """Whether the configuration has processors or guards for any stream."""
        self.telemetry = _telemetry(settings)
        """Traces requests and streams. None if nothing is exported."""
        self.sinks: list[MetricsSink] = []
        """Receive the figures of every stream when it ends."""
        self.tallies = Tallies()
        """Other counts of this process."""
        self.upstreams = Upstreams(self.timers, loop, no_share if limits is None else limits.share)
        """The connections."""
        self._functions = functions
        self.runs = RunTallies()
        """The counts of runs."""
        self.run_tools: RunTools | None = None
        """The gateway's tools. None if the configuration has none, and no run has come from another process."""
        self._use_tools(settings)
        self.targets = Targets(
            settings, self.upstreams, self.tallies, self.timers, loop, fetch
        )  # last: opens connections
        """Chooses and asks the models' targets."""
        self.takeovers = TakeOvers(self, self.targets, self.durable)
        """Goes on with streams whose workers are gone."""
        self.store.going_on, self.store.check_room = self.takeovers.going_on, self.takeovers.check_room
        self.store.closed = self.takeovers.closed
        self.store.told_of = self.takeovers.told_of
        takeovers = self.takeovers
        self.durable.record_of = takeovers.record_of if self.store.keeps_requests else takeovers.record_to_wait
        self.waiting = WaitingRuns(self.timers, self.runs, takeovers.waking, self._close_waiting)
        """The runs that wait for approvals alone."""

    @property
    def active(self) -> dict[str, int]:
        """The number of sessions in `streams` and of transfers, by transport."""
        return {name: count.number for name, count in self._active.items()}

    @property
    def callers(self) -> dict[str, int]:
        """The number of sessions in `streams` and of transfers, by caller."""
        return {name: count.number for name, count in self._callers.items()}

    def streams_of(self, caller: str) -> int:
        """Returns the number of a caller's sessions in `streams` and of its transfers."""
        count = self._callers.get(caller)
        return 0 if count is None else count.number

    @property
    def settings(self) -> Settings:
        """The configuration of new streams."""
        return self.targets.settings

    def begin(self) -> Awaitable[None]:
        """Returns an awaitable that builds the guards, and opens the store, the ledger and the limits.

        Await it before the first stream.

        Raises:
            StoreError: One of them cannot be used.
            GuardError: A guard cannot be used.
        """
        ledger = None if self.limits is None else self.limits.ledger
        limits = [] if ledger is None else [ledger.open]
        # Keys that are `required` are needed to start, also by a store in memory, which is not sealed.
        keys = [self._seals.load] if self.settings.store.encryption.required else []
        settings = self.settings
        guards = (
            [partial(self.guarding.begin, settings, partial(self._use_guards, settings))] if settings.guards else []
        )
        return open_all(*keys, *guards, self.store.open, self.ledger.open, *limits)

    def _use_tools(self, settings: Settings) -> None:
        """Uses the tools of a configuration for new runs.

        Raises:
            ToolError: One of them cannot be used; nothing changes.
        """
        try:
            if self.run_tools is not None:
                self.run_tools.use(settings)
            elif settings.tool_servers or settings.tools or self._functions:
                self._make_tools(settings)
        except ValueError as problem:
            raise ToolError(str(problem)) from None

    def _make_tools(self, settings: Settings) -> RunTools:
        from gai_fast.net.runs.offers import RunTools  # most gateways have no tools

        store = self.store
        self.run_tools = made = RunTools(
            settings, self.timers, self._loop, store.records, self.runs, self, self._functions, store.count_run
        )
        return made

    def tools_of_runs(self) -> RunTools:
        """Returns the tools for a run of another process. There may be none by now: then its calls fail, and it goes on
        with that, as behind a reload.
        """
        return self.run_tools or self._make_tools(self.settings)

    def build_guards(self, settings: Settings) -> Awaitable[Built]:
        """Returns an awaitable that builds what the guards of a configuration need, for `use`.

        Other work goes on meanwhile. It raises as `StreamGuards.build`.

        Args:
            settings: The configuration.
        """
        return self.guarding.prepare(settings)

    @property
    def guards(self) -> Guards | None:
        """The guards of new streams and their requests. None if the configuration has none."""
        return self.guarding.guards if self.has_processors else None  # `StreamGuards` is interpreted

    def _use_guards(self, settings: Settings, built: Built) -> None:
        was_guarding = self.guarding.guards is not None
        self.guarding.use(settings, built)
        if self.guarding.guards is not None or was_guarding:
            self.guard_by(None if self.guarding.guards is None else self.guarding)

    def guard_by(self, guard: ProcessorSettings | None) -> None:
        """Guards new streams. Running streams keep their guards.

        Args:
            guard: Makes the first processor of a stream. None if no stream is guarded.
        """
        self._guard = guard
        self.has_processors = guard is not None or bool(self._processors)

    def chain(
        self,
        request: Request,
        stream_id: str,
        request_id: str,
        trace_id: str | None = None,
        model: str = "",
        caller: str = ANONYMOUS,
        let: LetThrough | None = None,
    ) -> Chain | None:
        """Makes the processors of a stream. They live through every attempt.

        Args:
            request: The request.
            stream_id: As for `processors.describe`.
            request_id: The request's id.
            trace_id: The trace's id.
            model: The name of the model that the client asked for.
            caller: The name of the request's caller.
            let: What guards have let through of the request. None if they have found nothing.

        Raises:
            Error: A processor cannot serve this request.
        """
        if not self.has_processors and let is None and request.json_snapshots is _UNSET:
            return None
        described = describe(
            request,
            stream_id=stream_id,
            request_id=request_id,
            trace_id=trace_id,
            model=model,
            caller=caller,
            said=() if let is None else let.said,
            placeholders=None if let is None else let.placeholders,
        )
        guard = self._guard
        if guard is None and let is not None and let.placeholders is not None:
            guard = self.guarding  # the worker that is gone had guards: own words come back
        return make_chain(self._processors, described, guard)

    def make_chain(self, stream: StreamInfo) -> Chain | None:
        """Makes the processors of a stream whose request is not native.

        Args:
            stream: The stream.

        Raises:
            Error: A processor cannot serve this request.
        """
        if not self.has_processors and not stream.said and stream.placeholders is None:
            return None
        guard = self._guard
        if guard is None and stream.placeholders is not None:
            guard = self.guarding  # as in `chain`
        return make_chain(self._processors, stream, guard)

    def is_processed(self, *, wants_json: bool, model: str, caller: str, let: LetThrough | None = None) -> bool:
        """Returns whether the configuration has processors for a stream: its bytes cannot be passed through unread.

        Args:
            wants_json: Whether the request's `response_format` is JSON.
            model: As for `chain`.
            caller: As for `chain`.
            let: As for `chain`.
        """
        if let is not None:
            return True
        if not self.has_processors:
            return False
        stream = StreamInfo(model=model, wants_json=wants_json, caller=caller)
        if self._guard is not None and self._guard.processor(stream) is not None:
            return True
        return any(each.processor(stream) is not None for each in self._processors)

    def use(self, settings: Settings, built: Built = ()) -> None:
        """Uses another configuration for new streams. Running streams keep theirs, and their connections.

        Args:
            settings: The configuration. Its `[store]` must be unchanged, but for the keys.
            built: The result of `build_guards`; without it the loop waits while guards are built.

        Raises:
            SetupError: A guard or a tool cannot be used: the former ones go on.
        """
        self._use_tools(settings)  # first: it may fail, as the next
        self._use_guards(settings, built)
        old = self.settings
        self._in_background(self.store.rotate(settings.store.encryption))
        self.store.use(settings.idempotency.ttl)
        self.store.responses.use(settings.responses, has_credentials=settings.takes_credentials)
        self.durable.use(settings.limits.drains)
        if self.answers is not None:
            self.answers.use(settings.cache, _longest_call(settings))
        if settings.otel != old.otel:
            self._replace_telemetry(settings)
        self._processors = [read_processor(entry) for entry in settings.processors]
        self.has_processors = self._guard is not None or bool(self._processors)
        self.targets.use(settings)

    def list_targets(self) -> list[tuple[str, TargetKey, TargetCondition, int]]:
        """Returns every target, with its live streams; as `Targets.conditions`."""
        return self.targets.conditions(
            Counter((each.spec.model.name, target_key(each.spec.model)) for each in self.streams.values())
        )

    def _replace_telemetry(self, settings: Settings) -> None:
        former, self.telemetry = self.telemetry, _telemetry(settings)
        if former is not None:
            self._in_background(former.close())

    def _in_background(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    def start(
        self, spec: StreamSpec, client: Client, stream_id: str, clock: Clock, said: Sequence[Event] | None = None
    ) -> Session:
        """Starts a stream.

        Args:
            spec: The first attempt.
            client: The response.
            stream_id: The stream's id, never used before.
            clock: Shared with the spec's output.
            said: As for `Session`.

        Raises:
            Error: This upstream cannot serve the request; nothing was sent.
        """
        caller = spec.caller
        if spec.trace is None and self.telemetry is not None and spec.transport == LIBRARY:
            spec.trace = self.telemetry.begin(None, None, route=None)
            spec.trace_id = spec.trace.trace_id
        try:
            if self.limits is not None:
                self.limits.check(stream_id, caller, self.running, self.streams_of(caller))
            session = Session(
                self, self.targets, spec, client, stream_id=stream_id, clock=clock, loop=self._loop, said=said
            )
            self.streams[stream_id] = session
            _count(self._active, spec.transport)
            _count(self._callers, caller)
            if caller != ANONYMOUS and stream_id in self.ledger.reservations:
                session.allow(self.ledger.reservations[stream_id])
        except Error as error:
            self._refused(spec, stream_id, error)
            raise
        return session

    def must_ask(self, caller: str) -> bool:
        """Returns whether a caller's next stream must be admitted by `admission`; else `start` alone decides.

        Args:
            caller: The caller's name.
        """
        limits = self.limits
        return limits is not None and limits.must_ask(caller, self.running, self.streams_of(caller))

    def admission(self, stream_id: str, caller: str) -> Coroutine[object, object, None] | None:
        """Admits a stream by the limits of the server. Then `start` must be called, or `cancel_admission`.

        Args:
            stream_id: The stream's id.
            caller: The caller's name.

        Returns:
            As `StreamLimits.admit`, which raises.
        """
        limits = self.limits
        if limits is None:
            return None
        return limits.admit(stream_id, caller, self.running, self.streams_of(caller))

    def go_on_trace(self, context: str) -> Trace | None:
        """Begins the trace of a stream that goes on here. Returns None if nothing is traced.

        Args:
            context: `Trace.context` of the request that the stream began with.
        """
        return None if self.telemetry is None else self.telemetry.go_on(context)

    def cancel_admission(self, stream_id: str, caller: str) -> None:
        """Takes back the admission of a stream by all limits. Does nothing if the stream runs, or has ended.

        Args:
            stream_id: The stream's id.
            caller: The caller's name.
        """
        if stream_id not in self.streams and stream_id not in self.transfers:
            self.ledger.cancel(stream_id)
            if self.limits is not None:
                self.limits.ended(stream_id, caller)

    @property
    def running(self) -> int:
        """The number of streams, and of requests that are passed through."""
        return len(self.streams) + len(self.transfers)

    def begin_transfer(self, stream_id: str, caller: str, fail: Fail) -> None:
        """Counts a request that is passed through as a stream; `transfer_ended` must follow.

        Args:
            stream_id: Its id, never used before.
            caller: The caller's name.
            fail: Ends it with an error, if the engine ends first.

        Raises:
            Error: There are too many streams, or there is too little memory.
        """
        if self.limits is not None:
            self.limits.check(stream_id, caller, self.running, self.streams_of(caller))
        self.transfers[stream_id] = caller, fail
        self._active[PASS_THROUGH].number += 1
        _count(self._callers, caller)

    def transfer_ended(self, metrics: StreamMetrics, trace: Trace | None) -> asyncio.Future[None] | None:
        """Counts a request no more that was passed through, and reports its figures.

        Args:
            metrics: The figures.
            trace: The trace of the request; None if it is not traced.

        Returns:
            What the end of the response must wait for; None if it is nothing.
        """
        stream_id, caller = metrics.stream_id, metrics.key
        if self.transfers.pop(stream_id, None) is not None:
            self._active[PASS_THROUGH].number -= 1
            self._uncount(caller)
        returned = None if self.limits is None else self.limits.ended(stream_id, caller)
        self._record(metrics)
        if trace is not None:
            notify_sinks([trace], metrics)
        return returned if caller == ANONYMOUS else when_both_done(returned, self.ledger.reported(caller))

    def read_on(self, spec: StreamSpec, stream_id: str, clock: Clock) -> None:
        """Starts a stream for its figures alone. It has no client and does not count as a stream.

        Args:
            spec: The first attempt.
            stream_id: As for `start`.
            clock: As for `start`.

        Raises:
            Error: As `start`.
        """
        session = Session(self, self.targets, spec, NullClient(), stream_id=stream_id, clock=clock, loop=self._loop)
        self._read_on.add(session)

    def know_workers(self, is_gone: IsGone) -> None:
        """Calls `Store.know_workers` for every store of the engine."""
        self._is_gone = is_gone
        self.store.know_workers(is_gone)

    def shared_answers(self, now_ms: Callable[[], int]) -> SharedAnswers | None:
        """Returns the answers that streams share. `None` if no answers are shared (`[cache] ttl` is 0).

        Args:
            now_ms: Returns milliseconds since the epoch.
        """
        settings = self.settings
        if not settings.cache.ttl:
            return None
        if self.answers is None:
            self.answers = SharedAnswers(
                self,
                settings.cache,
                settings.store,
                self._loop,
                now_ms,
                self._memory,
                self._is_gone,
                self._seals,
                _longest_call(settings),
            )
        return self.answers

    def look_in(self, store: Store, log: StreamLog, found: Callable[[float], None]) -> None:
        """Finds out when a log was last followed in another process; as `DurableStreams.look_in`."""
        self.durable.look_in(store, log, found)

    def tokens(self, upstream: UpstreamSettings) -> Collection[bytes]:
        """Returns the texts of the tokens that an upstream with an identity was sent."""
        return self.targets.tokens(upstream)

    # -- one stream --

    def cancel(self, stream_id: str) -> bool:
        """Cancels a stream of this process; returns whether there is one that runs, or waits."""
        session = self.streams.get(stream_id)
        if session is None:
            return self.waiting.end(stream_id)
        session.cancel()
        return True

    def _close_waiting(self, log: StreamLog, end: EndsInstead) -> None:
        """Ends the log of a run that waits; as `waiting.Close`."""
        self.close_log(log, 0, end)

    def close_log(self, log: StreamLog, gap: int, end: EndsInstead) -> None:
        """Ends the log of a stream that this worker has, and that does not go on.

        Args:
            log: The log.
            gap: As for `closing_of`.
            end: Why it ends.
        """
        closing = closing_of(log, gap, end)
        if closing.piece:
            log.append(closing.piece, closing.last_seq)
        log.end(closing.ending)
        self._forget_request(log)

    def _forget_request(self, log: StreamLog | None) -> None:
        """Drops what goes on with a run that has ended, if the log alone has it."""
        if log is not None and not self.store.keeps_requests:
            self.store.memory.forget_request(log)

    @property
    def others_go_on(self) -> bool:
        """Whether other workers may go on with streams of this one."""
        return self.store.keeps_requests

    def park(self, stream_id: str, desk: ApprovalDesk, approvals: dict[str, int], told: dict[str, Any]) -> None:
        """Ends the session of a run that waits for approvals alone; as `RunStreams.park`."""
        log = self.store.find_here(stream_id)
        if log is None or log.is_over or log.lost:
            return  # it waits in its session
        self._leave(stream_id)
        self.waiting.add(log, desk, approvals, told)
        if self.takeovers.is_draining:
            self._hand_over_waiting()

    def hear(self, stream_id: str, message: str) -> None:
        """Handles a message of another worker about a stream; as `stores.messages.Hear`."""
        if message == DROP:
            self.store.drop_here(stream_id)
            return
        if message == CANCEL:
            self.cancel(stream_id)
            return
        kind, _, approval_id = message.partition(" ")
        session = self.streams.get(stream_id)
        if kind == DECIDED and session is not None:
            session.hear(approval_id)
        elif kind == DECIDED:
            self.waiting.wake(stream_id)  # unless it has ended since

    def is_stored(self, stream_id: str) -> Awaitable[bool]:
        """Returns whether the store has all that the log of a stream has now; as `Store.stored`."""
        return self.store.stored(self.store.find_here(stream_id))

    def beside(self, caller: str, work: Callable[[], Any]) -> Awaitable[Any]:
        """Does work of a caller beside the loop; as `Beside.do`."""
        return self.targets.beside.do(work, caller)

    def leave_to_other(self, stream_id: str) -> None:
        """Stops the upstream of a stream that another worker has taken over; as `Store.stop_generation`."""
        if self.waiting.forget(stream_id) is None:
            self._leave(stream_id)

    def _leave(self, stream_id: str) -> None:
        """Ends the session of a durable stream; its log goes on."""
        session, publication = self.streams.get(stream_id), self.durable.publication(stream_id)
        if session is not None and publication is not None:
            try:
                session.client_lost()
            except Exception as problem:  # noqa: BLE001  # rule 2 of `session.py`; the journal goes on with other logs
                self.broke(session, problem)
            publication.leave_to_other()

    def broke(self, session: Session, fault: Exception) -> None:
        """Logs the bug that ended a stream, with its traceback."""
        logger.error("stream %s failed: a bug of the gateway", session.stream_id, exc_info=fault)

    def grow(self, session: Session, wanted: Reservation, then: Callable[[int], None]) -> None:
        """Reserves more spend for a stream; as `EngineCallbacks.grow`."""
        self.ledger.grow(session.stream_id, wanted, then)

    def lacks_tokens(self, session: Session, spec: StreamSpec, used: Callable[[], int]) -> Demand:
        """Returns the tokens that a turn lacks; as `EngineCallbacks.lacks_tokens`."""
        stream_id, ledger, request = session.stream_id, self.ledger, spec.request
        if not ledger.counts_tokens(stream_id):
            return NO_DEMAND
        most = request.max_tokens if isinstance(request, Request) and isinstance(request.max_tokens, int) else 0
        expected = 0 if most else ledger.usual_output(spec.model.name, session.caller)
        tokens = estimated_tokens(spec.prompt_characters or 0) + (most or expected)
        return ledger.lacks_tokens(stream_id, used(), Demand(tokens, expected=expected))

    def reserve_turn(self, session: Session, wanted: Demand, then: Callable[[int], None]) -> None:
        """Reserves what a turn lacks; as `EngineCallbacks.reserve_turn`."""
        self.ledger.reserve_turn(session.stream_id, wanted, then)

    def record_ids(self, session: Session) -> asyncio.Future[None] | None:
        """Records the ids that a caller with a key has got; as `EngineCallbacks.record_ids`."""
        if session.caller == ANONYMOUS:
            return None
        taken = session.relay.take_stored_ids()
        return self.store.ids.record(session.caller, taken) if taken else None

    def ended(self, session: Session, outcome: Outcome) -> asyncio.Future[None] | None:
        """Removes an ended stream and reports its figures; as `EngineCallbacks.ended`."""
        if session.stream_id in self.streams:
            del self.streams[session.stream_id]
            self._active[session.transport].number -= 1
            self._uncount(session.caller)
        elif self._read_on:
            self._read_on.discard(session)
        self.durable.ended(session.stream_id)
        if self.takeovers.beginning or self.takeovers.continued:
            self.takeovers.ended(session, outcome)
        returned = None if self.limits is None else self.limits.ended(session.stream_id, session.caller)
        sharing = session.spec.sharing
        try:
            session.metrics = metrics = session.measured_at_end(outcome)
            recorded = metrics if sharing is None else sharing.ended(session.spec, metrics, session.earlier_charges)
        except Exception:
            self.ledger.settle(session.stream_id, 0)  # a bug: without this, its key would lose a stream forever
            raise
        if recorded is not None:
            self._record(recorded)
        trace = session.spec.trace
        if trace is not None:
            notify_sinks([trace], metrics)
        if session.spec.run is not None and outcome != "disconnected":
            self._forget_request(self.store.find_here(session.stream_id))
        keeping = session.spec.keeping
        if keeping is not None:
            is_left = outcome == "disconnected"
            kept = keeping.ended(session.spec, is_left=is_left, is_refused=session.is_refused)
            returned = when_both_done(returned, kept)
        if session.caller == ANONYMOUS:
            return returned
        return when_both_done(when_both_done(returned, self.record_ids(session)), self.ledger.reported(session.caller))

    def _uncount(self, caller: str) -> None:
        """Counts one stream of a caller less.

        A caller of an issuer is forgotten after its last stream: the number of such callers has no limit. A key stays,
        for the metrics, until it is revoked.
        """
        mine = self._callers[caller]
        mine.number -= 1
        if not mine.number and figure_label(caller) != caller:
            del self._callers[caller]

    def _record(self, metrics: StreamMetrics) -> None:
        """Sends the figures of a stream to the sinks, and to the ledger if the stream has a key."""
        if metrics.key != ANONYMOUS:
            notify_sinks([self.ledger], metrics)
        notify_sinks(self.sinks, metrics)

    def _refused(self, spec: StreamSpec, stream_id: str, error: Error) -> None:
        """Sends the figures of a stream that never started to the sinks."""
        upstream = spec.model.upstream
        metrics = StreamMetrics(
            duration=0.0,
            outcome="refused",
            code=error.code,
            reason=error.reason,
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
        self._record(metrics)

    def disconnect_clients(self, until: float) -> None:
        """Ends clients' plain streams with an error, and disconnects followers of durable streams, who may reconnect.

        Streams of a program in this process continue: it may have an open gateway behind a server that shuts down.

        Args:
            until: The deadline for the followers' last frames, in seconds of the loop's clock.
        """
        for session in list(self.streams.values()):
            is_kept = self.durable.publication(session.stream_id) is not None and not self._ends_here(session)
            if not is_kept and session.spec.transport != LIBRARY:
                session.fail(_stopped())
        self._end_transfers()
        self.durable.disconnect_followers(until)

    def _ends_here(self, session: Session) -> bool:
        """Returns whether a run has a log only because it may ask, and no other worker goes on with it."""
        is_of_clients = session.spec.model.stream.on_disconnect == "cancel"
        return session.spec.run is not None and is_of_clients and not self.store.keeps_requests

    def begin_drain(self) -> None:
        """Begins to stop. A run that waits, or comes to wait, does not hold the drain: it is let go, and its followers
        are disconnected. If no other worker can go on with it, it ends.
        """
        self.takeovers.is_draining = True
        self._hand_over_waiting()

    def _hand_over_waiting(self) -> None:
        if not self.store.keeps_requests:
            self.waiting.end_undecided(lost_worker())
        elif self.run_tools is not None:
            logs = self.waiting.leave()
            self.durable.part_from(logs)
            self._refuse_whole(logs)
            self.run_tools.desk.start(self.store.let_go(logs))

    def _refuse_whole(self, logs: Sequence[StreamLog]) -> None:
        """Responds to clients that wait for whole answers that go on elsewhere."""
        for log in logs:
            self.durable.refuse_whole(log, _stopped())

    def let_go(self) -> Awaitable[None]:
        """Lets the durable streams go that other workers go on with. Their upstreams stop at once.

        Call it after `disconnect_clients`, once no follower is left. Awaiting the result lets the store note it.
        """
        self.takeovers.is_closing = True
        logs: list[StreamLog] = []
        if self.store.keeps_requests:
            logs = self.waiting.leave()
            self._refuse_whole(logs)
        for session in list(self.streams.values()):
            publication = self.durable.publication(session.stream_id)
            if publication is not None and self.takeovers.lets_go(session, publication.log):
                self.leave_to_other(session.stream_id)
                logs.append(publication.log)
                self.durable.refuse_whole(publication.log, _stopped())
        return self.store.let_go(logs)

    def _end_transfers(self) -> None:
        for _, fail in list(self.transfers.values()):
            fail(_stopped())

    def end_callers(self, callers: Collection[str], reason: str, error: Error) -> None:
        """Ends all streams of some callers: properly, as cancelled. Callers without streams are forgotten.

        Args:
            callers: The callers' names.
            reason: The reason of the `finish` event.
            error: The error of requests that are passed through.
        """
        for caller in callers:
            if caller in self._callers and not self._callers[caller].number:
                del self._callers[caller]
        self.waiting.end_callers(callers, Error("unauthorized", "the key of this stream was revoked", reason=reason))
        if self._callers.keys().isdisjoint(callers):
            return
        for session in list(self.streams.values()):
            if session.caller in callers:
                session.stop("cancelled", reason)
        for caller, fail in list(self.transfers.values()):
            if caller in callers:
                fail(error)

    def close(self) -> Awaitable[None]:
        """Ends every stream with an error. Awaiting the result also closes all upstream connections and the store."""
        for session in list(self.streams.values()):
            session.fail(_stopped())
        if self.store.keeps_requests:
            self.waiting.leave()  # another worker goes on
        else:
            self.waiting.end_all(_stopped())
        for session in list(self._read_on):  # end these now too: after shutdown nothing charges them
            session.fail(_stopped())
        self._end_transfers()
        self.targets.close()
        answers = [] if self.answers is None else [self.answers.close]
        ledger = None if self.limits is None else self.limits.ledger
        limits = [] if ledger is None else [ledger.close]
        guards = self.guarding.close
        tools = [] if self.run_tools is None else [self.run_tools.close]
        closing = close_all(
            self.upstreams.close, self.ledger.close, *limits, *answers, *tools, guards, self.store.close
        )
        return closing if self.telemetry is None else close_together(closing, self.telemetry.close())


def _count(counts: dict[str, Count], name: str) -> None:
    """Counts one more of a name."""
    count = counts.get(name)
    if count is None:
        count = counts[name] = Count()
    count.number += 1


def when_both_done(
    first: asyncio.Future[None] | None, second: asyncio.Future[None] | None
) -> asyncio.Future[None] | None:
    """Returns a future that is done when both are done. None stands for a done future."""
    if first is None or second is None:
        return second if first is None else first
    return cast("asyncio.Future[None]", asyncio.gather(first, second))


def _longest_call(settings: Settings) -> float:
    """Returns the seconds of the longest call to an upstream."""
    return max((each.total_timeout for each in settings.upstreams.values()), default=0.0)


def _telemetry(settings: Settings) -> Telemetry | None:
    if settings.otel is None:
        return None
    from gai_fast.otel.telemetry import Telemetry  # imports aiohttp's client, which programs seldom need

    return Telemetry(settings.otel)


def _stopped() -> Error:
    return Error("overloaded", "this server is being stopped", reason="draining")
