"""A key with a list of models: no route lets a member of a request name another one to the upstream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.model.settings import KeySettings, key_digest
from tests.integration.gateway import MESSAGES, Net, Peer, on_uvloop
from tests.integration.websocket import connect

SECRET = "sk-alice-0123456789"
ALICE = {"authorization": f"Bearer {SECRET}"}
LANE = ("/v1/embeddings", "/v1/images/*", "/v1/audio/*", "/v1/rerank", "/v1/fine_tuning/jobs", "/v1/responses/compact")
FORM = {**ALICE, "content-type": "multipart/form-data; boundary=xyz"}
CHAT = {"model": "m", "messages": MESSAGES}
ANSWERS = {"model": "native/x", "input": "Hi"}
CLAUDE = {"model": "claude", "messages": MESSAGES, "max_tokens": 16}
ROUTES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", {**CHAT, "stream": True}),
    ("/v1/completions", {"model": "m", "prompt": "Hi"}),
    ("/v1/responses", ANSWERS),
    ("/v1/responses/input_tokens", ANSWERS),
    ("/v1/responses/compact", ANSWERS),
    ("/v1/messages", CLAUDE),
    ("/v1/messages/count_tokens", CLAUDE),
    ("/v1/embeddings", {"model": "m", "input": "Hi"}),
    ("/v1/rerank", {"model": "m", "query": "a", "documents": ["b"]}),
    ("/v1/images/generations", {"model": "m", "prompt": "a hat"}),
    ("/v1/images/edits", {"model": "m", "prompt": "a hat"}),
    ("/v1/audio/speech", {"model": "m", "input": "Hi", "voice": "a"}),
    ("/p/up/v1/embeddings", {"model": "mock", "input": "Hi"}),
]
NAMING: list[dict[str, Any]] = [
    {"Model": "other"},
    {"models": ["other"]},
    {"fallbacks": ["other"]},
    {"tools": [{"type": "image_generation", "model": "other"}]},
]


def alice(*models: str) -> dict[str, Any]:
    return {"keys": (KeySettings("alice", (key_digest(SECRET),), models=models, pass_upstreams=("up", "native")),)}


def field(name: str, value: str) -> bytes:
    return f'--xyz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


async def answers(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.answer("200 OK", b'{"data": []}', "Content-Type: application/json")


@on_uvloop
async def test_no_route_lets_a_request_name_another_model(net: Net) -> None:
    upstream = await net.upstream(answers)
    gateway = await net.gateway(upstream, lane=LANE, native_lane=LANE[-1:], **alice("m", "claude", "native/*"))
    for path, body in ROUTES:
        for more in NAMING:
            answer = await gateway.ask("POST", path, {**body, **more}, ALICE)
            assert answer.status == 403, (path, more, answer.body)
            assert b"may not use all models" in answer.body or b"may not use the model" in answer.body
    assert not upstream.peers
    everything = await net.gateway(upstream, lane=LANE, native_lane=LANE[-1:], **alice("*"))
    for more in NAMING:
        body = {"model": "m", "input": "Hi", **more}
        assert (await everything.ask("POST", "/v1/embeddings", body, ALICE)).status == 200
        assert json.loads(upstream.peers[-1].body) == {**body, "model": "mock"}


@pytest.mark.parametrize(
    "more",
    [
        {"extra": {"models": ["other"]}},
        {"extra": {"Model": "other"}},
        {"provider_options": {"openai-compatible": {"fallbacks": ["other"]}}},
        {"provider_options": {"another": {"models": ["other"]}}},
        {"tools": [{"type": "web_search", "options": {"model": "other"}}]},
    ],
)
@on_uvloop
async def test_no_native_request_does_either(net: Net, more: dict[str, Any]) -> None:
    upstream = await net.upstream(answers)
    gateway = await net.gateway(upstream, **alice("m"))
    body = {"model": "m", "query": "Hi", **more}
    for path in ("/api/v1/stream", "/api/v1/streams"):
        answer = await gateway.ask("POST", path, body, ALICE)
        assert (answer.status, answer.error["reason"]) == (403, "model"), answer.body
    socket = await connect(gateway, **ALICE)
    socket.ask("a", **body)
    await socket.until_done("a")
    assert (socket.error("a")["code"], socket.error("a")["reason"]) == ("forbidden", "model")
    assert not upstream.peers


@on_uvloop
async def test_an_upstreams_own_paths_are_for_the_models_of_the_key(net: Net) -> None:
    upstream = await net.upstream(answers)
    gateway = await net.gateway(upstream, lane=LANE, **alice("m", "up/a-*"))
    jobs = "/p/up/v1/fine_tuning/jobs"
    for body, status in (
        ({"model": "mock"}, 200),  # the upstream's id of `m`
        ({"model": "a-1"}, 200),
        ({"model": "m"}, 403),  # a name of the gateway's
        ({"model": "b-1"}, 403),
        ({"training_file": "file-1"}, 200),
        (b'{"model":"b-1","model":"mock"}', 200),
        (b"\xff\xfe{\x00}\x00", 400),
    ):
        answer = await gateway.ask("POST", jobs, body, ALICE)
        assert answer.status == status, (body, answer.body)
    assert b"b-1" not in b"".join(peer.body for peer in upstream.peers)
    large = json.dumps({"input": "x" * (2 << 20), "model": "b-1"}).encode()
    assert (await gateway.ask("POST", jobs, large, ALICE)).status == 403
    packed = await gateway.ask("POST", jobs, b"\x1f\x8b", {**ALICE, "content-encoding": "gzip"})
    assert packed.status == 415
    assert b"b-1" not in b"".join(peer.body for peer in upstream.peers)
    assert (await gateway.ask("GET", jobs, None, ALICE)).status == 200
    sound = {**ALICE, "content-type": "audio/wav"}
    assert (await gateway.ask("POST", "/p/up/v1/audio/x", b"RIFF....", sound)).status == 200


@on_uvloop
async def test_a_form_for_an_upstreams_own_path_is_too(net: Net) -> None:
    upstream = await net.upstream(answers)
    gateway = await net.gateway(upstream, lane=LANE, **alice("m"))
    path, end = "/p/up/v1/audio/transcriptions", b"--xyz--\r\n"
    for size in (1, 3 << 20):  # the file is read whole, or passed on while it comes
        for name, value, status in (
            ("model", "mock", 200),
            ("language", "de", 200),
            ("model", "other", 403),
            ("Model", "other", 403),
            ("models[0]", "other", 403),
        ):
            body = field("file", "x" * size) + field(name, value) + end
            answer = await gateway.ask("POST", path, body, FORM)
            assert answer.status == status, (name, value, answer.body)
            body = field(name, value) + field("file", "x" * size) + end
            assert (await gateway.ask("POST", path, body, FORM)).status == status
    assert all(b"other" not in peer.body for peer in upstream.peers)
