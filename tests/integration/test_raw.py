"""`?format=raw`: the upstream's bytes to the client, and a response that is cut where they break."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.integration.gateway import (
    DONE,
    FINISH,
    LAST_CHUNK,
    MESSAGES,
    QUERY,
    SSE_HEAD,
    Net,
    Peer,
    Response,
    delta,
    on_both_loops,
    on_uvloop,
)
from tests.wire import chunk

RAW = "/api/v1/stream?format=raw"
BODY = b": hello\n\n" + delta("One ") + delta("two").replace(b"\n", b"\r\n") + b": ping\n\n" + FINISH + DONE


@on_both_loops
@pytest.mark.parametrize(
    ("path", "ask"),
    [(RAW, QUERY), ("/v1/chat/completions?format=raw", {"model": "m", "messages": MESSAGES, "stream": True})],
)
async def test_the_bytes_are_the_upstreams(net: Net, path: str, ask: Any) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(SSE_HEAD)
            for at in range(0, len(BODY), 50):
                await peer.send(chunk(BODY[at : at + 50]))
            await peer.send(LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler))
    response = await gateway.ask("POST", path, ask)
    assert (response.status, response.ended) == (200, True)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert bytes(response.body) == BODY


@on_uvloop
async def test_another_dialect_is_passed_on_as_well(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3))
    response = await gateway.ask("POST", RAW, {**QUERY, "model": "claude"})
    assert response.body.startswith(b"event: message_start\n")
    assert b"event: message_stop\n" in response.body


@on_uvloop
async def test_a_whole_answer_is_the_upstreams_body(net: Net) -> None:
    body = b'{"id": "c", "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}'

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.answer("200 OK", body, "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler))
    response = await gateway.ask("POST", RAW, {**QUERY, "stream": False})
    assert (bytes(response.body), response.headers["content-type"]) == (body, "application/json")


@on_uvloop
async def test_a_stream_in_one_piece_is_not_labelled_json(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(BODY), LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler))
    response = await gateway.ask("POST", RAW, {**QUERY, "stream": False})
    assert (bytes(response.body), response.headers["content-type"]) == (BODY, "text/plain; charset=utf-8")


@on_both_loops
async def test_a_break_cuts_the_response_and_a_reported_error_ends_it(net: Net) -> None:
    for end, is_proper in ((LAST_CHUNK, False), (chunk(TOLD), True)):
        response = await broken(net, end)
        assert (response.status, response.ended) == (200, is_proper)
        assert bytes(response.body) == delta("One ") + (TOLD if is_proper else b"")


TOLD = b'data: {"error":{"message":"broke","code":"server_error"}}\n\n'


async def broken(net: Net, end: bytes) -> Response:
    """Returns the response for an answer that ends so once its client has the beginning."""
    begun = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("One ")))
        await begun.wait()
        await peer.send(end, LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler))
    _, response = await gateway.stream(QUERY, RAW)
    await response.until(b"One ")
    begun.set()
    return await response.rest()


@pytest.mark.parametrize("stream", [True, False])
@on_uvloop
async def test_a_body_is_that_of_one_attempt(net: Net, stream: bool, quick_retries: None) -> None:
    """The dialect decides which frames another attempt would repeat, and which it would lack."""
    asked = 0

    async def handler(peer: Peer) -> None:
        nonlocal asked
        await peer.request()
        asked += 1
        await peer.send(SSE_HEAD, chunk(START if asked == 1 else ANSWER))
        if asked > 1:
            await peer.send(LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler), retries=2)
    response = await gateway.ask("POST", RAW, {**QUERY, "model": "claude", "stream": stream})
    assert response.status == 200
    if stream:
        assert (bytes(response.body), response.ended, asked) == (START, False, 1)
    else:
        assert (bytes(response.body), response.ended, asked) == (ANSWER, True, 2)


def _event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


START = _event("message_start", message={"id": "a", "model": "c", "usage": {"input_tokens": 3}})
ANSWER = (
    START
    + _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    + _event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"})
    + _event("content_block_stop", index=0)
    + _event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2})
    + _event("message_stop")
)


@on_both_loops
@pytest.mark.parametrize(
    ("expected", "stream"), [(FINISH + DONE, True), (FINISH + DONE, False), (TOLD, True)], ids=["end", "whole", "error"]
)
async def test_the_response_ends_with_the_body(net: Net, expected: bytes, stream: bool) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        for piece in (
            SSE_HEAD,
            chunk(delta("One ")),
            chunk(expected),
            chunk(b": and\n\ndata: mo"),
            chunk(b"re"),
            LAST_CHUNK,
        ):
            await peer.send(piece)
            await asyncio.sleep(0)

    gateway = await net.gateway(await net.upstream(handler))
    response = await gateway.ask("POST", RAW, {**QUERY, "stream": stream})
    assert bytes(response.body) == delta("One ") + expected + b": and\n\ndata: more"
    assert (response.status, response.ended) == (200, True)


@on_uvloop
async def test_a_failure_before_the_first_byte_has_its_status(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        body = json.dumps({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}).encode()
        await peer.answer("429 Too Many Requests", body, "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler))
    response = await gateway.ask("POST", RAW, QUERY)
    assert (response.status, response.error["code"]) == (429, "rate_limited")


@on_uvloop
async def test_a_refusal_of_the_gateways_own_key_is_not_passed_on(net: Net) -> None:
    secret = b'data: {"error":{"message":"Incorrect API key sk-canary-0123456789","code":"invalid_api_key"}}\n\n'
    response = await broken(net, chunk(secret))
    assert b"canary" not in response.body
    assert not response.ended
    assert net.warned("refuses our credentials")


@on_uvloop
async def test_a_cancelled_stream_is_cut(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("One ")))
        await peer.until_gone()

    gateway = await net.gateway(await net.upstream(handler))
    _, response = await gateway.stream(QUERY, RAW)
    await response.until(b"One ")
    assert (await gateway.ask("DELETE", f"/api/v1/streams/{response.headers['x-gai-stream-id']}")).status == 202
    assert not (await response.rest()).ended


@on_uvloop
async def test_it_has_one_framing_and_cannot_be_kept(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3))
    assert (await gateway.ask("POST", f"{RAW}&framing=ndjson", QUERY)).status == 406
    kept = await gateway.ask("POST", RAW, {**QUERY, "resumable": True})
    assert (kept.status, kept.error["reason"]) == (400, "format")
    durable = await gateway.ask("POST", "/api/v1/stream", {**QUERY, "resumable": True})
    path = f"/api/v1/streams/{durable.headers['x-gai-stream-id']}?format=raw"
    assert (await gateway.ask("GET", path)).status == 406


@on_uvloop
async def test_it_cannot_be_continued(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3), on_midstream_failure="continue")
    response = await gateway.ask("POST", RAW, QUERY)
    assert (response.status, response.error["code"]) == (400, "unsupported")
