"""`POST /v1/completions` with the official OpenAI client, translated and passed through."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import openai
import pytest

from gai_fast.model.settings import ModelSettings, Secret, UpstreamSettings
from gai_fast.server.serving import start
from tests.integration.gateway import (
    DONE,
    KEY,
    LAST_CHUNK,
    SSE_HEAD,
    Gateway,
    Net,
    Peer,
    Upstream,
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.wire import chunk

PATH = "/v1/completions"


def client_of(net: Net, gateway: Gateway) -> openai.AsyncOpenAI:
    client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    net.stack.push_async_callback(client.close)
    return client


async def legacy(net: Net, upstream: Upstream) -> Gateway:
    """Returns a gateway whose model `legacy` speaks the dialect itself."""
    settings = settings_for(upstream.url)
    speaks = UpstreamSettings("legacy", "openai-compatible:completions", f"{upstream.url}/v1", Secret(KEY), retries=0)
    models = {**settings.models, "legacy": ModelSettings("legacy", speaks, "instruct", settings.stream)}
    running = await start(
        dataclasses.replace(settings, upstreams={**settings.upstreams, "legacy": speaks}, models=models)
    )
    gateway = Gateway(net, running)
    net.gateways.append(gateway)
    net.stack.push_async_callback(running.close)
    return gateway


@on_both_loops
@pytest.mark.parametrize("model", ["m", "claude"])
async def test_a_chat_model_completes_a_prompt_streamed_and_not(net: Net, model: str) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    ask = client_of(net, gateway).completions
    text = ""
    reasons: list[Any] = []
    stream = await ask.create(
        model=model, prompt="Tell me", stream=True, stream_options={"include_usage": True}, max_tokens=4
    )
    async for piece in stream:
        assert piece.object == "text_completion"
        text += "".join(choice.text for choice in piece.choices)
        reasons += [choice.finish_reason for choice in piece.choices]
    assert reasons[-1] == "length"
    assert piece.usage is not None
    assert piece.usage.completion_tokens == 4
    whole = await ask.create(model=model, prompt=["Tell me"], max_tokens=4)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == (text, "length")
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 4


@on_uvloop
async def test_an_upstream_of_the_dialect_gets_and_gives_everything(net: Net) -> None:
    asked: list[Any] = []
    logprobs = {"tokens": ["Once"], "token_logprobs": [-0.5], "top_logprobs": [{"Once": -0.5}], "text_offset": [0]}

    def said(text: str, index: int, reason: str | None) -> dict[str, Any]:
        choice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}
        return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "instruct", "choices": [choice]}

    frames = [said("Once", 0, None), said("Once", 1, None), said("", 0, "stop"), said("", 1, "length")]
    body = b"".join(b"data: %b\n\n" % json.dumps(frame).encode() for frame in frames) + DONE

    async def handler(peer: Peer) -> None:
        while True:
            asked.append((peer, json.loads(await peer.request())))
            if asked[-1][1].get("stream"):
                await peer.send(SSE_HEAD, chunk(body), LAST_CHUNK)
            else:
                await peer.answer(
                    "200 OK", json.dumps(said("Once", 0, "stop")).encode(), "Content-Type: application/json"
                )

    gateway = await legacy(net, await net.upstream(handler))
    request = {"model": "legacy", "prompt": [[1, 2], [3]], "echo": True, "logprobs": 1, "n": 2, "suffix": "end"}
    response = await gateway.ask("POST", PATH, {**request, "stream": True})
    assert bytes(response.body) == body
    peer, sent = asked[0]
    assert peer.head.startswith(b"POST /v1/completions ")
    assert sent == {**request, "model": "instruct", "stream": True}
    client = client_of(net, gateway)
    whole = await client.completions.create(model="legacy", prompt="Hi", echo=True, logprobs=1)
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.token_logprobs == [-0.5]
    stream = await client.completions.create(model="legacy", prompt="Hi", n=2, stream=True)
    assert [choice.index async for piece in stream for choice in piece.choices] == [0, 1, 0, 1]


@on_uvloop
@pytest.mark.parametrize("more", [{"echo": True}, {"logprobs": 0}, {"n": 2}, {"suffix": "x"}, {"prompt": [1, 2]}])
async def test_what_a_chat_model_cannot_do_is_refused(net: Net, more: dict[str, Any]) -> None:
    gateway = await net.gateway(await net.mock())
    with pytest.raises(openai.BadRequestError) as caught:
        await client_of(net, gateway).completions.create(**{"model": "m", "prompt": "Hi", **more})
    assert caught.value.code == "unsupported"


@on_uvloop
async def test_errors_are_the_sdks(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    client = client_of(net, gateway)
    with pytest.raises(openai.NotFoundError):
        await client.completions.create(model="nobody", prompt="Hi")
    with pytest.raises(openai.BadRequestError, match=r"`\$\.temperature`"):
        await client.completions.create(model="m", prompt="Hi", temperature="hot")


@on_uvloop
async def test_a_stream_that_breaks_is_an_error(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            frame = {"id": "c", "object": "text_completion", "model": "m", "choices": [{"text": "One", "index": 0}]}
            await peer.send(SSE_HEAD, chunk(b"data: %b\n\n" % json.dumps(frame).encode()), LAST_CHUNK)

    gateway = await legacy(net, await net.upstream(handler))
    stream = await client_of(net, gateway).completions.create(model="legacy", prompt="Hi", stream=True)
    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass


@on_uvloop
async def test_a_request_with_a_key_is_answered_once(net: Net) -> None:
    mock = await net.mock(deltas=3)
    gateway = await net.gateway(mock)
    body = {"model": "m", "prompt": "Hi", "stream": True}
    first, again = [await gateway.ask("POST", PATH, body, {"idempotency-key": "k"}) for _ in range(2)]
    assert again.headers["idempotent-replayed"] == "true"
    assert first.data == again.data
    assert b"id: " in first.body
    assert len(mock.requests) == 1


@on_uvloop
async def test_other_framings_and_formats(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3))
    body = {"model": "m", "prompt": "Hi", "stream": True}
    lines = await gateway.ask("POST", f"{PATH}?framing=ndjson", body)
    assert "".join(piece["choices"][0]["text"] for piece in lines.events) == "Once upon a"
    native = await gateway.ask("POST", f"{PATH}?format=gai", body)
    assert native.text == "Once upon a"
    assert (await gateway.ask("POST", "/api/v1/stream?format=completions", {"query": "Hi"})).data[-1] == "[DONE]"
