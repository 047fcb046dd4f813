"""Ids of what upstreams store, by caller: one suite for the memory, the file and the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gai_fast.model.errors import Overloaded
from gai_fast.stores.backend import IDS, Backend, Records, StoreError
from gai_fast.stores.health import Health
from gai_fast.stores.owned_ids import OwnedIds
from gai_fast.stores.records import MemoryRecords
from gai_fast.stores.redis import RedisBackend
from gai_fast.stores.sqlite import SQLiteBackend
from tests.integration.gateway import Net
from tests.integration.processes import serving
from tests.integration.stores.conftest import MakeServer
from tests.integration.stores.servers import RedisServer
from tests.integration.test_stored_ids import ALICE, ASK, BOB, PATH, Asked, write_configuration
from tests.limits import LIMITS
from tests.waiting import until_answered


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Records, Records]]:
    """Yields one store as two processes have it."""
    if request.param == "memory":
        memory = MemoryRecords(time.monotonic)
        yield memory, memory
        return
    made: list[Backend] = []
    for _ in range(2):
        if request.param == "sqlite":
            made.append(SQLiteBackend(tmp_path / "store.db"))
        else:
            server: RedisServer = request.getfixturevalue("redis_server")
            made.append(RedisBackend(server.url))
        await made[-1].open()
    yield made[0], made[1]
    for each in made:
        await each.close()


def of(records: Records) -> OwnedIds:
    return OwnedIds(records, Health(time.monotonic))


async def test_an_id_is_its_callers_in_every_process_and_no_others(stores: tuple[Records, Records]) -> None:
    here, there = map(of, stores)
    await here.add("alice", ["resp_1", "msg_1"])
    await there.add("bob", ["resp_2"])
    for each in (here, there):
        assert await each.missing("alice", ["msg_1", "resp_1"]) is None
        assert await each.missing("alice", ["msg_1", "resp_2"]) == "resp_2"
        assert await each.missing("bob", ["resp_2"]) is None
        assert await each.missing("bob", ["resp_1"]) == "resp_1"
        assert await each.missing("stranger", []) is None


async def test_no_id_is_lost_when_processes_record_at_the_same_time(
    stores: tuple[Records, Records], change_limits: Callable[..., None]
) -> None:
    both = [*map(of, stores)]
    ids = [f"msg_{number}" for number in range(60)]
    await asyncio.gather(*[both[number % 2].add("alice", [each, "resp_1"]) for number, each in enumerate(ids)])
    for each in both:
        await each.add_waiting()
        assert await each.missing("alice", ["resp_1", *ids]) is None


async def test_a_caller_has_a_bounded_number_of_ids_and_its_oldest_are_dropped(
    stores: tuple[Records, Records], change_limits: Callable[..., None]
) -> None:
    assert LIMITS.id_buckets * LIMITS.bucket_ids <= 100_000
    change_limits(bucket_ids=3)
    ids = of(stores[0])
    many = [f"msg_{number}" for number in range(2000)]  # of 256 records each has four and more, with few exceptions
    for at in range(0, len(many), 100):
        await ids.add("alice", many[at : at + 100])
    await ids.add("bob", ["mine"])
    kept = [each for each in many if await ids.missing("alice", [each]) is None]
    assert len(kept) <= 3 * LIMITS.id_buckets
    assert kept[-1] == many[-1]
    assert set(many[-100:]) <= set(kept)
    assert not set(many[:100]) <= set(kept)
    assert await ids.missing("bob", ["mine"]) is None, "another caller's ids do not take its place"


class Failing(MemoryRecords):
    """Records in memory that fail for a while."""

    def __init__(self) -> None:
        super().__init__(time.monotonic)
        self.fails: StoreError | None = StoreError("unreachable", "no answer")

    async def get(self, kind: str, name: str) -> bytes | None:
        if self.fails is not None:
            raise self.fails
        return await super().get(kind, name)


async def test_ids_that_a_failing_store_did_not_take_are_recorded_once_it_answers() -> None:
    records = Failing()
    clock = [0.0]
    health = Health(lambda: clock[0])
    ids = OwnedIds(records, health)
    await ids.record("alice", ["resp_1"])
    with pytest.raises(Overloaded) as refused:
        await ids.missing("alice", ["resp_1"])
    assert refused.value.reason == "store"
    with pytest.raises(StoreError):
        await ids.add_waiting()
    records.fails = None
    await ids.add_waiting()
    health.worked()
    assert await ids.missing("alice", ["resp_1"]) is None


async def test_a_damaged_record_costs_its_own_ids_only() -> None:
    records = Failing()
    ids = OwnedIds(records, Health(time.monotonic))
    records.fails = StoreError("damaged", "a record of the store is damaged")
    assert await ids.missing("alice", ["resp_1"]) == "resp_1"
    records.fails = None
    await ids.add("alice", ["resp_1"])
    assert await ids.missing("alice", ["resp_1"]) is None


async def test_ids_without_room_are_named_in_the_log_and_fail_no_stream(
    change_limits: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    change_limits(records=1)
    ids = of(MemoryRecords(time.monotonic))
    await ids.add("alice", [f"msg_{number}" for number in range(20)])
    assert sum("no room for the ids" in each.getMessage() for each in caplog.records) <= 1
    assert IDS == "ids"


async def test_a_store_out_of_reach_refuses_requests_that_name_ids_and_no_others(
    net: Net, tmp_path: Path, make_server: MakeServer
) -> None:
    redis = make_server()
    write_configuration(tmp_path, (await net.upstream(Asked())).url, f'[store]\nurl = "{redis.url}"\n')
    async with serving(net, tmp_path, "--workers", "2") as server:
        named = {**ASK, "previous_response_id": "resp_theirs"}

        async def status(key: str, body: dict[str, Any]) -> int:
            return (await server.ask("POST", PATH, body, headers={"x-api-key": key})).status

        redis.kill()
        assert await status(ALICE, ASK) == 200
        assert await status(ALICE, named) == 503
        redis.start()

        async def is_known() -> bool:
            return [await status(ALICE, named) for _ in range(2)] == [200, 200]

        await until_answered(is_known)
        assert await status(BOB, named) == 400


async def test_ids_of_one_caller_that_wait_take_no_room_from_those_of_another(
    change_limits: Callable[..., None],
) -> None:
    change_limits(waiting_ids=64)
    records = Failing()
    health = Health(time.monotonic)
    ids = OwnedIds(records, health)
    await ids.add("other", ["resp_1"])
    for number in range(20):
        await ids.add("hostile", [f"msg_{number}_{at}" for at in range(20)])
    records.fails = None
    await ids.add_waiting()
    health.worked()
    assert await ids.missing("other", ["resp_1"]) is None
    assert await ids.missing("hostile", ["msg_19_19"]) is None
    assert await ids.missing("hostile", ["msg_0_0"]) == "msg_0_0"


async def test_ids_that_are_dropped_while_others_are_recorded_end_nothing(change_limits: Callable[..., None]) -> None:
    """The next caller was looked for among none, a RuntimeError: what else was to be recorded was not."""
    change_limits(waiting_ids=64)

    class FailingAgain(Failing):
        late: tuple[str, ...] = ("late_1", "late_2")

        async def swap(self, *arguments: Any) -> bytes | None:
            late, self.late = self.late, ()
            self.fails = StoreError("unreachable", "no answer")
            for each in late:  # one too many wait, and a sixteenth is dropped
                await ids.add("alice", [each])
            self.fails = None
            return await super().swap(*arguments)

    records = FailingAgain()
    health = Health(time.monotonic)
    ids = OwnedIds(records, health)
    for number in range(64):
        await ids.add("alice", [f"resp_{number}"])
    records.fails = None
    await ids.add_waiting()
    health.worked()
    assert await ids.missing("alice", ["late_1", "late_2"]) is None
