"""`gai_fast/grpc/calls.py`: when calls end that their clients have not ended."""

from __future__ import annotations

import asyncio

import pytest

from gai_fast.grpc.calls import Calls, RemoteCall
from gai_fast.model.errors import Overloaded
from tests.conftest import ChangeLimits


async def run(calls: Calls, begun: list[RemoteCall]) -> None:
    with calls.running("") as call:
        begun.append(call)
        await asyncio.sleep(3600)


async def test_a_drain_waits_for_calls_and_then_stops_them(change_limits: ChangeLimits) -> None:
    change_limits(grpc_grace=0.05, grpc_stop=0.05)
    calls = Calls()
    begun: list[RemoteCall] = []
    plain, stuck = (asyncio.create_task(run(calls, begun)) for _ in range(2))
    await asyncio.sleep(0)
    begun[1].waits = True
    await calls.drain()
    assert plain.cancelled()
    assert not stuck.done(), "a message that is being written is not cut"
    assert all(call.is_stopped for call in begun)
    with pytest.raises(Overloaded, match="stops"), calls.running(""):
        pass
    stuck.cancel()
    await asyncio.wait([stuck])
    await calls.drain()


async def test_only_a_call_whose_client_reads_nothing_is_ended(change_limits: ChangeLimits) -> None:
    calls = Calls()
    begun: list[RemoteCall] = []
    tasks = [asyncio.create_task(run(calls, begun)) for _ in range(3)]
    await asyncio.sleep(0)
    idle, slow, stuck = begun
    slow.waits = stuck.waits = True
    for _ in range(3):
        slow.sent += 1
        for call in (idle, slow, stuck):
            call.look()
    await asyncio.sleep(0)
    assert [task.done() for task in tasks] == [False, False, True]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_another_call_without_a_place_ends_the_oldest_of_the_address_that_has_the_most(
    change_limits: ChangeLimits,
) -> None:
    change_limits(grpc_waiting=4)
    calls = Calls()
    begun: list[RemoteCall] = []

    async def wait(peer: str) -> None:
        with calls.any(peer) as call:
            begun.append(call)
            await asyncio.sleep(3600)

    tasks = []
    for peer in ("ipv4:192.0.2.9:1", *[f"ipv4:192.0.2.1:{port}" for port in range(1, 6)]):
        tasks.append(asyncio.create_task(wait(peer)))
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.done() for task in tasks] == [False, True, True, False, False, False]
    assert len(calls.waiting) == 4
    calls.place(begun[0], 1)
    assert (len(calls.waiting), calls.accepted) == (3, {"ipv4:192.0.2.9:1"})
    calls.waiting.look(begun[-1].until)
    await asyncio.sleep(0)
    assert [task.done() for task in tasks] == [False, *[True] * 5]
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert not calls.waiting
    assert not calls.accepted
    assert not calls._callers
