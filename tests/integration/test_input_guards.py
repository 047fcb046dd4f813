"""What guards do to requests over real sockets: what goes up on every route, what is said of it, what is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import signal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import gai_fast
from gai_fast.model.settings import (
    CacheSettings,
    GuardSettings,
    JudgeSettings,
    KeyLimits,
    KeySettings,
    ModelSettings,
    key_digest,
)
from gai_fast.server.application import build_application
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
from tests.integration.processes import serving
from tests.integration.test_cli import PATIENCE
from tests.integration.test_responses_socket import opened, turn
from tests.integration.websocket import connect
from tests.limits import LIMITS
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


RAW: dict[str, tuple[str, dict[str, Any]]] = {
    "extra": (NATIVE, {"model": "m", "query": "hi", "extra": {"messages": messages(TEXT)}}),
    "extra, another name": (NATIVE, {"model": "m", "query": "hi", "extra": {"documents": [{"text": TEXT}]}}),
    "extra, a document as of Cohere": (
        NATIVE,
        {"model": "m", "query": "hi", "extra": {"documents": [{"id": "d", "data": {"title": "t", "data": TEXT}}]}},
    ),
    "a key of such a document": (
        NATIVE,
        {"model": "m", "query": "hi", "extra": {"documents": [{"id": "d", "data": {TEXT: 1}}]}},
    ),
    "extra, an answer as of Gemini": (
        NATIVE,
        {
            "model": "m",
            "query": "hi",
            "extra": {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": {"data": TEXT}}}]}]},
        },
    ),
    "chat, a document of a tool": (
        CHAT,
        {
            "model": "m",
            "messages": [*messages("hi")],
            "documents": [{"data": {"name": TEXT, "status": TEXT}}],
        },
    ),
    "provider_options": (
        NATIVE,
        {"model": "m", "query": "hi", "provider_options": {"openai-compatible": {"prompt": TEXT}}},
    ),
    "chat, a member of a server": (CHAT, {"model": "m", "messages": messages("hi"), "chat_template": TEXT}),
    "vercel, the reason of a denial": (
        "/api/v1/chat",
        {
            "id": "c",
            "model": "m",
            "messages": [
                {"id": "1", "role": "user", "parts": [{"type": "text", "text": "hi"}]},
                {
                    "id": "2",
                    "role": "assistant",
                    "parts": [
                        {
                            "type": "tool-look",
                            "toolCallId": "c1",
                            "state": "output-denied",
                            "input": {},
                            "approval": {"id": "a", "approved": False, "reason": TEXT},
                        }
                    ],
                },
                {"id": "3", "role": "user", "parts": [{"type": "text", "text": "so"}]},
            ],
        },
    ),
    "vercel, the answer to an approval": (
        "/api/v1/chat",
        {
            "id": "c",
            "model": "m",
            "messages": [
                {"id": "1", "role": "user", "parts": [{"type": "text", "text": "hi"}]},
                {
                    "id": "2",
                    "role": "assistant",
                    "parts": [
                        {
                            "type": "tool-look",
                            "toolCallId": "c1",
                            "state": "approval-responded",
                            "input": {},
                            "approval": {"id": "a", "approved": False, "reason": TEXT},
                        }
                    ],
                },
                {"id": "3", "role": "user", "parts": [{"type": "text", "text": "so"}]},
            ],
        },
    ),
    "vercel, the error of a tool": (
        "/api/v1/chat",
        {
            "id": "c",
            "model": "m",
            "messages": [
                {"id": "1", "role": "user", "parts": [{"type": "text", "text": "hi"}]},
                {
                    "id": "2",
                    "role": "assistant",
                    "parts": [
                        {
                            "type": "tool-look",
                            "toolCallId": "c1",
                            "state": "output-error",
                            "input": {},
                            "errorText": TEXT,
                        }
                    ],
                },
                {"id": "3", "role": "user", "parts": [{"type": "text", "text": "so"}]},
            ],
        },
    ),
    "vercel, the output of a tool": (
        "/api/v1/chat",
        {
            "id": "c",
            "model": "m",
            "messages": [
                {"id": "1", "role": "user", "parts": [{"type": "text", "text": "hi"}]},
                {
                    "id": "2",
                    "role": "assistant",
                    "parts": [
                        {
                            "type": "tool-look",
                            "toolCallId": "c1",
                            "state": "output-available",
                            "input": {TEXT: TEXT},
                            "output": {TEXT: [TEXT]},
                        }
                    ],
                },
                {"id": "3", "role": "user", "parts": [{"type": "text", "text": "so"}]},
            ],
        },
    ),
    "agui, context and a tool": (
        f"{NATIVE}?format=agui",
        {
            "threadId": "t",
            "runId": "r",
            "context": [{"description": TEXT, "value": TEXT}],
            "messages": [
                {"id": "1", "role": "user", "content": "hi"},
                {
                    "id": "2",
                    "role": "assistant",
                    "toolCalls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"id": "3", "role": "tool", "toolCallId": "c1", "content": TEXT},
            ],
            "forwardedProps": {"model": "m"},
        },
    ),
    "chat, what is predicted": (
        CHAT,
        {"model": "m", "messages": messages("hi"), "prediction": {"type": "content", "content": TEXT}},
    ),
    "chat, refusals and results": (
        CHAT,
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": TEXT},
                {"role": "assistant", "content": None, "refusal": TEXT},
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": TEXT}}],
                },
                {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": TEXT}]},
                {"role": "user", "content": "so"},
            ],
        },
    ),
    "messages, system, documents and results": (
        "/v1/messages",
        {
            "model": "m",
            "max_tokens": 9,
            "system": [{"type": "text", "text": TEXT}],
            "messages": [
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"a": TEXT}}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": TEXT}]},
                        {"type": "text", "text": TEXT},
                    ],
                },
            ],
        },
    ),
    "responses, instructions, outputs and custom calls": (
        "/v1/responses",
        {
            "model": "m",
            "instructions": TEXT,
            "input": [
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": json.dumps({"a": TEXT})},
                {"type": "function_call_output", "call_id": "c1", "output": TEXT},
                {"role": "developer", "content": [{"type": "input_text", "text": TEXT}]},
                {"role": "user", "content": "so"},
            ],
        },
    ),
    "chat, in capitals": (CHAT, {"model": "m", "messages": messages("hi"), "Messages": messages(TEXT)}),
    "chat, the name of a user": (CHAT, {"model": "m", "messages": [{"role": "user", "name": TEXT, "content": "hi"}]}),
}


@on_uvloop
@pytest.mark.parametrize("where", RAW)
async def test_a_member_that_goes_up_is_no_way_past_a_guard(net: Net, where: str) -> None:
    upstream = Upstream("hi")
    gateway = await guarded(net, upstream, WORDS)
    path, body = RAW[where]
    assert (await gateway.ask("POST", path, body)).status == 200
    assert SECRET.encode() not in upstream.bodies[-1]
    assert b"[words]" in upstream.bodies[-1]


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
    "raw tokens": (NATIVE, {"model": "m", "query": "hi", "extra": {"prompt_token_ids": [1]}}, ("input",)),
    "tokens of a server": (CHAT, {"model": "m", "messages": messages("hi"), "input_ids": [[1]]}, ("input",)),
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
    gateway = await guarded(net, upstream, dataclasses.replace(WORDS, on=("input",)))
    for prompt in (["a", "b"], [TEXT]):
        body = {"model": "legacy", "prompt": prompt, "stream": True}
        assert (await gateway.ask("POST", "/v1/completions", body)).status == 200
    assert json.loads(upstream.bodies[0])["prompt"] == ["a", "b"]
    assert upstream.asked["prompt"] == "The [words] of a@b.example"


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


# ---- stores, keys, limits


@on_uvloop
async def test_a_kept_response_has_own_words_but_no_masked_one_and_is_guarded_again(net: Net, tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    upstream = Upstream("To <EMAIL_1>.")
    gateway = await guarded(net, upstream, WORDS, EMAILS, url=f"sqlite:///{store}")
    body = {"model": "m", "instructions": f"No {SECRET}", "input": TEXT}
    first = (await gateway.ask("POST", "/v1/responses", body)).json
    assert first["output"][0]["content"][0]["text"] == "To a@b.example."
    assert first["instructions"] == "No [words]"
    items = await gateway.ask("GET", f"/v1/responses/{first['id']}/input_items")
    assert items.json["data"][0]["content"][0]["text"] == "The [words] of a@b.example"
    more = {"model": "m", "input": f"{SECRET} and c@d.example", "previous_response_id": first["id"]}
    second = await gateway.ask("POST", "/v1/responses", more)
    assert second.status == 200, second.body
    assert [each["content"] for each in upstream.asked["messages"]] == [
        "The [words] of <EMAIL_1>",
        "To <EMAIL_1>.",
        "[words] and <EMAIL_2>",
    ]
    items = await gateway.ask("GET", f"/v1/responses/{second.json['id']}/input_items")
    assert items.json["data"][0]["content"][0]["text"] == "[words] and c@d.example"
    assert second.json["previous_response_id"] == first["id"]
    assert all(SECRET.encode() not in each.read_bytes() for each in tmp_path.iterdir())


@on_uvloop
async def test_a_repeated_request_is_compared_as_it_came_and_not_guarded_again(net: Net) -> None:
    upstream = Upstream("hi <EMAIL_1>")
    gateway = await guarded(net, upstream, WORDS, EMAILS)
    engine, key = gateway.running.engine, {"idempotency-key": "k1"}
    body = {"model": "m", "query": TEXT}
    first = await gateway.ask("POST", NATIVE, body, key)
    counted = dict(engine.guarding.tallies.actions)
    again = await gateway.ask("POST", NATIVE, body, key)
    assert (again.headers["idempotent-replayed"], again.text) == ("true", first.text)
    assert engine.guarding.tallies.actions == counted
    other = await gateway.ask("POST", NATIVE, {"model": "m", "query": "The [words] of a@b.example"}, key)
    assert (other.status, other.error["reason"]) == (422, "idempotency_mismatch")
    stop = await guarded(net, upstream, dataclasses.replace(WORDS, action="stop"))
    for _ in range(2):  # the key of a refused request is free
        assert (await stop.ask("POST", NATIVE, body, key)).error["reason"] == "guard"


@on_uvloop
async def test_the_cache_has_what_went_up_and_each_caller_its_own_words(net: Net) -> None:
    upstream = Upstream("hi <EMAIL_1>")
    gateway = await guarded(net, upstream, EMAILS, cache=CacheSettings(ttl=600.0), cached=True)
    for name, found in (("a", "miss"), ("b", "hit")):
        response = await gateway.ask("POST", NATIVE, {"model": "m", "query": f"I am {name}@b.example"})
        assert (response.headers["x-gai-cache"], response.text) == (found, f"hi {name}@b.example")
    assert len(upstream.bodies) == 1


@on_uvloop
async def test_a_caller_without_a_request_left_is_refused_before_a_guard_looks(net: Net) -> None:
    upstream = Upstream("hi")
    key = KeySettings("ann", (key_digest("sk-ann-0123456789"),), limits=KeyLimits(requests_per_minute=1))
    stop = dataclasses.replace(WORDS, action="stop")
    gateway = await guarded(net, upstream, stop, keys=(key,))
    headers = {"authorization": "Bearer sk-ann-0123456789"}
    assert (await gateway.ask("POST", NATIVE, {"model": "m", "query": "hi"}, headers)).status == 200
    refused = await gateway.ask("POST", NATIVE, {"model": "m", "query": TEXT}, headers)
    assert (refused.status, refused.error["code"]) == (429, "rate_limited")
    assert gateway.running.engine.guarding.tallies.actions["names", "input", "stop"] == 0


@on_uvloop
@pytest.mark.parametrize("text", [TEXT, f"{'x ' * LIMITS.slice}{TEXT}"])
async def test_a_request_that_a_guard_stops_counts_as_a_request(net: Net, text: str) -> None:
    upstream = Upstream("hi")
    limits = KeyLimits(requests_per_minute=2, tokens_per_minute=100_000)
    key = KeySettings("ann", (key_digest("sk-ann-0123456789"),), limits=limits)
    stop = dataclasses.replace(WORDS, action="stop")
    gateway = await guarded(net, upstream, stop, keys=(key,))
    headers = {"authorization": "Bearer sk-ann-0123456789"}
    for path in (NATIVE, "/v1/chat/completions"):
        body = {"model": "m", "query": text} if path == NATIVE else {"model": "m", "messages": messages(text)}
        refused = await gateway.ask("POST", path, body, headers)
        assert (refused.status, refused.headers.get("retry-after")) == (400, None)
    refused = await gateway.ask("POST", NATIVE, {"model": "m", "query": "hi"}, headers)
    assert (refused.status, refused.error["reason"]) == (429, "requests_per_minute")
    used = gateway.running.engine.ledger.limit_status(key)
    assert used is not None
    assert [(each.limit, each.remaining) for each in used.rates] == [(2, 0), (100_000, 100_000)]
    assert upstream.bodies == []
    assert gateway.running.engine.streams == {}


@on_uvloop
async def test_what_counts_tokens_is_no_free_try(net: Net) -> None:
    key = KeySettings("ann", (key_digest("sk-ann-0123456789"),), limits=KeyLimits(requests_per_minute=2))
    gateway = await guarded(net, Upstream("hi"), dataclasses.replace(WORDS, action="stop"), keys=(key,))
    headers = {"authorization": "Bearer sk-ann-0123456789"}
    body = {"model": "m", "messages": messages(TEXT)}
    asked = [await gateway.ask("POST", "/v1/messages/count_tokens", body, headers) for _ in range(3)]
    assert [each.status for each in asked] == [400, 400, 429]
    assert gateway.running.engine.guarding.tallies.actions["names", "input", "stop"] == 2


@on_uvloop
async def test_a_request_whose_judge_fails_counts_as_a_request(net: Net) -> None:
    async def refusing(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer("400 Bad Request", b"{}")

    hook = await net.upstream(refusing)
    judged = GuardSettings("policy", "http", action="stop", judge=JudgeSettings(url=f"{hook.url}/check"))
    key = KeySettings("ann", (key_digest("sk-ann-0123456789"),), limits=KeyLimits(requests_per_minute=2))
    gateway = await guarded(net, Upstream("hi"), judged, keys=(key,))
    headers = {"authorization": "Bearer sk-ann-0123456789"}
    asked = [await gateway.ask("POST", NATIVE, {"model": "m", "query": "hi"}, headers) for _ in range(3)]
    assert [each.status for each in asked] == [503, 503, 429]
    [warning] = net.logged
    assert "the judge has failed (1)" in warning
    net.logged.clear()


@on_uvloop
async def test_tokens_are_counted_of_what_goes_up(net: Net) -> None:
    bodies: list[Any] = []

    async def count(peer: Peer) -> None:
        while True:
            bodies.append(json.loads(await peer.request()))
            await peer.answer("200 OK", b'{"input_tokens": 3}', "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(count), guards=(WORDS,))
    body = {"model": "claude", "messages": messages(TEXT)}
    response = await gateway.ask("POST", "/v1/messages/count_tokens", body)
    assert response.json == {"input_tokens": 3}
    assert bodies[0]["messages"] == messages("The [words] of a@b.example")
    estimated = await gateway.ask("POST", "/v1/messages/count_tokens", {**body, "model": "m"})
    assert estimated.json == {"input_tokens": 7}
    stop = await net.gateway(None, guards=(dataclasses.replace(WORDS, action="stop"),))
    assert (await stop.ask("POST", "/v1/messages/count_tokens", {**body, "model": "demo"})).status == 400


@on_uvloop
async def test_turns_over_a_socket_of_responses(net: Net) -> None:
    upstream = Upstream("hi <EMAIL_1>")
    gateway = await guarded(net, upstream, WORDS, EMAILS)
    socket = await opened(gateway)
    first = (await turn(socket, model="m", input=TEXT))[-1]["response"]
    assert first["output"][0]["content"][0]["text"] == "hi a@b.example"
    await turn(socket, model="m", input=SECRET, previous_response_id=first["id"])
    assert [each["content"] for each in upstream.asked["messages"]] == [
        "The [words] of <EMAIL_1>",
        "hi <EMAIL_1>",
        "[words]",
    ]


@on_uvloop
async def test_reasoning_that_is_masked_goes_up_without_its_proof_or_not_at_all(net: Net) -> None:
    upstream = Upstream("hi")
    gateway = await guarded(net, upstream, WORDS, EMAILS)
    for text, kinds in ((SECRET, ["text"]), ("a@b.example", ["thinking", "text"])):
        content = [{"type": "thinking", "thinking": text, "signature": "s"}, {"type": "text", "text": "yes"}]
        asked = [*messages("a@b.example"), {"role": "assistant", "content": content}, *messages("go on")]
        await gateway.ask("POST", "/v1/messages", {"model": "claude", "messages": asked, "max_tokens": 9})
        assert [each["type"] for each in upstream.asked["messages"][1]["content"]] == kinds


# ---- judges, figures, audit lines


async def policy(peer: Peer) -> None:
    while True:
        asked = json.loads(await peer.request())
        if "fail" in asked["text"]:
            await peer.answer("500 No", b"")
            continue
        at = asked["text"].find("rude")
        spans = [[at, at + 4]] if at >= 0 else []
        answer = {"flagged": at >= 0, "category": "tone", "score": 0.5, "spans": spans}
        await peer.answer("200 OK", json.dumps(answer).encode(), "Content-Type: application/json")


@on_both_loops
async def test_judges_of_input_mask_stop_flag_and_fail(net: Net) -> None:
    url = (await net.upstream(policy)).url
    upstream = Upstream("hi")

    async def ask(action: Any, text: str, *, fails_open: bool = False) -> tuple[Any, Gateway]:
        judge = JudgeSettings(url=url, fails_open=fails_open)
        guard = GuardSettings("hook", "http", on=("input",), action=action, judge=judge)
        gateway = await guarded(net, upstream, guard)
        return await gateway.ask("POST", NATIVE, {"model": "m", "system": "s", "query": text}), gateway

    masked, gateway = await ask("mask", "a rude one")
    assert upstream.asked["messages"][-1]["content"] == "a [tone] one"
    said = {"category": "tone", "action": "mask", "score": 0.5, "guard": "hook", "on": "input"}
    assert masked.events[1]["safety"] == said
    metrics = bytes((await gateway.ask("GET", "/metrics")).body).decode()
    assert 'gai_fast_guard_total{action="mask",guard="hook",on="input"} 1.0' in metrics
    assert 'gai_fast_guard_failures_total{guard="hook"} 0.0' in metrics
    assert 'gai_fast_guard_delay_seconds_count{guard="hook"} 1.0' in metrics
    flagged, _ = await ask("flag", "a rude one")
    assert upstream.asked["messages"][-1]["content"] == "a rude one"
    assert flagged.events[1]["safety"]["action"] == "flag"
    asked = len(upstream.bodies)
    stopped, _ = await ask("stop", "a rude one")
    assert (stopped.status, stopped.error["reason"]) == (400, "guard")
    closed, gateway = await ask("stop", "fail")
    error = closed.error
    assert (closed.status, error["code"], error["reason"], error["temporary"], error["guard"]) == (
        503,
        "provider_unavailable",
        "guard_failed",
        True,
        "hook",
    )
    assert gateway.running.engine.guarding.tallies.failures == {"hook": 1}
    assert len(upstream.bodies) == asked
    passed, _ = await ask("stop", "fail", fails_open=True)
    assert passed.types[:3] == ["start", "warning", "text.delta"]
    assert (passed.events[1]["reason"], passed.events[1]["guard"]) == ("guard_failed", "hook")
    assert all("answers with status 500" in line for line in net.logged)
    net.logged.clear()


@on_uvloop
async def test_a_stop_has_an_audit_line(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    gateway = await guarded(net, Upstream(f"a {SECRET}"), dataclasses.replace(WORDS, action="stop"))
    with caplog.at_level(logging.INFO, "gai_fast.audit"):
        refused = await gateway.ask("POST", NATIVE, {"model": "m", "query": TEXT})
        ended = await gateway.ask("POST", NATIVE, {"model": "m", "query": "hi"})
    assert refused.status == 400
    lines: list[Any] = [vars(record)["msg"].fields for record in caplog.records if record.name == "gai_fast.audit"]
    assert [(each["action"], each["key"], each["result"]) for each in lines] == [
        ("guard.stop", "anonymous", 400),
        ("guard.stop", "anonymous", 200),
    ]
    assert lines[1]["target"] == f"names {ended.headers['x-gai-stream-id']}"
    assert lines[0]["target"].startswith("names ")
    assert not any(SECRET in str(each) for each in lines)


@on_uvloop
async def test_requests_of_many_parts_are_guarded_beside_the_loop(net: Net) -> None:
    upstream = Upstream("hi <EMAIL_1>")
    gateway = await guarded(net, upstream, WORDS, EMAILS)
    parts = [{"type": "text", "text": f"part {number} " + "x" * 60} for number in range(LIMITS.turn_containers + 9)]
    parts.append({"type": "text", "text": TEXT})
    asked: Any = [{"role": "user", "content": parts}]
    assert len(json.dumps(asked)) > LIMITS.checked_bytes
    for path, body in (
        (NATIVE, {"model": "m", "messages": asked}),
        (CHAT, {"model": "m", "messages": asked}),
        (CHAT, {"model": "claude", "messages": asked}),
    ):
        response = await gateway.ask("POST", path, body)
        assert response.status == (502 if body["model"] == "claude" else 200), response.body
        sent = upstream.bodies[-1]
        assert b"The [words] of <EMAIL_1>" in sent
        assert SECRET.encode() not in sent
        assert b"part 7 " in sent


@on_uvloop
async def test_a_long_text_is_taken_apart_beside_the_loop_however_few_its_parts_are(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments of a call are one string of the body, and may have 100,000 of their own."""
    gateway = await guarded(net, Upstream("hi"), WORDS)
    beside = gateway.running.engine.targets.beside
    do = beside.do
    done: list[str] = []

    def counted(work: Any, caller: str) -> Any:
        done.append(caller)
        return do(work, caller)

    monkeypatch.setattr(beside, "do", counted)
    for count, expected in ((10, 0), (LIMITS.checked_bytes // 3, 2)):
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps([""] * count)}}
        asked = [*messages("hi"), {"role": "assistant", "tool_calls": [call]}]
        assert (await gateway.ask("POST", CHAT, {"model": "m", "messages": asked})).status == 200
        assert len(done) == expected


@on_uvloop
async def test_a_mounted_application_guards_its_requests(net: Net) -> None:
    upstream = Upstream("hi <EMAIL_1>")
    settings = settings_for((await net.upstream(upstream)).url, guards=(WORDS, EMAILS))
    outer = web.Application()
    outer.add_subapp("/ai", build_application(settings))
    runner = web.AppRunner(outer)
    await runner.setup()
    net.stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    client = await net.connect(f"127.0.0.1:{runner.addresses[0][1]}")
    response = await client.ask("POST", f"/ai{CHAT}", {"model": "m", "messages": messages(TEXT)})
    assert response.json["choices"][0]["message"]["content"] == "hi a@b.example"
    assert upstream.asked["messages"] == messages("The [words] of <EMAIL_1>")


@on_uvloop
async def test_a_program_is_guarded_as_clients_are(net: Net) -> None:
    upstream = Upstream("hi <EMA", "IL_1>")
    settings = settings_for((await net.upstream(upstream)).url, guards=(WORDS, EMAILS))
    async with gai_fast.Gateway(settings) as gateway:
        async with gateway.stream({"model": "m", "query": TEXT}) as stream:
            events = [event async for event in stream]
        assert [each["type"] for each in events[:3]] == ["start", "safety", "safety"]
        assert (await gateway.ask(TEXT, model="m")).text == "hi a@b.example"
        assert upstream.asked["messages"] == messages("The [words] of <EMAIL_1>")
    stopping = dataclasses.replace(settings, guards=(dataclasses.replace(WORDS, action="stop"),))
    async with gai_fast.Gateway(stopping) as gateway:
        with pytest.raises(gai_fast.Error, match="does not let this request through"):
            await gateway.ask(TEXT, model="m")


# ---- a server's process


@pytest.mark.parametrize("workers", [1, 2])
async def test_sighup_changes_guards_for_new_requests_and_a_bad_one_changes_nothing(
    net: Net, tmp_path: Path, workers: int
) -> None:
    file = tmp_path / "gai-fast.toml"

    def configure(*words: str, more: str = "") -> None:
        (tmp_path / "words.txt").write_text("\n".join(words))
        guard = '[[guard]]\nname = "names"\nuse = "words"\nwords_file = "words.txt"\naction = "stop"\n'
        file.write_text(f"[server]\nport = 0\n{guard}{more}")

    configure(SECRET)
    async with serving(net, tmp_path, "--workers", str(workers)) as server:

        async def refused(word: str) -> set[int]:
            found = set()
            for _ in range(2 * workers):
                client, response = await server.stream({"model": "demo", "query": f"the {word}"})
                found.add(response.status)
                client.close()  # the demo says its answer slowly, which nobody reads here
            return found

        async def becomes(word: str, status: int) -> None:
            async with asyncio.timeout(PATIENCE):
                while await refused(word) != {status}:
                    pass

        assert (await refused(SECRET), await refused("owl")) == ({400}, {200})
        many = [f"{SECRET}{number}" for number in range(2_000)]
        configure("owl", *many)
        server.signal(signal.SIGHUP)
        await server.said("the configuration has been reloaded")
        await becomes("owl", 400)
        await becomes(SECRET, 200)
        assert await refused(many[-1]) == {400}
        configure("none", more='kinds = ["email"]\n')
        server.signal(signal.SIGHUP)
        await server.said("the configuration is not reloaded")
        assert await refused("owl") == {400}
