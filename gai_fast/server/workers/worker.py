"""One of several workers: a server that gets its connections from the supervisor, and its link to the supervisor.

Owns the worker's end of `link.py`. `supervisor.py` decides when a worker ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from gai_fast.model.errors import Error, SetupError
from gai_fast.model.settings import Settings
from gai_fast.net.stream.guarding import Built
from gai_fast.runtime.ids import name_worker
from gai_fast.server.admin.drained import DrainedTargets
from gai_fast.server.admission.memory import high_water
from gai_fast.server.edge.accepted_transport import TransportFactory
from gai_fast.server.edge.certificate import Certificate
from gai_fast.server.edge.listening import AcceptFailureLog, Protocols
from gai_fast.server.limits import LIMITS
from gai_fast.server.observe.metrics import PrometheusSink
from gai_fast.server.reload import from_bytes
from gai_fast.server.serving import BoundAddresses, RunningServer, start
from gai_fast.server.workers import totals
from gai_fast.server.workers.bus import Bus
from gai_fast.server.workers.link import LinkMessages, pack, receive_connections
from gai_fast.server.workers.peers import PeerAnswers, PeerBackend, Peers
from gai_fast.server.workers.shared_limits import SupervisorHome
from gai_fast.server.workers.shared_tokens import SupervisorTokens
from gai_fast.server.workers.supervisor import BEAT, RELOAD, WorkerEnds

_log: Final = logging.getLogger("gai_fast.server")
PATIENCE: Final = 2 * LIMITS.counts_wait
"""Seconds for which a worker waits for the supervisor, which waits half as long for the counts of the workers."""


class WorkerCallbacks(Protocol):
    """Handles the supervisor's requests."""

    def counts(self) -> Any:
        """Returns the worker's counts, for the sum of all workers."""

    def use(self, settings: bytes) -> None:
        """Applies a new configuration, from `reload.to_bytes`."""

    def wrong_keys(self, counts: Mapping[str, int]) -> None:
        """Counts wrong keys that another worker has received, by address."""

    def is_sealed(self) -> bool:
        """Returns whether this worker lacks a key of the store."""

    def sealed(self, is_sealed: bool) -> None:
        """Notes whether any worker lacks a key of the store."""


class SupervisorLink(asyncio.Protocol):
    """The worker's end of the messages.

    Attributes:
        highest_number: The highest number of any worker so far.
        stop: Set when the worker must drain: the supervisor requires it, or is gone.
        hurry: Set when the worker must end at once.
        callbacks: Handles the supervisor's other requests. None before the server runs.
    """

    def __init__(self) -> None:
        self.highest_number = 0
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self.callbacks: WorkerCallbacks | None = None
        self._messages = LinkMessages()
        self._early: list[list[Any]] = []
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._asked = 0
        self._is_lost = False
        self._transport: asyncio.WriteTransport

    async def open(self, sock: socket.socket) -> None:
        """Connects the link.

        Args:
            sock: The worker's end of the messages.
        """
        sock.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)

    def serve(self, callbacks: WorkerCallbacks) -> None:
        """Starts to handle the supervisor's requests, including those that have already arrived.

        Args:
            callbacks: The worker.
        """
        self.callbacks = callbacks
        early, self._early = self._early, []
        for kind, *items in early:
            self._heard(kind, items)

    def take_connections(self) -> None:
        """Announces that this worker accepts connections, and sends heartbeats from now on."""
        self.send("ready")
        asyncio.get_running_loop().call_later(LIMITS.worker_beat, self._beat)

    def _beat(self) -> None:
        if not self._is_lost:
            if not self.is_busy:  # otherwise earlier messages still wait to be read
                self.send(BEAT, self.callbacks is not None and self.callbacks.is_sealed())
            asyncio.get_running_loop().call_later(LIMITS.worker_beat, self._beat)

    @property
    def is_busy(self) -> bool:
        """Whether messages to the supervisor wait to be sent."""
        return not self._is_lost and self._transport.get_write_buffer_size() > 0

    def send(self, kind: str, *items: Any) -> None:
        """Sends a message, unless the supervisor is gone. Arguments as for `link.pack`."""
        if not self._is_lost:
            self._transport.write(pack(kind, *items))

    async def all_counts(self) -> list[Any]:
        """Returns the counts of all workers, and the sum of those that have ended.

        Raises:
            Overloaded: The supervisor is gone, or does not answer in time.
        """
        counts: list[Any] = await self._ask("sum", ())
        return counts

    async def ask(self, kind: str, *items: Any) -> Any:
        """Sends a request to the supervisor (`answer` of `Supervisor`); returns the answer.

        Args:
            kind: The kind of request.
            items: Arguments of MessagePack types.

        Raises:
            Overloaded: The supervisor is gone, or does not answer in time.
        """
        return await self._ask("ask", (kind, list(items)))

    async def _ask(self, kind: str, items: tuple[Any, ...]) -> Any:
        if self._is_lost or self._transport.get_write_buffer_size() > LIMITS.link_unsent:
            raise _no_answer()
        self._asked += 1
        number = self._asked
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self.send(kind, number, *items)
        try:
            async with asyncio.timeout(PATIENCE):
                return await answer
        except TimeoutError:
            raise _no_answer() from None
        finally:
            del self._answers[number]

    # -- asyncio --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when the link is connected."""
        self._transport = transport  # type: ignore[assignment]  # a socket's transport

    def data_received(self, data: bytes) -> None:
        """Handles messages of the supervisor. A bug in a message's handler does not end the link."""
        for kind, *items in self._messages.feed(data):
            if kind == "drain":
                self.stop.set()
            elif kind == "hurry":
                self.hurry.set()
            elif kind == "made":
                self.highest_number = items[0]
            elif kind == "answer":  # handled before `serve`: the worker may send requests earlier
                number, answer = items
                asked = self._answers.get(number)
                if asked is not None and not asked.done():
                    asked.set_result(answer)
            elif self.callbacks is None:
                self._early.append([kind, *items])
            else:
                self._heard(kind, items)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drains the worker, because the supervisor is gone."""
        if not self.stop.is_set():
            _log.error("the supervisor is gone: this worker drains")
        self.stop.set()
        self._is_lost = True
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(_no_answer())

    def _heard(self, kind: str, items: list[Any]) -> None:
        assert self.callbacks is not None
        try:
            if kind == "count":
                self.send("counts", items[0], self.callbacks.counts())
            elif kind == "settings":
                self.callbacks.use(items[0])
            elif kind == "wrong_keys":
                self.callbacks.wrong_keys(items[0])
            elif kind == "sealed":
                self.callbacks.sealed(items[0])
        except Exception:  # noqa: BLE001  # without its link the worker would end, and perhaps all of them at once
            _log.exception("a message of the supervisor (%s) could not be handled: a bug", kind)


def _no_answer() -> Error:
    return Error("overloaded", "the supervisor of the workers does not answer in time", reason="workers")


class HandedListener:
    """Accepts the connections that the supervisor sends; a `listening.Listener`.

    Args:
        channel: The worker's end of the channel.
        link: Reports to the supervisor that the worker is idle.
    """

    def __init__(self, channel: socket.socket, link: SupervisorLink) -> None:
        self._channel = channel
        self._link = link
        self._protocols: Protocols
        self._pause: asyncio.TimerHandle | None = None
        self._transports = TransportFactory()
        self._taken = 0
        self._lacks = AcceptFailureLog()
        self._has_last = False
        self._is_idle = False  # whether the worker is idle and has reported it

    async def start(self, protocols: Protocols) -> None:
        """Starts to accept connections; as `Listener.start`."""
        self._protocols = protocols
        self._watch()

    def _watch(self) -> None:
        self._pause = None
        asyncio.get_running_loop().add_reader(self._channel, self._take)

    def begin_drain(self) -> None:
        """Does nothing: the supervisor decides which connections are sent; as `Listener.begin_drain`."""

    async def accept_waiting(self) -> None:
        """Does nothing: connections are accepted as they arrive; as `Listener.accept_waiting`."""

    def stop_taking(self) -> None:
        """Does nothing: the supervisor sends no connection by then; as `Listener.stop_taking`."""

    async def close_if_empty(self) -> bool:
        """Closes once the supervisor has sent the last connection; as `Listener.close_if_empty`."""
        if self._has_last:
            self.close()
            return True
        if not self._is_idle:
            self._is_idle = True
            self._link.send("idle", self._taken)
        return False

    def close(self) -> None:
        """Stops accepting connections; as `Listener.close`."""
        if self._pause is not None:
            self._pause.cancel()
        if self._channel.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
            self._transports.close()

    def _take(self) -> None:
        """Accepts waiting connections, at most `limits.accepted` in a turn of the loop."""
        loop = asyncio.get_running_loop()
        handed = receive_connections(self._channel)
        for _ in range(LIMITS.accepted):
            if self._protocols.room <= 0 or not self._has_descriptor():
                loop.remove_reader(self._channel)  # the channel fills up, which the supervisor notices
                self._pause = loop.call_later(LIMITS.accept_pause, self._watch)
                return
            try:
                connection = next(handed)
            except StopIteration:
                return
            if connection is None:
                self._has_last = True
                loop.remove_reader(self._channel)
                return
            self._taken += 1
            self._is_idle = False
            self._transports.adopt(connection, self._protocols)

    def _has_descriptor(self) -> bool:
        """Returns whether a descriptor is free: without one, the kernel drops a connection that is received."""
        try:
            os.close(os.dup(self._channel.fileno()))
        except OSError as problem:
            self._lacks.note(problem)
            return False
        return True


class Worker:
    """Handles the supervisor's requests for one server, and requests the counts of the other workers.

    Args:
        running: The server of this worker.
        link: The link to the supervisor.
        place: The worker's place, as for `WorkerEnds`.
        certificate: The server's certificate, which is reloaded with a new configuration. None if there is none.
    """

    def __init__(
        self, running: RunningServer, link: SupervisorLink, place: int, certificate: Certificate | None = None
    ) -> None:
        self._running = running
        self._place = place
        self._link = link
        self._certificate = certificate
        self._wrong_keys: dict[str, int] = {}  # not reported to the supervisor yet
        self._renewing: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        running.service.auth_throttle.report = self._note_wrong_key
        running.service.operations.scrapes.gather = self.gather
        running.service.admin.reload = self.reload

    def counts(self) -> Any:
        """Returns the worker's counts; as `WorkerCallbacks.counts`."""
        return totals.dump(self._running.service.metrics)

    def use(self, settings: bytes) -> None:
        """Applies a new configuration; as `WorkerCallbacks.use`."""
        own = _share(from_bytes(settings), self._place)
        if not own.guards and not self._renewing:
            self._use(own, ())
            return
        task = asyncio.get_running_loop().create_task(self._renew(own))
        self._renewing.add(task)
        task.add_done_callback(self._renewing.discard)

    async def _renew(self, settings: Settings) -> None:
        """Builds the guards of a configuration, and applies it behind the one that came before it."""
        async with self._one_at_a_time:
            try:
                self._use(settings, await self._running.engine.build_guards(settings))
            except SetupError as problem:
                _log.error("the configuration is not reloaded: %s", problem)

    def _use(self, settings: Settings, built: Built) -> None:
        self._running.use(settings, built)
        if self._certificate is not None:
            self._certificate.reload()

    def wrong_keys(self, counts: Mapping[str, int]) -> None:
        """Counts wrong keys as if they were received here; as `WorkerCallbacks.wrong_keys`."""
        for address, count in counts.items():
            self._running.service.auth_throttle.note_others(address, count)

    def is_sealed(self) -> bool:
        """Returns whether this worker lacks a key of the store; as `WorkerCallbacks.is_sealed`."""
        return self._running.engine.store.is_sealed

    def sealed(self, is_sealed: bool) -> None:
        """Shows on `/readyz` whether any worker lacks a key of the store; as `WorkerCallbacks.sealed`."""
        self._running.service.operations.is_sealed = is_sealed

    def _note_wrong_key(self, address: str) -> None:
        """Reports a wrong key to the other workers in the next turn of the loop, together with others of this turn."""
        if not self._wrong_keys:
            asyncio.get_running_loop().call_soon(self._report_wrong_keys)
        if len(self._wrong_keys) < LIMITS.reported_addresses or address in self._wrong_keys:
            self._wrong_keys[address] = self._wrong_keys.get(address, 0) + 1

    def _report_wrong_keys(self) -> None:
        if self._link.is_busy:
            asyncio.get_running_loop().call_later(LIMITS.link_pause, self._report_wrong_keys)
            return
        counts, self._wrong_keys = self._wrong_keys, {}
        self._link.send("wrong_keys", counts)

    async def reload(self) -> Mapping[str, Any]:
        """Makes the supervisor reload the configuration; as `admin.routes.Reloading`.

        Raises:
            Error: The supervisor is gone, does not answer in time, or has a bug.
        """
        report: Mapping[str, Any] | None = await self._link.ask(RELOAD)
        if report is None:
            raise Error("internal", "the configuration could not be loaded: the log says why")
        return report

    async def gather(self) -> PrometheusSink:
        """Returns the counts of all workers.

        Raises:
            Overloaded: As `SupervisorLink.all_counts`.
        """
        return totals.total(await self._link.all_counts(), self._running.engine.settings.models)


class Group(NamedTuple):
    """The server that a worker belongs to.

    Attributes:
        name: The server's name in stream ids.
        folder: The private folder of the bus.
    """

    name: str
    folder: Path


async def run_worker(
    settings: Settings, ends: WorkerEnds, bound: BoundAddresses, group: Group, record: Path | None
) -> None:
    """Serves until the supervisor ends the worker. After SIGTERM another worker takes its place.

    Args:
        settings: The configuration.
        ends: The worker's channels.
        bound: The addresses of the server; the supervisor has the sockets.
        group: The server.
        record: As for `serving.start`.

    Raises:
        FunctionError: As `serving.start`.
        StoreError: As `serving.start`.
    """
    name_worker(group.name, ends.number)
    link = SupervisorLink()
    await link.open(ends.link)
    bus = Bus(group.folder, ends.number)
    peers = Peers(bus, link, group.name, ends.number)

    def leave() -> None:
        if not link.stop.is_set():
            link.send("leaving")
            link.stop.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave)
    limits = partial(SupervisorHome, link, ends.number)
    listener = HandedListener(ends.channel, link)
    if bound.certificate is not None:
        bound.certificate.warns = not ends.place
    fetch = SupervisorTokens(link, ends.number, asyncio.get_running_loop()).fetch
    memory = PeerBackend(peers, link)
    running = await start(_share(settings, ends.place), record, bound, listener, memory, limits, fetch)
    try:
        running.service.streams.durable.others = peers
        running.service.admin.others = peers
        running.engine.know_workers(peers.is_gone)
        admin = running.service.admin
        answers = PeerAnswers(running.engine, admin.watches, admin.recent, admin.last_hour)
        await bus.open(answers.handlers)
        await drain_as_others(answers.drained_targets, peers, link)
        link.serve(Worker(running, link, ends.place, bound.certificate))
        link.take_connections()
        await link.stop.wait()
        await running.drain(settings.server.grace, link.hurry)
    finally:
        await running.close()
        bus.close()


async def drain_as_others(drained: DrainedTargets, peers: Peers, link: SupervisorLink) -> None:
    """Drains the targets that an admin has drained before this worker started.

    Retries until the supervisor answers or the worker must drain: a worker without the list would use those targets.

    Args:
        drained: The worker's list.
        peers: The other workers.
        link: The link to the supervisor.
    """
    while not link.stop.is_set():
        try:
            drained.take(*await peers.drained())
        except Error as problem:  # the supervisor does not answer in time
            _log.warning("the targets that are drained are not known yet: %s", problem)
            await asyncio.sleep(LIMITS.link_pause)
        else:
            return


def _share(settings: Settings, place: int) -> Settings:
    """Returns the configuration of one worker, with its share of the server's `[limits]`.

    The shares of all workers add up to the limit. If the limit does not divide evenly, the first workers get one more
    each. A worker gets at least one connection, and `upload_bytes` for at least one body of `max_body`: else a large
    body would be refused forever. Limits of streams, in total and of a caller, are not divided here: `ServerLimits`
    counts streams for the server. Nor is `lane_body`, which is the most of one body, too.

    Args:
        settings: The server's configuration.
        place: The worker's place, as for `WorkerEnds`.
    """
    count, limits = settings.server.workers, settings.limits

    def share(total: int) -> int:
        whole, rest = divmod(total, count)
        return whole + (place < rest)

    mine = replace(
        limits,
        connections=max(1, share(limits.connections)),
        drains=share(limits.drains),
        memory_high_water=high_water(limits) // count,
        upload_bytes=max(share(limits.upload_bytes), min(settings.server.max_body, limits.upload_bytes)),
    )
    return replace(settings, limits=mine)
