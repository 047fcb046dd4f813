"""A store outside the process, in memory: what several processes share, and a backend for each of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from gai_fast.stores import Ending, LogHeader
from gai_fast.stores.backend import (
    Backend,
    CopyChange,
    CopyTail,
    Gap,
    LogCopy,
    Owner,
    Record,
    ResponseBudget,
    ResponseRecord,
    StoreError,
    Unwritten,
    gap_text,
    join_gaps,
)
from gai_fast.stores.memory import ResponseTable

PAGE = 4
"""Records that are read at a time."""


@dataclass
class Stored:
    """One copy."""

    header: LogHeader
    worker: str
    records: list[Record] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    ending: Ending | None = None
    keep: float = 0.0
    epoch: int = 1
    is_damaged: bool = False
    request: bytes | None = None

    @property
    def last_seq(self) -> int:
        return max([0, *(each.last_seq for each in self.records), *(each.lost for each in self.gaps)])

    def news(self, after: int) -> CopyTail:
        records = [record for record in self.records if record.last_seq > after]
        if len(records) > PAGE:
            return CopyTail(records[:PAGE], has_more=True)
        return CopyTail(records, None if self.is_damaged else self.ending, self.is_damaged)


class World:
    """The shared state. Every call waits for `gate`, and raises `problem` if there is one."""

    def __init__(self) -> None:
        self.copies: dict[str, Stored] = {}
        self.leases: set[str] = set()
        self.followed: set[str] = set()
        self.claims: dict[str, bytes] = {}
        self.responses: ResponseTable[bytes] = ResponseTable(time.monotonic)
        self.reads: list[Sequence[str]] = []
        """The names of each exchange that read kept responses."""
        self.problem: Exception | None = None
        self.messages: dict[str, list[tuple[str, str]]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.loads = 0
        self.looks = 0
        """How often it was asked which copies it keeps."""
        self.batches: list[Sequence[CopyChange]] = []
        self.changed = asyncio.Event()

    def fail(self, fault: str = "unreachable") -> None:
        self.problem = StoreError(fault, "the store is gone")

    def mend(self) -> None:
        self.problem = None


class FakeBackend(Backend):
    """One process's way to a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_open = False
        self.sweeps = 0

    async def _reach(self) -> World:
        await asyncio.sleep(0)
        await self.world.gate.wait()
        if self.world.problem is not None:
            raise self.world.problem
        return self.world

    async def open(self) -> None:
        await self._reach()
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def write(self, changes: Sequence[CopyChange]) -> Mapping[str, Unwritten]:
        world = await self._reach()
        world.batches.append(changes)
        unwritten = {change.stream_id: why for change in changes if (why := self._write(world, change)) is not None}
        world.changed.set()
        world.changed = asyncio.Event()
        return unwritten

    def _write(self, world: World, change: CopyChange) -> Unwritten | None:
        stored = world.copies.get(change.stream_id)
        is_own = stored is None or (stored.worker, stored.epoch) == (change.worker, change.epoch)
        if change.is_dropped:
            if is_own or not change.epoch:
                world.copies.pop(change.stream_id, None)
            return None
        if change.header is not None and (stored is None or stored.epoch < change.epoch):
            assert isinstance(change.header, LogHeader)
            stored = world.copies[change.stream_id] = Stored(change.header, change.worker, epoch=change.epoch)
            stored.request = change.request
        elif not is_own:
            return "refused"
        if stored is None:
            return "missing"
        known = {record.last_seq for record in stored.records}
        stored.records += [record for record in change.records if record.last_seq not in known]
        if change.gap is not None:
            lost = change.gap.lost
            stored.gaps.append(change.gap)
            stored.records = [record for record in stored.records if record.last_seq > lost]
        stored.ending = change.ending or stored.ending
        if change.ending is not None and change.request is not None:
            stored.request = None
        stored.keep = stored.keep if change.keep is None else change.keep
        return None

    async def take_over(
        self, stream_id: str, epoch: int, last_seq: int, header: LogHeader | bytes, worker: str
    ) -> bool:
        world = await self._reach()
        stored = world.copies.get(stream_id)
        if stored is None or (stored.epoch, stored.last_seq, stored.ending) != (epoch, last_seq, None):
            return False
        assert isinstance(header, LogHeader)
        stored.header, stored.worker, stored.epoch = header, worker, epoch + bool(worker)
        return True

    async def request_of(self, stream_id: str) -> bytes | None:
        stored = (await self._reach()).copies.get(stream_id)
        if stored is not None and stored.request == b"damaged":
            raise StoreError("damaged", "it is damaged")
        return None if stored is None else stored.request

    async def load(self, stream_id: str) -> LogCopy | None:
        world = await self._reach()
        world.loads += 1
        stored = world.copies.get(stream_id)
        if stored is None:
            return None
        lost, text = join_gaps([(gap.lost, gap_text(gap)) for gap in stored.gaps])
        return LogCopy(stored.header, stored.worker, lost, text, stored.news(0), stored.epoch)

    async def tail(self, positions: Mapping[str, int], wait: float) -> Mapping[str, CopyTail]:
        world = await self._reach()
        found = self._tail(world, positions)
        if not found and wait:
            try:
                async with asyncio.timeout(wait):
                    await world.changed.wait()
            except TimeoutError:
                return {}
            found = self._tail(await self._reach(), positions)
        return found

    def _tail(self, world: World, positions: Mapping[str, int]) -> dict[str, CopyTail]:
        news = {each: world.copies[each].news(after) for each, after in positions.items() if each in world.copies}
        return {stream_id: each for stream_id, each in news.items() if each != CopyTail([])}

    async def leased(self, workers: Collection[str]) -> Collection[str]:
        return (await self._reach()).leases & {*workers}

    async def kept(self, stream_ids: Collection[str]) -> Mapping[str, Owner]:
        self.world.looks += 1
        copies = (await self._reach()).copies
        return {each: Owner(copies[each].worker, copies[each].epoch) for each in stream_ids if each in copies}

    async def renew(self, worker: str, *, is_behind: bool = False) -> bool:
        leases = (await self._reach()).leases
        had_lease = worker in leases
        leases.add(worker)
        return had_lease

    async def give_up(self, worker: str) -> None:
        (await self._reach()).leases.discard(worker)

    async def tell(self, worker: str, stream_id: str, message: str) -> None:
        world = await self._reach()
        world.messages.setdefault(worker, []).append((stream_id, message))
        world.changed.set()
        world.changed = asyncio.Event()

    async def messages(self, worker: str, wait: float) -> Collection[tuple[str, str]]:
        world = await self._reach()
        if worker not in world.messages:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await world.changed.wait()
        return (await self._reach()).messages.pop(worker, ())

    async def note_followers(self, stream_ids: Collection[str]) -> None:
        (await self._reach()).followed.update(stream_ids)

    async def followed_ago(self, stream_id: str) -> float | None:
        return 0.5 if stream_id in (await self._reach()).followed else None

    async def sweep(self) -> bool:
        await self._reach()
        self.sweeps += 1
        return self.sweeps < 3

    async def get(self, kind: str, name: str) -> bytes | None:
        return (await self._reach()).claims.get(name)

    async def put(self, kind: str, name: str, value: bytes, ttl: float | None, holder: str = "") -> None:
        (await self._reach()).claims[name] = value

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
        claims = (await self._reach()).claims
        found = claims.get(name)
        if found == old:
            claims[name] = new
        return found

    async def delete(self, kind: str, name: str, old: bytes | None = None) -> bool:
        claims = (await self._reach()).claims
        if old is not None and claims.get(name) != old:
            return False
        return claims.pop(name, None) is not None

    async def keep_response(self, record: ResponseRecord[bytes], ttl: float, budget: ResponseBudget) -> int:
        return (await self._reach()).responses.keep(record, ttl, budget)

    async def read_responses(self, names: Sequence[str], turns: int, most: int) -> Sequence[tuple[str, bytes]]:
        world = await self._reach()
        world.reads.append(names)
        return world.responses.read(names, turns, most)

    async def responses_with(self, items: Mapping[str, str]) -> Mapping[str, str]:
        return (await self._reach()).responses.holding(items)

    async def delete_response(self, name: str) -> bool:
        return (await self._reach()).responses.delete(name)
