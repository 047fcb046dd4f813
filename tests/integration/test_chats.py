"""`POST /api/v1/chat` and `?format=vercel`: the wire of `useChat`, resumed in the middle by the chat's id."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import zlib
from typing import Any

import pytest

from gai_fast.model.settings import KeySettings, key_digest
from tests.integration.gateway import (
    DONE,
    FINISH,
    LAST_CHUNK,
    QUERY,
    SSE_HEAD,
    Gateway,
    Net,
    Peer,
    Response,
    delta,
    on_both_loops,
    on_uvloop,
)
from tests.waiting import until_answered
from tests.wire import chunk

ASK = {
    "id": "chat-1",
    "trigger": "submit-message",
    "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}],
}
CHAT = "/api/v1/chat"


def text_of(response: Response) -> str:
    return "".join(part["delta"] for part in response.events if part["type"] == "text-delta")


async def held(net: Net, **options: Any) -> tuple[Gateway, asyncio.Event]:
    """Returns a gateway whose upstream waits in the middle of each answer."""
    go_on = asyncio.Event()

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(SSE_HEAD, chunk(delta("One ")), chunk(delta("two ")))
            await go_on.wait()
            await peer.send(chunk(delta("three")), chunk(FINISH), chunk(DONE), LAST_CHUNK)

    return await net.gateway(await net.upstream(handler), **options), go_on


@on_both_loops
async def test_a_stream_that_is_looked_for_has_the_settings_of_its_model(net: Net) -> None:
    """They differ from the settings in `[stream]`, by which its response begins to wait."""
    gateway, go_on = await held(net)
    settings = gateway.running.engine.settings
    model = settings.models["m"]
    own = dataclasses.replace(model.stream, compression=("gzip",), client_buffer=12345)
    models = {**settings.models, "m": dataclasses.replace(model, stream=own)}
    gateway.running.use(dataclasses.replace(settings, models=models))
    client, _ = await gateway.stream(ASK, CHAT)
    again = await gateway.connect()
    again.request("GET", f"{CHAT}/chat-1/stream", headers={"accept-encoding": "gzip"})
    response = await again.response()
    assert (response.status, response.headers["content-encoding"]) == (200, "gzip")
    transports = [each for connections in gateway.running.connections for each in connections.transports]
    assert [each.get_write_buffer_limits()[1] for each in transports].count(12345) == 2
    go_on.set()
    await response.rest()
    assert response.ended
    assert b"three" in zlib.decompress(response.body, zlib.MAX_WBITS + 16)
    client.close()


@on_both_loops
async def test_a_chat_is_resumed_from_its_beginning_and_204_after_its_end(net: Net) -> None:
    gateway, go_on = await held(net)
    first, response = await gateway.stream(ASK, CHAT)
    assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    await response.until(b"two ")
    first.close()
    client = await gateway.connect()
    client.request("GET", f"{CHAT}/chat-1/stream")
    again = await (await client.response()).until(b"two ")
    assert again.headers["x-gai-stream-id"] == response.headers["x-gai-stream-id"]
    assert again.headers["x-vercel-ai-ui-message-stream"] == "v1"
    go_on.set()
    await again.rest()
    assert text_of(again) == "One two three"
    assert again.data[-1] == "[DONE]"
    assert (await gateway.ask("GET", f"{CHAT}/chat-1/stream")).status == 204
    assert (await gateway.ask("GET", f"{CHAT}/another/stream")).status == 204


@on_uvloop
async def test_the_newest_request_has_the_chat(net: Net) -> None:
    gateway, go_on = await held(net)
    _, first = await gateway.stream(ASK, CHAT)
    _, second = await gateway.stream(ASK, CHAT)
    client = await gateway.connect()
    client.request("GET", f"{CHAT}/chat-1/stream")
    found = await client.response()
    assert found.headers["x-gai-stream-id"] == second.headers["x-gai-stream-id"]
    go_on.set()
    for response in (first, second, found):
        assert (await response.rest()).data[-1] == "[DONE]"


@on_uvloop
async def test_a_chat_belongs_to_its_caller(net: Net) -> None:
    keys = tuple(KeySettings(name, (key_digest(name * 8),)) for name in ("ann", "bob"))
    gateway, go_on = await held(net, keys=keys)
    own, other = ({"authorization": f"Bearer {name * 8}"} for name in ("ann", "bob"))
    _, response = await gateway.stream(ASK, CHAT, **own)
    await response.until(b"One ")
    path = f"{CHAT}/chat-1/stream"
    assert (await gateway.ask("GET", path)).status == 401
    assert (await gateway.ask("GET", path, headers=other)).status == 204
    client = await gateway.connect()
    client.request("GET", path, headers=own)
    found = await client.response()
    assert found.status == 200
    go_on.set()
    await asyncio.gather(response.rest(), found.rest())


@on_uvloop
async def test_the_native_route_takes_the_sdks_body_too(net: Net) -> None:
    mock = await net.mock(deltas=3)
    gateway = await net.gateway(mock)
    for body in (QUERY, ASK):
        response = await gateway.ask("POST", "/api/v1/stream?format=vercel&model=claude", body)
        assert (response.status, response.data[-1]) == (200, "[DONE]")
        assert text_of(response) == "Once upon a"
    native, own = mock.requests
    assert "max_tokens" not in native.body
    assert "max_tokens" in own.body, "`?model=` names the model of a body of the SDK's"
    assert own.body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert "id: " not in response.body.decode(), "it is a plain stream"


@on_uvloop
async def test_a_whole_answer_is_one_message(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3))
    response = await gateway.ask("POST", CHAT, {**ASK, "stream": False})
    assert response.headers["content-type"] == "application/json"
    assert "x-vercel-ai-ui-message-stream" not in response.headers
    assert response.json["parts"][1] == {"type": "text", "text": "Once upon a", "state": "done"}


@on_uvloop
async def test_a_failure_before_the_stream_has_a_status_and_one_within_it_is_a_part(net: Net) -> None:
    refusal = json.dumps({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}).encode()
    asked = 0

    async def handler(peer: Peer) -> None:
        nonlocal asked
        while True:
            await peer.request()
            asked += 1
            if asked == 1:
                await peer.answer("429 Too Many Requests", refusal, "Content-Type: application/json")
                continue
            error = b'data: {"error":{"message":"broke","code":"server_error"}}\n\n'
            await peer.send(SSE_HEAD, chunk(delta("One ")), chunk(error), LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler))
    early = await gateway.ask("POST", CHAT, ASK)
    assert (early.status, early.error["code"]) == (429, "rate_limited")
    assert "x-vercel-ai-ui-message-stream" not in early.headers
    late = await gateway.ask("POST", CHAT, ASK)
    assert (late.status, late.ended) == (200, True)
    assert [part["type"] for part in late.events][-2:] == ["message-metadata", "error"]
    assert "[DONE]" not in late.data

    async def is_over() -> bool:
        return (await gateway.ask("GET", f"{CHAT}/chat-1/stream")).status == 204

    await until_answered(is_over)


@on_uvloop
@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        (CHAT, {**ASK, "id": ""}, 400, "validation"),
        (CHAT, {**ASK, "messages": []}, 400, "validation"),
        (CHAT, {**ASK, "surprise": 1}, 400, "field"),
        (CHAT, QUERY, 400, "validation"),
        (f"{CHAT}?ui=4", ASK, 400, "format"),
        (f"{CHAT}?framing=ndjson", ASK, 406, "not_acceptable"),
        ("/api/v1/stream?format=vercel&framing=ndjson", QUERY, 406, "not_acceptable"),
        ("/api/v1/stream?ui=6", QUERY, 400, "format"),
        ("/api/v1/stream", ASK, 400, "validation"),
    ],
)
async def test_refusals(net: Net, path: str, body: Any, status: int, reason: str) -> None:
    gateway = await net.gateway(await net.mock())
    response = await gateway.ask("POST", path, body)
    assert (response.status, response.error["reason"]) == (status, reason)


@on_uvloop
async def test_an_idempotency_key_is_refused_and_other_paths_are_no_chat(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    response = await gateway.ask("POST", CHAT, ASK, {"idempotency-key": "k"})
    assert (response.status, response.error["reason"]) == (400, "chat")
    for path in (f"{CHAT}/", f"{CHAT}/chat-1", f"{CHAT}/chat-1/streams"):
        assert (await gateway.ask("GET", path)).status == 404
