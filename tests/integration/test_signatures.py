"""Signatures survive the official SDKs: what an upstream signed or encrypted comes back to it in the next request.

Each SDK asks each upstream, streamed and not, and sends the answer back with the result of its call, as programs do.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final

import pytest

from gai_fast.library.collecting import collect
from gai_fast.model.events import Event
from gai_fast.server.serving import start
from tests.integration import test_anthropic_sdk, test_openai_sdk
from tests.integration.gateway import LAST_CHUNK, MESSAGES, SSE_HEAD, Gateway, Net, Peer, on_uvloop, settings_for
from tests.unit.formats import messages_reader, responses_reader
from tests.unit.formats.streams import DONE, call, call_start, finish
from tests.wire import chunk

THOUGHT: Final[list[Event]] = [
    {"type": "reasoning.delta", "text": "Hm"},
    {"type": "reasoning.signature", "signature": "c2lnbmVk", "block": 0},
]
REDACTED: Final[Event] = {"type": "reasoning.signature", "signature": "b3BhcXVl", "redacted": True, "block": 1}
CALLED: Final[list[Event]] = [call_start(), call(), finish("tool_calls"), DONE]
ANSWERS: Final = {
    "claude": messages_reader.streamed(*THOUGHT, REDACTED, *CALLED, start=messages_reader.CLAUDE),
    "native/gpt-x": responses_reader.streamed({**messages_reader.CLAUDE, "provider": "openai"}, *THOUGHT, *CALLED),
    "router/gpt-x": responses_reader.streamed({**messages_reader.CLAUDE, "provider": "openai"}, *THOUGHT, *CALLED),
}
"""For each model what its upstream answers."""

RESULT: Final = "4 °C"


async def gateway_to(net: Net, url: str) -> Gateway:
    """Returns a gateway with one more upstream, `router`: OpenRouter's Responses API."""
    settings = settings_for(url)
    router = dataclasses.replace(settings.upstreams["native"], name="router", provider="openrouter:responses")
    running = await start(dataclasses.replace(settings, upstreams={**settings.upstreams, "router": router}))
    net.stack.push_async_callback(running.close)
    net.gateways.append(Gateway(net, running))
    return net.gateways[-1]


async def by_chat(net: Net, gateway: Gateway, model: str, *, stream: bool) -> None:
    ask = test_openai_sdk.client_of(net, gateway).chat.completions
    if stream:
        async with ask.stream(model=model, messages=MESSAGES) as events:
            answer: Any = await events.get_final_completion()
    else:
        answer = await ask.create(model=model, messages=MESSAGES)
    message = answer.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": RESULT}
    await ask.create(model=model, messages=[*MESSAGES, message.to_dict(), result])


async def by_responses(net: Net, gateway: Gateway, model: str, *, stream: bool) -> None:
    ask = test_openai_sdk.client_of(net, gateway).responses
    if stream:
        async with ask.stream(model=model, input=MESSAGES) as events:
            answer: Any = await events.get_final_response()
    else:
        answer = await ask.create(model=model, input=MESSAGES)
    (called,) = [item for item in answer.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": called.call_id, "output": RESULT}
    await ask.create(model=model, input=[*MESSAGES, *answer.output, result])


async def by_messages(net: Net, gateway: Gateway, model: str, *, stream: bool) -> None:
    ask = test_anthropic_sdk.client_of(net, gateway).messages
    if stream:
        async with ask.stream(model=model, max_tokens=9, messages=MESSAGES) as events:
            answer: Any = await events.get_final_message()
    else:
        answer = await ask.create(model=model, max_tokens=9, messages=MESSAGES)
    (called,) = [block for block in answer.content if block.type == "tool_use"]
    result: Any = {"type": "tool_result", "tool_use_id": called.id, "content": RESULT}
    turns: Any = [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    await ask.create(model=model, max_tokens=9, messages=[*MESSAGES, *turns])


@on_uvloop
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ANSWERS)
@pytest.mark.parametrize("talk", [by_chat, by_responses, by_messages], ids=lambda talk: talk.__name__)
async def test_an_upstream_gets_back_what_it_has_signed(net: Net, talk: Any, model: str, stream: bool) -> None:
    asked: list[Any] = []

    async def handler(peer: Peer) -> None:
        while True:
            asked.append(json.loads(await peer.request()))
            await peer.send(SSE_HEAD, chunk(ANSWERS[model]), LAST_CHUNK)

    await talk(net, await gateway_to(net, (await net.upstream(handler)).url), model, stream=stream)
    sent = asked[-1]
    if model == "claude":
        assert sent["messages"][1]["content"][:2] == [
            {"type": "thinking", "thinking": "Hm", "signature": "c2lnbmVk"},
            {"type": "redacted_thinking", "data": "b3BhcXVl"},
        ]
        assert sent["messages"][1]["content"][2]["type"] == "tool_use"
        assert sent["messages"][2]["content"][0]["tool_use_id"] == "call_1"
    else:
        _, reasoning, called, result = sent["input"]
        assert (reasoning["type"], reasoning["encrypted_content"]) == ("reasoning", "c2lnbmVk")
        assert reasoning["summary"] == [{"type": "summary_text", "text": "Hm"}]
        assert (called["call_id"], result["call_id"], result["output"]) == ("call_1", "call_1", RESULT)


BLOCKS: Final[list[dict[str, Any]]] = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
    {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": [
            {"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": "e", "page_age": None}
        ],
    },
]
"""The blocks of an answer that Anthropic has paused."""


def paused() -> bytes:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": []}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": head}]
    for at, block in enumerate(BLOCKS):
        events += [
            {"type": "content_block_start", "index": at, "content_block": block},
            {"type": "content_block_stop", "index": at},
        ]
    events += [{"type": "message_delta", "delta": {"stop_reason": "pause_turn"}}, {"type": "message_stop"}]
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)


@on_uvloop
@pytest.mark.parametrize("way", ["whole", "followed", "useChat"])
async def test_a_paused_answer_goes_on_with_its_own_message(net: Net, way: str) -> None:
    """Before, `message` had no content, and the provider began anew."""
    asked: list[Any] = []

    async def handler(peer: Peer) -> None:
        while True:
            asked.append(json.loads(await peer.request()))
            await peer.send(SSE_HEAD, chunk(paused()), LAST_CHUNK)

    gateway = await gateway_to(net, (await net.upstream(handler)).url)
    body: dict[str, Any] = {"model": "claude", "messages": MESSAGES}
    said = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
    if way == "useChat":
        chat = {"id": "chat", "model": "claude", "messages": [said]}
        whole = await gateway.ask("POST", "/api/v1/stream?format=vercel", {**chat, "stream": False})
        answer = json.loads(whole.body)
        await gateway.ask("POST", "/api/v1/stream?format=vercel", {**chat, "messages": [said, answer]})
    else:
        if way == "whole":
            whole = await gateway.ask("POST", "/api/v1/stream", {**body, "stream": False})
            message = json.loads(whole.body)["message"]
            assert json.loads(whole.body)["finish_reason"] == "pause"
        else:
            begun = json.loads((await gateway.ask("POST", "/api/v1/streams", body)).body)
            lines = (await gateway.ask("GET", f"{begun['url']}?framing=ndjson&after={begun['id']}.0")).body.splitlines()
            events: list[Event] = [json.loads(line) for line in lines if line.strip()]
            message = collect(events).message
        await gateway.ask("POST", "/api/v1/stream", {**body, "messages": [*MESSAGES, message]})
    assert asked[-1]["messages"][-1] == {"role": "assistant", "content": BLOCKS}
