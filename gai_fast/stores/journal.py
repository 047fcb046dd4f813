"""Copies the logs of this process to the store, behind the streams' backs.

Owns what is written when, what waits for the store, and what becomes of it while the store fails.

1. A log never waits for its copy, and no failure of the store reaches a stream. What is new of all logs is gathered for
   `limits.journal_interval` and written as one batch.
2. What waits has a limit per stream and one for all. Beyond it a copy is *behind*: its pieces are no longer kept for
   it, and once the store answers it is read from the log itself, as by any follower.
3. A copy drops what its log has dropped, and keeps the text of that. What the log dropped before it was written is a
   gap in the copy, too, never a hole.
4. A failed batch is written again, as it was, at growing intervals; until it succeeds the journal is degraded, and so
   is every log that is not written to its end.
5. A log that its process has forgotten before it was written has no copy: what is there of it is removed.
6. A bug of ours gives up the copies of the streams in that batch, which are degraded from then on and removed. The
   other streams go on being copied.
7. A batch that a damaged store cannot take is written again stream by stream. A stream that cannot be written even
   alone has no copy any more, as in rule 6. Its removal, which is written next, shows whether the store is damaged as a
   whole.
8. Where the store has lost some of what was written, all copies begin again from the memory of this process: those of
   running streams, and those of ended streams whose logs are still there.
9. With `before_send` the journal stands in front of the log: a piece can be read once the store has it. While the store
   fails, pieces pass at once.
"""

from __future__ import annotations

import asyncio
import math
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from gai_fast.model.limits import SHARED
from gai_fast.model.settings import StoreSettings
from gai_fast.stores._base import Backlog, Ending
from gai_fast.stores.backend import Backend, Change, Gap, Record, StoreError
from gai_fast.stores.health import Health, logger
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.memory import SPARE, LogMemory, StreamLog, level_down

_TRIMMED: Final = 8
"""The part of a stream's bytes by which its copy may be larger, so that it need not be trimmed with every piece."""
_TOUCHES: Final = 4
"""The number of times that the life of a running stream's copy is prolonged within that life."""


class Journal:
    """The copies of the logs of one process.

    Args:
        backend: The store; open.
        memory: Has the logs.
        settings: `[store]`.
        health: Notes whether the store works.
        worker: The name of this process.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        backend: Backend,
        memory: LogMemory,
        settings: StoreSettings,
        health: Health,
        worker: str,
        clock: Callable[[], float],
    ) -> None:
        self.health = health
        self.clock = clock
        self.size = 0
        """Bytes that wait for the store, with the cost of keeping them."""
        self.is_ahead = settings.sync == "before_send"
        """Whether a piece is written before anybody reads it."""
        self.trimmed_from = settings.max_stream_bytes + settings.max_stream_bytes // _TRIMMED
        """The size from which a copy drops what its log has dropped."""
        self.worker = worker
        self.is_failing = False
        """Whether the last batch was not taken."""
        self._backend = backend
        self._memory = memory
        self._ttl = settings.ttl
        self._max_bytes = settings.max_bytes
        self._life = max(2 * settings.ttl, LIMITS.copy_life)
        self._copies: dict[str, _Copying] = {}
        self._changed: OrderedDict[_Copying, None] = OrderedDict()  # the one that waited longest first
        self._dropped: dict[str, None] = {}
        self._losses = backend.losses  # those after which everything was written again
        self._batch: list[_Copying] = []  # the logs whose changes are being written
        self._ended: deque[_Ended] = deque()  # in the order in which their time is over
        self._ended_size = 0
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._touched = self.clock()
        self._is_stopped = False
        self._task = asyncio.ensure_future(self._run())
        self._task.add_done_callback(self._stopped)

    @property
    def lets_pass(self) -> bool:
        """Whether pieces may be read before they are written, as the store fails."""
        return self.health.problem is not None

    def keep(self, ttl: float, max_bytes: int) -> None:
        """Keeps the copies of streams that end from now on by other bounds; as `LogMemory.keep`."""
        self._ttl = ttl
        self._max_bytes = max_bytes

    def begin(self, log: StreamLog) -> None:
        """Copies a log from now on, until its end."""
        if self._is_stopped:
            log.is_degraded = True
            return
        copying = self._copies[log.header.stream_id] = _Copying(self, log)
        if self.is_ahead:
            log.gate = copying
        else:
            log.watch(copying)
        self.changed(copying)

    def changed(self, copying: _Copying) -> None:
        """Writes what a log has, with the next batch."""
        if copying.is_given_up:
            return
        self._changed[copying] = None
        if self.lets_pass:
            copying.log.is_degraded = True
        self._wake.set()

    def keep_alive(self, *, at_once: bool = False) -> None:
        """Prolongs the lives of copies whose streams are silent; called every few seconds or more often.

        Args:
            at_once: For all of them now: the store has lost its data, and answers which are to be written anew.
        """
        self._recover()
        now = self.clock()
        if at_once or now - self._touched > self._life / _TOUCHES:
            self._touched = now
            for copying in self._copies.values():
                if at_once:
                    copying.forget_touch()
                self.changed(copying)

    def _recover(self) -> None:
        """Writes the copies again that the store may have lost: rule 8."""
        if self._backend.losses == self._losses:
            return
        self._losses = self._backend.losses
        ended, self._ended, self._ended_size = self._ended, deque(), 0
        for each in ended:
            log = self._memory.find(each.stream_id)
            if log is None or log.broken is not None:
                self._ended.append(each)
                self._ended_size += each.size
            else:
                self._copies[each.stream_id] = _Copying(self, log)
        for copying in [*self._copies.values()]:
            copying.begin_again()
            self.changed(copying)

    async def close(self) -> None:
        """Writes what is gathered, for at most `limits.store_close` seconds."""
        self._closing.set()
        self._wake.set()
        await asyncio.wait([self._task], timeout=LIMITS.store_close)
        if not self._task.done():
            logger.warning("the store did not take all that was to be written")
            self._task.cancel()
            await asyncio.wait([self._task])

    # -- the batches --

    async def _run(self) -> None:
        while not self._closing.is_set() or self._changed or self._dropped:
            await self._wake.wait()
            if not self.is_ahead:
                await self._pause(LIMITS.journal_interval)
            if not self._changed and not self._dropped:
                self._wake.clear()
                continue
            try:
                changes = self._gather()
                if changes:
                    self._settle(await self._write(changes))
            except Exception as problem:  # noqa: BLE001  # rule 6
                self._give_up(problem)

    def _gather(self) -> list[Change]:
        """Takes what is new of the logs that waited longest: some hundred logs, some MiB."""
        self._batch = []
        changes: list[Change] = []
        while self._dropped and len(changes) < LIMITS.journal_changes:
            changes.append(Change(self._dropped.popitem()[0], is_dropped=True))
        size = 0
        while self._changed and size < LIMITS.journal_batch and len(changes) < LIMITS.journal_changes:
            copying, _ = self._changed.popitem(last=False)
            if not self._is_kept(copying):
                self._forget(copying)
                changes.append(Change(copying.stream_id, is_dropped=True))
                continue
            self._batch.append(copying)
            change = copying.take(self._life, self._ttl)
            if change is None:
                self._batch.pop()
            else:
                changes.append(change)
                size += sum(len(record.piece) for record in change.records) + SHARED.log_block_cost
        return changes

    async def _write(self, changes: Sequence[Change]) -> Collection[str]:
        """Writes changes, and retries until that succeeds. Skips logs forgotten in the meantime: rule 5."""
        wait = LIMITS.store_retry_first
        while changes:
            try:
                missing = await self._backend.write(changes)
            except StoreError as problem:
                if problem.fault == "damaged":
                    return await self._write_apart(changes, problem)
                self.is_failing = True
                self.health.failed(problem)
                self._degrade(changes)
                if self._backend.losses != self._losses:
                    return ()  # the copies have to begin again: rule 8
                changes = [each for each in changes if each.is_dropped or each.stream_id in self._copies]
                await asyncio.sleep(wait)
                wait = min(2 * wait, SHARED.store_retry)
            else:
                self.is_failing = False
                self.health.worked()
                return missing
        return ()

    async def _write_apart(self, changes: Sequence[Change], problem: StoreError) -> Collection[str]:
        """Writes each change of a damaged batch on its own; gives up the one that is damaged alone: rule 7."""
        if len(changes) == 1:
            self._give_up_damaged(changes[0], problem)
            return ()
        missing: set[str] = set()
        for change in changes:
            missing.update(await self._write([change]))
        return missing

    def _settle(self, missing: Collection[str]) -> None:
        for copying in self._batch:
            if copying.is_given_up or copying.stream_id not in self._copies:  # forgotten while the store failed
                continue
            if copying.stream_id in missing:
                copying.begin_again()
            else:
                copying.publish()
            copying.log.is_degraded = copying.is_behind
            if copying.is_complete:
                self._changed.pop(copying, None)
                self._forget(copying)
                size = copying.copied + LIMITS.log_stream_cost
                caller = copying.log.header.caller
                self._ended.append(_Ended(self.clock() + self._ttl, copying.stream_id, caller, size))
                self._ended_size += size
            elif copying.has_more:
                self.changed(copying)
        self._recover()
        now = self.clock()
        while self._ended and self._ended[0].due <= now:
            self._ended_size -= self._ended.popleft().size
        if self._ended_size > self._max_bytes:
            self._make_room()

    def _make_room(self) -> None:
        """Drops copies of ended streams of the callers with the most bytes, as rules 2 and 3 of `memory.py`."""
        sizes: dict[str, int] = {}
        for each in self._ended:
            sizes[each.caller] = sizes.get(each.caller, 0) + each.size
        excess = level_down(sizes, self._ended_size - self._max_bytes + self._max_bytes // SPARE)
        kept: deque[_Ended] = deque()
        for each in self._ended:
            if excess.get(each.caller, 0) > 0:
                excess[each.caller] -= each.size
                self._ended_size -= each.size
                self._drop(each.stream_id)
            else:
                kept.append(each)
        self._ended = kept

    def _degrade(self, changes: Sequence[Change]) -> None:
        """Lets every piece pass, and forgets logs that this process no longer has."""
        waiting = {change.stream_id for change in changes}
        for copying in [*self._copies.values()]:
            if copying.stream_id in waiting or copying in self._changed:
                copying.log.is_degraded = True
            copying.publish_all()
            if not self._is_kept(copying):
                self._changed.pop(copying, None)
                self._forget(copying)
                self._drop(copying.stream_id)

    def _give_up(self, problem: Exception) -> None:
        """Goes on without the copies of a batch: rule 6."""
        self.health.broke("streams were not copied to the store", problem)
        for copying in self._batch:
            self._go_without(copying)
            self._drop(copying.stream_id)

    def _give_up_damaged(self, change: Change, problem: StoreError) -> None:
        """Goes on without a copy that can never be written. Where it cannot be removed either, the store has failed."""
        if change.is_dropped:
            self.is_failing = True
            self.health.failed(problem)
            return
        if not self.is_failing:
            logger.warning("a stream has no durable copy: %s", problem)
        for copying in self._batch:
            if copying.stream_id == change.stream_id:
                self._go_without(copying)
        self._drop(change.stream_id)

    def _go_without(self, copying: _Copying) -> None:
        """Stops copying a log and lets its held pieces pass."""
        copying.is_given_up = copying.log.is_degraded = True
        copying.publish_all()
        self._changed.pop(copying, None)
        self._forget(copying)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """Keeps no copy any more: the journal is closed."""
        self._is_stopped = True
        for copying in [*self._copies.values()]:
            self._go_without(copying)

    def _is_kept(self, copying: _Copying) -> bool:
        return self._memory.find(copying.stream_id) is copying.log and copying.log.broken is None

    def _forget(self, copying: _Copying) -> None:
        copying.drop_pieces()
        copying.log.unwatch(copying)
        self._copies.pop(copying.stream_id, None)  # it may have been forgotten while its last batch failed

    def _drop(self, stream_id: str) -> None:
        """Removes a copy with the next batch. Of too many the store itself removes them, when their time is over."""
        if len(self._dropped) < LIMITS.journal_dropped:
            self._dropped[stream_id] = None
            self._wake.set()

    async def _pause(self, seconds: float) -> None:
        """Waits, but not once the journal is being closed."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return


class _Ended(NamedTuple):
    """The copy of a stream that has ended."""

    due: float
    """Until when it is kept."""
    stream_id: str
    caller: str
    size: int


class _Copying:
    """One log and how far its copy is: the log's watcher or, with `before_send`, its gate."""

    __slots__ = (
        "_ending",
        "_held",
        "_journal",
        "_lost",
        "_pieces",
        "_size",
        "_text",
        "_touched",
        "_written",
        "copied",
        "held",
        "is_begun",
        "is_behind",
        "is_complete",
        "is_given_up",
        "log",
        "stream_id",
    )

    def __init__(self, journal: Journal, log: StreamLog) -> None:
        self.log = log
        self.stream_id = log.header.stream_id
        self.copied = 0
        """Bytes of the copy."""
        self.is_begun = False
        self.is_behind = False
        """Whether the log must be read for what is to be written next."""
        self.is_complete = False
        """Whether the end is written."""
        self.is_given_up = False
        """Whether nothing more is written."""
        self._journal = journal
        self._pieces: list[tuple[bytes, int]] = []  # with the number of the last event
        self._size = 0
        self._written = 0  # the last event that was taken
        self._lost = 0  # the last event that the copy has dropped
        self._text = (0, 0)  # length and checksum of the text of its gaps
        self._touched = -math.inf
        self._held: deque[tuple[bytes, int]] = deque()  # pieces that may be read only once they are written
        self.held = 0
        self._ending: Ending | None = None

    # -- what the log does --

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """The log has one more piece."""
        if not self.is_behind and not self.is_given_up:
            cost = len(piece) + SHARED.log_piece_cost
            self._pieces.append((piece, last_seq))
            self._size += cost
            self._journal.size += cost
            if self._size > LIMITS.journal_stream or self._journal.size > LIMITS.journal:
                self._fall_behind()
        self._journal.changed(self)

    def ended(self) -> None:
        """The log has ended."""
        self._journal.changed(self)

    def append(self, piece: bytes, last_seq: int) -> None:
        """As the log's gate: a piece comes, which may be read once it is written."""
        if not self._journal.lets_pass and not self.is_behind and not self.is_given_up:
            self._held.append((piece, last_seq))
            self.held += len(piece) + SHARED.log_piece_cost
        else:
            self.publish_all()  # the store may have failed for somebody else since the last piece
            self.log.publish(piece, last_seq)
        self.advanced(piece, last_seq)

    def end(self, ending: Ending) -> None:
        """As the log's gate: the log ends, once its pieces are written. Only the first end counts."""
        self._ending = self._ending or ending
        self._publish_end()
        self._journal.changed(self)

    def forget_touch(self) -> None:
        """The next change prolongs the copy's life."""
        self._touched = -math.inf

    def broken_off(self) -> None:
        """As the log's gate: the log is broken off, and has no copy any more."""
        self._held.clear()
        self.held = 0
        self._journal.changed(self)

    # -- what the journal does --

    @property
    def has_more(self) -> bool:
        """Whether something is left to be written."""
        return self.is_behind or bool(self._pieces) or self.log.is_over

    def take(self, life: float, ttl: float) -> Change | None:
        """Returns the next change of the copy. None if there is none.

        Args:
            life: Seconds for which the copy of a running stream is kept.
            ttl: Seconds for which the copy of an ended stream is kept.
        """
        log, now = self.log, self._journal.clock()
        header = None if self.is_begun else log.header
        gap: Gap | None = None
        if self.is_behind:
            records, gap = self._read()
        else:
            records = self._join()
        self.copied += sum(len(record.piece) + SHARED.log_block_cost for record in records)
        if gap is None and log.lost > self._lost and self.copied > self._journal.trimmed_from:
            gap = self._gap(log.read(0, 1))
        if gap is not None:
            self.copied = min(self.copied, log.size)
        ending = log.ending if not self.is_behind else None
        keep = ttl if ending is not None else life if now - self._touched > life / _TOUCHES else None
        if header is None and not records and gap is None and ending is None and keep is None:
            return None
        if keep is not None:
            self._touched = now
        self.is_begun = True
        self.is_complete = ending is not None
        worker = "" if header is None else self._journal.worker
        return Change(self.stream_id, header, worker, records, gap, ending, log.last_seq, keep)

    def publish(self) -> None:
        """Lets the pieces be read that have been written."""
        self._publish_up_to(self._written)

    def publish_all(self) -> None:
        """Lets every held piece be read."""
        self._publish_up_to(math.inf)

    def _publish_up_to(self, seq: float) -> None:
        while self._held and self._held[0][1] <= seq:
            piece, last_seq = self._held.popleft()
            self.held -= len(piece) + SHARED.log_piece_cost
            self.log.publish(piece, last_seq)
        self._publish_end()

    def begin_again(self) -> None:
        """Starts the copy again from the log, because the store has lost it."""
        self.is_begun = self.is_complete = False
        self._written = self._lost = self.copied = 0
        self._text = (0, 0)
        self._touched = -math.inf
        self._fall_behind()

    def drop_pieces(self) -> None:
        """Keeps nothing for the copy."""
        self._journal.size -= self._size
        self._size = 0
        self._pieces.clear()

    def _fall_behind(self) -> None:
        self.publish_all()
        self.drop_pieces()
        self.is_behind = self.log.is_degraded = True

    def _publish_end(self) -> None:
        if self._ending is not None and not self._held:
            self.log.finish(self._ending)

    def _join(self) -> list[Record]:
        pieces = self._pieces
        self._pieces = []
        self._journal.size -= self._size
        self._size = 0
        if not pieces:
            return []
        after, self._written = self._written, pieces[-1][1]
        if self.log.header.is_numbered:
            return [Record(after, self._written, b"".join(piece for piece, _ in pieces))]
        records = []  # without numbers in the frames, joined pieces could not be cut again
        for piece, last_seq in pieces:
            records.append(Record(after, last_seq, piece))
            after = last_seq
        return records

    def _read(self) -> tuple[list[Record], Gap | None]:
        """Reads on in the log: its next bytes, and what it has dropped since.

        No `LogCursor`: each batch of the journal reads one part, so batches set the pace.
        """
        backlog = self.log.read(self._written, LIMITS.journal_stream)
        gap = self._gap(backlog) if backlog.lost else None
        after = max(self._written, backlog.lost)
        self._written = backlog.last_seq
        self.is_behind = self._written < self.log.last_seq
        if not backlog.pieces:
            return [], gap
        return [Record(after, self._written, b"".join(backlog.pieces))], gap

    def _gap(self, backlog: Backlog) -> Gap:
        self._lost = backlog.lost
        if backlog.text is None:
            return Gap(backlog.lost, None, is_whole=False)
        text = backlog.text.encode()
        known, checksum = self._text
        self._text = len(text), zlib.crc32(text)
        if known and zlib.crc32(text[:known]) == checksum:
            return Gap(backlog.lost, text[known:].decode(), is_whole=False)
        return Gap(backlog.lost, backlog.text, is_whole=True)
