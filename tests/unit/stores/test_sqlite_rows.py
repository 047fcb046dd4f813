"""`gai_fast/stores/sqlite_rows.py`: a row's value is read only as it was written, at its place."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from gai_fast.stores.backend import StoreError
from gai_fast.stores.sealer import OVERHEAD
from gai_fast.stores.sqlite_rows import UNCHECKED, open_row, seal_row, transaction

SEALED = b"\x01" + bytes(OVERHEAD)
"""What has the form of a sealed value."""


@pytest.mark.parametrize("value", [b"", b"value", SEALED])
def test_a_value_is_read_at_its_place_alone(value: bytes) -> None:
    row = seal_row(value, "kind", "name")
    assert open_row(row, "kind", "name") == value
    damaged: list[Any] = [row[:-1], row + b"x", bytes([row[0] ^ 1]) + row[1:], b"", None, 5, 1.5, "text"]
    for each in damaged:
        with pytest.raises(StoreError, match="damaged"):
            open_row(each, "kind", "name")
    with pytest.raises(StoreError, match="damaged"):
        open_row(row, "kind", "other")


def test_only_a_sealed_value_needs_no_checksum() -> None:
    assert open_row(UNCHECKED + SEALED, "any") == SEALED
    with pytest.raises(StoreError, match="damaged"):
        open_row(UNCHECKED + b"plain", "any")


def test_a_transaction_that_fails_leaves_nothing() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (a)")
    with transaction(connection):
        connection.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(ZeroDivisionError), transaction(connection):
        connection.execute("INSERT INTO t VALUES (2)")
        raise ZeroDivisionError
    assert connection.execute("SELECT a FROM t").fetchall() == [(1,)]
    connection.close()
