"""`memory://`: logs in the memory of this process, gone with it.

Owns how many bytes of one stream and of all are kept, and for how long after a stream's end.

1. Where a stream has more than `max_stream_bytes`, its oldest pieces are dropped.
2. Where all have more than `max_bytes`, the streams that ended first are dropped; where none is left, the oldest pieces
   of the largest running ones, down to one common size, and a sixteenth of `max_bytes` beyond need: so the search for
   the largest costs next to nothing per piece.
3. Bytes are counted with the cost of keeping them (`limits.log_*`), so the limits hold for a stream of many small
   pieces too. Small pieces are gathered, and joined at `limits.log_block`.
4. One timer, for the stream that ended first; with none due nothing runs.

The coroutines of this store never suspend, so the bytes read and the piece appended next fit together without a gap.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from gai_fast.errors import Error
from gai_fast.limits import LIMITS
from gai_fast.settings import StoreSettings
from gai_fast.stores._base import Backlog, Ending, LogHeader, Store, StreamLog, frames_after
from gai_fast.timers import TimerHandle, TimerWheel

_PIECE_COST: Final = LIMITS.log_piece_cost
_BLOCKS: Final = 8
"""A stream may have at least so many, so that dropping one never drops most of it."""
_SPARE: Final = 16
"""The part of all bytes that rule 2 frees beyond need."""


class MemoryLog(StreamLog):
    """One stream's pieces. Made by `MemoryStore.create`."""

    __slots__ = ("_blocks", "_gathered", "_kept", "_lost", "_store", "_tail", "ending", "header", "last_seq")

    def __init__(self, store: MemoryStore, header: LogHeader) -> None:
        self.header = header
        self.last_seq = 0
        self.ending: Ending | None = None
        self._store = store
        self._blocks: deque[tuple[bytes, int]] = deque()  # bytes, and the number of the last event in them
        self._kept = LIMITS.log_stream_cost  # what the blocks and the log itself cost
        self._tail: list[bytes] = []  # small pieces since the last block
        self._gathered = 0  # what they cost
        self._lost = 0

    @property
    def size(self) -> int:
        """Bytes in use, with the cost of keeping them."""
        return self._kept + self._gathered

    def append(self, piece: bytes, last_seq: int) -> None:
        """Keeps a piece."""
        store = self._store
        cost = len(piece) + _PIECE_COST
        if self._gathered + cost > store.block:
            self._join_tail()
        if cost > store.block:
            self._add(piece, last_seq)
        else:
            self._tail.append(piece)
            self._gathered += cost
            store.size += cost
        self.last_seq = last_seq
        if store.size > store.max_bytes:
            store.make_room()

    def end(self, ending: Ending) -> None:
        """Ends the log; only the first call counts."""
        if self.ending is None:
            self.ending = ending
            self._join_tail()
            self._store.log_ended(self)

    async def read(self, after: int = 0) -> Backlog:
        """Returns the bytes after the event of this number."""
        lost = self._lost if after < self._lost else 0
        start = max(after, lost) or -1  # frames of some formats have no numbers: all of them are at 0
        pieces = [block for block, last in self._blocks if last > start]
        if self._tail and self.last_seq > start:
            pieces.append(b"".join(self._tail))
        if pieces:
            first = frames_after(pieces[0], self.header, start)
            pieces[:1] = [first] if first else []
        return Backlog(pieces, self.last_seq, lost, self.ending)

    def trim(self, limit: int) -> None:
        """Drops the oldest pieces until no more than `limit` bytes are in use, or none is left."""
        kept = self._kept
        while self._blocks and self.size > limit:
            block, self._lost = self._blocks.popleft()
            self._kept -= len(block) + LIMITS.log_block_cost
        if self._tail and self.size > limit:
            self._tail.clear()
            self._lost = self.last_seq
            self._store.size -= self._gathered
            self._gathered = 0
        self._store.size += self._kept - kept

    def _join_tail(self) -> None:
        if self._tail:
            tail, self._tail = self._tail, []
            self._store.size -= self._gathered
            self._gathered = 0
            self._add(b"".join(tail), self.last_seq)

    def _add(self, block: bytes, last_seq: int) -> None:
        cost = len(block) + LIMITS.log_block_cost
        self._blocks.append((block, last_seq))
        self._kept += cost
        self._store.size += cost
        self.trim(self._store.blocks_of_stream)


class MemoryStore(Store):
    """The logs of one process.

    Args:
        settings: `[store]`.
        timers: The loop's timer wheel.
    """

    def __init__(self, settings: StoreSettings, timers: TimerWheel) -> None:
        self.size = 0
        """Bytes that all logs use."""
        self.max_bytes = settings.max_bytes
        self.block = min(LIMITS.log_block, settings.max_stream_bytes // _BLOCKS)
        """The size at which the small pieces of a stream are joined."""
        self.blocks_of_stream = settings.max_stream_bytes - self.block
        """Bytes that one stream may use when its small pieces have been joined."""
        self._ttl = settings.ttl
        self._timers = timers
        self._timer: TimerHandle | None = None
        self._logs: dict[str, MemoryLog] = {}
        self._ended: deque[tuple[float, MemoryLog]] = deque()  # when they go, the first one first

    def __len__(self) -> int:
        return len(self._logs)

    def create(self, header: LogHeader) -> MemoryLog:
        """Makes the log of a stream that begins.

        Raises:
            Overloaded: The logs of the running streams, even if empty, would take half of `max_bytes`.
        """
        if (len(self._logs) - len(self._ended) + 1) * LIMITS.log_stream_cost > self.max_bytes // 2:
            raise Error("overloaded", "there is no room for another resumable stream", reason="store")
        log = self._logs[header.stream_id] = MemoryLog(self, header)
        self.size += log.size
        self.make_room()
        return log

    async def find(self, stream_id: str) -> MemoryLog | None:
        """Returns the log of a stream, if there is one."""
        return self._logs.get(stream_id)

    async def close(self) -> None:
        """Drops everything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._logs.clear()
        self._ended.clear()
        self.size = 0

    def log_ended(self, log: MemoryLog) -> None:
        """Begins a log's time to live."""
        if log.header.stream_id in self._logs:
            self._ended.append((self._timers.clock() + self._ttl, log))
            self.make_room()
            if self._timer is None:
                self._expire()

    def make_room(self) -> None:
        """Drops logs and pieces until no more than `max_bytes` are in use."""
        while self._ended and self.size > self.max_bytes:
            self._forget_first()
        if self.size > self.max_bytes:
            self._trim_largest(self.size - self.max_bytes + self.max_bytes // _SPARE)

    def _trim_largest(self, excess: int) -> None:
        logs = sorted(self._logs.values(), key=lambda log: log.size, reverse=True)
        total = 0
        for count, log in enumerate(logs, 1):
            total += log.size
            level = (total - excess) // count  # the size that these have when the excess is gone
            if count == len(logs) or level >= logs[count].size:
                for largest in logs[:count]:
                    largest.trim(level)
                return

    def _forget_first(self) -> None:
        _, log = self._ended.popleft()
        del self._logs[log.header.stream_id]
        self.size -= log.size

    def _expire(self) -> None:
        self._timer = None
        now = self._timers.clock()
        while self._ended:
            due, _ = self._ended[0]
            if due > now:
                self._timer = self._timers.schedule(due, self._expire)
                return
            self._forget_first()
