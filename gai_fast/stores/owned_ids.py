"""The ids of what upstreams store for callers, by the caller that got them here.

Owns which ids a caller owns, and how they are recorded: in records (`backend.py`), so that all processes of a store
know them. Knows no upstream and no request.

1. A caller's ids are digests in `limits.id_buckets` records; a digest's first byte names its record. A record keeps the
   newest `limits.bucket_ids`, so a caller has at most 100,000, and its oldest are dropped first.
2. Each new id keeps its record for another `limits.ids_kept`. An id is never dropped earlier, unless newer ids take its
   place.
3. A stream never fails because the store does: ids that could not be recorded wait in this process, and are recorded
   once the store answers again. If there are too many, those of the caller with the most are dropped, the oldest first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.stores.backend import IDS, Records, StoreError
from gai_fast.stores.health import Health, logger
from gai_fast.stores.limits import LIMITS

_SIZE: Final = 16
"""Bytes of a digest: ids cannot be found whose digests are equal."""
_SPARE: Final = 16
"""One part in so many of the ids that wait is dropped beyond need."""
_TRIES: Final = 8
"""Attempts to change a record: one fails if another process has changed the record since it was read."""


class OwnedIds:
    """The ids of all callers.

    Args:
        records: The records of the store.
        health: Notes whether the store works.
    """

    def __init__(self, records: Records, health: Health) -> None:
        self._records = records
        self._health = health
        self._waiting: dict[str, deque[bytes]] = {}  # digests by caller: rule 3
        self._count = 0  # of all that wait
        self.under_way: set[asyncio.Task[None]] = set()
        """The tasks of `record`."""

    def record(self, caller: str, ids: Sequence[str]) -> asyncio.Future[None]:
        """Starts `add`; returns a future that is done at its end.

        Args:
            caller: As for `add`.
            ids: As for `add`.
        """
        task = asyncio.get_running_loop().create_task(self.add(caller, ids))
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return task

    async def add(self, caller: str, ids: Iterable[str]) -> None:
        """Records that a caller owns some ids. Never fails: rule 3.

        Args:
            caller: The name of the caller.
            ids: The ids.
        """
        digests = [_digest(caller, each) for each in ids]
        await asyncio.gather(*[self._add(caller, each) for each in _by_bucket(digests).values()])

    async def missing(self, caller: str, ids: Sequence[str]) -> str | None:
        """Returns the first of some ids that a caller does not own. None if it owns all of them.

        Args:
            caller: The name of the caller.
            ids: The ids.

        Raises:
            Error: The store is out of reach.
        """
        self._health.check(caller)
        digests = {_digest(caller, each): each for each in ids}
        buckets = _by_bucket(digests)
        try:
            found = await asyncio.gather(*[self._read(_name(caller, bucket)) for bucket in buckets])
        except StoreError as problem:
            raise self._health.refusal(problem, "the ids of upstreams") from None
        owned = dict(zip(buckets, found, strict=True))
        return next((each for digest, each in digests.items() if digest not in _split(owned[digest[0]])), None)

    async def add_waiting(self) -> None:
        """Records the ids that wait.

        Raises:
            StoreError: The store still fails. The ids go on waiting.
        """
        for _ in range(self._count):
            if not self._waiting:  # ids added during the wait have used the room
                return
            caller = next(iter(self._waiting))
            digest = self._take(caller)
            try:
                await self._write(caller, [digest])
            except StoreError as problem:
                if problem.fault != "sealed":  # the store works
                    raise

    async def _add(self, caller: str, digests: Sequence[bytes]) -> None:
        try:
            await self._write(caller, digests)
        except StoreError as problem:
            self._health.refusal(problem)

    async def _write(self, caller: str, digests: Sequence[bytes]) -> None:
        """Adds digests of one record, as its newest ones.

        Raises:
            StoreError: The store fails. The digests wait.
        """
        name = _name(caller, digests[0][0])
        is_written = False
        try:
            old = await self._read(name)
            for _ in range(_TRIES):
                kept = [each for each in _split(old) if each not in digests]
                new = b"".join([*kept, *digests][-LIMITS.bucket_ids :])
                found = await self._records.swap(IDS, name, old, new, LIMITS.ids_kept, caller)
                if found == old:
                    is_written = True
                    break
                old = found
        except Error:
            self._health.lost(
                "there is no room for the ids that callers get from upstreams: their requests with new ids fail"
            )
            is_written = True
        finally:
            if not is_written:
                self._wait(caller, digests)

    def _wait(self, caller: str, digests: Sequence[bytes]) -> None:
        self._waiting.setdefault(caller, deque()).extend(digests)
        self._count += len(digests)
        if self._count > LIMITS.waiting_ids:
            most = max(self._waiting, key=lambda each: len(self._waiting[each]))
            size = len(self._waiting[most]) // _SPARE  # more than need be, so that the search costs little for each id
            for _ in range(max(self._count - LIMITS.waiting_ids, size)):
                self._take(most)

    def _take(self, caller: str) -> bytes:
        """Takes the oldest waiting digest of a caller."""
        own = self._waiting[caller]
        digest = own.popleft()
        if not own:
            del self._waiting[caller]
        self._count -= 1
        return digest

    async def _read(self, name: str) -> bytes | None:
        """Returns a record; None if there is none. A damaged record is removed: its ids are lost."""
        try:
            return await self._records.get(IDS, name)
        except StoreError as problem:
            if problem.fault != "damaged":
                raise
            logger.warning("ids of upstreams are lost: %s", problem)
            await self._records.delete(IDS, name)
            return None


def _digest(caller: str, identifier: str) -> bytes:
    text = f"{caller}\n{identifier}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=_SIZE, person=b"gai-fast id").digest()


def _name(caller: str, bucket: int) -> str:
    """Returns the name of a record: it has a fixed length, and nothing of the caller's text."""
    text = f"{caller}\n{bucket}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=_SIZE, person=b"gai-fast ids").hexdigest()


def _by_bucket(digests: Iterable[bytes]) -> dict[int, list[bytes]]:
    buckets: dict[int, list[bytes]] = {}
    for each in digests:
        buckets.setdefault(each[0], []).append(each)
    return buckets


def _split(kept: bytes | None) -> list[bytes]:
    """Returns the digests of a record, the oldest first."""
    return [] if kept is None else [kept[at : at + _SIZE] for at in range(0, len(kept), _SIZE)]
