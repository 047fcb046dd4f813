"""Answers that several processes share, over each store."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Mock
from gai_fast.model.settings import CacheSettings
from gai_fast.runtime.clock import now_ms
from gai_fast.server.serving import start
from tests.integration.gateway import NATIVE, Gateway, M, Net, Response, on_uvloop, settings_for
from tests.integration.processes import Server, configure, hold, release, serving
from tests.integration.test_cache import KEPT, ON, TEXT, ask, result_of
from tests.integration.test_durable import Story, id_of
from tests.unit.stores.fake_backend import FakeBackend, World
from tests.waiting import until

STORES = pytest.mark.parametrize("store", ["sqlite", "redis"])


@pytest.fixture
def url(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if store == "sqlite":
        return f"sqlite:///{tmp_path}/logs.db"
    return str(request.getfixturevalue("redis_server").url)


@STORES
@on_uvloop
async def test_an_answer_is_found_by_another_process(net: Net, url: str) -> None:
    mock = await net.mock(deltas=5)
    one, other = [await net.gateway(mock, cache=KEPT, url=url) for _ in range(2)]
    responses = [await ask(gateway) for gateway in (one, other, one, other)]
    assert [result_of(response) for response in responses] == ["miss", "hit", "hit", "hit"]
    assert len({response.text for response in responses}) == 1
    assert len(mock.requests) == 1


@STORES
@on_uvloop
async def test_a_call_is_joined_from_another_process(net: Net, url: str) -> None:
    story = Story()
    upstream = await net.upstream(story)
    one, other = [await net.gateway(upstream, cache=KEPT, url=url, commit_after=0.02) for _ in range(2)]
    first, response = await one.stream(M, **ON)
    story.go_on(2)
    await response.until(b"rd 1 ")
    _, joined = await other.stream(M, **ON)
    await joined.until(b"rd 1 ")
    assert result_of(joined) == "joined"
    first.close()  # the other one is still reading
    await until(lambda: one.streams == 0)
    story.end()
    assert (await joined.rest()).text == TEXT
    assert story.requests == 1


@STORES
@on_uvloop
async def test_what_failed_is_asked_again_by_another_process(net: Net, url: str) -> None:
    story = Story()
    upstream = await net.upstream(story)
    one, other = [await net.gateway(upstream, cache=KEPT, url=url, commit_after=0.02) for _ in range(2)]
    client, response = await one.stream(M, **ON)
    story.go_on(1)
    await response.until(b"rd 0 ")
    client.close()
    await upstream.until_finished()
    story.end()
    story.end()
    again = await ask(other)
    assert (result_of(again), again.text) == ("miss", TEXT)


async def over(net: Net, mock: Mock, world: World, **options: Any) -> Gateway:
    """Returns a gateway whose store is a fake one."""
    running = await start(settings_for(mock.url, **options), memory=FakeBackend(world))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1]


@on_uvloop
async def test_a_store_that_fails_is_a_miss(net: Net) -> None:
    world = World()
    mock = await net.mock(deltas=3)
    gateway = await over(net, mock, world, cache=KEPT)
    assert result_of(await ask(gateway)) == "miss"
    world.fail()
    assert result_of(await ask(gateway)) == "hit"
    responses = [await ask(gateway, {**M, "seed": seed}) for seed in (1, 1, 2)]
    assert [result_of(response) for response in responses] == ["miss", "hit", "miss"]
    assert all(response.types[-1] == "done" for response in responses)
    net.warned("the store is degraded")
    world.mend()


@on_uvloop
async def test_a_store_that_cannot_be_opened_is_a_miss(net: Net) -> None:
    world = World()
    mock = await net.mock(deltas=3)
    gateway = await over(net, mock, world, cache=KEPT)
    world.fail()
    assert [result_of(await ask(gateway)) for _ in range(2)] == ["miss", "hit"]
    world.mend()
    net.warned("the store is degraded")


@on_uvloop
async def test_an_answer_of_another_process_ends_with_its_time(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log comes here late, and stays for as long again."""
    world = World()
    mock = await net.mock(deltas=3)
    cache = CacheSettings(ttl=500.0)
    one, other, third = [await over(net, mock, world, cache=cache) for _ in range(3)]
    assert result_of(await ask(one)) == "miss"
    assert result_of(await ask(other)) == "hit"
    monkeypatch.setattr("gai_fast.server.requests.caching.now_ms", lambda: now_ms() + 501_000)
    assert result_of(await ask(third)) == "miss"


async def begun(server: Server) -> Response:
    client = await server.connect()
    client.request("POST", NATIVE, M, ON)
    return await client.response()


@pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")
async def test_workers_share_calls_and_answers(net: Net, tmp_path: Path) -> None:
    async with Mock(deltas=5) as mock:
        configure(tmp_path, mock, more="[cache]\nttl = 600\n")
        hold(mock)
        async with serving(net, tmp_path, "--workers", "2") as server:
            running = await asyncio.gather(*(begun(server) for _ in range(4)))
            release(mock)
            for response in running:
                assert (await response.rest()).types[-2:] == ["finish", "done"]
            assert Counter(map(result_of, running)) == {"miss": 1, "joined": 3}
            assert len({id_of(response)[22:] for response in running}) == 2, "both workers"
            later = await asyncio.gather(*(begun(server) for _ in range(4)))
            for response in later:
                await response.rest()
            assert Counter(map(result_of, later)) == {"hit": 4}
            assert len({response.text for response in (*running, *later)}) == 1
            assert len(mock.requests) == 1
            server.signal()
            assert await server.ended() == 0
