"""Logs of streams that other workers run: filled from the store, for the followers here.

Owns how far a mirror is, and who fills it. `alive.py` knows whether its worker is gone.

1. A mirror is an ordinary log in the memory of this process, so a follower of another worker's stream, or of one from
   before a restart, reads a log as everybody does.
2. One task fills all mirrors, one looks at their workers, and one tells these what is followed, so that a worker which
   answers late delays no other's streams. They run while there are mirrors whose streams have not ended; a mirror that
   nobody watches for a while is dropped, and made anew when somebody asks for it.
3. A record must begin where the mirror ends. Where one does not, the mirror is broken off: if the copy has dropped what
   is missing, its followers resume, and get a new one, with an explicit gap; else the copy is damaged.
4. A copy whose worker is gone is read to its end once more, and then broken off: `worker_lost`. Of a worker that lives
   the store may have lost the copy, or hide it from us: its followers wait for `limits.mirror_patience` until it is
   written anew, and are then to resume.
5. The store notes which streams are followed here, for their workers, as often as a lease is renewed.
6. Every read has a limit (`limits.mirror_streams`, `mirror_reads`), however much there is to be read: the rest is read
   by the task.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.stores._base import frames_after
from gai_fast.stores.alive import Alive
from gai_fast.stores.backend import Backend, Copy, News, Record, StoreError
from gai_fast.stores.health import Health, logger, out_of_reach
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.memory import LogMemory, StreamLog

_NO_NEWS: Final = News([])
_DAMAGED: Final = News([], is_damaged=True)


_Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True, eq=False)
class _Mirror:
    """One log, and the worker that writes its stream."""

    log: StreamLog
    worker: str
    watched_at: float
    """Monotonic seconds; when somebody watched it last."""
    kept_at: float
    """Monotonic seconds; when the store had its copy last."""


class Mirrors:
    """The mirrors of one process.

    Args:
        backend: The store; open.
        memory: Gets the logs.
        health: Notes whether the store works.
        own: The name of this process as a worker.
        alive: Knows which workers are gone.
    """

    def __init__(self, backend: Backend, memory: LogMemory, health: Health, own: str, alive: Alive) -> None:
        self._own = own
        self._alive = alive
        self._backend = backend
        self._memory = memory
        self._health = health
        self._mirrors: dict[str, _Mirror] = {}  # mirrors of streams that have not ended
        self._loading: dict[str, asyncio.Task[StreamLog | None]] = {}
        self._tasks: dict[_Work, asyncio.Task[None]] = {}
        self._is_closed = False

    async def find(self, stream_id: str) -> StreamLog | None:
        """Returns a log that has all that the store has of a stream by now. None if there is no such stream.

        Args:
            stream_id: The stream's id.

        Raises:
            Error: The store is out of reach, its copy is damaged, or there is no room.
        """
        self._health.check()
        if self._is_closed:
            raise out_of_reach()
        loading = self._loading.get(stream_id)
        if loading is None:
            loading = self._loading[stream_id] = asyncio.ensure_future(self._load(stream_id))
            loading.add_done_callback(lambda task: self._loaded(stream_id, task))
        return await asyncio.shield(loading)  # another request may wait for it, too

    def worker_of(self, stream_id: str) -> str | None:
        """The name of the worker that runs a stream of another process. None if it has no mirror here.

        Args:
            stream_id: The stream's id.
        """
        mirror = self._mirrors.get(stream_id)
        return None if mirror is None else mirror.worker

    async def close(self) -> None:
        """Breaks off every mirror."""
        self._is_closed = True
        tasks = [*self._loading.values(), *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._break_off_all()

    # -- one copy --

    def _loaded(self, stream_id: str, task: asyncio.Task[StreamLog | None]) -> None:
        del self._loading[stream_id]
        if not task.cancelled():
            task.exception()  # whoever asked has it, if they are still there

    async def _load(self, stream_id: str) -> StreamLog | None:
        try:
            copy = await self._backend.load(stream_id)
            here = self._memory.find(stream_id)  # begun in this process in the meantime
            if here is not None or copy is None:
                return here
            if copy.header.stream_id != stream_id:  # its log would stand in for another stream's
                raise StoreError("damaged", "a copy is kept under the id of another stream")
            mirror = self._begin(copy)
            try:
                await self._catch_up(mirror, copy.news)
            finally:
                is_left = not mirror.log.is_over and stream_id not in self._mirrors
                if mirror.log.ending is None and stream_id not in self._mirrors:
                    mirror.log.break_off(out_of_reach())  # other requests may follow it by now
                    self._memory.forget(mirror.log)
        except StoreError as problem:
            self._note(problem)
            raise (_damaged() if problem.fault == "damaged" else out_of_reach()) from None
        return None if is_left else mirror.log

    def _begin(self, copy: Copy) -> _Mirror:
        log = self._memory.create(copy.header)
        if copy.lost:
            log.skip(copy.lost, copy.text)
        now = time.monotonic()
        return _Mirror(log, copy.worker, now, now)

    async def _catch_up(self, mirror: _Mirror, news: News) -> None:
        """Reads a copy to its present end, and joins it to those that the task fills."""
        await self._add(mirror, news)
        is_complete = not news.has_more or await self._read_on(mirror)
        if not mirror.log.is_over and mirror.worker == self._own:
            return  # it is to be removed: this process has forgotten its stream
        if is_complete and not mirror.log.is_over and await self._alive.is_gone(mirror.worker):
            await self._part(mirror)
        if mirror.log.is_over:
            return
        await self._backend.note_followers([mirror.log.header.stream_id])
        mirror.watched_at = time.monotonic()
        self._mirrors[mirror.log.header.stream_id] = mirror
        for work in (self._fill, self._look, self._tell):
            if work not in self._tasks:
                self._start(work)

    async def _read_on(self, mirror: _Mirror) -> bool:
        """Reads a copy until it has no more for now; returns whether that is so."""
        stream_id = mirror.log.header.stream_id
        for _ in range(LIMITS.mirror_reads):
            news = (await self._tail({stream_id: mirror.log.last_seq}, 0.0)).get(stream_id, _NO_NEWS)
            await self._add(mirror, news)
            if not news.has_more or mirror.log.is_over:
                return True
        return False

    async def _part(self, mirror: _Mirror) -> None:
        """Breaks off a mirror whose worker is gone, once it has what that worker wrote last."""
        if await self._read_on(mirror):
            mirror.log.break_off(_worker_lost())

    async def _add(self, mirror: _Mirror, news: News) -> None:
        """Adds what is new to a log."""
        log = mirror.log
        if log.is_over:
            return
        misfit = self._append(log, news.records)
        if misfit is not None:
            log.break_off(await self._why(log, misfit))
        elif news.is_damaged:
            log.break_off(_damaged())
        elif news.ending is not None:
            log.end(news.ending)

    def _append(self, log: StreamLog, records: Sequence[Record]) -> Record | None:
        """Appends what a log does not have; returns the first record that does not fit: a hole, or one without a frame.

        A record that begins before the end of the log may be of a copy that was written anew, with other edges.
        """
        for record in records:
            if record.after > log.last_seq:
                return record
            if record.last_seq > log.last_seq:
                is_new = record.after == log.last_seq
                if not is_new and not log.header.is_numbered and log.last_seq > log.lost:
                    return record  # unknown which of its frames are in the log
                piece = record.piece if is_new else frames_after(record.piece, log.header, log.last_seq)
                if not piece:
                    return record
                log.append(piece, record.last_seq)
        return None

    async def _why(self, log: StreamLog, misfit: Record) -> Error:
        """Returns the error of a log behind whose end a record does not fit: rule 3."""
        if misfit.after > log.last_seq:
            copy = await self._backend.load(log.header.stream_id)
            if copy is not None and copy.lost <= log.last_seq:
                return _damaged()
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
        """Repeats a call as long as there are mirrors.

        Args:
            work: The call to be repeated. While it keeps failing, followers wait for `limits.mirror_patience`.
            pause: Returns the seconds before the next time.
        """
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
        mirrors = {**self._mirrors}  # they may be broken off meanwhile
        positions = [(stream_id, mirror.log.last_seq) for stream_id, mirror in mirrors.items()]
        wait = LIMITS.mirror_wait if len(positions) <= LIMITS.mirror_streams else 0.0
        for start in range(0, len(positions), LIMITS.mirror_streams):
            some = dict(positions[start : start + LIMITS.mirror_streams])
            for stream_id, news in (await self._tail(some, wait)).items():
                await self._add(mirrors[stream_id], news)

    async def _tail(self, positions: Mapping[str, int], wait: float) -> Mapping[str, News]:
        """Returns the news of copies; as `Backend.tail`, but one that is damaged keeps no news of the others back."""
        try:
            return await self._backend.tail(positions, wait)
        except StoreError as problem:
            if problem.fault != "damaged":
                raise
            if len(positions) == 1:
                self._note(problem)
                return dict.fromkeys(positions, _DAMAGED)
        news: dict[str, News] = {}
        for stream_id, position in positions.items():
            news.update(await self._tail({stream_id: position}, 0.0))
        return news

    async def _look_at_workers(self) -> None:
        """Breaks off the mirrors whose worker is gone, or whose copy has been for too long: rule 4."""
        mirrors = [*self._mirrors.items()]  # the store is not asked about those that begin meanwhile
        gone = await self._alive.gone({mirror.worker for _, mirror in mirrors})
        kept = await self._backend.kept([stream_id for stream_id, _ in mirrors])
        now = time.monotonic()
        for stream_id, mirror in mirrors:
            if stream_id in kept and mirror.worker not in gone:
                mirror.kept_at = now
            elif mirror.worker in gone or not self._backend.is_copy:  # without copies the worker itself has said so
                await self._part(mirror)
            elif now - mirror.kept_at >= LIMITS.mirror_patience:
                mirror.log.break_off(out_of_reach())

    async def _tell_workers(self) -> None:
        """Rule 5."""
        await self._backend.note_followers([each for each, mirror in self._mirrors.items() if mirror.log.watchers])

    def _drop_ended(self) -> None:
        """Goes on without the mirrors that have ended, and without those that have no watcher."""
        now = time.monotonic()
        for stream_id, mirror in [*self._mirrors.items()]:
            if mirror.log.watchers:
                mirror.watched_at = now
            if mirror.log.is_over or now - mirror.watched_at > LIMITS.mirror_idle:
                del self._mirrors[stream_id]
                if mirror.log.ending is None:
                    mirror.log.break_off(_ran_ahead())  # no log grows that the memory has forgotten
                    self._memory.forget(mirror.log)

    def _note(self, problem: StoreError) -> None:
        """Damage of one copy says nothing about the store."""
        if problem.fault == "damaged":
            logger.warning("a copy of a stream cannot be read: %s", problem)
        else:
            self._health.failed(problem)

    def _stopped(self, work: _Work, task: asyncio.Task[None]) -> None:
        del self._tasks[work]
        if not task.cancelled() and task.exception() is not None:
            logger.error("the copies of other workers' streams are not read on: a bug", exc_info=task.exception())
            self._break_off_all()
        elif self._mirrors and not self._is_closed:  # begun since its last look
            self._start(work)

    def _break_off_all(self) -> None:
        mirrors, self._mirrors = self._mirrors, {}
        for mirror in mirrors.values():
            mirror.log.break_off(out_of_reach())
            self._memory.forget(mirror.log)


def _ran_ahead() -> Error:
    return Error("overloaded", "the stream ran ahead of its copy here: resume it", reason="store")


def _worker_lost() -> Error:
    return Error("network", "the worker that ran this stream is gone", reason="worker_lost")


def _damaged() -> Error:
    return Error("internal", "the store's copy of this stream is damaged", reason="log_damaged")
