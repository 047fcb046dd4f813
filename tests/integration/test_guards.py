"""`[limits]`: what is above them is refused for the moment, and what runs goes on."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import resource
import signal
import socket
import struct
import sys
from contextlib import suppress

import pytest

from gai_fast.model.settings import KeySettings, key_digest
from gai_fast.server.edge.connections import abort_slowest
from tests.conftest import ChangeLimits
from tests.integration.gateway import (
    QUERY,
    SSE_HEAD,
    Client,
    Gateway,
    Net,
    Peer,
    Response,
    delta,
    on_both_loops,
    on_steady_loop,
    on_uvloop,
)
from tests.limits import LIMITS
from tests.waiting import until
from tests.wire import chunk

STREAM = {**QUERY, "model": "m"}
KEYS = tuple(KeySettings(name, (key_digest(f"sk-{name}-0123456789"),)) for name in ("alice", "bob"))


async def begun(gateway: Gateway, **headers: str) -> tuple[Client, Response]:
    """Returns a stream whose first text has come."""
    client, response = await gateway.stream(STREAM, **headers)
    await response.until(b"text.delta")
    return client, response


def refusal(response: Response) -> tuple[int, str, str]:
    assert response.headers["retry-after"] == "1"
    assert response.error["temporary"]
    return response.status, response.error["code"], response.error["reason"]


@on_both_loops
async def test_above_streams_one_more_is_refused_until_one_has_ended(net: Net) -> None:
    gateway = await net.gateway(await net.mock(rate=50, deltas=1000), streams=2)
    running = [await begun(gateway), await begun(gateway)]
    for _ in range(3):
        assert refusal(await gateway.ask("POST", "/api/v1/stream", STREAM)) == (503, "overloaded", "streams")
    assert (await gateway.chat()).status == 503
    assert (await gateway.ask("GET", "/v1/models")).status == 200
    running.pop(0)[0].reset()
    await until(lambda: gateway.streams == 1)
    running.append(await begun(gateway))
    for client, response in running:
        assert await response.more()
        client.reset()
    await until(lambda: not gateway.streams)


@on_both_loops
async def test_a_caller_has_its_own_share(net: Net) -> None:
    gateway = await net.gateway(await net.mock(rate=50, deltas=1000), keys=KEYS, streams_per_caller=1)
    alice, bob = ({"x-api-key": f"sk-{name}-0123456789"} for name in ("alice", "bob"))
    running = [await begun(gateway, **alice)]
    refused = await gateway.ask("POST", "/api/v1/stream", STREAM, alice)
    assert refusal(refused) == (429, "rate_limited", "streams_per_caller")
    running.append(await begun(gateway, **bob))
    for client, _ in running:
        client.reset()
    await until(lambda: not gateway.streams)
    client, _ = await begun(gateway, **alice)
    client.reset()
    await until(lambda: not gateway.streams)


@on_both_loops
async def test_above_connections_one_more_is_answered_and_closed(net: Net) -> None:
    gateway = await net.gateway(await net.mock(rate=50, deltas=1000), connections=2)
    client, response = await begun(gateway)
    idle = await gateway.connect()
    assert await idle.is_open()
    for _ in range(3):
        one_more = await gateway.connect()
        assert refusal(await one_more.ask("POST", "/v1/chat/completions", STREAM)) == (503, "overloaded", "connections")
        assert await one_more.is_closed()
        one_more.close()
    assert await response.more()
    assert await idle.is_open()
    idle.close()
    await until(lambda: sum(map(len, gateway.running.connections)) == 1)
    served = await gateway.connect()
    assert await served.is_open()
    served.close()
    client.reset()
    await until(lambda: not gateway.streams)
    assert gateway.running.service.server_limits.refused["connections"] == 3


@on_both_loops
async def test_clients_that_come_at_once_get_the_places_that_there_are(net: Net) -> None:
    gateway = await net.gateway(connections=5)
    clients = await asyncio.gather(*(gateway.connect() for _ in range(12)))
    answers = await asyncio.gather(*(client.ask("GET", "/healthz") for client in clients))
    assert sorted(answer.status for answer in answers) == [200] * 5 + [503] * 7
    for client in clients:
        client.close()


@on_uvloop
async def test_without_descriptors_a_server_goes_on_and_recovers(net: Net) -> None:
    """As with `ulimit -n 200`: 150 places, 25 to be refused, and the rest is the process's own."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))

    command = [sys.executable, "-m", "gai_fast", "serve", "--port", "0"]
    server = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, preexec_fn=few, env={**os.environ}
    )
    try:
        assert server.stdout is not None
        found = re.search(rb"http://([0-9.:]+)", await server.stdout.readline())
        assert found is not None
        host = found[1].decode()
        running = await net.connect(host)
        running.request("POST", "/api/v1/stream", QUERY)
        stream = await running.response()
        clients = [await net.connect(host) for _ in range(220)]
        asked = [asyncio.create_task(client.ask("GET", "/healthz")) for client in clients]

        def statuses() -> list[int]:
            return [each.result().status for each in asked if each.done()]

        await until(lambda: statuses().count(200) == 149 and 503 in statuses())
        assert set(statuses()) == {200, 503}
        assert (await stream.until(b'"finished":true')).status == 200, "what runs goes on"
        for client, task in zip(clients, asked, strict=True):
            task.cancel()
            client.reset()
        await asyncio.gather(*asked, return_exceptions=True)
        late = await net.connect(host)
        assert await late.is_open()
        late.close()
        running.close()
    finally:
        server.send_signal(signal.SIGTERM)
        assert await server.wait() == 0


@on_both_loops
async def test_where_memory_is_short_the_slowest_reader_is_cut_off_and_nobody_else(net: Net) -> None:
    async def flood(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD)
        while True:
            await peer.send(chunk(delta("x" * 4000) * 16))

    upstream = await net.upstream(flood)
    slow_gateway = await net.gateway(upstream)
    other, running = await begun(await net.gateway(await net.mock(rate=50, deltas=1000)))
    slow, response = await slow_gateway.stream(STREAM)
    slow.pause()
    await until(lambda: slow_gateway.unsent > LIMITS.slow_client)
    connections = [each for gateway in net.gateways for each in gateway.running.connections]
    assert abort_slowest(connections, 1) == 1
    await until(lambda: not slow_gateway.streams)
    await upstream.until_finished()
    assert await running.more()
    assert not response.ended
    other.reset()
    slow.reset()
    await until(lambda: not any(gateway.streams for gateway in net.gateways))


@on_steady_loop
async def test_clients_that_send_nothing_or_too_slowly_hold_no_place(net: Net) -> None:
    """Slowloris: all places are taken, and free again after `header_timeout`; a stream does not notice."""
    gateway = await net.gateway(await net.mock(rate=20, deltas=1000), connections=61, header_timeout=1.0)
    client, response = await begun(gateway)
    slow = [await gateway.connect() for _ in range(60)]

    async def drip(client: Client, begin: bytes) -> None:
        client.send(begin)
        with suppress(ConnectionError):
            while not (client.reader.at_eof() or client.writer.is_closing()):
                client.send(b"a")
                await asyncio.sleep(0.1)

    heads = b"GET / HTTP/1.1\r\nX: ", b"POST /api/v1/stream HTTP/1.1\r\nX: "
    dripping = [asyncio.create_task(drip(each, heads[at % 2])) for at, each in enumerate(slow[20:])]
    refused = await gateway.connect()
    assert (await refused.ask("GET", "/healthz")).status == 503
    seen = len(response.body)
    await until(lambda: sum(map(len, gateway.running.connections)) == 1)
    served = await gateway.connect()
    assert await served.is_open()
    await asyncio.gather(*dripping)
    await response.more()
    assert len(response.body) > seen
    for each in (client, served, refused, *slow):
        each.close()
    await until(lambda: not gateway.streams)


@on_both_loops
async def test_a_route_that_needs_no_key_reads_no_body(net: Net) -> None:
    gateway = await net.gateway(keys=KEYS)
    size = 9 << 20
    for method, target, headers in (
        ("GET", "/healthz", {"content-length": str(size)}),
        ("GET", "/readyz", {"transfer-encoding": "chunked"}),
        ("GET", "/probe", {"content-length": "1"}),
        ("GET", "/version", {"content-length": "5", "expect": "100-continue"}),
        ("OPTIONS", "/v1/messages", {"content-length": str(size), "access-control-request-method": "POST"}),
    ):
        client = await gateway.connect()
        client.request(method, target, headers=headers)
        response = await (await client.response()).rest()
        assert response.status == 413, (method, target)
        assert await client.is_closed()
        client.close()
    client = await gateway.connect()
    assert (await client.ask("GET", "/healthz", b"whole")).status == 413
    client.close()


@on_both_loops
@pytest.mark.parametrize("target", ["/api/v1/stream", "/api/v1/streams"])
async def test_bodies_under_way_have_a_budget_and_one_more_is_refused(net: Net, target: str) -> None:
    """The first route is the fast lane's, the second aiohttp's."""
    gateway = await net.gateway(upload_bytes=300_000)
    uploading = gateway.running.service.server_limits
    clients = [await gateway.connect() for _ in range(3)]
    for client in clients[:2]:
        client.request("POST", target, headers={"content-type": "application/json", "content-length": "200000"})
        client.send(b" " * 140_000)
    await until(lambda: uploading.uploading == 280_000)
    clients[2].request("POST", target, headers={"content-type": "application/json", "content-length": "200000"})
    clients[2].send(b" " * 40_000)
    assert refusal(await (await clients[2].response()).rest()) == (503, "overloaded", "upload")
    clients[0].close()
    await until(lambda: uploading.uploading == 140_000)
    clients[1].send(b" " * 60_000)
    assert (await clients[1].response()).status == 400
    await until(lambda: uploading.uploading == 0)
    for client in clients[1:]:
        client.close()


@on_both_loops
@pytest.mark.parametrize("target", ["/api/v1/stream", "/api/v1/streams", "/p/m/v1/files"])
async def test_the_slow_bodies_of_one_caller_leave_half_of_the_budget_to_others(net: Net, target: str) -> None:
    """The first route is the fast lane's, the second aiohttp's, and the third passes its body on."""
    gateway = await net.gateway(keys=KEYS, upload_bytes=300_000)
    uploading = gateway.running.service.server_limits
    alice, bob = {"x-api-key": "sk-alice-0123456789"}, {"x-api-key": "sk-bob-0123456789"}
    sent = {"content-type": "application/json", "content-length": "200000"}
    clients = [await gateway.connect() for _ in range(4)]
    for client in clients[:2]:
        client.request("POST", target, headers=sent | alice)
        client.send(b" " * 70_000)
    await until(lambda: uploading.uploading == 140_000)
    clients[2].request("POST", target, headers=sent | alice)
    clients[2].send(b" " * 40_000)
    refused = await (await clients[2].response()).rest()
    assert refusal(refused) == (503, "overloaded", "upload")
    assert b"the caller alice sends as many bytes of request bodies as it may" in refused.body
    clients[3].request("POST", target, headers=sent | bob)
    clients[3].send(b" " * 140_000)
    await until(lambda: uploading.uploading == 280_000)
    for client in clients:
        client.close()
    await until(lambda: uploading.uploading == 0)
    assert uploading._uploads == {}


@on_both_loops
@pytest.mark.parametrize("target", ["/api/v1/stream", "/api/v1/streams"])
@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_body_that_its_client_does_not_end_has_a_whole_line_in_the_access_log(
    net: Net, caplog: pytest.LogCaptureFixture, target: str, is_reset: bool
) -> None:
    gateway = await net.gateway(keys=KEYS)
    sent = {"content-type": "application/json", "content-length": "200", "x-request-id": "mine"}
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        client = await gateway.connect()
        client.request("POST", target, headers={**sent, "x-api-key": "sk-alice-0123456789"})
        client.send(b'{"model":')
        await until(lambda: gateway.running.service.server_limits.uploading == 9)
        if is_reset:
            now = struct.pack("ii", 1, 0)
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
            client.close()
        else:
            client.writer.write_eof()
            response = await (await client.response()).rest()
            assert (response.status, response.error["reason"]) == (400, "http")
            client.close()
        await until(lambda: bool(caplog.records))
    (line,) = [record.getMessage() for record in caplog.records if record.name == "gai_fast.access"]
    status = 499 if is_reset else 400
    seconds = re.fullmatch(rf"127\.0\.0\.1 POST '{target}' {status} (\S+) mine alice(?: {{.*}})?", line)
    assert seconds
    assert float(seconds[1]) < 60


@on_both_loops
async def test_strangers_that_wait_give_their_places_to_callers(net: Net, change_limits: ChangeLimits) -> None:
    gateway = await net.gateway(await net.mock(), keys=KEYS, connections=3)
    key = {"x-api-key": "sk-alice-0123456789"}
    known, asked, silent = [await gateway.connect() for _ in range(3)]
    change_limits(evictable_after=0.05)
    assert (await known.ask("GET", "/v1/models", headers=key)).status == 200
    assert (await asked.ask("GET", "/healthz")).status == 200
    await asyncio.sleep(2 * LIMITS.evictable_after)
    for _ in range(2):
        client = await gateway.connect()
        assert (await client.ask("POST", "/api/v1/stream", STREAM, key)).status == 200
    assert [await each.is_closed() for each in (asked, silent)] == [True, True]
    assert net.logged.pop().endswith("idle connections without a key are closed")
    assert (await known.ask("GET", "/v1/models", headers=key)).status == 200
