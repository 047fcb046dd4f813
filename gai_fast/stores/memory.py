"""The logs in the memory of this process: all of `memory://`, and the originals of every other store's copies.

Owns the number of bytes that one stream and all streams keep, and the time to live after a stream's end.

1. If a stream has more than `max_stream_bytes`, its oldest pieces are dropped.
2. If all streams together have more than `max_bytes`, the callers with the most bytes make room, down to one common
   size. Their streams that ended first are dropped first. If no ended stream is left, the largest running streams drop
   their oldest pieces, down to one common size. A caller with less than the common size loses nothing. A running stream
   cannot free its `limits.log_stream_cost`: if that exceeds the common size, the other callers free the difference.
3. A search finds what to drop for the next sixteenth of `max_bytes`, so it costs little per piece. Logs and blocks are
   dropped one by one as room is needed: a sixteenth at once would stop the loop for a second. If a search finds less
   than is needed, as after a reload with a smaller `max_bytes`, the next one comes a sixteenth later too.
4. Sizes include overhead (`limits.log_*`), so the limits hold for a stream of many small pieces too. Small pieces are
   gathered, and joined at `limits.log_block`.
5. The text of dropped pieces of the format `gai` is kept for `stream.gap`, up to half of a stream's bytes.
6. The request of a running stream and what is kept of its run, which the store has until its end, count beside the log,
   and cannot be freed. They have half of `max_bytes`; a caller with a key may have as much of it as is free. What has
   no room is not kept: its stream ends with its worker.
7. There is one timer, for the stream that expires first. If no stream has ended, there is none.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ANONYMOUS, StoreSettings
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.stores._base import Backlog, Ending, LogGate, LogHeader, LogWatcher, add_text, frames_after
from gai_fast.stores.backend import ResponseBudget, ResponseRecord
from gai_fast.stores.limits import LIMITS

if TYPE_CHECKING:
    from gai_fast.stores.responses import KeptResponse

URL: Final = "memory://"

# Constants: a name look-up costs 30 ns.
_PIECE_COST: Final = SHARED.log_piece_cost
_STREAM_COST: Final[int] = LIMITS.log_stream_cost
_deque: Final = deque
_BLOCKS: Final = 8
"""The least number of blocks that a stream may have, so that dropping one never drops most of the stream."""
SPARE: Final = 16
"""One part in so many of all bytes is searched for at a time: rule 3."""

_NO_PARTS: Final[Mapping[str, int]] = MappingProxyType({})
_Key = TypeVar("_Key")


class StreamLog:
    """One stream's log. The stream's publication writes it; followers read it. Made by `LogMemory.create`.

    Attributes:
        header: Describes the stream.
        last_seq: The number of the last event. 0 if there is none yet.
        ending: How the stream ended. None if it has not, or if that is unknown (`broken`).
        broken: The error of a log whose writer is gone without an end. None if the log is not broken.
        is_degraded: Whether the durable copy of the log is behind or incomplete. Always False without durable copies.
        followed_at: When another process last reported over the bus that it follows the log. Not set if the store
            records followers.
        is_left: Whether this process wrote the log until another one took the stream over.
        takeovers: How often the stream was taken over, as far as it is known here.
        request: What a new owner of the stream needs to go on. None if there is none, and after the end.
        request_size: Its bytes, until the end, wherever it is: rule 6.
        run_size: The bytes of what is kept of its run.
        run_parts: Those of each part of it.
        gate: Receives appended pieces, and publishes them. None if pieces are published at once.
    """

    __slots__ = (
        "_blocks",
        "_gathered",
        "_is_numbered",
        "_kept",
        "_lost",
        "_memory",
        "_tail",
        "_text",
        "_watchers",
        "broken",
        "ending",
        "followed_at",
        "gate",
        "header",
        "is_degraded",
        "is_left",
        "last_seq",
        "request",
        "request_size",
        "run_parts",
        "run_size",
        "takeovers",
    )

    def __init__(self, memory: LogMemory, header: LogHeader) -> None:
        self.header = header
        self._is_numbered = header.is_numbered  # cached: read for each piece
        self.last_seq = 0
        self.ending: Ending | None = None
        self.broken: Error | None = None
        self.is_degraded = False
        self.is_left = False
        self.takeovers = 0
        self.followed_at = -math.inf
        self.gate: LogGate | None = None
        self.request: bytes | None = None
        self.request_size = self.run_size = 0
        self.run_parts = _NO_PARTS
        self._memory = memory
        self._watchers: tuple[LogWatcher, ...] = ()  # replaced, not changed: a watcher may leave during a loop over it
        self._blocks: deque[tuple[bytes, int]] = _deque()  # bytes, and the number of the last event in them
        self._kept = _STREAM_COST  # bytes of the blocks, the text and the log itself
        self._tail: list[bytes] = []  # small pieces since the last block
        self._gathered = 0  # bytes of `_tail`
        self._lost = 0
        has_text = header.format == "gai" and header.framing != "json"
        self._text = bytearray() if has_text else None  # grows in place: a copy per block would make it quadratic

    @property
    def size(self) -> int:
        """Bytes in use, including overhead."""
        return self._kept + self._gathered

    @property
    def lost(self) -> int:
        """The number of the last dropped event. 0 if there is none."""
        return self._lost

    @property
    def is_over(self) -> bool:
        """Whether the log has ended."""
        return self.ending is not None or self.broken is not None

    # -- the writer --

    def append(self, piece: bytes, last_seq: int) -> None:
        """Adds a piece, without a copy, and calls the watchers. Never raises because a store is out of reach.

        Args:
            piece: Whole frames, at least one.
            last_seq: The number of the last event in the piece, larger than the previous piece's.
        """
        if self.gate is None:
            self.publish(piece, last_seq)
        else:
            self.gate.append(piece, last_seq)

    def publish(self, piece: bytes, last_seq: int) -> None:
        """Adds a piece, and calls the watchers; as `append`, without the gate."""
        memory = self._memory
        cost = len(piece) + _PIECE_COST
        if self._gathered + cost > memory.block:
            self._join_tail()
        if cost > memory.block or not self._is_numbered:  # without numbers a log can be cut between pieces only
            self._add(piece, last_seq)
        else:
            self._tail.append(piece)
            self._gathered += cost
            memory.size += cost
        self.last_seq = last_seq
        if memory.size > memory.full_at:
            memory.make_room()
        for watcher in self._watchers:
            watcher.advanced(piece, last_seq)

    def end(self, ending: Ending) -> None:
        """Ends the log, and starts its time to live. Nothing may be appended afterwards. Only the first end counts.

        Args:
            ending: How the stream ended.
        """
        if self.gate is None:
            self.finish(ending)
        else:
            self.gate.end(ending)

    def finish(self, ending: Ending) -> None:
        """Ends the log; as `end`, without the gate."""
        if not self.is_over:
            self.ending = ending
            self._end()

    def break_off(self, error: Error) -> None:
        """Ends a log whose writer is gone, so that the rest is unknown. Only the first end counts.

        Args:
            error: The error that followers get. It is not part of the log.
        """
        if not self.is_over:
            self.broken = error
            self._end()
            if self.gate is not None:
                self.gate.broken_off()

    def _end(self) -> None:
        self._join_tail()
        self._memory.log_ended(self)
        watchers, self._watchers = self._watchers, ()
        for watcher in watchers:
            watcher.ended()

    def skip(self, last_seq: int, text: str | None) -> None:
        """Makes the log begin after an event. All events up to it count as dropped.

        Args:
            last_seq: The event's number.
            text: The visible text up to the event. None if it is lost.
        """
        self.last_seq = self._lost = last_seq
        before = 0 if self._text is None else len(self._text)
        self._text = None if text is None else bytearray(text.encode())
        added = (0 if self._text is None else len(self._text)) - before
        self._kept += added
        self._memory.size += added

    def void(self, after: int) -> None:
        """Drops the events after one, because a new owner of the stream goes on there. Its next piece must follow.

        Args:
            after: The event's number.
        """
        self._join_tail()
        while self._blocks and self._blocks[-1][1] > after:
            block, _ = self._blocks.pop()
            cost = len(block) + SHARED.log_block_cost
            self._kept -= cost
            self._memory.size -= cost
            rest = frames_after(block, self.header, after)
            if len(rest) < len(block):
                self._add(block[: len(block) - len(rest)], after)
        if after < self._lost:
            self._forget_text()
        self.last_seq = max(after, self._lost)

    # -- followers --

    def is_short_of(self, position: int) -> bool:
        """Returns whether this log ends before an event that a follower already has.

        False if the log is broken off because the store is out of reach: the follower can resume later.

        Args:
            position: The number of the event.
        """
        return self.last_seq < position and (self.broken is None or self.broken.code != "overloaded")

    def watch(self, watcher: LogWatcher) -> None:
        """Calls a watcher until `unwatch` or the end. Does nothing if the log has ended."""
        if not self.is_over:
            self._watchers = (*self._watchers, watcher)

    def unwatch(self, watcher: LogWatcher) -> None:
        """Stops calling a watcher. Idempotent."""
        self._watchers = tuple(each for each in self._watchers if each is not watcher)

    @property
    def watchers(self) -> int:
        """The number of watchers."""
        return len(self._watchers)

    @property
    def watched_by(self) -> Sequence[LogWatcher]:
        """The watchers."""
        return self._watchers

    def read(self, after: int, limit: int) -> Backlog:
        """Returns the bytes after an event.

        Args:
            after: The event's number. 0 for all bytes.
            limit: Bytes after which no further piece is returned. One piece is always returned.
        """
        lost = self._lost if after < self._lost else 0
        start = max(after, lost)
        pieces: list[bytes] = []
        size, reached = 0, start
        for block, last in self._blocks:
            if size >= limit:
                break
            if last > start:
                pieces.append(block if pieces else frames_after(block, self.header, start))
                size += len(pieces[-1])
                reached = last
        if self._tail and self.last_seq > start and size < limit:
            tail = b"".join(self._tail)
            pieces.append(tail if pieces else frames_after(tail, self.header, start))
            reached = self.last_seq
        if not lost:
            return Backlog(pieces, reached)
        return Backlog(pieces, reached, lost, None if self._text is None else self._text.decode())

    # -- bounds --

    def dropped_by(self, size: int) -> int:
        """Returns the number of the last event that may be dropped if `size` more bytes are appended. 0 if none is.

        The text of dropped pieces takes room again. Its size is not known before, so the largest possible is counted.

        Args:
            size: Bytes, not counting those that the gate holds.
        """
        excess = self.size + size - self._memory.blocks_of_stream
        if self.gate is not None:
            excess += self.gate.held
        if excess > 0 and self._text is not None:
            excess += self._memory.text_of_stream - len(self._text)
        for block, last in self._blocks:
            if excess <= 0:
                return 0
            excess -= len(block) + SHARED.log_block_cost
            if excess <= 0:
                return last
        return self.last_seq if excess > 0 else 0

    def trim(self, limit: int) -> None:
        """Drops the oldest pieces until no more than `limit` bytes are in use, or no piece is left.

        Args:
            limit: Bytes, including overhead.
        """
        before = self.size
        while self._blocks and self.size > limit:
            block, last = self._blocks.popleft()
            self._kept -= len(block) + SHARED.log_block_cost
            self._drop(block, last)
        if self._tail and self.size > limit:
            block, self._tail, self._gathered = b"".join(self._tail), [], 0
            self._drop(block, self.last_seq)
        if self.size > limit:
            self._forget_text()
        self._memory.size += self.size - before

    def _drop(self, block: bytes, last_seq: int) -> None:
        self._lost = last_seq
        if self._text is not None:
            before = len(self._text)
            is_read = add_text(self._text, block)
            self._kept += len(self._text) - before
            if not is_read or len(self._text) > self._memory.text_of_stream:
                self._forget_text()

    def _forget_text(self) -> None:
        if self._text is not None and self._lost:
            self._kept -= len(self._text)
            self._text = None

    def _join_tail(self) -> None:
        if self._tail:
            tail, self._tail = self._tail, []
            self._memory.size -= self._gathered
            self._gathered = 0
            self._add(b"".join(tail), self.last_seq)

    def _add(self, block: bytes, last_seq: int) -> None:
        cost = len(block) + SHARED.log_block_cost
        self._blocks.append((block, last_seq))
        self._kept += cost
        self._memory.size += cost
        self.trim(self._memory.blocks_of_stream)


class LogMemory:
    """The logs of one process.

    Args:
        settings: `[store]`.
        timers: The loop's timers.
    """

    def __init__(self, settings: StoreSettings, timers: Timers) -> None:
        self.size = 0
        """Bytes that all logs use."""
        self.max_bytes = settings.max_bytes
        self.full_at = self.max_bytes
        """The size above which room is made: `max_bytes`, or more if a search has found less than it needs."""
        self.block = min(LIMITS.log_block, settings.max_stream_bytes // _BLOCKS)
        """The size at which the small pieces of a stream are joined."""
        self.blocks_of_stream = settings.max_stream_bytes - self.block
        """Bytes that one stream may use once its small pieces are joined."""
        self.text_of_stream = settings.max_stream_bytes // 2
        """Bytes that the text of one stream's dropped pieces may have."""
        self._ttl = settings.ttl
        self._timers = timers
        self._timer: Timer | None = None
        self._logs: dict[str, StreamLog] = {}
        self._callers: dict[str, int] = {}  # the number of logs of each caller
        self._requests: dict[str, int] = {}  # the bytes of the requests and runs of each caller's running streams
        self._requested = 0  # those of all
        self._freeing: Iterator[bool] = iter(())  # makes room, a step at a time
        self._ended: OrderedDict[str, float] = OrderedDict()  # expiry times by stream id, in order of expiry

    def __len__(self) -> int:
        return len(self._logs)

    def keep(self, ttl: float, max_bytes: int) -> None:
        """Sets new bounds. Logs that have ended expire after the new time at the latest.

        Args:
            ttl: Seconds after the end of a stream.
            max_bytes: Bytes of all logs.
        """
        if ttl < self._ttl:
            latest = self._timers.clock() + ttl
            for stream_id, due in self._ended.items():
                self._ended[stream_id] = min(due, latest)
            if self._timer is not None:
                self._timer.cancel()
                self._expire()
        self._ttl = ttl
        self.max_bytes = self.full_at = max_bytes
        self._freeing = iter(())
        self.make_room()

    def create(self, header: LogHeader, request: bytes | None = None) -> StreamLog:
        """Makes the log of a new stream.

        Args:
            header: Describes the stream.
            request: As for `Store.create`. The log has none if there is no room for it.

        Raises:
            Overloaded: The logs of the running streams, even if empty, would take more than half of `max_bytes`.
        """
        if (len(self._logs) - len(self._ended) + 1) * _STREAM_COST > self.max_bytes // 2:
            raise Error("overloaded", "there is no room for another durable stream", reason="store")
        log = self._logs[header.stream_id] = StreamLog(self, header)
        self._callers[header.caller] = self._callers.get(header.caller, 0) + 1
        self.size += log.size
        if request is not None and self._has_room_for(header.caller, len(request)):
            self.count_request(log, request)
        self.make_room()
        return log

    def _has_room_for(self, caller: str, size: int) -> bool:
        free = self.max_bytes // 2 - self._requested - size
        return free >= 0 and (caller == ANONYMOUS or self._requests.get(caller, 0) + size <= free)

    def count_request(self, log: StreamLog, request: bytes) -> None:
        """Counts the request of a running stream from now on: rule 6.

        Args:
            log: The stream's log.
            request: The request.
        """
        log.request = request
        self._count(log, len(request), log.run_size)  # this process may have run the stream before

    def forget_request(self, log: StreamLog) -> None:
        """Drops the request of a stream that goes on without; what is kept of its run counts no longer."""
        log.request = None
        log.run_parts = _NO_PARTS
        self._count(log, 0, 0)

    def count_run(self, stream_id: str, size: int, *, is_there: bool = False, part: str = "") -> bool:
        """Counts what is kept of the run of a running stream, in place of what has counted: rule 6.

        Args:
            stream_id: The stream. One without a log here counts for nothing.
            size: Bytes.
            is_there: It is kept already: it counts without room, too.
            part: The part of it that has so many bytes.

        Returns:
            Whether it counts. If not, there is no room for more than has counted.
        """
        log = self._logs.get(stream_id)
        if log is None or log.is_over:
            return True
        more = size - log.run_parts.get(part, 0)
        if more > 0 and not is_there and not self._has_room_for(log.header.caller, more):
            return False
        log.run_parts = {name: each for name, each in {**log.run_parts, part: size}.items() if each}
        self._count(log, log.request_size, log.run_size + more)
        self.make_room()
        return True

    def _count(self, log: StreamLog, request: int, run: int) -> None:
        """Counts other bytes of a stream's request and run."""
        caller, size = log.header.caller, request + run - log.request_size - log.run_size
        if not size:
            return
        log.request_size, log.run_size = request, run
        self.size += size
        self._requested += size
        self._requests[caller] = self._requests.get(caller, 0) + size
        if not self._requests[caller]:
            del self._requests[caller]

    def find(self, stream_id: str) -> StreamLog | None:
        """Returns the log of a stream. None if there is none."""
        return self._logs.get(stream_id)

    def forget(self, log: StreamLog) -> None:
        """Drops a log before it expires. The log is a mirror, which can be filled again."""
        if self._logs.get(log.header.stream_id) is log:
            self._forget(log)
            self._ended.pop(log.header.stream_id, None)

    def clear(self) -> None:
        """Drops all logs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._logs.clear()
        self._callers.clear()
        self._requests.clear()
        self._requested = 0
        self._ended.clear()
        self._freeing = iter(())
        self.size = 0

    def log_ended(self, log: StreamLog) -> None:
        """Starts a log's time to live."""
        if self._logs.get(log.header.stream_id) is log:
            self._count(log, 0, 0)
            self._ended[log.header.stream_id] = self._timers.clock() + self._ttl
            self.full_at = max(self.max_bytes, self.full_at - log.size)  # it can be dropped now
            self.make_room()
            if self._timer is None:
                self._expire()

    def make_room(self) -> None:
        """Drops logs and blocks until no more than `max_bytes` are in use: rules 2 and 3."""
        if self.size <= self.full_at:
            return
        self.full_at = self.max_bytes
        is_searched = False
        while self.size > self.max_bytes:
            if next(self._freeing, False):
                continue
            if is_searched:
                self.full_at = self.size + self.max_bytes // SPARE
                return
            self._freeing = self._free(self.size - self.max_bytes + self.max_bytes // SPARE)
            is_searched = True

    def _free(self, excess: int) -> Iterator[bool]:
        """Searches for the logs that make room, and drops one log or block before each `True` that it yields.

        Many events may come between two steps. It holds ids, as a log that it held would outlive its time.
        """
        owed = self._owed(excess)
        for stream_id in [*self._ended]:
            if not owed:
                return
            log = self._logs.get(stream_id)
            if log is not None and (caller := log.header.caller) in owed:
                owed[caller] -= log.size
                if owed[caller] <= 0:
                    del owed[caller]
                del self._ended[stream_id]
                self._forget(log)
                yield True
        running: dict[str, dict[str, int]] = {caller: {} for caller in owed}
        for stream_id, log in self._logs.items():
            if log.header.caller in running:
                running[log.header.caller][stream_id] = log.size
        for caller, sizes in running.items():
            left = owed[caller]
            owed_by = level_down(sizes, left, dict.fromkeys(sizes, _STREAM_COST)).items()
            for stream_id, size in sorted(owed_by, key=itemgetter(1), reverse=True):
                while min(size, left) > 0 and (freed := self._drop_block(stream_id)):
                    size -= freed
                    left -= freed
                    yield True

    def _drop_block(self, stream_id: str) -> int:
        """Drops the oldest block of a log. Returns the bytes that it frees: 0 if the log is gone, or has no block."""
        log = self._logs.get(stream_id)
        if log is None:
            return 0
        before = log.size
        log.trim(before - 1)
        return before - log.size

    def _owed(self, excess: int) -> dict[str, int]:
        """Returns the bytes that each caller must free. A lone caller, as without keys, needs no sums."""
        if len(self._callers) == 1:
            return dict.fromkeys(self._callers, excess)
        sizes, fixed = dict.fromkeys(self._callers, 0), dict.fromkeys(self._callers, 0)
        for log in self._logs.values():
            sizes[log.header.caller] += log.size + log.request_size + log.run_size
            if not log.is_over:
                fixed[log.header.caller] += _STREAM_COST + log.request_size + log.run_size
        return level_down(sizes, excess, fixed)

    def _forget(self, log: StreamLog) -> None:
        del self._logs[log.header.stream_id]
        self._count(log, 0, 0)
        self.size -= log.size
        self.full_at = max(self.max_bytes, self.full_at - log.size)
        caller = log.header.caller
        self._callers[caller] -= 1
        if not self._callers[caller]:
            del self._callers[caller]

    def _expire(self) -> None:
        self._timer = None
        now = self._timers.clock()
        while self._ended:
            stream_id = next(iter(self._ended))
            due = self._ended[stream_id]
            if due > now:
                self._timer = self._timers.schedule(due, self._expire)
                return
            del self._ended[stream_id]
            self._forget(self._logs[stream_id])


def level_down(sizes: Mapping[_Key, int], excess: int, fixed: Mapping[_Key, int]) -> dict[_Key, int]:
    """Distributes a size to be freed over the largest holders, so that these have one common size afterwards.

    Args:
        sizes: Sizes by holder.
        excess: The total size to be freed; above 0.
        fixed: The part of each holder's size that cannot be freed. Above the common size, it is left.

    Returns:
        The size that each of the largest holders must free: less than `excess` in all if there is no more.
    """
    # The common size falls: at a holder's size (odd edges) the holder begins to free, at its fixed part it ends to.
    edges = [2 * size + 1 for size in sizes.values()]
    edges += [2 * fixed[key] for key in sizes]
    edges.sort(reverse=True)
    level = above = freeing = 0
    for edge in edges:
        size = edge // 2
        freed = freeing * (above - size)
        if freed >= excess:
            level = above + -excess // freeing
            break
        excess -= freed
        freeing += 1 if edge % 2 else -1
        above = size
    return {key: size - max(level, fixed[key]) for key, size in sizes.items() if size > max(level, fixed[key])}


def check_url(url: str, _folder: Path) -> str:
    """Returns the URL, if it is the only valid one of this store."""
    if url != URL:
        raise ValueError(f'must be "{URL}": the memory has no address')
    return url


def open_backend(_settings: StoreSettings) -> None:
    """Returns None: nothing is kept outside the memory of this process."""


# ---- kept responses ----------------------------------------------------------------------------------------------

Value = TypeVar("Value")

_DIGEST: Final = 16
"""Bytes of a digest."""
_PERSON: Final = b"gai-fast resp"


def record_of(caller: str, kept: KeptResponse, most: int, *, is_here: bool) -> ResponseRecord[KeptResponse] | None:
    """Returns the record of a response. None if it is too large.

    Args:
        caller: The name of its caller.
        kept: The response.
        most: The bytes that it may count for.
        is_here: It is kept in the memory of this process. Names elsewhere are digests, which cost time.
    """
    items = kept.items[-LIMITS.response_items :]
    octets = len(kept.input) + len(kept.response)
    size = octets + LIMITS.response_cost + LIMITS.response_item_cost * len(items)
    if octets > LIMITS.response or size > most:
        return None
    name = name_of(caller, kept.identifier, is_here=is_here)
    parent = name_of(caller, kept.parent, is_here=is_here) if kept.parent else ""
    places = [name_of(caller, each, is_here=is_here) for each in items]
    return ResponseRecord(name, caller, parent, kept, size, places)


def name_of(caller: str, identifier: str, *, is_here: bool) -> str:
    """Returns the name of a response or an item. No other caller or id has it, whatever their characters are.

    Args:
        caller: The name of its caller.
        identifier: Its id.
        is_here: It is kept in the memory of this process.
    """
    place = f"{len(caller)} {caller} {identifier}"
    return place if is_here else digest(place)


def digest(text: str) -> str:
    """Returns the digest of a name in a store."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST, person=_PERSON).hexdigest()


class ResponseTable(Generic[Value]):
    """The kept responses of one process, lost with it.

    Beyond the budget of a caller, the caller's oldest are dropped, beyond that of all the oldest of all. A response
    that is kept again is the newest. What has expired is not found, and is removed before anything is dropped. Each
    removal costs a logarithm at most: the orders are linked lists, and a heap of times.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # By name, the oldest first: the record, and the time at which it expires, in monotonic seconds.
        self._kept: OrderedDict[str, tuple[ResponseRecord[Value], float]] = OrderedDict()
        self._of_callers: dict[str, OrderedDict[str, None]] = {}  # the names of each caller, the oldest first
        self._sizes: dict[str, int] = {}  # by caller
        self._items: dict[str, OrderedDict[str, None]] = {}  # the names by item, the oldest first
        self._due: list[tuple[float, str]] = []  # a heap of expiry times and names, also of removed ones
        self.size = 0
        """The bytes of all."""

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, record: ResponseRecord[Value], ttl: float, budget: ResponseBudget) -> int:
        """Keeps a response; as `Backend.keep_response`."""
        now = self._clock()
        until = now + ttl
        self._expire(now)
        name, caller, size = record.name, record.caller, record.size
        self._remove(name)
        dropped = 0
        while self._sizes.get(caller, 0) + size > budget.of_caller and caller in self._of_callers:
            self._remove(next(iter(self._of_callers[caller])))
            dropped += 1
        while self.size + size > budget.of_all and self._kept:
            self._remove(next(iter(self._kept)))
            dropped += 1
        self._kept[name] = record, until
        own = self._of_callers.get(caller)
        if own is None:
            own = self._of_callers[caller] = OrderedDict()
        own[name] = None
        self._sizes[caller] = self._sizes.get(caller, 0) + size
        self.size += size
        for item in record.items:
            self._items.setdefault(item, OrderedDict())[name] = None
        heappush(self._due, (until, name))
        if len(self._due) > 2 * len(self._kept) + LIMITS.response_times:
            self._due = [(time, place) for place, (_, time) in self._kept.items()]
            heapify(self._due)
        return dropped

    def read(self, names: Sequence[str], turns: int, most: int) -> list[tuple[str, Value]]:
        """Returns responses and those before them; as `Backend.read_responses`."""
        self._expire(self._clock())
        found: list[tuple[str, Value]] = []
        size = 0
        for first in names:
            name = first
            for _ in range(turns):
                kept = self._kept.get(name)
                if kept is None:
                    break
                record = kept[0]
                found.append((name, record.value))
                size += record.size
                if size >= most:
                    return found
                name = record.parent
        return found

    def holding(self, items: Mapping[str, str]) -> dict[str, str]:
        """Returns the names of responses with some items; as `Backend.responses_with`."""
        self._expire(self._clock())
        found: dict[str, str] = {}
        for item, likely in items.items():
            holders = self._items.get(item)
            if holders:
                found[item] = next(reversed(holders))
            elif likely in self._kept:
                found[item] = likely
        return found

    def delete(self, name: str) -> bool:
        """Removes a response; as `Backend.delete_response`."""
        self._expire(self._clock())
        return self._remove(name)

    def _expire(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            name = heappop(self._due)[1]
            kept = self._kept.get(name)
            if kept is not None and kept[1] <= now:  # it may have been kept again
                self._remove(name)

    def _remove(self, name: str) -> bool:
        """Removes a response; returns whether it was kept."""
        kept = self._kept.pop(name, None)
        if kept is None:
            return False
        record = kept[0]
        own = self._of_callers[record.caller]
        del own[name]
        self._sizes[record.caller] -= record.size
        self.size -= record.size
        if not own:
            del self._of_callers[record.caller], self._sizes[record.caller]
        for item in record.items:
            holders = self._items.get(item)
            if holders is not None:  # a record may name an item twice
                holders.pop(name, None)
                if not holders:
                    del self._items[item]
        return True
