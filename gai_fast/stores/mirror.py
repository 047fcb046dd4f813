"""Mirrors: logs of streams that other workers run, filled from the store for the followers in this process.

Owns the mirrors and the tasks that fill them. `alive.py` decides whether a worker is gone.

1. A mirror is an ordinary log in the memory of this process. A follower of another worker's stream, or of a stream from
   before a restart, reads it as any other log.
2. One task fills all mirrors, one checks their workers, and one notes in the store which streams are followed. With
   three tasks, a worker that answers late delays no stream of another worker. The tasks run while there are mirrors
   whose streams have not ended. A mirror without watchers is dropped after a while, and made again when it is needed.
3. A record must begin at the end of the mirror; otherwise the mirror is broken off. If the copy has dropped the missing
   records, the followers resume and get a new mirror with an explicit gap. Otherwise the copy is damaged.
4. If a worker is gone, the copies that somebody asks for are read to their ends once more. This process takes such a
   copy over, and goes on with its stream or writes its end, once for all. If another process is faster, its events are
   read. A copy that cannot be taken over, such as one of an earlier release, breaks off with `worker_lost`. A mirror
   without watchers is dropped: who asks next finds that the worker is gone. If a worker lives, the store may have lost
   its copy, or may not show it to this process. The followers wait for `limits.mirror_patience` until the copy is
   written again; then they must resume. A copy that this process has taken over and does not write, as the store's
   answer was lost, is let go.
5. The store notes which streams are followed here, for their workers, as often as a lease is renewed.
6. Every read is limited (`limits.mirror_streams`, `mirror_reads`). The filling task reads the rest.
7. A shared read that takes the store too long may hold one caller's large pieces: each of its copies is read alone,
   beside the others, and those whose news are small go back. A copy that is too slow alone breaks off alone.
8. A log of this process whose copy has another owner is adopted: from then on it is a mirror, and its followers stay.
   Its events that the copy lacks are void. The new owner's first event says so (`stream.gap`); if the copy ends without
   one, before the end of the log, the log breaks off with `log_behind`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, Final, NamedTuple

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.runtime.ids import EVENT_NUMBERS
from gai_fast.runtime.places import HalvedPlaces
from gai_fast.stores._base import (
    CALLS,
    NOTHING_TOLD,
    EndsInstead,
    LogHeader,
    NoRoom,
    NotYet,
    TakeOver,
    damaged,
    frames_after,
    kept_before_gap,
)
from gai_fast.stores.alive import Alive
from gai_fast.stores.backend import LAST_EPOCH, Backend, CopyTail, LogCopy, Owner, Record, StoreError
from gai_fast.stores.health import ASKS, Health, logger, out_of_reach, store_sealed
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.memory import LogMemory, StreamLog
from gai_fast.stores.messages import UntilOver

_NO_NEWS: Final = CopyTail([])
_DAMAGED: Final = CopyTail([], is_damaged=True)


_Work = Callable[[], Coroutine[Any, Any, None]]
Begin = Callable[[TakeOver], None]
"""Called once a copy is taken over: goes on with its stream, or ends its log."""


class Succession(NamedTuple):
    """What this process does with a log whose owner is gone, once it owns the log's copy.

    Attributes:
        begin: Does it.
        withdraw: Gives back what was taken for it, if this process does not become the owner.
        is_end: Whether the log only gets its end.
        told: As in `EndsInstead`, if the stream is cancelled before it goes on.
    """

    begin: Begin
    withdraw: Callable[[], None]
    is_end: bool
    told: Mapping[str, Any] = NOTHING_TOLD


Close = Callable[[StreamLog, EndsInstead], Succession]
"""Ends a log. Raises an `Error` for a log that is damaged."""
GoOn = Callable[[StreamLog, Owner, bytes], Awaitable[Succession]]
"""Goes on with a stream, or ends it; its arguments are the log, the copy's owner and the stream's request. Raises as
`Close`, and `NoRoom`."""


CheckRoom = Callable[[LogHeader, Collection[LogHeader]], None]
"""Checks whether one more stream may be gone on with now; its arguments are the header of its log, and those of the
streams whose take-over is under way. It raises `NoRoom`, or `NotYet` if there is room for others of its caller."""

ToldOf = Callable[[str, bytes], Awaitable[Mapping[str, Any]]]
"""Returns what the end of a stream says of it, as in `EndsInstead`. Its arguments are the stream's id and request."""


@dataclass(slots=True, eq=False)
class _Mirror:
    """A log and the worker that runs its stream."""

    log: StreamLog
    worker: str
    epoch: int
    """The epoch of the copy; as in `Owner`."""
    position: int
    """The number of the last event that was read in the copy. The log may have more: rule 8."""
    watched_at: float
    """The last time at which it had a watcher, in monotonic seconds."""
    kept_at: float
    """The last time at which the store had its copy, in monotonic seconds."""
    header_epoch: int
    """The epoch of the copy as the log's header was read."""
    is_cancelled: bool = False
    """Whether its caller cancels the stream."""
    is_taken: bool = False
    """Whether this process has taken the copy over, and writes it."""
    is_closing: bool = False
    """Whether it writes nothing but the end."""


class Mirrors:
    """The mirrors of one process.

    Args:
        backend: The store; open.
        memory: Holds the logs.
        health: Records whether the store works.
        own: The name of this process as a worker.
        alive: Decides which workers are gone.

    Attributes:
        close_log: Ends a log that was taken over: rule 4. None if copies are not taken over.
        go_on: Goes on with the stream of a log that was taken over. None if such logs are only closed.
        check_room: Checks whether one more stream may be gone on with now. Until then its followers wait.
        told_of: Finds out what the end of a cancelled stream says of it. None if nothing is known.
    """

    def __init__(self, backend: Backend, memory: LogMemory, health: Health, own: str, alive: Alive) -> None:
        self.close_log: Close | None = None
        self.go_on: GoOn | None = None
        self.check_room: CheckRoom = has_room
        self.told_of: ToldOf | None = None
        self._taking: dict[str, LogHeader] = {}  # streams that are gone on with once the store has answered, by id
        self._claiming: set[str] = set()  # streams whose take-over the store has not answered
        self._returning: dict[str, asyncio.Task[None]] = {}  # by stream: `_return_copy`
        self._own = own
        self._alive = alive
        self._backend = backend
        self._memory = memory
        self._health = health
        self._mirrors: dict[str, _Mirror] = {}  # mirrors of streams that have not ended
        self._loading: dict[str, asyncio.Task[StreamLog | None]] = {}
        self._tasks: dict[_Work, asyncio.Task[None]] = {}
        self._alone: dict[_Mirror, asyncio.Task[None]] = {}  # rule 7
        self._places = HalvedPlaces(LIMITS.store_connections)  # for these reads
        self._is_closed = False

    async def find(
        self, stream_id: str, *, asks: bool = True, caller: str | None = None, canceller: str | None = None
    ) -> StreamLog | None:
        """Returns a log with all that the store has of a stream. None if there is no such stream.

        Args:
            stream_id: The stream's id.
            asks: Whether the stream is to go on, or to end, if its worker is gone.
            caller: Who asks: nobody makes another caller's stream go on. None for who may.
            canceller: The caller who cancels the stream, if it is theirs and its worker is gone. None to leave it.

        Raises:
            Error: The store is out of reach, its copy is damaged, or there is no room.
        """
        self._health.check(caller or canceller)
        if self._is_closed:
            raise out_of_reach()
        loading = self._loading.get(stream_id)
        if loading is None:
            load = self._load(stream_id, asks=asks, caller=caller, canceller=canceller)
            loading = self._begin_loading(stream_id, load)
        return await asyncio.shield(loading)  # another request may wait for it too

    def adopt(self, log: StreamLog) -> None:
        """Fills a log of this process from now on: rule 8.

        Args:
            log: The log. It has not ended, and nothing else writes it.
        """
        if self._is_closed:
            log.break_off(out_of_reach())
        elif log.header.stream_id not in self._loading:
            self._begin_loading(log.header.stream_id, self._adopt(log))

    def cancel(self, stream_id: str) -> str | None:
        """Notes that the caller of a stream cancels it; returns its worker, as `worker_of`.

        Args:
            stream_id: The stream's id.
        """
        if stream_id in self._mirrors:
            self._mirrors[stream_id].is_cancelled = True
        return self.worker_of(stream_id)

    def worker_of(self, stream_id: str) -> str | None:
        """Returns the name of the worker that runs a stream. None if the stream has no mirror here.

        Args:
            stream_id: The stream's id.
        """
        mirror = self._mirrors.get(stream_id)
        return None if mirror is None else mirror.worker

    async def ask(self, stream_id: str) -> str | None:
        """Asks for a stream that may have a mirror here: if its worker is gone, this process goes on with it, or ends
        it. Returns the name of its worker now, as `worker_of`.

        Args:
            stream_id: The stream's id.

        Raises:
            Error: The store is out of reach, or its copy is damaged.
        """
        mirror = self._mirrors.get(stream_id)
        if mirror is not None and self.close_log is not None and stream_id not in self._taking:
            try:
                for owner in (await self._backend.kept([stream_id])).values():
                    self._note_owner(mirror, owner)
                if await self._alive.is_gone(mirror.worker) and mirror is self._mirrors.get(stream_id):
                    await self._part(mirror)
            except StoreError as problem:
                raise self._refusal(problem) from None
        return self.worker_of(stream_id)

    @property
    def is_taking_over(self) -> bool:
        """Whether a take-over is under way."""
        return bool(self._taking)

    async def close(self) -> None:
        """Breaks off every mirror."""
        self._is_closed = True
        tasks = [*self._loading.values(), *self._tasks.values(), *self._returning.values(), *self._alone.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._break_off_all()

    # -- one copy --

    def _begin_loading(
        self, stream_id: str, work: Coroutine[Any, Any, StreamLog | None]
    ) -> asyncio.Task[StreamLog | None]:
        loading = self._loading[stream_id] = asyncio.ensure_future(work)
        loading.add_done_callback(lambda task: self._loaded(stream_id, task))
        return loading

    def _loaded(self, stream_id: str, task: asyncio.Task[StreamLog | None]) -> None:
        del self._loading[stream_id]
        if not task.cancelled():
            task.exception()  # marks it as retrieved: the callers of `find` may all have been cancelled

    async def _load(self, stream_id: str, *, asks: bool, caller: str | None, canceller: str | None) -> StreamLog | None:
        try:
            copy = await self._backend.load(stream_id)
            here = self._memory.find(stream_id)  # the stream may have begun in this process during the call
            if here is not None or copy is None:
                return here
            if copy.header.stream_id != stream_id:  # its log would be registered under the other id
                raise StoreError("damaged", "a copy is kept under the id of another stream")
            mirror = self._begin(copy)
            mirror.is_cancelled = canceller == copy.header.caller
            asks = asks and caller in (None, copy.header.caller)
            try:
                await self._catch_up(mirror, copy.news, asks=asks or mirror.is_cancelled)
            finally:
                mirror.is_cancelled = False  # its worker lives, and may refuse
                is_dropped = not self._is_in_use(mirror) and not mirror.log.is_over
                self._forget_unused(mirror)
        except StoreError as problem:
            raise self._refusal(problem) from None
        return None if is_dropped else mirror.log

    async def _adopt(self, log: StreamLog) -> StreamLog | None:
        mirror = _mirror_of(log, None)
        try:
            copy = await self._backend.load(log.header.stream_id)
            if copy is not None:
                log.header = copy.header
                mirror = _mirror_of(log, copy)
                await self._catch_up(mirror, copy.news, asks=bool(log.watchers))
        except StoreError as problem:
            log.break_off(self._refusal(problem))
        finally:
            self._forget_unused(mirror)
        return log

    def _is_in_use(self, mirror: _Mirror) -> bool:
        """Returns whether a log has ended, is filled, or is written by this process after a take-over."""
        log = mirror.log
        return log.ending is not None or mirror.is_taken or log.header.stream_id in self._mirrors

    def _forget_unused(self, mirror: _Mirror) -> None:
        if not self._is_in_use(mirror):
            mirror.log.break_off(out_of_reach())  # other requests may already follow it
            self._memory.forget(mirror.log)

    def _begin(self, copy: LogCopy) -> _Mirror:
        log = self._memory.create(copy.header)
        if copy.lost:
            log.skip(copy.lost, copy.text)
        return _mirror_of(log, copy)

    async def _catch_up(self, mirror: _Mirror, news: CopyTail, *, asks: bool) -> None:
        """Reads a copy to its current end, and adds the mirror to those that the task fills."""
        await self._add(mirror, news)
        is_complete = not news.has_more or await self._read_on(mirror)
        is_own = mirror.worker == self._own
        if not mirror.log.is_over and is_own and mirror.epoch <= 1:
            return  # this process ran the stream and has forgotten its log, so the copy is being removed
        is_asked = asks and is_complete and not mirror.log.is_over
        if is_asked and (is_own or await self._alive.is_gone(mirror.worker)):
            await self._part(mirror)
            await self._until_closed(mirror)
        if self._is_in_use(mirror) or mirror.log.is_over:
            return
        await self._backend.note_followers([mirror.log.header.stream_id])
        mirror.watched_at = time.monotonic()
        self._mirrors[mirror.log.header.stream_id] = mirror
        for work in (self._fill, self._look, self._tell):
            if work not in self._tasks:
                self._start(work)

    async def _read_on(self, mirror: _Mirror) -> bool:
        """Reads a copy to its current end; returns whether the end was reached within `limits.mirror_reads`."""
        stream_id = mirror.log.header.stream_id
        for _ in range(LIMITS.mirror_reads):
            news = (await self._tail({stream_id: mirror.position}, 0.0)).get(stream_id, _NO_NEWS)
            await self._add(mirror, news)
            if not news.has_more or mirror.log.is_over:
                return True
        return False

    async def _part(self, mirror: _Mirror) -> bool:
        """Goes on without a worker that is gone, once its mirror has all that the worker wrote: rule 4.

        Returns:
            Whether this process may go on with another stream of the same caller.
        """
        log = mirror.log
        if self.go_on is not None and not mirror.is_cancelled:
            try:
                self.check_room(log.header, self._taking.values())
            except NoRoom as reason:
                return isinstance(reason, NotYet)
        if not await self._read_on(mirror) or log.is_over:
            return True
        if self.close_log is None or log.header.format == CALLS or not _can_be_taken_over(mirror):
            log.break_off(_worker_lost())
            return True
        if not await self._has_header(mirror):
            return True
        try:
            await self._succeed(mirror)
        except NoRoom as reason:
            return isinstance(reason, NotYet)
        except Error as problem:
            log.break_off(problem)
        finally:
            self._taking.pop(log.header.stream_id, None)
        return True

    async def _succeed(self, mirror: _Mirror) -> None:
        """Takes the copy of a worker that is gone over, unless another process is faster.

        Raises:
            Error: As `Close`.
            NoRoom: As `GoOn`.
        """
        log, position, header = mirror.log, mirror.position, mirror.log.header
        if not mirror.worker:
            header = header._replace(handovers=header.handovers + 1)
        if position < log.last_seq:  # the last owner was lost before it wrote `stream.gap`: rule 8
            log.void(position)
            if log.last_seq > position:
                log.break_off(_behind())
                return
        next_step = await self._next_step(mirror)
        is_taken = False
        try:
            if log.is_over or mirror.position != position:
                return
            mirror.is_closing = next_step.is_end
            self._claiming.add(header.stream_id)
            is_taken = await self._backend.take_over(header.stream_id, mirror.epoch, position, header, self._own)
        except StoreError:  # it may have been done
            self._begin_returning(mirror)
            raise
        finally:
            self._claiming.discard(header.stream_id)
            if not is_taken:
                next_step.withdraw()
        if is_taken:
            self._mirrors.pop(log.header.stream_id, None)
            mirror.is_taken = True
            log.header = header
            self._begin_own(mirror, next_step)
            return
        copy = await self._backend.load(log.header.stream_id)
        if copy is None:
            log.break_off(_worker_lost())
        elif copy.lost > position:
            log.break_off(_ran_ahead())  # who resumes gets the gap
        else:
            self._note_owner(mirror, Owner(copy.worker, copy.epoch))

    def _begin_own(self, mirror: _Mirror, next_step: Succession) -> None:
        """Goes on with a stream that this process has taken over, or ends it if it was cancelled meanwhile."""
        if mirror.log.is_over:  # it was broken off during the call
            next_step.withdraw()
            self._begin_returning(mirror)
            return
        returning = self._returning.get(mirror.log.header.stream_id)
        if returning is not None:
            returning.cancel()
        if mirror.is_cancelled and not mirror.is_closing and self.close_log is not None:
            next_step.withdraw()
            mirror.is_closing = True
            next_step = self.close_log(mirror.log, EndsInstead(is_cancelled=True, told=next_step.told))
        next_step.begin(TakeOver(mirror.worker, self._own, mirror.epoch + 1, time.monotonic() - mirror.kept_at))

    def _begin_returning(self, mirror: _Mirror) -> None:
        stream_id = mirror.log.header.stream_id
        if stream_id not in self._returning:
            work = self._return_copy(mirror.log.header, mirror.epoch + 1, mirror.position)
            task = self._returning[stream_id] = asyncio.ensure_future(work)
            task.add_done_callback(lambda _: self._returning.pop(stream_id, None))

    async def _return_copy(self, header: LogHeader, epoch: int, position: int) -> None:
        """Lets a copy go that this process has taken over and does not write: another one could only wait for it.

        Args:
            header: The header of its log.
            epoch: The epoch of that take-over.
            position: The number of its last event.
        """
        stream_id, own = header.stream_id, Owner(self._own, epoch)
        is_settled = False
        while not is_settled:
            await asyncio.sleep(SHARED.store_retry)
            try:
                kept = await self._backend.kept([stream_id])
                if stream_id in self._claiming:
                    continue
                if kept.get(stream_id) == own:
                    await self._backend.take_over(stream_id, epoch, position, header, "")
                is_settled = True
            except StoreError as problem:
                self._note(problem)

    async def _has_header(self, mirror: _Mirror) -> bool:
        """Reads the header again if the copy was taken over since. Returns whether it is that of the mirror's epoch."""
        if mirror.header_epoch != mirror.epoch:
            copy = await self._backend.load(mirror.log.header.stream_id)
            if copy is None or copy.epoch != mirror.epoch:
                return False
            mirror.log.header, mirror.header_epoch = copy.header, copy.epoch
        return True

    async def _next_step(self, mirror: _Mirror) -> Succession:
        """Returns what follows in a log once this process owns its copy. Raises as `GoOn`."""
        log, refusal = mirror.log, EndsInstead(is_cancelled=mirror.is_cancelled)
        assert self.close_log is not None
        if self.go_on is None:
            return self.close_log(log, refusal)  # nothing is owned that cannot be closed
        try:
            request = await self._backend.request_of(log.header.stream_id)
        except StoreError as problem:
            if problem.fault != "damaged":
                raise
            self._note(problem)
            request = None
        if request is not None and mirror.is_cancelled and self.told_of is not None:
            refusal = refusal._replace(told=await self.told_of(log.header.stream_id, request))
        if request is None or mirror.is_cancelled:
            return self.close_log(log, refusal._replace(is_cancelled=mirror.is_cancelled))
        self.check_room(log.header, self._taking.values())
        self._taking[log.header.stream_id] = log.header
        next_step = await self.go_on(log, Owner(mirror.worker, mirror.epoch), request)
        if next_step.is_end:
            self._taking.pop(log.header.stream_id, None)
        return next_step

    def _note_owner(self, mirror: _Mirror, owner: Owner) -> None:
        """Notes the owner of a copy, which another process may have taken over."""
        if owner.epoch:
            mirror.worker, mirror.epoch = owner
            mirror.log.takeovers = owner.epoch - 1

    async def _until_closed(self, mirror: _Mirror) -> None:
        """Waits for the end of a log that this process closes, so that requests for its state find the end."""
        log, over = mirror.log, UntilOver()
        log.watch(over)
        try:
            if mirror.is_taken and mirror.is_closing and not log.is_over:
                async with asyncio.timeout(LIMITS.store_answer):
                    await over.event.wait()
        except TimeoutError:
            return
        finally:
            log.unwatch(over)

    async def _add(self, mirror: _Mirror, news: CopyTail) -> None:
        """Adds news to a mirror's log, or ends the log."""
        log = mirror.log
        if log.is_over or mirror.is_taken:
            return
        try:
            misfit = self._append(mirror, news.records)
        except ValueError:
            log.break_off(damaged())
            return
        if misfit is not None:
            log.break_off(await self._why(log, misfit))
        elif news.is_damaged:
            log.break_off(damaged())
        elif news.is_sealed:
            log.break_off(store_sealed())
        elif news.ending is not None and mirror.position < log.last_seq:
            log.break_off(_behind())
        elif news.ending is not None:
            if log.last_seq >= LIMITS.takeover_step:  # it was taken over, perhaps since the last look at its owner
                for owner in (await self._backend.kept([log.header.stream_id])).values():
                    self._note_owner(mirror, owner)
            log.end(news.ending)

    def _append(self, mirror: _Mirror, records: Sequence[Record]) -> Record | None:
        """Appends records to a log. Returns the first record that does not fit: it leaves a hole, or has no new frame.

        A record may begin before the end of the log, if the copy was written again with other record boundaries, or if
        the log was adopted.

        Raises:
            ValueError: The event with which a new owner goes on cannot be read.
        """
        log = mirror.log
        for record in records:
            if record.after > log.last_seq:
                return record
            if record.last_seq > log.last_seq:
                is_new = record.after == log.last_seq
                if not is_new and not log.header.is_numbered and log.last_seq > log.lost:
                    return record  # without numbers it is unknown which of its frames the log has
                piece = record.piece if is_new else frames_after(record.piece, log.header, log.last_seq)
                if not piece:
                    return record
                kept = None if is_new else kept_before_gap(piece)
                if kept is not None:
                    log.void(kept)
                log.append(piece, record.last_seq)
            mirror.position = max(mirror.position, record.last_seq)
        return None

    async def _why(self, log: StreamLog, misfit: Record) -> Error:
        """Returns the error for a log whose next record does not fit: rule 3."""
        if misfit.after > log.last_seq:
            copy = await self._backend.load(log.header.stream_id)
            if copy is not None and copy.lost <= log.last_seq:
                return damaged()
        return _ran_ahead()

    # -- all of them --

    def _start(self, work: _Work) -> None:
        task = self._tasks[work] = asyncio.ensure_future(work())
        task.add_done_callback(lambda task: self._stopped(work, task))

    async def _fill(self) -> None:
        await self._repeat(self._read_all, lambda: max(LIMITS.mirror_pause, len(self._mirrors) * LIMITS.mirror_share))

    async def _look(self) -> None:
        await self._repeat(self._look_at_workers, lambda: SHARED.lease_renewal)

    async def _tell(self) -> None:
        await self._repeat(self._tell_workers, lambda: SHARED.lease_renewal)

    async def _repeat(self, work: _Work, pause: Callable[[], float]) -> None:
        """Repeats a call while there are mirrors. If it fails for `limits.mirror_patience`, all mirrors are broken off.

        Args:
            work: The call.
            pause: Returns the seconds before the next call.
        """
        ASKS.set("")  # the task of a request has begun this one
        worked_at = time.monotonic()
        while self._mirrors:
            await asyncio.sleep(pause())
            try:
                await work()
                worked_at = time.monotonic()
            except StoreError as problem:
                self._note(problem)
                if time.monotonic() - worked_at >= LIMITS.mirror_patience:
                    self._break_off_all()
                await asyncio.sleep(SHARED.store_retry)
            self._drop_ended()

    async def _read_all(self) -> None:
        """Reads the next part of each copy, some copies at a time."""
        mirrors = {**self._mirrors}  # a copy: mirrors may be broken off during the calls
        positions = [(name, mirror.position) for name, mirror in mirrors.items() if mirror not in self._alone]
        wait = LIMITS.mirror_wait if len(positions) <= LIMITS.mirror_streams else 0.0
        for start in range(0, len(positions), LIMITS.mirror_streams):
            some = dict(positions[start : start + LIMITS.mirror_streams])
            try:
                for stream_id, news in (await self._tail(some, wait)).items():
                    await self._add(mirrors[stream_id], news)
            except StoreError as problem:
                if problem.fault != "slow":
                    raise
                self._note(problem)
                for mirror in map(mirrors.__getitem__, some):
                    task = self._alone[mirror] = asyncio.ensure_future(self._read_alone(mirror))
                    task.add_done_callback(partial(self._alone.pop, mirror))

    async def _read_alone(self, mirror: _Mirror) -> None:
        """Reads a copy alone until its news are small; to its end if they were large once: rule 7."""
        stream_id, caller = mirror.log.header.stream_id, mirror.log.header.caller
        ASKS.set(caller)
        worked_at = time.monotonic()
        is_large: bool | None = None
        while is_large is not False and self._mirrors.get(stream_id) is mirror:
            await self._places.take(caller)
            try:
                news = (await self._tail({stream_id: mirror.position}, 0.0)).get(stream_id, _NO_NEWS)
                await self._add(mirror, news)
                is_large = is_large or sum(len(record.piece) for record in news.records) > LIMITS.mirror_news
                worked_at = time.monotonic()
            except StoreError as problem:
                self._note(problem)
                if time.monotonic() - worked_at >= LIMITS.mirror_patience:
                    mirror.log.break_off(out_of_reach())
            finally:
                self._places.give_back(caller)
            await asyncio.sleep(LIMITS.mirror_wait)

    async def _tail(self, positions: Mapping[str, int], wait: float) -> Mapping[str, CopyTail]:
        """Returns the news of copies; as `Backend.tail`, but a damaged copy does not hide the news of the others."""
        try:
            return await self._backend.tail(positions, wait)
        except StoreError as problem:
            if problem.fault != "damaged":
                raise
            if len(positions) == 1:
                self._note(problem)
                return dict.fromkeys(positions, _DAMAGED)
        news: dict[str, CopyTail] = {}
        for stream_id, position in positions.items():
            news.update(await self._tail({stream_id: position}, 0.0))
        return news

    async def _look_at_workers(self) -> None:
        """Ends or drops the mirrors whose worker is gone, or whose copy has been missing for too long: rule 4."""
        mirrors = [*self._mirrors.items()]  # a copy: the calls below do not cover mirrors that begin during them
        kept = await self._backend.kept([stream_id for stream_id, _ in mirrors])
        for stream_id, mirror in mirrors:
            if stream_id in kept:
                self._note_owner(mirror, kept[stream_id])
        gone = await self._alive.gone({mirror.worker for _, mirror in mirrors} - {self._own})
        gone.add(self._own)  # this process runs no stream of a mirror: the reply to its take-over was lost
        now = time.monotonic()
        slow: set[str] = set()  # callers for whom the store is too slow
        full: set[str] = set()  # callers for whose streams there is no room: the others are not read in vain
        for stream_id, mirror in _in_turns(mirrors):
            caller = mirror.log.header.caller
            if stream_id in kept and mirror.worker not in gone:
                mirror.kept_at = now
            elif mirror.worker in gone or not self._backend.is_copy:  # without copies, the worker itself has answered
                if mirror.log.watchers and caller not in slow and (caller not in full or mirror.is_cancelled):
                    ASKS.set(caller)
                    try:
                        if not await self._part(mirror):
                            full.add(caller)
                    except StoreError as problem:  # the others go on
                        is_slow = problem.fault == "slow"
                        if is_slow:
                            slow.add(caller)
                        elif problem.fault != "damaged":
                            raise
                        refusal = self._refusal(problem)
                        if not is_slow or now - mirror.kept_at >= LIMITS.mirror_patience:
                            mirror.log.break_off(refusal)
                    finally:
                        ASKS.set("")
                elif (
                    not mirror.log.watchers and now - mirror.watched_at >= SHARED.lease_renewal
                ):  # whoever has found it just now watches it next
                    self._drop(mirror)
            elif now - mirror.kept_at >= LIMITS.mirror_patience:
                is_there = await self._backend.load(stream_id) is not None  # without the end that was written
                mirror.log.break_off(damaged() if is_there else out_of_reach())

    async def _tell_workers(self) -> None:
        """Notes in the store which streams are followed here: rule 5."""
        await self._backend.note_followers([each for each, mirror in self._mirrors.items() if mirror.log.watchers])

    def _drop_ended(self) -> None:
        """Removes the mirrors that have ended, or have had no watcher for `limits.mirror_idle`."""
        now = time.monotonic()
        for mirror in [*self._mirrors.values()]:
            if mirror.log.watchers:
                mirror.watched_at = now
            if mirror.log.is_over or now - mirror.watched_at > LIMITS.mirror_idle:
                self._drop(mirror)

    def _drop(self, mirror: _Mirror) -> None:
        """Removes a mirror, and its log unless it has ended."""
        self._mirrors.pop(mirror.log.header.stream_id, None)
        if mirror.log.ending is None:
            mirror.log.break_off(_ran_ahead())  # a forgotten log must not grow: its bytes are not counted
            self._memory.forget(mirror.log)

    def _refusal(self, problem: StoreError) -> Error:
        """Notes why a copy could not be read; returns the error of its request."""
        if problem.fault == "damaged":
            self._note(problem)
            return damaged()
        return self._health.refusal(problem)

    def _note(self, problem: StoreError) -> None:
        """Notes a failure. Damage of one copy is logged, and does not count as a failure of the store."""
        if problem.fault == "damaged":
            logger.warning("a copy of a stream cannot be read: %s", problem)
        else:
            self._health.failed(problem)

    def _stopped(self, work: _Work, task: asyncio.Task[None]) -> None:
        del self._tasks[work]
        if not task.cancelled() and task.exception() is not None:
            logger.error("the copies of other workers' streams are not read on: a bug", exc_info=task.exception())
            self._break_off_all()
        elif self._mirrors and not self._is_closed:  # a mirror was added as the task ended
            self._start(work)

    def _break_off_all(self) -> None:
        mirrors, self._mirrors = self._mirrors, {}
        for mirror in mirrors.values():
            mirror.log.break_off(out_of_reach())
            self._memory.forget(mirror.log)


def has_room(header: LogHeader, taking: Collection[LogHeader]) -> None:
    """Finds room for any stream; as `CheckRoom`."""


def _in_turns(mirrors: Sequence[tuple[str, _Mirror]]) -> list[tuple[str, _Mirror]]:
    """Returns mirrors in an order in which their callers take turns."""
    counts: Counter[str] = Counter()
    rounds: list[int] = []
    for _, mirror in mirrors:
        counts[mirror.log.header.caller] += 1
        rounds.append(counts[mirror.log.header.caller])
    return [each for _, each in sorted(zip(rounds, mirrors, strict=True), key=itemgetter(0))]


def _mirror_of(log: StreamLog, copy: LogCopy | None) -> _Mirror:
    """Returns the mirror for a copy, of which nothing is read yet but the text of its dropped events."""
    now = time.monotonic()
    if copy is None:
        return _Mirror(log, "", 0, 0, now, now, 0)
    log.takeovers = max(0, copy.epoch - 1)
    return _Mirror(log, copy.worker, copy.epoch, copy.lost, now, now, copy.epoch)


def _can_be_taken_over(mirror: _Mirror) -> bool:
    """Returns whether a copy has epochs, and there are numbers for a new owner's events."""
    return (
        0 < mirror.epoch < LAST_EPOCH
        and mirror.position < EVENT_NUMBERS - 2 * LIMITS.takeover_step * LIMITS.takeover_steps
    )


def _behind() -> Error:
    return Error("network", "the log has not reached the event that this client has seen", reason="log_behind")


def _ran_ahead() -> Error:
    return Error("overloaded", "the stream ran ahead of its copy here: resume it", reason="store")


def _worker_lost() -> Error:
    return Error("network", "the worker that ran this stream is gone", reason="worker_lost")
