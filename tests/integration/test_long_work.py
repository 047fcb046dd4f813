"""Silence before the first word and amid an answer, with a configuration that sets no time.

On a loop whose time jumps where nothing happens: minutes take milliseconds.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest

from gai_fast.model.settings import (
    ModelSettings,
    Secret,
    ServerSettings,
    Settings,
    StreamSettings,
    TargetSettings,
    UpstreamSettings,
)
from gai_fast.server.serving import start
from tests.integration.gateway import (
    DONE,
    FINISH,
    KEY,
    LAST_CHUNK,
    NATIVE,
    SSE_HEAD,
    Client,
    Gateway,
    Net,
    Peer,
    delta,
)
from tests.steady import JumpingLoop
from tests.unit.formats.responses_reader import upstream as responses_frames
from tests.wire import chunk

HI: Final = "Greetings"
SILENCE: Final = 65.0
"""Seconds before the first word: more than the minute for which an upstream with a fallback is waited for."""
USAGE: Final = {"input_tokens": 3, "output_tokens": 2}


def sse(*objects: dict[str, Any]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (one.get("type", "message").encode(), json.dumps(one).encode()) for one in objects
    )


# ---- answers of five APIs, streamed and whole -----------------------------------------------------------------------

_MESSAGE: Final = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
_SAID: Final = {"role": "model", "parts": [{"text": HI}]}
_GEMINI: Final = {
    "candidates": [{"content": _SAID, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5},
}
_OLLAMA: Final = {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": HI}}
_RESPONSE: Final = b"".join(responses_frames(text=HI))
STREAMED: Final = {
    "chat": delta(HI) + FINISH + DONE,
    "responses": _RESPONSE,
    "messages": sse(
        {"type": "message_start", "message": {**_MESSAGE, "content": [], "stop_reason": None, "usage": USAGE}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": HI}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE},
        {"type": "message_stop"},
    ),
    "gemini": sse(_GEMINI),
    "ollama": json.dumps({**_OLLAMA, "done": False}).encode()
    + b"\n"
    + json.dumps(
        {**_OLLAMA, "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    ).encode()
    + b"\n",
}
WHOLE: Final = {
    "chat": {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": HI}, "finish_reason": "stop"}],
    },
    "responses": json.loads(_RESPONSE.rpartition(b"data: ")[2])["response"],
    "messages": {**_MESSAGE, "content": [{"type": "text", "text": HI}], "stop_reason": "end_turn", "usage": USAGE},
    "gemini": _GEMINI,
    "ollama": {**_OLLAMA, "done": True, "done_reason": "stop"},
}
PROVIDERS: Final = {
    "chat": "openai-compatible",
    "responses": "openai-compatible:responses",
    "messages": "anthropic",
    "gemini": "gemini",
    "ollama": "ollama",
}
ASKED: Final = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    "responses": ("/v1/responses", {"input": "Hi"}),
    "messages": ("/v1/messages", {"max_tokens": 64, "messages": [{"role": "user", "content": "Hi"}]}),
}
"""What a client of the dialect asks."""


def api_of(path: str) -> str:
    """Returns the API of a request to an upstream."""
    for sign, api in (("chat/completions", "chat"), ("responses", "responses"), ("messages", "messages")):
        if sign in path:
            return api
    return "ollama" if path.endswith("/api/chat") else "gemini"


def silent_for(seconds: float) -> Callable[[Peer], Awaitable[None]]:
    """Returns an upstream of all five APIs that is silent before its first word."""

    async def handler(peer: Peer) -> None:
        while True:
            asked = json.loads(await peer.request())
            path = peer.head.split(b" ", 2)[1].decode()
            api = api_of(path.partition("?")[0])
            is_stream = "streamGenerateContent" in path if api == "gemini" else asked.get("stream", api == "ollama")
            await asyncio.sleep(seconds)
            if is_stream:
                await peer.send(SSE_HEAD, chunk(STREAMED[api]), LAST_CHUNK)
            else:
                await peer.answer("200 OK", json.dumps(WHOLE[api]).encode(), "Content-Type: application/json")

    return handler


# ---- scenarios -------------------------------------------------------------------------------------------------------


def run(scenario: Callable[[Net], Awaitable[None]]) -> None:
    """Runs a scenario on a loop whose time jumps."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            await scenario(Net(stack))

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


async def gateway_of(net: Net, *models: ModelSettings) -> Gateway:
    """Returns a gateway with these models, and no time limit of its configuration's own."""
    upstreams = {model.upstream.name: model.upstream for model in models}
    settings = Settings(
        server=ServerSettings(port=0), upstreams=upstreams, models={model.name: model for model in models}
    )
    running = await start(settings)
    net.stack.push_async_callback(running.close)
    return Gateway(net, running)


def model_of(name: str, url: str, api: str = "chat", **more: Any) -> ModelSettings:
    path = {"chat": "/v1", "responses": "/v1"}.get(api, "")
    stream = more.pop("stream", StreamSettings())
    return ModelSettings(name, UpstreamSettings(name, PROVIDERS[api], url + path, Secret(KEY)), "m", stream, **more)


async def asked(gateway: Gateway, path: str, body: dict[str, Any]) -> tuple[float, int, bytes]:
    """Returns the seconds of an answer, its status and its body."""
    loop = asyncio.get_running_loop()
    client: Client = await gateway.connect()
    begun = loop.time()
    client.request("POST", path, body)
    head = await client.reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    lines = head.lower()
    body_bytes = b""
    if b"transfer-encoding: chunked" in lines:
        while True:
            size = int(await client.reader.readline(), 16)
            body_bytes += (await client.reader.readexactly(size + 2))[:-2]
            if not size:
                break
    else:
        length = lines.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        body_bytes = await client.reader.readexactly(int(length))
    client.close()
    return loop.time() - begun, status, body_bytes


def test_a_silence_of_65_seconds_ends_no_answer_of_five_apis_streamed_and_whole() -> None:
    async def scenario(net: Net) -> None:
        upstream = await net.upstream(silent_for(SILENCE))
        gateway = await gateway_of(net, *[model_of(api, upstream.url, api) for api in PROVIDERS])
        requests = [(NATIVE, {"query": "Hi", "model": api}) for api in PROVIDERS]
        requests += [(path, {**body, "model": api}) for api, (path, body) in ASKED.items()]
        every = [(path, {**body, "stream": is_stream}) for path, body in requests for is_stream in (True, False)]
        answers = await asyncio.gather(*[asked(gateway, path, body) for path, body in every])
        for (path, body), (seconds, status, answer) in zip(every, answers, strict=True):
            about = path, body["model"], body["stream"]
            assert (status, SILENCE <= seconds < SILENCE + 5) == (200, True), (about, seconds, answer)
            assert HI.encode() in answer, about
            assert b"error" not in answer.replace(b'"error":null', b""), about
            assert (b": ping" in answer or b"event: ping" in answer) == body["stream"], about

    run(scenario)


@pytest.mark.parametrize(
    ("members", "least"),
    [({}, 60.0), ({"reasoning": {"effort": "none"}}, 60.0), ({"reasoning": {"effort": "high"}}, 600.0)],
    ids=["no thought", "none", "thought"],
)
@pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "whole"])
def test_a_fallback_is_asked_after_a_minute_or_after_ten_if_thought_is_asked_for(
    members: dict[str, Any], least: float, is_stream: bool
) -> None:
    async def scenario(net: Net) -> None:
        silent, ready = await net.upstream(silent_for(86_400)), await net.upstream(silent_for(0))
        gateway = await gateway_of(net, model_of("m", silent.url, fallback=("spare",)), model_of("spare", ready.url))
        body = {"query": "Hi", "model": "m", "stream": is_stream, **members}
        seconds, status, answer = await asked(gateway, NATIVE, body)
        assert (status, least <= seconds < least + 5) == (200, True), (seconds, answer)
        assert HI.encode() in answer

    run(scenario)


@pytest.mark.parametrize(("wish", "least"), [("error", 600.0), ("continue", 60.0)])
def test_a_silence_amid_an_answer_ends_it_sooner_where_a_fallback_can_go_on(wish: Any, least: float) -> None:
    async def stalls(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta(HI[:3])))
        await peer.until_gone()

    async def scenario(net: Net) -> None:
        silent, ready = await net.upstream(stalls), await net.upstream(silent_for(0))
        model = model_of("m", silent.url, fallback=("spare",), stream=StreamSettings(on_midstream_failure=wish))
        gateway = await gateway_of(net, model, model_of("spare", ready.url))
        seconds, status, answer = await asked(gateway, NATIVE, {"query": "Hi", "model": "m"})
        assert (status, least <= seconds < least + 5) == (200, True), (seconds, answer)
        assert (b'"type":"finish"' in answer, b'"reason":"idle"' in answer) == (wish == "continue", wish == "error")

    run(scenario)


def test_an_answer_of_700_seconds_with_pauses_of_five_minutes_is_whole() -> None:
    async def slow(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD)
        for word in (HI[:3], HI[3:]):
            await peer.send(chunk(delta(word)))
            await asyncio.sleep(350)
        await peer.send(chunk(FINISH), chunk(DONE), LAST_CHUNK)

    async def scenario(net: Net) -> None:
        upstream = await net.upstream(slow)
        gateway = await gateway_of(net, model_of("m", upstream.url))
        seconds, status, answer = await asked(gateway, NATIVE, {"query": "Hi", "model": "m"})
        assert (status, 700 <= seconds < 710) == (200, True), (seconds, answer)
        assert b'"type":"finish"' in answer
        assert answer.count(b": ping") >= 40

    run(scenario)


def test_of_what_is_passed_through_another_target_is_asked_after_a_minute_and_the_last_may_take_ten() -> None:
    """The head of an answer is waited for as the first event of a stream is; the rest of it may pause for longer."""
    came: list[Peer] = []

    async def handler(peer: Peer) -> None:
        await peer.request()
        came.append(peer)
        if len(came) == 1:
            await peer.until_gone()
            return
        await asyncio.sleep(300)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        await asyncio.sleep(300)
        await peer.send(chunk(b'{"data": []}'), LAST_CHUNK)

    async def scenario(net: Net) -> None:
        url = (await net.upstream(handler)).url + "/v1"
        places = [
            UpstreamSettings(name, PROVIDERS["chat"], url, Secret(KEY), pass_paths=("/v1/embeddings",)) for name in "ab"
        ]
        model = ModelSettings(
            "m", places[0], "m", StreamSettings(), targets=tuple(TargetSettings(each, "m") for each in places)
        )
        running = await start(
            Settings(server=ServerSettings(port=0), upstreams={each.name: each for each in places}, models={"m": model})
        )
        net.stack.push_async_callback(running.close)
        seconds, status, answer = await asked(Gateway(net, running), "/v1/embeddings", {"model": "m", "input": "Hi"})
        assert (status, answer) == (200, b'{"data": []}')
        assert 660 <= seconds < 665

    run(scenario)
