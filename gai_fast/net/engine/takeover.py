"""Takes over durable streams whose workers are gone: this worker goes on with them.

Owns the record of a stream's request, which the store keeps beside its log, and which of these streams go on.
`stores/mirror.py` decides when a worker is gone and who takes a stream over, `attempts.py` how an answer goes on, and
`logs/closing.py` has the end of streams that do not.

1. A worker that is gone is a failed attempt, reason `worker_lost`. Without content the request is asked again. With
   content, `on_midstream_failure` decides. Processors are new ones (rule 10 of `core/relay.py`).
2. The stream goes on with `stream.gap`, whose text is that of the whole log: it voids what clients have and the log
   has not. No other owner uses its number (`stores.store.owners_number`).
3. The record has the request as it was sent up, behind the gates, which it does not pass again; the own words for a
   guard's placeholders, whatever guards there are now; and no credential. Streams that need more have no record: a
   caller's own credential belongs to the worker that began them. What a client wrote for its provider alone is
   recorded if it names no secret.
4. The settings are those of this worker. A model that it does not have ends the stream, and so does a revoked key. A
   key that the configuration has no more has no limits.
5. A place and a reservation are taken before the log is, and the stream starts with them. A limit of the server leaves
   the stream to another one, and so do upstreams whose connections are all in use. A limit of its key ends it if it
   refuses it twice: at first, another worker that asks for the stream may have its place. A run that waits for
   approvals waits for a place of its key, too, and needs no reservation: its next turn does. The places and
   reservations of the lost worker are released.
6. A worker that stops lets such streams go. They do not count for `limits.takeovers`. Clients of whole answers, who
   cannot follow, get the error, and ask again. The answers end, but for those of runs: their calls were made.
7. `limits.takeovers_at_once` streams may begin at a time. A caller, and an upstream, has at most half of these places;
   without keys there is one caller, who has all. A place is free once the attempt is sent.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeVar, cast

import msgspec

from gai_fast.core.requests.reading import characters, parse_object, parse_request
from gai_fast.core.session import NamedSession
from gai_fast.formats import ClientRequest, StreamContext, StreamEncoder, get_format
from gai_fast.formats._base import ItemMark
from gai_fast.formats.responses.chain import Written, written_before
from gai_fast.guards.input import LetThrough
from gai_fast.guards.restore import Placeholders
from gai_fast.ledger import Ledger, Reservation
from gai_fast.ledger._base import NAMES, SPEND
from gai_fast.model.errors import Error
from gai_fast.model.events import ENVELOPE_KEYS, NO_CONTENT, Event
from gai_fast.model.limits import OTHER, SHARED
from gai_fast.model.metrics import Outcome
from gai_fast.model.request import Request
from gai_fast.model.settings import ANONYMOUS, ModelSettings
from gai_fast.net.attempts.records import (
    NATIVE_VERSION,
    NO_REQUEST,
    ROUTE_VERSION,
    RUN_VERSION,
    VERSION,
    RequestRecord,
    RouteRecord,
    client_tools_of,
    decode,
    encode,
    has_secret,
    version_of,
)
from gai_fast.net.attempts.spec import Clock, Keeping, StreamRun, StreamSpec
from gai_fast.net.engine.durable import DurableStreams
from gai_fast.net.engine.targets import Targets
from gai_fast.net.limits import LIMITS
from gai_fast.net.logs.closing import gap_behind, kept_by
from gai_fast.net.logs.joined import JoinedEvents
from gai_fast.net.logs.view import NATIVE, read_event
from gai_fast.net.runs.ending import told_of_state
from gai_fast.net.runs.records.state import waits
from gai_fast.net.runs.tallies import RunTallies
from gai_fast.net.stream.session import TAKEN_OVER, Session
from gai_fast.otel.trace import Trace
from gai_fast.processors import Chain
from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.clock import now_ms
from gai_fast.stores import Backlog, LogHeader, Store, StreamLog
from gai_fast.stores._base import NOTHING_TOLD, EndsInstead, GoesOn, NoRoom, NotYet, TakeOver, damaged, data_lines
from gai_fast.stores.backend import Owner
from gai_fast.stores.responses import RESPONSE_ITEMS
from gai_fast.stores.stored_keys import REVOKED

if TYPE_CHECKING:
    from gai_fast.net.engine.engine import StreamLimits
    from gai_fast.net.runs.offers import RunTools

_log: Final = logging.getLogger("gai_fast.engine")
_T = TypeVar("_T")
_ENDS: Final = ("finish", "error", "done")
_Outcome = Literal["continued", "restarted", "retried", "closed", "differed", "refused"]
"""What becomes of a stream of a worker that is gone, as it is counted."""
_FUNCTIONS: Final = "python"
"""The provider whose answers come from functions of the process itself."""


KeyHome = Literal["", "file", "store"]
"""Where a caller's key is: nowhere, in the configuration, or in the store, where admins make and revoke keys."""


class TakeOverHost(Protocol):
    """The part of the engine that admits streams, and makes their processors.

    Attributes:
        ledger: The limits of keys.
        limits: The limits of the server. None without a server.
        run_tools: The gateway's tools. None if there are none, and no run has come from another process.
        runs: The counts of runs.
        store: The logs.
        streams: The running streams, by id.
    """

    ledger: Ledger
    limits: StreamLimits | None
    run_tools: RunTools | None
    runs: RunTallies
    store: Store
    streams: dict[str, Session]

    @property
    def running(self) -> int:
        """The number of streams."""

    def admission(self, stream_id: str, caller: str) -> Coroutine[object, object, None] | None:
        """Admits a stream by the limits of the server; as `Engine.admission`."""

    def cancel_admission(self, stream_id: str, caller: str) -> None:
        """Takes back the admission of a stream by all limits."""

    def close_log(self, log: StreamLog, gap: int, end: EndsInstead) -> None:
        """Ends the log of a stream that does not go on."""

    def tools_of_runs(self) -> RunTools:
        """Returns the tools for a run of another process."""

    def chain(
        self,
        request: Request,
        stream_id: str,
        request_id: str,
        trace_id: str | None = None,
        model: str = "",
        caller: str = "",
        let: LetThrough | None = None,
    ) -> Chain | None:
        """Makes the processors of a stream."""

    def go_on_trace(self, context: str) -> Trace | None:
        """Begins the trace of a stream that goes on here; as `Telemetry.go_on`. Returns None if nothing is traced."""


OfRoute = Callable[
    [ClientRequest, LogHeader, ModelSettings, RequestRecord, LetThrough | None, Written | None],
    tuple[StreamSpec, StreamContext],
]
"""Makes the spec of a request in a client's dialect. Its arguments are the request, the header of the stream's log, its
model, its record, what guards have let through, and its own items if its answer is kept. It raises an `Error` if the
request cannot be served here."""


class TakeOvers:
    """The streams that this worker takes over.

    Args:
        host: The engine.
        targets: The models' targets, and the settings.
        durable: The durable streams of this process.

    Attributes:
        key_home: Returns where the key of a caller is. Set by a server.
        of_route: Makes the spec of a request in a client's dialect. Set by a server.
    """

    def __init__(self, host: TakeOverHost, targets: Targets, durable: DurableStreams) -> None:
        self.key_home: Callable[[str], KeyHome] = lambda caller: ""
        self.of_route: OfRoute | None = None
        self._host = host
        self._targets = targets
        self._durable = durable
        self.continued: dict[str, _Continued] = {}
        """Streams that go on from their content, by id, until their outcome is known."""
        self.is_closing = False
        """Whether this process stops, so that it begins with no more streams."""
        self.is_draining = False
        """Whether this process is about to stop, so that it leaves runs that wait to others."""
        self.beginning: dict[str, Session] = {}
        """Streams that were taken over and may not have sent their attempt since, by id."""
        self._refused: dict[str, tuple[int, float]] = {}
        """Streams that a limit of their key has refused once: the owners' epochs, and when, in monotonic seconds."""
        self._told: OrderedDict[str, tuple[int, Mapping[str, Any]]] = OrderedDict()
        """What the ends of streams say that are tried again, and the owners' epochs."""

    def lets_go(self, session: Session, log: StreamLog) -> bool:
        """Returns whether other workers would go on with a stream that runs here: rule 6.

        Args:
            session: The stream.
            log: Its log.
        """
        model = self._targets.settings.model(log.header.model)
        if not self._host.store.keeps_requests or log.request is None or log.lost:
            return False
        if model is None or session.relay.is_over or (session.spec.hold and session.spec.run is None):
            return False
        if session.spec.run is not None or not session.has_content:
            return True
        return _is_mended(replace(session.spec, model=model))

    def check_room(self, header: LogHeader, taking: Collection[LogHeader]) -> None:
        """Checks whether one more stream may be taken over now: rules 5 and 7.

        Args:
            header: The header of its log.
            taking: Those of the streams whose take-over is under way.

        Raises:
            NoRoom: There is no place, or none for its caller.
            NotYet: An upstream that it may ask has no place for it, or no connection.
        """
        limits = self._host.limits
        if self.is_closing or (limits is not None and not limits.has_room(self._host.running)):
            raise NoRoom
        for stream_id in [each for each, session in self.beginning.items() if session.is_asked]:
            del self.beginning[stream_id]
        begun = [session.spec for session in self.beginning.values()]
        most = LIMITS.takeovers_at_once
        if len(begun) + len(taking) >= most:
            raise NoRoom
        callers = [*(spec.caller for spec in begun), *(each.caller for each in taking)]
        if header.caller != ANONYMOUS and callers.count(header.caller) >= most // 2:
            raise NoRoom
        asked = [*({spec.model.upstream.name} for spec in begun), *map(self._upstreams_of, taking)]
        if any(sum(name in names for names in asked) >= most // 2 for name in self._upstreams_of(header)):
            raise NotYet
        model = self._targets.settings.model(header.model)
        may_end = model is None or model.stream.on_midstream_failure == "error"
        if model is not None and not may_end and not self._has_connection(model, len(taking)):
            raise NotYet

    def _upstreams_of(self, header: LogHeader) -> set[str]:
        """Returns the names of the upstreams that a stream may ask first."""
        model = self._targets.settings.model(header.model)
        if model is None:
            return set()
        return {target.upstream.name for target in model.targets} or {model.upstream.name}

    def _has_connection(self, model: ModelSettings, taking: int) -> bool:
        # Those that have just begun may not have asked for theirs.
        begun = sum(each.spec.model.name == model.name and each.wants_connection for each in self.beginning.values())
        return self._targets.has_connection(model, taking + begun)

    def record_to_wait(self, spec: StreamSpec) -> bytes | None:
        """Returns the record of a run that begins here, which may wait, and which no other worker goes on with. None if
        it waits in its session.
        """
        if spec.recorded_run is None or not spec.recorded_run.asks:
            return None
        record = self.record_of(spec, is_shared=False)
        return record if record is not None and len(record) <= LIMITS.parked_request else None

    def record_of(self, spec: StreamSpec, *, is_shared: bool = True) -> bytes | None:
        """Returns the record of a stream that begins here. None if no other worker could go on with it.

        Args:
            spec: The first attempt.
            is_shared: Whether the store has the record, and other workers. If not, it stays in this process.
        """
        header, request = spec.log_header, spec.request
        if header is None or spec.credential is not None or not (header.format == NATIVE or spec.hold):
            return None
        if spec.run is not None and spec.recorded_run is None:
            return None
        route, kept = None, None if spec.keeping is None else spec.keeping.recorded()
        given: Request | dict[str, Any]
        if spec.recorded is not None:
            route, given = spec.recorded()
            route.kept = kept
        elif not isinstance(request, Request) or kept is not None:
            return None
        else:
            given = request
        if is_shared and (has_secret(given) or spec.model.upstream.provider.partition(":")[0] == _FUNCTIONS):
            return None
        let = spec.let or LetThrough()
        try:
            record = encode(
                RequestRecord(
                    _version_of(spec, route),
                    NO_REQUEST if route is not None else msgspec.Raw(encode(request)),
                    spec.dialect,
                    spec.can_reset,
                    spec.is_agent,
                    spec.unsupported,
                    [*spec.left_out],
                    spec.endpoint,
                    spec.transport,
                    spec.home,
                    [*let.said],
                    {} if let.placeholders is None else {**let.placeholders.values},
                    self._host.ledger.reservation_of(header.stream_id),
                    self.key_home(spec.caller) == "store",
                    spec.session,
                    spec.is_large,
                    "" if spec.trace is None else spec.trace.context,
                    route,
                    spec.recorded_run,
                )
            )
        except (TypeError, ValueError):  # a lone surrogate
            return None
        return record if len(record) <= LIMITS.takeover_request else None

    async def going_on(self, log: StreamLog, owner: Owner, number: int, record: bytes) -> GoesOn | EndsInstead:
        """Goes on with a stream; as `stores.store.GoingOn`.

        Args:
            log: The log, with all that is stored.
            owner: The worker that is gone, and how often the stream has begun.
            number: The number of the log's `stream.gap`.
            record: The output of `record_of`.

        Raises:
            Error: `internal`, reason `log_damaged`: an event of the log is none.
            NoRoom: A limit of this server is reached, or one of its key for the first time; or all connections to its
                upstreams are in use; or only workers of a later release go on with the stream; or it is a run that
                waits, and this process is about to stop.
        """
        stream_id = log.header.stream_id
        epoch, told = self._told.pop(stream_id, (0, NOTHING_TOLD))
        if epoch != owner.epoch:
            told = await self.told_of(stream_id, record, log.header.caller)
        try:
            found = await self._prepared(log, owner, number, record, told)
        except NoRoom:  # it is tried again
            self._told[stream_id] = owner.epoch, told
            if len(self._told) > LIMITS.takeovers_at_once:
                self._told.popitem(last=False)
            raise
        if isinstance(found, EndsInstead):
            return found._replace(told=told)
        begin = partial(self._begin_as, found.begin, found.outcome, log, found.kept)
        return GoesOn(begin, partial(self._host.cancel_admission, stream_id, log.header.caller), told)

    async def told_of(self, stream_id: str, record: bytes, caller: str = ANONYMOUS) -> Mapping[str, Any]:
        """Returns what the end of a stream says of it; as `stores.mirror.ToldOf`. Empty if it is no run.

        Args:
            stream_id: The stream.
            record: The output of `record_of`.
            caller: The name of its caller.

        Raises:
            NoRoom: It is large, and too much work waits.
            StoreError: The store fails.
        """
        client_tools = await self._work(partial(client_tools_of, record), len(record), caller)
        if client_tools is None:
            return NOTHING_TOLD
        state = await self._host.tools_of_runs().desk.records.state_of(stream_id)
        try:
            return await self._work(partial(told_of_state, state, client_tools), len(state), caller)
        except ValueError:  # damaged
            return NOTHING_TOLD

    async def _work(self, work: Callable[[], _T], size: int, caller: str) -> _T:
        """Reads something of a stream: beside the loop, if it has more than `limits.takeover_turn` bytes.

        Raises:
            NoRoom: Too much work waits there.
        """
        if size <= LIMITS.takeover_turn:
            return work()
        try:
            return await self._targets.beside.do(work, caller)
        except Error as problem:
            if problem.code == "overloaded":
                raise NoRoom from None
            raise

    async def waking(self, log: StreamLog, told: Mapping[str, Any]) -> GoesOn | EndsInstead:
        """Goes on with a run of this worker that has waited, behind its last event; as `runs.waiting.Waking`.

        Args:
            log: Its log.
            told: What its end says.

        Raises:
            NoRoom: As `going_on`.
            StoreError: The store fails.
            Error: As `going_on`.
        """
        record = await self._host.store.request_of(log)
        if not record:
            return EndsInstead()
        found = await self._prepared(log, Owner("", log.takeovers + 1), 0, record, told)
        if isinstance(found, EndsInstead):
            return found
        return GoesOn(found.begin, partial(self._host.cancel_admission, log.header.stream_id, log.header.caller))

    async def _prepared(
        self, log: StreamLog, owner: Owner, number: int, record: bytes, told: Mapping[str, Any]
    ) -> _Prepared | EndsInstead:
        """Prepares that a stream goes on, with a place and a reservation; as `going_on`.

        Args:
            log: As for `going_on`.
            owner: As for `going_on`.
            number: As for `going_on`. 0 for a run of this worker that has waited.
            record: As for `going_on`.
            told: What the end of a run says.
        """
        header = log.header
        model = self._targets.settings.model(header.model)
        begun = owner.epoch - header.handovers - (not owner.worker)
        if begun > LIMITS.takeovers or model is None or log.lost:
            return EndsInstead()
        is_whole = header.framing == "json"
        if log.last_seq if is_whole else header.format != NATIVE:
            return EndsInstead()
        is_all = model.stream.on_midstream_failure != "error"
        work = partial(_read, log.read(0, sys.maxsize), log.last_seq, number, record, all_of_them=is_all)
        size = log.size + len(record)
        found = await self._work(work, size, header.caller)
        if isinstance(found, EndsInstead):
            return found
        kept, request, length, said, gap, own = found
        try:
            if isinstance(request, ClientRequest):
                spec, context = self._of_route(header, model, kept, request, own)
            else:
                spec, context = self._spec(header, model, kept, request, length)
            run = None
            if kept.run is not None:
                if number and self.is_draining and waits(log):
                    raise NotYet
                run = self._host.tools_of_runs().go_on(spec, header.stream_id, kept.run, said, told, is_own=not number)
            elif _has_content(said) and not _is_mended(spec):
                return EndsInstead()
            spec.can_reset = True  # the log can; followers in a format that cannot get an error (`logs/view.py`)
            if is_whole:
                piece = b""
            elif not number:
                piece = _numbered_behind(spec, log.last_seq)
            else:
                piece = _announced(spec, said, gap, is_run=run is not None)
        except (Error, ValueError):
            return EndsInstead()
        if not self._has_connection(model, 0):
            raise NotYet
        if spec.keeping is not None:
            await self._work(partial(_keep, spec.keeping, log.read(0, sys.maxsize).pieces), size, header.caller)
        refusal = await self._admitted(header, kept, owner, waits_on=not number or (run is not None and waits(log)))
        if refusal is not None:
            return refusal
        key_refused = partial(self._key_refused, kept, header.caller)
        begin = partial(self._begin, spec, context, log, said, number, piece, run, told, key_refused)
        return _Prepared(begin, _outcome_of(spec, said), kept_by(gap))

    async def _admitted(
        self, header: LogHeader, kept: RequestRecord, owner: Owner, *, waits_on: bool
    ) -> EndsInstead | None:
        """Takes a place for a stream, among those of the server and of its key: rule 5.

        Args:
            header: Describes the stream.
            kept: Its request.
            owner: As for `going_on`.
            waits_on: Whether it is a run that waits, and waits on until its key has a place for it.

        Raises:
            NoRoom: A limit of this server is reached, the limits of keys cannot be asked, or one refuses the stream for
                the first time.
        """
        host, stream_id, caller = self._host, header.stream_id, header.caller
        refusal = self._key_refused(kept, caller)
        if refusal is not None:
            return refusal
        is_admitted = False
        try:
            await self._take_place(stream_id, caller)
            await self._reserve(header, Reservation(*kept.reserved), owner, asks_later=waits_on)
            is_admitted = True
        except Error as refused:
            if refused.code != "rate_limited":
                raise NoRoom from None
            if (waits_on and refused.reason == "streams") or not self._is_refused_again(stream_id, owner.epoch):
                raise NotYet from None
            return EndsInstead(refused)
        finally:
            if not is_admitted:
                host.cancel_admission(stream_id, caller)
        return None

    async def _reserve(self, header: LogHeader, reservation: Reservation, owner: Owner, *, asks_later: bool) -> None:
        """Admits a stream by the limits of its key.

        Args:
            header: Describes the stream.
            reservation: What was reserved for it.
            owner: As for `going_on`.
            asks_later: Whether it reserves nothing if that is refused: its next turn asks again, and ends it.

        Raises:
            Error: As `Ledger.take_on`.
        """
        take_on = partial(self._host.ledger.take_on, header.caller, header.stream_id)
        try:
            await take_on(reservation, owner.worker)
        except Error as refused:
            if refused.reason != NAMES[SPEND] or not asks_later:
                raise
            await take_on(None, owner.worker)

    def _is_refused_again(self, stream_id: str, epoch: int) -> bool:
        """Notes that a limit of its key refuses a stream. Returns whether it has done so before, for the same owner."""
        now, refused = time.monotonic(), self._refused
        while refused and now - next(iter(refused.values()))[1] > SHARED.lease_lost:  # another worker has had it
            del refused[next(iter(refused))]
        before = refused.get(stream_id)
        if before is None or before[0] != epoch:
            refused.pop(stream_id, None)
            refused[stream_id] = epoch, now
            return False
        if now - before[1] < SHARED.lease_renewal:
            return False
        del refused[stream_id]
        return True

    async def _take_place(self, stream_id: str, caller: str) -> None:
        """Takes a place among the streams of the server, with which the stream starts, whatever comes between.

        Raises:
            NoRoom: There is none.
        """
        try:
            asking = self._host.admission(stream_id, caller)
            if asking is not None:
                await asking
        except Error:
            raise NoRoom from None

    def _begin(
        self,
        spec: StreamSpec,
        context: StreamContext,
        log: StreamLog,
        said: list[Event],
        number: int,
        piece: bytes,
        run: Callable[[int], Callable[[Session, StreamSpec], StreamRun]] | None,
        told: Mapping[str, Any],
        key_refused: Callable[[], EndsInstead | None],
        taken: TakeOver,
    ) -> bool:
        """Goes on with a stream that this worker owns, or ends it if it cannot."""
        header = log.header
        if run is not None:
            spec.run = run(taken.epoch)
        refusal = key_refused()  # the key may have been revoked since
        if refusal is None:
            try:
                publication = self._durable.go_on(spec, cast("Clock", context.clock), log, said, piece, number or 1)
                context.metrics = publication.measured  # of a whole answer
                return True
            except Error as error:
                refusal = EndsInstead(error)
        self._host.cancel_admission(header.stream_id, header.caller)
        if run is not None:
            self._host.runs.run_ended(len(told.get("steps", ())))
        self._host.close_log(log, number, refusal._replace(told=told))
        self._withdraw(log, taken.epoch, is_own=not number)
        return False

    def _key_refused(self, kept: RequestRecord, caller: str) -> EndsInstead | None:
        """Returns the end of a stream whose key was revoked. None if it was not."""
        if not kept.is_stored_key or self.key_home(caller):
            return None
        return EndsInstead(Error("unauthorized", "the key of this stream was revoked", reason=REVOKED), True)

    def _withdraw(self, log: StreamLog, epoch: int, *, is_own: bool = False) -> None:
        """Removes what is kept of a run that has ended, and lists its approvals no longer. Does nothing for others."""
        tools = self._host.run_tools
        if tools is not None:
            tools.desk.withdraw(log.header.stream_id, log.header.caller, epoch, is_own=is_own)

    # -- sight --

    def _begin_as(
        self, begin: Callable[[TakeOver], bool], outcome: _Outcome, log: StreamLog, kept: int, taken: TakeOver
    ) -> None:
        """Goes on with a stream, and counts its outcome as soon as it is known.

        Args:
            begin: Goes on. Returns False for a stream that it has ended.
            outcome: What will be counted if it goes on.
            log: The stream's log.
            kept: Characters of the text that the log has.
            taken: The change of the owner.
        """
        if not begin(taken):
            outcome = "refused"
        _tell(log, outcome, kept, taken)
        session = self._host.streams.get(log.header.stream_id)
        if session is not None:
            self.beginning[session.stream_id] = session
        if session is None or outcome != "continued":
            self._count(log, outcome)
        else:
            self.continued[session.stream_id] = continued = _Continued(session, log, self._went_on)
            log.watch(continued)

    def closed(
        self, log: StreamLog, taken: TakeOver, kept: int | None, told: Mapping[str, Any], *, is_refused: bool
    ) -> None:
        """Counts a stream of a worker that is gone, which was closed; as `stores.Store.closed`."""
        if "steps" in told:  # a run of which a turn was kept
            self._host.runs.run_ended(len(told["steps"]))
        outcome: _Outcome = "refused" if is_refused else "closed"
        _tell(log, outcome, kept, taken)
        self._withdraw(log, taken.epoch)
        self._count(log, outcome)

    def ended(self, session: Session, outcome: Outcome) -> None:
        """Forgets a stream that was taken over, and counts it if it ends before more of its content has come.

        Args:
            session: The stream.
            outcome: How it ends. Nothing is counted for one that another worker goes on with.
        """
        self.beginning.pop(session.stream_id, None)
        continued = self.continued.pop(session.stream_id, None)
        if continued is None:
            return
        continued.log.unwatch(continued)
        if outcome != "disconnected":
            has_differed = session.relay.error is not None and session.relay.error.reason == "worker_lost"
            self._count(continued.log, "differed" if has_differed else "continued")

    def _went_on(self, continued: _Continued) -> None:
        del self.continued[continued.log.header.stream_id]
        self._count(continued.log, "continued")

    def _count(self, log: StreamLog, outcome: _Outcome) -> None:
        counts, model = self._targets.tallies.takeovers, log.header.model
        name = model if model in self._targets.settings.models else OTHER
        counts[name, outcome] = counts.get((name, outcome), 0) + 1

    def _of_route(
        self,
        header: LogHeader,
        model: ModelSettings,
        kept: RequestRecord,
        asked: ClientRequest,
        own: Written | None,
    ) -> tuple[StreamSpec, StreamContext]:
        """Returns the attempt for a request in a dialect, and the context of its output. Raises as `_spec`."""
        if self.of_route is None:
            raise Error("unsupported", "this process has no routes of dialects")
        spec, context = self.of_route(asked, header, _without_client(model), kept, _let_through(kept), own)
        spec.trace = self._host.go_on_trace(kept.span)
        return spec, context

    def _spec(
        self, header: LogHeader, model: ModelSettings, kept: RequestRecord, request: Request, length: int
    ) -> tuple[StreamSpec, StreamContext]:
        """Returns the attempt, and the context of its output.

        Args:
            header: Describes the stream.
            model: Its model.
            kept: Its record.
            request: The request of that.
            length: Its characters.

        Raises:
            Error: The request cannot be served here.
        """
        stream_id, caller = header.stream_id, header.caller
        let, model = _let_through(kept), _without_client(model)
        clock = Clock(now_ms)
        context = StreamContext(
            stream_id,
            header.request_id,
            header.trace_id,
            header.model,
            clock,
            header.envelope,
            timestamps=model.stream.timestamps,
            ids=True,
        )
        is_whole, form = header.framing == "json", get_format(header.format)
        encoder = None if is_whole else form.encoder("ndjson" if header.framing == "ndjson" else "sse", context)
        spec = StreamSpec(
            self._targets.with_target(model, kept.home, header.caller),
            request,
            form.whole(context) if encoder is None else encoder,
            encoder,
            hold=is_whole,
            can_reset=kept.can_reset,
            dialect=kept.dialect,
            left_out=kept.left_out,
            unsupported=kept.unsupported,
            is_agent=kept.is_agent,
            prompt_characters=length,
            caller=caller,
            log_header=header,
            chain=self._host.chain(request, stream_id, header.request_id, header.trace_id, header.model, caller, let),
            request_id=header.request_id,
            trace=self._host.go_on_trace(kept.span),
            trace_id=header.trace_id,
            endpoint=kept.endpoint,
            transport=kept.transport,
            is_large=kept.is_large,
            session=None if kept.session is None else NamedSession(*kept.session),
            home=kept.home,
            let=let,
        )
        return spec, context


def _version_of(spec: StreamSpec, route: RouteRecord | None) -> int:
    """Returns the version of the record of a stream that begins."""
    if spec.recorded_run is not None:
        return VERSION if spec.hold else RUN_VERSION
    return NATIVE_VERSION if route is None else ROUTE_VERSION


def _let_through(kept: RequestRecord) -> LetThrough | None:
    """Returns what guards have let through of a request. None if they have found nothing."""
    if not kept.said and not kept.own:
        return None
    placeholders = Placeholders() if kept.own else None
    if placeholders is not None:
        placeholders.recall(kept.own)
    return LetThrough(tuple(kept.said), placeholders)


def _without_client(model: ModelSettings) -> ModelSettings:
    """Returns a model whose streams go on without a client: the client that started them is not connected here."""
    if model.stream.on_disconnect != "cancel":
        return model
    return replace(model, stream=replace(model.stream, on_disconnect="detach"))


def _keep(keeping: Keeping, pieces: Sequence[bytes]) -> None:
    """Passes all pieces of a log to the object that keeps its answer. May run in a thread."""
    for piece in pieces:
        breathe()
        keeping.logged(piece)


class _Continued:
    """A stream that goes on from its content, until more of its content comes. A `LogWatcher`.

    Args:
        session: The stream.
        log: Its log.
        went_on: Called as more of it comes.
    """

    __slots__ = ("_after", "_session", "_went_on", "log")

    def __init__(self, session: Session, log: StreamLog, went_on: Callable[[_Continued], None]) -> None:
        self.log = log
        self._session = session
        self._after = cast("StreamEncoder", session.spec.output).seq
        self._went_on = went_on

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Notes that more has come."""
        if last_seq > self._after and not self._session.relay.is_over:
            self.log.unwatch(self)
            self._went_on(self)

    def ended(self) -> None:
        """Does nothing: the session has ended before."""


def _tell(log: StreamLog, outcome: _Outcome, kept: int | None, taken: TakeOver) -> None:
    """Writes the log line of a take-over; `kept` is None if nobody has counted the characters of its text."""
    if taken.former:
        level, former = logging.WARNING, f"worker {taken.former} is gone"
    else:
        level, former = logging.INFO, "its worker has let it go"
    text = "stream %s: %s, after %.1f s worker %s has epoch %d: %s%s"
    rest = "" if kept is None else f", {kept} characters kept"
    _log.log(level, text, log.header.stream_id, former, taken.waited, taken.worker, taken.epoch, outcome, rest)


def _announced(spec: StreamSpec, said: Sequence[Event], gap: Event, *, is_run: bool) -> bytes:
    """Returns the frames with which a stream goes on.

    Args:
        spec: The attempt. Its output goes on behind them.
        said: What its log has. The first event has the envelope.
        gap: The event that voids what clients have beyond the log.
        is_run: Whether it is a run, which has steps that stay.
    """
    encoder = cast("StreamEncoder", spec.output)
    if said:
        encoder.event({"type": "start", "seq": 1})
        encoder.take()
    encoder.event(gap)
    if _has_content(said) and (is_run or spec.model.stream.on_midstream_failure == "continue"):
        encoder.event({"type": "warning", "reason": TAKEN_OVER})
    if spec.chain is not None:
        spec.chain.number_after(encoder.seq)
    return encoder.take()


def _numbered_behind(spec: StreamSpec, last_seq: int) -> bytes:
    """Lets the output of a spec go on behind an event. Returns no frames."""
    encoder = cast("StreamEncoder", spec.output)
    encoder.event({"type": "start", "seq": 1})
    encoder.event({"type": "warning", "seq": last_seq})
    encoder.take()
    if spec.chain is not None:
        spec.chain.number_after(last_seq)
    return b""


class _Prepared(NamedTuple):
    """A stream that may go on.

    Attributes:
        begin: Goes on. Returns False for a stream that it has ended.
        outcome: What will be counted.
        kept: Characters of the text that the log has.
    """

    begin: Callable[[TakeOver], bool]
    outcome: _Outcome
    kept: int


class _Found(NamedTuple):
    """What the store has of a stream.

    Attributes:
        kept: Its record.
        request: The request of that.
        length: Its characters. 0 if it knows them.
        said: The events of its log.
        gap: The event that voids what clients have beyond the log.
        own: The own items of the request, if its answer is kept.
    """

    kept: RequestRecord
    request: Request | ClientRequest
    length: int
    said: list[Event]
    gap: Event
    own: Written | None = None


def _read(backlog: Backlog, last_seq: int, number: int, record: bytes, *, all_of_them: bool) -> _Found | EndsInstead:
    """Reads what the store has of a stream; it may do so beside the loop.

    Args:
        backlog: All that the log has.
        last_seq: The number of its last event.
        number: The number of the `stream.gap`.
        record: The output of `TakeOvers.record_of`.
        all_of_them: Whether the events behind the first content are needed too.

    Returns:
        What the store has. If the log has its end, or the record is damaged, the stream ends instead.

    Raises:
        Error: `internal`, reason `log_damaged`: an event is none.
        NotYet: The record is of a later release, whose workers go on with the stream.
    """
    try:
        version = version_of(record).version
    except ValueError:
        return EndsInstead()
    if version > VERSION:
        raise NotYet
    all_of_them = all_of_them or version >= RUN_VERSION or any(_RESET in piece for piece in backlog.pieces)
    said = _events_of(backlog.pieces, all_of_them=all_of_them)
    if any(event["type"] in _ENDS for event in said):
        return EndsInstead()
    try:
        kept = decode(record) if version else None
        if kept is None:
            return EndsInstead()
        if kept.route is not None:
            own = None if kept.route.kept is None else written_before(bytes(kept.route.kept.input), RESPONSE_ITEMS)
            return _Found(kept, _asked(kept.route), 0, said, gap_behind(backlog, last_seq, number), own)
        request = parse_request(bytes(kept.request))
    except (Error, ValueError):
        return EndsInstead()
    return _Found(kept, request, characters(request), said, gap_behind(backlog, last_seq, number))


def _asked(route: RouteRecord) -> ClientRequest:
    """Returns a request in a client's dialect, which is translated if that takes long.

    Raises:
        Error: It is none.
        ValueError: There is no such dialect.
    """
    form = get_format(route.format)
    asked = form.read_request(parse_object(bytes(route.body)))
    asked.echo = route.echo
    asked.marks = [ItemMark(*mark) for mark in route.marks]
    if route.containers > LIMITS.takeover_containers:
        try:
            asked.native = form.parse_request(asked.body_for(None))
        except Error as refused:  # an upstream of the dialect needs no translation
            asked.native = refused
    return asked


def _events_of(pieces: Sequence[bytes], *, all_of_them: bool) -> list[Event]:
    """Returns the events of a log that belong to its answer, without numbers and envelopes, adjacent deltas as one.

    Args:
        pieces: All that the log has.
        all_of_them: As for `_read`.

    Raises:
        Error: As `_read`.
    """
    events = JoinedEvents()
    for number, data in enumerate(data for piece in pieces for data in data_lines(piece)):
        if not number % _BREATHS:
            breathe()
        try:
            event: Any = read_event(data)
            kind = event["type"]
        except (ValueError, TypeError, KeyError):
            raise damaged() from None
        if kind == "stream.gap":
            continue
        for own in _OF_THE_LOG:
            event.pop(own, None)
        events.add(event)
        if not all_of_them and kind not in NO_CONTENT:
            break
    return events.take()


_BREATHS: Final = 64
"""Events between two breaths."""
_RESET: Final = b'"type":"stream.reset"'
_OF_THE_LOG: Final = frozenset({"seq", "from_seq", "logprobs", *ENVELOPE_KEYS})


def _has_content(said: Sequence[Event]) -> bool:
    """Returns whether events have content that is not void."""
    has_content = False
    for event in said:
        has_content = event["type"] != "stream.reset" and (has_content or event["type"] not in NO_CONTENT)
    return has_content


def _outcome_of(spec: StreamSpec, said: Sequence[Event]) -> _Outcome:
    """Returns what becomes of a stream that goes on."""
    if not _has_content(said):
        return "retried"
    return "continued" if spec.model.stream.on_midstream_failure == "continue" else "restarted"


def _is_mended(spec: StreamSpec) -> bool:
    """Returns whether content that clients have may be continued, or made void."""
    return spec.model.stream.on_midstream_failure != "error"
