"""`gai_fast/stores/responses.py`: which responses are kept, how chains are read, and what damage means."""

from __future__ import annotations

import asyncio
import inspect
import math
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gai_fast.model.errors import Error
from gai_fast.model.limits import MIB, SHARED
from gai_fast.model.settings import ANONYMOUS, ResponsesSettings, SealSettings, StoreSettings
from gai_fast.server.workers.link import pack
from gai_fast.server.workers.peers import PeerBackend, RecordHome
from gai_fast.stores.backend import Backend, ResponseBudget, ResponseRecord
from gai_fast.stores.memory import name_of
from gai_fast.stores.responses import KeptResponses
from gai_fast.stores.sealed import SealedBackend
from gai_fast.stores.seals import Seals
from gai_fast.stores.sqlite import SQLiteBackend
from gai_fast.stores.store import Store
from tests.conftest import ChangeLimits
from tests.integration.stores.sealing import sealed_with
from tests.kept import Op, agree, keep, keep_chain, over, read, response
from tests.limits import LIMITS
from tests.unit.stores.fake_backend import FakeBackend, World
from tests.waiting import until

OWN = "A" * 22
"""The id of a stream of the gateway."""


# ---- what is kept ----------------------------------------------------------------------------------------------------


def test_in_memory_a_response_is_kept_by_a_plain_call() -> None:
    """There is no loop here, and so neither a task nor an await."""
    responses = over(None)
    assert responses.keep("alice", response("resp_1")) is True
    found: Any = responses.find("alice", "resp_1")
    with pytest.raises(StopIteration) as answered:
        found.send(None)
    assert read(answered.value.value) == read(response("resp_1"))


async def test_a_response_is_its_callers_alone() -> None:
    for responses in (over(None), over(FakeBackend(World()))):
        for caller, identifier in (("a", "b c"), ("a b", "c"), ("1 a", "b"), ("", "resp"), ("a\nb", "c\n")):
            assert await keep(responses, response(identifier, items=["item"]), caller)
            others = ["a", "a b", "1 a", "b", "", "a\nb", "\nb"]
            for other in others:
                is_own = other == caller
                assert (await responses.find(other, identifier) is not None) == is_own
                assert bool(await responses.chain(other, identifier)) == is_own
                assert bool(await responses.holding(other, ["item"])) == is_own
                assert await responses.delete(other, identifier) == is_own
                if is_own:
                    assert await keep(responses, response(identifier, items=["item"]), caller)
            assert await responses.delete(caller, identifier)


@pytest.mark.parametrize("identifier", ["", "x" * 5000, "resp_\r\nx: y", "resp_\x00", "\ud800", "../resp", "resp_%00"])
async def test_an_id_of_any_text_is_unknown(identifier: str) -> None:
    for responses in (over(None), over(FakeBackend(World()))):
        assert await responses.find(ANONYMOUS, identifier) is None
        assert not await responses.delete(ANONYMOUS, identifier)
        assert await responses.holding(ANONYMOUS, [identifier]) == {}
        if identifier:
            assert await responses.chain(ANONYMOUS, identifier) is None


async def test_what_is_too_large_is_not_kept() -> None:
    for responses in (over(None), over(FakeBackend(World()))):
        responses.use(ResponsesSettings(max_bytes=100 * MIB, max_bytes_per_caller=50 * MIB))
        kept = response("resp_1", text="x" * 1000)
        room = LIMITS.response - len(kept.response)
        assert await keep(responses, kept._replace(input=bytes(room)))
        assert not await keep(responses, kept._replace(input=bytes(room + 1)))
        responses.use(ResponsesSettings(max_bytes=100 * MIB, max_bytes_per_caller=16384))
        small = 16384 - LIMITS.response_cost - len(kept.response)
        assert await keep(responses, kept._replace(input=bytes(small)))
        assert not await keep(responses, kept._replace(input=bytes(small + 1)))
        assert not await keep(responses, kept._replace(input=bytes(small), items=["item"]))
        assert responses.not_kept == {"size": 3}


@pytest.mark.parametrize("items", [0, 100])
def test_in_memory_a_response_counts_for_what_it_takes(items: int) -> None:
    responses = over(None)
    responses.use(ResponsesSettings(max_bytes=1024 * MIB))
    count = 100
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            ids = [f"{number}_{at}_".ljust(SHARED.identifier, "x") for at in range(items)]
            assert responses.keep("alice", response(f"resp_{number}", text=f"{number}" * 100, items=ids))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(responses._table) == count
    assert responses._table.size / 2 < taken < responses._table.size


async def test_a_caller_has_a_tenth_by_default_and_all_without_keys() -> None:
    world = World()
    in_memory, outside = over(None), over(FakeBackend(world))
    for responses, whole in ((in_memory, 64 * MIB), (outside, 256 * MIB)):
        assert responses._budget == ResponseBudget(whole // 10, whole)
        assert responses._budget_of_anonymous == ResponseBudget(whole, whole)
        responses.use(ResponsesSettings(max_bytes=16384))
        assert responses._budget == ResponseBudget(16384, 16384), "room for an answer in any case"
        responses.use(ResponsesSettings(max_bytes=10 * MIB, max_bytes_per_caller=20 * MIB))
        assert responses._budget == responses._budget_of_anonymous == ResponseBudget(10 * MIB, 10 * MIB)


async def test_settings_count_for_what_is_kept_from_then_on() -> None:
    responses = over(None)
    assert responses.is_on
    ids = await keep_chain(responses, 20)
    responses.use(ResponsesSettings(store=False, max_bytes=16384))
    assert not responses.is_on
    assert [each for each in ids if await responses.find(ANONYMOUS, each) is None] == []
    assert await keep(responses, response("resp_of_before"))
    assert responses.dropped > 0


async def test_of_too_many_items_the_last_find_the_response(change_limits: ChangeLimits) -> None:
    change_limits(response_items=3)
    for responses in (over(None), over(FakeBackend(World()))):
        assert await keep(responses, response("resp_1", items=[*"abcdef"]))
        assert [*await responses.holding(ANONYMOUS, [*"abcdef"])] == [*"def"]


# ---- the store -------------------------------------------------------------------------------------------------------


class LateBackend(FakeBackend):
    """Carries out what it was asked even if nobody waits any more, as a server does."""

    async def keep_response(self, record: ResponseRecord[bytes], ttl: float, budget: ResponseBudget) -> int:
        return await asyncio.shield(asyncio.ensure_future(super().keep_response(record, ttl, budget)))


async def test_what_the_store_does_not_take_in_time_is_not_kept_and_is_removed_later(
    change_limits: ChangeLimits,
) -> None:
    change_limits(store_answer=0.01, store_retry=0.0)
    world = World()
    responses = over(LateBackend(world))
    world.gate.clear()
    assert not await keep(responses, response("resp_1"))
    assert not await keep(responses, response("resp_2"))
    assert responses.not_kept == {"store": 2}
    world.gate.set()
    await until(lambda: len(world.responses) == 2)
    assert await keep(responses, response("resp_2", text="again"))
    await responses.remove_late()
    assert await responses.find(ANONYMOUS, "resp_1") is None
    assert await responses.find(ANONYMOUS, "resp_2") is not None, "it was kept since"
    await responses.remove_late()


async def test_the_upkeep_removes_what_was_written_late(change_limits: ChangeLimits, timers: Any) -> None:
    change_limits(store_answer=0.01, store_retry=0.0, lease_renewal=0.01)
    world = World()
    store = Store(StoreSettings(), timers, LateBackend(world), claim_ttl=60)
    await store.open()
    world.gate.clear()
    assert not await keep(store.responses, response("resp_1"))
    world.gate.set()
    await until(lambda: len(world.responses) == 0 and not store.responses._late)
    await store.close()


FAULTS = [
    ("unreachable", ("overloaded", "store", 503, True)),
    ("slow", ("overloaded", "store", 503, True)),
    ("full", ("overloaded", "store", 503, True)),
    ("sealed", ("overloaded", "store_sealed", 503, False)),
    ("damaged", ("internal", "log_damaged", 500, False)),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS)
async def test_a_store_that_fails_is_never_an_unknown_id(fault: str, expected: tuple[Any, ...]) -> None:
    world = World()
    responses = over(FakeBackend(world))
    assert await keep(responses, response("resp_1", items=["item"]))
    world.fail(fault)
    calls: Sequence[Callable[[], Any]] = (
        lambda: responses.find(ANONYMOUS, "resp_1"),
        lambda: responses.chain(ANONYMOUS, "resp_1"),
        lambda: responses.holding(ANONYMOUS, ["item"]),
        lambda: responses.delete(ANONYMOUS, "resp_1"),
    )
    for call in calls:
        with pytest.raises(Error) as refused:
            await call()
        error = refused.value
        assert (error.code, error.reason, error.status, error.temporary) == expected
    assert not await keep(responses, response("resp_2"))
    assert responses.not_kept == {"store": 1}


async def test_a_store_that_has_just_failed_is_not_asked_again(change_limits: ChangeLimits) -> None:
    world = World()
    responses = over(FakeBackend(world))
    world.fail("unreachable")
    assert not await keep(responses, response("resp_1"))
    world.mend()
    assert not await keep(responses, response("resp_2")), "requests do not wait for it one after the other"
    with pytest.raises(Error, match="out of reach"):
        await responses.find(ANONYMOUS, "resp_2")
    assert world.reads == []
    change_limits(store_retry=0.0)
    assert await keep(responses, response("resp_2"))


async def test_a_store_that_closes_waits_for_what_is_being_kept(timers: Any) -> None:
    world = World()
    store = Store(StoreSettings(), timers, FakeBackend(world), claim_ttl=60)
    await store.open()
    future = store.responses.keep(ANONYMOUS, response("resp_1"))
    assert inspect.isawaitable(future)
    await store.close()
    assert future.done()
    assert len(world.responses) == 1


# ---- damage ----------------------------------------------------------------------------------------------------------


DAMAGES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "nothing": lambda value, other: b"",
    "a cut": lambda value, other: value[:-1],
    "more": lambda value, other: value + b"x",
    "another's value": lambda value, other: other,
    "no list": lambda value, other: msgspec.msgpack.encode({"a": 1}),
    "too few members": lambda value, other: msgspec.msgpack.encode(("resp_2", "", "completed")),
    "a member of another type": lambda value, other: msgspec.msgpack.encode(("resp_2", "", 1, b"[]", b"{}")),
    "text of a person": lambda value, other: b"kept by hand",
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_value_is_an_error_and_its_undamaged_twin_is_read(damage: str) -> None:
    world = World()
    responses = over(FakeBackend(world))
    ids = await keep_chain(responses, 3)
    assert await keep(responses, response("resp_4", items=["item"]))

    def write(identifier: str, change: Callable[[bytes, bytes], bytes]) -> None:
        name, other = (name_of(ANONYMOUS, each, is_here=False) for each in (identifier, "resp_1"))
        rows = world.responses._kept
        record, until = rows[name]
        rows[name] = record._replace(value=change(record.value, rows[other][0].value)), until

    for identifier in ("resp_2", "resp_4"):
        write(identifier, lambda value, other: bytes(value))
    assert len(await responses.chain(ANONYMOUS, ids[-1]) or ()) == 3
    assert await responses.holding(ANONYMOUS, ["item"])
    for identifier in ("resp_2", "resp_4"):
        write(identifier, DAMAGES[damage])
    for call in (
        responses.find(ANONYMOUS, "resp_2"),
        responses.chain(ANONYMOUS, ids[-1]),
        responses.holding(ANONYMOUS, ["item"]),
    ):
        with pytest.raises(Error) as refused:
            await call
        assert (refused.value.code, refused.value.reason) == ("internal", "log_damaged")
    assert await responses.find(ANONYMOUS, "resp_3") is not None, "damage of one says nothing about the store"
    assert await responses.delete(ANONYMOUS, "resp_2")
    assert await keep(responses, response("resp_4", items=["item"]))
    assert await responses.holding(ANONYMOUS, ["item"])


async def test_the_values_say_what_a_chain_is_and_not_the_names_beside_them() -> None:
    world = World()
    responses = over(FakeBackend(world))
    ids = await keep_chain(responses, 6)
    assert await keep(responses, response("resp_other"))
    rows = world.responses._kept
    for forged in ("", "resp_other", "resp_6", "resp_4", "resp_none"):
        name = name_of(ANONYMOUS, "resp_4", is_here=False)
        record, until = rows[name]
        rows[name] = record._replace(parent=name_of(ANONYMOUS, forged, is_here=False) if forged else ""), until
        found = await responses.chain(ANONYMOUS, ids[-1])
        assert [each.identifier for each in found or ()] == ids


# ---- chains ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 128, 200, 1000])
async def test_a_chain_takes_few_exchanges(length: int) -> None:
    world = World()
    responses = over(FakeBackend(world), ResponsesSettings(max_bytes=64 * MIB))
    ids = await keep_chain(responses, length)
    found = await responses.chain(ANONYMOUS, ids[-1])
    assert found is not None
    assert [each.identifier for each in found] == ids
    assert len(world.reads) <= math.ceil(length / LIMITS.chain_turns)


async def test_a_chain_is_whole_or_none() -> None:
    for responses in (over(None), over(FakeBackend(World()))):
        ids = await keep_chain(responses, 130)
        for hole in (0, 1, 64, 65, 128, 129):
            kept = await responses.find(ANONYMOUS, ids[hole])
            assert kept is not None
            assert await responses.delete(ANONYMOUS, ids[hole])
            assert await responses.chain(ANONYMOUS, ids[-1]) is None
            assert await keep(responses, kept)
            assert len(await responses.chain(ANONYMOUS, ids[-1]) or ()) == 130
        fork = response("resp_fork", ids[4])
        assert await keep(responses, fork)
        found = await responses.chain(ANONYMOUS, "resp_fork")
        assert [each.identifier for each in found or ()] == [*ids[:5], "resp_fork"]


async def test_a_circle_ends() -> None:
    for responses in (over(None), over(FakeBackend(World()))):
        assert await keep(responses, response("resp_self", "resp_self"))
        for number in range(100):
            assert await keep(responses, response(f"resp_{number}", f"resp_{(number + 1) % 100}"))
        assert await responses.chain(ANONYMOUS, "resp_self") is None
        assert await responses.chain(ANONYMOUS, "resp_0") is None


async def test_a_chain_of_too_many_turns_is_refused() -> None:
    for responses in (over(None), over(FakeBackend(World()))):
        ids = await keep_chain(responses, LIMITS.chain + 1)
        assert len(await responses.chain(ANONYMOUS, ids[-2]) or ()) == LIMITS.chain
        with pytest.raises(Error, match="more than 1000 turns") as refused:
            await responses.chain(ANONYMOUS, ids[-1])
        error = refused.value
        assert (error.code, error.reason, error.status) == ("context_length_exceeded", "conversation", 400)


async def test_only_the_items_of_a_chain_count_for_its_size(change_limits: ChangeLimits) -> None:
    change_limits(chain_items=20_000, chain_read=100_000)
    for responses in (over(None), over(FakeBackend(World()))):
        for text, items, is_refused in (("x" * 9_000, 10, False), ("", 2_000, True), ("x" * 60_000, 1, True)):
            before = ""
            for number in range(2):
                kept = response(f"resp_{number}", before, text=text, output=[f"item{each}" for each in range(items)])
                assert await keep(responses, kept)
                before = kept.identifier
            if is_refused:
                with pytest.raises(Error) as refused:
                    await responses.chain(ANONYMOUS, before)
                assert refused.value.reason == "conversation"
            else:
                assert len(await responses.chain(ANONYMOUS, before) or ()) == 2


# ---- items -----------------------------------------------------------------------------------------------------------


async def test_items_are_found_by_the_ids_in_them_or_by_the_index() -> None:
    for responses in (over(None), over(FakeBackend(World()))):
        own = response(f"resp_{OWN}", output=[f"msg_{OWN}_0", f"rs_{OWN}_1"], items=["msg_of_the_client"])
        passed = response("resp_up", output=["msg_up"], items=["msg_up", f"msg_{OWN}_0"])
        assert await keep(responses, own)
        assert await keep(responses, passed)
        asked = [f"msg_{OWN}_0", f"rs_{OWN}_1", f"msg_{OWN}_7", "msg_up", "msg_of_the_client", "none", "msg_up", ""]
        found = await responses.holding(ANONYMOUS, asked)
        assert {item: kept.identifier for item, kept in found.items()} == {
            f"msg_{OWN}_0": "resp_up",
            f"rs_{OWN}_1": f"resp_{OWN}",
            f"msg_{OWN}_7": f"resp_{OWN}",  # its id tells where it would be
            "msg_up": "resp_up",
            "msg_of_the_client": f"resp_{OWN}",
        }
        assert await responses.delete(ANONYMOUS, "resp_up")
        found = await responses.holding(ANONYMOUS, asked)
        assert {item: kept.identifier for item, kept in found.items()} == {
            f"msg_{OWN}_0": f"resp_{OWN}",
            f"rs_{OWN}_1": f"resp_{OWN}",
            f"msg_{OWN}_7": f"resp_{OWN}",
            "msg_of_the_client": f"resp_{OWN}",
        }


async def test_items_of_many_responses_are_read_some_at_a_time(change_limits: ChangeLimits) -> None:
    change_limits(chain_items=20_000)
    world = World()
    responses = over(FakeBackend(world))
    for number in range(60):
        assert await keep(responses, response(f"resp_{number}", text="x" * 500, items=[f"item{number}"]))
    items = [f"item{number}" for number in range(60)]
    assert len(await responses.holding(ANONYMOUS, items)) == 60
    assert 1 < len(world.reads) < 10
    for number in range(60):
        assert await keep(responses, response(f"resp_{number}", output=["x" * 500], items=[f"item{number}"]))
    with pytest.raises(Error) as refused:
        await responses.holding(ANONYMOUS, items)
    assert refused.value.reason == "conversation"


# ---- one trace through each store ------------------------------------------------------------------------------------


IDS = [f"resp_{letter * 22}" for letter in "abcdef"]
ITEMS = ["item_x", "item_y", *(f"msg_{letter * 22}_{number}" for letter in "abc" for number in (0, 1))]
OF_CALLER, OF_ALL = 9_000, 16_384


@st.composite
def ops(draw: st.DrawFn) -> Op:
    name = draw(st.sampled_from(["keep", "keep", "keep", "delete", "chain", "holding"]))
    caller, identifier = draw(st.sampled_from(["alice", "bob", ANONYMOUS])), draw(st.sampled_from(IDS))
    if name == "keep":
        kept = response(
            identifier,
            draw(st.sampled_from(["", *IDS])),
            text="x" * draw(st.sampled_from([0, 100, 3000, 9000])),
            output=[f"msg_{identifier.removeprefix('resp_')}_0"],
            items=draw(st.lists(st.sampled_from(ITEMS), max_size=4)),
        )
        return Op(name, caller, identifier, kept)
    return Op(name, caller, identifier, draw(st.lists(st.sampled_from(ITEMS), max_size=5)))


class Supervisor:
    """Answers a worker's requests by the bytes that the link would carry."""

    highest_number = 1

    def __init__(self) -> None:
        self._home = RecordHome()

    async def ask(self, kind: str, *items: Any) -> Any:
        _, arguments = msgspec.msgpack.decode(pack(kind, items)[4:], type=list[Any])
        return msgspec.msgpack.decode(pack(kind, self._home.answer(arguments))[4:], type=list[Any])[1]


def stores_of(kind: str, folder: Path) -> list[Backend | None]:
    """Returns the backends of two processes."""
    if kind == "memory":
        return [None]
    if kind == "fake":
        world = World()
        return [FakeBackend(world), FakeBackend(world)]
    if kind == "workers":
        supervisor: Any = Supervisor()
        peers: Any = None
        return [PeerBackend(peers, supervisor), PeerBackend(peers, supervisor)]
    files = [SQLiteBackend(folder / "store.db"), SQLiteBackend(folder / "store.db")]
    keys = sealed_with(0) if kind == "sealed" else SealSettings()
    return [SealedBackend(each, Seals(keys)) for each in files]


@pytest.mark.parametrize("kind", ["memory", "fake", "workers", "sqlite", "sealed"])
def test_every_store_keeps_the_same(kind: str, tmp_path: Path) -> None:
    folders = iter(range(10**6))

    @settings(max_examples=settings().max_examples // 8)
    @given(st.lists(ops(), max_size=40))
    def through(trace: list[Op]) -> None:
        folder = tmp_path / f"{next(folders)}"
        folder.mkdir()

        async def run() -> None:
            backends = stores_of(kind, folder)
            for each in backends:
                if each is not None:
                    await each.open()
            try:
                await agree([over(each) for each in backends], trace, OF_CALLER, OF_ALL)
            finally:
                for each in backends:
                    if each is not None:
                        await each.close()

        asyncio.run(run())

    through()


async def test_a_worker_reads_few_responses_at_a_time() -> None:
    """A worker with too many unread bytes is killed as hung."""
    most, unread = 0, 0

    class Slow(Supervisor):
        async def ask(self, kind: str, *items: Any) -> Any:
            nonlocal most, unread
            answer = await super().ask(kind, *items)
            if items[0] == "read_responses":
                unread += len(pack("answer", answer))
                most = max(most, unread)
                await asyncio.sleep(0.001)
                unread -= len(pack("answer", answer))
            return answer

    supervisor: Any = Slow()
    peers: Any = None
    responses = over(PeerBackend(peers, supervisor))
    before = ""
    for number in range(40):
        assert await keep(responses, response(f"resp_{number}", before, text="x" * MIB))
        before = f"resp_{number}"
    chains = await asyncio.gather(*[responses.chain(ANONYMOUS, before) for _ in range(5)])
    assert [len(each or ()) for each in chains] == [40] * 5
    assert most < LIMITS.link_unsent // 2


async def test_a_worker_without_its_supervisor_keeps_nothing() -> None:
    class Gone:
        highest_number = 1

        async def ask(self, kind: str, *items: Any) -> Any:
            raise Error("overloaded", "gone", reason="workers")

    peers: Any = None
    responses = over(PeerBackend(peers, Gone()))
    assert not await keep(responses, response("resp_1"))
    assert responses.not_kept == {"store": 1}
    with pytest.raises(Error) as refused:
        await responses.find(ANONYMOUS, "resp_1")
    assert (refused.value.code, refused.value.reason) == ("overloaded", "store")


async def test_who_has_no_key_has_one_callers_part_where_some_have_credentials() -> None:
    own, other = "c-" + "0" * 16, "c-" + "1" * 16
    for responses in (over(None), over(FakeBackend(World()))):
        responses.use(ResponsesSettings(max_bytes=400_000), has_credentials=True)

        async def keep_as(
            caller: str, identifier: str, *, is_accepted: bool = True, responses: KeptResponses = responses
        ) -> bool:
            kept = responses.keep(caller, response(identifier, text="x" * 30_000), is_accepted=is_accepted)
            return kept if isinstance(kept, bool) else await kept

        assert await keep_as(own, "resp_own")
        assert await keep_as(ANONYMOUS, "resp_nobodys")
        assert await keep_as(other, "resp_made_up", is_accepted=False)
        assert await responses.find(ANONYMOUS, "resp_nobodys") is None
        assert await responses.find(other, "resp_made_up") is not None
        assert await responses.find(own, "resp_own") is not None
        assert await keep_as("alice", "resp_key", is_accepted=False), "a key has its own part"
        assert await responses.find(other, "resp_made_up") is not None
        assert await responses.delete(other, "resp_made_up")
        responses.use(ResponsesSettings(max_bytes=400_000))
        for number in range(9):
            assert await keep_as(ANONYMOUS, f"resp_{number}")
        assert await responses.find(ANONYMOUS, "resp_0") is not None, "without credentials everybody is one caller"
