"""The streams of a server's other workers: following, cancelling, and the records of `memory://`.

Owns the requests of workers to each other about streams, and their answers. A stream id names its worker
(`runtime/ids.py`), so only the owner gets a request. `bus.py` transports the requests.

1. With `memory://` a log is read from the memory of the worker that writes it. For the store this is a backend without
   copies; the mirrors of `stores/mirror.py` are filled from it as from any other backend.
2. If a worker refuses a connection, it is gone, and its streams fail with `worker_lost`. A busy worker is not gone,
   however long it does not answer: the supervisor kills and replaces a silent worker.
3. Records and kept responses are in the supervisor: there is one, and it outlives every worker.
4. A worker reads few kept responses at a time: a worker that does not read its messages is killed as hung.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.net.engine.engine import Engine
from gai_fast.runtime.ids import worker_of
from gai_fast.server.admin.bodies import RecentRequest, Target, TargetState
from gai_fast.server.admin.drained import DRAINED, DrainedTargets
from gai_fast.server.admin.last_hour import LastHour, Slot
from gai_fast.server.admin.recent_requests import RecentRequests, RequestFilter
from gai_fast.server.admin.running_streams import running_streams
from gai_fast.server.admin.targets import all_targets
from gai_fast.server.admin.watch import WatchedEvents, Watches
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.durable import RunningStream, cancelled, state_of
from gai_fast.server.workers.bus import Bus, Handler, WorkerBusy, WorkerGone
from gai_fast.server.workers.supervisor import WORKERS
from gai_fast.stores import Ending, LogHeader, StreamLog
from gai_fast.stores.backend import (
    Backend,
    CopyChange,
    CopyTail,
    LogCopy,
    Owner,
    Record,
    ResponseBudget,
    ResponseRecord,
    StoreError,
    Unwritten,
    check_size,
)
from gai_fast.stores.memory import ResponseTable
from gai_fast.stores.records import RecordTable, no_room_error

RECORDS: Final = "records"
"""The request to the supervisor that reads or changes a record."""
_NO_ROOM: Final = "no room"
"""The supervisor's answer if it has no room for a record."""


class SupervisorQuestions(Protocol):
    """The part of the supervisor's link that peers use."""

    highest_number: int
    """The highest number of any worker so far."""

    async def ask(self, kind: str, *items: Any) -> Any:
        """Sends a request; returns the answer. Raises `Error` if there is none."""


class Peers:
    """The other workers, as this worker uses them.

    Args:
        bus: Transports the requests.
        supervisor: Has the highest worker number, and answers requests.
        server: The name of the server, as in stream ids.
        number: The number of this worker.
    """

    def __init__(self, bus: Bus, supervisor: SupervisorQuestions, server: str, number: int) -> None:
        self.bus = bus
        self._supervisor = supervisor
        self._server = server
        self._number = number

    def owner_of(self, stream_id: str) -> int | None:
        """Returns the number of the other worker that has, or had, a stream. None if no other worker had it.

        Args:
            stream_id: A stream id, a worker's name, or any other text.
        """
        number = worker_of(stream_id, self._server)
        return None if number is None or number == self._number or number > self._supervisor.highest_number else number

    async def cancel(self, stream_id: str, caller: str) -> dict[str, Any] | None:
        """Cancels a stream of another worker.

        Args:
            stream_id: The stream's id.
            caller: The caller. The streams of other callers count as unknown.

        Returns:
            The stream's state if it has already ended; `{"id", "state"}` if it is cancelled now. None if it is unknown.

        Raises:
            Error: The worker is gone, or does not answer in time.
        """
        state: dict[str, Any] | None = await self._ask(stream_id, "cancel", stream_id, caller)
        return state

    async def running(self, stream_id: str, caller: str) -> RunningStream | None:
        """Returns a stream of another worker. None if it is unknown.

        Args:
            stream_id: The stream's id.
            caller: As for `cancel`.

        Raises:
            Error: The worker is gone, or does not answer in time.
        """
        running = await self._ask(stream_id, "running", stream_id, caller)
        return None if running is None else RunningStream(*running)

    async def all_streams(self) -> list[Any]:
        """Returns the streams of each other worker that answers; as `admin.running_streams.running_streams`."""
        return await self._ask_all("streams")

    async def all_requests(self, wanted: RequestFilter) -> list[Any]:
        """Returns the requests of each other worker that answers; as `RecentRequests.rows`."""
        return await self._ask_all("requests", *wanted)

    async def all_slots(self) -> list[Any]:
        """Returns the last hour of each other worker that answers; as `LastHour.slots`."""
        return await self._ask_all("slots")

    async def cancel_any(self, stream_id: str) -> bool:
        """Cancels a stream of another worker and of any caller; returns whether the stream was running.

        Args:
            stream_id: A stream id, or any other text.

        Raises:
            Error: The worker does not answer in time.
        """
        owner = self.owner_of(stream_id)
        try:
            return owner is not None and bool(await self.bus.ask(owner, "cancel_any", stream_id))
        except WorkerBusy:
            raise _busy() from None
        except WorkerGone:
            return False

    async def report_spend(self) -> None:
        """Makes each other worker report the cost of its streams until now. Ignores workers that do not answer."""
        await self._ask_all("report")

    async def watch(self, stream_id: str, after: int) -> WatchedEvents | None:
        """Returns the events of another worker's stream after a position; as `admin.watch.Watches.news`.

        Args:
            stream_id: A stream id, or any other text.
            after: As for `Watches.news`.

        Raises:
            Error: The worker is gone, or does not answer in time.
        """
        news = await self._ask(stream_id, "watch", stream_id, after)
        return None if news is None else WatchedEvents(*news)

    async def all_targets(self) -> list[Any]:
        """Returns the targets of each other worker that answers; as `admin.targets.all_targets`."""
        return await self._ask_all("targets")

    async def set_drained(self, target: Target, *, is_drained: bool) -> None:
        """Drains a target or undoes it, in all workers and in those that start later.

        This worker gets the list by the bus too: another admin's later change may have arrived during the request to
        the supervisor.

        Args:
            target: The target.
            is_drained: As for `admin.targets.set_drained`.

        Raises:
            Error: The supervisor or a worker does not answer in time.
        """
        number, listed = await self._supervisor.ask(DRAINED, target.model, target.upstream, target.id, is_drained)
        await self._ask_all("drained", number, listed, is_for_all=True)

    async def drained(self) -> tuple[int, list[list[str]]]:
        """Returns the number of the supervisor's list of drained targets, and the list; as for `DrainedTargets.take`.

        Raises:
            Error: The supervisor does not answer in time.
        """
        number, listed = await self._supervisor.ask(DRAINED)
        return number, listed

    async def _ask_all(self, kind: str, *items: Any, is_for_all: bool = False) -> list[Any]:
        """Sends a request to all other workers at once; returns the answers that arrive.

        Args:
            kind: The kind of request.
            items: As for `Bus.ask`.
            is_for_all: Whether this worker gets the request too, and each worker must answer.
        """
        numbers = await self._supervisor.ask(WORKERS)
        asked = [self.bus.ask(each, kind, *items) for each in numbers if is_for_all or each != self._number]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for each in answers:
            if isinstance(each, WorkerBusy) and is_for_all:
                raise Error("overloaded", "a worker does not answer in time: ask again", reason="worker")
            if isinstance(each, BaseException) and not isinstance(each, (WorkerBusy, WorkerGone)):
                raise each
        return [each for each in answers if not isinstance(each, BaseException)]

    async def is_gone(self, worker: str) -> bool | None:
        """Returns whether another worker of this server is gone: rule 2. None if it is no other worker of this server.

        Args:
            worker: The worker's name, or the id of a stream that it began.
        """
        number = self.owner_of(worker)
        if number is None:
            return None
        try:
            await self.bus.ask(number, "ping")
        except WorkerBusy:
            return False
        except WorkerGone:
            return True
        return False

    def by_owner(self, stream_ids: Iterable[str]) -> dict[int, list[str]]:
        """Returns the streams of other workers, by the number of the worker.

        Args:
            stream_ids: Ids of streams of any workers.
        """
        streams: dict[int, list[str]] = {}
        for stream_id in stream_ids:
            owner = self.owner_of(stream_id)
            if owner is not None:
                streams.setdefault(owner, []).append(stream_id)
        return streams

    async def _ask(self, stream_id: str, kind: str, *items: Any) -> Any:
        owner = self.owner_of(stream_id)
        return None if owner is None else await self.ask(owner, kind, *items)

    async def ask(self, owner: int, kind: str, *items: Any) -> Any:
        """Sends a request about a stream to its worker; returns the answer. Arguments as for `Bus.ask`.

        Raises:
            Error: The worker is gone, or does not answer in time.
        """
        try:
            return await self.bus.ask(owner, kind, *items)
        except WorkerBusy:
            raise _busy() from None
        except WorkerGone:
            raise worker_lost() from None


def _busy() -> Error:
    return Error("overloaded", "the worker that has this stream does not answer in time: ask again", reason="worker")


def worker_lost() -> Error:
    """Returns the error for a stream whose log is lost with its worker."""
    return Error("network", "the worker that ran this stream has ended, and its log is lost", reason="worker_lost")


# ---- answers -------------------------------------------------------------------------------------------------------


class PeerAnswers:
    """The handlers for requests of other workers.

    Args:
        engine: The streams of this worker.
        watches: The streams that admins watch.
        recent: The newest requests.
        last_hour: The last hour.

    Attributes:
        drained_targets: The targets that an admin has drained.
    """

    def __init__(self, engine: Engine, watches: Watches, recent: RecentRequests, last_hour: LastHour) -> None:
        self.drained_targets = DrainedTargets(engine)
        self._engine = engine
        self._watches = watches
        self._recent = recent
        self._last_hour = last_hour
        self._turn = 0  # the number of logs in all answers to `tail`

    @property
    def handlers(self) -> dict[str, Handler]:
        """The handlers by the kind of request, for `Bus.open`."""
        return {
            "ping": self.ping,
            "cancel": self.cancel,
            "running": self.running,
            "streams": self.streams,
            "requests": self.requests,
            "slots": self.slots,
            "cancel_any": self.cancel_any,
            "tell": self.tell,
            "watch": self.watch,
            "targets": self.targets,
            "drained": self.drained,
            "load": self.load,
            "tail": self.tail,
            "followed": self.followed,
            "kept": self.kept,
            "report": self.report,
        }

    async def ping(self) -> None:
        """Does nothing: any answer shows that this worker lives."""

    async def cancel(self, stream_id: str, caller: str) -> dict[str, Any] | None:
        """Cancels a stream; returns as `Peers.cancel`."""
        session = self._engine.streams.get(stream_id)
        if session is not None:
            if session.caller != caller:
                return None
            session.cancel()
            return cancelled(stream_id)
        log = self._find(stream_id)
        if log is None or log.header.caller != caller:
            return None
        return cancelled(stream_id) if self._engine.cancel(stream_id) else state_of(log)

    async def streams(self) -> dict[str, Any]:
        """Returns the running streams."""
        return running_streams(self._engine)

    async def requests(self, *wanted: str) -> list[RecentRequest]:
        """Returns the newest requests; arguments as for `RequestFilter`."""
        return self._recent.rows(RequestFilter(*wanted))

    async def slots(self) -> list[Slot]:
        """Returns the last hour."""
        return self._last_hour.slots()

    async def cancel_any(self, stream_id: str) -> bool:
        """Cancels a stream of any caller; returns whether the stream was running."""
        return self._engine.cancel(stream_id)

    async def tell(self, stream_id: str, message: str) -> None:
        """Handles a message about a stream; as `Engine.hear`."""
        self._engine.hear(stream_id, message)

    async def watch(self, stream_id: str, after: int) -> WatchedEvents | None:
        """Returns the events of a stream after a position; as `Watches.news`."""
        return self._watches.news(stream_id, after)

    async def targets(self) -> list[TargetState]:
        """Returns the targets."""
        return all_targets(self._engine)

    async def drained(self, number: int, listed: list[list[str]]) -> None:
        """Drains targets, or undoes it; arguments as for `DrainedTargets.take`."""
        self.drained_targets.take(number, listed)

    async def running(self, stream_id: str, caller: str) -> RunningStream | None:
        """Returns a running stream. None if there is none, or it is another caller's."""
        log = self._find(stream_id)
        if log is not None:  # a stream may have ended before its first batch was stored
            return RunningStream(log.header.model, is_durable=True) if log.header.caller == caller else None
        session = self._engine.streams.get(stream_id)
        if session is None or session.caller != caller:
            return None
        return RunningStream(session.spec.model.name, is_durable=False)

    async def load(self, stream_id: str) -> list[Any] | None:
        """Returns a log, for `PeerBackend.load`: the fields of its header, the number of its last lost event, the text
        up to it, the first part as `_news`, and the name of this worker."""
        log = self._find(stream_id)
        if log is None:
            return None
        backlog = log.read(0, LIMITS.peer_read)
        text = backlog.text if backlog.text is not None and len(backlog.text) <= SHARED.store_reply else None
        return [[*log.header], backlog.lost, text, _news(log, 0), self._engine.store.worker]

    async def tail(self, positions: dict[str, int], wait: float) -> dict[str, Any]:
        """Returns the news of logs. If these are too many bytes, the answer has some of the logs.

        Args:
            positions: The last event that the other worker has, by stream id.
            wait: Seconds to wait for the first news.
        """
        logs = [log for stream_id in positions if (log := self._find(stream_id)) is not None]
        if not any(_has_news(log, positions) for log in logs):
            await _Watch(logs).wait(wait)
        behind = [log for log in logs if _has_news(log, positions)]
        answer: dict[str, Any] = {}
        size = 0
        for at in range(len(behind)):
            log = behind[(self._turn + at) % len(behind)]
            news = answer[log.header.stream_id] = _news(log, positions[log.header.stream_id])
            size += len(news[_PIECE])
            if size >= SHARED.store_reply:
                break
        self._turn += len(answer)  # the next answer begins with the logs that this one leaves out
        return answer

    async def report(self) -> None:
        """Reports this worker's use and spend; returns when that is done."""
        await self._engine.ledger.report()

    async def followed(self, stream_ids: list[str]) -> None:
        """Notes that streams are followed in another worker."""
        for stream_id in stream_ids:
            log = self._find(stream_id)
            if log is not None:
                log.followed_at = self._engine.timers.clock()

    async def kept(self, stream_ids: list[str]) -> list[str]:
        """Returns the streams whose log is here and not broken off."""
        logs = {each: self._find(each) for each in stream_ids}
        return [each for each, log in logs.items() if log is not None and log.broken is None]

    def _find(self, stream_id: str) -> StreamLog | None:
        log = self._engine.store.find_here(stream_id)
        if log is None and self._engine.answers is not None:
            return self._engine.answers.store.find_here(stream_id)
        return log


def _has_news(log: StreamLog, positions: Mapping[str, int]) -> bool:
    return log.last_seq > positions[log.header.stream_id] or log.ending is not None


_PIECE: Final = 2
"""The index of the bytes in the result of `_news`."""


def _news(log: StreamLog, after: int) -> list[Any]:
    """Returns the news of a log after an event: the fields of a record, the end, and whether there is more.

    Uses no `LogCursor`: the other worker has the position, and requests the next part when it needs it.

    Args:
        log: The log.
        after: The number of the event, which is the last of a piece.
    """
    backlog = log.read(after, LIMITS.peer_read)
    begins = max(after, backlog.lost)
    has_more = backlog.last_seq < log.last_seq
    ending = None if log.ending is None or has_more else [*log.ending]
    return [begins, backlog.last_seq, b"".join(backlog.pieces), ending, has_more]


class _Watch:
    """Waits until one of several logs has news."""

    def __init__(self, logs: Sequence[StreamLog]) -> None:
        self._logs = logs
        self._news = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        for log in self._logs:
            log.watch(self)
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass
        finally:
            for log in self._logs:
                log.unwatch(self)

    def advanced(self, piece: bytes, last_seq: int) -> None:
        self._news.set()

    def ended(self) -> None:
        self._news.set()


# ---- questions -----------------------------------------------------------------------------------------------------


_NO_OWNER: Final = Owner("", 0)
"""The owner of a log that nobody can take over."""


class _Question(NamedTuple):
    """A request for news: the positions that were sent to a worker, and its answer."""

    positions: Mapping[str, int]
    answer: asyncio.Future[Any]


class PeerBackend(Backend):
    """The memory of all workers as a store: rules 1 and 3.

    Args:
        peers: The other workers.
        supervisor: Has the records.
    """

    is_copy = False

    def __init__(self, peers: Peers, supervisor: SupervisorQuestions) -> None:
        self._peers = peers
        self._supervisor = supervisor
        self._asked: dict[int, _Question] = {}  # by worker: requests whose news are not all taken yet
        self._reading = asyncio.Semaphore(LIMITS.peer_responses)

    def beside(self) -> PeerBackend:
        """Returns another backend of the same workers, with its own requests for news."""
        return PeerBackend(self._peers, self._supervisor)

    async def open(self) -> None:
        """Does nothing: the bus is open."""

    async def close(self) -> None:
        """Cancels the waits for answers. The worker closes the bus."""
        for question in self._asked.values():
            question.answer.cancel()
        self._asked.clear()

    async def write(self, changes: Sequence[CopyChange]) -> Mapping[str, Unwritten]:
        """Writes nothing: the logs stay where they are."""
        return {}

    async def take_over(
        self, stream_id: str, epoch: int, last_seq: int, header: LogHeader | bytes, worker: str
    ) -> bool:
        """Takes nothing over: a log is lost with its worker."""
        return False

    async def load(self, stream_id: str) -> LogCopy | None:
        """Returns the first part of another worker's log.

        Args:
            stream_id: The stream's id.

        Raises:
            Error: The worker is gone, or does not answer in time.
        """
        owner = self._peers.owner_of(stream_id)
        found = None if owner is None else await self._peers.ask(owner, "load", stream_id)
        if found is None:
            return None
        fields, lost, text, news, worker = found
        return LogCopy(LogHeader(*fields), worker, lost, text, _read_news(news))

    async def tail(self, positions: Mapping[str, int], wait: float) -> Mapping[str, CopyTail]:
        """Returns the news of logs; as `Backend.tail`. The streams of a gone worker have none."""
        by_owner = {
            owner: {stream_id: positions[stream_id] for stream_id in some}
            for owner, some in self._peers.by_owner(positions).items()
        }
        if not by_owner:
            return {}
        news = self._arrived(positions)
        if not news and wait:
            await self._first_answer(by_owner, wait)
            news = self._arrived(positions)
        elif not news:
            questions = (self._peers.bus.ask(owner, "tail", some, 0.0) for owner, some in by_owner.items())
            for answer in await asyncio.gather(*questions, return_exceptions=True):
                if isinstance(answer, dict):
                    news.update({stream_id: _read_news(each) for stream_id, each in answer.items()})
        return news

    def _arrived(self, positions: Mapping[str, int]) -> dict[str, CopyTail]:
        """Returns the news from answers that have arrived. None are dropped: a gone worker cannot send them again.

        Args:
            positions: As for `tail`. News for other positions stay.
        """
        news: dict[str, CopyTail] = {}
        for owner, (asked, question) in [*self._asked.items()]:
            if not question.done():
                continue
            is_lost = question.cancelled() or question.exception() is not None
            answer: dict[str, Any] = {} if is_lost else question.result()
            for stream_id in answer.keys() & positions.keys():
                if positions[stream_id] == asked[stream_id]:
                    news[stream_id] = _read_news(answer.pop(stream_id))
            if not answer:
                del self._asked[owner]
        return news

    async def _first_answer(self, by_owner: Mapping[int, Mapping[str, int]], wait: float) -> None:
        """Sends requests for news, and returns with the first answer. The other requests stay open until the next call,
        so that a worker which answers later than another is read too.
        """
        for owner, question in [*self._asked.items()]:
            if question.answer.done() or by_owner.get(owner) != question.positions:
                del self._asked[owner]
                question.answer.cancel()
        for owner, some in by_owner.items():
            if owner not in self._asked:
                ask = self._peers.bus.ask(owner, "tail", some, wait, wait=wait + SHARED.bus_wait)
                answer = asyncio.ensure_future(ask)
                answer.add_done_callback(lambda each: each.cancelled() or each.exception())  # marks it as retrieved
                self._asked[owner] = _Question(some, answer)
        await asyncio.wait([each.answer for each in self._asked.values()], return_when=asyncio.FIRST_COMPLETED)

    async def leased(self, workers: Collection[str]) -> Collection[str]:
        """Returns the workers that are not gone."""
        are_gone = await asyncio.gather(*map(self._peers.is_gone, workers))
        return {each for each, is_gone in zip(workers, are_gone, strict=True) if not is_gone}

    async def kept(self, stream_ids: Collection[str]) -> Mapping[str, Owner]:
        """Returns the streams whose worker has their log. A stream of a busy worker counts as kept."""
        by_owner = self._peers.by_owner(stream_ids)
        answers = await asyncio.gather(
            *(self._peers.bus.ask(owner, "kept", some) for owner, some in by_owner.items()), return_exceptions=True
        )
        kept: dict[str, Owner] = {}
        for some, answer in zip(by_owner.values(), answers, strict=True):
            if isinstance(answer, WorkerBusy):
                kept.update(dict.fromkeys(some, _NO_OWNER))
            elif isinstance(answer, list):
                kept.update(dict.fromkeys(answer, _NO_OWNER))
        return kept

    async def renew(self, worker: str, *, is_behind: bool = False) -> bool:
        """Does nothing: a living worker answers."""
        return True

    async def give_up(self, worker: str) -> None:
        """Does nothing: a gone worker does not answer."""

    async def note_followers(self, stream_ids: Collection[str]) -> None:
        """Sends a note to the streams' workers, which set it on their logs."""
        by_owner = self._peers.by_owner(stream_ids)
        wait = SHARED.lease_renewal  # a busy worker must not delay the next note, which is due then
        asked = (self._peers.bus.ask(owner, "followed", some, wait=wait) for owner, some in by_owner.items())
        await asyncio.gather(*asked, return_exceptions=True)  # a gone worker has no streams

    async def followed_ago(self, stream_id: str) -> float | None:
        """Returns None: the log has the time of the last note."""
        return None

    async def tell(self, worker: str, stream_id: str, message: str) -> None:
        """Sends a message to a worker over the bus, for `PeerAnswers.tell`.

        Args:
            worker: The worker's name. Nothing is sent to a worker of another server.
            stream_id: The stream's id.
            message: The message.

        Raises:
            Error: The worker is gone, or does not answer in time.
        """
        owner = self._peers.owner_of(worker)
        if owner is not None:
            await self._peers.ask(owner, "tell", stream_id, message)

    async def messages(self, worker: str, wait: float) -> Collection[tuple[str, str]]:
        """Returns no messages, after the wait: the bus delivers them."""
        await asyncio.sleep(wait)
        return ()

    async def sweep(self) -> bool:
        """Does nothing: each worker removes its own expired logs."""
        return False

    async def get(self, kind: str, name: str) -> bytes | None:
        """Returns the value of a record; as `Records.get`."""
        found: bytes | None = await self._ask("get", kind, name)
        return found

    async def put(self, kind: str, name: str, value: bytes, ttl: float | None, holder: str = "") -> None:
        """Writes a record; as `Records.put`."""
        check_size(value)
        await self._ask("put", kind, name, value, ttl, holder)

    async def swap(
        self,
        kind: str,
        name: str,
        old: bytes | None,
        new: bytes,
        ttl: float | None,
        holder: str = "",
        *,
        is_synced: bool = False,
    ) -> bytes | None:
        """Writes a record if its value is `old`; as `Records.swap`."""
        check_size(new)
        found: bytes | None = await self._ask("swap", kind, name, old, new, ttl, holder)
        return found

    async def delete(self, kind: str, name: str, old: bytes | None = None) -> bool:
        """Removes a record; as `Records.delete`."""
        return bool(await self._ask("delete", kind, name, old))

    async def keep_response(self, record: ResponseRecord[bytes], ttl: float, budget: ResponseBudget) -> int:
        """Keeps a response; as `Backend.keep_response`."""
        dropped: int = await self._ask("keep_response", record, ttl, budget)
        return dropped

    async def read_responses(self, names: Sequence[str], turns: int, most: int) -> Sequence[tuple[str, bytes]]:
        """Returns kept responses; as `Backend.read_responses`, but some at a time: rule 4."""
        async with self._reading:
            found = await self._ask("read_responses", names, turns, min(most, SHARED.store_reply))
        return [(name, value) for name, value in found]

    async def responses_with(self, items: Mapping[str, str]) -> Mapping[str, str]:
        """Returns the names of kept responses with some items; as `Backend.responses_with`."""
        found: dict[str, str] = await self._ask("responses_with", items)
        return found

    async def delete_response(self, name: str) -> bool:
        """Removes a kept response; as `Backend.delete_response`."""
        return bool(await self._ask("delete_response", name))

    async def _ask(self, call: str, *items: Any) -> Any:
        try:
            answer = await self._supervisor.ask(RECORDS, call, *items)
        except Error as problem:
            raise StoreError("unreachable", str(problem)) from None
        if answer == _NO_ROOM:
            raise no_room_error()
        return answer


def _read_news(news: list[Any]) -> CopyTail:
    begins, last_seq, piece, ending, has_more = news
    records = [Record(begins, last_seq, piece)] if piece else []
    return CopyTail(records, None if ending is None else Ending(*ending), has_more=has_more)


class RecordHome:
    """The records and kept responses of `memory://` in the supervisor. They outlive the workers."""

    def __init__(self) -> None:
        table = RecordTable(time.monotonic)
        responses: ResponseTable[bytes] = ResponseTable(time.monotonic)
        self._calls: Final[Mapping[str, Callable[..., Any]]] = {
            "get": table.get,
            "put": table.put,
            "swap": table.swap,
            "delete": table.delete,
            "keep_response": lambda record, ttl, budget: responses.keep(
                ResponseRecord(*record), ttl, ResponseBudget(*budget)
            ),
            "read_responses": responses.read,
            "responses_with": responses.holding,
            "delete_response": responses.delete,
        }

    def answer(self, items: Sequence[Any]) -> Any:
        """Answers a worker's request.

        Args:
            items: The name of a method of `PeerBackend` and its arguments, as it sends them.
        """
        call, *arguments = items
        try:
            return self._calls[call](*arguments)
        except Error:
            return _NO_ROOM
