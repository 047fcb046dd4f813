"""Durable streams: frames have ids, and the log holds exactly what the client got, within its bounds."""

from __future__ import annotations

import asyncio
import re

import pytest

from gai_fast.cli.mock.command import Fault
from gai_fast.stores.memory import LogMemory, StreamLog
from tests.integration.gateway import (
    DONE,
    FINISH,
    LAST_CHUNK,
    NATIVE,
    RESUMABLE,
    SSE_HEAD,
    Gateway,
    M,
    Net,
    Peer,
    Response,
    delta,
    on_both_loops,
    on_uvloop,
)
from tests.waiting import until
from tests.wire import chunk

PING = b": ping\n"


def store_of(gateway: Gateway) -> LogMemory:
    return gateway.running.engine.store.memory


async def log_of(gateway: Gateway, response: Response) -> StreamLog:
    log = store_of(gateway).find(response.headers["x-gai-stream-id"])
    assert log is not None
    return log


async def kept(gateway: Gateway, response: Response, after: int = 0) -> bytes:
    return b"".join((await log_of(gateway, response)).read(after, 1 << 30).pieces)


# ---- ids -------------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_every_frame_but_done_has_an_id_and_the_first_one_says_retry(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=50))
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    stream_id = response.headers["x-gai-stream-id"]
    *frames, done, rest = bytes(response.body).decode().split("\n\n")
    assert (done, rest) == ('event: done\ndata: {"type":"done","finished":true}', "")
    for seq, (frame, event) in enumerate(zip(frames, response.events, strict=False), 1):
        lines = ["event: " + event["type"], f"id: {stream_id}.{seq}", *(["retry: 3000"] if seq == 1 else [])]
        assert frame.split("\n")[:-1] == lines
    assert response.body.count(b"retry:") == 1
    assert re.fullmatch(r"[A-Za-z0-9_-]{22,}", stream_id)


@on_uvloop
@pytest.mark.parametrize("name", ["openai", "simple"])
async def test_frames_of_other_formats_have_ids_too_and_what_is_kept_are_the_events(net: Net, name: str) -> None:
    gateway = await net.gateway(await net.mock(deltas=50))
    response = await gateway.ask("POST", f"{NATIVE}?format={name}", RESUMABLE)
    stream_id = response.headers["x-gai-stream-id"].encode()
    numbers = [int(number) for number in re.findall(rb"^id: %b\.(\d+)$" % re.escape(stream_id), response.body, re.M)]
    assert len(numbers) >= 50
    assert numbers == sorted(set(numbers))
    assert response.body.count(b"retry: 3000\n") == 1
    assert response.body.index(b"retry:") < response.body.index(b"\n\n")
    log = await log_of(gateway, response)
    assert (log.header.format, log.header.framing) == ("gai", "sse")
    assert (await kept(gateway, response)).count(b"event: text.delta\n") == 50


@on_uvloop
async def test_ndjson_has_no_ids_and_is_kept_by_the_numbers_of_its_events(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=50))
    response = await gateway.ask("POST", f"{NATIVE}?framing=ndjson", RESUMABLE)
    lines = bytes(response.body).splitlines(keepends=True)
    assert [event.get("seq") for event in response.events] == [*range(1, len(lines)), None]
    assert b"retry" not in response.body
    for after in range(len(lines) - 1):
        assert await kept(gateway, response, after) == b"".join(lines[after:])


# ---- what is kept ----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_the_log_holds_at_every_moment_what_the_client_was_sent(net: Net) -> None:
    """One event a turn, several, and frames that are cut anywhere."""
    wire = b"".join(chunk(delta(f"word {number} ")) for number in range(120))
    step = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD)
        for at in range(0, len(wire), 700):
            await peer.send(wire[at : at + 700])
            await step.wait()
            step.clear()
        await peer.send(chunk(FINISH + DONE) + LAST_CHUNK)
        await peer.until_gone()

    gateway = await net.gateway(await net.upstream(handler))
    _, response = await gateway.stream(RESUMABLE)
    log = await log_of(gateway, response)
    while not response.ended:
        await response.more()
        # What is sent has been kept.
        assert (await kept(gateway, response)).startswith(response.body)
        step.set()
    assert await kept(gateway, response) == response.body
    ending = log.ending
    assert ending is not None
    assert (ending.state, ending.finish_reason, ending.error) == ("finished", "stop", None)
    assert ending.usage == response.events[-2]["usage"]


@on_uvloop
async def test_a_burst_is_kept_as_the_piece_that_was_sent(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD + chunk(b"".join([delta("word ")] * 300 + [FINISH, DONE])) + LAST_CHUNK)
        await peer.until_gone()

    gateway = await net.gateway(await net.upstream(handler))
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    assert response.text == "word " * 300
    backlog = (await log_of(gateway, response)).read(0, 1 << 30)
    assert b"".join(backlog.pieces) == response.body
    assert len(backlog.pieces) <= response.pieces


@on_uvloop
async def test_keep_alives_are_not_kept(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=4, rate=4.0), heartbeat=0.1)
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    assert PING in response.body
    assert await kept(gateway, response) == response.body.replace(PING, b"")


@on_uvloop
async def test_a_stream_that_is_not_resumable_is_not_kept(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3), allow_get_start=True)
    await gateway.ask("POST", NATIVE, M)
    await gateway.ask("POST", NATIVE, {**M, "stream": False})
    await gateway.chat()
    assert len(store_of(gateway)) == 0


# ---- bounds ----------------------------------------------------------------------------------------------------------


@on_uvloop
async def test_a_long_stream_takes_no_more_than_its_share_and_its_log_tells_what_is_gone(net: Net) -> None:
    most = 512 * 1024
    # A client that is slow is sent joined deltas; this one must see what the log has.
    gateway = await net.gateway(await net.mock(deltas=20_000), max_stream_bytes=most, client_buffer=1 << 26)
    client = await gateway.connect()
    client.request("POST", NATIVE, RESUMABLE)
    response = await client.response()
    log = await log_of(gateway, response)
    while await response.more():
        assert log.size <= most
        assert store_of(gateway).size == log.size
    assert len(response.body) > 3 * most
    backlog = log.read(0, 1 << 30)
    assert backlog.lost > 10_000
    seen = response.body.index(b".%d\n" % (backlog.lost + 1))
    begin = response.body.rindex(b"\n\n", 0, seen) + 2
    assert b"".join(backlog.pieces) == response.body[begin:]


@on_uvloop
async def test_all_streams_together_take_no_more_than_they_may(net: Net) -> None:
    most = 256 * 1024
    gateway = await net.gateway(await net.mock(deltas=1000), max_bytes=most)
    first, *_, last = [await gateway.ask("POST", NATIVE, RESUMABLE) for _ in range(6)]
    store = store_of(gateway)
    assert most // 2 < store.size <= most
    assert store.find(first.headers["x-gai-stream-id"]) is None
    assert await kept(gateway, last) == last.body


@on_uvloop
async def test_where_there_is_no_room_the_stream_is_refused_and_a_plain_one_is_not(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1000, rate=100.0), max_bytes=65536)
    most = 65536 // 2 // 1536
    streams = [await gateway.stream(RESUMABLE) for _ in range(most)]
    refused = await gateway.ask("POST", NATIVE, RESUMABLE)
    assert (refused.status, refused.error["code"], refused.error["reason"]) == (503, "overloaded", "store")
    assert gateway.streams == most
    client, response = await gateway.stream(M)
    assert response.status == 200
    client.close()
    for _, resumable in streams:  # they outlive their clients
        await gateway.ask("DELETE", f"/api/v1/streams/{resumable.headers['x-gai-stream-id']}")
    await until(lambda: not gateway.streams)


# ---- ends ------------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_log_is_freed_when_its_time_is_over(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=20), ttl=0.2)
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    assert await kept(gateway, response) == response.body
    await until(lambda: not len(store_of(gateway)))
    assert store_of(gateway).size == 0


@pytest.mark.usefixtures("patient_end")
@on_uvloop
async def test_at_shutdown_all_logs_are_freed_after_the_streams_were_notified(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1000, rate=100.0))
    _, response = await gateway.stream(RESUMABLE)
    await response.until(b"text.delta")
    log = await log_of(gateway, response)
    await gateway.running.close()
    await response.rest()
    assert response.body.rpartition(b"\n\nevent: ")[2].count(b"\nretry: ") == 1, "the last frame says when to come back"
    assert response.types[-1] == "text.delta", "the stream does not look complete"
    assert log.ending is not None
    assert log.ending.state == "failed"
    assert (len(store_of(gateway)), store_of(gateway).size) == (0, 0)


@on_uvloop
async def test_delete_ends_a_resumable_stream_and_its_log_says_so(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1000, rate=100.0))
    _, response = await gateway.stream(RESUMABLE)
    await response.until(b"text.delta")
    path = f"/api/v1/streams/{response.headers['x-gai-stream-id']}"
    assert (await gateway.ask("DELETE", path)).status == 202
    await response.rest()
    assert response.types[-2:] == ["finish", "done"]
    assert await kept(gateway, response) == response.body
    ending = (await log_of(gateway, response)).ending
    assert ending is not None
    assert (ending.state, ending.finish_reason) == ("cancelled", "cancelled")
    assert ending.usage == response.events[-2]["usage"]


@on_uvloop
async def test_an_upstream_that_breaks_is_in_the_log(net: Net) -> None:
    gateway = await net.gateway(await net.mock(fault=Fault.parse("cut@3")))
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    assert response.types[-2:] == ["error", "done"]
    assert await kept(gateway, response) == response.body
    ending = (await log_of(gateway, response)).ending
    assert ending is not None
    assert ending.state == "failed"
    assert ending.error == response.events[-2]["error"]


@on_uvloop
async def test_an_early_failure_keeps_its_status_and_the_log_says_that_the_stream_failed(net: Net) -> None:
    gateway = await net.gateway(await net.mock(fault=Fault.parse("429")))
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    assert response.status == 429
    ending = (await log_of(gateway, response)).ending
    assert ending is not None
    assert ending.state == "failed"
    assert ending.error is not None
    assert ending.error["code"] == "rate_limited"


@on_uvloop
async def test_one_json_answer_cannot_be_resumable(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    response = await gateway.ask("POST", NATIVE, {**RESUMABLE, "stream": False})
    assert (response.status, response.error["code"], response.error["reason"]) == (400, "unsupported", "resumable")
    assert "needs a stream" in response.error["message"]
    assert len(store_of(gateway)) == 0
