"""Keys in records: two processes that change them at once, a process that ends during a change, damage and loss."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from gai_fast.model.errors import Error
from gai_fast.stores.backend import KEYS, StoreError
from gai_fast.stores.records import MemoryRecords
from gai_fast.stores.stored_keys import KEY_RECORDS, KEY_SHARDS, MARK, StoredKey, StoredKeys
from tests.conftest import ChangeLimits


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class CountedRecords(MemoryRecords):
    """Records that count reads, and fail or wait as a test says."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.reads: list[str] = []
        self.fault: StoreError | None = None
        self.no_mark = False
        self.no_room = False
        self.loses_answers = False
        self.repeats = False
        self.is_contended = False
        self.others_changes = 0

    async def get(self, kind: str, name: str) -> bytes | None:
        self.reads.append(name)
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return await super().get(kind, name)

    async def swap(self, kind: str, name: str, *rest: Any, is_synced: bool = False) -> bytes | None:
        await asyncio.sleep(0)
        if self.fault is not None or (self.no_mark and name == MARK):
            raise self.fault or StoreError("full" if self.no_room else "unreachable", "gone")
        if self.is_contended and name == MARK:
            self.others_changes += 1
            return msgspec.msgpack.encode([1, [self.others_changes] * KEY_SHARDS])
        found = await super().swap(kind, name, *rest)
        if self.repeats:
            found = await super().swap(kind, name, *rest)
        if self.loses_answers:
            raise StoreError("slow", "late")
        return found


def key(name: str, **values: Any) -> StoredKey:
    return StoredKey(name, f"id of {name}", 1.0, name.encode(), values)


async def put(keys: StoredKeys, *names: str) -> None:
    for name in names:
        await keys.change(name, partial(_made, name))


def _made(name: str, there: StoredKey | None) -> StoredKey:
    return key(name)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(clock: Clock) -> CountedRecords:
    return CountedRecords(clock)


@pytest.fixture
def make(records: CountedRecords, clock: Clock) -> Callable[[], StoredKeys]:
    return lambda: StoredKeys(records, is_shared=True, clock=clock)


Make = Callable[[], StoredKeys]


async def test_another_process_reads_what_has_changed_and_nothing_else(make: Make, records: CountedRecords) -> None:
    one, other = make(), make()
    assert not await other.refresh()
    assert not other.was_used
    await put(one, "a", "b", "c")
    assert await other.refresh()
    assert other.was_used
    assert other.all() == one.all() == {name: key(name) for name in "abc"}
    records.reads.clear()
    assert not await other.refresh()
    assert records.reads == [MARK]
    await one.change("b", lambda there: None)
    records.reads.clear()
    assert await other.refresh()
    assert len(records.reads) == 2
    assert [*other.all()] == ["a", "c"]


async def test_the_last_key_leaves_a_store_that_was_used(make: Make) -> None:
    one = make()
    await put(one, "a")
    await one.change("a", lambda there: None)
    later = make()
    await later.refresh()
    assert (later.all(), later.was_used) == ({}, True)


async def test_processes_that_change_keys_at_once_lose_none(make: Make) -> None:
    processes = [make() for _ in range(4)]
    await asyncio.gather(*(put(each, f"{at}-{number}") for at, each in enumerate(processes) for number in range(20)))
    for each in processes:
        await each.refresh()
        assert len(each.all()) == 80


async def test_an_edit_sees_what_others_have_written(make: Make) -> None:
    one, other = make(), make()
    seen: list[StoredKey | None] = []

    def edit(identifier: str, there: StoredKey | None) -> StoredKey:
        seen.append(there)
        return msgspec.structs.replace(key("a"), id=identifier)

    await asyncio.gather(*(each.change("a", partial(edit, name)) for each, name in ((one, "1"), (other, "2"))))
    assert seen.count(None) >= 1
    assert {each.id for each in seen if each is not None} & {"1", "2"}


async def test_a_change_whose_process_ended_before_the_mark_counts_later(
    make: Make, records: CountedRecords, clock: Clock, change_limits: ChangeLimits
) -> None:
    change_limits(keys_reread=30.0)
    one, other = make(), make()
    await put(one, "a")
    await other.refresh()
    records.no_mark = True
    with pytest.raises(Error):
        await one.change("a", lambda there: None)
    assert not one.all()
    records.no_mark = False
    assert not await other.refresh()
    clock.now += 31
    assert await other.refresh()
    assert not other.all()


async def test_a_change_whose_mark_could_not_be_written_is_counted_later(make: Make, records: CountedRecords) -> None:
    one, other = make(), make()
    await put(one, "a")
    await other.refresh()
    records.no_mark = True
    with pytest.raises(Error):
        await one.change("a", lambda there: None)
    with pytest.raises(StoreError):
        await one.refresh()
    records.no_mark = False
    await one.refresh()
    assert await other.refresh()
    assert not other.all()


async def test_a_change_whose_answer_was_lost_is_known_to_all_at_their_next_look(
    make: Make, records: CountedRecords
) -> None:
    one, other = make(), make()
    await put(one, "a")
    await other.refresh()
    records.loses_answers = True
    with pytest.raises(Error, match="out of reach"):
        await one.change("a", lambda there: None)
    records.loses_answers = False
    assert await one.refresh()
    assert await other.refresh()
    assert (one.all(), other.all()) == ({}, {})


async def test_a_change_that_may_have_been_made_is_said_to_be_so(make: Make, records: CountedRecords) -> None:
    """A new key's secret is in the answer alone: without the text, an admin would have a key of an unknown secret."""
    may = "out of reach; the change of the key 'a' may have been made: look at the key; rotating it gives a new secret"
    for is_after_the_write in (False, True):
        records.no_mark, records.loses_answers = is_after_the_write, not is_after_the_write
        with pytest.raises(Error, match=may) as caught:
            await put(make(), "a")
        assert (caught.value.status, caught.value.reason) == (503, "store")
    records.fault = StoreError("unreachable", "gone")
    with pytest.raises(Error, match=r"out of reach$"):
        await put(make(), "a")


async def test_a_change_that_was_not_made_is_not_said_to_be_so_after_one_that_may_have_been(
    make: Make, records: CountedRecords
) -> None:
    keys = make()
    records.loses_answers = True
    with pytest.raises(Error, match="may have been made"):
        await put(keys, "a")
    records.fault = StoreError("unreachable", "gone")
    with pytest.raises(Error, match=r"out of reach$"):
        await keys.change("a", lambda there: None)


async def test_a_change_that_is_made_is_not_said_to_lack_room_if_the_mark_has_none(
    make: Make, records: CountedRecords
) -> None:
    records.no_mark = records.no_room = True
    keys = make()
    with pytest.raises(Error, match="may have been made"):
        await put(keys, "a")
    assert [*keys.all()] == ["a"]


async def test_a_change_that_the_client_of_the_store_repeats_is_made_once(make: Make, records: CountedRecords) -> None:
    """Else a second edit would find the new secret as the former one, and the callers' own would end at once."""
    keys = make()
    await put(keys, "a")
    records.repeats = True
    seen: list[StoredKey | None] = []

    def rotate(there: StoredKey | None) -> StoredKey:
        assert there is not None
        seen.append(there)
        return msgspec.structs.replace(there, digest=b"new", former=there.digest)

    assert await keys.change("a", rotate) == keys.all()["a"]
    assert seen == [key("a")]
    assert keys.all()["a"].former == key("a").digest


async def test_a_change_that_others_keep_from_being_counted_is_made_and_counts_at_the_next_look(
    make: Make, records: CountedRecords
) -> None:
    one, other = make(), make()
    await put(other, "b")
    records.is_contended = True
    await put(one, "a")
    assert [*one.all()] == ["a"]
    records.is_contended = False
    await one.refresh()
    await other.refresh()
    assert [*other.all()] == ["a", "b"]


async def test_a_change_after_a_loss_and_before_the_next_look_loses_no_key(make: Make, records: CountedRecords) -> None:
    one, other = make(), make()
    await put(one, "a", "b")
    await other.refresh()
    for name in KEY_RECORDS:
        await records.delete(KEYS, name)
    await put(one, *(f"new-{number}" for number in range(2 * KEY_SHARDS)))
    for each in (one, other, make()):
        await each.refresh()
        assert {"a", "b", "new-0"} <= {*each.all()}


async def test_a_store_that_has_lost_everything_gets_it_again(make: Make, records: CountedRecords) -> None:
    one = make()
    await put(one, "a", "b")
    for name in KEY_RECORDS:
        await records.delete(KEYS, name)
    assert not await one.refresh()
    assert not await one.refresh()
    later = make()
    await later.refresh()
    assert later.all() == one.all() == {"a": key("a"), "b": key("b")}


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff" * 20,
        msgspec.msgpack.encode([2, []]),
        msgspec.msgpack.encode([1, [["a", 1, 2.0, b"", {}]]]),
        msgspec.msgpack.encode({"keys": []}),
    ],
)
async def test_damage_is_an_error_and_what_was_known_stays(make: Make, records: CountedRecords, value: bytes) -> None:
    one, other = make(), make()
    await put(one, "a")
    await other.refresh()
    for name in map(str, range(KEY_SHARDS)):
        if await records.get(KEYS, name) is not None:
            await records.put(KEYS, name, value, None)
    later = make()
    with pytest.raises(StoreError) as caught:
        await later.refresh()
    assert caught.value.fault == "damaged"
    assert [*other.all()] == ["a"]
    await records.put(KEYS, MARK, value, None)
    with pytest.raises(StoreError):
        await other.refresh()


async def test_a_process_that_cannot_read_the_mark_writes_nothing(make: Make, records: CountedRecords) -> None:
    await put(make(), "a")
    await records.swap(KEYS, MARK, await records.get(KEYS, MARK), b"of another key of the store", None)
    before = {name: await records.get(KEYS, name) for name in KEY_RECORDS}
    for name in ("a", "b", "c"):  # names of records that are there, and of records that are not
        with pytest.raises(Error, match="out of reach"):
            await put(make(), name)
    assert {name: await records.get(KEYS, name) for name in KEY_RECORDS} == before


async def test_a_store_out_of_reach_refuses_changes(make: Make, records: CountedRecords) -> None:
    one = make()
    await put(one, "a")
    records.fault = StoreError("unreachable", "gone")
    with pytest.raises(Error) as caught:
        await put(one, "b")
    assert (caught.value.status, caught.value.reason) == (503, "store")
    assert [*one.all()] == ["a"]


async def test_a_record_has_a_bound(make: Make, change_limits: ChangeLimits) -> None:
    change_limits(key_record=100)
    with pytest.raises(Error) as caught:
        await make().change("a", lambda there: key("a", models=["m" * 100]))
    assert (caught.value.status, caught.value.reason) == (409, "keys")
