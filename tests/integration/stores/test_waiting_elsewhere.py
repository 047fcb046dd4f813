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

from tests.integration.gateway import Net, Peer
from tests.integration.processes import Server, serving
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
from tests.integration.tool_runs import Model
from tests.waiting import until, until_answered

ASK = ("pay", {"city": "Oslo"})
GRACE = "[server]\ngrace = 600\n"


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
