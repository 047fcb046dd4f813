"""Keys that are made at run time, on several servers of one store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Mock
from tests.conftest import ChangeLimits
from tests.integration.gateway import NATIVE, M, Net, on_uvloop
from tests.integration.processes import configure, hold, serving
from tests.integration.stores.conftest import MakeServer
from tests.integration.test_keys import ADMIN_KEY, KEYS, OPERATOR, ask, made, rows, status_of
from tests.waiting import until_answered

STORES = pytest.mark.parametrize("store", ["sqlite", "redis"])


@pytest.fixture
def url(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if store == "sqlite":
        return f"sqlite:///{tmp_path}/logs.db"
    return str(request.getfixturevalue("redis_server").url)


async def within_a_second(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(1):
        await until_answered(condition)


@STORES
@on_uvloop
async def test_each_server_of_a_store_has_a_key_within_a_second(net: Net, url: str) -> None:
    mock = await net.mock(rate=50, deltas=1000)
    one, other = [await net.gateway(mock, keys=(OPERATOR,), url=url) for _ in range(2)]
    secret = await made(one, "shop", streams=2)

    async def is_known() -> bool:
        return await status_of(other, secret) == 200

    await within_a_second(is_known)
    assert (await rows(other))["shop"]["limits"]["streams"] == 2
    client, response = await other.stream(M, x_api_key=secret)
    durable, durables = await other.stream({**M, "resumable": True}, x_api_key=secret)
    await response.until(b"text.delta")
    await durables.until(b"text.delta")
    rotated = (await ask(one, "POST", "/shop/rotate", {"grace": 0})).json["secret"]

    async def is_rotated() -> bool:
        return (await status_of(other, secret), await status_of(other, rotated)) == (401, 200)

    await within_a_second(is_rotated)
    assert other.streams == 2
    assert (await ask(one, "DELETE", "/shop")).status == 200
    async with asyncio.timeout(1):
        for each in (response, durables):
            await each.rest()
            assert each.events[-2]["reason"] == "key_revoked"
            assert each.events[-1]["finished"] is True
    assert await status_of(other, rotated) == 401
    client.close()
    durable.close()


@STORES
@on_uvloop
async def test_of_two_servers_that_make_one_name_one_learns_that_it_is_there(net: Net, url: str) -> None:
    mock = await net.mock()
    gateways = [await net.gateway(mock, keys=(OPERATOR,), url=url) for _ in range(2)]
    for number in range(10):
        responses = await asyncio.gather(
            *(ask(gateway, "POST", "", {"name": f"shop{number}"}) for gateway in gateways for _ in range(2))
        )
        assert sorted(each.status for each in responses) == [201, 409, 409, 409]
    await asyncio.gather(*(ask(gateways[n % 2], "POST", "", {"name": f"many{n}"}) for n in range(40)))

    async def is_whole() -> bool:
        return {len(await rows(gateway)) for gateway in gateways} == {51}

    await within_a_second(is_whole)


@STORES
@on_uvloop
async def test_the_first_key_closes_an_open_server_and_the_last_does_not_open_it(net: Net, url: str) -> None:
    mock = await net.mock(deltas=3)
    one, other = await net.gateway(mock, keys=(OPERATOR,), url=url), await net.gateway(mock, url=url)
    assert (await other.ask("POST", NATIVE, M)).status == 200
    assert (await other.ask("GET", "/metrics")).status == 200
    secret = await made(one, "shop")

    async def is_closed() -> bool:
        return (await other.ask("POST", NATIVE, M)).status == 401

    await within_a_second(is_closed)
    assert (await other.ask("POST", NATIVE, M, {"x-api-key": secret})).status == 200
    assert (await other.ask("GET", "/metrics")).status == 401
    assert (await other.ask("GET", KEYS)).status == 401
    assert (await other.ask("GET", KEYS, None, {"x-api-key": secret})).status == 403
    await ask(one, "DELETE", "/shop")
    await asyncio.sleep(0.6)
    assert (await other.ask("POST", NATIVE, M)).status == 401
    later = await net.gateway(mock, url=url)
    assert (await later.ask("POST", NATIVE, M)).status == 401


@STORES
@on_uvloop
async def test_keys_outlive_the_server(net: Net, url: str) -> None:
    mock = await net.mock(deltas=3)
    one = await net.gateway(mock, keys=(OPERATOR,), url=url)
    secret = await made(one, "shop", requests_per_minute=9, expires="2090-01-01")
    await one.running.close()
    later = await net.gateway(mock, keys=(OPERATOR,), url=url)
    assert await status_of(later, secret) == 200
    row = (await rows(later))["shop"]
    assert (row["limits"]["requests_per_minute"], row["expires"]) == (9, "2090-01-01T00:00:00+00:00")


@pytest.fixture
def soon_lost(change_limits: ChangeLimits) -> None:
    change_limits(keys_known=1.0)


@on_uvloop
@pytest.mark.usefixtures("soon_lost")
async def test_a_store_that_is_gone_is_503_and_never_401(net: Net, make_server: MakeServer) -> None:
    redis = make_server()
    gateway = await net.gateway(await net.mock(), keys=(OPERATOR,), url=redis.url)
    secret = await made(gateway, "shop")
    redis.pause()
    try:
        changes = [("POST", "", {"name": "new"}), ("PATCH", "/shop", {}), ("DELETE", "/shop", None)]
        for method, path, body in [*changes, ("POST", "/shop/rotate", {})]:
            refused = await ask(gateway, method, path, body)
            assert (refused.status, refused.error["reason"]) == (503, "store"), method
        answers = []

        async def is_lost() -> bool:
            answers.append(await status_of(gateway, secret))
            return answers[-1] == 503

        await until_answered(is_lost)
        assert {*answers} <= {200, 503}
        assert await status_of(gateway, "sk-canary-wrong-012345") == 401
    finally:
        redis.resume()

    async def is_back() -> bool:
        return await status_of(gateway, secret) == 200

    await until_answered(is_back)
    assert net.warned("store")


@on_uvloop
async def test_keys_count_while_a_store_is_gone_for_a_moment(net: Net, make_server: MakeServer) -> None:
    redis = make_server()
    gateway = await net.gateway(await net.mock(), keys=(OPERATOR,), url=redis.url)
    secret = await made(gateway, "shop")
    redis.kill()
    await asyncio.sleep(0.5)
    assert await status_of(gateway, secret) == 200
    redis.start()  # it has lost all that it had
    again: list[int] = []

    async def is_written_again() -> bool:
        again.append(await status_of(gateway, secret))
        return redis.command("EXISTS", "gai:keys:mark") == b":1\r\n"

    await until_answered(is_written_again)
    assert {*again} == {200}
    other = await net.gateway(await net.mock(), keys=(OPERATOR,), url=redis.url)
    assert await status_of(other, secret) == 200
    net.warned("store")


@on_uvloop
async def test_no_secret_is_in_the_store(net: Net, tmp_path: Path) -> None:
    gateway = await net.gateway(await net.mock(), keys=(OPERATOR,), url=f"sqlite:///{tmp_path}/logs.db")
    secret = await made(gateway, "shop")
    rotated = (await ask(gateway, "POST", "/shop/rotate")).json["secret"]
    await gateway.running.close()
    for path in tmp_path.glob("logs.db*"):
        content = path.read_bytes()
        assert secret.encode() not in content
        assert rotated.encode() not in content
        assert secret.removeprefix("sk-gai-").encode() not in content


@STORES
async def test_the_workers_of_two_servers_share_keys(net: Net, url: str, tmp_path: Path) -> None:
    async with Mock() as mock:
        configure(tmp_path, mock, more=ADMIN_KEY)
        options = ("--workers", "2", "--store", url)
        async with serving(net, tmp_path, *options) as one, serving(net, tmp_path, *options) as other:
            secret = await made(one, "shop")
            await asyncio.sleep(1)
            assert {await status_of(server, secret) for server in (one, other) for _ in range(4)} == {200}
            hold(mock)
            streams = []
            for _ in range(4):
                client = await other.connect()
                client.request("POST", NATIVE, M, {"x-api-key": secret})
                streams.append(await (await client.response()).until(b"text.delta"))
            assert (await ask(one, "DELETE", "/shop")).status == 200
            async with asyncio.timeout(1):
                for response in streams:
                    await response.rest()
            assert {response.events[-2]["reason"] for response in streams} == {"key_revoked"}
            await asyncio.sleep(1)
            assert {await status_of(server, secret) for server in (one, other) for _ in range(4)} == {401}
