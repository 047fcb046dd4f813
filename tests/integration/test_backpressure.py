"""A client that stops reading stops the upstream being read; what is unsent stays bounded, and nothing is lost."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest

from gai_fast.model.limits import KIB, MIB
from tests.conftest import ChangeLimits
from tests.integration.gateway import (
    CHAT,
    END,
    NATIVE,
    OPENAI,
    SSE_HEAD,
    Client,
    Gateway,
    M,
    Net,
    Peer,
    Response,
    Upstream,
    delta,
    joined,
    on_both_loops,
    request_bytes,
)
from tests.waiting import SECONDS, until
from tests.wire import chunk

WORD = "word " * 2000
PIECE = chunk(delta(WORD))
PIECES = 2400
IN_FLIGHT = 16 * MIB
"""Bytes that an upstream can send before it is stuck: the kernel's buffers of two connections, on this side of the
gateway and on the other (up to 4 and 6 MiB each on Linux), and little more."""


async def blast(peer: Peer) -> None:
    """24 MB as fast as they are taken."""
    await peer.request()
    await peer.send(SSE_HEAD)
    for _ in range(PIECES):
        await peer.send(PIECE)
    await peer.send(*END)
    await peer.until_gone()


async def stuck(upstream: Upstream) -> int:
    """Waits until the upstream can send no more; what it has sent by then."""
    await until(lambda: upstream.peers and upstream.peers[-1].sent)
    sent = -1
    async with asyncio.timeout(SECONDS):
        while sent != upstream.peers[-1].sent:
            sent = upstream.peers[-1].sent
            await asyncio.sleep(0.1)
    return sent


async def stopped_client(gateway: Gateway, path: str, body: object, receive_buffer: int = 4 * KIB) -> Client:
    """Returns a client that has asked and reads nothing."""
    client = await gateway.connect(receive_buffer)
    client.pause()
    client.send(request_bytes(gateway.host, "POST", path, body))
    return client


def text_of(response: Response, path: str) -> str:
    return joined(response.events) if path == CHAT else response.text


@on_both_loops
@pytest.mark.parametrize("path", [NATIVE, f"{NATIVE}?framing=ndjson", CHAT])
async def test_a_client_that_stops_reading_stops_the_upstream_and_loses_nothing(net: Net, path: str) -> None:
    upstream = await net.upstream(blast)
    gateway = await net.gateway(upstream, idle_timeout=0.3, heartbeat=0.1)
    client = await stopped_client(gateway, path, OPENAI if path == CHAT else M)
    assert await stuck(upstream) < IN_FLIGHT < PIECES * len(PIECE)
    # One read of the upstream comes on top of the high-water mark, and becomes no more bytes than it had.
    assert gateway.unsent < 256 * KIB + 256 * KIB + 8 * KIB
    await asyncio.sleep(0.4)
    assert gateway.streams == 1, "a paused upstream has no idle time"
    client.resume()
    response = await client.response()
    async with asyncio.timeout(SECONDS):
        await response.rest()
    assert response.ended
    assert response.body.count(b": ping\n") <= 2, "what is not taken needs no keep-alive"
    got = hashlib.sha256(text_of(response, path).encode()).hexdigest()
    assert got == hashlib.sha256(WORD.encode() * PIECES).hexdigest()


@on_both_loops
async def test_client_buffer_bounds_what_is_unsent(net: Net) -> None:
    upstream = await net.upstream(blast)
    gateway = await net.gateway(upstream, client_buffer=16 * KIB)
    await stopped_client(gateway, NATIVE, M)
    await stuck(upstream)
    assert gateway.unsent < 16 * KIB + 256 * KIB + 8 * KIB


@on_both_loops
async def test_what_is_gathered_for_flush_interval_is_bounded_as_well(net: Net) -> None:
    upstream = await net.upstream(blast)
    gateway = await net.gateway(upstream, flush_interval=5)
    await stopped_client(gateway, NATIVE, M)
    assert await stuck(upstream) < IN_FLIGHT
    assert gateway.unsent < 1024 * KIB


@on_both_loops
@pytest.mark.parametrize("path", [NATIVE, CHAT])
async def test_a_client_that_never_reads_is_cut_off_after_write_timeout(net: Net, path: str) -> None:
    upstream = await net.upstream(blast)
    gateway = await net.gateway(upstream, write_timeout=0.3)
    client = await stopped_client(gateway, path, OPENAI if path == CHAT else M)
    await until(lambda: gateway.unsent)
    await upstream.until_finished()
    assert upstream.peers[-1].sent < IN_FLIGHT, "it was cut off, and not served to the end"
    await until(lambda: not gateway.streams)
    client.resume()
    response = await (await client.response()).rest()
    assert not response.ended, "an answer that was not sent never looks complete"


@on_both_loops
async def test_a_client_that_never_reads_the_rest_of_a_stream_that_has_ended_is_cut_off_too(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, *[PIECE] * 30, *END)

    gateway = await net.gateway(await net.upstream(handler), write_timeout=0.3)
    client = await stopped_client(gateway, NATIVE, M)
    await until(lambda: gateway.unsent)
    await until(lambda: not gateway.streams)
    assert gateway.unsent
    await until(lambda: not gateway.is_connected)
    client.close()


@on_both_loops
async def test_a_client_that_reads_slowly_is_kept(net: Net) -> None:
    upstream = await net.upstream(blast)
    # The system counts the time as well, and while the process stands still.
    gateway = await net.gateway(upstream, write_timeout=3.0, client_buffer=16 * KIB)
    client = await stopped_client(gateway, NATIVE, M, 32 * KIB)
    for _ in range(14):
        await asyncio.sleep(0.25)
        client.resume()
        await client.reader.read(64 * KIB)
        client.pause()
    assert gateway.streams == 1
    assert upstream.finished == 0


@on_both_loops
async def test_a_stopped_client_can_be_cancelled_and_others_go_on(net: Net) -> None:
    upstream = await net.upstream(blast)
    gateway = await net.gateway(upstream)
    client = await stopped_client(gateway, NATIVE, M)
    await stuck(upstream)
    (name,) = gateway.running.engine.streams
    quick = await gateway.ask("POST", NATIVE, {**M, "model": "nobody"})
    assert quick.status == 404
    assert (await gateway.ask("DELETE", f"{NATIVE}s/{name}")).status == 202
    await upstream.until_finished()
    client.resume()
    response = await (await client.response()).rest()
    assert response.ended
    assert response.types[-2:] == ["finish", "done"]
    assert response.events[-2]["finish_reason"] == "cancelled"


@on_both_loops
async def test_a_client_that_asks_and_asks_and_never_reads_is_not_answered_into_memory(net: Net) -> None:
    gateway = await net.gateway(write_timeout=0.5)
    client = await gateway.connect(receive_buffer=4 * KIB)
    client.pause()
    requests = request_bytes(gateway.host, "GET", "/playground/app.js") * 100
    most = 0

    async def ask() -> None:
        while True:
            client.send(requests)
            await client.writer.drain()

    asking = asyncio.create_task(ask())
    try:
        async with asyncio.timeout(SECONDS):
            while not most or gateway.is_connected:
                most = max(most, gateway.unsent)
                await asyncio.sleep(0.01)
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert 0 < most < 1024 * KIB


@on_both_loops
async def test_one_json_answer_has_a_limit(net: Net, change_limits: ChangeLimits) -> None:

    change_limits(held_answer=MIB)
    upstream = await net.upstream(blast)
    gateway = await net.gateway(upstream)
    response = await gateway.ask("POST", NATIVE, {**M, "stream": False})
    assert (response.status, response.error["reason"]) == (503, "answer_too_large")
    await upstream.until_finished()
    assert json.loads(response.body)["error"]["code"] == "provider_unavailable"
