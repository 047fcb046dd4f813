"""A run with two owners: the one that was cut off from the store makes no call for which the new one has to answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import ChangeLimits
from tests.integration.gateway import QUERY, Client, Gateway, Net, Peer, Response, on_uvloop
from tests.integration.stores.servers import RedisServer
from tests.integration.stores.test_run_takeover import UNKNOWN, Events, Till, events_of, text_of
from tests.integration.test_durable import follow, followed
from tests.integration.tool_runs import Model, gateway_of, http_tool
from tests.soak.machines.network import StoreLink
from tests.waiting import SECONDS, until, until_answered

RESUMABLE = {**QUERY, "model": "m", "resumable": True}


class Held(Till):
    """A till whose calls wait until a test lets them go."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()

    async def answer(self) -> bytes:
        await self.open.wait()
        return await super().answer()


class Owners:
    """Two gateways of one Redis, each with a till of its own; the first one's link can be silenced.

    Args:
        net: The scenario's servers.
        redis: The store.
        model: What both ask.
        first: The till of the gateway that has the run first.
        options: Of the tool.
    """

    def __init__(self, net: Net, redis: RedisServer, model: Model, first: Till, **options: Any) -> None:
        self._net, self._redis, self._model, self._options = net, redis, model, options
        self.tills = (first, Till())
        self.link = StoreLink(redis.port)
        self.gateways: list[Gateway] = []
        self._clients: list[Client] = []

    async def start(self) -> tuple[Response, Response]:
        """Returns the responses of who has asked the first gateway, and of who follows on the second."""
        await self.link.start()
        self._net.stack.push_async_callback(self.link.stop)
        for till, url in zip(self.tills, (self.link.url, self._redis.url), strict=True):
            tool = http_tool("pay", f"{(await self._net.upstream(till.handle)).url}/pay", **self._options)
            of_stream = {"url": url, "commit_after": 0.02}
            self.gateways.append(await gateway_of(self._net, self._model, tool, of_stream=of_stream))
        client, response = await self.gateways[0].stream(RESUMABLE)
        await response.until(b".3\n")
        self.stream_id = response.headers["x-gai-stream-id"]
        follower, elsewhere = await follow(self.gateways[1], self.stream_id)
        await elsewhere.until(b".3\n")
        self._clients += [client, follower]
        return response, elsewhere

    async def followed(self) -> list[Events]:
        """Returns what each gateway says of the run now, after the first one has heard of the second."""
        await until(lambda: self._net.warned("another worker has taken it over") == 1)
        for once in ("the store is degraded", "has epoch 2: restarted"):
            assert self._net.warned(once) == 1
        for of_the_first in ("its run is not kept yet", "a call is not noted", "a result is not stored"):
            self._net.warned(of_the_first)

        async def answers() -> bool:
            return (await followed(self.gateways[0], self.stream_id)).status == 200

        await until_answered(answers)
        return [[("", e) for e in (await followed(each, self.stream_id)).events] for each in self.gateways]


def journals(owners: Owners) -> list[int]:
    return [len(till.journal) for till in owners.tills]


@pytest.mark.parametrize("is_idempotent", [False, True])
@on_uvloop
async def test_a_call_that_a_former_owner_reads_is_not_sent(
    net: Net, redis_server: RedisServer, change_limits: ChangeLimits, is_idempotent: bool
) -> None:
    """It reads the call while the store is silent, or after it has heard of the new owner."""
    change_limits(lease_lost=1.2, lease_renewal=0.1, store_timeout=0.5)
    go_on = asyncio.Event()

    async def hold(_: Peer) -> None:
        if len(model.asked) == 1:
            await go_on.wait()

    model = Model(["One", ". ", hold, ("pay", {"city": "Oslo"})], ["Done."])
    owners = Owners(net, redis_server, model, Till(), idempotent=is_idempotent)
    response, elsewhere = await owners.start()
    owners.link.silence()
    async with asyncio.timeout(SECONDS):
        await elsewhere.rest()
        if is_idempotent:
            owners.link.heal()
            await response.rest()
            go_on.set()
        else:
            go_on.set()
            await response.until(b'"tool.result"')
            owners.link.heal()
            await response.rest()
    await until(lambda: owners.gateways[0].streams == 0)
    assert journals(owners) == [0, 1]
    assert response.ended
    assert elsewhere.ended
    here, there = await owners.followed()
    assert here == there
    assert text_of(there) == "One. Done."
    assert [event["tool_result"] for event in events_of(there, "tool.result")] == [{"paid": 1}]
    assert response.types.count("done") == 1


@pytest.mark.parametrize("is_idempotent", [False, True])
@on_uvloop
async def test_the_result_of_a_call_that_both_may_have_sent_is_used_once(
    net: Net, redis_server: RedisServer, change_limits: ChangeLimits, is_idempotent: bool
) -> None:
    change_limits(lease_lost=1.2, lease_renewal=0.1, store_timeout=0.5)
    model, first = Model(["One", ". ", ("pay", {"city": "Oslo"})], ["Done."]), Held()
    owners = Owners(net, redis_server, model, first, idempotent=is_idempotent)
    response, elsewhere = await owners.start()
    await until(lambda: len(first.journal) == 1)
    owners.link.silence()
    async with asyncio.timeout(SECONDS):
        await elsewhere.rest()
        first.open.set()
        await asyncio.sleep(0.2)
        owners.link.heal()
        await response.rest()
    await until(lambda: owners.gateways[0].streams == 0)
    assert journals(owners) == [1, int(is_idempotent)]
    here, there = await owners.followed()
    assert here == there
    [result] = events_of(there, "tool.result")
    assert result["tool_result"] == ({"paid": 1} if is_idempotent else UNKNOWN)
    keys = {call["idempotency-key"] for till in owners.tills for call in till.journal}
    assert len(keys) == 1
    assert text_of(there) == "One. Done."
    assert response.types.count("done") == 1
