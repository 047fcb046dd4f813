"""Faults of the clients of durable streams: rows 22 and 24 to 29 of docs/reliability.md."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import Any, cast

import pytest

from gai_fast.model.settings import KeySettings, key_digest
from tests.faults.bench import Bench, check_stream, fault
from tests.faults.proxy import FaultProxy, Faults
from tests.faults.test_upstream import ANSWER, EXHAUSTIVE, TEXT, body
from tests.integration.gateway import DONE, FINISH, LAST_CHUNK, NATIVE, Response, delta
from tests.integration.test_durable import UNKNOWN, Story, follow, followed, frames, id_of, state_of
from tests.legal import check_legal, texts
from tests.waiting import until

STREAMS = "/api/v1/streams"
RESUMABLE = {"query": "hi", "model": "m", "resumable": True}
KEYS = tuple(KeySettings(name, (key_digest(f"sk-{name}-0123456789"),)) for name in ("alice", "bob"))
ALICE, BOB = ({"authorization": f"Bearer sk-{name}-0123456789"} for name in ("alice", "bob"))


def frames_before(response: bytes) -> tuple[str, list[bytes]]:
    """Returns the id of a stream whose response was cut off, if its head had come, and its whole frames."""
    head, _, rest = response.partition(b"\r\n\r\n")
    named = re.search(rb"^x-gai-stream-id: (\S+)\r?$", head + b"\r\n", re.M | re.I)
    received = b""
    while rest:
        size, end, rest = rest.partition(b"\r\n")
        if not end:
            break
        received, rest = received + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return named[1].decode() if named and b"\r\n\r\n" in response else "", frames(received)


async def cut_off(proxy: FaultProxy, bench: Bench) -> bytes:
    """Returns the bytes that a client of a durable stream gets before it is cut off."""
    bench.asked += 1
    client = await bench.net.connect(proxy.url.removeprefix("http://"))
    client.request("POST", NATIVE, RESUMABLE)
    result = b""
    with suppress(ConnectionError):
        while not result.endswith(LAST_CHUNK) and (data := await client.reader.read(65536)):
            result += data
    client.close()
    return result


@pytest.mark.parametrize("then", ["reset", "close"])
@fault(25)
async def test_wherever_a_client_is_cut_off_it_gets_exactly_the_rest(bench: Bench, then: Any) -> None:
    """Cuts are places among the bytes of the response, so most lie within a frame."""
    gateway = await bench.gateway((await bench.sending(ANSWER)).url)
    async with FaultProxy(gateway.url) as proxy:
        cut = resumed = 0
        result = b""
        while not result.endswith(LAST_CHUNK):
            cut += 1 if EXHAUSTIVE else 89
            proxy.faults = Faults(after=cut, then=then)
            result = await cut_off(proxy, bench)
            stream_id, seen = frames_before(result)
            if not stream_id:
                continue
            resumed += 1
            ids = re.findall(rb"^id: (\S+)$", b"".join(seen), re.M)
            last = ids[-1].decode() if ids else f"{stream_id}.0"
            rest = await followed(gateway, stream_id, last_event_id=last)
            whole = Response(rest._reader, 200, {"content-type": "text/event-stream"}, "HTTP/1.1")
            whole.body += b"".join(seen) + rest.body
            if rest.status == 204:
                assert any(b"event: finish" in frame for frame in seen)
                continue
            check_legal(cast(Any, whole.events), numbered=True)
            assert whole.text == TEXT
        assert resumed > 10


@pytest.mark.parametrize("format", ["gai", "openai"])
@fault(26)
async def test_what_the_log_has_dropped_is_reported_and_never_a_silent_hole(bench: Bench, format: str) -> None:
    words = [f"word {number} " for number in range(3000)]
    gateway = await bench.gateway(
        (await bench.sending(body(*map(delta, words), FINISH, DONE))).url, max_stream_bytes=200_000
    )
    first = await bench.ask(gateway, f"{NATIVE}?format=gai", resumable=True)
    stream_id = id_of(first)
    later = await followed(gateway, stream_id, f"?format={format}", last_event_id=f"{stream_id}.3")
    if format == "gai":
        gap, *rest = later.events
        assert (gap["type"], gap["from"]) == ("stream.gap", 4)
        assert [event["seq"] for event in rest[:-1]] == list(range(gap["to"] + 1, len(words) + 3))
        assert gap["text"] + texts(cast(Any, rest)) == "".join(words)
    else:
        assert "error" in later.events[-1], "a format without a gap cannot go on"
        assert b"[DONE]" not in later.body


@fault(27)
async def test_a_place_that_is_no_place_of_the_stream_is_refused(bench: Bench) -> None:
    gateway = await bench.gateway((await bench.sending(ANSWER)).url)
    stream_id = id_of(await bench.ask(gateway, resumable=True))
    numbers = ("-1", "9e9", "1;", "01", "")
    for forged in ("3", stream_id, f"{UNKNOWN}.1", "x" * 5000, *(f"{stream_id}.{number}" for number in numbers)):
        response = await gateway.ask("GET", f"{STREAMS}/{stream_id}", headers={"last-event-id": forged})
        assert (response.status, response.error["code"]) == (400, "invalid_request"), forged


@fault(27)
async def test_a_stream_of_another_caller_is_answered_as_one_that_is_not_there(bench: Bench) -> None:
    gateway = await bench.gateway((await bench.sending(ANSWER)).url, keys=KEYS)
    client = await gateway.connect()
    bench.asked += 1
    first = await client.ask("POST", NATIVE, RESUMABLE, ALICE)
    client.close()
    seen = []
    for name in (id_of(first), UNKNOWN):
        for method, accept in (("GET", "text/event-stream"), ("GET", "application/json"), ("DELETE", "*/*")):
            headers = {**BOB, "accept": accept, "x-request-id": "r"}
            response = await gateway.ask(method, f"{STREAMS}/{name}", headers=headers)
            response.headers.pop("date", None)
            seen.append((response.status, response.headers, bytes(response.body)))
    assert seen[:3] == seen[3:]
    assert {status for status, _, _ in seen} == {404}
    mine = await gateway.ask("GET", f"{STREAMS}/{id_of(first)}", headers=ALICE)
    assert check_stream(mine, TEXT)[-1]["finished"]


@fault(29)
async def test_many_who_come_back_at_once_get_the_stream_and_nothing_is_generated(bench: Bench) -> None:
    gateway = await bench.gateway((await bench.sending(ANSWER)).url)
    first = await bench.ask(gateway, resumable=True)
    bench.may_block = True
    count = 10_000 if EXHAUSTIVE else 200
    answers: list[Response] = []
    for _ in range(count // 200):
        answers += await asyncio.gather(*(followed(gateway, id_of(first)) for _ in range(200)))
    assert {bytes(each.body) for each in answers} == {bytes(first.body)}
    assert bench.calls == 1


@pytest.mark.parametrize("is_reset", [True, False])
@fault(24)
async def test_a_durable_stream_goes_on_without_its_client(bench: Bench, is_reset: bool) -> None:
    story = Story()
    gateway = await bench.gateway((await bench.upstream(story)).url)
    bench.asked += 1
    story.go_on(2)
    client, response = await gateway.stream(RESUMABLE)
    await response.until(b"1 ")
    client.reset() if is_reset else client.close()
    await until(lambda: not gateway.is_connected)
    story.end()
    stream_id = id_of(response)
    _, rest = await follow(gateway, stream_id)
    assert check_stream(await rest.rest(), "".join(f"w\u00f6rd {number} " for number in range(12)))[-1]["finished"]
    assert (await state_of(gateway, stream_id))["state"] == "finished"


@fault(24)
async def test_a_durable_stream_that_nobody_follows_is_cancelled_after_detach_ttl(bench: Bench) -> None:
    story = Story()
    upstream = await bench.upstream(story)
    gateway = await bench.gateway(upstream.url, detach_ttl=0.2)
    bench.asked += 1
    story.go_on(2)
    client, response = await gateway.stream(RESUMABLE)
    await response.until(b"1 ")
    client.close()
    await upstream.until_finished()
    await until(lambda: not gateway.streams)
    assert (await state_of(gateway, id_of(response)))["state"] == "cancelled"


@fault(22)
async def test_a_follower_that_never_reads_is_cut_off_and_its_stream_goes_on(bench: Bench) -> None:
    words = ["x" * 1000] * 3000
    upstream = await bench.sending(body(*map(delta, words), FINISH, DONE))
    gateway = await bench.gateway(upstream.url, client_buffer=65536, write_timeout=3.0, max_stream_bytes=1 << 24)
    client = await bench.net.connect(gateway.host, receive_buffer=4096)
    bench.asked += 1
    client.request("POST", NATIVE, RESUMABLE)
    stream_id = id_of(await client.response())
    client.pause()
    await until(lambda: not gateway.is_connected)
    await until(lambda: not gateway.streams)
    assert check_stream(await followed(gateway, stream_id), "".join(words))[-1]["finished"]
