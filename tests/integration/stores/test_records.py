"""Records: one suite for the memory, the file and the server."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gai_fast.stores import Claim
from gai_fast.stores.backend import ANSWERS, CLAIMS, Records, StoreError, claim_text
from gai_fast.stores.records import MemoryRecords
from gai_fast.stores.redis import RedisBackend
from gai_fast.stores.sqlite import SQLiteBackend
from tests.integration.stores.servers import RedisServer
from tests.limits import LIMITS
from tests.records import free, take, taken
from tests.waiting import until_answered

K = ANSWERS
KINDS = (CLAIMS, ANSWERS)
VALUES = [b"", b"\n", b"a\nb\n00000000", "ü".encode(), bytes(range(256)), bytes(LIMITS.record)]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def kind_of_store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def both(
    kind_of_store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Records, Records]]:
    """Yields one store as two processes have it."""
    if kind_of_store == "memory":
        memory = MemoryRecords(time.monotonic)
        yield memory, memory
        return
    if kind_of_store == "sqlite":
        made = [SQLiteBackend(tmp_path / "store.db") for _ in range(2)]
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        made = [RedisBackend(server.url) for _ in range(2)]
    for each in made:
        await each.open()
    yield made[0], made[1]
    for each in made:
        await each.close()


@pytest.fixture
def records(both: tuple[Records, Records]) -> Records:
    return both[0]


async def test_a_record_has_the_value_that_was_written_last(both: tuple[Records, Records]) -> None:
    here, there = both
    assert await there.get(K, "name") is None
    for value in VALUES:
        await here.put(K, "name", value, 60)
        assert await there.get(K, "name") == value
    assert [await there.get(*place) for place in ((CLAIMS, "name"), (K, "nam"), (K, "name "), (K, ""))] == [None] * 4


@pytest.mark.parametrize("kind", KINDS)
async def test_a_record_is_swapped_only_if_it_has_the_expected_value(records: Records, kind: str) -> None:
    assert await records.swap(kind, "name", b"none", b"a", 60) is None
    assert await records.get(kind, "name") is None
    assert await records.swap(kind, "name", None, b"a", 60) is None
    assert await records.swap(kind, "name", None, b"b", 60) == b"a"
    assert await records.swap(kind, "name", b"x", b"b", 60) == b"a"
    for before, value in zip([b"a", *VALUES], VALUES, strict=False):
        assert await records.swap(kind, "name", before, value, None) == before
        assert await records.get(kind, "name") == value


async def test_a_record_is_deleted_only_if_it_has_the_expected_value(records: Records) -> None:
    assert not await records.delete(K, "name")
    assert not await records.delete(K, "name", b"a")
    await records.put(K, "name", b"a", None)
    assert not await records.delete(K, "name", b"")
    assert not await records.delete(K, "name", b"b")
    assert await records.delete(K, "name", b"a")
    assert not await records.delete(K, "name", b"a")
    await records.put(K, "name", b"a", 60)
    assert await records.delete(K, "name")
    assert await records.get(K, "name") is None


async def test_a_record_is_there_for_its_time_and_without_one_for_ever(records: Records) -> None:
    await records.put(K, "kept", b"v", None)
    await records.put(K, "long", b"v", 1.0)
    await records.swap(K, "long", b"v", b"w", 60)
    await records.put(K, "short", b"v", 1.0)
    assert await records.get(K, "short") == b"v"

    async def is_gone() -> bool:
        return await records.swap(K, "short", None, b"w", 60) is None

    await until_answered(is_gone)
    assert [await records.get(K, name) for name in ("kept", "long", "short")] == [b"v", b"w", b"w"]


async def test_of_many_swaps_at_once_one_wins(both: tuple[Records, Records]) -> None:
    for number in range(20):
        name, value = f"{number}", None
        for step in range(2):
            swaps = [
                each.swap(K, name, value, b"%d.%d" % (step, runner), 60) for runner, each in enumerate([*both] * 5)
            ]
            found = await asyncio.gather(*swaps)
            assert found.count(value) == 1
            winner = b"%d.%d" % (step, found.index(value))
            assert all(each in (value, winner) for each in found)
            value = winner


async def test_a_record_larger_than_the_limit_is_refused_and_nothing_changes(records: Records) -> None:
    await records.put(K, "name", b"v", 60)
    for call in (
        records.put(K, "name", bytes(LIMITS.record + 1), 60),
        records.swap(K, "name", b"v", bytes(LIMITS.record + 1), 60),
        records.swap(K, "other", None, bytes(LIMITS.record + 1), 60),
    ):
        with pytest.raises(StoreError, match="is larger than"):
            await call
    assert [await records.get(K, name) for name in ("name", "other")] == [b"v", None]


# ---- damage ----------------------------------------------------------------------------------------------------------


DAMAGES = {
    "a bit": lambda stored: bytes([*stored[:9], stored[9] ^ 0x10, *stored[10:]]),
    "its first bit": lambda stored: bytes([stored[0] ^ 0x01, *stored[1:]]),
    "its last bit": lambda stored: bytes([*stored[:-1], stored[-1] ^ 0x01]),
    "a cut": lambda stored: stored[:-3],
    "more": lambda stored: stored + b"0",
    "nothing": lambda _: b"",
    "something else": lambda _: b"a b c",
}


@pytest.mark.parametrize("kind_of_store", ["sqlite", "redis"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_damaged_record_is_an_error_and_never_a_value(
    both: tuple[Records, Records], kind_of_store: str, damage: str, kind: str, request: pytest.FixtureRequest
) -> None:
    """The same bytes undamaged are read, and a damaged record can be written and deleted."""
    records, value = both[0], claim_text(Claim("a" * 22, "fingerprint", 1_700_000_000_000))
    await records.put(kind, "name", value, 60)
    stored = Stored(kind_of_store, kind, request)
    whole = stored.value("name")
    stored.write("name", whole)
    assert await records.get(kind, "name") == value
    damaged = DAMAGES[damage](whole)
    stored.write("name", damaged)
    for call in (
        records.get(kind, "name"),
        records.swap(kind, "name", None, b"new", 60),
        records.swap(kind, "name", value, b"new", 60),
        records.delete(kind, "name", value),
    ):
        with pytest.raises(StoreError) as raised:
            await call
        assert raised.value.fault == "damaged"
    assert stored.value("name") == damaged
    assert await records.delete(kind, "name")
    stored.write("name", damaged, is_new=True)
    await records.put(kind, "name", value, 60)
    assert await records.get(kind, "name") == value


@pytest.mark.parametrize("kind_of_store", ["sqlite", "redis"])
async def test_a_record_under_another_name_is_damaged(
    both: tuple[Records, Records], kind_of_store: str, request: pytest.FixtureRequest
) -> None:
    records = both[0]
    for kind in KINDS:
        await records.put(kind, "a", b"a", 60)
        await records.put(kind, "b", b"b", 60)
        stored = Stored(kind_of_store, kind, request)
        stored.write("a", stored.value("b"))
        with pytest.raises(StoreError, match="damaged"):
            await records.get(kind, "a")
        assert await records.get(kind, "b") == b"b"


class Stored:
    """The bytes of records in a store, past the gateway."""

    def __init__(self, store: str, kind: str, request: pytest.FixtureRequest) -> None:
        self._kind = kind
        self._server: RedisServer | None = request.getfixturevalue("redis_server") if store == "redis" else None
        self._file: Path = request.getfixturevalue("tmp_path") / "store.db"

    def value(self, name: str) -> bytes:
        if self._server is not None:
            reply = self._server.command("GET", f"gai:{self._kind}:{name}")
            return reply.partition(b"\r\n")[2].removesuffix(b"\r\n")
        with sqlite3.connect(self._file) as connection:
            found = connection.execute("SELECT value FROM claims WHERE key = ?", (self._row(name),)).fetchone()
        connection.close()
        return bytes(found[0])

    def write(self, name: str, value: bytes, *, is_new: bool = False) -> None:
        if self._server is not None:
            self._server.command("SET", f"gai:{self._kind}:{name}", value)
            return
        write = "UPDATE claims SET value = ? WHERE key = ?"
        with sqlite3.connect(self._file) as connection:
            if is_new:
                write = "INSERT INTO claims VALUES (?2, ?1, 9000000000000000)"
            connection.execute(write, (value, self._row(name)))
        connection.close()

    def _row(self, name: str) -> str:
        return name if self._kind == CLAIMS else f"{self._kind}:{name}"


async def test_a_record_in_redis_without_its_checksum_is_damaged(redis_server: RedisServer) -> None:
    backend = RedisBackend(redis_server.url)
    await backend.open()
    redis_server.command("SET", f"gai:{K}:name", b"a\nb\n5")
    for call in (backend.get(K, "name"), backend.swap(K, "name", b"a\nb\n5", b"new", 60)):
        with pytest.raises(StoreError, match="damaged"):
            await call
    assert b"a\nb\n5" in redis_server.command("GET", f"gai:{K}:name")
    await backend.close()


# ---- claims of former releases ---------------------------------------------------------------------------------------


async def test_a_claim_of_a_former_release_is_read_swapped_and_freed(redis_server: RedisServer) -> None:
    """Its claims in Redis have no checksum, and stand for a day."""
    backend = RedisBackend(redis_server.url)
    await backend.open()
    claim = Claim("s", "body", 5)
    for _ in range(2):
        redis_server.command("SET", "gai:claim:key", claim_text(claim))
        assert await taken(backend, "key") == claim
        assert await take(backend, "key", Claim("t", "body")) == claim
        assert not await free(backend, "key", Claim("t", "body"))
        assert await free(backend, "key", claim)
    assert await take(backend, "key", Claim("t", "body")) is None
    await backend.close()
