"""The handlers of `/admin/v1/`.

Owns the bodies of their responses. `server/admission/admit.py` has already authorized the caller.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from msgspec import convert
from msgspec.structs import replace

from gai_fast.model.errors import Error
from gai_fast.model.settings import Settings
from gai_fast.net.engine.engine import Engine
from gai_fast.server.admin import bodies, targets
from gai_fast.server.admin.bodies import Target, TargetState, plain
from gai_fast.server.admin.changes import changes
from gai_fast.server.admin.feed import Feed
from gai_fast.server.admin.follow import ShownStreams
from gai_fast.server.admin.key_routes import KeyRoutes
from gai_fast.server.admin.last_hour import LastHour, Slot
from gai_fast.server.admin.last_hour import together as slots_together
from gai_fast.server.admin.recent_requests import RecentRequests, RequestFilter, read_filter
from gai_fast.server.admin.recent_requests import together as all_together
from gai_fast.server.admin.running_streams import running_streams, running_sums, timestamp, together
from gai_fast.server.admin.samples import Sampler
from gai_fast.server.admin.spend_report import SpendQuery, read_query, spend_csv, spend_report
from gai_fast.server.admin.targets import read_target
from gai_fast.server.admin.today import Today
from gai_fast.server.admin.watch import WatchedEvents, Watches
from gai_fast.server.admission.run_time_keys import RunTimeKeys
from gai_fast.server.http.replies import Reply, id_headers
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.limits import LIMITS
from gai_fast.server.observe.metrics import PrometheusSink
from gai_fast.server.observe.scrape import Scrapes
from gai_fast.server.requests.durable import cancelled, stream_error
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.pending import PendingAnswers, Work
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.stores.backend import StoreError
from gai_fast.stores.health import out_of_reach

Reloading = Callable[[], Awaitable[Mapping[str, Any]]]
"""Reloads the configuration. Returns a `Reloaded.report`, and raises an `Error` if no process answers."""


class OtherWorkers(Protocol):
    """The other workers, as in `peers.Peers`."""

    async def all_streams(self) -> Sequence[Mapping[str, Any]]:
        """Returns the result of `running_streams` of each worker that answers."""

    async def all_requests(self, wanted: RequestFilter) -> Sequence[list[dict[str, Any]]]:
        """Returns the result of `RecentRequests.rows` of each worker that answers."""

    async def all_slots(self) -> Sequence[list[Slot]]:
        """Returns the result of `LastHour.slots` of each worker that answers."""

    async def cancel_any(self, stream_id: str) -> bool:
        """Cancels a stream of another worker, of any caller. Returns whether such a stream was running."""

    async def report_spend(self) -> None:
        """Makes each worker that answers report the cost of its streams so far."""

    async def watch(self, stream_id: str, after: int) -> WatchedEvents | None:
        """Returns the events of another worker's stream after a place. `None` if there is no such stream.

        Raises:
            Error: The worker is gone, or does not answer in time.
        """

    async def all_targets(self) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Returns the result of `targets.all_targets` of each worker that answers."""

    async def set_drained(self, target: Target, *, is_drained: bool) -> None:
        """Drains or restores a target in all workers, including this one. The last change of all admins wins."""


class AdminRoutes:
    """The handlers for one engine.

    Args:
        engine: The streams of this worker.
        metrics: The counts of this worker.
        scrapes: Gathers the counts of all workers.
        keys: The keys of the store.

    Attributes:
        others: The other workers. `None` if there are none.
        reload: Reloads the configuration. `None` if the configuration belongs to another application.
        keys: The handlers of `/admin/v1/keys`.
        feed: The dashboards.
        recent: The newest requests of this worker.
        last_hour: The last hour of this worker.
        follows: The responses that show streams.
        watches: The followed streams of this worker.
        audit: Writes the audit log's line of a request whose response begins and lasts. None if there is no audit log.
    """

    def __init__(self, engine: Engine, metrics: PrometheusSink, scrapes: Scrapes, keys: RunTimeKeys) -> None:
        self.others: OtherWorkers | None = None
        self.reload: Reloading | None = None
        self.feed = Feed(self)
        self.recent = RecentRequests()
        self.last_hour = LastHour(metrics, partial(running_sums, engine))
        self.follows = ShownStreams()
        self.watches = Watches(engine)
        self.audit: Callable[[HTTPRequest], None] | None = None
        self._sampler = Sampler(self._counts, self._all_streams)
        self._today = Today(engine.ledger)
        self._engine = engine
        self._metrics = metrics
        self._scrapes = scrapes
        self._settings = engine.settings
        self.keys = KeyRoutes(engine, keys, self._hear_of_spend, self._wait)
        self._last_change: bodies.LastChange | None = None
        self._pending = PendingAnswers()

    def use(self, settings: Settings) -> None:
        """Uses another configuration from now on. Dashboards must reconnect with their key.

        Args:
            settings: The configuration.
        """
        self._last_change = bodies.LastChange(timestamp(time.time()), changes(self._settings, settings))
        self._settings = settings
        self.feed.end_all()
        self.follows.end_all()

    def begin_drain(self) -> None:
        """Ends the responses that have no end of their own, and starts no more."""
        self.feed.begin_drain()
        self.follows.begin_drain()

    def close(self) -> None:
        """Ends these responses and their tasks."""
        self.begin_drain()
        self.last_hour.close()
        self.feed.close()
        self.watches.close()

    # -- routes --

    def streams(self, incoming: Incoming) -> None:
        """`GET /admin/v1/streams`: the running streams of all workers."""

        async def answer() -> Reply:
            found = await self._all_streams()
            return incoming.json_reply(plain(bodies.RunningStreams(found["total"], found["data"])))

        self._wait(incoming, answer())

    def requests(self, incoming: Incoming) -> None:
        """`GET /admin/v1/requests`: the newest requests of all workers that have ended."""
        wanted = read_filter(incoming.query)

        async def answer() -> Reply:
            parts: list[Sequence[bodies.RecentRequest | Mapping[str, Any]]] = [self.recent.rows(wanted)]
            if self.others is not None:
                parts += await self.others.all_requests(wanted)
            return incoming.json_reply(plain(bodies.RecentRequests(all_together(parts))))

        self._wait(incoming, answer())

    def history(self, incoming: Incoming) -> None:
        """`GET /admin/v1/history`: the figures of the last hour, of all workers."""

        async def answer() -> Reply:
            parts = [self.last_hour.slots()]
            if self.others is not None:
                parts += await self.others.all_slots()
            return incoming.json_reply(plain(bodies.History(LIMITS.history_slot, slots_together(parts))))

        self._wait(incoming, answer())

    def follow(self, incoming: Incoming) -> None:
        """`GET /admin/v1/streams/{id}`: the events of any caller's stream from now on, as server-sent events."""
        self.follows.check()
        response = StreamResponse(incoming, "", "text/event-stream", self._settings.stream, whole=False)
        self._pending.add(incoming, response, self._follow(incoming, response))

    def cancel(self, incoming: Incoming) -> None:
        """`DELETE /admin/v1/streams/{id}`: cancels a stream of any caller."""
        self._wait(incoming, self._cancel(incoming, incoming.tail))

    def spend(self, incoming: Incoming) -> None:
        """`GET /admin/v1/spend`: the spend by key, model, upstream or day, as JSON or CSV."""
        self._wait(incoming, self._spend(incoming, read_query(incoming.query)))

    def targets(self, incoming: Incoming) -> None:
        """`GET /admin/v1/targets`: the targets of models, of all workers."""

        async def answer() -> Reply:
            return incoming.json_reply(plain(await self._all_targets()))

        self._wait(incoming, answer())

    def drain(self, incoming: Incoming) -> None:
        """`POST /admin/v1/targets/drain`: starts no more streams at a target; running streams continue."""
        self._change_target(incoming, is_drained=True)

    def restore(self, incoming: Incoming) -> None:
        """`POST /admin/v1/targets/restore`: restores a drained target."""
        self._change_target(incoming, is_drained=False)

    def reload_configuration(self, incoming: Incoming) -> None:
        """`POST /admin/v1/reload`: reloads the configuration, as SIGHUP does; the response lists the changes."""
        self._wait(incoming, self._reload(incoming))

    def events(self, incoming: Incoming) -> None:
        """`GET /admin/v1/events`: samples of the figures, one a second, as server-sent events."""
        self.feed.add(incoming, self._settings.stream)

    # -- own --

    async def sample(self) -> bodies.Sample:
        """Returns a sample for the dashboards, as `feed.Samples.sample`."""
        sample = await self._sampler.sample()
        return replace(sample, spend=await self._today.spend(), configuration=self._last_change)

    def _wait(self, incoming: Incoming, work: Work) -> None:
        response = StreamResponse(incoming, "", "", self._settings.stream, whole=True)
        self._pending.add(incoming, response, work)

    async def _counts(self) -> PrometheusSink:
        gather = self._scrapes.gather
        return self._metrics if gather is None else await gather()

    async def _all_streams(self) -> dict[str, Any]:
        parts: list[Mapping[str, Any]] = [running_streams(self._engine)]
        if self.others is not None:
            parts += await self.others.all_streams()
        return together(parts)

    async def _all_targets(self) -> list[TargetState]:
        parts: list[Sequence[TargetState | Mapping[str, Any]]] = [targets.all_targets(self._engine)]
        if self.others is not None:
            parts += await self.others.all_targets()
        return targets.together(parts)

    def _change_target(self, incoming: Incoming, *, is_drained: bool) -> None:
        target = read_target(incoming.json_body())
        if incoming.http.action is not None:
            incoming.http.action = incoming.http.action[0], f"{target.model} {target.upstream} {target.id}"
        self._wait(incoming, self._set_drained(incoming, target, is_drained=is_drained))

    async def _set_drained(self, incoming: Incoming, target: Target, *, is_drained: bool) -> Reply:
        if not targets.set_drained(self._engine, target, is_drained=is_drained):
            raise _no_target()
        if self.others is not None:
            await self.others.set_drained(target, is_drained=is_drained)
        place = target.model, target.upstream, target.id
        for row in await self._all_targets():
            if (row.model, row.upstream, row.id) == place:
                return incoming.json_reply(plain(row))
        raise _no_target()  # a reload has removed the target

    async def _follow(self, incoming: Incoming, response: StreamResponse) -> None:
        stream_id = incoming.tail
        first = await self._news(stream_id, 0)
        if first is None:
            raise stream_error()
        self.follows.check()
        if self.audit is not None:
            self.audit(incoming.http)
        response.stream_id = stream_id
        self.follows.begin(response, partial(self._news, stream_id), first)

    async def _news(self, stream_id: str, after: int) -> WatchedEvents | None:
        news = self.watches.news(stream_id, after)
        if news is None and self.others is not None:
            return await self.others.watch(stream_id, after)
        return news

    async def _cancel(self, incoming: Incoming, stream_id: str) -> Reply:
        is_own = self._engine.cancel(stream_id)
        if not is_own and (self.others is None or not await self.others.cancel_any(stream_id)):
            raise stream_error()
        return incoming.json_reply(cancelled(stream_id), status=202)

    async def _spend(self, incoming: Incoming, query: SpendQuery) -> Reply:
        ledger = self._engine.ledger
        await self._hear_of_spend()
        try:
            if query.as_csv:
                headers = [("content-type", "text/csv; charset=utf-8"), ("cache-control", "no-store")]
                body = (await spend_csv(ledger, query)).encode()
                return Reply(200, body, [*headers, *id_headers(incoming.http.request_id), *incoming.answer_headers])
            return incoming.json_reply(plain(await spend_report(ledger, query, self._settings.prices.date)))
        except StoreError as problem:
            raise out_of_reach("spend") from problem

    async def _hear_of_spend(self) -> None:
        """Updates the ledger with all streams that have ended so far, in all workers."""
        if self.others is not None:
            await self.others.report_spend()

    async def _reload(self, incoming: Incoming) -> Reply:
        if self.reload is None:
            text = "the configuration belongs to the application that this one is mounted in"
            raise Error("unsupported", text, reason="reload")
        report = await self.reload()
        if report["problem"]:
            raise Error("invalid_request", f"the configuration is not reloaded: {report['problem']}", reason="reload")
        return incoming.json_reply(plain(convert(report, bodies.Reloaded)))


def _no_target() -> Error:
    return Error("not_found", "there is no such target: GET /admin/v1/targets lists them", reason="target")
