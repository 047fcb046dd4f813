"""`sqlite:///…`: durable copies in a file, for the workers of one machine.

Owns the tables, and the meaning of each of SQLite's failures.

1. Two threads have a connection each: one writes, one reads. The loop never waits for a disk. Write calls that arrive
   during a transaction share the next one (group commit), so they share the cost of a slow disk. A savepoint undoes a
   call that fails; the other calls go on.
2. The journal is a write-ahead log, so readers and the current writer do not wait for each other.
3. A commit survives the process at once. The file is synchronized with the disk every `limits.store_sync` seconds, or
   with every commit if `is_synchronous` is set, and with a commit that asks for it. This bounds what a power failure
   can lose.
4. Every value that is read has a checksum over the value and its place. A damaged value is a `StoreError`. Sealed
   records have four zeros in its place: they are checked when they are opened, and a checksum takes twice the time of
   sealing.
5. Times to live follow the machine's clock. If the clock is set forward, copies of running streams look expired. Until
   their workers have renewed the times of those copies, no stream counts as unknown.
6. Expired rows are removed in small steps. SQLite overwrites removed content, because it was a conversation. This
   takes time, so one transaction removes `limits.responses_dropped` bytes of kept responses.
7. What is removed stands in the write-ahead log until its content is moved to the file. So after a removal the next
   sweep empties that log, within `limits.store_empty`; if others read it all that time, the sweep after it tries again.
8. The number of a kept response is its age: one that is kept again is the newest. `response_sizes` has the bytes of
   each caller's, and under an empty name those of all. What has expired is removed before anything is dropped.
"""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from gai_fast.model.limits import SHARED
from gai_fast.model.settings import StoreSettings
from gai_fast.runtime.places import HalvedPlaces
from gai_fast.stores._base import LogHeader
from gai_fast.stores.backend import (
    CLAIMS,
    LAST_EPOCH,
    RESPONSES,
    Backend,
    CopyChange,
    CopyTail,
    Fault,
    Gap,
    LogCopy,
    Owner,
    Record,
    ResponseBudget,
    ResponseRecord,
    StoreError,
    Unwritten,
    check_size,
    checksum,
    ending_text,
    gap_text,
    header_text,
    join_gaps,
    message_text,
    read_ending,
    read_header,
    read_message,
)
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.sealer import is_sealed

URL: Final = "sqlite:///gai-fast.db"

_Result = TypeVar("_Result")

_APPLICATION: Final = int.from_bytes(b"GAIF", "big")
"""`application_id` of our files."""
_SCHEMA: Final = 3
"""`user_version` of the tables below."""
_TABLES: Final = """
CREATE TABLE streams (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, header BLOB NOT NULL, ending BLOB,
    expires_ms INTEGER NOT NULL, followed REAL,
    worker TEXT NOT NULL DEFAULT '', epoch INTEGER NOT NULL DEFAULT 0);
CREATE INDEX streams_by_end ON streams (expires_ms);
CREATE TABLE records (
    stream INTEGER NOT NULL, last_seq INTEGER NOT NULL, after_seq INTEGER NOT NULL,
    piece BLOB NOT NULL, PRIMARY KEY (stream, last_seq));
CREATE TABLE gaps (stream INTEGER NOT NULL, lost INTEGER NOT NULL, text BLOB NOT NULL, PRIMARY KEY (stream, lost));
CREATE TABLE claims (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX claims_by_end ON claims (expires_ms);
CREATE TABLE cancels (worker TEXT, stream TEXT, asked REAL NOT NULL, PRIMARY KEY (worker, stream)) WITHOUT ROWID;
CREATE TABLE leases (worker TEXT PRIMARY KEY, renewed REAL NOT NULL) WITHOUT ROWID;
"""
# `claims` holds all records, and `cancels` all messages. The names are from earlier releases, whose files stay usable.
_RESPONSE_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS responses (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, caller TEXT NOT NULL,"
    " parent TEXT NOT NULL, size INTEGER NOT NULL, expires_ms INTEGER NOT NULL, value BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS responses_by_caller ON responses (caller)",
    "CREATE INDEX IF NOT EXISTS responses_by_end ON responses (expires_ms)",
    "CREATE TABLE IF NOT EXISTS response_items (item TEXT, response INTEGER, PRIMARY KEY (item, response))"
    " WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS response_items_by_response ON response_items (response)",
    "CREATE TABLE IF NOT EXISTS response_sizes (caller TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID",
)
_OWNER_COLUMNS: Final = (
    "ALTER TABLE streams ADD COLUMN worker TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE streams ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0",
)
"""Makes tables 2 to tables 3. Processes of the earlier release go on to write copies without an owner."""
_REQUEST_TABLE: Final = "CREATE TABLE IF NOT EXISTS requests (stream INTEGER PRIMARY KEY, value BLOB NOT NULL)"
"""Files of earlier releases lack it, and these go on to read this one."""
_PARTS: Final = ("records", "gaps", "requests")
"""The tables of what a copy has beside its row in `streams`."""
_IS_OWN: Final = "worker = ? AND epoch = ?"
_TAKE_OVER: Final = """
UPDATE streams SET header = :header, worker = :worker, epoch = epoch + (:worker != '')
WHERE id = :id AND epoch = :epoch AND epoch > 0 AND ending IS NULL AND expires_ms > :now AND :last_seq = MAX(
    COALESCE((SELECT MAX(last_seq) FROM records WHERE stream = key), 0),
    COALESCE((SELECT MAX(lost) FROM gaps WHERE stream = key), 0))"""
_ALL_CALLERS: Final = ""
_ResponseRow = tuple[int, str, int]
"""The number, the caller and the size of a row."""
_RESPONSE: Final = "SELECT number, CAST(caller AS TEXT), CAST(size AS INTEGER) FROM responses"
"""SQLite may find a value of any type in a damaged row."""
_FOREVER: Final = 2**63 - 1
"""`expires_ms` of a record without a time to live."""
_UNCHECKED: Final = bytes(4)
"""In front of a sealed record: rule 4."""
_NUMBER: Final = 8
"""Bytes of an event's number in front of a stream's end."""
_PREFIX: Final = "sqlite:///"
_NOTHING: Final = CopyTail([])
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FAULTS: Final[Mapping[int, tuple[Fault, str]]] = {
    sqlite3.SQLITE_BUSY: ("busy", "is locked by another process"),
    sqlite3.SQLITE_LOCKED: ("busy", "is locked by another process"),
    sqlite3.SQLITE_PROTOCOL: ("busy", "is locked by another process"),
    sqlite3.SQLITE_READONLY: ("read_only", "cannot be written"),
    sqlite3.SQLITE_PERM: ("refused", "may not be used by this user"),
    sqlite3.SQLITE_CANTOPEN: ("unreachable", "cannot be opened"),
    sqlite3.SQLITE_FULL: ("full", "has no room: its disk is full"),
    sqlite3.SQLITE_IOERR: ("full", "cannot be read or written: its disk is full or fails"),
    **dict.fromkeys(_DAMAGED, ("damaged", "is damaged, or no file of SQLite")),
}
"""By SQLite's primary result code."""


class SQLiteBackend(Backend):
    """The copies in one file.

    Args:
        path: The file. It is created if missing; its folder is not.
        is_synchronous: Whether every commit reaches the disk before a write returns.
    """

    def __init__(self, path: Path, *, is_synchronous: bool = False) -> None:
        self._path = path
        self._writer = _Writer(path, is_synchronous=is_synchronous)
        self._reader = _Thread(path, "read")
        self._has_removed = False  # something that stands in the write-ahead log: rule 7; writing thread only
        self._large = HalvedPlaces(2)  # for kept responses
        self._keys: dict[str, int] = {}  # row keys of running streams; writing thread only
        # The version of the data, and the positions that have no news in it; reading thread only.
        self._version = -1
        self._without_news: dict[str, int] = {}
        self._without_messages = -1  # the version of the data without messages for this worker; reading thread only
        self._clock = _MachineClock()
        self._renewed_at = math.inf  # monotonic seconds

    async def open(self) -> None:
        """Opens the file, and creates it and its tables if they are missing.

        Raises:
            StoreError: The file cannot be read and written, is damaged, or belongs to another program.
        """
        await self._writer.call(self._make_ready)  # not `transact`: the journal's mode is set outside a transaction
        await self._reader.call(_connection_is_there)

    async def close(self) -> None:
        """Closes the file."""
        await self._reader.close()
        await self._writer.close()

    async def write(self, changes: Sequence[CopyChange]) -> Mapping[str, Unwritten]:
        """Writes changes in one transaction."""
        return await self._writer.transact(lambda connection: self._write(connection, changes))

    async def take_over(
        self, stream_id: str, epoch: int, last_seq: int, header: LogHeader | bytes, worker: str
    ) -> bool:
        """Makes a worker the owner of a copy, or lets it go."""
        sealed = _seal(header_text(header, worker), stream_id)

        def take_over(connection: sqlite3.Connection) -> bool:
            values = {"header": sealed, "worker": worker, "id": stream_id, "epoch": epoch, "last_seq": last_seq}
            return connection.execute(_TAKE_OVER, {**values, "now": _ms_from_now(0.0)}).rowcount == 1

        return await self._writer.transact(take_over)

    async def request_of(self, stream_id: str) -> bytes | None:
        """Returns the request of a stream that has not ended."""
        return await self._reader.call(lambda connection: _request_of(connection, stream_id))

    async def load(self, stream_id: str) -> LogCopy | None:
        """Returns the copy of a log, or the first part of a long copy."""
        self._clock.look()
        return await self._reader.call(lambda connection: self._load(connection, stream_id))

    async def tail(self, positions: Mapping[str, int], wait: float) -> Mapping[str, CopyTail]:
        """Returns the news of some copies; polls the file every `limits.store_poll`."""
        until = time.monotonic() + wait
        while True:
            news = await self._reader.call(lambda connection: self._tail(connection, positions))
            if news or time.monotonic() >= until:
                return news
            await asyncio.sleep(SHARED.store_poll)

    async def leased(self, workers: Collection[str]) -> Collection[str]:
        """Returns the workers that have their lease."""
        return await self._reader.call(lambda connection: _leased(connection, workers))

    async def kept(self, stream_ids: Collection[str]) -> Mapping[str, Owner]:
        """Returns the streams that have a copy, and its owner."""
        return await self._reader.call(lambda connection: _kept(connection, stream_ids))

    async def late(self) -> Collection[str]:
        """Returns the workers that did not renew their lease in time."""
        return await self._reader.call(_late)

    async def renew(self, worker: str, *, is_behind: bool = False) -> bool:
        """Renews a lease with the monotonic time, which the processes of one machine share.

        Ignores `is_behind`: a worker that cannot write its streams cannot write its lease either.

        Returns:
            False if the clock was set since the last renewal, so that copies may look expired. A file loses no lease.
        """
        self._clock.look()
        was_set = self._clock.set_at >= self._renewed_at
        self._renewed_at = time.monotonic()
        await self._change("INSERT OR REPLACE INTO leases VALUES (?, ?)", worker, self._renewed_at)
        return not was_set

    @property
    def has_lost(self) -> bool:
        """Whether the clock was set so lately that workers may not have renewed the times of their copies: rule 5."""
        return time.monotonic() - self._clock.set_at < SHARED.note_life

    async def give_up(self, worker: str) -> None:
        """Ends a lease."""
        await self._change("DELETE FROM leases WHERE worker = ?", worker)

    async def note_followers(self, stream_ids: Collection[str]) -> None:
        """Notes that streams are followed here, with the monotonic time as in `renew`."""
        await self._writer.transact(lambda connection: _note_followers(connection, stream_ids))

    async def followed_ago(self, stream_id: str) -> float | None:
        """Returns the seconds since followers of a stream were last noted."""
        return await self._reader.call(lambda connection: _followed_ago(connection, stream_id))

    async def tell(self, worker: str, stream_id: str, message: str) -> None:
        """Sends a message to a worker."""
        text = message_text(stream_id, message)
        await self._writer.transact(lambda connection: _add_message(connection, worker, text))

    async def messages(self, worker: str, wait: float) -> Collection[tuple[str, str]]:
        """Returns the messages to a worker; polls the file every `limits.message_poll`."""
        until = time.monotonic() + wait
        while True:
            if await self._reader.call(lambda connection: self._has_messages(connection, worker)):
                return await self._writer.transact(lambda connection: _take_messages(connection, worker))
            if time.monotonic() >= until:
                return ()
            await asyncio.sleep(LIMITS.message_poll)

    async def sweep(self) -> bool:
        """Removes some expired rows, and what is left of removed ones."""
        has_more = await self._writer.transact(self._sweep)
        await self._writer.call(self._empty_log)
        return has_more

    async def get(self, kind: str, name: str) -> bytes | None:
        """Returns the value of a record. None if there is none."""
        return await self._reader.call(lambda connection: _get(connection, _place(kind, name)))

    async def put(self, kind: str, name: str, value: bytes, ttl: float | None, holder: str = "") -> None:
        """Writes a record."""
        check_size(value)
        await self._writer.transact(lambda connection: _put(connection, _place(kind, name), value, ttl))

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
        """Writes a record if its value is `old`."""
        check_size(new)

        def swap(connection: sqlite3.Connection) -> bytes | None:
            found = _get(connection, _place(kind, name))
            if found == old:
                _put(connection, _place(kind, name), new, ttl)
            return found

        return await self._writer.transact(swap, is_synced=is_synced)

    async def delete(self, kind: str, name: str, old: bytes | None = None) -> bool:
        """Removes a record."""

        def delete(connection: sqlite3.Connection) -> bool:
            self._has_removed = True
            place = _place(kind, name)
            if old is not None and _get(connection, place) != old:
                return False
            gone = "DELETE FROM claims WHERE key = ? RETURNING expires_ms > ?"
            row: tuple[int] | None = connection.execute(gone, (place, _ms_from_now(0.0))).fetchone()
            return row == (1,)

        return await self._writer.transact(delete)

    async def keep_response(self, record: ResponseRecord[bytes], ttl: float, budget: ResponseBudget) -> int:
        """Keeps a response. If much must make room, several transactions remove it: others need not wait for all.

        One response of a caller is written at a time, so that no other write waits for many large ones.
        """

        def keep(connection: sqlite3.Connection) -> tuple[int, bool]:
            return self._note_dropped(_keep_response(connection, record, ttl, budget))

        def make_room(connection: sqlite3.Connection) -> tuple[int, bool]:
            return self._note_dropped(_make_room(connection, record.caller, budget))

        await self._large.take(record.caller)
        try:
            dropped, is_over = await self._writer.transact(keep)
            while is_over:
                some, is_over = await self._writer.transact(make_room)
                dropped += some
        finally:
            self._large.give_back(record.caller)
        return dropped

    def _note_dropped(self, made: tuple[int, bool]) -> tuple[int, bool]:
        """Notes whether `_make_room`, whose output this is, has dropped something: rule 7."""
        self._has_removed = self._has_removed or made[0] > 0
        return made

    async def read_responses(self, names: Sequence[str], turns: int, most: int) -> Sequence[tuple[str, bytes]]:
        """Returns kept responses, each with those before it."""
        return await self._reader.call(lambda connection: _read_responses(connection, names, turns, most))

    async def responses_with(self, items: Mapping[str, str]) -> Mapping[str, str]:
        """Returns the names of kept responses with some items."""
        return await self._reader.call(lambda connection: _responses_with(connection, items))

    async def delete_response(self, name: str) -> bool:
        """Removes a kept response."""

        def delete(connection: sqlite3.Connection) -> bool:
            self._has_removed = True
            return _delete_response(connection, name)

        return await self._writer.transact(delete)

    async def lasting(self) -> Collection[tuple[str, str]]:
        """Returns kind and name of the records without a time to live."""
        return await self._reader.call(_lasting)

    # -- other tables --

    async def transact(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Calls a function within a transaction; returns its result. For parts of the gateway with their own tables.

        Args:
            work: Called in the writing thread, within a transaction that other calls may share.
        """
        return await self._writer.transact(work)

    async def look(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Calls a function in the reading thread; returns its result."""
        return await self._reader.call(work)

    # -- the writing thread --

    def _make_ready(self, connection: sqlite3.Connection) -> None:
        mode = _entered_wal(connection)
        if mode != "wal":
            raise StoreError("unsuitable", f"{self._path} is on a disk that several processes cannot share")
        connection.execute("PRAGMA secure_delete=ON")
        self._writer.make_ready(connection)
        with _transaction(connection):
            application, schema = (_pragma(connection, name) for name in ("application_id", "user_version"))
            if not (application or schema or connection.execute("SELECT 1 FROM sqlite_master").fetchone()):
                for statement in filter(str.strip, _TABLES.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id={_APPLICATION}")
                connection.execute(f"PRAGMA user_version={_SCHEMA}")
            elif application != _APPLICATION:
                raise StoreError("unsuitable", f"{self._path} is the file of another program")
            elif schema == _SCHEMA - 1:
                for statement in _OWNER_COLUMNS:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={_SCHEMA}")
            elif schema != _SCHEMA:
                raise StoreError("unsuitable", f"{self._path} is of another release (tables {schema}, not {_SCHEMA})")
            connection.execute(_REQUEST_TABLE)
            for statement in _RESPONSE_TABLES:  # files of earlier releases have none, and these go on to read this one
                connection.execute(statement)
            connection.execute("INSERT OR REPLACE INTO leases VALUES ('', 0)")  # fails if it cannot be written
        if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise StoreError("damaged", f"{self._path} is damaged")

    async def _change(self, statement: str, *values: object) -> None:
        await self._writer.transact(lambda connection: connection.execute(statement, values))

    def _write(self, connection: sqlite3.Connection, changes: Sequence[CopyChange]) -> Mapping[str, Unwritten]:
        unwritten: dict[str, Unwritten] = {}
        for change in changes:
            stream_id = change.stream_id
            if not self._write_one(connection, change):
                there = connection.execute("SELECT 1 FROM streams WHERE id = ?", (stream_id,)).fetchone()
                unwritten[stream_id] = "missing" if there is None else "refused"
            if change.ending is not None or change.is_dropped or stream_id in unwritten:
                self._keys.pop(stream_id, None)
        return unwritten

    def _write_one(self, connection: sqlite3.Connection, change: CopyChange) -> bool:
        """Writes one change; returns whether its copy exists, and is its worker's. A removal is written anyway."""
        stream_id = change.stream_id
        owner = change.worker, change.epoch
        if change.is_dropped:
            drop = f"UPDATE streams SET expires_ms = 0 WHERE id = ? AND (? = 0 OR {_IS_OWN})"
            connection.execute(drop, (stream_id, change.epoch, *owner))
            return True
        if change.header is not None:
            begin = "INSERT OR IGNORE INTO streams (id, header, expires_ms, worker, epoch) VALUES (?, ?, ?, ?, ?)"
            header = _seal(header_text(change.header, change.worker), stream_id)
            values = stream_id, header, _ms_from_now(change.keep or 0.0), *owner
            if not connection.execute(begin, values).rowcount:
                _drop_former(connection, stream_id, change.epoch)
                connection.execute(begin, values)
            self._keys.pop(stream_id, None)  # it may be stale: a transaction that was rolled back had another row
        key = self._key(connection, stream_id)
        if key is None:
            return False
        there = connection.execute(
            "UPDATE streams SET ending = COALESCE(?, ending), expires_ms = COALESCE(?, expires_ms)"
            f" WHERE key = ? AND id = ? AND {_IS_OWN}",
            (
                None if change.ending is None else _seal_end(ending_text(change.ending), stream_id, change.last_seq),
                None if change.keep is None else _ms_from_now(change.keep),
                key,
                stream_id,
                *owner,
            ),
        ).rowcount
        if not there:
            return False
        for record in change.records:
            after, last_seq, piece = record.after, record.last_seq, record.piece
            add = "INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?)"
            row = _UNCHECKED + piece if change.is_sealed else _seal(piece, stream_id, after, last_seq)
            connection.execute(add, (key, last_seq, after, row))
        if change.gap is not None:
            _write_gap(connection, key, stream_id, change.gap)
        if change.request is not None:
            _write_request(connection, key, change)
            self._has_removed = self._has_removed or change.ending is not None
        return True

    def _key(self, connection: sqlite3.Connection, stream_id: str) -> int | None:
        key = self._keys.get(stream_id)
        if key is None:
            row = connection.execute("SELECT key FROM streams WHERE id = ?", (stream_id,)).fetchone()
            if row is None:
                return None
            key = self._keys[stream_id] = int(row[0])
        return key

    def _sweep(self, connection: sqlite3.Connection) -> bool:
        now = _ms_from_now(0.0)
        before = connection.total_changes
        step = LIMITS.store_sweep
        left = step
        past = "SELECT key FROM streams WHERE expires_ms <= ? ORDER BY expires_ms LIMIT ?"
        for (key,) in connection.execute(past, (now, step)).fetchall():
            some = "SELECT rowid FROM records WHERE stream = ? LIMIT ?"
            left -= connection.execute(f"DELETE FROM records WHERE rowid IN ({some})", (key, left)).rowcount
            if left <= 0:
                break
            _remove_parts(connection, key)
            connection.execute("DELETE FROM streams WHERE key = ?", (key,))
            left -= 1
        some = "SELECT key FROM claims WHERE expires_ms <= ? LIMIT ?"
        claims = connection.execute(f"DELETE FROM claims WHERE key IN ({some})", (now, step)).rowcount
        # An earlier build that sweeps this file knows no requests.
        connection.execute("DELETE FROM requests WHERE stream NOT IN (SELECT key FROM streams)")
        # Leases of gone workers, and leases from before a restart of the machine.
        stale = "DELETE FROM leases WHERE worker != '' AND NOT renewed BETWEEN ? AND ?"
        connection.execute(stale, _around_now(SHARED.lease_lost))
        connection.execute("DELETE FROM cancels WHERE NOT asked BETWEEN ? AND ?", _around_now(SHARED.note_life))
        responses = _remove_expired_responses(connection)
        self._has_removed = self._has_removed or connection.total_changes > before
        return left <= 0 or claims == step or responses >= LIMITS.responses_dropped

    def _empty_log(self, connection: sqlite3.Connection) -> None:
        """Empties the write-ahead log if something was removed: rule 7."""
        if not self._has_removed:
            return
        connection.execute(f"PRAGMA busy_timeout={int(LIMITS.store_empty * 1000)}")
        try:
            is_busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            connection.execute(f"PRAGMA busy_timeout={int(LIMITS.store_busy * 1000)}")
        self._has_removed = bool(is_busy)

    # -- the reading thread --

    def _load(self, connection: sqlite3.Connection, stream_id: str) -> LogCopy | None:
        with _transaction(connection, "DEFERRED"):  # one consistent snapshot
            find = "SELECT key, header, ending, epoch FROM streams WHERE id = ? AND expires_ms > ?"
            row = connection.execute(find, (stream_id, _ms_from_now(0.0))).fetchone()
            if row is None:
                return None
            key, header, ending, epoch = row
            gaps = connection.execute("SELECT lost, text FROM gaps WHERE stream = ?", (key,)).fetchall()
            try:
                lost, text = join_gaps((lost, _open_sealed(text, stream_id, "gap", lost)) for lost, text in gaps)
            except (ValueError, TypeError):
                raise StoreError("damaged", "the gaps of a stream cannot be read") from None
            news = _news(connection, key, stream_id, ending, lost, LIMITS.store_read)
        return LogCopy(*read_header(_open_sealed(header, stream_id)), lost, text, news, _read_epoch(epoch))

    def _tail(self, connection: sqlite3.Connection, positions: Mapping[str, int]) -> dict[str, CopyTail]:
        version = _pragma(connection, "data_version")
        if version != self._version:
            self._version, self._without_news = version, {}
        asked = {
            stream_id: after for stream_id, after in positions.items() if self._without_news.get(stream_id) != after
        }
        if not asked:
            return {}
        limit = min(LIMITS.store_read, SHARED.store_reply // len(asked))
        with _transaction(connection, "DEFERRED"):
            found = {stream_id: _news_of(connection, stream_id, after, limit) for stream_id, after in asked.items()}
        news = {stream_id: each for stream_id, each in found.items() if each != _NOTHING}
        self._without_news.update({each: after for each, after in asked.items() if each not in news})
        return news

    def _has_messages(self, connection: sqlite3.Connection, worker: str) -> bool:
        version = _pragma(connection, "data_version")
        if version == self._without_messages:
            return False
        if connection.execute("SELECT 1 FROM cancels WHERE worker = ?", (worker,)).fetchone() is not None:
            return True
        self._without_messages = version
        return False


def check_url(url: str, folder: Path) -> str:
    """Returns the URL of a file, with its whole path.

    Args:
        url: `sqlite:///relative.db` or `sqlite:////absolute.db`.
        folder: The folder that a relative path starts from.

    Raises:
        ValueError: The URL names no file.
    """
    path = url.removeprefix(_PREFIX)
    if not url.startswith(_PREFIX) or path.endswith("/") or path in ("", ".", "..", ":memory:"):
        raise ValueError('must name a file: "sqlite:///relative.db" or "sqlite:////absolute.db"')
    return f"{_PREFIX}{folder.absolute() / path}"


def open_backend(settings: StoreSettings) -> SQLiteBackend:
    """Makes the store of a configuration."""
    path = Path(settings.url.removeprefix(_PREFIX))
    return SQLiteBackend(path, is_synchronous=settings.sync == "before_send")


class _MachineClock:
    """Detects that the machine's clock was set.

    Attributes:
        set_at: The last time at which that was detected, in monotonic seconds.
    """

    def __init__(self) -> None:
        self.set_at = -math.inf
        self._ahead = time.time() - time.monotonic()

    def look(self) -> None:
        """Compares the machine's clock with the monotonic clock."""
        ahead = time.time() - time.monotonic()
        if abs(ahead - self._ahead) >= LIMITS.clock_step:
            self.set_at = time.monotonic()
        self._ahead = ahead


class _Thread:
    """One thread with one connection, which is opened by the first call."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"gai-fast-store-{name}")
        self._is_closed = False
        self._busy: tuple[float, StoreError] | None = None  # the last failure to get the file's lock, and its time

    async def call(
        self, function: Callable[[sqlite3.Connection], _Result], waiting_since: float | None = None
    ) -> _Result:
        """Calls a function in the thread; returns its result. The function runs on if the caller is cancelled.

        Args:
            function: Called with the connection.
            waiting_since: The time from which the call waits, in monotonic seconds. None for now.

        Raises:
            StoreError: SQLite failed, the store is closed, or the file was locked for too long while the call waited.
        """
        self.check()
        since = time.monotonic() if waiting_since is None else waiting_since
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._run, function, since)

    def check(self) -> None:
        """Raises `StoreError` if the store is closed."""
        if self._is_closed:
            raise StoreError("unreachable", f"{self._path} is closed")

    async def close(self) -> None:
        """Closes the connection after all earlier calls, and ends the thread."""
        if not self._is_closed:
            self._is_closed = True
            await asyncio.get_running_loop().run_in_executor(self._executor, self._close)
            self._executor.shutdown(wait=False)

    def _run(self, function: Callable[[sqlite3.Connection], _Result], since: float) -> _Result:
        if self._busy is not None and since <= self._busy[0]:
            raise self._busy[1]  # otherwise queued calls would wait for the lock one after the other
        try:
            if self._connection is None:
                self._connection = _connect(self._path)
            return function(self._connection)
        except sqlite3.Error as problem:
            error = self._error(problem)
            if error.fault == "busy":
                self._busy = time.monotonic(), error
            raise error from None

    def _error(self, problem: sqlite3.Error) -> StoreError:
        code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the primary code of an extended one
        fault, text = _FAULTS.get(code, ("damaged", "cannot be used"))
        return StoreError(fault, f"{self._path} {text} ({getattr(problem, 'sqlite_errorname', 'SQLITE_ERROR')})")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Writer(_Thread):
    """The writing thread. Calls that wait at the same time share a transaction: rule 1.

    Args:
        path: The file.
        is_synchronous: As for `SQLiteBackend`.
    """

    def __init__(self, path: Path, *, is_synchronous: bool) -> None:
        super().__init__(path, "write")
        self._is_synchronous = is_synchronous
        self._synchronized = 0.0
        self._gathered: deque[_Call] = deque()
        self._committing: asyncio.Task[None] | None = None

    def make_ready(self, connection: sqlite3.Connection) -> None:
        """Sets when commits reach the disk: rule 3."""
        connection.execute(f"PRAGMA synchronous={'FULL' if self._is_synchronous else 'NORMAL'}")

    async def transact(self, work: Callable[[sqlite3.Connection], _Result], *, is_synced: bool = False) -> _Result:
        """Calls a function within a transaction; returns its result after the commit. Raises as `call`.

        An exception of the function undoes its own writes, and is raised here. If the whole transaction fails, every
        caller that shares it gets the error.

        Args:
            work: Called in the thread.
            is_synced: Whether the commit reaches the disk.
        """
        self.check()
        call = _Call(work, is_synced=is_synced)
        self._gathered.append(call)
        if self._committing is None:
            self._committing = asyncio.ensure_future(self._commit_gathered())
        result: _Result = await call.outcome
        return result

    async def close(self) -> None:
        """Closes the connection after all earlier calls, and ends the thread."""
        if self._committing is not None:
            await asyncio.wait([self._committing])
        await super().close()

    async def _commit_gathered(self) -> None:
        """Runs transactions until no call waits."""
        try:
            while self._gathered:
                group = [self._gathered.popleft() for _ in range(min(len(self._gathered), LIMITS.store_group))]
                try:
                    await self.call(partial(self._commit, group), group[0].since)
                except Exception as problem:  # noqa: BLE001  # each caller gets it
                    for call in group:
                        call.problem = problem
                for call in group:
                    call.finish()
        finally:
            self._committing = None

    def _commit(self, group: Sequence[_Call], connection: sqlite3.Connection) -> None:
        now = time.monotonic()
        is_late = now - self._synchronized >= LIMITS.store_sync
        is_due = not self._is_synchronous and (is_late or any(call.is_synced for call in group))
        if is_due:
            connection.execute("PRAGMA synchronous=FULL")  # for this commit: it synchronizes all earlier ones too
        try:
            with _transaction(connection):
                for call in group:
                    self._run_one(connection, call)
        finally:
            if is_due:
                connection.execute("PRAGMA synchronous=NORMAL")
        if is_due:
            self._synchronized = now

    def _run_one(self, connection: sqlite3.Connection, call: _Call) -> None:
        connection.execute("SAVEPOINT one")
        try:
            call.result = call.work(connection)
        except Exception as problem:
            if not connection.in_transaction:  # SQLite has rolled the whole transaction back, e.g. the disk is full
                raise
            connection.execute("ROLLBACK TO one")
            call.problem = self._error(problem) if isinstance(problem, sqlite3.Error) else problem
        connection.execute("RELEASE one")


class _Call:
    """A call that waits for its transaction.

    Args:
        work: The function.
        is_synced: Whether the commit must reach the disk.

    Attributes:
        is_synced: As the argument.
        since: The time of the call, in monotonic seconds.
        outcome: The future that the caller awaits; set after the commit.
        result: The function's return value.
        problem: The reason why there is no result. None if the function returned.
    """

    def __init__(self, work: Callable[[sqlite3.Connection], Any], *, is_synced: bool) -> None:
        self.work = work
        self.is_synced = is_synced
        self.since = time.monotonic()
        self.outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.result: Any = None
        self.problem: Exception | None = None

    def finish(self) -> None:
        """Sets the outcome, unless the caller was cancelled."""
        if self.outcome.done():
            return
        if self.problem is None:
            self.outcome.set_result(self.result)
        else:
            self.outcome.set_exception(self.problem)


def _connect(path: Path) -> sqlite3.Connection:
    try:
        # O_EXCL: on an existing file, closing any descriptor would drop all locks that the process has on the file.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        pass
    except OSError as problem:
        raise StoreError("unreachable", f"{path} cannot be made: {problem.strerror}") from None
    return sqlite3.connect(path, timeout=LIMITS.store_busy, isolation_level=None)


def _entered_wal(connection: sqlite3.Connection) -> str:
    """Switches the file to a write-ahead log; returns its journal mode.

    If several processes open a new file at the same time, SQLite refuses some of them without waiting for its timeout.
    """
    until = time.monotonic() + LIMITS.store_busy
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0])
        except sqlite3.OperationalError as problem:
            if problem.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
            time.sleep(SHARED.store_poll)


def _connection_is_there(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT 1 FROM streams LIMIT 1").fetchall()


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:  # something raised
            connection.rollback()


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _ms_from_now(seconds: float) -> int:
    return int((time.time() + seconds) * 1000)


def _around_now(seconds: float) -> tuple[float, float]:
    """Returns the monotonic times `seconds` before and after now."""
    now = time.monotonic()
    return now - seconds, now + seconds


def _write_gap(connection: sqlite3.Connection, key: int, stream_id: str, gap: Gap) -> None:
    if gap.is_whole or gap.text is None:
        connection.execute("DELETE FROM gaps WHERE stream = ? AND lost < ?", (key, gap.lost))
    text = _seal(gap_text(gap), stream_id, "gap", gap.lost)
    connection.execute("INSERT OR REPLACE INTO gaps VALUES (?, ?, ?)", (key, gap.lost, text))
    connection.execute("DELETE FROM records WHERE stream = ? AND last_seq <= ?", (key, gap.lost))


def _news_of(connection: sqlite3.Connection, stream_id: str, after: int, limit: int) -> CopyTail:
    row = connection.execute("SELECT key, ending FROM streams WHERE id = ?", (stream_id,)).fetchone()
    return _NOTHING if row is None else _news(connection, row[0], stream_id, row[1], after, limit)


def _news(
    connection: sqlite3.Connection, key: int, stream_id: str, ending: bytes | None, after: int, limit: int
) -> CopyTail:
    """Returns the news of a stream after an event: about `limit` bytes, at least one record."""
    found = connection.execute(
        "SELECT after_seq, last_seq, piece FROM records WHERE stream = ? AND last_seq > ? ORDER BY last_seq",
        (key, after),
    )
    records: list[Record] = []
    size = 0
    try:
        for begin, last_seq, sealed in found:
            if size >= limit:
                return CopyTail(records, has_more=True)
            if not (isinstance(begin, int) and isinstance(last_seq, int)):  # as in `_open_sealed`: of any type
                raise _damaged_row()
            records.append(Record(begin, last_seq, _open_sealed(sealed, stream_id, begin, last_seq)))
            size += len(sealed)
        reached = records[-1].last_seq if records else after
        return CopyTail(records, None if ending is None else read_ending(_open_end(ending, stream_id, reached)))
    except StoreError:
        return CopyTail(records, is_damaged=True)
    finally:
        found.close()


def _late(connection: sqlite3.Connection) -> Collection[str]:
    now = time.monotonic()
    late = "SELECT worker FROM leases WHERE worker != '' AND renewed BETWEEN ? AND ?"
    rows = connection.execute(late, (now - SHARED.lease_lost, now - LIMITS.lease_late))
    return [worker for (worker,) in rows]


def _leased(connection: sqlite3.Connection, workers: Collection[str]) -> Collection[str]:
    now = time.monotonic()
    found: set[str] = set()
    for worker in workers:
        row = connection.execute("SELECT renewed FROM leases WHERE worker = ?", (worker,)).fetchone()
        if row is None or not isinstance(row[0], float):  # SQLite may find a value of any type in a damaged row
            continue
        if 0 <= now - row[0] < SHARED.lease_lost:  # a time from before a restart of the machine may lie in the future
            found.add(worker)
    return found


def _kept(connection: sqlite3.Connection, stream_ids: Collection[str]) -> Mapping[str, Owner]:
    now = _ms_from_now(0.0)
    find = "SELECT worker, epoch FROM streams WHERE id = ? AND expires_ms > ?"
    found = {each: connection.execute(find, (each, now)).fetchone() for each in stream_ids}
    return {each: Owner(str(row[0]), _read_epoch(row[1])) for each, row in found.items() if row is not None}


def _read_epoch(epoch: object) -> int:
    """Returns an epoch. 0, as of a copy without an owner, if the row is damaged."""
    return epoch if isinstance(epoch, int) and 0 <= epoch < LAST_EPOCH else 0


def _drop_former(connection: sqlite3.Connection, stream_id: str, epoch: int) -> None:
    """Removes a copy of a lower epoch: rule 4 of `backend.py`."""
    former = "SELECT key FROM streams WHERE id = ? AND epoch < ?"
    for (key,) in connection.execute(former, (stream_id, epoch)).fetchall():
        _remove_parts(connection, key)
        connection.execute("DELETE FROM streams WHERE key = ?", (key,))


def _remove_parts(connection: sqlite3.Connection, key: int) -> None:
    """Removes what a copy has beside its row."""
    for table in _PARTS:
        connection.execute(f"DELETE FROM {table} WHERE stream = ?", (key,))


def _write_request(connection: sqlite3.Connection, key: int, change: CopyChange) -> None:
    """Writes the request of a stream that begins, or removes that of one that ends."""
    if change.ending is not None:
        connection.execute("DELETE FROM requests WHERE stream = ?", (key,))
    elif change.header is not None and change.request:
        sealed = _seal(change.request, change.stream_id, "request")
        connection.execute("INSERT OR REPLACE INTO requests VALUES (?, ?)", (key, sealed))


def _request_of(connection: sqlite3.Connection, stream_id: str) -> bytes | None:
    find = "SELECT value FROM requests JOIN streams ON stream = key WHERE id = ? AND expires_ms > ?"
    row = connection.execute(find, (stream_id, _ms_from_now(0.0))).fetchone()
    return None if row is None else _open_sealed(row[0], stream_id, "request")


def _note_followers(connection: sqlite3.Connection, stream_ids: Collection[str]) -> None:
    now = time.monotonic()
    note = "UPDATE streams SET followed = ? WHERE id = ?"
    connection.executemany(note, [(now, stream_id) for stream_id in stream_ids])


def _followed_ago(connection: sqlite3.Connection, stream_id: str) -> float | None:
    row = connection.execute("SELECT followed FROM streams WHERE id = ?", (stream_id,)).fetchone()
    if row is None or not isinstance(row[0], float) or row[0] > time.monotonic():  # from before a restart
        return None
    return time.monotonic() - row[0]


def _place(kind: str, name: str) -> str:
    """Returns the key of a record's row. Digests of idempotency keys have no prefix, as in earlier releases."""
    return name if kind == CLAIMS else f"{kind}:{name}"


def _get(connection: sqlite3.Connection, place: str) -> bytes | None:
    find = "SELECT value FROM claims WHERE key = ? AND expires_ms > ?"
    row = connection.execute(find, (place, _ms_from_now(0.0))).fetchone()
    return None if row is None else _open_sealed(row[0], place)


def _put(connection: sqlite3.Connection, place: str, value: bytes, ttl: float | None) -> None:
    until = _FOREVER if ttl is None else _ms_from_now(ttl)
    connection.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", (place, _seal(value, place), until))


def _lasting(connection: sqlite3.Connection) -> Collection[tuple[str, str]]:
    find = "SELECT key FROM claims WHERE expires_ms = ? LIMIT ?"
    places = [str(place) for (place,) in connection.execute(find, (_FOREVER, LIMITS.lasting))]
    return [
        (kind, name) if found else (CLAIMS, place) for place in places for kind, found, name in [place.partition(":")]
    ]


def _keep_response(
    connection: sqlite3.Connection, record: ResponseRecord[bytes], ttl: float, budget: ResponseBudget
) -> tuple[int, bool]:
    """Keeps a response, and makes room; as `Backend.keep_response`.

    Returns:
        As `_make_room`.
    """
    _remove_responses(connection, connection.execute(f"{_RESPONSE} WHERE name = ?", (record.name,)).fetchall())
    row = record.name, record.caller, record.parent, record.size, _ms_from_now(ttl)
    add = "INSERT INTO responses (name, caller, parent, size, expires_ms, value) VALUES (?, ?, ?, ?, ?, ?)"
    number = connection.execute(add, (*row, _seal(record.value, RESPONSES, record.name))).lastrowid
    items = [(item, number) for item in record.items]
    connection.executemany("INSERT OR IGNORE INTO response_items VALUES (?, ?)", items)
    _count_response(connection, record.caller, record.size)
    return _make_room(connection, record.caller, budget)


def _make_room(connection: sqlite3.Connection, caller: str, budget: ResponseBudget) -> tuple[int, bool]:
    """Drops responses until a caller and all callers have no more than their bytes, or there is more than a
    transaction may delete.

    Returns:
        The number of dropped responses, and whether there are more to drop.
    """
    if not _is_over(connection, caller, budget):
        return 0, False
    left = LIMITS.responses_dropped - _remove_expired_responses(connection)
    dropped = 0
    for name, most, oldest in (
        (caller, budget.of_caller, f"{_RESPONSE} WHERE caller = ? ORDER BY number LIMIT 2"),
        (_ALL_CALLERS, budget.of_all, f"{_RESPONSE} WHERE ? = '' ORDER BY number LIMIT 2"),
    ):
        while left > 0 and _size_of(connection, name) > most:
            rows: list[_ResponseRow] = connection.execute(oldest, (name,)).fetchall()
            if len(rows) < 2:  # the newest alone is not too much: the sum is damaged
                size = sum(size for _, _, size in rows)
                connection.execute("UPDATE response_sizes SET size = ? WHERE caller = ?", (size, name))
                break
            left -= _remove_responses(connection, rows[:1])
            dropped += 1
    return dropped, left <= 0 and _is_over(connection, caller, budget)


def _read_responses(
    connection: sqlite3.Connection, names: Sequence[str], turns: int, most: int
) -> list[tuple[str, bytes]]:
    """Returns kept responses; as `Backend.read_responses`."""
    found: list[tuple[str, bytes]] = []
    size = 0
    find = "SELECT parent, value FROM responses WHERE name = ? AND expires_ms > ?"
    with _transaction(connection, "DEFERRED"):
        now = _ms_from_now(0.0)
        for first in names:
            name = first
            for _ in range(turns):
                row = connection.execute(find, (name, now)).fetchone()
                if row is None:
                    break
                value = _open_sealed(row[1], RESPONSES, name)
                found.append((name, value))
                size += len(value)
                if size >= most:
                    return found
                name = row[0]
    return found


def _responses_with(connection: sqlite3.Connection, items: Mapping[str, str]) -> dict[str, str]:
    """Returns the names of responses with some items; as `Backend.responses_with`."""
    with_item = (
        "SELECT name FROM response_items JOIN responses ON number = response"
        " WHERE item = ? AND expires_ms > ? ORDER BY response DESC LIMIT 1"
    )
    named = "SELECT name FROM responses WHERE name = ? AND expires_ms > ?"
    found: dict[str, str] = {}
    with _transaction(connection, "DEFERRED"):
        now = _ms_from_now(0.0)
        for item, likely in items.items():
            row = connection.execute(with_item, (item, now)).fetchone()
            if row is None and likely:
                row = connection.execute(named, (likely, now)).fetchone()
            if row is not None:
                found[item] = str(row[0])
    return found


def _delete_response(connection: sqlite3.Connection, name: str) -> bool:
    """Removes a response; as `Backend.delete_response`."""
    there = connection.execute("SELECT 1 FROM responses WHERE name = ? AND expires_ms > ?", (name, _ms_from_now(0.0)))
    is_there = there.fetchone() is not None
    _remove_responses(connection, connection.execute(f"{_RESPONSE} WHERE name = ?", (name,)).fetchall())
    return is_there


def _remove_expired_responses(connection: sqlite3.Connection) -> int:
    """Removes expired responses, `limits.responses_dropped` bytes or a little more; returns their bytes."""
    removed = 0
    some = f"{_RESPONSE} WHERE expires_ms <= ? ORDER BY expires_ms LIMIT ?"
    now = _ms_from_now(0.0)
    while removed < LIMITS.responses_dropped:
        rows = connection.execute(some, (now, LIMITS.response_batch)).fetchall()
        if not rows:
            break
        for row in rows:
            removed += _remove_responses(connection, [row])
            if removed >= LIMITS.responses_dropped:
                break
    return removed


def _remove_responses(connection: sqlite3.Connection, rows: Sequence[_ResponseRow]) -> int:
    """Removes rows; returns their bytes."""
    removed = 0
    for number, caller, size in rows:
        connection.execute("DELETE FROM response_items WHERE response = ?", (number,))
        connection.execute("DELETE FROM responses WHERE number = ?", (number,))
        _count_response(connection, caller, -size)
        removed += size
    return removed


def _count_response(connection: sqlite3.Connection, caller: str, size: int) -> None:
    """Adds bytes to the sums of a caller and of all."""
    update = "ON CONFLICT DO UPDATE SET size = MAX(0, size + :size)"
    for name in (caller, _ALL_CALLERS):
        values = {"name": name, "size": size}
        connection.execute(f"INSERT INTO response_sizes VALUES (:name, MAX(0, :size)) {update}", values)
    connection.execute("DELETE FROM response_sizes WHERE caller = ? AND size <= 0", (caller,))


def _size_of(connection: sqlite3.Connection, caller: str) -> int:
    row = connection.execute("SELECT CAST(size AS INTEGER) FROM response_sizes WHERE caller = ?", (caller,)).fetchone()
    return 0 if row is None else int(row[0])


def _is_over(connection: sqlite3.Connection, caller: str, budget: ResponseBudget) -> bool:
    return _size_of(connection, caller) > budget.of_caller or _size_of(connection, _ALL_CALLERS) > budget.of_all


def _add_message(connection: sqlite3.Connection, worker: str, text: str) -> None:
    add = "INSERT OR IGNORE INTO cancels VALUES (?, ?, ?)"
    connection.execute(add, (worker, text, time.monotonic()))
    surplus = "SELECT stream FROM cancels WHERE worker = :worker ORDER BY asked DESC LIMIT -1 OFFSET :most"
    values = {"worker": worker, "most": LIMITS.messages}
    connection.execute(f"DELETE FROM cancels WHERE worker = :worker AND stream IN ({surplus})", values)


def _take_messages(connection: sqlite3.Connection, worker: str) -> Collection[tuple[str, str]]:
    find = "SELECT stream FROM cancels WHERE worker = ? ORDER BY asked"
    texts = [str(text) for (text,) in connection.execute(find, (worker,)).fetchall()]
    connection.execute("DELETE FROM cancels WHERE worker = ?", (worker,))
    return [*map(read_message, texts)]


def _seal(value: bytes, *place: object) -> bytes:
    """Returns a value with a checksum over it and its place in front."""
    return checksum(value, *place).to_bytes(4, "big") + value


def _open_sealed(sealed: bytes, *place: object) -> bytes:
    """Returns the value that `_seal` sealed for this place.

    Raises:
        StoreError: The value is damaged.
    """
    value = sealed[4:] if isinstance(sealed, bytes) else b""  # SQLite may find a value of any type in a damaged row
    if is_sealed(value) and sealed[:4] == _UNCHECKED:
        return value
    if not isinstance(sealed, bytes) or _seal(value, *place)[:4] != sealed[:4]:
        raise _damaged_row()
    return value


def _damaged_row() -> StoreError:
    return StoreError("damaged", "a row of the store is damaged")


def _seal_end(text: bytes, stream_id: str, last_seq: int) -> bytes:
    """Returns the sealed end of a stream, with the number of its last event."""
    return _seal(last_seq.to_bytes(_NUMBER, "big") + text, stream_id, "last")


def _open_end(sealed: bytes, stream_id: str, reached: int) -> bytes:
    """Returns the text that `_seal_end` sealed. Also reads the ends of earlier releases, which have no number.

    Args:
        sealed: The sealed end.
        stream_id: The stream's id.
        reached: The number of the last event before the end.

    Raises:
        StoreError: The end is damaged, or a record before it is missing.
    """
    try:
        value = _open_sealed(sealed, stream_id, "last")
    except StoreError:
        return _open_sealed(sealed, stream_id, "end")
    if int.from_bytes(value[:_NUMBER], "big") > reached:
        raise StoreError("damaged", "the last records of a stream are missing")
    return value[_NUMBER:]
