"""A server without a configuration file: a provider's key in the environment is enough to ask its usual models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gai_fast.config import load
from gai_fast.model.settings import Settings
from gai_fast.providers.requests.facts import usual_ids
from gai_fast.server.serving import start
from tests.integration.gateway import END, QUERY, SSE_HEAD, Gateway, Net, Peer, chunk, delta, on_uvloop

USUAL = [f"openai/{each}" for each in usual_ids("openai")]


def settings_of(url: str, environ: dict[str, str]) -> Settings:
    """Returns the settings of an environment; the provider's address is that of a server here."""
    settings = load(None, environ={"GAI_FAST_PORT": "0", **environ})
    upstreams = {name: replace(each, base_url=f"{url}/v1") for name, each in settings.upstreams.items()}
    models = {
        name: replace(each, upstream=upstreams.get(each.upstream.name, each.upstream))
        for name, each in settings.models.items()
    }
    return replace(settings, upstreams=upstreams, models=models)


async def served(net: Net, settings: Settings) -> Gateway:
    running = await start(settings)
    net.stack.push_async_callback(running.close)
    return Gateway(net, running)


@on_uvloop
async def test_a_key_in_the_environment_is_seen_in_the_list_and_by_a_request_without_a_model(net: Net) -> None:
    asked: list[Any] = []

    async def answer(peer: Peer) -> None:
        while True:
            asked.append(await peer.request())
            await peer.send(SSE_HEAD, chunk(delta("Hi")), *END)

    upstream = await net.upstream(answer)
    gateway = await served(net, settings_of(upstream.url, {"OPENAI_API_KEY": "sk"}))
    listed = (await gateway.ask("GET", "/v1/models")).json
    assert [each["id"] for each in listed["data"]] == [*USUAL, "demo"]
    for body in (QUERY, {**QUERY, "model": "gpt-5-mini"}):
        response = await gateway.ask("POST", "/api/v1/stream", body)
        assert response.text == "Hi"
    assert [b'"model":"gpt-5-mini"' in body for body in asked] == [True, True]
    alike = await gateway.ask("POST", "/api/v1/stream", {**QUERY, "model": "gpt5-mini"})
    assert alike.status == 404
    assert "Did you mean 'openai/gpt-5-mini'?" in alike.error["message"]


@on_uvloop
async def test_a_get_without_a_model_keeps_the_demo_which_costs_nothing(net: Net) -> None:
    gateway = await served(net, settings_of("http://127.0.0.1:9", {"OPENAI_API_KEY": "sk"}))
    client = await gateway.connect()
    client.request("GET", "/api/v1/stream?q=hi")
    response = await (await client.response()).until(b'"text.delta"')
    assert (response.status, b'"provider":"demo"' in response.body) == (200, True)
    client.close()
    refused = await gateway.ask("GET", "/api/v1/stream?q=hi&model=gpt-5-mini")
    assert (refused.status, refused.error["reason"]) == (403, "get_start")
