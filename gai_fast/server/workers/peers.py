"""The streams of a server's other workers: following, cancelling, and the records of `memory://`.

Owns the questions that workers ask each other about streams, and their answers. A stream id names its worker
(`runtime/ids.py`), so nobody is asked but the owner; `bus.py` carries the questions.

1. With `memory://` a log is read from the memory of the worker that writes it. To the store that is a backend that
   nothing is copied to; the mirrors of `stores/mirror.py` fill from it as from any other.
2. A worker that is gone refuses its connection, and that is the signal: its streams are `worker_lost`. One that is busy
   is not gone, however long it does not answer: the supervisor kills and replaces a worker that is silent.
3. Records are the supervisor's: it outlives every worker, and is one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.net.stream.streams import Engine
from gai_fast.runtime.ids import worker_of
from gai_fast.server.admin.drained import DRAINED, Drained
from gai_fast.server.admin.running_streams import running_streams
from gai_fast.server.admin.targets import Target, all_targets
from gai_fast.server.admin.watch import News as StreamNews
from gai_fast.server.admin.watch import Watches
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.durable import Running, cancelled, state_of
from gai_fast.server.workers.bus import Bus, Handler, WorkerBusy, WorkerGone
from gai_fast.server.workers.supervisor import WORKERS
from gai_fast.stores import Ending, LogHeader, StreamLog
from gai_fast.stores.backend import Backend, Change, Copy, News, Record, StoreError, check_size
from gai_fast.stores.records import RecordTable, no_room

RECORDS: Final = "records"
"""The question that asks the supervisor for a change of its records, or for one."""
_NO_ROOM: Final = "no room"
"""The supervisor's answer if it has no room for a record."""


class SupervisorQuestions(Protocol):
    """The supervisor, as peers need it."""

    made: int
    """The highest number of any worker so far."""

    async def ask(self, kind: str, *items: Any) -> Any:
        """Returns its answer; raises `Error` where none comes."""


class Peers:
    """The other workers of this one.

    Args:
        bus: Carries the questions.
        supervisor: Knows which workers there have been.
        server: The name of the server, as in stream ids.
        number: The number of this worker.
    """

    def __init__(self, bus: Bus, supervisor: SupervisorQuestions, server: str, number: int) -> None:
        self.bus = bus
        self._supervisor = supervisor
        self._server = server
        self._number = number

    def owner_of(self, stream_id: str) -> int | None:
        """The number of the other worker that has, or had, a stream; `None`: it is no stream of another worker.

        Args:
            stream_id: A stream id or a worker's name, perhaps neither.
        """
        number = worker_of(stream_id, self._server)
        return None if number is None or number == self._number or number > self._supervisor.made else number

    async def cancel(self, stream_id: str, caller: str) -> dict[str, Any] | None:
        """Cancels a stream of another worker.

        Args:
            stream_id: The stream's id.
            caller: The caller; to others the stream is unknown.

        Returns:
            Its state, if it has ended already; `{"id", "state"}` alone, if it is cancelled now; `None`: there is none.

        Raises:
            Error: The worker is gone, or does not answer in time.
        """
        state: dict[str, Any] | None = await self._ask(stream_id, "cancel", stream_id, caller)
        return state

    async def running(self, stream_id: str, caller: str) -> Running | None:
        """Returns a stream that another worker has; `None`: there is none.

        Args:
            stream_id: The stream's id.
            caller: As for `cancel`.

        Raises:
            Error: The worker is gone, or does not answer in time.
        """
        running = await self._ask(stream_id, "running", stream_id, caller)
        return None if running is None else Running(*running)

    async def all_streams(self) -> list[Any]:
        """Returns the streams of each other worker that answers, as `admin.streams.running_streams`."""
        return await self._ask_all("streams")

    async def cancel_any(self, stream_id: str) -> bool:
        """Cancels a stream of another worker, whoever's it is; returns whether there was one that ran.

        Args:
            stream_id: Perhaps no stream id at all.

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
        """Has each other worker that answers report what its streams have cost until now."""
        await self._ask_all("report")

    async def watch(self, stream_id: str, after: int) -> StreamNews | None:
        """Returns the events of another worker's stream after a place, as `admin.watch.Watches.news`.

        Args:
            stream_id: Perhaps no stream id at all.
            after: As for `Watches.news`.

        Raises:
            Error: The worker is gone, or does not answer in time.
        """
        news = await self._ask(stream_id, "watch", stream_id, after)
        return None if news is None else StreamNews(*news)

    async def all_targets(self) -> list[Any]:
        """Returns the targets of each other worker that answers, as `admin.targets.all_targets`."""
        return await self._ask_all("targets")

    async def set_drained(self, target: Target, *, is_drained: bool) -> None:
        """Takes a target out, or back in, in all workers, and in those that start later.

        This worker takes the list, too: another admin's later change may have come here while the supervisor was asked.

        Args:
            target: The target.
            is_drained: As for `admin.targets.set_drained`.

        Raises:
            Error: The supervisor or a worker does not answer in time.
        """
        number, listed = await self._supervisor.ask(DRAINED, target.model, target.upstream, target.id, is_drained)
        await self._ask_all("drained", number, listed, is_for_all=True)

    async def drained(self) -> tuple[int, list[list[str]]]:
        """Returns the number of the supervisor's list of drained targets, and the list, as for `Drained.take`.

        Raises:
            Error: The supervisor does not answer in time.
        """
        number, listed = await self._supervisor.ask(DRAINED)
        return number, listed

    async def _ask_all(self, kind: str, *items: Any, is_for_all: bool = False) -> list[Any]:
        """Asks all other workers at once; returns the answers of those that answer.

        Args:
            kind: The kind of question.
            items: As for `Bus.ask`.
            is_for_all: It is for this worker, too, and each must answer.
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
            worker: Its name, or the id of a stream that it began.
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
        """Returns the streams of other workers, by the numbers of those.

        Args:
            stream_ids: Of all workers.
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
        """Asks a worker about a stream of its own; arguments as for `Bus.ask`.

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
    """The error of a stream whose worker is gone, and its log with it."""
    return Error("network", "the worker that ran this stream is gone, and what it had of it", reason="worker_lost")


# ---- answers -------------------------------------------------------------------------------------------------------


class Answers:
    """The answers of a worker to the questions of the others.

    Args:
        engine: Its streams.
        watches: The streams that are followed.

    Attributes:
        drained_targets: The targets that an admin has taken out.
    """

    def __init__(self, engine: Engine, watches: Watches) -> None:
        self.drained_targets = Drained(engine)
        self._engine = engine
        self._watches = watches
        self._turn = 0  # how many logs all answers to `tail` had

    @property
    def handlers(self) -> dict[str, Handler]:
        """The answers by the kind of question, for `Bus.open`."""
        return {
            "ping": self.ping,
            "cancel": self.cancel,
            "running": self.running,
            "streams": self.streams,
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
        """Answers, as this worker is there."""

    async def cancel(self, stream_id: str, caller: str) -> dict[str, Any] | None:
        """Cancels a stream; returns what `Peers.cancel` does."""
        session = self._engine.streams.get(stream_id)
        if session is not None:
            if session.caller != caller:
                return None
            session.cancel()
            return cancelled(stream_id)
        log = self._find(stream_id)
        return None if log is None or log.header.caller != caller else state_of(log)

    async def streams(self) -> dict[str, Any]:
        """Returns the streams that run."""
        return running_streams(self._engine)

    async def cancel_any(self, stream_id: str) -> bool:
        """Cancels a stream, whoever's it is; returns whether there was one that ran."""
        session = self._engine.streams.get(stream_id)
        if session is not None:
            session.cancel()
        return session is not None

    async def tell(self, stream_id: str, message: str) -> None:
        """Handles a message about a stream; as `Engine.hear`."""
        self._engine.hear(stream_id, message)

    async def watch(self, stream_id: str, after: int) -> StreamNews | None:
        """Returns the events of a stream after a place; as `Watches.news`."""
        return self._watches.news(stream_id, after)

    async def targets(self) -> list[dict[str, Any]]:
        """Returns the targets."""
        return all_targets(self._engine)

    async def drained(self, number: int, listed: list[list[str]]) -> None:
        """Takes targets out, or back in; arguments as for `Drained.take`."""
        self.drained_targets.take(number, listed)

    async def running(self, stream_id: str, caller: str) -> Running | None:
        """Returns a stream that runs; `None`: there is none that this caller may see."""
        log = self._find(stream_id)
        if log is not None:  # it may have ended before its first batch was stored
            return Running(log.header.model, is_durable=True) if log.header.caller == caller else None
        session = self._engine.streams.get(stream_id)
        if session is None or session.caller != caller:
            return None
        return Running(session.spec.model.name, is_durable=False)

    async def load(self, stream_id: str) -> list[Any] | None:
        """Returns the fields of a log's header, what it has lost, the text of that, its beginning as `_news`, and the
        name of this worker."""
        log = self._find(stream_id)
        if log is None:
            return None
        backlog = log.read(0, LIMITS.peer_read)
        text = backlog.text if backlog.text is not None and len(backlog.text) <= SHARED.store_reply else None
        return [[*log.header], backlog.lost, text, _news(log, 0), self._engine.store.worker]

    async def tail(self, positions: dict[str, int], wait: float) -> dict[str, Any]:
        """Returns the news of logs; where that is too many bytes, of some of them.

        Args:
            positions: The last event that the asker has, by stream id.
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
        self._turn += len(answer)  # the next answer begins with those that are left out here
        return answer

    async def report(self) -> None:
        """Reports what this worker has used and spent; answers when that is done."""
        await self._engine.ledger.report()

    async def followed(self, stream_ids: list[str]) -> None:
        """Notes that streams are followed in another worker."""
        for stream_id in stream_ids:
            log = self._find(stream_id)
            if log is not None:
                log.followed_at = self._engine.timers.clock()

    async def kept(self, stream_ids: list[str]) -> list[str]:
        """Returns those of the streams whose log is here and not broken off."""
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
"""The place of the bytes in what `_news` returns."""


def _news(log: StreamLog, after: int) -> list[Any]:
    """Returns what a log has after an event: its record, its end, and whether there is more.

    No `LogCursor`: the other worker has the position, and asks for the next part when it wants it.

    Args:
        log: The log.
        after: The number of the event, the last one of a piece.
    """
    backlog = log.read(after, LIMITS.peer_read)
    begins = max(after, backlog.lost)
    has_more = backlog.last_seq < log.last_seq
    ending = None if log.ending is None or has_more else [*log.ending]
    return [begins, backlog.last_seq, b"".join(backlog.pieces), ending, has_more]


class _Watch:
    """Waits for the first of some logs that goes on."""

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


class _Question(NamedTuple):
    """The positions that a worker was asked about, and its answer."""

    positions: Mapping[str, int]
    answer: asyncio.Future[Any]


class PeerBackend(Backend):
    """The memory of all workers, as a store: rules 1 and 3.

    Args:
        peers: The others.
        supervisor: Has the records.
    """

    is_copy = False

    def __init__(self, peers: Peers, supervisor: SupervisorQuestions) -> None:
        self._peers = peers
        self._supervisor = supervisor
        self._asked: dict[int, _Question] = {}  # by worker: those whose news are not all taken yet

    def beside(self) -> PeerBackend:
        """Returns another one, whose questions about logs are its own."""
        return PeerBackend(self._peers, self._supervisor)

    async def open(self) -> None:
        """Does nothing: the bus is there."""

    async def close(self) -> None:
        """Waits for no answer any more; the bus is the worker's."""
        for question in self._asked.values():
            question.answer.cancel()
        self._asked.clear()

    async def write(self, changes: Sequence[Change]) -> Collection[str]:
        """Writes nothing: the logs stay where they are."""
        return ()

    async def load(self, stream_id: str) -> Copy | None:
        """Returns the beginning of another worker's log.

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
        return Copy(LogHeader(*fields), worker, lost, text, _read_news(news))

    async def tail(self, positions: Mapping[str, int], wait: float) -> Mapping[str, News]:
        """Returns what is new; as `Backend.tail`. Of a worker that is gone nothing is."""
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

    def _arrived(self, positions: Mapping[str, int]) -> dict[str, News]:
        """Takes the news out of the answers that have come: their worker may be gone by now, and never tell them again.

        Args:
            positions: As for `tail`; other news stay.
        """
        news: dict[str, News] = {}
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
        """Asks, and returns with the first answer. The other questions stand until the next call, so that a worker
        which answers later than another has its turn as well.
        """
        for owner, question in [*self._asked.items()]:
            if question.answer.done() or by_owner.get(owner) != question.positions:
                del self._asked[owner]
                question.answer.cancel()
        for owner, some in by_owner.items():
            if owner not in self._asked:
                ask = self._peers.bus.ask(owner, "tail", some, wait, wait=wait + SHARED.bus_wait)
                answer = asyncio.ensure_future(ask)
                answer.add_done_callback(lambda each: each.cancelled() or each.exception())  # nobody may look at it
                self._asked[owner] = _Question(some, answer)
        await asyncio.wait([each.answer for each in self._asked.values()], return_when=asyncio.FIRST_COMPLETED)

    async def leased(self, workers: Collection[str]) -> Collection[str]:
        """Returns those of the workers that are not gone."""
        are_gone = await asyncio.gather(*map(self._peers.is_gone, workers))
        return {each for each, is_gone in zip(workers, are_gone, strict=True) if not is_gone}

    async def kept(self, stream_ids: Collection[str]) -> Collection[str]:
        """Returns those of the streams whose worker has their log, and those of busy workers, which may have it."""
        by_owner = self._peers.by_owner(stream_ids)
        answers = await asyncio.gather(
            *(self._peers.bus.ask(owner, "kept", some) for owner, some in by_owner.items()), return_exceptions=True
        )
        kept: set[str] = set()
        for some, answer in zip(by_owner.values(), answers, strict=True):
            if isinstance(answer, WorkerBusy):
                kept.update(some)
            elif isinstance(answer, list):
                kept.update(answer)
        return kept

    async def renew(self, worker: str, *, is_behind: bool = False) -> bool:
        """Does nothing: a worker that lives answers."""
        return True

    async def give_up(self, worker: str) -> None:
        """Does nothing: a worker that is gone does not answer."""

    async def note_followers(self, stream_ids: Collection[str]) -> None:
        """Tells the streams' workers, which note it at their logs."""
        by_owner = self._peers.by_owner(stream_ids)
        wait = SHARED.lease_renewal  # the next note is sent then, and a busy worker must not hold it up
        asked = (self._peers.bus.ask(owner, "followed", some, wait=wait) for owner, some in by_owner.items())
        await asyncio.gather(*asked, return_exceptions=True)  # one that is gone has no streams

    async def followed_ago(self, stream_id: str) -> float | None:
        """Returns `None`: it stands at the log."""
        return None

    async def tell(self, worker: str, stream_id: str, message: str) -> None:
        """Sends a message to a worker over the bus, which hands it to `Answers.tell`.

        Args:
            worker: The worker's name; to one of another server nothing is sent.
            stream_id: The stream's id.
            message: The message.

        Raises:
            Error: The worker is gone, or does not answer in time.
        """
        owner = self._peers.owner_of(worker)
        if owner is not None:
            await self._peers.ask(owner, "tell", stream_id, message)

    async def messages(self, worker: str, wait: float) -> Collection[tuple[str, str]]:
        """Returns none, after the wait: the bus brings them."""
        await asyncio.sleep(wait)
        return ()

    async def sweep(self) -> bool:
        """Removes nothing: the workers do."""
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
        self, kind: str, name: str, old: bytes | None, new: bytes, ttl: float | None, holder: str = ""
    ) -> bytes | None:
        """Writes a record if its value is `old`; as `Records.swap`."""
        check_size(new)
        found: bytes | None = await self._ask("swap", kind, name, old, new, ttl, holder)
        return found

    async def delete(self, kind: str, name: str, old: bytes | None = None) -> bool:
        """Removes a record; as `Records.delete`."""
        return bool(await self._ask("delete", kind, name, old))

    async def _ask(self, call: str, *items: Any) -> Any:
        try:
            answer = await self._supervisor.ask(RECORDS, call, *items)
        except Error as problem:
            raise StoreError("unreachable", str(problem)) from None
        if answer == _NO_ROOM:
            raise no_room()
        return answer


def _read_news(news: list[Any]) -> News:
    begins, last_seq, piece, ending, has_more = news
    records = [Record(begins, last_seq, piece)] if piece else []
    return News(records, None if ending is None else Ending(*ending), has_more=has_more)


class RecordHome:
    """The records of `memory://` in the supervisor, for all workers and for those that are gone."""

    def __init__(self) -> None:
        table = RecordTable(time.monotonic)
        self._calls: Final[Mapping[str, Callable[..., Any]]] = {
            "get": table.get,
            "put": table.put,
            "swap": table.swap,
            "delete": table.delete,
        }

    def answer(self, items: Sequence[Any]) -> Any:
        """Answers a worker.

        Args:
            items: A call of `RecordTable` and its arguments, as `PeerBackend` sends them.
        """
        call, *arguments = items
        try:
            return self._calls[call](*arguments)
        except Error:
            return _NO_ROOM
