"""What guards do to requests over real sockets: what goes up on every route, what is said of it, what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from gai_fast.model.settings import GuardSettings, ModelSettings
from gai_fast.server.serving import start
from tests.integration.gateway import (
    CHAT,
    DONE,
    FINISH,
    LAST_CHUNK,
    NATIVE,
    SSE_HEAD,
    Gateway,
    Net,
    Peer,
    delta,
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.integration.websocket import connect
from tests.wire import chunk

SECRET = "kestrel"
TEXT = f"The {SECRET} of a@b.example"
WORDS = GuardSettings("names", "words", words=(SECRET,))
EMAILS = GuardSettings("people", "pii", kinds=("email",), restore=True)


class Upstream:
    """Keeps what it is asked, and answers with a text."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.bodies: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.bodies.append(await peer.request())
            await peer.send(SSE_HEAD, *[chunk(delta(text)) for text in self.texts])
            await peer.send(chunk(FINISH + DONE) + LAST_CHUNK)

    @property
    def asked(self) -> Any:
        return json.loads(self.bodies[-1])


def messages(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


ROUTES: dict[str, tuple[str, Any]] = {
    "native": (NATIVE, lambda text: {"model": "m", "query": text}),
    "agui": (
        f"{NATIVE}?format=agui",
        lambda text: {
            "threadId": "t",
            "runId": "r",
            "messages": [{"id": "1", "role": "user", "content": text}],
            "forwardedProps": {"model": "m"},
        },
    ),
    "vercel": (
        "/api/v1/chat",
        lambda text: {
            "id": "c",
            "model": "m",
            "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": text}]}],
        },
    ),
    "chat": (CHAT, lambda text: {"model": "m", "messages": messages(text), "stream": True}),
    "completions": ("/v1/completions", lambda text: {"model": "m", "prompt": text, "stream": True}),
    "messages": (
        "/v1/messages",
        lambda text: {"model": "m", "messages": messages(text), "max_tokens": 9, "stream": True},
    ),
    "responses": ("/v1/responses", lambda text: {"model": "m", "input": text, "stream": True}),
}


async def guarded(net: Net, upstream: Upstream, *guards: GuardSettings, **options: Any) -> Gateway:
    """Returns a gateway with guards. Its model `legacy` speaks the dialect of completions itself."""
    settings = settings_for((await net.upstream(upstream)).url, guards=guards, **options)
    up = dataclasses.replace(settings.upstreams["up"], name="legacy", provider="openai-compatible:completions")
    models = {**settings.models, "legacy": ModelSettings("legacy", up, "instruct", settings.models["m"].stream)}
    running = await start(dataclasses.replace(settings, models=models))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1]


@on_uvloop
@pytest.mark.parametrize("route", ROUTES)
async def test_what_is_masked_does_not_go_up_and_own_words_come_back(net: Net, route: str) -> None:
    upstream = Upstream("I met <EMA", "IL_1>.")
    gateway = await guarded(net, upstream, WORDS, EMAILS)
    path, body = ROUTES[route]
    response = await gateway.ask("POST", path, body(TEXT))
    assert response.status == 200, response.body
    assert upstream.asked["messages"] == messages("The [words] of <EMAIL_1>")
    assert b"a@b.example" in response.body
    assert b"EMAIL_1" not in response.body
    assert SECRET.encode() not in response.body


@on_uvloop
@pytest.mark.parametrize("route", ROUTES)
async def test_a_stop_refuses_the_request_and_asks_nobody(net: Net, route: str) -> None:
    upstream = Upstream("hi")
    gateway = await guarded(net, upstream, GuardSettings("names", "words", words=(SECRET,), action="stop"))
    path, body = ROUTES[route]
    response = await gateway.ask("POST", path, body(TEXT))
    assert response.status == 400
    assert b"names" in response.body
    assert SECRET.encode() not in response.body
    if route in ("native", "agui"):
        error = response.error
        assert (error["code"], error["reason"], error["temporary"], error["guard"]) == (
            "content_filtered",
            "guard",
            False,
            "names",
        )
    assert upstream.bodies == []


@on_both_loops
async def test_what_is_found_is_said_behind_the_start_once_a_category(net: Net) -> None:
    upstream = Upstream("hi")
    flag = GuardSettings("watch", "words", words=("of",), action="flag", on=("input",))
    gateway = await guarded(net, upstream, flag, WORDS)
    response = await gateway.ask("POST", NATIVE, {"model": "m", "query": f"{TEXT} {TEXT}"})
    assert response.types[:3] == ["start", "safety", "safety"]
    assert [each["safety"] for each in response.events[1:3]] == [
        {"category": "words", "action": "flag", "guard": "watch", "on": "input"},
        {"category": "words", "action": "mask", "guard": "names", "on": "input"},
    ]
    assert response.text == "hi"


@on_uvloop
async def test_a_guard_on_input_that_finds_nothing_changes_no_byte(net: Net) -> None:
    upstream = Upstream("hi")
    only = GuardSettings("names", "words", words=(SECRET,), on=("input",))
    gateway, plain = await guarded(net, upstream, only), await net.gateway(await net.upstream(upstream))
    for path, body in (ROUTES["native"], ROUTES["chat"]):
        answers = [await each.ask("POST", path, body("nothing")) for each in (gateway, plain)]
        assert upstream.bodies[-2] == upstream.bodies[-1]
        assert len(set(map(len, upstream.bodies[-2:]))) == 1
        if path == CHAT:
            assert answers[0].body == answers[1].body


@on_uvloop
async def test_over_a_socket(net: Net) -> None:
    upstream = Upstream("hi <EMAIL_1>")
    gateway = await guarded(net, upstream, WORDS, EMAILS)
    socket = await connect(gateway)
    socket.ask("a", query=TEXT, model="m")
    await socket.until_done("a")
    assert socket.text("a") == "hi a@b.example"
    assert upstream.asked["messages"] == messages("The [words] of <EMAIL_1>")


LANE = ("/v1/embeddings", "/v1/images/edits", "/v1/images/variations", "/v1/audio/transcriptions", "/v1/own")
FORM = {"content-type": "multipart/form-data; boundary=x"}
CLOSED: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    "raw": (f"{NATIVE}?format=raw", {"model": "m", "query": "hi"}, ("input", "output")),
    "raw chat": (f"{CHAT}?format=raw", {"model": "m", "messages": messages("hi"), "stream": True}, ("input", "output")),
    "path": ("/p/up/v1/own", {}, ("input", "output")),
    "speech": ("/v1/audio/transcriptions", b"--x--", ("input", "output")),
    "compact": ("/v1/responses/compact", {"model": "native/x", "input": "hi"}, ("input", "output")),
    "tokens": ("/v1/completions", {"model": "legacy", "prompt": [1, 2]}, ("input",)),
    "embeddings": ("/v1/embeddings", {"model": "m", "input": "hi"}, ("input",)),
    "edits": ("/v1/images/edits", b"--x--", ("input",)),
    "edits in JSON": ("/v1/images/edits", {"model": "m", "prompt": "hi"}, ("input",)),
}


@on_uvloop
@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("door", CLOSED)
async def test_what_no_guard_can_look_into_is_closed(net: Net, door: str, side: Any) -> None:
    upstream = Upstream("hi")
    path, body, sides = CLOSED[door]
    guard = GuardSettings("names", "words", words=(SECRET,), on=(side,), models=("m", "native/*", "legacy"))
    gateway = await guarded(net, upstream, guard, lane=LANE)
    response = await gateway.ask("POST", path, body, FORM if isinstance(body, bytes) else None)
    if side not in sides:
        assert b"guard" not in response.body
        return
    assert response.status == 400, response.body
    assert upstream.bodies == []
    error = response.error
    assert "guard" in error["message"]
    if path.startswith((NATIVE, "/p/")):
        assert (error["code"], error["reason"], error["temporary"], error["guard"]) == (
            "unsupported",
            "guard",
            False,
            "names",
        )


@on_uvloop
async def test_prompts_of_texts_go_to_an_upstream_that_speaks_the_dialect(net: Net) -> None:
    upstream = Upstream("hi")
    gateway = await guarded(net, upstream, WORDS)
    response = await gateway.ask("POST", "/v1/completions", {"model": "legacy", "prompt": [TEXT, "b"], "stream": True})
    assert response.status == 200
    assert upstream.asked["prompt"] == ["The [words] of a@b.example", "b"]


@on_uvloop
async def test_forms_without_a_text_and_models_without_a_guard_stay_open(net: Net) -> None:
    upstream = Upstream("hi")
    guard = GuardSettings("names", "words", words=(SECRET,), models=("other",))
    gateway = await guarded(net, upstream, guard, lane=LANE)
    for path, body, _ in CLOSED.values():
        if path != "/v1/responses/compact":
            response = await gateway.ask("POST", path, body, FORM if isinstance(body, bytes) else None)
            assert b"guard" not in response.body
    held = await guarded(net, upstream, WORDS, lane=LANE)
    response = await held.ask("POST", "/v1/images/variations", b"--x--", FORM)
    assert response.status == 200
