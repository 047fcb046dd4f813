"""Runs that end, or go on, without the worker that had them: what stays of them in the store, and what they hold."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from gai_fast.model.settings import StoreSettings
from gai_fast.net.runs.records.kept_calls import KeptCalls
from gai_fast.net.runs.records.records import RUNS, RunRecords
from gai_fast.stores.backend import StoreError
from tests.integration.gateway import QUERY, Gateway, Net, Peer, on_uvloop
from tests.integration.test_run_approvals import KEYS, made, pay
from tests.integration.test_run_approvals import nothing_is_made as nothing_is_made
from tests.integration.test_waiting_runs import AS_ADMIN, AS_ALICE, is_listed
from tests.integration.test_waiting_runs import parked as has_parked
from tests.integration.tool_runs import Gate, Model, function_tool, gateway_of
from tests.waiting import until, until_answered

TWICE = [("pay", {"euros": 7}), ("pay", {"euros": 8})]


async def two(net: Net, url: str, model: Model, tool: Any) -> list[Gateway]:
    more = {"store": StoreSettings(url), "keys": KEYS}
    return [await gateway_of(net, model, tool, of_gateway=more) for _ in range(2)]


async def end(self: KeptCalls) -> None:
    """Leaves all as a worker that is gone."""


def takes_all_for_gone(gateway: Gateway) -> None:
    engine = gateway.running.engine

    async def is_gone(worker: str) -> bool:
        return worker != engine.store.worker

    engine.know_workers(is_gone)


async def has_nothing(gateway: Gateway, stream_id: str, *, of_turns: int) -> bool:
    records = gateway.running.engine.store.records
    names = [*(f"a1.{at}" for at in range(of_turns)), *(f"s1.{version}" for version in range(1, 9))]
    pieces = [await records.get(RUNS, f"{stream_id}/{name}/0") for name in names]
    return await RunRecords(records, 60.0).state_of(stream_id) == b"" and not any(pieces)


async def test_what_is_kept_of_a_run_goes_with_the_end_that_another_worker_writes(
    net: Net, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeptCalls, "end", end)
    gate = Gate()

    async def slow() -> str:
        """Waits."""
        await gate.wait()
        return "slow"

    first, second = await two(net, url, Model(["Wait. ", ("slow", {})], ["Done."]), function_tool(slow))
    client = await first.connect()
    client.request("POST", "/api/v1/stream", {**QUERY, "model": "m", "resumable": True}, AS_ALICE)
    response = await client.response()
    stream_id = response.headers["x-gai-stream-id"]
    await gate.begun.wait()
    assert not await has_nothing(second, stream_id, of_turns=1)
    takes_all_for_gone(second)
    counted = counted_in(second)
    answer = await second.ask("DELETE", f"/api/v1/streams/{stream_id}", None, AS_ALICE)
    assert answer.json["state"] == "cancelled"
    await until_answered(partial(has_nothing, second, stream_id, of_turns=1))
    assert counted == [1]
    gate.open.set()
    client.close()


def counted_in(gateway: Gateway) -> list[int]:
    """Returns the turns of each run that a server counts from now on."""
    counted: list[int] = []
    gateway.running.engine.runs.note_steps = counted.append
    return counted


async def is_stored(gateway: Gateway, stream_id: str) -> bool:
    store = gateway.running.engine.store
    return await store.stored(store.find_here(stream_id))


async def test_streams_that_are_no_runs_are_not_counted_as_such(net: Net, url: str) -> None:
    gate = Gate()

    async def hold(peer: Peer) -> None:
        await gate.wait()

    first, second = await two(net, url, Model([hold]), function_tool(pay))
    client = await first.connect()
    body = {**QUERY, "model": "m", "resumable": True, "gateway_tools": []}
    client.request("POST", "/api/v1/stream", body, AS_ALICE)
    await gate.begun.wait()
    [stream_id] = first.running.engine.streams
    await until_answered(partial(is_stored, first, stream_id))
    takes_all_for_gone(second)
    counted = counted_in(second)
    answer = await second.ask("DELETE", f"/api/v1/streams/{stream_id}", None, AS_ALICE)
    assert answer.json["state"] == "cancelled"
    assert counted == []
    gate.open.set()
    client.close()


async def test_the_approvals_of_a_whole_answer_go_with_its_end(
    net: Net, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeptCalls, "end", end)
    model = Model(["Wait. ", *TWICE], ["Done."])
    first, second = await two(net, url, model, function_tool(pay, approve=True))
    client = await first.connect()
    body = {**QUERY, "model": "m", "stream": False, "approvals": "ask"}
    client.request("POST", "/api/v1/stream", body, {**AS_ALICE, "idempotency-key": "once"})
    await until_answered(partial(is_listed, second, 2))
    rows = (await second.ask("GET", "/admin/v1/approvals", None, AS_ADMIN)).json["data"]
    [stream_id] = {row["stream_id"] for row in rows}
    await until(lambda: stream_id in first.running.engine.waiting)
    assert await is_kept(second, stream_id)
    takes_all_for_gone(second)
    answer = await second.ask("DELETE", f"/api/v1/streams/{stream_id}", None, AS_ALICE)
    assert answer.json["state"] == "cancelled"
    await until_answered(partial(is_listed, second, 0))
    await until_answered(partial(has_nothing, second, stream_id, of_turns=1))
    assert (made, len(model.asked)) == ([], 1)
    client.close()


async def is_kept(gateway: Gateway, stream_id: str) -> bool:
    return bool(await RunRecords(gateway.running.engine.store.records, 60.0).state_of(stream_id))


async def test_a_run_whose_calls_run_wants_no_connection(net: Net, url: str) -> None:
    """Others that are taken over meanwhile have it."""
    gate, begun = Gate(), list[int]()

    async def slow() -> str:
        """Waits."""
        begun.append(1)
        await gate.wait()
        return "slow"

    tool = function_tool(slow, idempotent=True)
    first, second = await two(net, url, Model(["Wait. ", ("slow", {})], ["Done."]), tool)
    client = await first.connect()
    client.request("POST", "/api/v1/stream", {**QUERY, "model": "m", "resumable": True}, AS_ALICE)
    response = await client.response()
    stream_id = response.headers["x-gai-stream-id"]
    await response.until(b'"tool.call"')
    await until_answered(partial(is_kept, second, stream_id))
    takes_all_for_gone(second)
    follower = asyncio.create_task(second.ask("GET", f"/api/v1/streams/{stream_id}", None, AS_ALICE))
    await until(lambda: len(begun) == 2)
    session = second.running.engine.takeovers.beginning[stream_id]
    assert (session.attempts.exchange, session.wants_connection) == (None, False)
    gate.open.set()
    assert (await follower).events[-2]["finish_reason"] == "stop"
    client.close()


@pytest.mark.parametrize("is_cancelled", [True, False])
@on_uvloop
async def test_the_approvals_of_a_run_that_ends_before_its_record_is_read_go_too(
    net: Net, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    reached, go_on = asyncio.Event(), KeptCalls.go_on

    async def reading(self: KeptCalls, epoch: int, *, is_own: bool = False) -> Any:
        reached.set()
        if not is_cancelled:
            raise StoreError("damaged", "a test")
        await asyncio.sleep(0.1)
        return await go_on(self, epoch, is_own=is_own)

    gateway = await gateway_of(
        net, Model(TWICE, ["Done."]), function_tool(pay, approve=True), of_gateway={"keys": KEYS}
    )
    run = await has_parked(gateway)
    await until_answered(partial(is_listed, gateway, 2))
    await until(lambda: run.stream_id in gateway.running.engine.waiting)
    monkeypatch.setattr(KeptCalls, "go_on", reading)
    assert (await run.decide()).status == 200
    await reached.wait()
    if is_cancelled:
        assert (await gateway.ask("DELETE", f"/api/v1/streams/{run.stream_id}", None, AS_ALICE)).status == 202
    events = await run.end()
    assert events[-2]["type"] == ("finish" if is_cancelled else "error")
    await until_answered(partial(is_listed, gateway, 0))
    await until_answered(partial(has_nothing, gateway, run.stream_id, of_turns=1))
    assert made == []
    assert net.warned("its run does not go on") == (0 if is_cancelled else 1)
