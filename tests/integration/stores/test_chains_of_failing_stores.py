"""Chains whose store is out of reach, full, slow, damaged or sealed with another key: no id reads as unknown.

The store itself is tested beside this file; here a client asks a gateway.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gai_fast.model.settings import ANONYMOUS, KeySettings, SealSettings, key_digest
from tests.conftest import ChangeLimits
from tests.integration.gateway import END, MESSAGES, SSE_HEAD, Gateway, Net, Peer, delta
from tests.integration.stores.conftest import MakeServer
from tests.integration.stores.sealing import sealed_with
from tests.integration.stores.servers import FAULTS, RedisServer, SlowLink
from tests.integration.stores.test_sqlite_responses import execute
from tests.integration.test_responses_socket import PATH
from tests.waiting import until_answered
from tests.wire import chunk

SLOW = {**FAULTS, "is slow": (RedisServer.pause, RedisServer.resume)}


class Gated:
    """An upstream whose answers wait for their ends while they must.

    Attributes:
        may_end: Whether they may end.
        asked: The number of requests.
    """

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.asked = 0

    async def __call__(self, peer: Peer) -> None:
        while await peer.request():
            self.asked += 1
            await peer.send(SSE_HEAD, chunk(delta("word")))
            await self.may_end.wait()
            await peer.send(*END)


async def ask(gateway: Gateway, parent: str | None = None, **more: Any) -> Any:
    body = {"model": "m", "input": "?", "previous_response_id": parent, **more}
    return await gateway.ask("POST", PATH, body)


@pytest.mark.parametrize("fault", SLOW)
async def test_a_store_that_fails_amid_an_answer_is_never_an_unknown_id(
    net: Net, make_server: MakeServer, change_limits: ChangeLimits, fault: str
) -> None:
    change_limits(store_retry=0.0)
    fail, mend = SLOW[fault]
    server, gated = make_server(), Gated()
    gateway = await net.gateway(await net.upstream(gated), url=server.url)
    kept = (await ask(gateway)).json["id"]
    gated.may_end.clear()
    client, response = await gateway.stream({"model": "m", "input": "?", "stream": True}, PATH)
    await response.until(b"response.output_text.delta")
    fail(server)
    gated.may_end.set()
    last = (await response.rest()).events[-1]["response"]
    client.close()
    assert (last["status"], last["store"]) == ("completed", False), "its client has all of it"
    for parent in (kept, last["id"]):
        answer = await ask(gateway, parent)
        # Full or read only, a store still tells what it has.
        is_read = answer.status == 200 if parent == kept else answer.status == 400
        assert is_read or (answer.status, answer.error["code"]) == (503, "overloaded"), answer.body
        assert is_read is (fault in ("is a replica", "is full"))
    mend(server)

    async def is_kept() -> bool:
        return (await ask(gateway)).json["store"] is True

    await until_answered(is_kept)
    if fault == "is gone":  # and has lost what it had
        return
    assert (await ask(gateway, kept)).status == 200
    gone = await ask(gateway, last["id"])
    assert (gone.status, gone.error["code"]) == (400, "previous_response_not_found")


async def test_a_large_record_of_one_caller_that_takes_long_holds_up_no_other(
    net: Net, redis_server: RedisServer
) -> None:
    keys = tuple(KeySettings(name, (key_digest(name),)) for name in ("anna", "bert"))
    link = SlowLink(redis_server)
    url = await link.open()
    net.stack.push_async_callback(link.close)
    gateway = await net.gateway(await net.upstream(Gated()), url=url, keys=keys)

    async def asks(name: str, method: str, path: str, body: Any = None, **more: str) -> Any:
        return await gateway.ask(method, path, body, {"authorization": f"Bearer {name}", **more})

    body = {"model": "m", "input": "?"}
    large = (await asks("anna", "POST", PATH, {**body, "input": "x" * 2_000_000})).json["id"]
    small = (await asks("bert", "POST", PATH, body)).json["id"]
    link.is_slow = True
    slow = [asyncio.create_task(asks("anna", "GET", f"{PATH}/{large}")) for _ in range(12)]
    others: list[Any] = []
    for number in range(12):  # while those wait, and after they have failed
        key = {"idempotency-key": f"key-{number}"}
        others += [
            await asks("bert", "GET", f"{PATH}/{small}"),
            await asks("bert", "POST", PATH, {**body, "previous_response_id": small}),
            await asks("bert", "POST", "/v1/chat/completions", {"model": "m", "messages": MESSAGES}, **key),
        ]
        await asyncio.sleep(0.1)
    assert [each.status for each in others] == [200] * 36
    answers = await asyncio.gather(*slow)
    assert {(each.status, each.error["code"]) for each in answers} == {(503, "overloaded")}
    assert (await gateway.ask("GET", "/readyz")).json["store"] == "slow"
    link.is_slow = False

    async def is_served() -> bool:
        return (await asks("anna", "GET", f"{PATH}/{large}")).status == 200

    await until_answered(is_served)


async def refusals(gateway: Gateway, parent: str, item: str) -> set[tuple[int, str]]:
    """Returns what a chain, an item, the object and its items are refused with."""
    named = [{"type": "item_reference", "id": item}, {"role": "user", "content": "?"}]
    answers = [
        await ask(gateway, parent),
        await ask(gateway, input=named),
        await gateway.ask("GET", f"{PATH}/{parent}"),
        await gateway.ask("GET", f"{PATH}/{parent}/input_items"),
    ]
    return {(each.status, each.error["code"] if each.status >= 400 else "") for each in answers}


@pytest.mark.parametrize("is_sealed", [False, True])
async def test_a_damaged_response_is_a_refusal_and_its_undamaged_twin_is_read(
    net: Net, tmp_path: Path, is_sealed: bool
) -> None:
    path, gated = tmp_path / "store.db", Gated()
    encryption = sealed_with(0) if is_sealed else SealSettings()
    gateway = await net.gateway(await net.upstream(gated), url=f"sqlite:///{path}", encryption=encryption)
    places = []
    for _ in range(2):
        answer = (await ask(gateway)).json
        places.append((answer["id"], answer["output"][0]["id"]))
    (damaged, item), (twin, its_item) = places
    place = gateway.running.engine.store.responses._name(ANONYMOUS, damaged)
    ((value,),) = execute(path, "SELECT value FROM responses WHERE name = ?", place)
    execute(path, "UPDATE responses SET value = ? WHERE name = ?", value[:-1] + bytes([value[-1] ^ 1]), place)
    asked = gated.asked
    assert await refusals(gateway, damaged, item) == {(500, "internal")}
    assert gated.asked == asked
    assert await refusals(gateway, twin, its_item) == {(200, "")}


@pytest.mark.parametrize("keys", [(), (1,)], ids=["no key", "another key"])
async def test_a_store_that_is_sealed_with_another_key_is_a_refusal(
    net: Net, tmp_path: Path, keys: tuple[int, ...]
) -> None:
    url, gated = f"sqlite:///{tmp_path}/store.db", Gated()
    upstream = await net.upstream(gated)
    async with AsyncExitStack() as stack:
        first = await Net(stack).gateway(upstream, url=url, encryption=sealed_with(0))
        answer = (await ask(first)).json
    place = (answer["id"], answer["output"][0]["id"])
    other = await net.gateway(upstream, url=url, encryption=sealed_with(*keys))
    assert await refusals(other, *place) == {(503, "store_sealed")}
    assert gated.asked == 1
    right = await net.gateway(upstream, url=url, encryption=sealed_with(2, 0))
    assert await refusals(right, *place) == {(200, "")}
