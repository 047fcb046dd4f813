"""The keys that admins make at run time, as records (`backend.py`): all processes of a store know them.

Owns the form of these records, and how a process finds out that another one has changed them. Knows no request. A
secret is never here: only its digest is.

1. The keys are in `KEY_SHARDS` records, by a checksum of their names. One more record, the mark, has the number of
   changes of each of them. A change first writes its record, then counts in the mark; both by compare-and-set.
2. A process reads the mark again and again, and then the records whose number has changed. Every
   `limits.keys_reread` it reads all of them: a process may have ended between the two writes of a change.
3. These records are kept until they are deleted, and `max_bytes` of the store does not count them. The mark is never
   deleted: a store that had a key differs from a store that never had any.
4. If the store has lost the mark, a process writes what it knew, as it does with streams.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final
from zlib import crc32

import msgspec
from msgspec import Struct

from gai_fast.model.errors import Error
from gai_fast.stores.backend import KEYS, Records, StoreError
from gai_fast.stores.health import out_of_reach, store_sealed
from gai_fast.stores.limits import LIMITS

KEY_SHARDS: Final = 32
"""Records that hold keys. Another number would not find the keys of an earlier release."""
MARK: Final = "mark"
"""The name of the record that counts changes."""
KEY_RECORDS: Final = (MARK, *map(str, range(KEY_SHARDS)))
"""The names of all records of the kind `KEYS`."""
_LAYOUT: Final = 1
_TRIES: Final = 32
"""Attempts to change a record: one fails if another process has changed the record since it was read."""
REVOKED: Final = "key_revoked"
"""The reason of the end of a revoked key's streams."""


class StoredKey(Struct, frozen=True, array_like=True):
    """One key.

    Attributes:
        name: Its name.
        id: Tells it from a later key of the same name.
        created: The time at which it was made, in seconds since the epoch.
        digest: The digest of its secret (`model.settings.key_digest`).
        values: Its models, expiry, limits and lane, as `config.stored_keys.stored_values` returns them.
        former: The digest of the secret before the last rotation; empty if there is none.
        former_until: The time until which that secret is valid, in seconds since the epoch.
    """

    name: str
    id: str
    created: float
    digest: bytes
    values: dict[str, Any]
    former: bytes = b""
    former_until: float = 0.0


class _Shard(Struct, array_like=True):
    layout: int
    keys: list[StoredKey]


class _Mark(Struct, array_like=True):
    layout: int
    counts: list[int]


_SHARDS: Final = msgspec.msgpack.Decoder(_Shard)
_MARKS: Final = msgspec.msgpack.Decoder(_Mark)

Edit = Callable[[StoredKey | None], StoredKey | None]
"""Returns the changed key for the present one. None stands for no key. May raise an `Error`."""


class StoredKeys:
    """The keys of a store, as this process knows them.

    Args:
        records: The records of the store.
        is_shared: Whether other processes change them.
        clock: Monotonic seconds.

    Attributes:
        is_shared: As the argument.
        was_used: Whether the store has, or had, a key.
    """

    def __init__(self, records: Records, *, is_shared: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_shared = is_shared
        self.was_used = False
        self._records = records
        self._clock = clock
        self._lock = asyncio.Lock()  # else a read that began earlier would undo what a change has noted here
        self._mark: bytes | None = None
        self._counts = [0] * KEY_SHARDS
        self._raw: dict[int, bytes] = {}
        self._shards: dict[int, dict[str, StoredKey]] = {}
        self._reread_at = 0.0
        self._uncounted: set[int] = set()  # records that were, or may have been, changed here and are not in the mark

    def all(self) -> dict[str, StoredKey]:
        """Returns the keys by name, in the order of their names."""
        found = {name: key for shard in self._shards.values() for name, key in shard.items()}
        return dict(sorted(found.items()))

    async def refresh(self) -> bool:
        """Reads the changes; returns whether there are any.

        Raises:
            StoreError: The store cannot be read. The known keys stay.
        """
        async with self._lock:
            with suppress(Error):  # too many other changes of keys: the next look counts
                for number in [*self._uncounted]:
                    await self._count(number)
            mark = await self._records.get(KEYS, MARK)
            if mark is None and self._mark is not None:
                await self._restore(self._mark)
                return False
            now = self._clock()
            if mark == self._mark and now < self._reread_at:
                return False
            counts = self._counts if mark is None else _counts(mark)
            changed = [each for each in range(KEY_SHARDS) if counts[each] != self._counts[each]]
            if now >= self._reread_at and mark is not None:
                changed = [*range(KEY_SHARDS)]
            raw = await asyncio.gather(*(self._records.get(KEYS, str(each)) for each in changed))
            read = {number: _keys(value) for number, value in zip(changed, raw, strict=True)}
            is_new = mark is not None and not self.was_used
            for number, value in zip(changed, raw, strict=True):
                is_new = is_new or value != self._raw.get(number)
                self._note(number, value, read[number])
            self._mark, self._counts = mark, counts
            self.was_used = self.was_used or mark is not None
            self._reread_at = now + LIMITS.keys_reread
            return is_new

    async def change(self, name: str, edit: Edit) -> StoredKey | None:
        """Changes one key in the store; returns it as it is then.

        Args:
            name: The key's name.
            edit: Changes the key. Called again if another process has just changed the key's record.

        Raises:
            Error: Of `edit`; the store is out of reach or has no room; or too many others change keys now.
        """
        try:
            async with self._lock:
                return await self._change(name, edit)
        except StoreError as problem:
            if problem.fault == "full":
                raise Error("overloaded", "the store has no room for another key", reason="store") from None
            raise (store_sealed() if problem.fault == "sealed" else out_of_reach("the keys")) from problem

    async def _change(self, name: str, edit: Edit) -> StoredKey | None:
        number = _shard_of(name)
        mark = await self._records.get(KEYS, MARK)
        if mark is not None:
            _counts(mark)  # a process that cannot read the mark must not write: others could not read its record
        elif self._mark is not None:
            await self._restore(self._mark)  # else the next look would find a store that never had the lost keys
        old = await self._records.get(KEYS, str(number))
        for _ in range(_TRIES):
            keys = _keys(old)
            changed = edit(keys.pop(name, None))
            if changed is not None:
                keys[name] = changed
            new = msgspec.msgpack.encode(_Shard(_LAYOUT, [*keys.values()]))
            if len(new) > LIMITS.key_record:
                raise Error("invalid_request", "the store has no room for another key", reason="keys", status=409)
            try:
                found = await self._records.swap(KEYS, str(number), old, new, None)
            except StoreError as problem:  # the change may have been made, although the store's answer is lost
                self._uncounted.add(number)
                self._reread_at = 0.0
                if problem.fault in ("full", "sealed"):
                    raise
                raise _perhaps_made(name) from problem
            if found in (old, new):  # `new`: the client of a Redis Cluster repeats a command whose answer is lost
                self._note(number, new, keys)
                self.was_used = True
                self._uncounted.add(number)
                try:
                    with suppress(Error):  # too many other changes of keys: the next look counts
                        await self._count(number)
                except StoreError as problem:
                    raise _perhaps_made(name) from problem
                return changed
            old = found
        raise _busy()

    async def _count(self, number: int) -> None:
        """Counts a change in the mark: rule 1."""
        old = await self._records.get(KEYS, MARK)
        for _ in range(_TRIES):
            counts = [0] * KEY_SHARDS if old is None else _counts(old)
            counts[number] += 1
            new = msgspec.msgpack.encode(_Mark(_LAYOUT, counts))
            found = await self._records.swap(KEYS, MARK, old, new, None)
            if found == old:
                self._uncounted.discard(number)
                if old == self._mark:  # otherwise `refresh` must read the changes of others
                    self._mark, self._counts = new, counts
                return
            old = found
        raise _busy()

    async def _restore(self, mark: bytes) -> None:
        """Writes the records that the store has lost: rule 4. Records that others have written since then stay."""
        for number, value in self._raw.items():
            await self._records.swap(KEYS, str(number), None, value, None)
        await self._records.swap(KEYS, MARK, None, mark, None)
        self._reread_at = self._clock()

    def _note(self, number: int, raw: bytes | None, keys: Mapping[str, StoredKey]) -> None:
        if raw is None:
            self._raw.pop(number, None)
        else:
            self._raw[number] = raw
        self._shards[number] = dict(keys)


def _busy() -> Error:
    return Error("overloaded", "too many others change keys now: ask again", reason="keys")


def _perhaps_made(name: str) -> Error:
    remedy = "look at the key; rotating it gives a new secret, and of the former ones only the last stays valid"
    return out_of_reach("the keys", f"the change of the key {name!r} may have been made: {remedy}")


def _shard_of(name: str) -> int:
    return crc32(name.encode()) % KEY_SHARDS


def _keys(raw: bytes | None) -> dict[str, StoredKey]:
    """Returns the keys of a record.

    Raises:
        StoreError: The record is damaged, or of a later release.
    """
    if raw is None:
        return {}
    try:
        shard = _SHARDS.decode(raw)
    except msgspec.DecodeError:
        raise _unreadable() from None
    if shard.layout != _LAYOUT:
        raise _unreadable()
    return {key.name: key for key in shard.keys}


def _counts(raw: bytes) -> list[int]:
    """Returns the numbers of the mark; raises as `_keys`."""
    try:
        mark = _MARKS.decode(raw)
    except msgspec.DecodeError:
        raise _unreadable() from None
    if mark.layout != _LAYOUT or len(mark.counts) != KEY_SHARDS:
        raise _unreadable()
    return mark.counts


def _unreadable() -> StoreError:
    return StoreError("damaged", "the keys that were made at run time cannot be read: damaged, or of a later release")
