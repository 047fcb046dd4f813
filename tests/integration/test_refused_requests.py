"""What was refused is said: the model and the reason stand in the list of requests, whatever has refused it."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.model.settings import KeyLimits, KeySettings, key_digest
from tests.integration.gateway import CHAT, MESSAGES, NATIVE, QUERY, Net, on_uvloop

ADMIN, CALLER = "sk-canary-admin-0123456", "sk-canary-caller-012345"
KEYS = (
    KeySettings("root", (key_digest(ADMIN),), role="admin"),
    KeySettings("ann", (key_digest(CALLER),), models=("m", "claude", "x*"), limits=KeyLimits(streams=0)),
)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (NATIVE, {**QUERY, "model": "xnone"}, ("xnone", 404, "not_found", "model")),
        (NATIVE, {**QUERY, "model": "other"}, ("other", 403, "forbidden", "model")),
        (NATIVE, {**QUERY, "model": "m", "n": 0}, ("", 400, "invalid_request", "validation")),
        (CHAT, {"model": "xnone", "messages": MESSAGES}, ("xnone", 404, "not_found", "model")),
        (CHAT, {"model": "m", "messages": MESSAGES}, ("m", 429, "rate_limited", "streams")),
        ("/v1/responses", {"model": "xnone", "input": "hi"}, ("xnone", 404, "not_found", "model")),
        ("/v1/messages", {"model": "m", "max_tokens": 5, "messages": MESSAGES}, ("m", 429, "rate_limited", "streams")),
        ("/v1/messages/count_tokens", {"model": "other", "messages": MESSAGES}, ("other", 403, "forbidden", "model")),
        ("/v1/embeddings", {"model": "xnone", "input": "hi"}, ("xnone", 404, "not_found", "route")),
        ("/api/v1/streams", {**QUERY, "model": "xnone"}, ("xnone", 404, "not_found", "model")),
    ],
)
@on_uvloop
async def test_the_list_has_the_model_and_the_reason(net: Net, path: str, body: Any, said: Any) -> None:
    gateway = await net.gateway(await net.mock(), keys=KEYS)
    refused = await gateway.ask("POST", path, body, {"authorization": f"Bearer {CALLER}"})
    assert refused.status == said[1], refused.body
    rows = (await gateway.ask("GET", "/admin/v1/requests", None, {"authorization": f"Bearer {ADMIN}"})).json["data"]
    assert (rows[0]["model"], rows[0]["status"], rows[0]["code"], rows[0]["reason"]) == said


@on_uvloop
async def test_a_stream_that_fails_has_its_reason_in_the_list(net: Net) -> None:
    gateway = await net.gateway("http://127.0.0.1:9")
    await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    (row,) = (await gateway.ask("GET", "/admin/v1/requests")).json["data"]
    assert (row["model"], row["code"], bool(row["reason"])) == ("m", "network", True)
