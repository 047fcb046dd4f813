"""An owner that was taken for gone and comes back: its upstream stops, and its clients get what all others get."""

from __future__ import annotations

import asyncio

import pytest

from gai_fast.cli.mock.command import Mock
from tests.conftest import ChangeLimits
from tests.integration.gateway import QUERY, Net, Response, on_both_loops
from tests.integration.stores.servers import RedisServer
from tests.integration.test_durable import follow, followed
from tests.soak.machines.network import StoreLink
from tests.waiting import SECONDS, until, until_answered

RESUMABLE = {**QUERY, "model": "m", "resumable": True}


def stored_text(response: Response) -> str:
    """Returns the text that the gap says, which is what came before it and was not void."""
    [gap] = [event for event in response.events if event["type"] == "stream.gap"]
    kept = [e["text"] for e in response.events if e["type"] == "text.delta" and e["seq"] < gap["from"]]
    assert gap["text"] == "".join(kept)
    return str(gap["text"])


@pytest.mark.parametrize("sync", ["batched", "before_send"])
@on_both_loops
async def test_an_owner_that_was_cut_off_from_its_store_stops_once_it_hears_of_the_new_one(
    net: Net, redis_server: RedisServer, change_limits: ChangeLimits, sync: str
) -> None:
    change_limits(lease_lost=1.2, lease_renewal=0.1, store_timeout=0.5)
    link = StoreLink(redis_server.port)
    await link.start()
    net.stack.push_async_callback(link.stop)
    mock: Mock = await net.mock(deltas=100_000, rate=50)
    here = await net.gateway(mock, url=link.url, sync=sync, commit_after=0.02)
    there = await net.gateway(mock, url=redis_server.url, sync=sync, commit_after=0.02)
    _, response = await here.stream(RESUMABLE)
    stream_id = response.headers["x-gai-stream-id"]
    await response.until(b".9\n")
    _, in_chunks = await follow(here, stream_id, "?format=openai")
    _, elsewhere = await follow(there, stream_id)
    await elsewhere.until(b".9\n")
    link.silence()
    async with asyncio.timeout(SECONDS):
        await elsewhere.rest()
        await response.until(b".%d\n" % (len(elsewhere.events) + 20))
        assert not mock.requests[0].closed.is_set(), "the failure of a store ends no stream"
        link.heal()
        await response.rest()
        await in_chunks.rest()
        await mock.requests[0].closed.wait()
    await until(lambda: here.streams == 0)
    assert response.ended
    assert response.types[-2:] == elsewhere.types[-2:] == ["error", "done"]
    assert in_chunks.events[-1]["error"]["code"] == "network"
    assert elsewhere.events[-2]["error"]["reason"] == "worker_lost"
    if sync == "batched":
        assert response.events[-3:] == elsewhere.events[-3:]
        assert stored_text(response) == stored_text(elsewhere)
    else:
        assert response.events[-2]["error"]["reason"] == "log_behind"

    async def has_its_store() -> bool:
        return (await followed(here, stream_id)).status == 200

    await until_answered(has_its_store)
    for gateway in (here, there):
        assert (await followed(gateway, stream_id)).events == elsewhere.events
    assert net.warned("the store is degraded") == 1
    assert net.warned("another worker has taken it over") == 1
    assert net.warned("has epoch 2: closed") == 1
