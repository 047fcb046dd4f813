"""Rows of a store's file: a value's checksum, a time to live, a transaction.

Owns the form of a value in a row. `sqlite.py` has the tables of streams and records, `sqlite_responses.py` those of
kept responses.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gai_fast.stores.backend import StoreError, checksum
from gai_fast.stores.sealer import is_sealed

UNCHECKED: Final = bytes(4)
"""In front of a sealed value, in place of a checksum."""


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:  # something raised
            connection.rollback()


def ms_from_now(seconds: float) -> int:
    return int((time.time() + seconds) * 1000)


def seal_row(value: bytes, *place: object) -> bytes:
    """Returns a value with a checksum over it and its place in front."""
    return checksum(value, *place).to_bytes(4, "big") + value


def open_row(sealed: bytes, *place: object) -> bytes:
    """Returns the value that `seal_row` sealed for this place.

    Raises:
        StoreError: The value is damaged.
    """
    value = sealed[4:] if isinstance(sealed, bytes) else b""  # SQLite may find a value of any type in a damaged row
    if is_sealed(value) and sealed[:4] == UNCHECKED:
        return value
    if not isinstance(sealed, bytes) or seal_row(value, *place)[:4] != sealed[:4]:
        raise damaged_row()
    return value


def damaged_row() -> StoreError:
    return StoreError("damaged", "a row of the store is damaged")
