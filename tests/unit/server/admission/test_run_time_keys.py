"""Keys of the store in one process: changes, a store that is out of reach, and the file's names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import IssuerSettings, KeySettings, Settings, key_digest
from gai_fast.server.admission.callers import Callers
from gai_fast.server.admission.run_time_keys import RunTimeKeys
from gai_fast.stores.backend import KEYS, StoreError
from gai_fast.stores.records import MemoryRecords
from gai_fast.stores.stored_keys import MARK, StoredKey, StoredKeys
from tests.conftest import ChangeLimits
from tests.waiting import until

SECRET, FORMER = "sk-canary-shop-012345", "sk-canary-former-012345"


class Records(MemoryRecords):
    """Records that fail if a test says so."""

    fault: Exception | None = None

    async def get(self, kind: str, name: str) -> bytes | None:
        if self.fault is not None:
            raise self.fault
        return await super().get(kind, name)


class Clock:
    """A clock that a test sets."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def key(name: str = "shop", identifier: str = "1", **more: Any) -> StoredKey:
    return StoredKey(name, identifier, 1.0, key_digest(SECRET), {}, **more)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(clock: Clock) -> Records:
    return Records(clock)


Open = Callable[..., Any]


@pytest.fixture
async def open_keys(records: Records, clock: Clock, change_limits: ChangeLimits) -> AsyncIterator[Open]:
    change_limits(keys_poll=0.001)
    opened: list[RunTimeKeys] = []

    async def begin() -> RunTimeKeys:
        stored = StoredKeys(records, is_shared=True, clock=clock)
        opened.append(RunTimeKeys(stored, Settings(), clock, clock))
        await opened[-1].open()
        return opened[-1]

    yield begin
    for each in opened:
        each.close()


def find(keys: RunTimeKeys, secret: str = SECRET) -> str:
    """Returns the name of a secret's key, or the status and the reason of its refusal."""
    try:
        return Callers([], stored=keys.callers).find({"x-api-key": secret}, "").name
    except Error as refused:
        return f"{refused.status} {refused.reason}"


async def test_a_change_counts_here_at_once_and_elsewhere_soon(open_keys: Open) -> None:
    one, other = await open_keys(), await open_keys()
    assert not one.callers.is_closed
    changes: list[str] = []
    one.changed = lambda: changes.append(find(one))
    await one.change("shop", lambda _: key())
    assert changes == ["shop"]
    await until(lambda: find(other) == "shop")
    ended: list[Collection[str]] = []
    other.revoked = ended.append
    await one.change("shop", lambda _: None)
    assert find(one) == "401 key"
    await until(lambda: ended)
    assert ({*ended[0]}, find(other)) == ({"shop"}, "401 key")
    assert one.callers.is_closed
    assert other.callers.is_closed


async def test_a_key_of_the_same_name_is_another_key(open_keys: Open) -> None:
    one = await open_keys()
    ended: list[Collection[str]] = []
    one.revoked = ended.append
    await one.change("shop", lambda _: key())
    await one.change("shop", lambda _: key(former=key_digest(FORMER), former_until=2_000_000.0))
    assert ended == []
    await one.change("shop", lambda _: key(identifier="2"))
    assert [{*each} for each in ended] == [{"shop"}]


async def test_the_former_secret_counts_until_its_time(open_keys: Open, clock: Clock) -> None:
    one = await open_keys()
    await one.change("shop", lambda _: key(former=key_digest(FORMER), former_until=clock.now + 10))
    _, end = one.callers.known[key_digest(FORMER)]
    assert end == (clock.now + 10) * 1e3
    clock.now += 11
    await one.change("other", lambda _: key("other"))
    assert key_digest(FORMER) not in one.callers.known


async def test_a_store_out_of_reach_keeps_keys_for_a_time_and_then_they_are_503(
    open_keys: Open, records: Records, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    one = await open_keys()
    await one.change("shop", lambda _: key())
    records.fault = StoreError("unreachable", "gone")
    clock.now += 59
    await asyncio.sleep(0.02)
    assert find(one) == "shop"
    clock.now += 2
    await until(lambda: find(one) == "503 store")
    assert find(one, FORMER) == "401 key"
    records.fault = None
    await until(lambda: find(one) == "shop")
    assert caplog.text.count("are refused (503)") == 1


async def test_a_bug_is_logged_and_the_task_begins_again(
    open_keys: Open, records: Records, change_limits: ChangeLimits, caplog: pytest.LogCaptureFixture
) -> None:
    change_limits(store_retry=0.01)
    one, other = await open_keys(), await open_keys()
    records.fault = RuntimeError("a bug")
    await until(lambda: "a bug" in caplog.text)
    records.fault = None
    await one.change("shop", lambda _: key())
    await until(lambda: find(other) == "shop")


async def test_damage_at_the_start_is_503_for_all_and_the_server_is_closed(open_keys: Open, records: Records) -> None:
    await records.put(KEYS, MARK, b"damaged", None)
    one = await open_keys()
    assert (find(one), one.callers.is_closed) == ("503 store", True)
    await records.delete(KEYS, MARK)
    await until(lambda: find(one) == "401 key")


async def test_a_store_whose_key_is_missing_is_said_so_and_clients_do_not_ask_again(
    open_keys: Open, records: Records, clock: Clock
) -> None:
    one = await open_keys()
    await one.change("shop", lambda _: key())
    records.fault = StoreError("sealed", "add it to `keys`")
    blind = await open_keys()
    assert find(blind) == "503 store_sealed"
    clock.now += 61
    await until(lambda: find(one) == "503 store_sealed")
    for fault, said in (("unreachable", "503 store"), ("sealed", "503 store_sealed")):
        records.fault = StoreError(fault, "why it fails changes")
        await until(lambda said=said: find(one) == find(blind) == said)
    records.fault = None
    await until(lambda: find(one) == find(blind) == "shop")


async def test_a_server_does_not_start_without_its_keys(open_keys: Open, records: Records) -> None:
    records.fault = StoreError("unreachable", "gone")
    with pytest.raises(StoreError):
        await open_keys()


async def test_a_key_with_values_of_no_key_is_503_and_others_count(open_keys: Open) -> None:
    one = await open_keys()
    await one.change("shop", lambda _: StoredKey("shop", "1", 1.0, key_digest(SECRET), {"streams": -1}))
    await one.change("other", lambda _: StoredKey("other", "2", 1.0, key_digest(FORMER), {}))
    assert (find(one), find(one, FORMER)) == ("503 store", "other")
    assert one.stored("shop") is not None
    await one.change("shop", lambda _: None)
    assert find(one) == "401 key"


async def test_a_name_of_the_file_is_the_files_and_its_streams_go_on(open_keys: Open) -> None:
    one = await open_keys()
    ended: list[Collection[str]] = []
    one.revoked = ended.append
    await one.change("shop", lambda _: key())
    one.use(Settings(keys=(KeySettings("shop", (b"file",)),)))
    assert (find(one), one.stored("shop"), {*one.keys}) == ("401 key", None, set())
    await one.change("shop", lambda _: None)
    assert ended == []


async def test_where_a_key_is_says_whether_it_was_revoked(open_keys: Open) -> None:
    one = await open_keys()
    await one.change("shop", lambda _: key())
    assert [one.home_of(name) for name in ("shop", "other", "")] == ["store", "", ""]
    issuer = IssuerSettings("corp", "https://x", "y", KeySettings("corp", ()))
    one.use(Settings(keys=(KeySettings("shop", (b"file",)),), issuers=(issuer,)))
    assert [one.home_of(name) for name in ("shop", "corp:anna")] == ["file", "file"]
    one.use(Settings())
    await one.change("shop", lambda _: None)
    assert one.home_of("shop") == ""


async def test_keys_that_have_not_changed_stay_the_same_objects(open_keys: Open) -> None:
    """The ledger keeps limits by their identity."""
    one = await open_keys()
    await one.change("shop", lambda _: key())
    former = one.keys["shop"]
    await one.change("other", lambda _: key("other"))
    assert one.keys["shop"] is former


async def test_a_client_that_leaves_does_not_stop_a_change_half_way(open_keys: Open) -> None:
    one, other = await open_keys(), await open_keys()
    asking = asyncio.ensure_future(one.change("shop", lambda _: key()))
    await asyncio.sleep(0)
    asking.cancel()
    await until(lambda: find(other) == "shop")
    assert asking.cancelled()
    assert find(one) == "shop"
