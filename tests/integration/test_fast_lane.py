"""The fast lane in front of aiohttp: nobody can tell from the answers which of both has answered."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest

from tests.integration.gateway import (
    END,
    SSE_HEAD,
    Client,
    Gateway,
    M,
    Net,
    Peer,
    delta,
    on_both_loops,
    request_bytes,
)
from tests.waiting import SECONDS, until
from tests.wire import chunk

HOT = "/api/v1/stream"
WAYS = ("auto", "off")
VOLATILE = {"date", "x-request-id", "request-id", "x-gai-stream-id"}


async def answers(client: Client, *, head_only: bool = False) -> list[Any]:
    """Returns every response up to the end of the connection, without what differs from one to the next.

    Args:
        client: Its connection.
        head_only: The first request was a HEAD.
    """
    said = []
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                response = await client.response()
            except (asyncio.IncompleteReadError, ConnectionError) as end:
                rest = end.partial if isinstance(end, asyncio.IncompleteReadError) else b""
                return [*said, rest] if rest else said
            response.ended = response.status == 204 or (head_only and not said)
            headers = {name: value for name, value in response.headers.items() if name not in VOLATILE}
            body = b"" if response.ended else bytes((await response.rest()).body)
            said.append((response.status, headers, without_ids(body)))


def without_ids(body: bytes) -> Any:
    try:
        value = json.loads(body)
    except ValueError:
        return body
    if isinstance(value, dict) and isinstance(value.get("error"), dict):
        value["error"].pop("request_id", None)
    return value


async def exchange(gateway: Gateway, data: bytes) -> list[Any]:
    """Returns the answer to a client that sends these bytes and then ends its side."""
    client = await gateway.connect()
    client.send(data)
    client.writer.write_eof()
    said = await answers(client, head_only=data.startswith(b"HEAD "))
    client.close()
    return said


async def talkative(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("a")), chunk(delta("b")), *END)


@on_both_loops
@pytest.mark.parametrize("size", [7, 1_000_000])
async def test_one_connection_carries_every_kind_of_request_in_order(net: Net, size: int) -> None:
    """Two streams of the lane, what is not hot, and a stream of aiohttp, all sent before the first is answered."""
    upstream = await net.upstream(talkative)
    said = []
    for way in WAYS:
        gateway = await net.gateway(upstream, fast_lane=way)
        hot = request_bytes(gateway.host, "POST", HOT, M)
        wrong = request_bytes(gateway.host, "POST", HOT, {"query": 1})
        other = request_bytes(gateway.host, "GET", "/healthz")
        last = request_bytes(gateway.host, "POST", HOT, {**M, "stream": False}, {"connection": "close"})
        client = await gateway.connect()
        await client.send_in_pieces(hot + wrong + hot + other + hot + last, size)
        got = await answers(client)
        assert [status for status, *_ in got] == [200, 400, 200, 200, 200, 200]
        said.append([(status, len(body) if isinstance(body, bytes) else body.keys()) for status, _, body in got])
    assert said[0] == said[1]


@on_both_loops
async def test_requests_that_were_sent_before_the_client_ended_its_side_are_answered(net: Net) -> None:
    for way in WAYS:
        gateway = await net.gateway(fast_lane=way)
        wrong = request_bytes(gateway.host, "POST", HOT, {"query": 1})
        other = request_bytes(gateway.host, "GET", "/healthz")
        half = wrong[:-1]
        for data, statuses in (
            (wrong * 3, [400] * 3),
            (other * 3, [200] * 3),
            (wrong + other * 2, [400, 200, 200]),
            (half, [400]),
            (wrong + half, [400, 400]),
            (other + half, [200, 400]),
        ):
            assert [status for status, *_ in await exchange(gateway, data)] == statuses


@on_both_loops
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_whose_side_has_ended_gets_no_stream_whichever_comes_first(net: Net, stream: bool) -> None:
    """The end may be read before the stream begins or after; the answers before it are sent."""

    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    upstream = await net.upstream(silent)
    for way in WAYS:
        gateway = await net.gateway(upstream, fast_lane=way)
        hot = request_bytes(gateway.host, "POST", HOT, {**M, "stream": stream})
        wrong = request_bytes(gateway.host, "POST", HOT, {"query": 1})
        other = request_bytes(gateway.host, "GET", "/healthz")
        for before, statuses in ((b"", []), (wrong, [400]), (wrong * 5, [400] * 5), (other * 2, [200] * 2)):
            assert [status for status, *_ in await exchange(gateway, before + hot)] == statuses
            await until(lambda gateway=gateway: gateway.streams == 0)


@on_both_loops
async def test_a_connection_that_was_handed_over_ends_with_the_server(net: Net) -> None:
    gateway = await net.gateway()
    idle, used, handed = [await gateway.connect() for _ in range(3)]
    assert (await used.ask("POST", HOT, {"query": 1})).status == 400
    assert (await handed.ask("GET", "/healthz")).status == 200
    lane, general = gateway.running.connections
    await until(lambda: len(lane.transports) == 2 and len(general.transports) == 1)
    await gateway.running.close()
    for client in (idle, used, handed):
        assert await client.is_closed()
    assert not gateway.is_connected


@on_both_loops
async def test_a_stream_of_a_connection_that_was_handed_over_is_lost_with_its_client(net: Net) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    upstream = await net.upstream(silent)
    gateway = await net.gateway(upstream)
    client = await gateway.connect()
    assert await client.is_open()
    client.request("POST", HOT, M)
    await until(lambda: gateway.streams == 1)
    client.close()
    await until(lambda: gateway.streams == 0)


@on_both_loops
@pytest.mark.parametrize("more", [{}, {"stream": False}, {"resumable": True}])
async def test_an_answer_leaves_nothing_for_the_garbage_collector(net: Net, more: dict[str, Any]) -> None:
    """Each request left a dozen objects in a cycle, its prompt among them."""
    gateway = await net.gateway(await net.upstream(talkative))
    client = await gateway.connect()
    assert (await (await client.ask("POST", HOT, {**M, **more})).rest()).status == 200
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(3):
            assert (await (await client.ask("POST", HOT, {**M, **more})).rest()).status == 200
        await until(lambda: gateway.streams == 0)
        gc.collect()
        left = {type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("gai_fast.")}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not left
