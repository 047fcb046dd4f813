"""`gai_fast/stores/redis_client.py`: scripts have a connection of their own, and each its own reply."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gai_fast.stores import StoreError
from gai_fast.stores.redis_client import RedisClient, Script
from tests.conftest import ChangeLimits
from tests.integration.stores.conftest import MakeServer
from tests.integration.stores.servers import RedisServer
from tests.waiting import SECONDS, until

pytestmark = pytest.mark.usefixtures("needs_redis")

Connect = Callable[[str], Awaitable[RedisClient]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    made: list[RedisClient] = []

    async def greet(connection: Any) -> None:
        await connection.on_connect()

    async def connect(url: str) -> RedisClient:
        client = RedisClient(url, greet)
        made.append(client)
        await client.open("SET", "probe", "1")
        return client

    yield connect
    for client in made:
        await client.close()


async def fault(call: Awaitable[object]) -> StoreError:
    with pytest.raises(StoreError) as raised:
        await call
    return raised.value


ECHO = Script("return {ARGV[1], redis.call('GET', KEYS[1]) or ''}")
"""Tells its argument, and what is under its key."""


def script_clients(server: RedisServer) -> list[str]:
    """Returns the connections whose last command was a script."""
    lines = server.command("CLIENT", "LIST").decode().splitlines()
    return [line for line in lines if "cmd=eval" in line]


async def test_scripts_run_over_one_connection_in_the_database_of_the_url(
    connect: Connect, make_server: MakeServer
) -> None:
    server = make_server()
    server.command("ACL", "SETUSER", "worker", "on", ">secret", "~*", "+@all")
    client = await connect(f"redis://worker:secret@127.0.0.1:{server.port}/3")
    await client.command("SET", "k", "mine")
    for text in (b"a", b"b"):
        assert await client.run_script(ECHO, "k", text) == [text, b"mine"]
    (first,) = script_clients(server)
    assert "db=3" in first
    assert "user=worker" in first
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    server.command("SCRIPT", "FLUSH")
    await until(lambda: not script_clients(server))
    await asyncio.sleep(0.05)  # the loop sees that the connection has ended
    assert await client.run_script(ECHO, "k", b"c") == [b"c", b"mine"], "connected again, and sent the script again"
    (second,) = script_clients(server)
    assert "db=3" in second


async def test_scripts_run_at_once_get_their_own_replies(connect: Connect, redis_server: RedisServer) -> None:
    client = await connect(redis_server.url)
    texts = [b"%d" % number for number in range(200)]
    replies = await asyncio.gather(*(client.run_script(ECHO, "none", text) for text in texts))
    assert replies == [[text, b""] for text in texts]


@pytest.mark.parametrize("size", range(13))
async def test_a_reply_that_is_cut_short_is_reported_and_the_next_script_has_its_own(
    connect: Connect, redis_server: RedisServer, size: int
) -> None:
    """A relay passes on so many bytes of the reply `*2\\r\\n$1\\r\\na\\r\\n…`, and hangs up."""
    cuts: list[int] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, asks = await asyncio.open_connection("127.0.0.1", redis_server.port)
        while asked := await reader.read(1 << 16):
            asks.write(asked)
            answer = await answers.read(1 << 16)
            if cuts and b"EVAL" in asked:
                writer.write(answer[: cuts.pop()])
                break
            writer.write(answer)
        for each in (asks, writer):
            each.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = await connect(f"redis://127.0.0.1:{port}")
        assert await client.run_script(ECHO, "none", b"a") == [b"a", b""]
        cuts.append(size)
        problem = await fault(client.run_script(ECHO, "none", b"secret"))
        assert (problem.fault, str(problem)) == ("unreachable", f"redis://127.0.0.1:{port} cannot be reached")
        assert await client.run_script(ECHO, "none", b"c") == [b"c", b""]
        await client.close()


async def test_a_script_is_a_question_of_a_client_and_ends_as_early_where_the_server_is_silent(
    connect: Connect, make_server: MakeServer, change_limits: ChangeLimits
) -> None:
    """The exchange of limits of a keyed request had 5 s; what other requests ask has `limits.store_answer`."""
    change_limits(store_timeout=10 * SECONDS)
    server = make_server()
    client = await connect(server.url)
    server.pause()
    try:
        async with asyncio.timeout(SECONDS):
            problem = await fault(client.run_script(ECHO, "none", b"a"))
    finally:
        server.resume()
    assert problem.fault == "unreachable", "the limits count as out of reach: the next request does not wait"
    assert await client.run_script(ECHO, "none", b"b") == [b"b", b""], "its late reply is not taken for the next"


async def test_of_two_thousand_cancelled_scripts_no_reply_is_mistaken(
    connect: Connect, redis_server: RedisServer
) -> None:
    client = await connect(redis_server.url)
    chance = random.Random(5)
    cancelled = answered = 0

    async def ask(text: bytes) -> None:
        nonlocal answered
        assert await client.run_script(ECHO, "none", text) == [text, b""]
        answered += 1

    while cancelled < 2_000:
        tasks = [asyncio.ensure_future(ask(b"%d" % chance.getrandbits(64))) for _ in range(4)]
        await asyncio.sleep(chance.choice([0, 0.0003, 0.0006, 0.001, 0.002]))
        for task in tasks:
            if chance.random() < 0.8:
                cancelled += task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError), result
    assert answered > 100


async def test_a_script_fails_after_the_store_is_closed(connect: Connect, redis_server: RedisServer) -> None:
    client = await connect(redis_server.url)
    await client.close()
    assert str(await fault(client.run_script(ECHO, "none", b"a"))) == f"{redis_server.url} is closed"


async def test_a_connection_that_the_loop_has_closed_is_a_server_out_of_reach(
    connect: Connect, redis_server: RedisServer
) -> None:
    """uvloop raises a `RuntimeError`, which counted as a bug: the followers of all streams were cut off."""
    client = await connect(redis_server.url)

    async def write(text: str) -> None:
        raise RuntimeError(text)

    text = "unable to perform operation on <TCPTransport closed=True reading=False 0x1>; the handler is closed"
    assert (await fault(client.call(lambda: write(text)))).fault == "unreachable"
    with pytest.raises(RuntimeError, match="a bug"):
        await client.call(lambda: write("a bug"))
