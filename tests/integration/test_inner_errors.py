"""The reason of the provider behind a gateway, as clients see it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gai_fast.model.settings import Secret
from gai_fast.server.serving import start
from tests.integration.gateway import CHAT, NATIVE, OPENAI, Gateway, M, Net, Peer, on_uvloop, settings_for

KEY = "sk-or-0123456789"


@pytest.mark.parametrize("path", [NATIVE, CHAT, "/v1/messages"])
@pytest.mark.parametrize("sent", ["", f" (sent with {KEY})"], ids=["plain", "with our key"])
@on_uvloop
async def test_clients_see_why_the_provider_behind_openrouter_has_refused(net: Net, path: str, sent: str) -> None:
    raw = json.dumps({"error": {"message": f"tools.0: unknown type{sent}"}})
    error = {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw, "provider_name": "Anthropic"}}

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.answer("400 Bad Request", json.dumps({"error": error}).encode(), "Content-Type: application/json")

    settings = settings_for((await net.upstream(handler)).url)
    model = settings.models["m"]
    upstream = dataclasses.replace(model.upstream, provider="openrouter", api_key=Secret(KEY))
    running = await start(dataclasses.replace(settings, models={"m": dataclasses.replace(model, upstream=upstream)}))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    body = {**M, "stream": True} if path == NATIVE else {**OPENAI, "max_tokens": 5, "stream": True}
    response = await net.gateways[-1].ask("POST", path, body)
    assert response.status == 400
    said = response.error["message"]
    assert said == "Provider returned error (Anthropic): tools.0: unknown type" + sent.replace(KEY, "***")
