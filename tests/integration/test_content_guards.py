"""What a guard does to streams over real sockets: every route and format, logs, shared answers, verdicts that are late.

The guards are processors of the tests' own.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gai_fast.core.chain import Processor
from gai_fast.guards.stage import GuardStage
from gai_fast.model.settings import CacheSettings
from tests.guarding import Guarding, Judged, Word, failed
from tests.integration.gateway import (
    CHAT,
    DONE,
    FINISH,
    LAST_CHUNK,
    MESSAGES,
    NATIVE,
    QUERY,
    RESUMABLE,
    SSE_HEAD,
    Gateway,
    M,
    Net,
    Peer,
    Response,
    delta,
    on_both_loops,
    on_uvloop,
)
from tests.integration.test_durable import STREAMS, id_of
from tests.integration.websocket import connect
from tests.unit.guards.literal import WordGuard
from tests.waiting import until
from tests.wire import chunk

SECRET = "kestrel"
TEXTS = ("The plan ", f"is {SECRET}, and ", "more.")
LET_THROUGH = "The plan is "

ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "native": (NATIVE, M),
    "ndjson": (f"{NATIVE}?framing=ndjson", M),
    "simple": (f"{NATIVE}?format=simple", M),
    "agui": (f"{NATIVE}?format=agui", M),
    "vercel": (f"{NATIVE}?format=vercel", M),
    "chat": (CHAT, {"model": "m", "messages": MESSAGES}),
    "completions": ("/v1/completions", {"model": "m", "prompt": "Tell me a story"}),
    "messages": ("/v1/messages", {"model": "m", "messages": MESSAGES, "max_tokens": 50}),
    "responses": ("/v1/responses", {"model": "m", "input": "Tell me a story"}),
}
ENDS: dict[str, bytes] = {
    "native": b'"finish_reason":"content_filter"',
    "ndjson": b'"finish_reason":"content_filter"',
    "simple": b"",
    "agui": b'"finish_reason":"content_filter"',
    "vercel": b'"finish_reason":"content_filter"',
    "chat": b'"finish_reason":"content_filter"',
    "completions": b'"finish_reason":"content_filter"',
    "messages": b'"stop_reason":"refusal"',
    "responses": b'"incomplete_details":{"reason":"content_filter"}',
}


class Upstream:
    """Says the texts, and then nothing until the gateway has gone, unless it ends the answer."""

    def __init__(self, *, ends: bool = False) -> None:
        self.ends = ends
        self.asked = 0
        self.left = 0

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        self.asked += 1
        await peer.send(SSE_HEAD, *[chunk(delta(text)) for text in TEXTS])
        if self.ends:
            await peer.send(chunk(FINISH + DONE) + LAST_CHUNK)
        await peer.until_gone()
        self.left += 1


async def guarded(net: Net, make: Any, *, ends: bool = False, **options: Any) -> tuple[Gateway, Upstream, Guarding]:
    """Returns a gateway whose streams have this processor."""
    upstream = Upstream(ends=ends)
    gateway = await net.gateway(await net.upstream(upstream), **options)
    guarding = Guarding(make)
    gateway.running.engine.guard_by(guarding)
    return gateway, upstream, guarding


def stopping(_: Any) -> Processor:
    return Word(SECRET)


def closing(_: Any) -> Processor:
    return Word(SECRET, failed)


def check_nothing_leaked(body: bytes) -> None:
    assert SECRET.encode() not in body
    assert b"more." not in body
    assert b"plan" in body


@on_uvloop
@pytest.mark.parametrize("route", ROUTES)
async def test_a_stop_ends_a_stream_of_every_format_and_closes_the_upstream(net: Net, route: str) -> None:
    gateway, upstream, guarding = await guarded(net, stopping)
    path, body = ROUTES[route]
    response = await gateway.ask("POST", path, {**body, "stream": True})
    assert response.status == 200
    assert response.ended
    check_nothing_leaked(bytes(response.body))
    assert ENDS[route] in response.body
    await until(lambda: upstream.left == 1)
    assert upstream.asked == 1
    assert {(each.model, each.caller) for each in guarding.asked} == {("m", "anonymous")}


@on_uvloop
@pytest.mark.parametrize("route", ROUTES)
async def test_a_stop_ends_an_answer_in_one_object(net: Net, route: str) -> None:
    gateway, upstream, _ = await guarded(net, stopping)
    path, body = ROUTES[route]
    response = await gateway.ask("POST", path, {**body, "stream": False})
    assert response.status == 200
    check_nothing_leaked(bytes(response.body))
    assert ENDS[route] in response.body or route in ("agui", "vercel", "ndjson")
    await until(lambda: upstream.left == 1)


@on_uvloop
@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_mask_over_two_deltas_is_in_every_format(net: Net, route: str, is_stream: bool) -> None:
    gateway, _, _ = await guarded(net, lambda _: GuardStage([WordGuard(["plan is kestrel"])]), ends=True)
    path, body = ROUTES[route]
    response = await gateway.ask("POST", path, {**body, "stream": is_stream})
    assert response.status == 200
    said = bytes(response.body).decode()
    assert SECRET not in said
    assert "plan" not in said
    assert "[words]" in said
    assert "more." in said
    if route in ("native", "chat", "messages", "vercel", "agui"):
        assert '"guard":"names","on":"output"' in said


@on_uvloop
@pytest.mark.parametrize("route", ["native", "chat", "messages", "responses"])
async def test_a_failed_judge_is_a_status_before_the_head_and_an_error_after_it(net: Net, route: str) -> None:
    gateway, upstream, _ = await guarded(net, closing)
    path, body = ROUTES[route]
    whole = await gateway.ask("POST", path, {**body, "stream": False})
    assert whole.status == 503
    assert "the guard 'policy' failed" in whole.error["message"]
    streamed = await gateway.ask("POST", path, {**body, "stream": True})
    assert streamed.status == 200
    check_nothing_leaked(bytes(streamed.body))
    assert b"the guard 'policy' failed" in streamed.body
    if route == "native":
        assert [*whole.error] == ["code", "message", "temporary", "phase", "reason", "guard", "request_id"]
        assert streamed.events[-2]["error"]["guard"] == "policy"
        assert streamed.events[-1]["finished"] is False
    await until(lambda: upstream.left == 2)
    assert upstream.asked == 2, "no other attempt is made"


@on_uvloop
async def test_a_log_has_what_was_let_through_and_its_followers_pass_no_guard(net: Net) -> None:
    gateway, upstream, guarding = await guarded(net, stopping)
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    check_nothing_leaked(bytes(response.body))
    made = len(guarding.made)
    events = response.events
    for after in range(len(events) - 1):
        headers = {"last-event-id": f"{id_of(response)}.{after}"}
        followed = await gateway.ask("GET", f"{STREAMS}/{id_of(response)}", headers=headers)
        assert [event["type"] for event in followed.events] == response.types[after:]
        assert SECRET.encode() not in followed.body
    assert len(guarding.made) == made
    await until(lambda: upstream.left == 1)


@on_uvloop
async def test_a_stop_over_a_socket_ends_its_stream_alone(net: Net) -> None:
    gateway, upstream, _ = await guarded(net, stopping)
    socket = await connect(gateway)
    for _ in range(2):
        socket.messages.clear()
        socket.ask("a", **QUERY, model="m")
        await socket.until_done("a")
        assert socket.text("a") == LET_THROUGH
        finish = socket.of("a")[-2]
        assert (finish["finish_reason"], finish["reason"]) == ("content_filter", "guard")
    await until(lambda: upstream.left == 2)


@on_uvloop
async def test_a_shared_answer_is_the_upstreams_and_a_hit_passes_its_own_guards(net: Net) -> None:
    gateway, upstream, guarding = await guarded(net, stopping, ends=True, cache=CacheSettings(ttl=600.0))
    engine = gateway.running.engine

    async def ask() -> Response:
        return await gateway.ask("POST", NATIVE, M, {"x-gai-cache": "on"})

    engine.guard_by(None)
    first = await ask()
    assert first.text == "".join(TEXTS)
    engine.guard_by(guarding)
    second = await ask()
    assert second.headers["x-gai-cache"] == "hit"
    assert second.text == LET_THROUGH
    engine.guard_by(None)
    third = await ask()
    assert (third.headers["x-gai-cache"], third.text) == ("hit", "".join(TEXTS))
    assert upstream.asked == 1


@on_both_loops
async def test_a_verdict_wakes_the_stream_and_the_end_waits_for_the_last(net: Net) -> None:
    gateway, _, guarding = await guarded(net, lambda _: Judged(), ends=True)
    client, response = await gateway.stream(M)
    await response.until(b'"start"')
    (judge,) = guarding.made
    assert isinstance(judge, Judged)
    await until(lambda: len(judge.held) == 3 and judge.released != [])
    for number, text in enumerate(TEXTS, 1):
        assert text.encode() not in response.body
        judge.allow()
        await response.until(text.encode())
        assert response.text == "".join(TEXTS[:number])
    await response.rest()
    assert response.types[-2:] == ["finish", "done"]
    assert response.events[-2]["finish_reason"] == "stop"
    assert judge.wake is None
    client.close()


@on_uvloop
@pytest.mark.parametrize("way", ["leave", "cancel", "drain"])
async def test_a_stream_whose_end_waits_may_end_in_other_ways(net: Net, way: str) -> None:
    gateway, _, guarding = await guarded(net, lambda _: Judged(), ends=True)
    client, response = await gateway.stream(M)
    await response.until(b'"start"')
    (judge,) = guarding.made
    assert isinstance(judge, Judged)
    await until(lambda: judge.released != [])
    if way == "leave":
        client.close()
    elif way == "cancel":
        gateway.running.engine.cancel(id_of(response))
    else:
        gateway.running.engine.disconnect_clients(asyncio.get_running_loop().time())
    await until(lambda: not gateway.streams)
    if way != "leave":
        await response.rest()
        assert response.types[-3:] == ["start", "finish" if way == "cancel" else "error", "done"]
        assert response.text == ""


@on_uvloop
async def test_the_upstream_is_read_no_further_than_the_clients_buffer_while_a_judge_is_silent(net: Net) -> None:
    total = 200
    piece = delta("x" * 10_000)

    async def flood(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD)
        for _ in range(total):
            await peer.send(chunk(piece))
        await peer.send(chunk(FINISH + DONE) + LAST_CHUNK)
        await peer.until_gone()

    gateway = await net.gateway(await net.upstream(flood), client_buffer=50_000)
    guarding = Guarding(lambda _: Judged())
    gateway.running.engine.guard_by(guarding)
    client, response = await gateway.stream(M)
    await response.until(b'"start"')
    (judge,) = guarding.made
    assert isinstance(judge, Judged)
    await until(lambda: judge.waiting > 50_000)
    for _ in range(20):
        await asyncio.sleep(0)
    most = judge.waiting
    assert most < 50_000 + 2 * 65_536 + 10_000
    while not judge.released:
        judge.allow(len(judge.held))
        await response.more()
    judge.allow(len(judge.held))
    await response.rest()
    assert len(response.text) == total * 10_000
    client.close()


@on_uvloop
async def test_only_the_streams_of_a_model_and_a_caller_are_guarded(net: Net) -> None:
    gateway, _, _ = await guarded(net, lambda stream: Word(SECRET) if stream.model == "other" else None, ends=True)
    response = await gateway.chat()
    assert SECRET.encode() in response.body
    assert json.loads(response.data[0])["id"] == "c1", "passed through as it came"
