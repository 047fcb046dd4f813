"""Faults of clients: rows 22 to 33 of docs/reliability.md."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.faults.bench import Bench, check_stream, fault
from tests.faults.proxy import Faults
from tests.faults.test_upstream import ANSWER, BEGUN, TEXT
from tests.integration import websocket
from tests.integration.gateway import CHAT, NATIVE, QUERY, SSE_HEAD, Peer, delta, on_both_loops, on_steady_loop
from tests.waiting import until
from tests.wire import chunk


async def endless(peer: Peer) -> None:
    """An answer without an end."""
    await peer.request()
    await peer.send(SSE_HEAD)
    while True:
        await peer.send(chunk(delta("x" * 500)) * 32)


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@fault(22, on=on_steady_loop)
async def test_a_client_that_never_reads_is_cut_off_and_its_upstream_is_closed(bench: Bench, path: str) -> None:
    upstream = await bench.upstream(endless)
    gateway = await bench.gateway(upstream.url, client_buffer=65536, write_timeout=0.3)
    client = await bench.net.connect(gateway.host, receive_buffer=4096)
    client.pause()
    bench.asked += 1
    client.request("POST", path, {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True})
    await until(lambda: gateway.unsent)
    held = gateway.unsent
    await upstream.until_finished()
    await until(lambda: not gateway.is_connected)
    assert held <= 65536 + 256 * 1024, "one read of the upstream may lie above the limit"
    client.resume()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        while True:  # to the end, which is no proper one
            assert await client.reader.readexactly(1 << 16)


@fault(23)
async def test_a_client_that_vanishes_is_given_up_by_the_system(bench: Bench) -> None:
    """Only lost packets show it, so the test looks at the options of each accepted connection."""
    upstream = await bench.sending(ANSWER)
    proxy = await bench.proxy(upstream, Faults(after=BEGUN, then="stall"))
    gateway = await bench.gateway(proxy.url, write_timeout=7.0)
    client, _ = await bench.begin(gateway)
    ((transport,),) = (each.transports for each in gateway.running.connections if each.transports)
    handle = transport.get_extra_info("socket")
    assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
    client.close()
    await until(lambda: proxy.left)


@pytest.mark.parametrize("is_reset", [True, False])
@pytest.mark.parametrize("path", [NATIVE, CHAT])
@fault(24)
async def test_a_client_that_leaves_amid_its_stream_closes_the_upstream(
    bench: Bench, path: str, is_reset: bool
) -> None:
    upstream = await bench.sending(ANSWER)
    proxy = await bench.proxy(upstream, Faults(after=BEGUN, then="stall"))
    gateway = await bench.gateway(proxy.url)
    client, response = await bench.begin(gateway, path)
    await response.until(b"rd 0")
    client.reset() if is_reset else client.close()
    await until(lambda: proxy.left)
    await until(lambda: not gateway.streams)


@fault(28)
async def test_an_event_source_that_comes_back_after_the_end_is_stopped_and_nothing_is_generated(
    bench: Bench,
) -> None:
    upstream = await bench.sending(ANSWER)
    gateway = await bench.gateway(upstream.url, allow_get_start=True)
    bench.asked += 1
    first = await gateway.ask("GET", f"{NATIVE}?q=hi&model=m", headers={"accept": "text/event-stream"})
    check_stream(first, TEXT)
    last = [line for line in first.body.decode().split("\n") if line.startswith("id: ")][-1]
    again = await gateway.ask("GET", f"{NATIVE}?q=hi&model=m", headers={"last-event-id": last.removeprefix("id: ")})
    assert (again.status, bytes(again.body)) == (204, b"")
    assert bench.calls == 1


@fault(32)
async def test_requests_that_were_sent_together_are_answered_one_by_one_in_order(bench: Bench) -> None:
    upstream = await bench.sending(ANSWER)
    gateway = await bench.gateway(upstream.url)
    client = await bench.net.connect(gateway.host)
    bench.asked += 3
    for _ in range(3):
        client.request("POST", NATIVE, {"query": "hi", "model": "m"})
    client.request("GET", "/healthz")
    for _ in range(3):
        response = await (await client.response()).rest()
        assert check_stream(response, TEXT)[-1]["finished"]
    assert (await (await client.response()).rest()).json == {"status": "ok"}


@fault(32)
async def test_bytes_behind_a_request_to_upgrade_never_become_a_second_request(bench: Bench) -> None:
    upstream = await bench.sending(ANSWER)
    gateway = await bench.gateway(upstream.url)
    client = await bench.net.connect(gateway.host)
    head = f"GET /ws/stream HTTP/1.1\r\nhost: {gateway.host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    client.send(head.encode() + b"\x81\x85\x00\x00\x00\x00hello")
    response = await (await client.response()).rest()
    assert response.status == 426, "it names no version of WebSocket"
    rest = await client.reader.read()
    assert rest == b"" or rest.split()[1] == b"400"
    assert bench.calls == 0


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@fault(32)
async def test_half_a_request_and_then_the_end_starts_nothing(bench: Bench, share: float) -> None:
    upstream = await bench.sending(ANSWER)
    gateway = await bench.gateway(upstream.url)
    client = await bench.net.connect(gateway.host)
    text = b'{"query":"hi","model":"m"}'
    head = f"POST {NATIVE} HTTP/1.1\r\nhost: {gateway.host}\r\ncontent-type: application/json\r\n"
    request = head.encode() + b"content-length: %d\r\n\r\n" % len(text) + text
    client.send(request[: int(len(request) * share)])
    client.writer.write_eof()
    said = await client.reader.read()
    assert said == b"" or said.startswith(b"HTTP/1.1 400 ")
    assert bench.calls == 0


RULES = [
    (websocket.frame("{}", masked=False), 1002),
    (websocket.frame("x", websocket.CONTINUATION), 1002),
    (websocket.frame(b"{}", websocket.BINARY), 1003),
    (websocket.frame(b"\xff"), 1007),
    (websocket.frame("{}"), 1008),
    (websocket.frame("", websocket.PING) * 200, 1008),
    (websocket.frame("x" * (5 << 20)), 1009),
    (websocket.frame("", final=False) + websocket.frame("", websocket.CONTINUATION, final=False) * 2000, 1009),
]
"""Frames that break a rule, and the code of the close."""


@fault(33, on=on_both_loops)
async def test_frames_against_the_rules_close_their_socket_and_harm_no_other(bench: Bench) -> None:
    upstream = await bench.upstream(endless)
    gateway = await bench.gateway(upstream.url)
    good = await websocket.connect(gateway)
    bench.asked += 1
    good.ask("good", **QUERY)
    for data, code in RULES:
        bad = await websocket.connect(gateway)
        bench.asked += 1
        bad.ask("bad", **QUERY)
        await bad.until(type="text.delta")
        bad.client.send(data)
        assert await bad.close_code() == code
        assert await bad.client.is_closed()
        await good.until(type="text.delta")
    await upstream.until_finished(len(RULES))
    good.send(stream="good", type="cancel")
    await good.until_done("good")
    assert [event["seq"] for event in good.messages[:-1]] == [*range(1, len(good.messages))]
    good.client.close()
