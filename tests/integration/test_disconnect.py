"""A client that goes away, at whatever moment, closes the upstream connection.

Nothing else could close it: the heartbeat and every time limit are longer than a test waits.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from gai_fast.cli.mock.command import Fault
from tests.integration.gateway import (
    CHAT,
    KEY,
    MESSAGES,
    NATIVE,
    NEVER,
    QUERY,
    SSE_HEAD,
    Client,
    Gateway,
    M,
    Net,
    Peer,
    Upstream,
    delta,
    on_both_loops,
    on_uvloop,
    request_bytes,
)
from tests.waiting import SECONDS, until
from tests.wire import chunk

TRIES = 3
REQUESTS = {
    "native": ("POST", NATIVE, M),
    "ndjson": ("POST", f"{NATIVE}?framing=ndjson", M),
    "one JSON answer": ("POST", NATIVE, {**M, "stream": False}),
    "GET": ("GET", f"{NATIVE}?q=hi&model=m", None),
    "OpenAI": ("POST", CHAT, {"model": "m", "messages": MESSAGES, "stream": True}),
    "OpenAI, one answer": ("POST", CHAT, {"model": "m", "messages": MESSAGES}),
    "translated": ("POST", CHAT, {"model": "claude", "messages": MESSAGES, "stream": True}),
}
CLAUDE_DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"word "}}\n\n'
)
LEAVING: dict[str, Callable[[Client], object]] = {
    "close": Client.close,
    "reset": Client.reset,
    "half-close": lambda client: client.writer.write_eof(),
}

Scene = Callable[[Peer], Awaitable[None]]


async def silent(peer: Peer) -> None:
    """Before the first token: not even a head."""
    await peer.request()


async def head_only(peer: Peer) -> None:
    """The head, and no event."""
    await peer.request()
    await peer.send(SSE_HEAD)


def word(peer: Peer) -> bytes:
    """Returns a delta in the dialect of the request."""
    return CLAUDE_DELTA if b"/messages " in peer.head else delta("word ")


async def mid_stream(peer: Peer) -> None:
    """In the middle of a steady stream."""
    await peer.request()
    await peer.send(SSE_HEAD)
    with suppress(OSError):
        for _ in range(100):
            await peer.send(chunk(word(peer)))
            await asyncio.sleep(0.005)


async def stalled(peer: Peer) -> None:
    """Some events, then silence."""
    await peer.request()
    await peer.send(SSE_HEAD, chunk(word(peer)), chunk(b"data: {"))


async def leaves(gateway: Gateway, upstream: Upstream, start: bytes, leave: Callable[[Client], object]) -> None:
    """A client starts a stream and leaves, several times; each time the upstream's connection closes after that."""
    for _ in range(TRIES):
        seen = len(upstream.peers)
        client = await gateway.connect()
        client.send(start)
        await until(lambda seen=seen: len(upstream.peers) > seen and upstream.peers[-1].head)
        await asyncio.sleep(0.015)
        assert upstream.finished == seen
        assert gateway.streams == 1
        leave(client)
        await upstream.until_finished(seen + 1)
        await until(lambda: not gateway.streams)
        client.close()


@on_uvloop
@pytest.mark.parametrize("scene", [silent, head_only, mid_stream, stalled])
@pytest.mark.parametrize("name", REQUESTS)
async def test_a_client_that_leaves_closes_the_upstream_at_once(net: Net, scene: Scene, name: str) -> None:
    async def handler(peer: Peer) -> None:
        watch = asyncio.ensure_future(scene(peer))
        await until(lambda: peer.head)
        await asyncio.sleep(0.005)
        await peer.until_gone()
        watch.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await watch

    upstream = await net.upstream(handler)
    # A GET starts a durable stream, which goes on without its client unless the configuration says otherwise.
    gateway = await net.gateway(upstream, allow_get_start=True, on_disconnect="cancel")
    method, path, body = REQUESTS[name]
    start = request_bytes(gateway.host, method, path, body)
    await leaves(gateway, upstream, start, Client.close)


@on_both_loops
@pytest.mark.parametrize("leaving", LEAVING)
@pytest.mark.parametrize("commit_after", [0.001, NEVER], ids=["committed", "held"])
async def test_however_it_leaves(net: Net, leaving: str, commit_after: float) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream, commit_after=commit_after)
    start = request_bytes(gateway.host, "POST", NATIVE, M)
    await leaves(gateway, upstream, start, LEAVING[leaving])


@on_both_loops
@pytest.mark.parametrize("leaving", LEAVING)
async def test_a_client_that_leaves_without_having_read_closes_the_upstream_too(net: Net, leaving: str) -> None:
    piece = chunk(delta("x" * 10_000))

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD)
        while True:
            await peer.send(piece)

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream)
    for n in range(TRIES):
        client = await gateway.connect(receive_buffer=4096)
        client.pause()
        client.send(request_bytes(gateway.host, "POST", NATIVE, M))
        sent = -1
        while sent != (sent := upstream.peers[-1].sent if len(upstream.peers) > n else 0) or not sent:  # noqa: ASYNC110  # until no more is sent
            await asyncio.sleep(0.05)
        assert gateway.streams == 1
        LEAVING[leaving](client)
        await upstream.until_finished(n + 1)
        client.writer.transport.abort()


@on_both_loops
async def test_a_client_that_leaves_while_the_upstream_is_connected_to_stops_that(net: Net) -> None:
    # A listener whose queue is full neither accepts nor refuses: its peers stay in their connect.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            gateway = await net.gateway(f"http://127.0.0.1:{address[1]}")
            for path, body in ((NATIVE, M), (NATIVE, {**M, "stream": False})):
                client = await gateway.connect()
                client.request("POST", path, body)
                await until(lambda: gateway.streams == 1)
                (pool,) = gateway.running.engine.upstreams._pools.values()
                await until(lambda pool=pool: pool.stats.connecting == 1)
                client.close()
                await until(lambda pool=pool: pool.stats.connecting == 0)
                assert gateway.streams == 0
        finally:
            for filler in fillers:
                filler.close()


@on_both_loops
async def test_a_client_that_leaves_while_it_waits_for_a_connection_gives_its_place_up(net: Net) -> None:
    mock = await net.mock(ttft=60)
    gateway = await net.gateway(mock, max_connections=1)
    first, second = await gateway.connect(), await gateway.connect()
    first.request("POST", NATIVE, M)
    await until(lambda: mock.requests)
    second.request("POST", NATIVE, M)
    await until(lambda: gateway.streams == 2)
    second.close()
    await until(lambda: gateway.streams == 1)
    first.close()
    await until(lambda: gateway.streams == 0)
    await asyncio.wait_for(mock.requests[0].closed.wait(), SECONDS)
    assert len(mock.requests) == 1


@on_both_loops
async def test_a_client_that_leaves_a_queue_of_requests_runs_none_of_the_rest(net: Net) -> None:
    mock = await net.mock(ttft=60)
    gateway = await net.gateway(mock)
    client = await gateway.connect()
    client.send(request_bytes(gateway.host, "POST", NATIVE, M) * 5)
    await until(lambda: mock.requests)
    client.close()
    await asyncio.wait_for(mock.requests[0].closed.wait(), SECONDS)
    await asyncio.sleep(0.05)
    assert len(mock.requests) == 1


@on_both_loops
async def test_a_client_that_leaves_the_demo_stops_it(net: Net) -> None:
    gateway = await net.gateway()
    for stream in (True, False):
        client = await gateway.connect()
        client.request("POST", NATIVE, {**QUERY, "stream": stream})
        if stream:
            await (await client.response()).until(b"text.delta")
        else:
            await until(lambda: gateway.streams)
        client.close()
        await until(lambda: gateway.streams == 0)


@on_both_loops
async def test_a_storm_of_leaving_clients_leaves_nothing_and_mixes_no_answers(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            name = (await peer.request()).partition(b'"name":"')[2].partition(b'"')[0].decode()
            await peer.send(SSE_HEAD)
            for _ in range(4):
                await peer.send(chunk(delta(name)))
                await asyncio.sleep(0)
            await peer.send(chunk(delta("", delta={}, finish_reason="stop")), chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n")

    gateway = await net.gateway(await net.upstream(handler), max_connections=8)

    async def one(number: int) -> None:
        client = await gateway.connect()
        name = f"<{number}>"
        body = {"model": "m", "messages": [{"role": "user", "content": "x", "name": name}], "stream": True}
        client.request("POST", CHAT, body)
        if number % 3:
            for _ in range(number % 29):
                await asyncio.sleep(0)
            (Client.reset if number % 2 else Client.close)(client)
            return
        response = await (await client.response()).rest()
        assert [event["choices"][0]["delta"].get("content") for event in response.events[:-1]] == [name] * 4
        client.close()

    for start in range(0, 300, 50):
        await asyncio.gather(*map(one, range(start, start + 50)))
    await until(lambda: gateway.streams == 0)


@on_both_loops
async def test_the_fake_upstream_sees_it_as_well(net: Net) -> None:
    mock = await net.mock(rate=20, deltas=1000, fault=Fault("stall", 5))
    gateway = await net.gateway(mock)
    for model in ("m", "claude"):
        client, response = await gateway.stream({**QUERY, "model": model})
        await response.until(b"upon")
        client.close()
        await asyncio.wait_for(mock.requests[-1].closed.wait(), SECONDS)
        assert mock.requests[-1].headers["authorization" if model == "m" else "x-api-key"].endswith(KEY)
