"""What is kept of one run: the order of log, state and call, whatever the store does meanwhile."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from gai_fast.core.run import CallResult, RunCall, RunTool
from gai_fast.net.runs.records.kept_calls import KeptCalls
from gai_fast.net.runs.records.records import RunRecords, may_have_called
from gai_fast.net.toolbox.run_calls import NotStored, RunIdentity
from gai_fast.stores.backend import StoreError
from gai_fast.stores.records import MemoryRecords
from tests.conftest import ChangeLimits
from tests.waiting import until, until_answered

IDENTITY = RunIdentity("alice", "r1", "gai_1", "key")
CALL = RunCall("c1", "pay", {"city": "Oslo"}, 1, 0, RunTool("pay"), "running", 1)


class Store:
    """A store that fails while it is told to; and whether it has the log."""

    def __init__(self) -> None:
        self.memory = MemoryRecords(time.monotonic)
        self.records = RunRecords(self, 60.0)  # type: ignore[arg-type]  # each method that is used
        self.fails = False
        self.has_log = True
        self.waits: asyncio.Event | None = None
        self.swaps = 0
        self.unanswered = 0  # swaps that are written, and whose answer is lost
        self.fails_at = ""  # a method that fails once

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            if self.fails or self.fails_at == name:
                self.fails_at = ""
                raise StoreError("unreachable", "the store does not answer")
            result = await getattr(self.memory, name)(*arguments, **options)
            if name == "swap":
                self.swaps += 1
                if self.unanswered:
                    self.unanswered -= 1
                    raise StoreError("slow", "no answer")
                if self.waits is not None:
                    await self.waits.wait()
            return result

        return call

    async def stored(self) -> bool:
        return self.has_log


def kept_by(store: Store, lost: list[str] | None = None, *, is_kept: bool = True) -> KeptCalls:
    note = [] if lost is None else lost
    return KeptCalls(store.records, IDENTITY, store.stored if is_kept else None, lambda: note.append("lost"))


async def is_gone(store: Store, name: str) -> bool:
    return await store.memory.get("run", name) is None


async def test_a_state_is_kept_before_a_call_is_noted_and_both_are_found() -> None:
    store = Store()
    first = kept_by(store)
    first.keep(b"state 1", b"turn 1")
    await first.started(CALL, first.key_of(CALL))
    await first.ended(CALL, CallResult({"paid": 1}, parts=({"type": "text", "text": "é"},), duration_ms=7))
    second = kept_by(store)
    kept = await second.go_on(2)
    assert kept is not None
    assert (kept.state, [*kept.added], kept.begun) == (b"state 1", [b"turn 1"], {first.key_of(CALL): 1})
    assert await second.result(CALL) == CallResult({"paid": 1}, parts=({"type": "text", "text": "é"},), duration_ms=7)


@pytest.mark.parametrize("damaged", [b"7", b"{}", b"[1]", b"[1,false,null,false,7]", b"[1,0,[],false,7]", b"\xff"])
async def test_a_damaged_result_is_none(damaged: bytes) -> None:
    store = Store()
    first = kept_by(store)
    first.keep(b"state 1", b"turn 1")
    await first.started(CALL, first.key_of(CALL))
    owned, _ = await store.records.take_over("gai_1", "alice", 2) or pytest.fail("it is not kept")
    await owned.ended(first.key_of(CALL), damaged)
    second = kept_by(store)
    assert await second.go_on(3) is not None
    with pytest.raises(StoreError, match="damaged"):
        await second.result(CALL)


@pytest.mark.parametrize("key", ["key", "gai_1"])
async def test_a_key_is_not_free_behind_calls_although_nobody_goes_on_with_the_run(key: str) -> None:
    """The store may not have the end of its log yet."""
    store = Store()
    kept = KeptCalls(store.records, replace(IDENTITY, request_key=key), None, lambda: None, is_shared=False)
    await kept.started(CALL, "k1")
    await kept.end()
    assert await may_have_called(store.memory, "gai_1") == (key == "key"), "the stream's own id is no key"


async def test_who_has_lost_the_run_makes_no_call() -> None:
    store, lost = Store(), list[str]()
    first = kept_by(store, lost)
    await first.started(CALL, "k1")
    assert await kept_by(store).go_on(2) is not None
    with pytest.raises(NotStored, match="another worker"):
        await first.started(CALL, "k2")
    assert lost == ["lost"]


async def test_a_call_is_not_made_while_its_state_is_not_kept() -> None:
    store = Store()
    store.has_log = False
    kept = kept_by(store)
    kept.keep(b"state", b"turn")
    with pytest.raises(NotStored, match="out of reach"):
        await kept.started(CALL, "k1")
    store.has_log = True
    await kept.started(CALL, "k2")
    found = await kept_by(store).go_on(2)
    assert found is not None
    assert (found.state, [*found.added], found.begun) == (b"state", [b"turn"], {"k2": 1})


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_store_out_of_reach_lets_no_call_pass_and_recovers(is_kept: bool) -> None:
    store = Store()
    kept = kept_by(store, is_kept=is_kept)
    store.fails = True
    with pytest.raises(NotStored, match="out of reach"):
        await kept.started(CALL, "k1")
    store.fails = False
    await kept.started(CALL, "k1")


async def test_a_call_that_is_ended_while_it_is_noted_does_not_lose_the_run() -> None:
    store, lost = Store(), list[str]()
    kept = kept_by(store, lost)
    await kept.started(CALL, "k1")
    store.waits = asyncio.Event()
    ended = asyncio.create_task(kept.started(CALL, "k2"))
    await until(lambda: store.swaps >= 3)
    ended.cancel()
    await asyncio.gather(ended, return_exceptions=True)
    store.waits.set()
    await kept.started(CALL, "k3")
    assert lost == []


async def test_nobody_goes_on_with_a_run_that_has_ended() -> None:
    store = Store()
    kept = kept_by(store)
    kept.keep(b"state", b"turn")
    await kept.started(CALL, "k1")
    await kept.end()
    await until_answered(partial(is_gone, store, "gai_1/a1.0/0"))
    assert await kept_by(store).go_on(2) is None


async def test_of_a_run_that_nobody_can_go_on_with_nothing_is_left() -> None:
    store = Store()
    kept = KeptCalls(store.records, replace(IDENTITY, request_key="gai_1"), None, lambda: None)
    kept.keep(b"state")
    await kept.started(CALL, "k1")
    await kept.ended(CALL, CallResult("done"))
    assert await store.memory.get("run", "gai_1") is not None
    await kept.end()
    await until_answered(partial(is_gone, store, "gai_1"))
    assert await store.memory.get("call", f"gai_1/{kept.key_of(CALL)}") is None


async def test_a_run_whose_first_turn_was_cut_has_no_state() -> None:
    store = Store()
    found = await kept_by(store).go_on(2)
    assert found is not None
    assert found.state == b""
    again = await kept_by(store).go_on(3)
    assert again is not None
    assert again.state == b""


async def test_a_run_that_ends_while_its_state_is_kept_leaves_nothing_to_go_on_from(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store()
    kept = kept_by(store)
    await kept.started(CALL, "k1")
    store.waits = asyncio.Event()
    kept.keep(b"state", b"turn")
    await until(lambda: store.swaps >= 3)
    ending = asyncio.create_task(kept.end())
    store.waits.set()
    await ending
    assert await is_gone(store, "gai_1/a1.0/0")
    assert await kept_by(store).go_on(2) is None
    assert caplog.records == []


async def test_a_record_that_was_begun_without_an_answer_is_no_other_workers() -> None:
    store, lost = Store(), list[str]()
    kept = kept_by(store, lost)
    store.unanswered = 1
    with pytest.raises(NotStored, match="out of reach"):
        await kept.started(CALL, "k1")
    await kept.started(CALL, "k1")
    assert lost == []
    other = kept_by(store, lost)
    with pytest.raises(NotStored, match="another worker"):
        await other.started(CALL, "k2")
    assert lost == ["lost"]


async def test_a_turn_is_kept_once_if_the_store_fails_behind_it() -> None:
    store = Store()
    kept = kept_by(store)
    for number in range(4):
        store.fails_at = "delete" if number == 2 else ""
        kept.keep(b"state %d" % number, b"turn %d" % number)
        await kept.started(CALL, "k1")
    found = await kept_by(store).go_on(2)
    assert found is not None
    assert (found.state, [*found.added]) == (b"state 3", [b"turn 0", b"turn 1", b"turn 2", b"turn 3"])


async def test_a_result_is_kept_whose_call_is_ended_meanwhile() -> None:
    store = Store()
    kept = kept_by(store)
    await kept.started(CALL, kept.key_of(CALL))
    is_let = asyncio.Event()
    put = store.memory.put

    async def waits(*arguments: Any) -> None:
        await is_let.wait()
        await put(*arguments)

    store.memory.put = waits  # type: ignore[method-assign]  # a slow store
    ended = asyncio.create_task(kept.ended(CALL, CallResult({"paid": 1})))
    await asyncio.sleep(0)
    ended.cancel()
    await asyncio.gather(ended, return_exceptions=True)
    is_let.set()
    other = kept_by(store)
    assert await other.go_on(2) is not None

    async def is_kept() -> bool:
        return await other.result(CALL) is not None

    await until_answered(is_kept)
    assert await other.result(CALL) == CallResult({"paid": 1})


async def test_a_state_that_could_not_be_kept_is_tried_again(change_limits: ChangeLimits) -> None:
    change_limits(store_retry=0.01)
    store = Store()
    kept = kept_by(store)
    store.fails_at = "swap"
    kept.keep(b"state", b"turn")

    async def is_kept() -> bool:
        return await store.records.take_over("gai_1", "alice", 2) is not None

    await until_answered(is_kept)
