"""Where the routes of the pass-through arrive at each provider: beside its chat, with one `base_url`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gai_fast.model.settings import ModelSettings, UpstreamSettings
from gai_fast.server.serving import start
from tests.integration.gateway import KEY, MESSAGES, Gateway, Net, Peer, on_uvloop, settings_for
from tests.integration.test_pass_through import head_lines

ROUTES = ("/v1/embeddings", "/v1/rerank", "/v1/images/generations", "/v1/audio/speech", "/v1/audio/transcriptions")
BODIES: dict[str, Any] = {
    "/v1/chat/completions": {"model": "m", "messages": MESSAGES},
    **{path: {"model": "m", "input": "Hi"} for path in ("/v1/responses", "/v1/responses/compact", *ROUTES[:-1])},
    ROUTES[-1]: b"--x--",
}
FORM = {"content-type": "multipart/form-data; boundary=x"}


asked: list[dict[str, str]] = []
"""The heads of the requests that upstreams have got."""


async def answers(peer: Peer) -> None:
    while True:
        await peer.request()
        asked.append(head_lines(peer))
        await peer.answer("200 OK", b'{"data": []}', "Content-Type: application/json")


async def serving(net: Net, provider: str, lane: tuple[str, ...], **more: Any) -> tuple[Any, Gateway]:
    """Returns an upstream, and a gateway whose only upstream it is."""
    upstream = await net.upstream(answers)
    settings = settings_for(upstream.url)
    path = more.pop("base_path", "")
    up = replace(settings.upstreams["up"], provider=provider, base_url=f"{upstream.url}{path}", pass_paths=lane, **more)
    models = {"m": ModelSettings("m", up, "mock", settings.models["m"].stream)}
    running = await start(replace(settings, upstreams={"up": up}, models=models))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return upstream, net.gateways[-1]


async def arrived(gateway: Gateway, route: str, target: str = "") -> str | tuple[int, str]:
    """Returns the path at which a request arrives, or the status and the code of its refusal."""
    headers = FORM if isinstance(BODIES.get(route), bytes) else None
    asked.clear()
    answer = await gateway.ask("POST", target or route, BODIES[route], headers)
    return asked[0][""].split()[1] if asked else (answer.status, answer.error["code"])


@pytest.mark.parametrize(
    ("provider", "base_path", "chat", "root"),
    [
        ("openai", "/v1", "/v1/chat/completions", "/v1"),
        ("azure", "", "/openai/v1/chat/completions", "/openai/v1"),
        ("azure:responses", "", "/openai/v1/responses", "/openai/v1"),
        ("groq", "", "/openai/v1/chat/completions", "/openai/v1"),
        ("groq:responses", "", "/openai/v1/responses", "/openai/v1"),
        ("mistral", "", "/v1/chat/completions", "/v1"),
        ("xai", "/v1", "/v1/chat/completions", "/v1"),
        ("openrouter", "/api/v1", "/api/v1/chat/completions", "/api/v1"),
        ("openai-compatible", "/v1", "/v1/chat/completions", "/v1"),
        ("openai-compatible", "/api/paas/v4", "/api/paas/v4/chat/completions", "/api/paas/v4"),
        ("deepseek", "", "/chat/completions", ""),
        ("perplexity", "", "/chat/completions", "/v1"),
        ("ollama", "", "/api/chat", "/v1"),
    ],
)
@on_uvloop
async def test_each_route_arrives_beside_chat(net: Net, provider: str, base_path: str, chat: str, root: str) -> None:
    _, gateway = await serving(net, provider, ROUTES, base_path=base_path)
    own = "/v1/responses" if provider.endswith(":responses") else "/v1/chat/completions"
    assert await arrived(gateway, own) == chat
    for route in ROUTES:
        place = root + route.removeprefix("/v1")
        assert await arrived(gateway, route) == place
        assert await arrived(gateway, route, f"/p/up{route}") == place, "as the route, where it is named so"
    net.logged.clear()


@pytest.mark.parametrize(
    ("provider", "places"),
    [
        ("gemini", {"/v1/embeddings": "/v1beta/openai/embeddings",
                    "/v1/images/generations": "/v1beta/openai/images/generations"}),
        ("cohere", {"/v1/embeddings": "/compatibility/v1/embeddings", "/v1/rerank": "/v1/rerank",
                    "/v1/audio/transcriptions": "/v2/audio/transcriptions"}),
        ("anthropic", {}),
    ],
)  # fmt: skip
@on_uvloop
async def test_another_api_is_asked_at_its_compatible_address_or_not_at_all(
    net: Net, provider: str, places: dict[str, str]
) -> None:
    _, gateway = await serving(net, provider, ROUTES)
    for route in ROUTES:
        assert await arrived(gateway, route) == places.get(route, (400, "unsupported"))
        assert await arrived(gateway, route, f"/p/up{route}") == places.get(route, route)


@on_uvloop
async def test_geminis_compatible_address_gets_a_bearer(net: Net) -> None:
    lane = ("/v1/embeddings", "/v1beta/models/*:embedContent")
    _, gateway = await serving(net, "gemini", lane)
    await gateway.ask("POST", "/v1/embeddings", BODIES["/v1/embeddings"])
    assert asked[-1]["authorization"] == f"Bearer {KEY}"
    assert "x-goog-api-key" not in asked[-1]
    await gateway.ask("POST", "/p/up/v1beta/models/m:embedContent", {})
    assert asked[-1]["x-goog-api-key"] == KEY
    assert "authorization" not in asked[-1]


@on_uvloop
async def test_a_dated_version_of_azure_has_the_deployment_in_the_path(net: Net) -> None:
    _, gateway = await serving(net, "azure", ROUTES, extra={"api_version": "2024-10-21"})
    place = "/openai/deployments/mock/embeddings?api-version=2024-10-21"
    assert await arrived(gateway, "/v1/embeddings") == place
    assert await arrived(gateway, "/v1/embeddings", "/v1/embeddings?a=1") == f"{place}&a=1"
    assert await arrived(gateway, "/v1/audio/transcriptions") == (400, "unsupported")


@pytest.mark.parametrize("provider", ["azure:responses", "groq:responses", "openai:responses"])
@on_uvloop
async def test_a_conversation_is_compacted_beside_responses(net: Net, provider: str) -> None:
    base_path = "/v1" if provider.startswith("openai") else ""
    _, gateway = await serving(net, provider, ("/v1/responses/compact",), base_path=base_path)
    root = base_path or "/openai/v1"
    assert await arrived(gateway, "/v1/responses/compact") == f"{root}/responses/compact"


@on_uvloop
async def test_a_form_goes_to_the_one_upstream_whose_provider_has_it(net: Net) -> None:
    upstream, _ = await serving(net, "openai", ())
    settings = settings_for(upstream.url)
    groq, claude = (
        UpstreamSettings(name, provider, upstream.url, pass_paths=ROUTES[-1:])
        for name, provider in (("g", "groq"), ("a", "anthropic"))
    )
    running = await start(replace(settings, upstreams={"a": claude, "g": groq}, models={}))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    assert await arrived(net.gateways[-1], ROUTES[-1]) == "/openai/v1/audio/transcriptions"
