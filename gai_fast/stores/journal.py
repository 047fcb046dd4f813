"""Copies the logs of this process to the store, in the background.

Owns the time and content of each write, the pieces that wait for the store, and their fate while the store fails.

1. A log never waits for its copy, and no failure of the store reaches a stream. The new pieces of all logs are gathered
   for `limits.journal_interval` and written as one batch.
2. Waiting pieces have a limit per stream and a limit for all streams. Beyond it a copy is *behind*: no more pieces are
   held for it. Once the store answers, the journal reads the missing part from the log, as a follower does.
3. If a log drops pieces, its copy drops them too and keeps their text. Pieces that the log dropped before they were
   written are a gap in the copy, never a hole.
4. A failed batch is written again unchanged, at growing intervals. Until it succeeds, the journal is degraded, and so
   is every log that is not completely written.
5. If this process forgets a log before it is completely written, its copy is removed.
6. If a bug of the gateway fails a batch, the copies of its streams are given up: they are removed, and the streams are
   degraded from then on. The other streams are still copied.
7. If a batch fails because the store is damaged, each of its streams is written by itself. A stream that fails by
   itself is given up as in rule 6. The next batch removes its copy; if that fails too, the whole store is damaged.
8. If the store has lost writes, all copies begin again from the memory of this process: the copies of running streams,
   and of ended streams whose logs are still in memory.
9. With `before_send` a piece of a log can be read once the store has it. While the store fails, pieces can be read at
   once. The end is written together with the last piece, and a stream's request before its upstream is asked. The first
   piece of a new owner always waits for the store: the numbers of the next owner begin above all that is stored, and so
   above all that clients have seen.
10. If the store refuses a copy, it has another owner: this process was taken for gone. The log's pieces that are not
   written are dropped, the copy is never written or removed again, and `refused` is called.
11. A copy that is let go is written to the end of its log, which grows no more. Then it has no owner, and is never
    written or removed again.
"""

from __future__ import annotations

import asyncio
import math
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from gai_fast.model.limits import SHARED
from gai_fast.model.settings import StoreSettings
from gai_fast.stores._base import Backlog, Ending
from gai_fast.stores.backend import Backend, CopyChange, Gap, Record, StoreError, Unwritten
from gai_fast.stores.health import Health, logger
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.memory import SPARE, LogMemory, StreamLog, level_down

_TRIMMED: Final = 8
"""A copy may be larger than its log by this fraction, so that not every piece trims it."""
_TOUCHES: Final = 4
"""The life of a running stream's copy is renewed this many times within that life."""


class Journal:
    """The copies of the logs of one process.

    Args:
        backend: The store; open.
        memory: Has the logs.
        settings: `[store]`.
        health: Records whether the store works.
        worker: The name of this process.
        clock: Monotonic seconds.
        refused: Called with a log whose copy has another owner: rule 10. Must not raise.
    """

    def __init__(
        self,
        backend: Backend,
        memory: LogMemory,
        settings: StoreSettings,
        health: Health,
        worker: str,
        clock: Callable[[], float],
        refused: Callable[[StreamLog], None],
    ) -> None:
        self.health = health
        self.clock = clock
        self.size = 0
        """Bytes that wait for the store, including overhead."""
        self.is_ahead = settings.sync == "before_send"
        """Whether a piece is written before it can be read: rule 9."""
        self.trimmed_from = settings.max_stream_bytes + settings.max_stream_bytes // _TRIMMED
        """The size above which a copy drops the pieces that its log has dropped."""
        self.worker = worker
        self.is_failing = False
        """Whether the last write failed."""
        self.is_behind = False
        """Whether the store may lack streams of this process: from a failed write until all that waits is written."""
        self._takes_all = True  # whether the batch has all that waits
        self._backend = backend
        self._refused = refused
        self._memory = memory
        self._ttl = settings.ttl
        self._max_bytes = settings.max_bytes
        self._copies: dict[str, _Copying] = {}
        self._changed: OrderedDict[_Copying, None] = OrderedDict()  # the longest-waiting first
        self._dropped: dict[str, int] = {}  # the epochs of copies that must be removed, by stream id
        self._losses = backend.losses  # the losses that `_recover` has handled
        self._batch: list[_Copying] = []  # the logs whose changes are being written
        self._ended: deque[_Ended] = deque()  # by expiry time
        self._ended_size = 0
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._touched = self.clock()
        self._is_stopped = False
        self._task = asyncio.ensure_future(self._run())
        self._task.add_done_callback(self._stopped)

    @property
    def _life(self) -> float:
        """Seconds for which the copy of a running stream is kept."""
        return max(2 * self._ttl, LIMITS.copy_life)

    @property
    def lets_pass(self) -> bool:
        """Whether pieces may be read before they are written, because the store fails."""
        return self.health.problem is not None

    def keep(self, ttl: float, max_bytes: int) -> None:
        """Sets the bounds for copies of streams that end from now on; as `LogMemory.keep`."""
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

    def when_begun(self, log: StreamLog, then: Callable[[], None]) -> bool:
        """Returns whether a stream with a request waits until the store has that: rule 9.

        Args:
            log: The log, which has just begun.
            then: Called once, later: the store has the request, or fails. Must not raise.
        """
        copying = self._copies.get(log.header.stream_id)
        if copying is None or not self.is_ahead or self.lets_pass or not log.request:
            return False
        copying.begun = then
        return True

    def go_on(self, log: StreamLog, epoch: int, *, is_end: bool) -> None:
        """Writes to a copy that this process has taken over.

        Args:
            log: The log; it has all that the copy has.
            epoch: The copy's epoch.
            is_end: Whether only its end follows, which can be read once the store has it.
        """
        log.is_left = False  # another one may have taken it over from this process before
        log.takeovers = epoch - 1
        if self._is_stopped:
            log.is_degraded = True
            return
        copying = log.gate = self._copies[log.header.stream_id] = _Copying(self, log, epoch)
        copying.opens = not (is_end or self.is_ahead)
        copying.take_over()

    async def let_go(self, log: StreamLog) -> bool:
        """Lets the copy of a log go: rule 11.

        Args:
            log: The log.

        Returns:
            Whether it has no owner now. If not, it is not written any more, or has another owner.

        Raises:
            StoreError: The store cannot be used.
        """
        stream_id = log.header.stream_id
        copying = self._copies.get(stream_id)
        if copying is None:
            return False
        copying.written = asyncio.get_running_loop().create_future()
        copying.forget_touch()  # there is always something to write, so that it is settled
        self.changed(copying)
        if not await copying.written:
            return False
        return await self._backend.take_over(stream_id, copying.epoch, log.last_seq, log.header, "")

    async def stored(self, log: StreamLog) -> bool:
        """Returns whether the store has all that a log has now, as soon as that is known.

        Args:
            log: The log of a running stream.
        """
        copying = self._copies.get(log.header.stream_id)
        if copying is None or copying.is_given_up or self.lets_pass:
            return False
        waits: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        copying.awaited_by.append(waits)
        copying.forget_touch()  # as in `let_go`
        self.changed(copying)
        await asyncio.wait([waits], timeout=SHARED.store_retry)
        return waits.done() and waits.result()

    def changed(self, copying: _Copying) -> None:
        """Adds a log to the next batch."""
        if copying.is_given_up:
            return
        self._changed[copying] = None
        if self.lets_pass:
            copying.log.is_degraded = True
        self._wake.set()

    def keep_alive(self, *, at_once: bool = False) -> None:
        """Renews the lives of copies whose streams are silent; called every few seconds or more often.

        Args:
            at_once: Whether to renew all copies now, because the store has lost its data. The store then reports the
                missing copies, which are written again.
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
        """Writes all copies again if the store has lost writes: rule 8."""
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
                self._copies[each.stream_id] = _Copying(self, log, each.epoch)
        for copying in [*self._copies.values()]:
            copying.begin_again()
            self.changed(copying)

    async def close(self) -> None:
        """Writes the pending changes, for at most `limits.store_close` seconds."""
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
                    self.is_behind = self.is_behind and not self._takes_all
            except Exception as problem:  # noqa: BLE001  # rule 6
                self._give_up(problem)

    def _gather(self) -> list[CopyChange]:
        """Returns the changes of the longest-waiting logs, within `limits.journal_changes` and `journal_batch`."""
        self._batch = []
        changes: list[CopyChange] = []
        while self._dropped and len(changes) < LIMITS.journal_changes:
            changes.append(self._removal(*self._dropped.popitem()))
        size = 0
        while self._changed and size < LIMITS.journal_batch and len(changes) < LIMITS.journal_changes:
            copying, _ = self._changed.popitem(last=False)
            if not self._is_kept(copying):
                self._forget(copying)
                changes.append(self._removal(copying.stream_id, copying.epoch))
                continue
            self._batch.append(copying)
            change = copying.take(self._life, self._ttl)
            if change is None:
                self._batch.pop()
            else:
                changes.append(change)
                size += sum(len(record.piece) for record in change.records) + SHARED.log_block_cost
                size += len(change.request or b"")
        self._takes_all = not self._changed
        return changes

    def _removal(self, stream_id: str, epoch: int) -> CopyChange:
        return CopyChange(stream_id, worker=self.worker, epoch=epoch, is_dropped=True)

    async def _write(self, changes: Sequence[CopyChange]) -> Mapping[str, Unwritten]:
        """Writes changes, and retries until it succeeds. A retry skips logs that were forgotten: rule 5."""
        wait = LIMITS.store_retry_first
        while changes:
            try:
                unwritten = await self._backend.write(changes)
            except StoreError as problem:
                if problem.fault == "damaged":
                    return await self._write_apart(changes, problem)
                self.is_failing = self.is_behind = True
                self._takes_all = False  # of the streams that begin until it succeeds
                self.health.failed(problem)
                self._degrade(changes)
                if self._backend.losses != self._losses:
                    return {}  # the copies must begin again: rule 8
                changes = [each for each in changes if each.is_dropped or each.stream_id in self._copies]
                await asyncio.sleep(wait)
                wait = min(2 * wait, SHARED.store_retry)
            else:
                self.is_failing = False
                self.health.worked()
                return unwritten
        return {}

    async def _write_apart(self, changes: Sequence[CopyChange], problem: StoreError) -> Mapping[str, Unwritten]:
        """Writes each change of a failed batch by itself, and gives up the changes that fail again: rule 7."""
        if len(changes) == 1:
            self._give_up_damaged(changes[0], problem)
            return {}
        unwritten: dict[str, Unwritten] = {}
        for change in changes:
            unwritten.update(await self._write([change]))
        return unwritten

    def _settle(self, unwritten: Mapping[str, Unwritten]) -> None:
        for copying in self._batch:
            if copying.is_given_up or copying.stream_id not in self._copies:  # forgotten during the write
                continue
            why = unwritten.get(copying.stream_id)
            if why == "refused":
                self._leave_to_other(copying)
                continue
            if why == "missing":
                copying.begin_again()
            else:
                copying.publish()
                if copying.opens:
                    copying.open()
                if copying.log.request:
                    copying.log.request = b""  # the store has it; it may be as large as a body
            copying.log.is_degraded = copying.is_behind
            if not copying.has_more:
                copying.note_stored(is_stored=True)
            if copying.is_complete:
                self._changed.pop(copying, None)
                self._forget(copying)
                copying.log.request = None
                size = copying.copied + LIMITS.log_stream_cost
                caller = copying.log.header.caller
                due = self.clock() + self._ttl
                self._ended.append(_Ended(due, copying.stream_id, caller, size, copying.epoch))
                self._ended_size += size
            elif copying.has_more:
                self.changed(copying)
            elif copying.written is not None:
                copying.is_given_up = True
                self._changed.pop(copying, None)
                copying.note_written(is_written=True)
                self._forget(copying)
        self._recover()
        now = self.clock()
        while self._ended and self._ended[0].due <= now:
            self._ended_size -= self._ended.popleft().size
        if self._ended_size > self._max_bytes:
            self._make_room()

    def _make_room(self) -> None:
        """Drops copies of ended streams of the callers with the most bytes: rules 2 and 3 of `memory.py`."""
        sizes: dict[str, int] = {}
        for each in self._ended:
            sizes[each.caller] = sizes.get(each.caller, 0) + each.size
        excess = level_down(
            sizes, self._ended_size - self._max_bytes + self._max_bytes // SPARE, dict.fromkeys(sizes, 0)
        )
        kept: deque[_Ended] = deque()
        for each in self._ended:
            if excess.get(each.caller, 0) > 0:
                excess[each.caller] -= each.size
                self._ended_size -= each.size
                self._drop(each.stream_id, each.epoch)
            else:
                kept.append(each)
        self._ended = kept

    def _degrade(self, changes: Sequence[CopyChange]) -> None:
        """Publishes every held piece, and forgets logs that this process no longer has."""
        waiting = {change.stream_id for change in changes}
        for copying in [*self._copies.values()]:
            if copying.stream_id in waiting or copying in self._changed:
                copying.log.is_degraded = True
            copying.publish_all()
            if not self._is_kept(copying):
                self._changed.pop(copying, None)
                self._forget(copying)
                self._drop(copying.stream_id, copying.epoch)

    def _leave_to_other(self, copying: _Copying) -> None:
        """Writes nothing more of a log whose copy has another owner: rule 10."""
        log = copying.log
        copying.is_given_up = True
        copying.drop_held()
        log.gate = None
        log.is_left, log.is_degraded = True, False
        self._memory.forget_request(log)
        self._changed.pop(copying, None)
        self._forget(copying)
        logger.warning(
            "stream %s: another worker has taken it over from epoch %d, so it ends here",
            copying.stream_id,
            copying.epoch,
        )
        self._refused(log)

    def _give_up(self, problem: Exception) -> None:
        """Gives up the copies of a batch: rule 6."""
        self.health.broke("streams were not copied to the store", problem)
        for copying in self._batch:
            self._go_without(copying)
            self._drop(copying.stream_id, copying.epoch)

    def _give_up_damaged(self, change: CopyChange, problem: StoreError) -> None:
        """Gives up a copy that cannot be written. If its removal fails too, the store has failed: rule 7."""
        if change.is_dropped:
            self.is_failing = True
            self.health.failed(problem)
            return
        if not self.is_failing:
            logger.warning("a stream has no durable copy: %s", problem)
        for copying in self._batch:
            if copying.stream_id == change.stream_id:
                self._go_without(copying)
        self._drop(change.stream_id, change.epoch)

    def _go_without(self, copying: _Copying) -> None:
        """Stops copying a log, and publishes its held pieces."""
        copying.is_given_up = copying.log.is_degraded = True
        copying.publish_all()
        self._changed.pop(copying, None)
        self._forget(copying)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """Gives up all copies, because the journal is closed."""
        self._is_stopped = True
        for copying in [*self._copies.values()]:
            self._go_without(copying)

    def _is_kept(self, copying: _Copying) -> bool:
        return self._memory.find(copying.stream_id) is copying.log and copying.log.broken is None

    def _forget(self, copying: _Copying) -> None:
        copying.drop_pieces()
        copying.note_written(is_written=False)
        copying.note_stored(is_stored=False)
        copying.note_begun()
        copying.log.unwatch(copying)
        self._copies.pop(copying.stream_id, None)  # it may have been forgotten while its last batch failed

    def _drop(self, stream_id: str, epoch: int) -> None:
        """Removes a copy with the next batch. Above `limits.journal_dropped`, copies expire in the store instead."""
        if len(self._dropped) < LIMITS.journal_dropped:
            self._dropped[stream_id] = epoch
            self._wake.set()

    async def _pause(self, seconds: float) -> None:
        """Waits for some seconds, or until the journal is being closed."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return


class _Ended(NamedTuple):
    """The copy of a stream that has ended."""

    due: float
    """The time at which it expires."""
    stream_id: str
    caller: str
    size: int
    epoch: int


class _Copying:
    """A log and the progress of its copy. It is the log's watcher or, with `before_send`, the log's gate."""

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
        "awaited_by",
        "begun",
        "copied",
        "epoch",
        "held",
        "is_begun",
        "is_behind",
        "is_complete",
        "is_given_up",
        "log",
        "opens",
        "stream_id",
        "written",
    )

    def __init__(self, journal: Journal, log: StreamLog, epoch: int = 1) -> None:
        self.log = log
        self.epoch = epoch
        """How often the copy was begun or taken over."""
        self.stream_id = log.header.stream_id
        self.copied = 0
        """Bytes of the copy."""
        self.is_begun = False
        self.is_behind = False
        """Whether the next part to be written must be read from the log: rule 2."""
        self.is_complete = False
        """Whether the end was taken for writing."""
        self.is_given_up = False
        """Whether nothing more is written: rules 6 and 11."""
        self.opens = False
        """Whether it is the log's gate for the first piece only."""
        self.begun: Callable[[], None] | None = None
        """Called once the store has the beginning of the copy, or none is kept. None if nothing waits for that."""
        self.awaited_by: list[asyncio.Future[bool]] = []
        """Each is done once all that its log had is written, or it is not written any more."""
        self.written: asyncio.Future[bool] | None = None
        """Done once all of a log that is let go is written, or it is not written any more: rule 11. None before."""
        self._journal = journal
        self._pieces: list[tuple[bytes, int]] = []  # each with the number of its last event
        self._size = 0
        self._written = 0  # the last event that was taken for writing
        self._lost = 0  # the last event that the copy has dropped
        self._text = (0, 0)  # length and checksum of the text of its gaps
        self._touched = -math.inf
        self._held: deque[tuple[bytes, int]] = deque()  # pieces that cannot be read before they are written: rule 9
        self.held = 0
        self._ending: Ending | None = None

    # -- called by the log --

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Holds a new piece of the log for the next batch."""
        if not self.is_behind and not self.is_given_up:
            cost = len(piece) + SHARED.log_piece_cost
            self._pieces.append((piece, last_seq))
            self._size += cost
            self._journal.size += cost
            if self._size > LIMITS.journal_stream or self._journal.size > LIMITS.journal:
                self._fall_behind()
        self._journal.changed(self)

    def ended(self) -> None:
        """Writes the end with the next batch."""
        self._journal.changed(self)

    def append(self, piece: bytes, last_seq: int) -> None:
        """Holds a new piece, as the log's gate, until it is written."""
        if not self._journal.lets_pass and not self.is_behind and not self.is_given_up:
            self._held.append((piece, last_seq))
            self.held += len(piece) + SHARED.log_piece_cost
        else:
            self.publish_all()  # another part of the gateway may have found since the last piece that the store fails
            self.log.publish(piece, last_seq)
        self.advanced(piece, last_seq)

    def end(self, ending: Ending) -> None:
        """Ends the log, as its gate, once its pieces are written. Only the first end counts."""
        self._ending = self._ending or ending
        self._publish_end()
        self._journal.changed(self)

    def forget_touch(self) -> None:
        """Makes the next change renew the copy's life."""
        self._touched = -math.inf

    def broken_off(self) -> None:
        """Discards the held pieces, as the gate of a log that is broken off. The next batch removes its copy."""
        self.drop_held()
        self._journal.changed(self)

    # -- called by the journal --

    def take_over(self) -> None:
        """Goes on after what the copy has."""
        self.is_begun = True
        self._written, self._lost = self.log.last_seq, self.log.lost
        self.copied = self.log.size
        self._journal.changed(self)

    def note_begun(self) -> None:
        """Calls `begun`, once: the store has the beginning of the copy."""
        then, self.begun = self.begun, None
        if then is not None:
            then()

    def note_written(self, *, is_written: bool) -> None:
        """Notes whether all of a log that is let go is written. Only the first call counts."""
        if self.written is not None and not self.written.done():
            self.written.set_result(is_written)

    def note_stored(self, *, is_stored: bool) -> None:
        """Ends the waits for the log with whether the store has it."""
        waiting, self.awaited_by = self.awaited_by, []
        for each in waiting:
            if not each.done():
                each.set_result(is_stored)

    def drop_held(self) -> None:
        """Drops the pieces that cannot be read yet, and the end behind them."""
        self._held.clear()
        self.held = 0
        self._ending = None

    @property
    def has_more(self) -> bool:
        """Whether more must be written."""
        return self.is_behind or bool(self._pieces) or self.log.is_over

    def take(self, life: float, ttl: float) -> CopyChange | None:
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
        ending = None if self.is_behind else log.ending or self._ending  # rule 9
        keep = ttl if ending is not None else life if now - self._touched > life / _TOUCHES else None
        if header is None and not records and gap is None and ending is None and keep is None:
            return None
        if keep is not None:
            self._touched = now
        self.is_begun = True
        self.is_complete = ending is not None
        last_seq = self._held[-1][1] if self._held else log.last_seq
        request = log.request
        if request is not None:
            request = b"" if header is None else request or None
        return CopyChange(
            self.stream_id,
            header,
            self._journal.worker,
            records,
            gap,
            ending,
            last_seq,
            keep,
            caller=log.header.caller,
            epoch=self.epoch,
            request=request,
        )

    def publish(self) -> None:
        """Publishes the held pieces that are written."""
        self._publish_up_to(self._written)

    def publish_all(self) -> None:
        """Publishes every held piece."""
        self._publish_up_to(math.inf)

    def open(self) -> None:
        """Becomes the log's watcher, once the first piece is written: rule 9."""
        self.opens = False
        self.publish_all()
        self.log.gate = None
        self.log.watch(self)

    def _publish_up_to(self, seq: float) -> None:
        while self._held and self._held[0][1] <= seq:
            piece, last_seq = self._held.popleft()
            self.held -= len(piece) + SHARED.log_piece_cost
            self.log.publish(piece, last_seq)
        self._publish_end()
        if self.begun is not None:
            self.note_begun()

    def begin_again(self) -> None:
        """Starts the copy again from the log, because the store has lost it."""
        self.is_begun = self.is_complete = False
        self._written = self._lost = self.copied = 0
        self._text = (0, 0)
        self._touched = -math.inf
        self._fall_behind()

    def drop_pieces(self) -> None:
        """Drops the pieces that wait to be written."""
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
        records = []  # frames without numbers: joined pieces could not be cut again
        for piece, last_seq in pieces:
            records.append(Record(after, last_seq, piece))
            after = last_seq
        return records

    def _read(self) -> tuple[list[Record], Gap | None]:
        """Returns the next part of the log, and the gap before it if the log has dropped events.

        Uses no `LogCursor`: each batch of the journal reads one part, so batches set the pace.
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
        before, self._lost = self._lost, backlog.lost
        if backlog.text is None:
            return Gap(backlog.lost, None, is_whole=False)
        text = backlog.text.encode()
        known, checksum = self._text
        self._text = len(text), zlib.crc32(text)
        if known and zlib.crc32(text[:known]) == checksum:
            return Gap(backlog.lost, text[known:].decode(), is_whole=False, after=before)
        return Gap(backlog.lost, backlog.text, is_whole=True)
