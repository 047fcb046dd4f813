"""Kept responses in a store's file.

Owns their tables. Each function runs within a transaction, or makes one to read.

1. The number of a row is its age: a response that is kept again is the newest.
2. `response_sizes` has the bytes of each caller's rows, and under an empty name those of all.
3. What has expired is not found. It is removed before anything is dropped.
4. Deleting content costs time, because it is overwritten. One transaction deletes `limits.responses_dropped` bytes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from gai_fast.stores.backend import RESPONSES, ResponseBudget, ResponseRecord
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.sqlite_rows import ms_from_now, open_row, seal_row, transaction

RESPONSE_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS responses (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, caller TEXT NOT NULL,"
    " parent TEXT NOT NULL, size INTEGER NOT NULL, expires_ms INTEGER NOT NULL, value BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS responses_by_caller ON responses (caller)",
    "CREATE INDEX IF NOT EXISTS responses_by_end ON responses (expires_ms)",
    "CREATE TABLE IF NOT EXISTS response_items (item TEXT, response INTEGER, PRIMARY KEY (item, response))"
    " WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS response_items_by_response ON response_items (response)",
    "CREATE TABLE IF NOT EXISTS response_sizes (caller TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID",
)
_ALL: Final = ""
_Row = tuple[int, str, int]
"""The number, the caller and the size of a row."""
_ROW: Final = "SELECT number, CAST(caller AS TEXT), CAST(size AS INTEGER) FROM responses"
"""SQLite may find a value of any type in a damaged row."""


def keep(
    connection: sqlite3.Connection, record: ResponseRecord[bytes], ttl: float, budget: ResponseBudget
) -> tuple[int, bool]:
    """Keeps a response, and makes room; as `Backend.keep_response`.

    Returns:
        As `make_room`.
    """
    _remove_all(connection, connection.execute(f"{_ROW} WHERE name = ?", (record.name,)).fetchall())
    row = record.name, record.caller, record.parent, record.size, ms_from_now(ttl)
    add = "INSERT INTO responses (name, caller, parent, size, expires_ms, value) VALUES (?, ?, ?, ?, ?, ?)"
    number = connection.execute(add, (*row, seal_row(record.value, RESPONSES, record.name))).lastrowid
    items = [(item, number) for item in record.items]
    connection.executemany("INSERT OR IGNORE INTO response_items VALUES (?, ?)", items)
    _count(connection, record.caller, record.size)
    return make_room(connection, record.caller, budget)


def make_room(connection: sqlite3.Connection, caller: str, budget: ResponseBudget) -> tuple[int, bool]:
    """Drops responses until a caller and all callers have no more than their bytes, or there is more than a transaction
    may delete.

    Returns:
        The number of dropped responses, and whether there are more to drop.
    """
    if not _is_over(connection, caller, budget):
        return 0, False
    left = LIMITS.responses_dropped - _remove_expired(connection)
    dropped = 0
    for name, most, oldest in (
        (caller, budget.of_caller, f"{_ROW} WHERE caller = ?1 ORDER BY number LIMIT 1"),
        (_ALL, budget.of_all, f"{_ROW} WHERE ?1 = '' ORDER BY number LIMIT 1"),
    ):
        while left > 0 and _size(connection, name) > most:
            rows = connection.execute(oldest, (name,)).fetchall()
            if not rows:  # a damaged sum
                connection.execute("DELETE FROM response_sizes WHERE caller = ?", (name,))
            left -= _remove_all(connection, rows)
            dropped += len(rows)
    return dropped, _is_over(connection, caller, budget)


def read(connection: sqlite3.Connection, names: Sequence[str], turns: int, most: int) -> list[tuple[str, bytes]]:
    """Returns kept responses; as `Backend.read_responses`."""
    found: list[tuple[str, bytes]] = []
    size = 0
    find = "SELECT parent, value FROM responses WHERE name = ? AND expires_ms > ?"
    with transaction(connection, "DEFERRED"):
        now = ms_from_now(0.0)
        for first in names:
            name = first
            for _ in range(turns):
                row = connection.execute(find, (name, now)).fetchone()
                if row is None:
                    break
                value = open_row(row[1], RESPONSES, name)
                found.append((name, value))
                size += len(value)
                if size >= most:
                    return found
                name = row[0]
    return found


def holding(connection: sqlite3.Connection, items: Mapping[str, str]) -> dict[str, str]:
    """Returns the names of responses with some items; as `Backend.responses_with`."""
    with_item = (
        "SELECT name FROM response_items JOIN responses ON number = response"
        " WHERE item = ? AND expires_ms > ? ORDER BY response DESC LIMIT 1"
    )
    named = "SELECT name FROM responses WHERE name = ? AND expires_ms > ?"
    found: dict[str, str] = {}
    with transaction(connection, "DEFERRED"):
        now = ms_from_now(0.0)
        for item, likely in items.items():
            row = connection.execute(with_item, (item, now)).fetchone()
            if row is None and likely:
                row = connection.execute(named, (likely, now)).fetchone()
            if row is not None:
                found[item] = str(row[0])
    return found


def delete(connection: sqlite3.Connection, name: str) -> bool:
    """Removes a response; as `Backend.delete_response`."""
    there = connection.execute("SELECT 1 FROM responses WHERE name = ? AND expires_ms > ?", (name, ms_from_now(0.0)))
    is_there = there.fetchone() is not None
    _remove_all(connection, connection.execute(f"{_ROW} WHERE name = ?", (name,)).fetchall())
    return is_there


def sweep(connection: sqlite3.Connection) -> bool:
    """Removes some expired responses; returns whether there are more."""
    return _remove_expired(connection) >= LIMITS.responses_dropped


def _remove_expired(connection: sqlite3.Connection) -> int:
    """Removes expired responses, `limits.responses_dropped` bytes or a little more; returns their bytes."""
    removed = 0
    some = f"{_ROW} WHERE expires_ms <= ? ORDER BY expires_ms LIMIT ?"
    now = ms_from_now(0.0)
    while removed < LIMITS.responses_dropped:
        rows = connection.execute(some, (now, LIMITS.response_batch)).fetchall()
        if not rows:
            break
        for row in rows:
            removed += _remove_all(connection, [row])
            if removed >= LIMITS.responses_dropped:
                break
    return removed


def _remove_all(connection: sqlite3.Connection, rows: Sequence[_Row]) -> int:
    """Removes rows; returns their bytes."""
    removed = 0
    for number, caller, size in rows:
        connection.execute("DELETE FROM response_items WHERE response = ?", (number,))
        connection.execute("DELETE FROM responses WHERE number = ?", (number,))
        _count(connection, caller, -size)
        removed += size
    return removed


def _count(connection: sqlite3.Connection, caller: str, size: int) -> None:
    """Adds bytes to the sums of a caller and of all."""
    add = "INSERT INTO response_sizes VALUES (?1, MAX(0, ?2)) ON CONFLICT DO UPDATE SET size = MAX(0, size + ?2)"
    for name in (caller, _ALL):
        connection.execute(add, (name, size))
    connection.execute("DELETE FROM response_sizes WHERE caller = ? AND size <= 0", (caller,))


def _size(connection: sqlite3.Connection, caller: str) -> int:
    row = connection.execute("SELECT CAST(size AS INTEGER) FROM response_sizes WHERE caller = ?", (caller,)).fetchone()
    return 0 if row is None else int(row[0])


def _is_over(connection: sqlite3.Connection, caller: str, budget: ResponseBudget) -> bool:
    return _size(connection, caller) > budget.of_caller or _size(connection, _ALL) > budget.of_all
