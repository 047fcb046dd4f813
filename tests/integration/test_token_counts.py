"""Counts of tokens and compactions where an upstream of the dialect has no such route."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anthropic
import openai
import pytest

from gai_fast.model.settings import BreakerSettings
from gai_fast.server.serving import start
from tests.integration.gateway import MESSAGES, Gateway, Net, Peer, on_both_loops, on_uvloop, settings_for

CLAUDE = {"model": "claude", "messages": MESSAGES}
UNKNOWN = b'{"type":"error","error":{"type":"not_found_error","message":"model: mock"}}'
asked: list[str] = []
"""The paths that upstreams were asked for."""


def refusing(status: str, body: bytes = b"") -> Any:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            asked.append(peer.head.split()[1].decode())
            await peer.answer(status, body, "Content-Type: application/json")

    asked.clear()
    return handler


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "501 Not Implemented"])
@on_both_loops
async def test_anthropics_client_gets_an_estimate_where_nothing_counts(net: Net, status: str) -> None:
    gateway = await net.gateway(await net.upstream(refusing(status)))
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="none", max_retries=0) as client:
        for _ in range(2):
            assert (await client.messages.count_tokens(model="claude", messages=MESSAGES)).input_tokens > 0
            answer = await gateway.ask("POST", "/v1/messages/count_tokens", CLAUDE)
            assert (answer.status, answer.headers["x-gai-usage-source"]) == (200, "estimated")
    assert asked == ["/v1/messages/count_tokens"], "it is asked once"
    net.logged.clear()


@pytest.mark.parametrize("status", ["404 Not Found", "501 Not Implemented"])
@on_uvloop
async def test_a_count_that_is_estimated_has_not_failed(net: Net, status: str) -> None:
    """The first one was a failed stream in all figures, and 501 counted for the breaker of all callers' chats."""
    breaker = BreakerSettings(failures=2)
    gateway = await net.gateway(await net.upstream(refusing(status)), breaker=breaker)
    for model in ("claude", "anthropic/other", "anthropic/another"):
        answer = await gateway.ask("POST", "/v1/messages/count_tokens", {**CLAUDE, "model": model})
        assert answer.status == 200
    figures = (await gateway.ask("GET", "/metrics")).body.decode()
    assert 'outcome="finished"' in figures
    assert 'outcome="failed"' not in figures
    assert "gai_errors_total{" not in figures
    assert len(asked) == 3, "the breaker is closed"
    net.logged.clear()


@on_uvloop
async def test_an_unknown_model_stays_unknown(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(refusing("404 Not Found", UNKNOWN)))
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="none", max_retries=0) as client:
        with pytest.raises(anthropic.NotFoundError, match="model: mock"):
            await client.messages.count_tokens(model="claude", messages=MESSAGES)
    for _ in range(2):
        answer = await gateway.ask("POST", "/v1/messages/count_tokens", CLAUDE)
        assert (answer.status, answer.error["type"]) == (404, "not_found_error")
    assert len(asked) == 3


@on_uvloop
async def test_a_model_that_a_client_names_freely_teaches_nothing(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(refusing("404 Not Found")))
    for _ in range(2):
        answer = await gateway.ask("POST", "/v1/messages/count_tokens", {**CLAUDE, "model": "anthropic/mock"})
        assert (answer.status, answer.headers["x-gai-usage-source"]) == (200, "estimated")
    assert len(asked) == 2
    await gateway.ask("POST", "/v1/messages/count_tokens", CLAUDE)
    assert len(asked) == 3


async def with_responses(net: Net, handler: Any) -> Gateway:
    upstream = await net.upstream(handler)
    settings = settings_for(upstream.url)
    up = replace(settings.upstreams["native"], provider="openai:responses")
    models = {"r": replace(settings.models["m"], name="r", upstream=up)}
    running = await start(replace(settings, upstreams={"native": up}, models=models))
    net.stack.push_async_callback(running.close)
    net.gateways.append(Gateway(net, running))
    return net.gateways[-1]


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "501 Not Implemented"])
@on_uvloop
async def test_openais_client_gets_an_estimate_and_no_compaction(net: Net, status: str) -> None:
    gateway = await with_responses(net, refusing(status))
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        for _ in range(2):
            counted = await client.responses.input_tokens.count(model="r", input="Tell me a story, and a long one")
            assert (counted.object, counted.input_tokens) == ("response.input_tokens", 8)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.compact(model="r", input="Hi")
        assert caught.value.code == "unsupported"
    assert asked == ["/v1/responses/input_tokens", "/v1/responses/compact"]
    net.logged.clear()


@on_uvloop
async def test_a_compaction_for_an_unknown_model_is_not_found(net: Net) -> None:
    gateway = await with_responses(
        net, refusing("404 Not Found", b'{"error":{"message":"The model `mock` is unknown"}}')
    )
    answer = await gateway.ask("POST", "/v1/responses/compact", {"model": "r", "input": "Hi"})
    assert (answer.status, answer.error["message"]) == (404, "The model `mock` is unknown")
