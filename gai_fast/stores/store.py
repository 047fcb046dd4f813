"""The store as the rest of the gateway uses it: logs in memory, copied to a backend if one is configured.

Owns the parts of a store, their start and end, and the lease of this process.

1. Every log is in the memory of this process (`memory.py`). If there is a backend, logs that are written here are
   copied to it (`journal.py`), and logs of other processes are filled from it (`mirror.py`).
2. No stream depends on the backend: while it fails, streams run on. A request that needs the backend, to look up an
   idempotency key or the stream of an id, is refused as `overloaded`.
3. A bug on the way to the backend does not end the upkeep: a worker without a lease would count as gone.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from itertools import islice
from secrets import randbelow
from typing import Any, Final, Literal, Protocol

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import SealSettings, StoreSettings
from gai_fast.runtime.ids import new_worker_name
from gai_fast.runtime.timers import Timers
from gai_fast.stores._base import Claim, Closing, EndsInstead, GoesOn, LogHeader, TakeOver
from gai_fast.stores.alive import Alive, IsGone
from gai_fast.stores.backend import (
    CLAIMS,
    DROP,
    Backend,
    CopyChange,
    Owner,
    Records,
    StoreError,
    claim_text,
    read_claim,
)
from gai_fast.stores.health import Health, logger, out_of_reach
from gai_fast.stores.journal import Journal
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.memory import SPARE, LogMemory, StreamLog
from gai_fast.stores.messages import Hear, StoreMessages
from gai_fast.stores.mirror import CheckRoom, Close, Mirrors, Succession, ToldOf, has_room
from gai_fast.stores.owned_ids import OwnedIds
from gai_fast.stores.records import ClaimBudget, MemoryRecords
from gai_fast.stores.responses import KeptResponses
from gai_fast.stores.stored_keys import StoredKeys

_FIRST_WAIT: Final = 0.02
_LONGEST_WAIT: Final = 0.4
"""Shortest and longest pause between two lookups of the stream that holds a key, in seconds."""

_WAITS: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.0)
"""Seconds after each lookup of a stream whose first batch is being written."""

_SECOND_LOOK: Final = (0.1, 0.0)
"""Seconds after each lookup of a stream that may have just begun: its first batch takes `journal_interval`."""

_NO_ROOM: Final = (
    "the requests and runs of running streams have half of `max_bytes` in [store], and a caller has as much as is free:"
    " there is no room for more, and a stream would end with this worker"
)

ClosingOf = Callable[[StreamLog, int, EndsInstead], Closing]
"""Returns the end of a log whose owner is gone. Its arguments are the log, with all that is stored; the number of its
`stream.gap`, or 0 for none; and why it ends."""

GoingOn = Callable[[StreamLog, Owner, int, bytes], Awaitable[GoesOn | EndsInstead]]
"""Goes on with a stream whose owner is gone. Its arguments are the log, with all that is stored; the owner; the number
of the log's `stream.gap`; and the stream's request. It may raise `NoRoom`."""


class NoteClosed(Protocol):
    """Notes that a log was closed whose owner is gone."""

    def __call__(
        self, log: StreamLog, taken: TakeOver, kept: int | None, told: Mapping[str, Any], *, is_refused: bool
    ) -> None:
        """Notes it.

        Args:
            log: The log.
            taken: The change of its owner.
            kept: As in `Closing`.
            told: As in `EndsInstead`.
            is_refused: Whether the stream was not to go on here, for a limit or a key.
        """


Durability = Literal["memory", "durable", "degraded"]
"""The loss if this process ends: all that its memory holds; the last 30 ms; all since the store has failed."""


class Store:
    """The logs of all streams, and the idempotency keys.

    Args:
        settings: `[store]`.
        timers: The loop's timers.
        backend: Keeps copies of the logs. None if no copies are kept.
        claim_ttl: Seconds for which an idempotency key is taken.
        claims: The kind of record for idempotency keys.
    """

    def __init__(
        self,
        settings: StoreSettings,
        timers: Timers,
        backend: Backend | None = None,
        *,
        claim_ttl: float,
        claims: str = CLAIMS,
    ) -> None:
        self.memory = LogMemory(settings, timers)
        self.worker = new_worker_name()
        """The name of this process in the store: the owner of the streams that it runs. Nothing else has this name."""
        self._settings = settings
        self._backend = backend
        self._clock = timers.clock
        self._claim_ttl = claim_ttl
        self._budget = ClaimBudget(claim_ttl, timers.clock)
        self._records: Records = MemoryRecords(timers.clock) if backend is None else backend
        self._claims = claims
        self._health = Health(timers.clock)
        self.ids = OwnedIds(self._records, self._health)
        """The ids of things that upstreams store for callers."""
        self.responses = KeptResponses(backend, self._health, timers.clock)
        """The responses of the Responses API that are kept."""
        self.keys = StoredKeys(self._records, is_shared=backend is not None, clock=timers.clock)
        """The keys that admins make at run time."""
        self._journal: Journal | None = None
        self._mirrors: Mirrors | None = None
        self._alive = None if backend is None else Alive(backend)
        self._messages: StoreMessages | None = None
        self.hear: Hear | None = None
        """Handles messages of other processes about streams of this one; set before `open`."""
        self.stop_generation: Callable[[str], None] | None = None
        """Stops the upstream of a stream that another process has taken over. Its argument is the stream's id."""
        self.closing_of: ClosingOf | None = None
        """Returns the end of a log whose owner is gone; set before `open`. None if such logs get none."""
        self.going_on: GoingOn | None = None
        """Goes on with a stream whose owner is gone; set before `open`. None if all such logs are closed."""
        self.told_of: ToldOf | None = None
        """Finds out what the end of a cancelled stream says; set before `open`. None if nothing is known."""
        self.closed: NoteClosed | None = None
        """Called as a log is closed whose owner is gone."""
        self.check_room: CheckRoom = has_room
        """Checks whether this process may go on with one more such stream now."""
        self._upkeep: list[asyncio.Task[None]] = []
        self._abandoned: set[asyncio.Task[None]] = set()  # the tasks of `abandon`
        self._unfreed: OrderedDict[tuple[str, str], tuple[str, bool]] = OrderedDict()  # the keys of `_note_unfreed`

    @property
    def records(self) -> Records:
        """Small values that all processes of the store share."""
        return self._records

    @property
    def durability(self) -> Durability:
        """Whether streams outlive this process; shown by `/readyz`."""
        if self._backend is None or not self._backend.is_copy:
            return "memory"
        return "degraded" if self.is_degraded else "durable"

    @property
    def is_degraded(self) -> bool:
        """Whether the backend fails."""
        return self._health.problem is not None

    @property
    def is_slow(self) -> bool:
        """Whether the backend was lately too slow for a request."""
        return self._health.is_slow

    @property
    def is_sealed(self) -> bool:
        """Whether something in the backend was found to be sealed with a key that this process lacks."""
        return self._backend is not None and self._backend.is_sealed

    @property
    def sealed_errors(self) -> int:
        """The number of reads and writes that failed because of that."""
        return 0 if self._backend is None else self._backend.sealed_errors

    async def rotate(self, settings: SealSettings) -> None:
        """Uses other keys for the backend; as `Backend.rotate`."""
        if self._backend is not None:
            await self._backend.rotate(settings)

    async def open(self) -> None:
        """Opens the backend and starts the upkeep; called before the first stream.

        Raises:
            StoreError: The backend cannot be used.
        """
        if self._backend is None or self._alive is None:
            return
        await self._backend.open()
        await self._backend.seal_anew()
        await self._backend.renew(self.worker)
        self._mirrors = Mirrors(self._backend, self.memory, self._health, self.worker, self._alive)
        self._messages = StoreMessages(self._backend, self._health, self.worker)
        upkeep = [self._keep_lease(self._backend, self._alive)]
        if self._backend.is_copy:
            self._journal = Journal(
                self._backend, self.memory, self._settings, self._health, self.worker, self._clock, self._leave_to_other
            )
            if self.closing_of is not None:
                close = self._mirrors.close_log = partial(self._closing, self._journal, self.closing_of)
                if self.going_on is not None and self._settings.takeover:
                    self._mirrors.go_on = partial(self._go_on, self._journal, self.going_on, close)
                    self._mirrors.told_of = self.told_of
                    self._mirrors.check_room = self.check_room
            upkeep.append(self._keep_clean(self._backend))
            if self.hear is not None:
                upkeep.append(self._messages.serve(self.hear))
        for each in upkeep:
            self._upkeep.append(asyncio.ensure_future(each))

    async def close(self) -> None:
        """Writes pending changes, for some seconds at most, and releases everything. All streams must have ended."""
        for task in self._upkeep:
            task.cancel()
        ending = [*self._upkeep, *self._abandoned, *self.ids.under_way, *self.responses.under_way]
        if ending:
            await asyncio.wait(ending, timeout=LIMITS.store_close)
        if self._mirrors is not None:
            await self._mirrors.close()
        if self._journal is not None:
            await self._journal.close()
        if self._backend is not None:
            try:
                if self._upkeep and not self.is_degraded:
                    await self._backend.give_up(self.worker)
            except StoreError as problem:
                self._health.failed(problem)
            await self._backend.close()
        self._mirrors = self._journal = self._messages = None
        self._upkeep = []
        self.memory.clear()

    def know_workers(self, is_gone: IsGone) -> None:
        """Sets how to find out about the other workers of this server: rule 1 of `alive.py`.

        Args:
            is_gone: Returns whether a worker is gone.
        """
        if self._alive is not None:
            self._alive.in_server = is_gone

    # -- logs --

    @property
    def keeps_requests(self) -> bool:
        """Whether another worker may go on with a stream whose worker is gone."""
        return self._settings.takeover and self._backend is not None and self._backend.is_copy

    def create(self, header: LogHeader, request: bytes | None = None) -> StreamLog:
        """Makes the log of a new stream.

        Args:
            header: Describes the stream.
            request: What is needed to go on with the stream. None if there is none. Without copies the log keeps it. It
                is not kept if there is no room for it.

        Raises:
            Overloaded: There is no room for another stream.
        """
        log = self.memory.create(header, request)
        if request is not None and log.request is None:
            self._health.lost(_NO_ROOM)
        if self._journal is not None:
            self._journal.begin(log)
        return log

    def count_run(self, stream_id: str, size: int, *, is_there: bool = False, part: str = "") -> bool:
        """Counts what is kept of a run; as `LogMemory.count_run`."""
        has_room = self.memory.count_run(stream_id, size, is_there=is_there, part=part)
        if not has_room:
            self._health.lost(_NO_ROOM)
        return has_room

    async def request_of(self, log: StreamLog) -> bytes | None:
        """Returns what goes on with a stream of this process, as `create` got it. None if there is none.

        Args:
            log: The log of the stream, which has not ended.

        Raises:
            StoreError: The backend fails.
        """
        if log.request or log.request is None or self._backend is None:
            return log.request
        return await self._backend.request_of(log.header.stream_id)

    def when_begun(self, log: StreamLog, then: Callable[[], None]) -> bool:
        """Returns whether a new stream waits for the store before its upstream is asked (`before_send`).

        Args:
            log: The stream's log.
            then: Called once, later, if it waits. Must not raise.
        """
        return self._journal is not None and self._journal.when_begun(log, then)

    async def stored(self, log: StreamLog | None) -> bool:
        """Returns whether the store has all that the log of a running stream has now, as soon as that is known.

        Args:
            log: The log. None for a stream that has none.
        """
        if log is None or self._backend is None or not self._backend.is_copy:
            return log is not None  # the memory of this process is the store
        return self._journal is not None and await self._journal.stored(log)

    def _leave_to_other(self, log: StreamLog) -> None:
        """Stops writing a log whose copy has another owner; as for `Journal`. Its followers stay: it becomes a mirror.

        A log that has ended is dropped: another process knows how the stream goes on.
        """
        if self.stop_generation is not None:
            self.stop_generation(log.header.stream_id)
        if log.is_over or self._mirrors is None:
            self.memory.forget(log)
        else:
            self._mirrors.adopt(log)

    def _closing(self, journal: Journal, closing_of: ClosingOf, log: StreamLog, refusal: EndsInstead) -> Succession:
        """Makes the end of a log; as `mirror.Close`.

        With `before_send` no client has seen an event that is not stored. Otherwise the events of the end have numbers
        that no client has seen.
        """
        gap = 0 if journal.is_ahead else owners_number(log.last_seq)
        piece, last_seq, ending, kept = closing_of(log, gap, refusal)

        def close(taken: TakeOver) -> None:
            log.request = b""  # if the copy has a request, it goes with the end
            journal.go_on(log, taken.epoch, is_end=True)
            if piece:
                log.append(piece, last_seq)
            log.end(ending)
            if self.closed is not None:
                self.closed(log, taken, kept, refusal.told, is_refused=refusal.error is not None)

        return Succession(close, _nothing, is_end=True)

    async def _go_on(
        self, journal: Journal, going_on: GoingOn, close: Close, log: StreamLog, owner: Owner, request: bytes
    ) -> Succession:
        """Goes on with a stream; as `mirror.GoOn`."""
        found = await going_on(log, owner, owners_number(log.last_seq), request)
        if isinstance(found, EndsInstead):
            return close(log, found)

        def go_on(taken: TakeOver) -> None:
            self.memory.count_request(log, request)
            journal.go_on(log, taken.epoch, is_end=False)
            found.begin(taken)

        return Succession(go_on, found.withdraw, is_end=False, told=found.told)

    @property
    def is_taking_over(self) -> bool:
        """Whether a stream is being taken over, so that this process may run it in a moment."""
        return self._mirrors is not None and self._mirrors.is_taking_over

    async def let_go(self, logs: Collection[StreamLog]) -> None:
        """Lets streams of this process go, so that any other process goes on with them at once.

        A stream that the store does not have within `limits.handover` counts as that of a lost worker.

        Args:
            logs: Their logs, to which nothing is appended any more.
        """
        journal = self._journal
        if journal is None or not logs:
            return
        leaving = [asyncio.ensure_future(journal.let_go(log)) for log in logs]
        _, late = await asyncio.wait(leaving, timeout=LIMITS.handover)
        for task in late:
            task.cancel()
        outcomes = await asyncio.gather(*leaving, return_exceptions=True)
        for log, outcome in zip(logs, outcomes, strict=True):
            if outcome is True:
                self.memory.forget(log)  # who asks here is told what others make of it
            elif isinstance(outcome, Exception) and not isinstance(outcome, StoreError):
                logger.error("a stream was not handed over: a bug", exc_info=outcome)
        count = outcomes.count(True)
        logger.info("streams that other workers go on with: %d", count)
        if count < len(outcomes):
            logger.warning("streams that count as those of a lost worker: %d", len(outcomes) - count)

    def find_here(self, stream_id: str) -> StreamLog | None:
        """Returns the log of a stream from the memory of this process. None if it is not there."""
        return self.memory.find(stream_id)

    async def find(
        self,
        stream_id: str,
        *,
        is_running: bool = False,
        asks: bool = True,
        caller: str | None = None,
        canceller: str | None = None,
    ) -> StreamLog | None:
        """Returns the log of a stream of any process. None if there is no such stream, or its log was removed.

        Args:
            stream_id: The stream's id.
            is_running: Whether the stream is known to run, so that its copy will appear.
            asks: Whether the stream is to go on, or to end, if its worker is gone.
            caller: Who asks: nobody makes another caller's stream go on. None for who may.
            canceller: The caller who cancels the stream, if it is theirs and its worker is gone. None to leave it.

        Raises:
            Error: The backend is out of reach, its copy is damaged, or there is no room.
        """
        log = self.memory.find(stream_id)
        if log is not None or self._mirrors is None or self._backend is None:
            return log
        for wait in _WAITS if is_running else await self._second_look(stream_id):
            log = await self._mirrors.find(stream_id, asks=asks, caller=caller, canceller=canceller)
            if log is not None or not self._backend.is_copy:
                return log
            await asyncio.sleep(wait)
        # A worker that lives may still write the copy.
        if is_running or self._backend.has_lost or await self._is_any_late():
            raise out_of_reach()
        return None

    async def cancel(self, log: StreamLog) -> None:
        """Cancels a stream that runs in another process; returns when its log here has ended.

        Args:
            log: The log that `find` returned.

        Raises:
            Error: The backend is out of reach, or that process does not answer.
        """
        worker = None if self._mirrors is None else self._mirrors.cancel(log.header.stream_id)
        if self._messages is not None and worker is not None:
            await self._messages.cancel(log, worker)

    async def tell(self, log: StreamLog, message: str) -> None:
        """Sends a message about a stream to the process that runs it, which may be this one. If that is gone, this one
        goes on with the stream, and is told.

        Args:
            log: The log that `find` returned.
            message: A text of `limits.message` characters at most.

        Raises:
            Error: The backend is out of reach, or that process does not answer.
        """
        stream_id = log.header.stream_id
        worker = None if self._mirrors is None else await self._mirrors.ask(stream_id)
        if self._messages is not None and worker not in (None, self.worker):
            await self._messages.tell(str(worker), stream_id, message)
        elif self.hear is not None:
            self.hear(stream_id, message)

    async def drop(self, log: StreamLog) -> None:
        """Drops the log of a stream that has ended: here, in the process that has run it, and its copy.

        A third process that has read the log keeps it for its time to live.

        Args:
            log: The log that `find` returned.

        Raises:
            Error: The backend is out of reach.
        """
        stream_id = log.header.stream_id
        worker = None if self._mirrors is None else self._mirrors.worker_of(stream_id)
        self.memory.forget(log)
        if self._backend is None:
            return
        if self._messages is not None and worker not in (None, self.worker):
            with suppress(Error):  # a worker that is gone has no log
                await self._messages.tell(str(worker), stream_id, DROP)
        if self._backend.is_copy:
            try:
                await self._backend.write([CopyChange(stream_id, is_dropped=True)])
            except StoreError as problem:
                raise self._health.refusal(problem) from None

    def drop_here(self, stream_id: str) -> None:
        """Drops the log of a stream that has ended from the memory of this process, as another process asks."""
        log = self.memory.find(stream_id)
        if log is not None and log.is_over:
            self.memory.forget(log)

    @property
    def is_shared(self) -> bool:
        """Whether streams of this process can be followed in others."""
        return self._backend is not None

    async def followed_ago(self, log: StreamLog) -> float:
        """Returns the seconds since a stream of this process was last followed in another. Infinity if it never was.

        While the backend fails, no other process can read the stream, so it has no followers there.

        Args:
            log: The stream's log.
        """
        ago: float | None = None
        if self._backend is not None:
            try:
                ago = await self._backend.followed_ago(log.header.stream_id)
            except StoreError as problem:
                self._health.failed(problem)
        return min(self._clock() - log.followed_at, math.inf if ago is None else ago)

    def lost(self, header: LogHeader, position: int, error: Error) -> StreamLog:
        """Returns a broken log for a stream whose own log is lost.

        Args:
            header: Describes the stream.
            position: The number of the last event that is known.
            error: The error with which the log ends.
        """
        log = StreamLog(self.memory, header)
        log.skip(position, None)
        log.break_off(error)
        return log

    # -- idempotency keys --

    def use(self, claim_ttl: float) -> None:
        """Sets the time for which keys are taken from now on. Keys that are taken already keep theirs.

        Args:
            claim_ttl: Seconds.
        """
        self._claim_ttl = claim_ttl
        self._budget.use(claim_ttl)

    def keep(self, ttl: float, max_bytes: int) -> None:
        """Sets the time to live of logs that end from now on, and the size of all logs; as `LogMemory.keep`.

        Args:
            ttl: Seconds after the end of a stream.
            max_bytes: Bytes of all logs.
        """
        self._settings = replace(self._settings, ttl=ttl, max_bytes=max_bytes)
        self.memory.keep(ttl, max_bytes)
        if self._journal is not None:
            self._journal.keep(ttl, max_bytes)

    async def claim(self, key: str, claim: Claim, caller: str = "") -> Claim | None:
        """Takes an idempotency key; atomic over all processes that share the store.

        Args:
            key: The key, together with the caller's name and the route that it belongs to.
            claim: The stream that takes the key.
            caller: The caller that the key is counted for (`ClaimBudget`).

        Returns:
            The claim that already holds the key. Its stream can be found unless its worker is gone. None if the key
            was free.

        Raises:
            Error: The backend is out of reach, its record is damaged, or there is no room for more keys.
        """
        self._health.check(caller)
        self._budget.take(caller)
        claiming = asyncio.ensure_future(self._claim(_digest(key), claim, caller))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:  # the client has disconnected, so the stream will not start
            claiming.add_done_callback(lambda _: self._give_back(key, claim, caller, claiming))
            raise

    async def find_claim(self, key: str, caller: str | None = None) -> Claim | None:
        """Returns the claim that holds a key. None if the key is free.

        Args:
            key: As for `claim`.
            caller: Who asks; as for `Health.check`.

        Raises:
            Error: The backend is out of reach, or its record is damaged.
        """
        self._health.check(caller)
        try:
            found = await self._records.get(self._claims, _digest(key))
            return None if found is None else read_claim(found)
        except StoreError as problem:
            raise self._refusal(problem) from None

    async def _claim(self, digest: str, claim: Claim, caller: str) -> Claim | None:
        standing: Claim | None = claim
        text = claim_text(claim)
        wait, waited = _FIRST_WAIT, 0.0
        try:
            while True:
                found = await self._records.swap(self._claims, digest, None, text, self._claim_ttl, caller)
                standing = None if found in (None, text) else read_claim(found)
                if standing is None or await self._is_settled(standing.stream_id):
                    break
                age = max(0.0, (claim.at_ms - standing.at_ms) / 1e3)
                if age + waited >= SHARED.claim_settling:
                    break
                await asyncio.sleep(wait)  # the key was just taken, and the first batch is being written
                waited += wait
                wait = min(2 * wait, _LONGEST_WAIT)
        except StoreError as problem:
            self._note_unfreed(digest, claim.stream_id, caller)  # the failed call may have taken the key
            raise self._refusal(problem) from None
        finally:
            if standing is not None:
                self._budget.give_back(caller)
        return standing

    def _refusal(self, problem: StoreError) -> Error:
        """Notes why a key could not be read or taken; returns the error of its request."""
        if self._is_of_one_key(problem):
            return Error("internal", "the store's record of this key is damaged", reason="log_damaged")
        return self._health.refusal(problem)

    def _is_of_one_key(self, problem: StoreError) -> bool:
        """Returns whether only one key is damaged, which says nothing about the store. Logs it."""
        if problem.fault == "damaged":
            logger.warning("an idempotency key cannot be read: %s", problem)
            return True
        return False

    def _give_back(self, key: str, claim: Claim, caller: str, claiming: asyncio.Task[Claim | None]) -> None:
        if not claiming.cancelled() and claiming.exception() is None and claiming.result() is None:
            self.abandon(key, claim.stream_id, caller)

    def abandon(self, key: str, stream_id: str, caller: str = "") -> None:
        """Frees a key as `release` does, without waiting.

        Args:
            key: As for `claim`.
            stream_id: The stream's id.
            caller: As for `claim`.
        """
        releasing = asyncio.ensure_future(self.release(key, stream_id, caller))
        self._abandoned.add(releasing)
        releasing.add_done_callback(self._abandoned.discard)

    async def release(self, key: str, stream_id: str, caller: str = "") -> None:
        """Frees a key whose stream failed before its first content. Does nothing if another stream holds the key.

        Args:
            key: As for `claim`.
            stream_id: The stream's id.
            caller: As for `claim`.
        """
        digest = _digest(key)
        try:
            is_freed = await self._release(digest, stream_id)
        except StoreError as problem:
            if not self._is_of_one_key(problem):  # a damaged key expires by itself
                self._health.refusal(problem)
                self._note_unfreed(digest, stream_id, caller, is_counted=True)
            return
        if is_freed:
            self._budget.give_back(caller)

    async def _release(self, digest: str, stream_id: str) -> bool:
        """Frees a key if the stream holds it; returns whether the key was freed."""
        found = await self._records.get(self._claims, digest)
        if found is None or read_claim(found).stream_id != stream_id:
            return False
        return await self._records.delete(self._claims, digest, found)

    def _note_unfreed(self, digest: str, stream_id: str, caller: str, *, is_counted: bool = False) -> None:
        """Remembers a key that must be freed once the backend answers again.

        A retried request may have several streams, and any of them may hold the key.

        Args:
            digest: The key's name in the store.
            stream_id: A stream that may hold the key.
            caller: As for `claim`.
            is_counted: Whether the budget still counts the key.
        """
        if len(self._unfreed) >= LIMITS.claims:
            # The caller with the most makes room, more than need be, so that the search costs little for each key.
            ((most, number),) = Counter(each for each, _ in self._unfreed.values()).most_common(1)
            oldest = (name for name, (each, _) in self._unfreed.items() if each == most)
            for name in list(islice(oldest, 1 + number // SPARE)):
                del self._unfreed[name]
        self._unfreed[digest, stream_id] = caller, is_counted

    async def _is_settled(self, stream_id: str) -> bool:
        """Returns whether the stream can be found, or its worker is known to be gone."""
        if self._backend is None or self.memory.find(stream_id) is not None or await self._backend.kept([stream_id]):
            return True
        return self._alive is not None and bool(await self._alive.is_known_gone(stream_id))

    async def _second_look(self, stream_id: str) -> tuple[float, ...]:
        """Returns the seconds after each lookup of a stream of no known worker.

        Another machine may have begun it, and lost the store at the same moment. That is known only
        after `limits.lease_late` without a renewal, so the last lookup comes then.

        Args:
            stream_id: The stream's id.
        """
        backend, alive = self._backend, self._alive
        if backend is None or alive is None or not backend.spans_machines:
            return _SECOND_LOOK
        is_of_this_server = alive.in_server is not None and await alive.in_server(stream_id) is not None
        return _SECOND_LOOK if is_of_this_server else (*_SECOND_LOOK[:-1], LIMITS.lease_late, 0.0)

    async def _is_any_late(self) -> bool:
        """Returns whether a worker may run streams that the store does not have yet.

        Raises:
            Overloaded: The store is out of reach.
        """
        try:
            return self._alive is not None and await self._alive.is_any_late(self.worker)
        except StoreError as problem:
            self._health.failed(problem)
            raise out_of_reach() from None

    # -- upkeep --

    async def _keep_lease(self, backend: Backend, alive: Alive) -> None:
        while True:
            await asyncio.sleep(SHARED.lease_renewal)
            alive.beat()
            try:
                is_behind = self._journal is not None and self._journal.is_behind
                had_lease = await backend.renew(self.worker, is_behind=is_behind)
                await self._free_keys()
                await self.ids.add_waiting()
                await self.responses.remove_late()
                if self._journal is None or not self._journal.is_failing:
                    self._health.worked()
                if self._journal is not None:
                    self._journal.keep_alive(at_once=not had_lease)
            except StoreError as problem:
                self._health.failed(problem)
            except Exception as problem:  # noqa: BLE001  # rule 3
                self._health.broke("the lease of this worker was not renewed", problem)

    async def _free_keys(self) -> None:
        """Frees the keys of `_note_unfreed`, for one renewal interval at most. The rest follows the next renewal."""
        until = self._clock() + SHARED.lease_renewal
        while self._unfreed and self._clock() < until:
            (digest, stream_id), (caller, is_counted) = self._unfreed.popitem(last=False)
            try:
                is_freed = await self._release(digest, stream_id)
            except StoreError as problem:
                if problem.fault in ("damaged", "sealed"):  # of one record, which expires by itself
                    continue
                self._unfreed[digest, stream_id] = caller, is_counted
                raise
            if is_freed and is_counted:
                self._budget.give_back(caller)

    async def _keep_clean(self, backend: Backend) -> None:
        """Removes expired copies and records, until it is cancelled."""
        while True:
            has_more = False
            try:
                has_more = await backend.sweep()
            except StoreError as problem:
                self._health.failed(problem)
            except Exception as problem:  # noqa: BLE001  # rule 3
                self._health.broke("what is past its time was not removed from the store", problem)
            await asyncio.sleep(SHARED.store_poll if has_more else LIMITS.store_sweep_interval)


def _nothing() -> None:
    """Gives nothing back."""


def owners_number(last_seq: int) -> int:
    """Returns the number of a new owner's first event, which no other owner uses (`limits.takeover_step`).

    Args:
        last_seq: The number of the last event that is stored.
    """
    return last_seq + (1 + randbelow(LIMITS.takeover_steps)) * LIMITS.takeover_step


def _digest(key: str) -> str:
    """Returns a key's name in a store: it has a fixed length, and nothing of the caller's text."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32, person=b"gai-fast claim").hexdigest()
