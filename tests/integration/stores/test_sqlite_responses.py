"""`gai_fast/stores/sqlite.py`: kept responses in a file, also of an earlier release; damaged rows."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS, ResponsesSettings
from gai_fast.stores.backend import RESPONSES
from gai_fast.stores.responses import KeptResponses
from gai_fast.stores.sqlite import SQLiteBackend, _seal
from tests.conftest import ChangeLimits
from tests.kept import keep, keep_chain, over, response
from tests.waiting import until_answered

EARLIER = """
CREATE TABLE streams (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, header BLOB NOT NULL, ending BLOB,
    expires_ms INTEGER NOT NULL, followed REAL);
CREATE INDEX streams_by_end ON streams (expires_ms);
CREATE TABLE records (
    stream INTEGER NOT NULL, last_seq INTEGER NOT NULL, after_seq INTEGER NOT NULL,
    piece BLOB NOT NULL, PRIMARY KEY (stream, last_seq));
CREATE TABLE gaps (stream INTEGER NOT NULL, lost INTEGER NOT NULL, text BLOB NOT NULL, PRIMARY KEY (stream, lost));
CREATE TABLE claims (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX claims_by_end ON claims (expires_ms);
CREATE TABLE cancels (worker TEXT, stream TEXT, asked REAL NOT NULL, PRIMARY KEY (worker, stream)) WITHOUT ROWID;
CREATE TABLE leases (worker TEXT PRIMARY KEY, renewed REAL NOT NULL) WITHOUT ROWID;
PRAGMA application_id=1195460934;
PRAGMA user_version=2;
"""
"""The tables of a release before kept responses."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def backend(path: Path) -> AsyncIterator[SQLiteBackend]:
    made = SQLiteBackend(path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def responses(backend: SQLiteBackend) -> KeptResponses:
    return over(backend)


def execute(path: Path, statement: str, *values: Any) -> list[Any]:
    """Carries out one statement, past the gateway."""
    connection = sqlite3.connect(path, isolation_level=None)
    rows = connection.execute(statement, values).fetchall()
    connection.close()
    return rows


async def test_the_file_of_an_earlier_release_gets_the_tables_and_keeps_what_it_has(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(EARLIER)
    connection.execute("INSERT INTO claims VALUES ('ids:a', ?, 9000000000000000)", (_seal(b"old", "ids:a"),))
    connection.commit()
    connection.close()
    for _ in range(2):
        backend = SQLiteBackend(path)
        await backend.open()
        assert await keep(over(backend), response("resp_1"))
        assert await over(backend).find(ANONYMOUS, "resp_1") is not None
        assert await backend.get("ids", "a") == b"old"
        await backend.close()
    assert execute(path, "PRAGMA user_version") == [(3,)]


async def test_the_sums_are_those_of_the_rows(
    path: Path, responses: KeptResponses, change_limits: ChangeLimits
) -> None:
    change_limits(responses_dropped=4_000)
    responses.use(ResponsesSettings(max_bytes=40_000, max_bytes_per_caller=16_384))
    for number in range(60):
        kept = response(f"resp_{number % 25}", text="x" * (number % 5 * 800), items=["a", "b", "a"])
        assert await keep(responses, kept, f"caller {number % 4}")
    assert await responses.delete("caller 3", "resp_9")
    sums = dict(execute(path, "SELECT caller, size FROM response_sizes"))
    rows = dict(execute(path, "SELECT caller, SUM(size) FROM responses GROUP BY caller"))
    assert sums == {**rows, "": sum(rows.values())}
    assert max(rows.values()) <= 16_384
    items = execute(path, "SELECT COUNT(*) FROM response_items WHERE response NOT IN (SELECT number FROM responses)")
    assert items == [(0,)]


async def test_every_statement_goes_by_an_index(path: Path, responses: KeptResponses) -> None:
    await keep_chain(responses, 3)
    plans = {
        "SELECT number FROM responses WHERE name = 'a'": "sqlite_autoindex_responses_1",
        "SELECT number FROM responses WHERE caller = 'a' ORDER BY number LIMIT 1": "responses_by_caller",
        "SELECT number FROM responses WHERE expires_ms <= 5 ORDER BY expires_ms LIMIT 9": "responses_by_end",
        "DELETE FROM response_items WHERE response = 5": "response_items_by_response",
        "SELECT name FROM response_items JOIN responses ON number = response WHERE item = 'a' AND expires_ms > 5"
        " ORDER BY response DESC LIMIT 1": "PRIMARY KEY (item=?)",
    }
    for statement, index in plans.items():
        plan = " ".join(str(row[3]) for row in execute(path, f"EXPLAIN QUERY PLAN {statement}"))
        assert index in plan
        assert "SCAN" not in plan
        assert "TEMP B-TREE" not in plan


async def test_what_has_expired_is_removed_with_its_bytes(
    path: Path, backend: SQLiteBackend, responses: KeptResponses, change_limits: ChangeLimits
) -> None:
    change_limits(responses_dropped=3_000)
    responses.use(ResponsesSettings(ttl=0.01))
    for number in range(8):
        assert await keep(responses, response(f"resp_{number}", items=["item"]))
    responses.use(ResponsesSettings())
    assert await keep(responses, response("resp_kept"))

    async def is_over() -> bool:
        return await responses.find(ANONYMOUS, "resp_7") is None

    await until_answered(is_over)
    assert await backend.sweep(), "there are more"

    async def is_swept() -> bool:
        return not await backend.sweep()

    await until_answered(is_swept)
    assert execute(path, "SELECT COUNT(*) FROM responses") == [(1,)]
    assert execute(path, "SELECT COUNT(*) FROM response_items") == [(0,)]
    assert execute(path, "SELECT COUNT(DISTINCT size) FROM response_sizes") == [(1,)]
    assert await responses.find(ANONYMOUS, "resp_kept") is not None


DAMAGES = {
    "a bit": lambda value: value[:30] + bytes([value[30] ^ 1]) + value[31:],
    "its checksum": lambda value: bytes([value[0] ^ 1]) + value[1:],
    "a cut": lambda value: value[:-1],
    "more": lambda value: value + b"x",
    "nothing": lambda _: b"",
    "a text": lambda _: "text",
    "a number": lambda _: 5,
    "unchecked": lambda value: bytes(4) + value[4:],
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_row_is_an_error_and_undamaged_it_is_read(
    path: Path, responses: KeptResponses, damage: str
) -> None:
    await keep_chain(responses, 3)
    assert await keep(responses, response("resp_item", items=["item"]))
    for identifier in ("resp_2", "resp_item"):
        place = responses._name(ANONYMOUS, identifier)
        ((value,),) = execute(path, "SELECT value FROM responses WHERE name = ?", place)
        execute(path, "UPDATE responses SET value = ? WHERE name = ?", value, place)
        assert await responses.find(ANONYMOUS, identifier) is not None
        execute(path, "UPDATE responses SET value = ? WHERE name = ?", DAMAGES[damage](value), place)
    for call in (
        responses.find(ANONYMOUS, "resp_2"),
        responses.chain(ANONYMOUS, "resp_3"),
        responses.holding(ANONYMOUS, ["item"]),
    ):
        with pytest.raises(Error) as refused:
            await call
        assert (refused.value.code, refused.value.reason, refused.value.status) == ("internal", "log_damaged", 500)
    assert await responses.find(ANONYMOUS, "resp_3") is not None
    assert await keep(responses, response("resp_2", "resp_1"))
    assert len(await responses.chain(ANONYMOUS, "resp_3") or ()) == 3
    assert await responses.delete(ANONYMOUS, "resp_item")


@pytest.mark.parametrize("value", ["text", -(10**9), 2**62, b"\x00", 1.5])
async def test_damaged_numbers_end_nothing(path: Path, responses: KeptResponses, value: Any) -> None:
    responses.use(ResponsesSettings(max_bytes=16_384))
    await keep_chain(responses, 5)
    execute(path, "UPDATE response_sizes SET size = ?", value)
    execute(path, "UPDATE responses SET size = ?, parent = ? WHERE name != 'x'", value, value)
    for number in range(30):
        assert await keep(responses, response(f"resp_new_{number}"))
    assert await responses.find(ANONYMOUS, "resp_new_29") is not None
    await responses.chain(ANONYMOUS, "resp_5")


async def test_a_row_in_anothers_place_is_damaged(path: Path, responses: KeptResponses) -> None:
    await keep_chain(responses, 2)
    one, two = (responses._name(ANONYMOUS, f"resp_{number}") for number in (1, 2))
    ((value,),) = execute(path, "SELECT value FROM responses WHERE name = ?", one)
    for written in (value, _seal(value[4:], RESPONSES, two)):
        execute(path, "UPDATE responses SET value = ? WHERE name = ?", written, two)
        with pytest.raises(Error) as refused:
            await responses.find(ANONYMOUS, "resp_2")
        assert refused.value.reason == "log_damaged"


async def test_content_that_was_dropped_is_not_in_the_file(path: Path, backend: SQLiteBackend) -> None:
    responses = over(backend)
    assert await keep(responses, response("resp_1", text="Zebrafähre-of-the-caller"))
    assert await responses.delete(ANONYMOUS, "resp_1")
    await backend.close()
    content = b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))
    assert b"hre-of-the-caller" not in content


async def test_content_that_made_room_is_in_no_file_after_the_next_sweep(path: Path, backend: SQLiteBackend) -> None:
    responses = over(backend)
    responses.use(ResponsesSettings(max_bytes=16_384))
    assert await keep(responses, response("resp_1", text="Zebrafähre-of-the-caller" + "x" * 6_000))
    await backend.sweep()
    for number in range(2, 6):
        assert await keep(responses, response(f"resp_{number}", text="x" * 6_000))
    assert await responses.find(ANONYMOUS, "resp_1") is None
    await backend.sweep()
    content = b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))
    assert b"hre-of-the-caller" not in content
