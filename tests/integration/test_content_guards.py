"""What a guard does to streams over real sockets: every route and format, logs, shared answers, verdicts that are late.

The guards are processors of the tests' own.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gai_fast.core.processing.processor import Processor
from gai_fast.guards.restore import Placeholders
from gai_fast.guards.stages.stage import GuardStage
from gai_fast.guards.verdicts import Failed, JudgeVerdict
from gai_fast.model.settings import CacheSettings, GuardSettings
from tests.conftest import ChangeLimits
from tests.guarding import Answering, Guarding, Judged, Standing, Word, failed, judging, matching
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
from tests.integration.processes import serving
from tests.integration.test_cli import PATIENCE
from tests.integration.test_durable import STREAMS, id_of
from tests.integration.test_responses_socket import opened, turn
from tests.integration.websocket import connect
from tests.unit.guards.stages.literal import WordGuard
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


# ---- guards of a configuration ---------------------------------------------------------------------------------------

FINE = JudgeVerdict(flagged=False)
BAD = JudgeVerdict(flagged=True, category="violence", score=0.9)
LATE = Failed("late", "no verdict within 1 s")
STEPS = (
    ("The key ", "The key "),
    ("s", None),
    ("k-", None),
    ("ab no, sk-ab", "The key sk-ab no, "),
    ("cd", None),
    ("ef", None),
    ("! An", "The key sk-ab no, [secret]! An"),
    ("d s", "The key sk-ab no, [secret]! And "),
    ("oon.", "The key sk-ab no, [secret]! And soon."),
)
"""What the upstream says next, and what the client has by then: all that can no longer become a match."""


def texts_in(route: str, response: Response) -> str:
    """Returns the text that a client has of a stream so far."""
    found: list[str] = []
    lines = bytes(response.body).decode().split("\n")
    for line in lines if route == "ndjson" else [each[6:] for each in lines if each.startswith("data: ")]:
        if line in ("", "[DONE]"):
            continue
        event = json.loads(line)
        kind = event.get("type")
        if route in ("native", "ndjson"):
            found.append(event["text"] if kind == "text.delta" else "")
        elif route == "simple":
            found.append(event.get("content", ""))
        elif route == "agui":
            found.append(event["delta"] if kind == "TEXT_MESSAGE_CONTENT" else "")
        elif route == "vercel":
            found.append(event["delta"] if kind == "text-delta" else "")
        elif route == "chat":
            found += [each["delta"].get("content") or "" for each in event.get("choices", ())]
        elif route == "completions":
            found += [each["text"] for each in event.get("choices", ())]
        elif route == "messages":
            found.append(event["delta"].get("text", "") if kind == "content_block_delta" else "")
        else:
            found.append(event["delta"] if kind == "response.output_text.delta" else "")
    return "".join(found)


class Stepping:
    """Says a piece each time it is told to, and then ends its answer."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[str | None] = asyncio.Queue()

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD)
        while (piece := await self.pieces.get()) is not None:
            await peer.send(chunk(delta(piece)))
        await peer.send(chunk(FINISH + DONE) + LAST_CHUNK)
        await peer.until_gone()


def saying(*pieces: str) -> Any:
    """Returns the handler of an upstream that says the same each time it is asked."""

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(SSE_HEAD, *[chunk(delta(each)) for each in pieces], chunk(FINISH + DONE) + LAST_CHUNK)

    return handler


async def standing(net: Net, upstream: Any, *guards: Any, **options: Any) -> tuple[Gateway, Standing]:
    """Returns a gateway whose streams have these guards."""
    placeholders = options.pop("placeholders", None)
    gateway = await net.gateway(await net.upstream(upstream), **options)
    stand = Standing(*guards, placeholders=placeholders)
    gateway.running.engine.guard_by(stand)
    return gateway, stand


def has_read(session: Any, characters: int) -> bool:
    return bool(session.relay.characters == characters)


@on_both_loops
@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_long_delta_is_searched_in_turns_up_to_its_end(
    net: Net, change_limits: ChangeLimits, is_stream: bool
) -> None:
    """The upstream ends at once: what is left is searched behind its end, and others are served in between."""
    change_limits(output_steps=400)  # a hundred turns: another request needs some
    said = "".join(random.Random(7).choices("ab -@", k=12_000)) + " the kestrel "

    async def at_once(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta(said)), chunk(delta(said)), chunk(FINISH + DONE) + LAST_CHUNK)
        await peer.until_gone()

    guards = (
        GuardSettings("people", "pii", kinds=("email", "url_credentials")),
        GuardSettings("n", "words", words=("kestrel",)),
    )
    gateway = await net.gateway(await net.upstream(at_once), guards=guards)
    asked = asyncio.create_task(gateway.ask("POST", NATIVE, {**M, "stream": is_stream}))
    await until(lambda: gateway.streams == 1)
    health = await gateway.ask("GET", "/healthz")
    assert (health.status, asked.done()) == (200, False)
    response = await asked
    text = response.text if is_stream else response.json["text"]
    assert text == said.replace("kestrel", "[words]") * 2


GROWING = "token.{0,500}[a-f0-9]{20}"
"""A pattern for which a fitting text needs a state a character."""
FITTING = "".join(random.Random(1).choices(["token", "token x", "abc ", "0123456789abcdef"], k=4000))


@on_both_loops
@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("action", ["mask", "flag"])
@pytest.mark.parametrize("side", ["input", "output"])
async def test_a_search_that_takes_too_much_is_a_failure_of_its_guard(
    net: Net, change_limits: ChangeLimits, side: Any, action: Any, is_stream: bool
) -> None:
    """A closed guard refuses or ends, a flag lets the text pass with a warning; others are served meanwhile."""
    change_limits(request_steps=100_000, turn_steps=5_000, output_steps=5_000)
    guard = GuardSettings("tokens", "patterns", on=(side,), action=action, patterns=(GROWING,))
    gateway = await net.gateway(await net.upstream(saying(FITTING if side == "output" else "Hi")), guards=(guard,))
    query = FITTING if side == "input" else "Hi"
    asked = asyncio.create_task(gateway.ask("POST", NATIVE, {"model": "m", "query": query, "stream": is_stream}))
    health = await gateway.ask("GET", "/healthz")
    response = await asked
    assert health.status == 200
    if action == "flag":
        assert response.status == 200
        assert (b'"guard_failed"' in response.body) is is_stream  # a whole answer has no warnings
        assert b'"finish_reason":"stop"' in response.body
    else:
        assert response.status == (200 if is_stream and side == "output" else 503)
        assert b'"code":"provider_unavailable"' in response.body
        assert b'"guard_failed"' in response.body
        assert b"0123456789abcdef0123" not in response.body
    assert gateway.running.engine.guarding.tallies.failures["tokens"] == 1


def secrets(action: Any = "mask") -> Any:
    return matching("patterns", patterns=("sk-[a-z]{4,}",), category="secret", action=action)


def patching(*pieces: str) -> Any:
    """Returns the handler of an upstream that calls a custom tool, whose input is a text and no JSON."""

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(SSE_HEAD)
            for each in pieces:
                call = {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "patch", "input": each}}
                choice: Any = {"index": 0, "delta": {"tool_calls": [call]}}
                await peer.send(chunk(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"))
            await peer.send(chunk(FINISH + DONE) + LAST_CHUNK)

    return handler


@on_uvloop
@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("route", [each for each in ROUTES if each not in ("simple", "completions")])
async def test_the_input_of_a_custom_tool_is_a_text(net: Net, route: str, is_stream: bool) -> None:
    placeholders = Placeholders()
    placeholders.issue("email", "a@b.example")
    upstream = patching("+ say it", "'s sk-ab", 'cdef, "x" ', "<EMAIL_1>")
    gateway, _ = await standing(net, upstream, secrets(), placeholders=placeholders)
    path, body = ROUTES[route]
    response = await gateway.ask("POST", path, {**body, "stream": is_stream})
    assert response.status == 200
    assert b"abcd" not in response.body.replace(b" ", b"")
    assert b"[secret]" in response.body
    assert b"a@b.example" in response.body
    assert b"EMAIL_1" not in response.body


@on_uvloop
@pytest.mark.parametrize("route", ROUTES)
async def test_a_client_has_at_once_what_can_no_longer_become_a_match(net: Net, route: str) -> None:
    upstream = Stepping()
    gateway, stand = await standing(net, upstream, secrets())
    path, body = ROUTES[route]
    upstream.pieces.put_nowait(STEPS[0][0])
    client, response = await gateway.stream({**body, "stream": True}, path)
    (session,) = gateway.running.engine.streams.values()
    before = 0
    for number, (piece, expected) in enumerate(STEPS):
        if number:
            said = session.relay.characters + len(piece)
            upstream.pieces.put_nowait(piece)
            await until(partial(has_read, session, said))
        if expected is None:
            assert session.bytes_sent == before, "nothing of it is sent"
        else:
            while texts_in(route, response) != expected:
                assert expected.startswith(texts_in(route, response))
                assert await response.more()
            before = session.bytes_sent
    upstream.pieces.put_nowait(None)
    await response.rest()
    assert b"sk-abcd" not in response.body
    assert texts_in(route, response) == STEPS[-1][1]
    assert stand.counts.all == [("mask", "names", "output")]
    client.close()


@on_uvloop
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("action", ["mask", "flag", "stop"])
async def test_what_a_guard_does_is_told_where_a_providers_rating_is(net: Net, route: str, action: str) -> None:
    gateway, stand = await standing(net, saying("The key sk-ab", "cd, and more."), secrets(action))
    path, body = ROUTES[route]
    streamed = await gateway.ask("POST", path, {**body, "stream": True})
    whole = await gateway.ask("POST", path, {**body, "stream": False})
    told = f'{{"category":"secret","action":"{action}","guard":"names","on":"output"}}'
    has_place = route in ("native", "ndjson", "agui", "vercel", "chat", "messages")
    for response in (streamed, whole):
        assert response.status == 200
        body_text = bytes(response.body).decode().replace('", "', '","').replace('": "', '":"')
        is_refusal = route == "messages" and action == "stop"
        assert (told in body_text) is (has_place and not is_refusal) or is_refusal
        assert action == "flag" or "sk-abcd" not in body_text
        assert ("[secret]" in body_text) is (action == "mask")
        assert ("and more." in body_text) is (action != "stop")
    text = {"mask": "The key [secret], and more.", "flag": "The key sk-abcd, and more.", "stop": "The key "}
    assert texts_in(route, streamed) == text[action]
    if action == "stop":
        assert ENDS[route] in streamed.body
    assert stand.counts.all.count((action, "names", "output")) == 2
    if action == "stop":
        assert [each[:3] for each in stand.counts.all if each[0] == "stopped"] == [("stopped", "names", "output")] * 2


@on_uvloop
@pytest.mark.parametrize("route", ROUTES)
async def test_own_words_come_back_on_every_route(net: Net, route: str) -> None:
    placeholders = Placeholders()
    placeholders.issue("email", "anna@example.com")
    gateway, _ = await standing(net, saying("Write to <EM", "AIL_1> or <EMAIL_2>."), placeholders=placeholders)
    path, body = ROUTES[route]
    streamed = await gateway.ask("POST", path, {**body, "stream": True})
    assert texts_in(route, streamed) == "Write to anna@example.com or <EMAIL_2>."
    whole = await gateway.ask("POST", path, {**body, "stream": False})
    assert b"Write to anna@example.com or <EMAIL_2>." in whole.body or route in ("agui", "vercel")
    assert b"<EMAIL_1>" not in whole.body


@on_uvloop
@pytest.mark.parametrize("route", ["chat", "messages", "responses", "native"])
async def test_a_guarded_stream_is_written_anew_without_what_only_its_upstream_says(net: Net, route: str) -> None:
    scores = {"content": [{"token": "sk-abcd", "logprob": -1.0, "top_logprobs": []}]}
    given = json.loads(delta("Hi")[6:])
    given["choices"][0]["logprobs"] = scores
    given["x_vendor"] = "sk-abcd"
    frame = b"data: " + json.dumps(given).encode() + b"\n\n"

    async def handler(peer: Peer) -> None:
        while True:
            asked.append(json.loads(await peer.request()))
            await peer.send(SSE_HEAD, chunk(frame), chunk(FINISH + DONE) + LAST_CHUNK)

    asked: list[Any] = []
    gateway, _ = await standing(net, handler, secrets())
    path, body = ROUTES[route]
    wants: dict[str, Any] = {
        "chat": {"logprobs": True, "top_logprobs": 2},
        "native": {"logprobs": True, "top_logprobs": 2},
        "responses": {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        "messages": {},
    }[route]
    for is_stream in (True, False):
        response = await gateway.ask("POST", path, {**body, **wants, "stream": is_stream})
        assert response.status == 200
        assert b"Hi" in response.body
        assert b"sk-abcd" not in response.body
        assert response.headers.get("x-gai-dropped") == ("logprobs,top_logprobs" if wants else None)
    gateway.running.engine.guard_by(None)
    await gateway.ask("POST", path, {**body, **wants, "stream": True})
    for each in asked:
        each.pop("stream_options", None)  # what is written anew has a usage
    assert asked[0] == asked[-1], "the upstream is asked the same"


@on_uvloop
@pytest.mark.parametrize("url", ["memory://", "sqlite"])
async def test_a_log_is_read_again_after_each_event_and_has_no_masked_word(net: Net, url: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/streams.db" if url == "sqlite" else url
    gateway, stand = await standing(net, saying("The sk-ab", "cd", "efg is", " more."), secrets(), url=url)
    response = await gateway.ask("POST", NATIVE, RESUMABLE)
    events = response.events
    assert response.text == "The [secret] is more."
    for after in range(len(events) - 1):
        headers = {"last-event-id": f"{id_of(response)}.{after}"}
        followed = await gateway.ask("GET", f"{STREAMS}/{id_of(response)}", headers=headers)
        assert followed.events == events[after:]
    assert stand.counts.all == [("mask", "names", "output")], "who reads it passes no guard"
    if url != "memory://":
        await gateway.running.close()
        check_files(tmp_path, b"sk-abcd", b"[secret]")


def check_files(folder: Path, absent: bytes, present: bytes) -> None:
    """Checks what stands in the files of a store."""
    held = [each.read_bytes() for each in folder.iterdir() if each.is_file()]
    assert any(present in each for each in held)
    assert not any(absent in each for each in held)


@on_uvloop
async def test_a_follower_has_what_the_first_client_has(net: Net) -> None:
    upstream = Stepping()
    gateway, _ = await standing(net, upstream, secrets())
    upstream.pieces.put_nowait("The sk-ab")
    client, response = await gateway.stream(RESUMABLE)
    await response.until(b"The ")
    other = await gateway.connect()
    other.request("GET", f"{STREAMS}/{id_of(response)}")
    followed = await other.response()
    await followed.until(b"The ")
    for piece in ("cd", " is", None):
        upstream.pieces.put_nowait(piece)
    for each in (response, followed):
        await each.rest()
        assert each.text == "The [secret] is"
    client.close()
    other.close()


@on_uvloop
async def test_a_kept_answer_is_what_was_let_through_and_so_is_the_next_question(net: Net, tmp_path: Path) -> None:
    asked: list[Any] = []

    async def handler(peer: Peer) -> None:
        while True:
            asked.append(json.loads(await peer.request()))
            await peer.send(SSE_HEAD, chunk(delta("The sk-ab")), chunk(delta("cd.")))
            await peer.send(chunk(FINISH + DONE) + LAST_CHUNK)

    gateway, _ = await standing(net, handler, secrets(), url=f"sqlite:///{tmp_path}/kept.db")
    path, body = ROUTES["responses"]
    for is_stream in (False, True):
        asked.clear()
        first = await gateway.ask("POST", path, {**body, "store": True, "stream": is_stream})
        kept = first.events[-1]["response"] if is_stream else first.json
        got = await gateway.ask("GET", f"{path}/{kept['id']}")
        assert got.json["output"] == kept["output"]
        assert b"The [secret]." in got.body
        second = {**body, "input": "And?", "previous_response_id": kept["id"], "stream": False}
        assert (await gateway.ask("POST", path, second)).status == 200
        assert asked[1]["messages"][1] == {"role": "assistant", "content": "The [secret]."}
    await gateway.running.close()
    check_files(tmp_path, b"sk-abcd", b"[secret]")


@on_uvloop
async def test_a_hit_of_the_cache_passes_the_guards_of_its_own_stream(net: Net, tmp_path: Path) -> None:
    gateway, stand = await standing(
        net, saying("The sk-ab", "cd."), secrets(), cache=CacheSettings(ttl=600.0), url=f"sqlite:///{tmp_path}/c.db"
    )
    texts = []
    for guards in ([secrets()], [matching(words=("The",), name="other")], [], [secrets("stop")]):
        stand.guards = tuple(guards)
        response = await gateway.ask("POST", NATIVE, M, {"x-gai-cache": "on"})
        texts.append((response.headers["x-gai-cache"], response.text))
    assert texts == [("miss", "The [secret]."), ("hit", "[words] sk-abcd."), ("hit", "The sk-abcd."), ("hit", "The ")]


@on_uvloop
async def test_both_sockets_have_what_was_let_through(net: Net) -> None:
    gateway, _ = await standing(net, saying("The sk-ab", "cd."), secrets())
    socket = await connect(gateway)
    socket.ask("a", **QUERY, model="m")
    await socket.until_done("a")
    assert socket.text("a") == "The [secret]."
    assert [each["safety"]["guard"] for each in socket.of("a") if each["type"] == "safety"] == ["names"]
    responses = await opened(gateway)
    events = await turn(responses, model="m", input="Hi")
    assert "".join(each["delta"] for each in events if each["type"] == "response.output_text.delta") == "The [secret]."
    assert "sk-abcd" not in json.dumps(events)


# ---- judges ----------------------------------------------------------------------------------------------------------


async def answer_all(judge: Answering, verdicts: Iterable[Any]) -> None:
    """Answers one question after the other."""
    for verdict in verdicts:
        await until(lambda: bool(judge.texts))
        judge.answer(verdict)
        await asyncio.sleep(0)


@on_uvloop
@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("route", ROUTES)
async def test_text_waits_for_its_verdict_on_every_route(net: Net, route: str, is_stream: bool) -> None:
    judge = Answering()
    text = "A text of more than thirty-two characters, "
    gateway, _ = await standing(net, saying(text, "and its end."), judging(judge, "mask"))
    path, body = ROUTES[route]
    client = await gateway.connect()
    client.request("POST", path, {**body, "stream": is_stream})
    await until(lambda: judge.texts == [text, text + "and its end."])
    spans = JudgeVerdict(flagged=True, category="size", spans=((15, 30),))
    await answer_all(judge, [spans, FINE])
    response = await client.response()
    await response.rest()
    assert response.status == 200
    if is_stream:
        assert texts_in(route, response) == "A text of more [size] characters, and its end."
    else:
        assert b"thirty" not in response.body
        assert b"[size]" in response.body
    client.close()


@on_uvloop
@pytest.mark.parametrize("fails_open", [True, False], ids=["open", "closed"])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_judge_that_fails_closes_a_stream_or_is_warned_of(net: Net, route: str, fails_open: bool) -> None:
    judge = Answering()
    gateway, stand = await standing(net, saying("A text that nobody judges."), judging(judge, fails_open=fails_open))
    path, body = ROUTES[route]
    client = await gateway.connect()
    client.request("POST", path, {**body, "stream": True})
    await answer_all(judge, [LATE])
    response = await client.response()
    await response.rest()
    assert response.status == 200
    assert texts_in(route, response) == ("A text that nobody judges." if fails_open else "")
    has_place = route in ("native", "ndjson", "agui", "vercel", "messages")
    if fails_open and has_place:
        assert b"guard_failed" in response.body
    elif not fails_open:
        assert b"the guard 'policy' cannot judge this text now" in response.body
    assert stand.counts.all == [("failed", "policy")]
    client.close()


@on_uvloop
async def test_a_client_that_leaves_gives_up_the_questions(net: Net) -> None:
    judge = Answering()
    gateway, _ = await standing(net, saying("A text of more than thirty-two characters."), judging(judge))
    client, response = await gateway.stream(M)
    await response.until(b'"start"')
    await until(lambda: len(judge.texts) == 1)
    client.close()
    await until(lambda: judge.texts == [] and not gateway.streams)


@on_uvloop
async def test_own_words_come_back_behind_judges(net: Net) -> None:
    judge = Answering()
    placeholders = Placeholders()
    placeholders.issue("email", "anna@example.com")
    gateway, _ = await standing(
        net, saying("Write to <EMAIL_1>."), secrets(), judging(judge), placeholders=placeholders
    )
    client, response = await gateway.stream(M)
    await until(lambda: judge.texts == ["Write to <EMAIL_1>."])
    judge.answer(FINE)
    await response.rest()
    assert response.text == "Write to anna@example.com."
    client.close()


@on_uvloop
async def test_a_verdict_that_stops_closes_the_upstream(net: Net) -> None:
    judge = Answering()
    upstream = Upstream()
    gateway, stand = await standing(net, upstream, judging(judge))
    client, response = await gateway.stream(M)
    await until(lambda: len(judge.texts) == 1)
    judge.answer(BAD)
    await response.rest()
    assert response.types == ["start", "safety", "finish", "done"]
    assert response.events[1]["safety"] == {
        "category": "violence", "action": "stop", "score": 0.9, "guard": "policy", "on": "output",
    }  # fmt: skip
    await until(lambda: upstream.left == 1)
    ((_, _, _, stream_id, caller),) = [each for each in stand.counts.all if each[0] == "stopped"]
    assert (stream_id, caller) == (id_of(response), "anonymous")
    client.close()


QUOTING = b'data: {"error":{"message":"the kestrel is not allowed","type":"x","code":"kestrel"}}\n\n'


@on_uvloop
@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize("at", ["status", "amid"])
@pytest.mark.parametrize("route", ["native", "chat", "messages", "responses"])
async def test_an_error_of_the_upstream_repeats_no_match(net: Net, route: str, at: str, judged: bool) -> None:
    """Providers quote what a model has said."""

    refusal = {"error": {"message": "the kestrel is not allowed", "code": "kestrel"}}

    async def quoting(peer: Peer) -> None:
        await peer.request()
        if at == "amid":
            await peer.send(SSE_HEAD, chunk(delta("Hi ")), chunk(QUOTING))
            await peer.until_gone()
        else:
            await peer.answer("400 Bad Request", json.dumps(refusal).encode(), "connection: close")

    path, body = ROUTES[route]
    guard = judging(Answering()) if judged else matching()
    gateway, _ = await standing(net, quoting, guard)
    for is_stream in (False, True):
        given = await gateway.ask("POST", path, {**body, "stream": is_stream})
        assert b"kestrel" not in given.body
        if route == "native":
            words = "no guard has judged" if judged else "[words]"
            error = given.events[-2]["error"] if is_stream and at == "amid" else given.error
            assert words in error["message"]


@on_uvloop
@pytest.mark.parametrize("way", ["cancel", "drain", "break"])
async def test_a_held_suffix_is_decided_by_an_end_that_comes_early(net: Net, way: str) -> None:
    breaks = asyncio.Event()

    async def half(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("a kestrel, the kes")))
        if way == "break":
            await breaks.wait()
            peer.reset()
        await peer.until_gone()

    guard = GuardSettings("names", "words", words=("kestrel",))
    gateway = await net.gateway(await net.upstream(half), guards=(guard,))
    client, response = await gateway.stream(M)
    await response.until(b", the ")
    assert b"kes" not in response.body
    if way == "break":
        breaks.set()
    elif way == "cancel":
        gateway.running.engine.cancel(id_of(response))
    else:
        gateway.running.engine.disconnect_clients(asyncio.get_running_loop().time())
    await response.rest()
    assert response.text == "a [words], the kes"
    assert response.types[-2:] == ["finish" if way == "cancel" else "error", "done"]
    await until(lambda: not gateway.streams)
    client.close()


async def test_a_stream_keeps_its_guards_over_a_reload(net: Net, tmp_path: Path) -> None:
    going_on, asked = asyncio.Event(), 0

    async def upstream(peer: Peer) -> None:
        nonlocal asked
        asked += 1
        await peer.request()
        if asked > 1:
            await peer.send(SSE_HEAD, chunk(delta("an owl, a kestrel, an owl") + FINISH + DONE), LAST_CHUNK)
            return
        await peer.send(SSE_HEAD, chunk(delta("an owl, a kes")))
        await going_on.wait()
        await peer.send(chunk(delta("trel, a kes")), chunk(delta("t") + FINISH + DONE), LAST_CHUNK)

    url = (await net.upstream(upstream)).url

    def configure(guard: str) -> None:
        (tmp_path / "gai-fast.toml").write_text(
            f'[server]\nport = 0\n[[upstream]]\nname = "up"\nprovider = "openai-compatible"\nbase_url = "{url}"\n'
            f'[[model]]\nname = "m"\nupstream = "up"\n{guard}'
        )

    def words(word: str) -> str:
        return f'[[guard]]\nname = "names"\nuse = "words"\nwords = ["{word}"]\n'

    configure(words("kestrel"))
    async with serving(net, tmp_path) as server:
        _, running = await server.stream(M)
        await running.until(b"an owl, a ")
        assert b"kes" not in running.body
        for guard, text in ((words("owl"), "an [words], a kestrel, an [words]"), ("", "an owl, a kestrel, an owl")):
            configure(guard)
            server.signal(signal.SIGHUP)
            await server.said("the configuration has been reloaded")
            async with asyncio.timeout(PATIENCE):
                while (await server.ask("POST", NATIVE, M)).text != text:
                    pass
        going_on.set()
        await running.rest()
    assert running.text == "an owl, a [words], a kest"
    assert running.types[-2:] == ["finish", "done"]
