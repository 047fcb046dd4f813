"""Servers that stop let streams go: their successors go on with them, and clients that follow by id see no error."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Mock
from tests.integration.gateway import Net
from tests.integration.processes import Server, configure, serving
from tests.integration.stores.conftest import MakeBackend
from tests.integration.stores.test_serve import folder as folder
from tests.integration.stores.test_serve import frames, get
from tests.integration.stores.test_takeover import BODY, STORES, Events, kinds, numbers, said, whole
from tests.waiting import until

RESTARTS = 4
"""One more than the workers that a stream may lose."""
DELTAS = 3000
WISH = '[stream]\non_midstream_failure = "continue"\n'

Start = Callable[[], Awaitable[Server]]


@asynccontextmanager
async def successors(net: Net, folder: Path, url: str, *more: str) -> AsyncIterator[Start]:
    """Starts servers on one socket, over one store."""
    async with AsyncExitStack() as stack:
        shared = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1000))
        yield lambda: stack.enter_async_context(serving(net, folder, "--fd", shared, "--store", url, *more))


async def begun(server: Server) -> str:
    """Starts a stream without a client; returns its id."""
    answer = await get(server.host, "/api/v1/streams", BODY)
    identifier: str = json.loads(answer.partition(b"\r\n\r\n")[2])["id"]
    return identifier


async def followed(host: str, stream_id: str, had: Events, cuts: list[bytes]) -> None:
    """Follows a stream by its id until it is over, as an `EventSource` does: who is cut off comes back at once."""
    while not had or had[-1][1]["type"] != "done":
        assert len(cuts) < 20, had[-3:]
        last = next((name for name, _ in reversed(had) if name), "")
        answer = await get(host, f"/api/v1/streams/{stream_id}?after={last or f'{stream_id}.0'}")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        had += frames(answer)
        cuts.append(answer)


async def until_asked(mock: Mock, times: int) -> None:
    """Waits until so many requests were sent, and some of the last answer."""
    await until(lambda: len(mock.requests) >= times and mock.requests[-1].deltas > 50)


async def state_of(server: Server, stream_id: str) -> dict[str, Any]:
    answer = await server.ask("GET", f"/api/v1/streams/{stream_id}", None, {"accept": "application/json"})
    state: dict[str, Any] = answer.json
    return state


@pytest.mark.parametrize("store", STORES)
async def test_a_stream_outlasts_more_servers_than_it_may_lose(net: Net, folder: Path, url: str, store: str) -> None:
    (folder / "seal").write_text("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=")
    async with Mock(deltas=DELTAS, rate=0) as mock:
        configure(folder, mock)
        text = await whole(mock, net, folder)
        mock.rate = 200
        configure(folder, mock, grace=0.1, more=WISH + STORES[store])
        async with successors(net, folder, url) as start:
            server = await start()
            stream_id = await begun(server)
            had: Events = []
            cuts: list[bytes] = []
            client = asyncio.create_task(followed(server.host, stream_id, had, cuts))
            for restart in range(1, RESTARTS + 1):
                await until_asked(mock, restart)
                successor = await start()
                server.signal()
                assert await server.ended() == 0
                server = successor
            await until_asked(mock, RESTARTS + 1)
            mock.rate = 0
            await client
            again = frames(await get(server.host, f"/api/v1/streams/{stream_id}"))
            assert (await state_of(server, stream_id))["takeovers"] == RESTARTS
            metrics = (await server.ask("GET", "/metrics")).body.decode()
        assert 'gai_fast_takeovers_total{model="m",outcome="continued"} 1.0' in metrics
        assert len(mock.requests) == RESTARTS + 1
    assert said(had) == said(again) == text
    assert kinds(had) == kinds(again) == ["start", *["stream.gap", "warning"] * RESTARTS, "finish", "done"]
    assert numbers(had) == sorted({*numbers(had)})
    for cut in cuts[:-1]:
        assert b"\nretry: " in cut.rstrip(b"\r\n0").split(b"\n\n")[-1] or not frames(cut)
    gaps = [event for _, event in again if event["type"] == "stream.gap"]
    assert [event["reason"] for event in gaps] == ["taken_over"] * RESTARTS
    assert [each for each in had if each in again] == had, "what was sent was stored"


async def test_a_second_signal_lets_streams_go_at_once(net: Net, folder: Path, url: str) -> None:
    async with Mock(deltas=DELTAS, rate=200) as mock:
        configure(folder, mock, grace=600, more=WISH)
        async with successors(net, folder, url) as start:
            server = await start()
            stream_id = await begun(server)
            await until_asked(mock, 1)
            successor = await start()
            server.signal()
            await server.said("draining: ")
            server.signal(signal.SIGINT)
            assert await server.ended() == 0
            assert len(mock.requests) == 1, "nobody asks, so nothing is generated"
            mock.rate = 0
            got = frames(await get(successor.host, f"/api/v1/streams/{stream_id}"))
    assert kinds(got) == ["start", "stream.gap", "warning", "finish", "done"]


async def test_an_answer_without_content_is_asked_again_by_the_successor(net: Net, folder: Path, url: str) -> None:
    async with Mock(deltas=20, rate=0, ttft=60) as mock:
        configure(folder, mock, grace=0.1)
        async with successors(net, folder, url) as start:
            server = await start()
            stream_id = await begun(server)
            await until(lambda: mock.requests)
            successor = await start()
            server.signal()
            assert await server.ended() == 0
            mock.ttft = 0
            got = frames(await get(successor.host, f"/api/v1/streams/{stream_id}"))
            assert len(mock.requests) == 2
    assert kinds(got) == ["stream.gap", "start", "warning", "finish", "done"]


@pytest.mark.parametrize("why", ["error", "takeover"])
async def test_what_does_not_go_on_ends_with_its_server(
    net: Net, folder: Path, url: str, make_backend: MakeBackend, why: str
) -> None:
    more = "" if why == "error" else f"{WISH}[store]\ntakeover = false\n"
    async with Mock(deltas=DELTAS, rate=200) as mock:
        configure(folder, mock, grace=0.1, more=more)
        async with successors(net, folder, url) as start:
            server = await start()
            stream_id = await begun(server)
            await until_asked(mock, 1)
            successor = await start()
            server.signal()
            assert await server.ended() == 0
            got = frames(await get(successor.host, f"/api/v1/streams/{stream_id}"))
            assert len(mock.requests) == 1
    assert kinds(got) == ["start", "error", "done"]
    assert got[-2][1]["error"]["reason"] == "draining"
    backend = make_backend()
    await backend.open()
    assert await backend.request_of(stream_id) is None


async def test_workers_let_go_together(net: Net, folder: Path, url: str) -> None:
    async with Mock(deltas=DELTAS, rate=0) as mock:
        configure(folder, mock)
        text = await whole(mock, net, folder)
        mock.rate = 200
        configure(folder, mock, grace=0.1, more=WISH)
        async with successors(net, folder, url, "--workers", "2") as start:
            server = await start()
            streams = [await begun(server) for _ in range(4)]
            got: list[Events] = [[] for _ in streams]
            clients = [
                asyncio.create_task(followed(server.host, stream_id, had, []))
                for stream_id, had in zip(streams, got, strict=True)
            ]
            await until_asked(mock, 4)
            successor = await start()
            server.signal()
            assert await server.ended() == 0
            await until(lambda: len(mock.requests) >= 8)
            mock.rate = 0
            await asyncio.gather(*clients)
            states = [await state_of(successor, stream_id) for stream_id in streams]
    assert [said(had) for had in got] == [text] * 4
    assert [state["state"] for state in states] == ["finished"] * 4
    assert not any(event["type"] == "error" for had in got for _, event in had)
