"""Records of runs, calls and approvals: one suite for the memory, the file, the server and a sealed file.

Two workers have one store: whoever has lost the run is refused before its call is made, and a worker that is killed at
any write leaves what another can go on from.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gai_fast.formats.responses.tools import text_of
from gai_fast.model.errors import Error
from gai_fast.model.settings import (
    ANONYMOUS,
    IdempotencySettings,
    ModelSettings,
    RunSettings,
    Secret,
    Settings,
    UpstreamSettings,
)
from gai_fast.net.runs.approvals.deferred import LeftCall, read_left
from gai_fast.net.runs.records.records import (
    APPROVALS,
    CALLS,
    RUNS,
    ApprovalDecision,
    AskedApproval,
    KeptRun,
    LostRun,
    OwnedRun,
    RunRecords,
    kept_for,
)
from gai_fast.stores.backend import Backend, Records, StoreError
from gai_fast.stores.records import MemoryRecords
from gai_fast.stores.redis import RedisBackend
from gai_fast.stores.sealed import SealedBackend
from gai_fast.stores.seals import Seals
from gai_fast.stores.sqlite import SQLiteBackend
from tests.conftest import ChangeLimits
from tests.integration.stores.sealing import content_of, forms_of, sealed_with
from tests.integration.stores.servers import RedisServer

STREAM = "gai_1"
NOW = 1_000_000
LATER = NOW + 60_000
LARGE = bytes(range(256)) * 700
"""Four pieces, the last one shorter."""


@pytest.fixture(params=["memory", "sqlite", "redis", "sealed"])
async def both(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Records, Records]]:
    """Yields one store as two processes have it."""
    if request.param == "memory":
        memory = MemoryRecords(time.monotonic)
        yield memory, memory
        return
    made: list[Backend] = []
    for _ in range(2):
        inner: Backend
        if request.param == "redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            inner = RedisBackend(server.url)
        else:
            inner = SQLiteBackend(tmp_path / "store.db")
        made.append(SealedBackend(inner, Seals(sealed_with(0))) if request.param == "sealed" else inner)
        await made[-1].open()
    yield made[0], made[1]
    for each in made:
        await each.close()


def of(records: Records, now_ms: int = NOW) -> RunRecords:
    return RunRecords(records, 60.0, lambda: now_ms)


async def taken(records: Records, epoch: int = 2) -> tuple[OwnedRun, KeptRun]:
    found = await of(records).take_over(STREAM, "alice", epoch)
    assert found is not None
    return found


def asked(
    number: int, stream: str = STREAM, expires: int = LATER, call: bytes = b"{}", caller: str = "alice"
) -> AskedApproval:
    return AskedApproval(f"{stream}-{number}", stream, caller, f"digest {number}", expires, call)


# ---- runs ------------------------------------------------------------------------------------------------------------


async def test_another_worker_has_the_last_state_what_was_added_and_the_calls_that_have_begun(
    both: tuple[Records, Records],
) -> None:
    here, there = both
    run = await of(here).begin(STREAM, "alice", 1)
    await run.save(b"first", LARGE)
    await run.started("key a", 1)
    await run.ended("key a", LARGE)
    await run.save(LARGE[1:], b"second")
    await run.save(b"")
    await run.started("key b", 1)
    await run.started("key c", 2)
    _, kept = await taken(there)
    assert kept == KeptRun(b"", [LARGE, b"second"], {"key b": 1, "key c": 2})


@pytest.mark.parametrize("how", ["end", "close"])
async def test_results_go_with_the_end_of_the_run_also_those_of_a_former_owner(
    both: tuple[Records, Records], how: str
) -> None:
    run = await of(both[0]).begin(STREAM, "alice", 1)
    await run.save(b"state", open_calls=["late", "later"])
    await run.ended("late", LARGE)
    other, _ = await taken(both[1])
    assert await other.result("late") == LARGE
    await other.save(b"of the new owner", open_calls=["late", "later", "own"])
    await other.ended("own", LARGE)
    await run.ended("later", LARGE)
    await (other.end() if how == "end" else other.close())
    assert await calls_kept(both[0], "late", "later", "own") == []


async def calls_kept(records: Records, *keys: str) -> list[str]:
    return [key for key in keys if await records.get(CALLS, f"{STREAM}/{key}") is not None]


async def test_a_result_goes_with_the_state_that_has_it(both: tuple[Records, Records]) -> None:
    run = await of(both[0]).begin(STREAM, "alice", 1)
    await run.ended("of a turn that streams", LARGE)
    await run.save(b"first", open_calls=["one", "other"])
    await run.ended("one", LARGE)
    await run.ended("other", LARGE)
    await run.save(b"second", open_calls=["other"])
    assert await calls_kept(both[1], "of a turn that streams", "one", "other") == ["other"]
    await run.save(b"third")
    assert await calls_kept(both[1], "other") == []


async def test_a_result_of_no_noted_call_goes_with_a_run_that_another_worker_closes(
    both: tuple[Records, Records],
) -> None:
    run = await of(both[0]).begin(STREAM, "alice", 1)
    await run.save(b"state", open_calls=["idempotent"])
    await run.ended("idempotent", LARGE)
    await of(both[1]).withdraw(STREAM, "alice", 2)
    assert await calls_kept(both[0], "idempotent") == []


async def test_a_result_that_is_written_while_its_state_passes_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = MemoryRecords(time.monotonic)
    run = await of(records).begin(STREAM, "alice", 1)
    await run.save(b"state", open_calls=["key"])
    put = records.put

    async def late(*arguments: Any) -> None:
        monkeypatch.setattr(records, "put", put)
        await run.save(b"without it")
        await put(*arguments)

    monkeypatch.setattr(records, "put", late)  # the run has had its time
    await run.ended("key", LARGE)
    await run.end()
    assert len(records._table) == 0


async def test_nothing_of_a_run_is_left_behind_its_end() -> None:
    records = MemoryRecords(time.monotonic)
    run = await of(records).begin(STREAM, "alice", 1)
    for number in range(5):
        await run.save(LARGE, LARGE, [f"key {number}"])
        await run.ended(f"key {number}", LARGE)
    await run.end()
    assert len(records._table) == 0


async def test_a_call_that_ends_amid_a_save_is_found_either_way(both: tuple[Records, Records]) -> None:
    run = await of(both[0]).begin(STREAM, "alice", 1)
    await run.started("key", 1)
    await asyncio.gather(run.save(b"state", open_calls=["key"]), run.ended("key", b"result"))
    other, kept = await taken(both[1])
    assert (kept.begun, await other.result("key"), await other.result("other")) == ({"key": 1}, b"result", None)


async def test_who_has_lost_the_run_changes_nothing_and_begins_no_call(both: tuple[Records, Records]) -> None:
    run = await of(both[0]).begin(STREAM, "alice", 1)
    await run.save(b"state", b"added", ["key"])
    other, _ = await taken(both[1])
    for change in (run.save(b"of the former owner", b"more"), run.started("key", 1)):
        with pytest.raises(LostRun):
            await change
    await run.end()
    await run.ended("key", b"made before")  # the call was made, whoever has the run
    assert await other.result("key") == b"made before"
    await other.save(b"of the new owner")
    for epoch in (1, 2):
        with pytest.raises(LostRun):
            await of(both[0]).take_over(STREAM, "alice", epoch)
    _, kept = await taken(both[0], 3)
    assert kept == KeptRun(b"of the new owner", [b"added"], {})


async def test_of_two_that_take_a_run_over_at_once_one_has_it(both: tuple[Records, Records]) -> None:
    run = await of(both[0]).begin(STREAM, "alice", 1)
    await run.save(b"state")
    found = await asyncio.gather(*[taken(records) for records in both * 4], return_exceptions=True)
    assert [type(each) for each in found].count(LostRun) == len(found) - 1


async def test_a_run_that_has_ended_or_never_began_is_none(both: tuple[Records, Records]) -> None:
    assert await of(both[0]).take_over(STREAM, "alice", 2) is None
    run = await of(both[0]).begin(STREAM, "alice", 1)
    assert await of(both[1]).take_over(STREAM, "alice", 2) is None  # nothing was kept yet
    with pytest.raises(LostRun):
        await of(both[1]).begin(STREAM, "alice", 1)
    await run.save(LARGE, LARGE)
    await run.end()
    assert await of(both[1]).take_over(STREAM, "alice", 2) is None


async def test_a_run_beyond_its_bound_is_not_kept_but_its_calls_are_made(
    both: tuple[Records, Records], change_limits: ChangeLimits
) -> None:
    change_limits(run=len(LARGE) + 10)
    run = await of(both[0]).begin(STREAM, "alice", 1)
    await run.save(b"state", LARGE)
    await run.save(b"state", b"0123456789")
    await run.started("key", 1)
    assert await of(both[1]).take_over(STREAM, "alice", 2) is None
    await run.save(b"")
    assert await of(both[1]).take_over(STREAM, "alice", 2) is None


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_run_that_is_too_large_leaves_no_result_whoever_closes_it(
    both: tuple[Records, Records], change_limits: ChangeLimits, is_written: bool
) -> None:
    change_limits(run=len(LARGE) + 10)
    run = await of(both[0]).begin(STREAM, "alice", 1)
    await run.save(b"state", LARGE, ["early", "late"])
    await run.started("early", 1)
    await run.ended("early", LARGE)
    if is_written:
        await run.save(b"state", b"0123456789", ["early", "late"])
        await run.ended("late", LARGE)
    await of(both[1]).withdraw(STREAM, "alice", 2)
    assert [await both[0].get(CALLS, f"{STREAM}/{key}") for key in ("early", "late")] == [None, None]


class Counted:
    """A store with room for some bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.parts: dict[str, int] = {}

    @property
    def size(self) -> int:
        return sum(self.parts.values())

    def __call__(self, stream_id: str, size: int, *, is_there: bool = False, part: str = "") -> bool:
        all_of_them = self.size + size - self.parts.get(part, 0)
        has_room = is_there or all_of_them <= max(self.size, self.most)
        if has_room:
            self.parts[part] = size
        return has_room


async def test_all_that_is_kept_of_a_run_counts(both: tuple[Records, Records]) -> None:
    room, other = Counted(1000), Counted(0)
    run = await RunRecords(both[0], 60.0, room=room).begin(STREAM, "alice", 1)
    await run.save(bytes(100), bytes(200))
    await run.save(bytes(50), bytes(300), ["key", "large"])
    assert room.size == 550
    await run.ended("key", bytes(400))
    assert room.size == 950
    with pytest.raises(Error, match="no room"):
        await run.ended("large", bytes(51))
    assert await both[1].get(CALLS, f"{STREAM}/large") is None
    found = await RunRecords(both[1], 60.0, room=other).take_over(STREAM, "alice", 2)
    assert found is not None
    assert other.size == 950, "also what nobody has read"
    await found[0].save(bytes(400))
    assert other.size == 900


async def test_a_run_without_room_is_not_kept_and_leaves_its_room_to_others(both: tuple[Records, Records]) -> None:
    room = Counted(1000)
    run = await RunRecords(both[0], 60.0, room=room).begin(STREAM, "alice", 1)
    await run.save(bytes(100), bytes(200), ["key"])
    await run.ended("key", bytes(400))
    await run.save(bytes(100), bytes(500), ["key"])
    assert (room.size, run.is_whole) == (0, False)
    assert await both[1].get(CALLS, f"{STREAM}/key") is None
    assert await of(both[1]).take_over(STREAM, "alice", 2) is None
    await run.started("next", 1)


class Killed(Exception):
    pass


class Mortal(MemoryRecords):
    """Records of a worker that is killed at one of its writes, before or after it is done."""

    def __init__(self, at: int, *, is_done: bool) -> None:
        super().__init__(time.monotonic)
        self.at = at
        self.is_done = is_done
        self.writes = 0

    async def put(self, *arguments: Any) -> None:
        await self._count(super().put, *arguments)

    async def swap(self, *arguments: Any, is_synced: bool = False) -> bytes | None:
        found: bytes | None = await self._count(super().swap, *arguments)
        return found

    async def delete(self, *arguments: Any) -> bool:
        return bool(await self._count(super().delete, *arguments))

    async def _count(self, write: Any, *arguments: Any) -> Any:
        self.writes += 1
        if self.writes == self.at and not self.is_done:
            raise Killed
        result = await write(*arguments)
        if self.writes == self.at:
            raise Killed
        return result


@pytest.mark.parametrize("is_done", [False, True])
async def test_a_worker_that_is_killed_at_any_write_leaves_the_former_state_or_the_new_one(is_done: bool) -> None:
    states = [(b"1" * 100_000, b"a" * 60_000), (b"2" * 50_000, b""), (b"3", b"b")]
    whole = [KeptRun(state, [each for _, each in states[: at + 1] if each], {}) for at, (state, _) in enumerate(states)]
    for at in range(1, 100):
        records = Mortal(at, is_done=is_done)
        done = -1
        try:
            run = await of(records).begin(STREAM, "alice", 1)
            for state in states:
                await run.save(*state)
                done += 1
        except Killed:
            found = await of(records).take_over(STREAM, "alice", 2)
            kept = None if found is None else found[1]
            assert kept in ([*whole, None][done], whole[min(done + 1, 2)])
        else:
            assert at > 10
            return
    raise AssertionError("the worker was killed each time")


@pytest.mark.parametrize("is_done", [False, True])
async def test_a_worker_that_is_killed_at_any_write_leaves_each_call_known_and_nothing_for_ever(is_done: bool) -> None:
    """Killed within a call, its approval, and the end of its run; another worker goes on, and ends the run."""
    for at in range(1, 100):
        records = Mortal(at, is_done=is_done)
        made = told = saved = ended = False
        try:
            here = of(records)
            run = await here.begin(STREAM, "alice", 1)
            await run.save(b"asks", b"", ["key"])
            await here.ask(asked(1, call=LARGE), 10)
            await here.decide(f"{STREAM}-1", ApprovalDecision("approve", "bob"))
            await run.started("key", 1)
            made = True
            await run.ended("key", LARGE)
            told = True
            await run.save(b"has the result", b"added")
            saved = True
            await run.end()
            ended = True
        except Killed:
            there = of(records)
            found = await there.take_over(STREAM, "alice", 2)
            if found is not None:
                other, kept = found
                result = await other.result("key")
                assert kept.state in ((b"has the result",) if saved else (b"asks", b"has the result"))
                if kept.state == b"asks":
                    assert not made or kept.begun == {"key": 1}, "it is not made again"
                    assert not told or result == LARGE
                    assert result in (None, LARGE)
                else:
                    assert kept.begun == {}
            await there.withdraw(STREAM, "alice", 3)
            assert await there.listed() == {}
        left = [
            (kind, name)
            for (kind, name), record in records._table._records.items()
            if "list" not in name and (kind, name) not in ((RUNS, STREAM), (APPROVALS, f"{STREAM}-1"))
        ]
        assert all(record.until < math.inf for record in records._table._records.values())
        assert len(left) <= 6, "the state or the result that was under way, until it expires"
        if ended:
            assert (left, at > 25) == ([], True)
            return
    raise AssertionError("the worker was killed each time")


@pytest.mark.parametrize("has_results", [False, True])
async def test_records_of_earlier_releases_are_read_and_removed(has_results: bool) -> None:
    records, encode, room = MemoryRecords(time.monotonic), msgspec.msgpack.encode, Counted(1000)
    head: list[Any] = [1, 3, 5, 1, [], {"begun": 1}]
    if has_results:  # of all calls of the run
        head.append(["early", "late"])
    await records.put(RUNS, STREAM, encode(head), 60.0)
    await records.put(RUNS, f"{STREAM}/s1.3/0", b"state", 60.0)
    for key in ("begun", "early", "late"):
        await records.put(CALLS, f"{STREAM}/{key}", encode(["writer", 6]), 60.0)
        await records.put(CALLS, f"{STREAM}/{key}/writer/0", b"result", 60.0)
    found = await RunRecords(records, 60.0, room=room).take_over(STREAM, "alice", 2)
    assert found is not None
    run, kept = found
    assert (kept, await run.result("late")) == (KeptRun(b"state", [], {"begun": 1}), b"result")
    assert room.size == 5 + 6 * (3 if has_results else 1)
    await run.save(b"other", b"", ["late", "begun"])
    assert await calls_kept(records, "begun", "late") == ["begun", "late"]
    assert not has_results or await calls_kept(records, "early") == []
    await run.save(b"last")
    assert await calls_kept(records, "begun", "late") == []


async def test_approvals_of_earlier_releases_are_read_and_decided() -> None:
    records, encode = MemoryRecords(time.monotonic), msgspec.msgpack.encode
    deny = ApprovalDecision("deny", "bob")
    for number, decision in ((1, None), (2, deny)):
        whole = [msgspec.structs.replace(asked(number), call=b""), 4, decision, False]
        await records.put(APPROVALS, f"{STREAM}-{number}", encode(whole), 60.0)
        await records.put(APPROVALS, f"{STREAM}-{number}/0", b"call", 60.0)
    assert await of(records).asked(f"{STREAM}-1") == (asked(1, call=b"call"), None)
    assert await of(records).asked(f"{STREAM}-2") == (asked(2, call=b"call"), deny)
    assert await of(records).decide(f"{STREAM}-1", deny) == deny
    assert await records.get(APPROVALS, f"{STREAM}-1/0") is None


def test_a_call_that_an_earlier_release_has_left_is_made_as_it_was_kept() -> None:
    call = b'{"address": "docs.find", "input": {"q": "x"}, "key": "k", "signature": "s"}'
    left = asked(1, call=call)
    shown = text_of({"q": "x"})
    assert read_left(left, shown) == LeftCall("docs.find", "k", {"q": "x"}, "s")
    assert read_left(left, '{"q":"y"}') is None


class Unanswering(MemoryRecords):
    """Records whose next swap is written and not answered."""

    is_unanswering = False

    async def swap(self, *arguments: Any, is_synced: bool = False) -> bytes | None:
        found = await super().swap(*arguments)
        if self.is_unanswering:
            raise StoreError("slow", "no answer")
        return found


async def test_a_change_without_an_answer_is_no_other_workers() -> None:
    records = Unanswering(time.monotonic)
    run = await of(records).begin(STREAM, "alice", 1)
    records.is_unanswering = True
    for change in (run.save(b"first"), run.started("key", 1)):
        with pytest.raises(StoreError):
            await change
    records.is_unanswering = False
    await run.save(b"second")
    assert (await taken(records))[1] == KeptRun(b"second", [], {})
    with pytest.raises(LostRun):
        await run.started("key", 1)


async def test_states_that_the_store_could_not_take_count_for_no_bound(change_limits: ChangeLimits) -> None:
    change_limits(run=2 * len(LARGE))
    records = Unanswering(time.monotonic)
    run = await of(records).begin(STREAM, "alice", 1)
    records.is_unanswering = True
    for _ in range(3):
        with pytest.raises(StoreError):
            await run.save(b"state", LARGE)
    records.is_unanswering = False
    await run.save(b"state", LARGE)
    assert (await taken(records))[1] == KeptRun(b"state", [LARGE], {})


class Changing(MemoryRecords):
    """Records that the former owner of a run changes as soon as another worker has read them.

    Attributes:
        change: Changes them, once.
    """

    change: Callable[[], Awaitable[object]] | None = None

    async def get(self, kind: str, name: str) -> bytes | None:
        found = await super().get(kind, name)
        if kind == RUNS and self.change is not None:
            change, self.change = self.change, None
            await change()
        return found


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_former_owner_that_lives_does_not_keep_its_run(is_kept: bool) -> None:
    records = Changing(time.monotonic)
    run = await of(records).begin(STREAM, "alice", 1)
    if is_kept:
        await run.save(b"state")
    records.change = partial(run.started, "key", 1)
    found = await of(records).go_on(STREAM, "alice", 2)
    assert found is not None
    assert found[1] == KeptRun(b"state" if is_kept else b"", () if not is_kept else [], {"key": 1})
    with pytest.raises(LostRun):
        await run.started("key", 2)


def test_records_are_kept_as_long_as_a_run_may_wait_in_each_turn() -> None:
    upstream = UpstreamSettings("up", "openai-compatible", "http://127.0.0.1:9/v1", Secret("sk-canary"))
    model = ModelSettings("m", upstream, "m", max_steps=3, run_timeout=20.0)
    settings = Settings(
        models={"m": model}, idempotency=IdempotencySettings(60.0), runs=RunSettings(approval_ttl=100.0)
    )
    assert kept_for(settings) == 420.0
    assert kept_for(replace(settings, idempotency=IdempotencySettings(1000.0))) == 1000.0
    assert kept_for(replace(settings, models={})) == 100.0


@pytest.mark.parametrize("kind", [RUNS, CALLS])
async def test_what_is_missing_is_damaged_and_never_shorter(kind: str) -> None:
    records = MemoryRecords(time.monotonic)
    run = await of(records).begin(STREAM, "alice", 1)
    await run.save(LARGE, LARGE, ["key"])
    await run.ended("key", LARGE)
    places = [name for each, name in records._table._records if each == kind and name.count("/") > (kind == CALLS)]
    assert len(places) == (8 if kind == RUNS else 4)
    for place in places:
        value = await records.get(kind, place)
        assert value is not None
        await records.delete(kind, place)
        with pytest.raises(StoreError, match="missing"):
            if kind == RUNS:
                head = await records.get(RUNS, STREAM)
                try:
                    await taken(records)
                finally:
                    await records.put(RUNS, STREAM, head or b"", 60.0)
            else:
                await run.result("key")
        await records.put(kind, place, value, 60.0)
    await taken(records)
    assert await run.result("key") == LARGE


@pytest.mark.parametrize("place", [(RUNS, STREAM), (CALLS, f"{STREAM}/key"), (APPROVALS, f"{STREAM}-1")])
async def test_a_record_that_is_none_is_damaged(place: tuple[str, str]) -> None:
    records = MemoryRecords(time.monotonic)
    run = await of(records).begin(STREAM, "alice", 1)
    await records.put(*place, b"\xc1", 60.0)
    with pytest.raises(StoreError, match="damaged"):
        if place[0] == RUNS:
            await of(records).take_over(STREAM, "", 2)
        elif place[0] == CALLS:
            await run.result("key")
        else:
            await of(records).asked(place[1])


async def test_a_call_that_begins_is_on_the_disk(tmp_path: Path) -> None:
    backend = SQLiteBackend(tmp_path / "store.db")
    await backend.open()
    run = await of(backend).begin(STREAM, "alice", 1)
    statements: list[str] = []

    def trace(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(statements.append)

    await backend._writer.call(trace)
    await run.save(b"state")
    statements.clear()
    await run.save(b"state")
    assert "PRAGMA synchronous=FULL" not in statements  # within a second
    await run.started("key", 1)
    assert statements[-1] == "PRAGMA synchronous=NORMAL"
    assert "COMMIT" in statements[statements.index("PRAGMA synchronous=FULL") :]
    await backend.close()


async def test_a_sealed_store_shows_nothing_of_a_run(tmp_path: Path) -> None:
    words = ["planted state", "planted addition", "planted result", "planted arguments"]
    for keys, is_open in ((Seals(sealed_with(0)), False), (None, True)):
        path = tmp_path / f"{is_open}.db"
        inner = SQLiteBackend(path)
        backend = inner if keys is None else SealedBackend(inner, keys)
        await backend.open()
        run = await of(backend).begin(STREAM, "alice", 1)
        await run.save(words[0].encode(), words[1].encode(), ["key"])
        await run.ended("key", words[2].encode())
        assert await of(backend).ask(asked(1, call=words[3].encode()), 10)
        content = content_of(f"sqlite:///{path}", None)
        await backend.close()
        for word in words:
            assert any(form in content for form in forms_of(word)) == is_open


# ---- approvals -------------------------------------------------------------------------------------------------------


async def test_an_approval_is_asked_for_listed_and_decided_once(both: tuple[Records, Records]) -> None:
    here, there = map(of, both)
    assert await here.ask(asked(1, call=LARGE), 10)
    assert await here.ask(asked(2), 10)
    assert await there.listed() == {"gai_1-1": LATER, "gai_1-2": LATER}
    assert [await there.listed_of(each) for each in ("gai_1", "gai_2")] == [["gai_1-1", "gai_1-2"], []]
    assert await there.asked("gai_1-1") == (asked(1, call=LARGE), None)
    deny = ApprovalDecision("deny", "bob", "too dear")
    assert await there.decide("gai_1-1", deny) == deny
    assert await here.decide("gai_1-1", ApprovalDecision("approve", "alice")) == deny
    assert await here.asked("gai_1-1") == (asked(1, call=b""), deny), "what has shown it is gone"
    assert [await both[0].get(APPROVALS, f"gai_1-1/{number}") for number in range(4)] == [None] * 4
    assert await here.listed() == {"gai_1-2": LATER}


async def test_an_approval_counts_until_its_decision_is_used(both: tuple[Records, Records]) -> None:
    room = Counted(100)
    here = RunRecords(both[0], 60.0, lambda: NOW, room)
    assert await here.ask(asked(1, call=bytes(60)), 10)
    with pytest.raises(Error, match="no room"):
        await here.ask(asked(2, call=bytes(41)), 10)
    assert await both[1].get(APPROVALS, "gai_1-2/0") is None
    assert await of(both[1]).decide("gai_1-1", ApprovalDecision("approve", "bob")) is not None
    here.passed(asked(1))
    assert room.size == 0
    assert not await here.ask(asked(1, "gai_2", call=bytes(60)), 0), "no run may wait"
    assert room.size == 0


async def test_an_approval_that_is_decided_while_it_is_read_is_no_damaged_one(
    both: tuple[Records, Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, deny = of(both[0]), ApprovalDecision("deny", "bob")
    assert await here.ask(asked(1, call=LARGE), 10)
    read = here._pieces.read

    async def late(*arguments: Any) -> bytes:
        monkeypatch.setattr(here._pieces, "read", read)
        await of(both[1]).decide("gai_1-1", deny)
        return await read(*arguments)

    monkeypatch.setattr(here._pieces, "read", late)
    assert await here.asked("gai_1-1") == (asked(1, call=b""), deny)


async def test_an_approval_that_is_left_is_in_no_list_and_decided_once(both: tuple[Records, Records]) -> None:
    here, there = map(of, both)
    await here.leave(asked(1, call=LARGE))
    assert await there.listed() == {}
    assert await there.asked("gai_1-1") is None, "no other route decides it"
    assert await there.left("gai_1-1") == (asked(1, call=LARGE), None)
    approve = ApprovalDecision("approve", "alice")
    assert await there.decide("gai_1-1", ApprovalDecision("deny")) is None, "nor does the end of its run"
    assert await there.decide("gai_1-1", approve, is_left=True) is approve
    await here.leave(asked(1, call=LARGE))  # by a worker that goes on with the run
    assert await here.left("gai_1-1") == (asked(1, call=LARGE), approve)
    await there.give_back("gai_1-1")
    assert await here.left("gai_1-1") == (asked(1, call=LARGE), None)
    await there.give_back("gai_1-9")
    assert await here.ask(asked(2), 10)
    assert await here.left("gai_1-2") is None


async def test_of_many_decisions_at_once_one_counts(both: tuple[Records, Records]) -> None:
    assert await of(both[0]).ask(asked(1), 10)
    decisions = [ApprovalDecision("deny", f"person {number}") for number in range(8)]
    found = await asyncio.gather(
        *[of(both[number % 2]).decide("gai_1-1", each) for number, each in enumerate(decisions)]
    )
    assert len({each.by for each in found if each is not None}) == 1
    assert [each is not None for each in found] == [True] * 8


@pytest.mark.parametrize("name", ["gai_1-9", "", "list/0", "gai_1-1/0", "gai_1-1/"])
async def test_what_is_no_approval_is_none(both: tuple[Records, Records], name: str) -> None:
    assert await of(both[0]).ask(asked(1), 10)
    assert await of(both[1]).asked(name) is None
    assert await of(both[1]).decide(name, ApprovalDecision("approve")) is None


async def test_runs_that_ask_at_once_are_no_more_than_may_wait(both: tuple[Records, Records]) -> None:
    here, there = map(of, both)
    asking = [(here, there)[number % 2].ask(asked(1, f"gai_{number}", caller=ANONYMOUS), 3) for number in range(8)]
    kept = await asyncio.gather(*asking)
    listed = await here.listed()
    assert len(listed) == kept.count(True) <= 3
    assert {*listed} == {f"gai_{number}-1" for number, is_kept in enumerate(kept) if is_kept}


async def test_so_many_runs_may_wait_on_all_machines(both: tuple[Records, Records]) -> None:
    here, there = map(of, both)
    for number in range(3):
        assert await (here, there)[number % 2].ask(asked(1, f"gai_{number}", caller=ANONYMOUS), 3)
    assert not await there.ask(asked(1, "gai_9"), 3)
    assert await there.asked("gai_9-1") is None
    assert await there.ask(asked(2, "gai_0", caller=ANONYMOUS), 3)  # a run that waits already
    await here.decide("gai_1-1", ApprovalDecision("approve"))
    assert await there.ask(asked(1, "gai_9"), 3)


async def test_the_runs_of_one_caller_leave_half_of_the_room_to_those_of_others(both: tuple[Records, Records]) -> None:
    here, there = map(of, both)
    kept = [await here.ask(asked(1, f"gai_{number}"), 6) for number in range(5)]
    assert kept == [True, True, True, False, False]
    assert await here.ask(asked(2, "gai_0"), 6)  # a run that waits already
    assert await there.ask(asked(1, "gai_9", caller="bob"), 6)
    assert {*await there.listed()} == {"gai_0-1", "gai_0-2", "gai_1-1", "gai_2-1", "gai_9-1"}
    assert await there.listed_of("gai_9") == ["gai_9-1"]
    await there.decide("gai_1-1", ApprovalDecision("approve"))
    assert await here.ask(asked(1, "gai_4"), 6)


async def test_what_has_expired_holds_no_place(both: tuple[Records, Records]) -> None:
    here = of(both[0])
    assert await here.ask(asked(1, "gai_0", expires=NOW + 1), 1)
    assert not await here.ask(asked(1, "gai_1"), 1)
    there = of(both[1], NOW + 1)
    assert await there.listed() == {}
    assert await there.ask(asked(1, "gai_1"), 1)


async def test_a_decision_is_about_one_call(both: tuple[Records, Records]) -> None:
    """A turn that is asked again gives the id of its approval to another call."""
    here, there = map(of, both)
    assert await here.ask(asked(1), 10)
    assert await there.ask(msgspec.structs.replace(asked(1), digest="of another call"), 10)
    approve = ApprovalDecision("approve", "alice")
    assert await here.decide("gai_1-1", approve, "digest 1") is None
    assert await there.asked("gai_1-1") == (msgspec.structs.replace(asked(1), digest="of another call"), None)
    assert await here.decide("gai_1-1", approve, "of another call") is approve


async def test_a_process_lists_as_many_approvals_at_once_as_it_is_asked_for(both: tuple[Records, Records]) -> None:
    here = of(both[0])
    await asyncio.gather(*[here.ask(asked(number), 10) for number in range(100)])
    assert len(await here.listed()) == 100


async def test_no_approval_is_lost_when_many_are_listed_at_once(both: tuple[Records, Records]) -> None:
    stores = [of(both[number % 2]) for number in range(24)]
    await asyncio.gather(*[each.ask(asked(number), 10) for number, each in enumerate(stores)])
    assert len(await stores[0].listed()) == 24


async def test_a_damaged_list_is_written_anew(caplog: pytest.LogCaptureFixture) -> None:
    records = MemoryRecords(time.monotonic)
    assert await of(records).ask(asked(1), 10)
    [place] = [name for _, name in records._table._records if name.startswith("list/")]
    await records.put(APPROVALS, place, b"\xc1", 60.0)
    assert await of(records).ask(asked(2), 10)
    assert [*await of(records).listed()] == ["gai_1-2"]
    assert await of(records).decide("gai_1-1", ApprovalDecision("approve")) is not None
    assert "a list of approvals in the store is damaged" in caplog.text


async def test_a_full_list_refuses(both: tuple[Records, Records], change_limits: ChangeLimits) -> None:
    change_limits(record_piece=72)
    for number in range(4):
        assert await of(both[0]).ask(asked(number), 10) == (number < 3)
    assert sorted(await of(both[0]).listed()) == ["gai_1-0", "gai_1-1", "gai_1-2"]
    assert await of(both[1]).asked("gai_1-3") is None
