"""`gai_fast/stores/store.py`: logs and keys, with and without a store outside the process; two processes over one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import StoreSettings
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import Claim, Ending, LogHeader, Store, StoreError
from tests.conftest import ChangeLimits
from tests.unit.net.fakes import FakeTime
from tests.unit.stores.fake_backend import FakeBackend, World
from tests.unit.stores.test_journal import fill
from tests.waiting import until

FINISHED = Ending("finished", "stop")
MINE, THEIRS = Claim("s", "body"), Claim("t", "body")
Make = Callable[..., Store]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def make(world: World, timers: TimerWheel, change_limits: ChangeLimits) -> AsyncIterator[Make]:
    change_limits(journal_interval=0.001, lease_renewal=0.01, store_retry_first=0.001, store_sweep_interval=0.02)
    made: list[Store] = []

    def make(*, is_shared: bool = True) -> Store:
        made.append(Store(StoreSettings(), timers, FakeBackend(world) if is_shared else None, claim_ttl=60))
        return made[-1]

    yield make
    world.mend()
    world.gate.set()
    for store in made:
        await store.close()


def header(stream_id: str = "s") -> LogHeader:
    return LogHeader(stream_id, "caller", "m", "gai", "sse")


# ---- in memory -------------------------------------------------------------------------------------------------------


async def test_a_store_in_memory_finds_what_it_made_until_it_is_closed(make: Make) -> None:
    store = make(is_shared=False)
    await store.open()
    log = store.create(header())
    assert store.find_here("s") is log
    assert await store.find("s") is log
    assert await store.find("t") is None
    assert (store.is_degraded, store.durability) == (False, "memory")
    await store.close()
    assert store.find_here("s") is None


@pytest.mark.parametrize(("is_ours", "looks"), [(None, 3), (False, 2)], ids=["another machine's", "this server's"])
async def test_a_stream_of_another_machine_is_unknown_once_that_would_be_late(
    make: Make,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    change_limits: ChangeLimits,
    is_ours: bool | None,
    looks: int,
) -> None:
    """The machine may have begun it, and lost the store at the same moment."""

    async def is_gone(worker: str) -> bool | None:
        return is_ours

    monkeypatch.setattr(FakeBackend, "spans_machines", True)
    here = make()
    await here.open()
    here.know_workers(is_gone)
    change_limits(lease_late=0.01)
    assert await here.find("s") is None
    assert world.loads == looks


async def test_a_stream_that_has_just_begun_elsewhere_is_waited_for(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gai_fast.stores.store._SECOND_LOOK", (0.01,) * 3000)
    here, there = make(), make()
    await here.open()
    await there.open()
    looked = asyncio.ensure_future(there.find("s"))
    await until(lambda: world.loads > 1)
    fill(here.create(header()), 1, 1)
    assert await looked is not None
    monkeypatch.setattr("gai_fast.stores.store._WAITS", (0.01, 0.0))
    with pytest.raises(Error) as caught:
        await there.find("t", is_running=True)
    assert (caught.value.code, caught.value.reason) == ("overloaded", "store")


async def test_a_key_in_memory_is_taken_once_and_freed_by_its_stream(make: Make, time: FakeTime) -> None:
    store = make(is_shared=False)
    assert await store.claim("key", MINE) is None
    assert await store.claim("key", THEIRS) == MINE
    await store.release("key", "t")
    assert await store.claim("key", THEIRS) == MINE
    await store.release("key", "s")
    assert await store.claim("key", THEIRS) is None
    time.advance(61)
    assert await store.claim("key", MINE) is None


# ---- two processes ---------------------------------------------------------------------------------------------------


async def test_another_process_follows_a_stream(make: Make) -> None:
    here, there = make(), make()
    await here.open()
    await there.open()
    log = here.create(header())
    said = fill(log, 1, 10)
    await until(lambda: "s" in there_copies(here))
    mirror = await there.find("s")
    assert mirror is not None
    assert mirror.header == log.header
    await until(lambda: mirror.last_seq == 10)
    log.end(FINISHED)
    await until(lambda: mirror.ending == FINISHED)
    assert b"".join(mirror.read(0, 10**9).pieces) == said
    assert there.find_here("s") is mirror
    assert (here.durability, there.durability) == ("durable", "durable")


def there_copies(store: Store) -> object:
    assert isinstance(store._backend, FakeBackend)
    return store._backend.world.copies


async def test_a_key_is_taken_once_over_all_processes(make: Make, world: World) -> None:
    here, there = make(), make()
    await here.open()
    await there.open()
    assert await here.claim("key", MINE) is None
    here.create(header())
    assert await there.claim("key", THEIRS) == MINE
    await there.release("key", "t")
    assert await there.claim("key", THEIRS) == MINE
    await here.release("key", "s")
    assert await there.claim("key", THEIRS) is None
    assert "key" not in "".join(world.claims), "a caller's words are not stored"


async def test_who_finds_a_key_taken_finds_its_stream_too(make: Make, world: World) -> None:
    here, there = make(), make()
    await here.open()
    await there.open()
    await here.claim("key", MINE)
    claiming = asyncio.ensure_future(there.claim("key", THEIRS))
    await asyncio.sleep(0.01)
    assert not claiming.done()
    here.create(header())
    assert await claiming == MINE
    assert await there.find("s") is not None


async def test_a_key_that_is_freed_meanwhile_is_had(make: Make) -> None:
    here, there = make(), make()
    await here.open()
    await there.open()
    await here.claim("key", MINE)
    claiming = asyncio.ensure_future(there.claim("key", THEIRS))
    await asyncio.sleep(0.01)
    await here.release("key", "s")
    assert await claiming is None


async def test_of_a_worker_that_began_nothing_the_claim_stands(make: Make) -> None:
    here, there = make(), make()
    await here.open()
    await there.open()
    await here.claim("key", MINE)
    later = THEIRS._replace(at_ms=MINE.at_ms + 10_000)
    assert await there.claim("key", later) == MINE, "it is not waited for"
    assert await there.find("s") is None


async def test_a_key_is_given_back_where_its_client_left(make: Make, world: World) -> None:
    store = make()
    await store.open()
    world.gate.clear()
    claiming = asyncio.ensure_future(store.claim("key", MINE))
    await asyncio.sleep(0.005)
    claiming.cancel()
    await asyncio.sleep(0.005)
    assert claiming.cancelled()
    world.gate.set()
    await until(lambda: not world.claims and not store._abandoned)
    assert await store.claim("key", THEIRS) is None


async def test_a_process_has_its_lease_until_it_stops(make: Make, world: World) -> None:
    store = make()
    await store.open()
    assert world.leases == {store.worker}
    world.leases.clear()
    await until(lambda: world.leases)
    await store.close()
    assert world.leases == set()


async def test_what_is_past_its_time_is_removed_step_by_step(make: Make) -> None:
    store = make()
    await store.open()
    backend = store._backend
    assert isinstance(backend, FakeBackend)
    await until(lambda: backend.sweeps >= 3)


# ---- a store that fails ----------------------------------------------------------------------------------------------


async def test_a_store_that_cannot_be_used_does_not_open(make: Make, world: World) -> None:
    store = make()
    world.fail("refused")
    with pytest.raises(StoreError, match="the store is gone"):
        await store.open()
    await store.close()


async def test_streams_go_on_while_the_store_fails_and_what_needs_it_is_refused(make: Make, world: World) -> None:
    store = make()
    await store.open()
    world.fail()
    log = store.create(header())
    said = fill(log, 1, 10)
    await until(lambda: store.is_degraded)
    assert store.durability == "degraded"
    assert await store.find("s") is log
    for call in (store.find("t"), store.claim("key", MINE), store.claim("key", MINE)):
        with pytest.raises(Error) as refused:
            await call
        assert (refused.value.code, refused.value.reason) == ("overloaded", "store")
    await store.release("key", "s")  # nobody waits for it
    world.mend()
    await until(lambda: not store.is_degraded)
    assert await store.claim("key", MINE) is None
    log.end(FINISHED)
    await until(lambda: world.copies["s"].ending == FINISHED)
    assert b"".join(record.piece for record in world.copies["s"].records) == said


async def test_a_key_that_could_not_be_freed_is_free_once_the_store_is_back(make: Make, world: World) -> None:
    store = make()
    await store.open()
    assert await store.claim("key", MINE) is None
    world.fail()
    await store.release("key", "s")
    world.mend()
    await until(lambda: not world.claims)
    assert not store._unfreed
    await until(lambda: store._budget._count == 0)


async def test_a_damaged_key_that_is_to_be_freed_says_nothing_about_the_store(
    make: Make, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    store = make()
    await store.open()
    assert await store.claim("key", MINE) is None
    world.claims = dict.fromkeys(world.claims, b"damaged")
    await store.release("key", "s")
    assert (store.is_degraded, store.durability) == (False, "durable")
    assert not store._unfreed
    assert "an idempotency key cannot be read" in caplog.text


async def test_a_key_is_freed_although_its_request_was_sent_again_meanwhile(make: Make, world: World) -> None:
    """The key of the second request took the place of the first one's, which kept it: 409 to every further one."""
    store = make()
    await store.open()
    assert await store.claim("key", MINE) is None
    world.fail("full")
    await store.release("key", "s")
    with pytest.raises(Error, match="out of reach"):
        await store.claim("key", THEIRS)
    world.mend()
    await until(lambda: not world.claims)
    assert not store._unfreed


async def test_a_claim_whose_answer_was_lost_takes_no_key(make: Make, world: World) -> None:
    store = make()
    await store.open()
    backend = store._backend
    assert isinstance(backend, FakeBackend)
    swap = backend.swap

    async def swap_and_fail(*call: Any) -> bytes | None:
        await swap(*call)
        raise StoreError("unreachable", "it does not answer")

    backend.swap = swap_and_fail
    with pytest.raises(Error):
        await store.claim("key", MINE)
    del backend.swap
    await until(lambda: not world.claims)


async def test_keys_that_cannot_be_freed_are_kept_in_mind_within_a_bound(
    make: Make, world: World, change_limits: ChangeLimits
) -> None:
    change_limits(claims=3)
    store = make()
    await store.open()
    world.fail()
    for number in range(5):
        await store.release(f"{number}", "s")
    assert len(store._unfreed) == 3


async def test_keys_of_one_caller_that_cannot_be_freed_take_no_room_from_those_of_another(
    make: Make, world: World, change_limits: ChangeLimits
) -> None:
    change_limits(claims=40)
    store = make()
    await store.open()
    world.fail()
    await store.release("mine", "s", "other")
    for number in range(200):
        await store.release(f"{number}", "s", "hostile")
    callers = [caller for caller, _ in store._unfreed.values()]
    assert callers.count("other") == 1
    assert 36 <= len(callers) <= 40


async def test_the_lease_does_not_wait_until_all_keys_are_freed(make: Make, world: World, time: FakeTime) -> None:
    """Some ten thousand of them took longer than a lease has: the worker counted as gone, and its streams as lost."""
    store = make()
    await store.open()
    backend = store._backend
    assert isinstance(backend, FakeBackend)
    calls: list[str] = []
    renew = backend.renew

    async def noted(worker: str, *, is_behind: bool) -> bool:
        calls.append("renew")
        return await renew(worker, is_behind=is_behind)

    async def slow(kind: str, name: str) -> bytes | None:
        calls.append("release")
        time.advance(1.0)
        return None

    backend.renew = noted
    backend.get = slow
    for number in range(3):
        store._note_unfreed(f"{number}", "s", "anna")
    await until(lambda: calls.count("release") == 3)
    assert calls.count("renew") >= 3


async def test_a_damaged_key_keeps_no_other_one_taken_and_degrades_nothing(make: Make, world: World) -> None:
    """Another program's value under a key of ours was tried again for ever, and each time the store had failed."""
    store = make()
    await store.open()
    assert await store.claim("key", MINE) is None
    backend = store._backend
    assert isinstance(backend, FakeBackend)
    get = backend.get

    async def damaged(kind: str, name: str) -> bytes | None:
        if name == "foreign":
            raise StoreError("damaged", "another kind of value")
        return await get(kind, name)

    backend.get = damaged
    store._note_unfreed("foreign", "s", "anna")
    store._note_unfreed(next(iter(world.claims)), "s", "anna")
    await until(lambda: not world.claims)
    assert not store._unfreed
    assert not store.is_degraded


async def test_a_damaged_key_is_an_error_of_its_requests_alone(make: Make, world: World) -> None:
    """It was `overloaded`, which is asked again and again, and the store counted as failing."""
    store = make()
    await store.open()
    assert await store.claim("key", MINE) is None
    (digest,) = world.claims
    world.claims[digest] = b"s\nbody"
    for call in (store.claim("key", THEIRS), store.find_claim("key")):
        with pytest.raises(Error) as raised:
            await call
        assert (raised.value.code, raised.value.reason) == ("internal", "log_damaged")
    assert not store.is_degraded
    assert world.claims == {digest: b"s\nbody"}, "no other stream takes it"
    assert await store.claim("another key", THEIRS) is None


async def test_a_key_is_abandoned_without_waiting(make: Make, world: World) -> None:
    for is_shared in (False, True):
        store = make(is_shared=is_shared)
        await store.open()
        assert await store.claim("key", MINE) is None
        store.abandon("key", "t")
        store.abandon("key", "s")
        await until(lambda each=store: not each._abandoned)
        assert store._budget._count == 0
        assert await store.claim("key", THEIRS) is None


async def test_a_new_time_to_live_holds_for_keys_that_are_taken_from_then_on(make: Make, time: FakeTime) -> None:
    store = make(is_shared=False)
    await store.claim("old", MINE)
    store.use(10)
    await store.claim("new", MINE)
    time.advance(11)
    assert await store.claim("old", THEIRS) == MINE
    assert await store.claim("new", THEIRS) is None


async def test_a_failed_claim_leaves_room_for_another(make: Make, world: World) -> None:
    store = make()
    await store.open()
    world.fail("full")
    for _ in range(3):
        with pytest.raises(Error):
            await store.claim("key", MINE)
    assert store._budget._count == 0


async def test_a_store_that_can_be_read_but_not_written_stays_degraded(make: Make, world: World) -> None:
    store = make()
    await store.open()
    backend = store._backend
    assert isinstance(backend, FakeBackend)
    full = StoreError("full", "there is no room")

    async def write(changes: object) -> set[str]:
        raise full

    backend.write = write
    fill(store.create(header()), 1, 3)
    await until(lambda: store.is_degraded)
    for _ in range(10):
        await asyncio.sleep(0.005)
        assert store.is_degraded
    assert await store.find("t") is None
    del backend.write  # so that closing waits for nothing


async def test_at_the_end_what_is_gathered_is_written(make: Make, world: World) -> None:
    store = make()
    await store.open()
    log = store.create(header())
    said = fill(log, 1, 100)
    log.end(FINISHED)
    await store.close()
    assert b"".join(record.piece for record in world.copies["s"].records) == said
    assert world.copies["s"].ending == FINISHED


async def test_a_bug_on_the_way_to_the_store_ends_no_upkeep(
    make: Make, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its lease every worker would take this one for dead."""
    store = make()
    await store.open()
    world.problem = ZeroDivisionError("a bug")
    await until(lambda: store.is_degraded)
    await asyncio.sleep(0.05)
    backend = store._backend
    assert isinstance(backend, FakeBackend)
    world.leases.clear()
    world.mend()
    await until(lambda: world.leases == {store.worker})
    await until(lambda: backend.sweeps > 0)
    await until(lambda: not store.is_degraded)
    assert caplog.text.count("Traceback") == 1
    assert "a bug" in caplog.text


async def test_a_stream_knows_when_another_process_followed_it(make: Make, world: World, time: FakeTime) -> None:
    alone = make(is_shared=False)
    log = alone.create(header())
    assert not alone.is_shared
    assert await alone.followed_ago(log) == math.inf
    here = make()
    await here.open()
    log = here.create(header())
    assert here.is_shared
    assert await here.followed_ago(log) == math.inf
    world.followed.add("s")
    assert await here.followed_ago(log) == 0.5
    world.fail()
    assert await here.followed_ago(log) == math.inf
    assert here.is_degraded
    log.followed_at = time.clock()  # over a bus
    time.advance(0.2)
    assert await here.followed_ago(log) == pytest.approx(0.2)


async def test_streams_that_are_let_go_have_no_owner_and_the_others_stay(
    make: Make, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    store = make()
    await store.open()
    gone, stays = store.create(header(), b"request"), store.create(header("t"))
    gone.append(b"data: {}\n\n", 1)
    await store.let_go([gone])
    await until(lambda: "t" in world.copies)
    assert (world.copies["s"].worker, world.copies["t"].worker) == ("", store.worker)
    assert world.copies["s"].last_seq == 1
    assert caplog.messages == ["streams that other workers go on with: 1"]
    stays.end(FINISHED)
    await store.close()
    assert world.copies["s"].ending is None, "it goes on"
    assert world.copies["t"].ending == FINISHED


async def test_a_store_that_is_too_slow_has_lost_workers(
    make: Make, world: World, change_limits: ChangeLimits, caplog: pytest.LogCaptureFixture
) -> None:
    change_limits(handover=0.05)
    store = make()
    await store.open()
    log = store.create(header(), b"request")
    await until(lambda: "s" in world.copies)
    world.gate.clear()
    await store.let_go([log])
    assert caplog.messages == ["streams that count as those of a lost worker: 1"]
    world.gate.set()
    await store.close()
    assert (world.copies["s"].worker, world.copies["s"].ending) == (store.worker, None)
    assert store.worker not in world.leases
    await store.let_go([log])


async def test_a_bug_as_a_stream_is_let_go_harms_no_other(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = make()
    await store.open()
    logs = [store.create(header(), b"request"), store.create(header("t"), b"request")]
    take_over = FakeBackend.take_over

    async def fails(backend: FakeBackend, stream_id: str, *asked: Any) -> bool:
        if stream_id == "s":
            raise ZeroDivisionError
        return await take_over(backend, stream_id, *asked)

    monkeypatch.setattr(FakeBackend, "take_over", fails)
    await store.let_go(logs)
    assert (world.copies["s"].worker, world.copies["t"].worker) == (store.worker, "")
    assert "a bug" in caplog.text
