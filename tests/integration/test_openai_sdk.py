"""The official OpenAI and Anthropic clients, unmodified, against a running gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

from gai_fast.cli.mock.command import Fault
from tests.integration.certificates import NO_CERTIFICATES
from tests.integration.gateway import (
    DONE,
    FINISH,
    LAST_CHUNK,
    SSE_HEAD,
    Gateway,
    Net,
    Peer,
    delta,
    on_both_loops,
    on_steady_loop,
    on_uvloop,
)
from tests.wire import chunk

MESSAGES: Any = [{"role": "user", "content": "hi"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def client_of(net: Net, gateway: Gateway, **options: Any) -> openai.AsyncOpenAI:
    options = {"max_retries": 0, "http_client": openai.DefaultAsyncHttpxClient(verify=NO_CERTIFICATES), **options}
    client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", **options)
    net.stack.push_async_callback(client.close)
    return client


async def text_of(chunks: AsyncIterator[Any]) -> str:
    """Returns the text of a stream, taken as most programs take it: `choices` is never null."""
    text = ""
    async for piece in chunks:
        assert piece.object == "chat.completion.chunk"
        text += "".join(choice.delta.content or "" for choice in piece.choices)
    return text


@on_both_loops
@pytest.mark.parametrize("model", ["m", "claude"])
async def test_chat_completions_streamed_and_not(net: Net, model: str) -> None:
    gateway = await net.gateway(await net.mock(deltas=8))
    client = client_of(net, gateway)
    ask = client.chat.completions
    text = await text_of(await ask.create(model=model, messages=MESSAGES, stream=True))
    whole = await ask.create(model=model, messages=MESSAGES)
    assert whole.choices[0].message.content == text
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 8
    stream = await ask.create(
        model=model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}, max_tokens=4
    )
    chunks = [piece async for piece in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [choice.finish_reason for piece in chunks for choice in piece.choices][-1] == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    assert chunks[-1].choices == []
    async with client.chat.completions.stream(model=model, messages=MESSAGES) as events:
        final = await events.get_final_completion()
    assert final.choices[0].message.content == text
    raw = await ask.with_raw_response.create(model=model, messages=MESSAGES, extra_headers={"X-Request-Id": "my-id"})
    assert raw.request_id == "my-id"


@on_both_loops
async def test_the_blocking_client_works_too(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=8), demo=True)

    def talk() -> str:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            text = "".join(choice.delta.content or "" for piece in stream for choice in piece.choices)
            whole = client.chat.completions.create(model="m", messages=MESSAGES)
            assert whole.choices[0].message.content == text
            assert [model.id for model in client.models.list()] == ["m", "claude", "demo"]
            assert client.models.retrieve("claude").owned_by == "anthropic"
            return text

    assert (await asyncio.to_thread(talk)).startswith("Once upon")
    await asyncio.get_running_loop().shutdown_default_executor()


@on_uvloop
async def test_the_demo_answers(net: Net) -> None:
    gateway = await net.gateway()
    stream = await client_of(net, gateway).chat.completions.create(model="demo", messages=MESSAGES, stream=True)
    text = ""
    async for piece in stream:
        text = piece.choices[0].delta.content or ""
        if text:
            break
    await stream.close()
    assert text


@on_uvloop
async def test_the_demo_obeys_max_tokens_and_its_entry_says_that_it_is_recorded(net: Net) -> None:
    client = client_of(net, await net.gateway())
    create = client.chat.completions.create
    for whole in (
        await create(model="demo", messages=MESSAGES, max_tokens=4),
        await create(model="demo", messages=MESSAGES, max_completion_tokens=4),
    ):
        assert whole.choices[0].finish_reason == "length"
        assert whole.choices[0].message.content == "One stormy night,"
    model = await client.models.retrieve("demo")
    assert model.model_extra is not None
    assert model.model_extra["description"] == "a recorded answer, whatever is asked"


@on_uvloop
async def test_models_are_listed_for_both_sdks(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    listed = await client_of(net, gateway).models.list()
    assert [(model.id, model.owned_by) for model in listed.data] == [("m", "up"), ("claude", "anthropic")]
    assert (await client_of(net, gateway).models.retrieve("up/some/id")).id == "up/some/id"
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="none", max_retries=0) as client:
        page = await client.models.list()
        assert [(model.id, model.type, model.display_name) for model in page.data] == [
            ("m", "model", "m"),
            ("claude", "model", "claude"),
        ]
        assert (page.has_more, page.first_id, page.last_id) == (False, "m", "claude")
        assert (await client.models.retrieve("claude")).created_at is not None


ANTHROPIC_CALL = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "mock",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 1},
        },
    },
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}},
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"city": '}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '"Oslo"}'}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 9},
    },
    {"type": "message_stop"},
]
OPENAI_CALL = [
    {
        "tool_calls": [
            {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
        ]
    },
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]},
]


@on_uvloop
@pytest.mark.parametrize("model", ["m", "claude"])
async def test_tool_calls(net: Net, model: str) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            body = json.loads(await peer.request())
            assert body["tools"]
            await peer.send(SSE_HEAD)
            if model == "m":
                for said in OPENAI_CALL:
                    await peer.send(chunk(delta("", delta=said)))
                await peer.send(chunk(delta("", delta={}, finish_reason="tool_calls")), chunk(DONE))
            else:
                for event in ANTHROPIC_CALL:
                    await peer.send(chunk(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()))
            await peer.send(LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler))
    client = client_of(net, gateway)
    async with client.chat.completions.stream(model=model, messages=MESSAGES, tools=TOOLS) as events:
        final = await events.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    (call,) = final.choices[0].message.tool_calls or []
    assert call.id == "call_1"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    if model == "claude":
        whole = await client.chat.completions.create(model=model, messages=MESSAGES, tools=TOOLS)
        (called,) = whole.choices[0].message.tool_calls or []
        assert called.type == "function"
        assert json.loads(called.function.arguments) == {"city": "Oslo"}


ERRORS: dict[str, tuple[str, dict[str, Any], type[openai.APIStatusError]]] = {
    "429": ("429 Too Many Requests", {"message": "slow", "code": "rate_limit_exceeded"}, openai.RateLimitError),
    "400": ("400 Bad Request", {"message": "no", "type": "invalid_request_error"}, openai.BadRequestError),
    "404": ("404 Not Found", {"message": "no", "code": "model_not_found"}, openai.NotFoundError),
    "422": ("422 Unprocessable Entity", {"message": "no"}, openai.UnprocessableEntityError),
    "500": ("500 Internal Server Error", {"message": "oops"}, openai.InternalServerError),
    "503": ("503 Service Unavailable", {"message": "overloaded"}, openai.InternalServerError),
    # The caller's own key is good: `AuthenticationError` would send it looking for the fault in the wrong place.
    "401": ("401 Unauthorized", {"message": "bad key", "code": "invalid_api_key"}, openai.InternalServerError),
}


@on_uvloop
@pytest.mark.parametrize("name", ERRORS)
async def test_errors_are_the_exceptions_that_programs_catch(net: Net, name: str) -> None:
    status, said, expected = ERRORS[name]

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(status, json.dumps({"error": said}).encode(), "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler))
    client = client_of(net, gateway)
    for stream in (True, False):
        with pytest.raises(expected) as caught:
            await client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
        assert type(caught.value) is expected
        assert caught.value.request_id
        if name not in ("401", "500", "503"):
            assert said["message"] in caught.value.message
    assert net.warned("refuses our credentials") == (name == "401")


@on_uvloop
async def test_our_own_refusals_are_its_exceptions_too(net: Net) -> None:
    gateway = await net.gateway(await net.mock(fault=Fault("refuse")))
    client = client_of(net, gateway)
    with pytest.raises(openai.NotFoundError, match="Unknown model"):
        await client.chat.completions.create(model="nobody", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="claude", messages=MESSAGES, n=2)
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="m", messages=MESSAGES)
    assert caught.value.status_code == 502
    assert caught.value.code == "network"


@on_uvloop
async def test_it_retries_what_is_temporary_and_nothing_else(net: Net) -> None:
    asked = 0

    async def handler(peer: Peer) -> None:
        nonlocal asked
        while True:
            await peer.request()
            asked += 1
            code = "rate_limit_exceeded" if temporary else "insufficient_quota"
            body = json.dumps({"error": {"message": "slow", "code": code, "type": code}}).encode()
            await peer.answer("429 Too Many Requests", body, "Content-Type: application/json", "retry-after-ms: 10")

    gateway = await net.gateway(await net.upstream(handler))
    client = client_of(net, gateway, max_retries=2)
    for temporary, expected in ((True, 3), (False, 1)):  # noqa: B007  # the handler reads it
        asked = 0
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert asked == expected


@on_steady_loop
@pytest.mark.parametrize("kind", ["cut", "reset", "error-event", "stall"])
@pytest.mark.parametrize("model", ["m", "claude"])
async def test_a_stream_that_breaks_is_an_error_and_never_a_silent_success(net: Net, kind: str, model: str) -> None:
    gateway = await net.gateway(await net.mock(deltas=8, fault=Fault(kind, 3)), idle_timeout=0.2)
    stream = await client_of(net, gateway).chat.completions.create(model=model, messages=MESSAGES, stream=True)
    got = 0
    with pytest.raises(openai.APIError) as caught:
        async for piece in stream:
            got += any(choice.delta.content for choice in piece.choices)
    assert got == 3
    assert caught.value.message


@on_uvloop
@pytest.mark.parametrize("path", ["m", "claude", "up/other"])
async def test_heartbeats_do_not_disturb_it(net: Net, path: str) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        frames = (delta("a"), delta("b"), FINISH) if path != "claude" else ()
        if path == "claude":
            frames = tuple(
                f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in ANTHROPIC_CALL
            )
        await asyncio.sleep(0.15)
        await peer.send(SSE_HEAD)
        for frame in frames:
            await peer.send(chunk(frame[:10]))
            await asyncio.sleep(0.08)
            await peer.send(chunk(frame[10:]))
        await peer.send(chunk(DONE), LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler), heartbeat=0.05, commit_after=0.05)
    ask = client_of(net, gateway).chat.completions
    text = await text_of(await ask.create(model=path, messages=MESSAGES, stream=True))
    assert text == ("" if path == "claude" else "ab")
    # The gateway's own events with ids, as an EventSource gets them, are read with another format by the same SDK.
    response = await gateway.ask("POST", "/api/v1/stream?format=openai", {"query": "hi", "model": path})
    assert response.data[-1] == "[DONE]"
    assert b": ping\n" in response.body
