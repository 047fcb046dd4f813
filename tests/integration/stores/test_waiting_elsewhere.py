"""Runs that wait for approvals and go on in another process: behind a restart, a deploy, a worker taken for gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gai_fast.model.limits import SHARED
from gai_fast.model.settings import SealSettings, StoreSettings
from gai_fast.net.runs.records.records import ApprovalDecision
from gai_fast.stores.backend import StoreError
from tests.integration.gateway import Gateway, M, Net, Peer
from tests.integration.processes import Server, serving
from tests.integration.stores.sealing import sealed_with
from tests.integration.stores.test_run_takeover import (
    BODY,
    STORES,
    Till,
    configured,
    events_of,
    is_known,
    text_of,
)
from tests.integration.stores.test_serve import AS_STATE, frames, get, streaming
from tests.integration.stores.test_serve import folder as folder
from tests.integration.test_run_approvals import KEYS, Run, last, made, pay
from tests.integration.test_run_approvals import nothing_is_made as nothing_is_made
from tests.integration.test_waiting_runs import AS_ALICE, ENDS_AFTER_ONE, is_listed, told
from tests.integration.test_waiting_runs import AS_STATE as AS_STATE_OF_ALICE
from tests.integration.test_waiting_runs import parked as has_parked
from tests.integration.tool_runs import Model, function_tool, gateway_of
from tests.waiting import until, until_answered

ASK = ("pay", {"city": "Oslo"})
GRACE = "[server]\ngrace = 600\n"
NO_KEYS = SealSettings()
KEYS_OF_STORE = sealed_with(0)


class Scene:
    """Servers over one store, before a model that asks for an approval."""

    def __init__(self, net: Net, folder: Path, url: str, *turns: Any) -> None:
        self.net, self.folder, self.url = net, folder, url
        self.till, self.model = Till(), Model(*(turns or (["Wait. ", ASK], ["Done."])))

    async def configure(self, more: str = "", of_tool: str = "approve = true") -> None:
        upstream, tool = await self.net.upstream(self.model.handle), await self.net.upstream(self.till.handle)
        configured(self.folder, upstream.url, tool.url, more=GRACE + more, of_tool=of_tool)

    @asynccontextmanager
    async def server(self) -> AsyncIterator[Server]:
        async with serving(self.net, self.folder, "--port", "0", "--store", self.url) as server:
            yield server


async def state_of(server: Server, stream_id: str) -> str:
    state: str = (await server.ask("GET", f"/api/v1/streams/{stream_id}", headers=AS_STATE)).json["state"]
    return state


async def is_in(state: str, server: Server, stream_id: str) -> bool:
    return await state_of(server, stream_id) == state


async def parked(server: Server) -> tuple[str, dict[str, Any]]:
    """Begins a run, and leaves it once it waits. Returns its stream and what is asked."""
    async with streaming(server.host, BODY, until=b'"expires":') as (stream_id, early, rest):
        early += await rest.readuntil(b"}}\n")
        await until_answered(partial(has_left, server))
    return stream_id, events_of(frames(early), "approval.required")[0]["approval"]


async def has_left(server: Server) -> bool:
    """Returns whether no stream has a session."""
    lines = (await server.ask("GET", "/metrics")).body.decode().splitlines()
    active = [line for line in lines if line.startswith("gai_fast_active_streams{")]
    return bool(active) and all(line.endswith(" 0.0") for line in active) and "gai_fast_runs_waiting 1.0" in lines


async def decide(server: Server, stream_id: str, asked: dict[str, Any], decision: str = "approve") -> int:
    body = {"decision": decision, "digest": asked["digest"]}
    return (await server.ask("POST", f"/api/v1/streams/{stream_id}/approvals/{asked['id']}", body)).status


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("ends", ["stopped", "killed"])
async def test_a_decision_finds_a_run_behind_a_restart(net: Net, folder: Path, url: str, store: str, ends: str) -> None:
    scene = Scene(net, folder, url)
    await scene.configure(STORES[store])
    async with scene.server() as first:
        stream_id, asked = await parked(first)
        (first.process.terminate if ends == "stopped" else first.process.kill)()
        assert await first.ended() == (0 if ends == "stopped" else -9)
    async with scene.server() as second:
        assert await decide(second, stream_id, asked) == 200
        await until_answered(partial(is_in, "finished", second, stream_id))
        got = frames(await get(second.host, f"/api/v1/streams/{stream_id}"))
        assert await decide(second, stream_id, asked) == 409
    assert text_of(got) == "Wait. Done."
    assert len(scene.till.journal) == 1
    assert len(scene.model.asked) == 2
    assert events_of(got, "finish")[0]["usage"]["total_tokens"] == 30


async def test_an_approval_expires_once_somebody_asks_for_its_run(net: Net, folder: Path, url: str) -> None:
    scene = Scene(net, folder, url)
    await scene.configure("[runs]\napproval_ttl = 3\n")
    async with scene.server() as first:
        stream_id, asked = await parked(first)
        first.process.terminate()
        await first.ended()
    async with scene.server() as second:
        await until_answered(partial(is_unlisted, second))
        assert len(scene.model.asked) == 1  # nobody has asked for it
        got = frames(await get(second.host, f"/api/v1/streams/{stream_id}"))
        assert await decide(second, stream_id, asked) == 409
    assert events_of(got, "approval.decided")[0]["approval"]["reason"] == "expired"
    assert (text_of(got), scene.till.journal) == ("Wait. Done.", [])
    assert scene.model.results() == ["the call was denied: expired"]


async def is_unlisted(server: Server) -> bool:
    return bool((await server.ask("GET", "/admin/v1/approvals")).json["total"] == 0)


async def test_a_server_that_drains_leaves_a_waiting_run_to_another_one(net: Net, folder: Path, url: str) -> None:
    """Another stream holds the drain. Who comes to the server that drains is sent away, and decisions reach the run."""
    release = asyncio.Event()

    async def hold(peer: Peer) -> None:
        if len(scene.model.asked) == 2:
            await release.wait()

    scene = Scene(net, folder, url, ["Wait. ", ASK], [hold, "Done."])
    scene.model.turns[0].insert(0, hold)
    await scene.configure()
    async with scene.server() as first, scene.server() as second:
        stream_id, asked = await parked(first)
        client, other = await first.stream(json.loads(BODY))
        other_id = other.headers["x-gai-stream-id"]
        await until(lambda: len(scene.model.asked) == 2)
        first.process.terminate()
        await first.drains()
        path = f"/api/v1/streams/{stream_id}"
        cut = await get(first.host, path)
        assert events_of(frames(cut), "approval.required")
        assert not events_of(frames(cut), "done")
        assert await state_of(first, stream_id) == "waiting"
        follower = asyncio.create_task(get(second.host, path))
        await until_answered(partial(is_known, second, stream_id, 1 << 20))
        assert await decide(first, stream_id, asked) == 200
        got = frames(await follower)
        release.set()
        await other.rest()  # it waits now, so that the server is done
        assert not other.ended
        client.close()
        assert await first.ended() == 0
        [asked] = events_of(frames(await until_waiting(second, other_id)), "approval.required")
        assert await decide(second, other_id, asked["approval"]) == 200
        await until_answered(partial(is_in, "finished", second, other_id))
    assert text_of(got) == "Wait. Done."
    assert len(scene.till.journal) == 2


async def until_waiting(server: Server, stream_id: str) -> bytes:
    """Follows a stream until it waits; returns what it has."""
    host, _, port = server.host.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /api/v1/streams/{stream_id} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
    got = b""
    while b"approval.required" not in got or not got.endswith(b"\n\r\n"):
        got += await reader.read(1 << 16)
    writer.close()
    return got


# ---- two workers, one of which is taken for gone ---------------------------------------------------------------------


class Two:
    """Two gateways over one store, before one model."""

    def __init__(self, model: Model, first: Gateway, second: Gateway) -> None:
        self.model, self.first, self.second = model, first, second

    @classmethod
    async def over(cls, net: Net, url: str, encryption: SealSettings = NO_KEYS) -> Two:
        model = Model(["Shall I? ", ("pay", {"euros": 7})], ["Done."])
        more = {"store": StoreSettings(url, encryption=encryption), "keys": KEYS}
        tool = function_tool(pay, approve=True)
        return cls(model, *[await gateway_of(net, model, tool, of_gateway=more) for _ in range(2)])

    async def take_over(self, run: Run) -> None:
        """Makes the second one take over a run of the first one, which it takes for gone."""
        engine = self.second.running.engine

        async def is_gone(worker: str) -> bool:
            return worker != engine.store.worker

        engine.know_workers(is_gone)
        path = f"/api/v1/streams/{run.stream_id}"
        assert (await self.second.ask("GET", path, None, AS_STATE_OF_ALICE)).json["state"] == "waiting"
        await until(lambda: run.stream_id in engine.waiting)


def is_waiting(gateway: Gateway, run: Run) -> bool:
    return run.stream_id in gateway.running.engine.waiting


@pytest.mark.parametrize("is_heard", [False, True])
async def test_a_worker_that_has_lost_a_waiting_run_forgets_it(net: Net, url: str, is_heard: bool) -> None:
    """It finds out as it renews its copy, or as it goes on: it makes no call and decides nothing."""
    both = await Two.over(net, url)
    run = await has_parked(both.first)
    await both.take_over(run)
    assert is_waiting(both.first, run)
    engine = both.first.running.engine
    if is_heard:
        engine.waiting.wake(run.stream_id)
        await until(lambda: not is_waiting(both.first, run) and not both.first.streams)
    journal = engine.store._journal
    assert journal is not None
    journal.keep_alive(at_once=True)
    await until(lambda: not is_waiting(both.first, run))
    assert engine.runs.waiting == 0
    moved = Run(both.second, run.client, run.response)
    assert (await moved.decide()).status == 200
    events = await run.end()
    assert last(events, "tool.result")["tool_result"] == "paid 7"
    assert (made, len(both.model.asked)) == ([7], 2)
    assert len([event for event in events if event["type"] == "approval.decided"]) == 1


@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize("is_here", [False, True])
async def test_a_decision_at_any_worker_reaches_a_waiting_run(
    net: Net, url: str, is_here: bool, is_sealed: bool
) -> None:
    both = await Two.over(net, url, encryption=KEYS_OF_STORE if is_sealed else NO_KEYS)
    run = await has_parked(both.first)
    decider = both.first if is_here else both.second
    assert (await Run(decider, run.client, run.response).decide()).status == 200
    events = await run.end()
    assert (last(events, "tool.result")["tool_result"], made) == ("paid 7", [7])


async def test_a_person_is_told_that_the_run_did_not_hear_of_a_decision(
    net: Net, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails behind the decision: a run whose worker lives would wait on for its time."""
    both = await Two.over(net, url)
    run = await has_parked(both.first)
    asked = Run(both.second, run.client, run.response)

    async def fail(*arguments: Any) -> None:
        raise StoreError("slow", "no answer")

    with monkeypatch.context() as change:
        change.setattr(type(both.second.running.engine.store._backend), "tell", fail)
        unheard = await asked.decide()
    assert (unheard.status, unheard.error["reason"], made) == (503, "store", [])
    await asyncio.sleep(SHARED.store_retry)  # until then the store is not asked
    assert (await asked.decide()).error["reason"] == "decided"
    events = await run.end()
    assert (last(events, "tool.result")["tool_result"], made) == ("paid 7", [7])


async def test_a_decision_reaches_the_owner_that_a_worker_does_not_know_yet(net: Net, url: str) -> None:
    """The worker that is asked follows the run of another one, which is gone since."""
    both = await Two.over(net, url)
    run = await has_parked(both.first)
    path = f"/api/v1/streams/{run.stream_id}"
    assert (await both.second.ask("GET", path, None, AS_STATE_OF_ALICE)).json["state"] == "waiting"
    engine = both.second.running.engine

    async def is_gone(worker: str) -> bool:
        return worker != engine.store.worker

    engine.know_workers(is_gone)
    assert (await Run(both.second, run.client, run.response).decide()).status == 200
    await until(lambda: made == [7])
    followed = await both.second.ask("GET", path, None, AS_ALICE)
    assert last(followed.events, "finish")["finish_reason"] == "stop"
    run.client.close()


@pytest.mark.parametrize("who", ["its worker", "another worker", "nobody has it"])
async def test_a_waiting_run_is_cancelled_wherever_it_is_asked(net: Net, url: str, who: str) -> None:
    both = await Two.over(net, url)
    run = await has_parked(both.first)
    asked = both.first if who == "its worker" else both.second
    if who == "nobody has it":
        both.first.running.engine.begin_drain()
        await run.response.rest()
        await until(lambda: both.first.running.engine.store.find_here(run.stream_id) is None)
    answer = await asked.ask("DELETE", f"/api/v1/streams/{run.stream_id}", None, AS_ALICE)
    assert (answer.status, answer.json["state"]) == (200 if who == "nobody has it" else 202, "cancelled")
    followed = await asked.ask("GET", f"/api/v1/streams/{run.stream_id}", None, AS_ALICE)
    assert last(followed.events, "finish")["finish_reason"] == "cancelled"
    assert told(last(followed.events, "finish")) == ENDS_AFTER_ONE
    await until_answered(partial(is_listed, asked, 0))
    assert (await Run(asked, run.client, run.response).decide()).error["reason"] == "decided"
    assert (made, both.first.running.engine.runs.waiting) == ([], 0)
    assert len(both.model.asked) == 1


@pytest.mark.parametrize("is_sealed", [False, True])
async def test_any_worker_says_that_a_whole_answer_waits(net: Net, url: str, is_sealed: bool) -> None:
    """Its log has nothing before its end: the record of the run says so."""
    both = await Two.over(net, url, encryption=KEYS_OF_STORE if is_sealed else NO_KEYS)
    body = {**M, "stream": False, "approvals": "ask"}
    asking = asyncio.create_task(both.first.ask("POST", "/api/v1/stream", body, AS_ALICE))
    await until(lambda: len(both.first.running.engine.waiting._runs) == 1)
    [stream_id] = both.first.running.engine.waiting._runs
    path = f"/api/v1/streams/{stream_id}"
    for gateway in (both.first, both.second, both.second):
        assert (await gateway.ask("GET", path, None, AS_STATE_OF_ALICE)).json["state"] == "waiting"
    tools = both.first.running.engine.run_tools
    assert tools is not None
    await tools.desk.records.decide(f"{stream_id}-1", ApprovalDecision("deny"))  # the run hears nothing of it
    for gateway, state in ((both.first, "waiting"), (both.second, "running")):
        assert (await gateway.ask("GET", path, None, AS_STATE_OF_ALICE)).json["state"] == state
    both.first.running.engine.waiting.wake(stream_id)
    assert (await asking).status == 200

    async def is_finished(gateway: Gateway) -> bool:
        state: str = (await gateway.ask("GET", path, None, AS_STATE_OF_ALICE)).json["state"]
        return state == "finished"

    for gateway in (both.first, both.second):
        await until_answered(partial(is_finished, gateway))
