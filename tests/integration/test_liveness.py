"""The held head, heartbeats, time limits, and what becomes of an upstream that fails, early or late."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from gai_fast.cli.mock.command import Fault
from tests.integration.gateway import (
    CHAT,
    DONE,
    END,
    FINISH,
    KEY,
    LAST_CHUNK,
    NATIVE,
    NEVER,
    OPENAI,
    QUERY,
    SSE_HEAD,
    Gateway,
    M,
    Net,
    Peer,
    Response,
    delta,
    joined,
    on_both_loops,
    on_steady_loop,
    on_uvloop,
)
from tests.integration.test_chains import ALICE, BOB, KEYS
from tests.waiting import until
from tests.wire import chunk


def without_pings(body: bytes) -> bytes:
    """Returns a stream without its keep-alives, which must stand between frames."""
    frames = re.split(rb"(?<=\n\n)", body)
    return b"".join(re.sub(rb"\A(: ping\n)+", b"", frame) for frame in frames)


# ---- failures while the head is held ---------------------------------------------------------------------------------

JSON_TYPE = "Content-Type: application/json"
SECRET = f"Incorrect API key provided: {KEY}. Find yours at https://provider.example"
EARLY: dict[str, tuple[tuple[str, bytes, tuple[str, ...]], tuple[int, str, str | None, bool]]] = {
    "429": (
        (
            "429 Too Many Requests",
            b'{"error":{"message":"slow down","type":"t","code":"rate_limit_exceeded"}}',
            (JSON_TYPE, "retry-after-ms: 1500"),
        ),
        (429, "rate_limited", "rate_limit_exceeded", True),
    ),
    "a spent quota": (
        ("429 Too Many Requests", b'{"error":{"message":"spent","type":"insufficient_quota"}}', (JSON_TYPE,)),
        (429, "rate_limited", "insufficient_quota", False),
    ),
    "our key refused": (
        (
            "401 Unauthorized",
            json.dumps({"error": {"message": SECRET, "code": "invalid_api_key"}}).encode(),
            (JSON_TYPE,),
        ),
        (502, "provider_unavailable", "upstream_credentials", False),
    ),
    "our account refused": (
        ("402 Payment Required", b'{"error":{"message":"Insufficient Balance"}}', (JSON_TYPE,)),
        (502, "provider_unavailable", "upstream_billing", False),
    ),
    "500": (
        ("500 Internal Server Error", b'{"error":{"message":"oops"}}', (JSON_TYPE,)),
        (500, "internal", None, False),
    ),
    "503 overloaded": (
        ("503 Service Unavailable", b'{"error":{"message":"Overloaded"}}', (JSON_TYPE, "Retry-After: 7")),
        (503, "overloaded", None, True),
    ),
    "400": (
        (
            "400 Bad Request",
            b'{"error":{"message":"no","type":"invalid_request_error","param":"p","code":null}}',
            (JSON_TYPE,),
        ),
        (400, "invalid_request", "invalid_request_error", False),
    ),
    "no such model": (
        ("404 Not Found", b'{"error":{"message":"no model","code":"model_not_found"}}', (JSON_TYPE,)),
        (404, "not_found", "model_not_found", False),
    ),
    "a page of HTML": (
        ("200 OK", b"<!doctype html><h1>secret page</h1>", ("Content-Type: text/html",)),
        (503, "provider_unavailable", "content_type", True),
    ),
    "HTML that calls itself a stream": (
        ("200 OK", b"<html>secret page", ("Content-Type: text/event-stream",)),
        (503, "provider_unavailable", "content_type", True),
    ),
    "an image": (
        ("200 OK", b"\x89PNG", ("Content-Type: image/png",)),
        (503, "provider_unavailable", "content_type", True),
    ),
    "a redirect": (
        ("302 Found", b"", ("Location: http://169.254.169.254/secret",)),
        (503, "provider_unavailable", "redirect", True),
    ),
    "a compressed body": (
        ("200 OK", b"\x1f\x8b", ("Content-Encoding: gzip",)),
        (503, "provider_unavailable", "content_encoding", True),
    ),
    "an error under 200": (
        ("200 OK", b'{"error":{"message":"slow down","code":"rate_limit_exceeded"}}', (JSON_TYPE,)),
        (429, "rate_limited", "rate_limit_exceeded", True),
    ),
    "an error as the first event": (
        (
            "200 OK",
            b'data: {"error":{"message":"Overloaded","type":"overloaded_error"}}\n\n',
            ("Content-Type: text/event-stream",),
        ),
        (503, "overloaded", "overloaded_error", True),
    ),
    "nothing": (
        ("200 OK", b"", ("Content-Type: text/event-stream",)),
        (502, "network", "truncated", True),
    ),
    "nothing but comments": (
        ("200 OK", b": ping\n\n: ping\n\n", ("Content-Type: text/event-stream",)),
        (502, "network", "truncated", True),
    ),
}


@on_uvloop
@pytest.mark.parametrize("name", EARLY)
async def test_an_early_failure_has_its_true_status(net: Net, name: str) -> None:
    (status_line, body, headers), (status, code, reason, temporary) = EARLY[name]

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(status_line, body, *headers)

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream)
    for stream in (True, False):
        response = await gateway.ask("POST", NATIVE, {**M, "stream": stream})
        assert response.ended
        assert (response.status, response.error["code"], response.error.get("reason")) == (status, code, reason)
        assert response.error["temporary"] is temporary
        assert response.error["phase"] == "first_event"
        if code == "internal":
            assert "x-should-retry" not in response.headers
        else:
            assert response.headers["x-should-retry"] == str(temporary).lower()
        assert response.headers["content-type"] == "application/json"
        if name == "429":
            assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("2", "1500")
            assert response.error["retry_after_ms"] == 1500
        elif not temporary:
            assert "retry-after" not in response.headers
        if name == "429":  # nobody is asked in that time
            gateway = await net.gateway(upstream)
        openai = await gateway.ask("POST", CHAT, {**OPENAI, "stream": stream})
        assert openai.status == status
        assert openai.error.keys() >= {"message", "type", "param", "code"}
        for answer in (response, openai):
            text = answer.body.decode() + str(answer.headers)
            assert KEY not in text
            assert "secret" not in text
            assert "169.254" not in text
            if reason in ("upstream_credentials", "upstream_billing"):
                assert "'up'" in text
                assert "provider.example" not in text
        if name == "429":
            gateway = await net.gateway(upstream)
    is_ours = "refuses our" in response.error["message"]
    assert net.warned(f"gai_fast.engine: {response.error['message']}") == is_ours, "once, whatever the requests"


@on_uvloop
async def test_an_upstream_of_the_clients_dialect_keeps_its_words(net: Net) -> None:
    said = {"message": "no", "type": "invalid_request_error", "param": "p", "code": "string_above_max_length"}

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer("400 Bad Request", json.dumps({"error": said}).encode(), JSON_TYPE)

    gateway = await net.gateway(await net.upstream(handler))
    response = await gateway.ask("POST", CHAT, OPENAI)
    assert (response.status, response.error) == (400, said)


@on_both_loops
async def test_an_upstream_that_is_not_there_is_reported_with_its_phase(net: Net) -> None:
    mock = await net.mock(fault=Fault("refuse"))
    gateway = await net.gateway(mock)
    for path, body in ((NATIVE, M), (CHAT, OPENAI), (NATIVE, {**M, "stream": False})):
        response = await gateway.ask("POST", path, body)
        assert response.status == 502
        assert response.error["code"] == "network"
        if path == NATIVE:
            assert (response.error["phase"], response.error["reason"]) == ("connect", "connect")

    async def silent(peer: Peer) -> None:
        await peer.until_gone()

    async def no_http(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"220 mail.example ESMTP\r\n")

    for handler, limit, code, reason in ((silent, 0.2, "timeout", "idle"), (no_http, NEVER, "network", "protocol")):
        gateway = await net.gateway(await net.upstream(handler), idle_timeout=limit)
        response = await gateway.ask("POST", NATIVE, M)
        assert (response.error["code"], response.error["reason"]) == (code, reason)
        assert response.error["phase"] == "first_event"
        assert response.status == {"timeout": 504, "network": 502}[code]


@on_both_loops
@pytest.mark.parametrize("path", [NATIVE, CHAT])
async def test_after_commit_after_a_failure_is_reported_in_band_and_the_response_ends(net: Net, path: str) -> None:
    go = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.answer(
            "429 Too Many Requests", b'{"error":{"message":"slow","code":"rate_limit_exceeded"}}', JSON_TYPE
        )

    gateway = await net.gateway(await net.upstream(handler), commit_after=0.1)
    _, response = await gateway.stream(M if path == NATIVE else OPENAI, path)
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    go.set()
    await response.rest()
    assert response.ended
    if path == NATIVE:
        assert response.types == ["error", "done"]
        error = response.events[0]
        assert (error["error"]["code"], error["error"]["phase"]) == ("rate_limited", "first_event")
        assert (error["seq"], error["request_id"]) == (1, response.headers["x-request-id"])
        assert response.events[1] == {"type": "done", "finished": False}
    else:
        (event,) = response.events
        assert event["error"]["message"] == "slow"
        assert b"[DONE]" not in response.body


@on_uvloop
async def test_one_json_answer_is_held_to_its_end_and_gets_no_heartbeat(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=4, rate=10), commit_after=0.05, heartbeat=0.05)
    for path, body in ((NATIVE, {**M, "stream": False}), (CHAT, {**OPENAI, "stream": False})):
        response = await gateway.ask("POST", path, body)
        assert response.status == 200
        assert response.headers["content-length"] == str(len(response.body))
        assert b"ping" not in response.body
        assert response.body == response.body.strip()
    for at in (None, 3):
        for kind, status in (("429", 429), ("500", 500)):
            gateway = await net.gateway(await net.mock(fault=Fault(kind, at)), commit_after=0.05)
            assert (await gateway.ask("POST", NATIVE, {**M, "stream": False})).status == status


# ---- failures of a running stream ------------------------------------------------------------------------------------


@on_steady_loop
@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        ("cut", "network", "truncated"),
        ("reset", "network", "reset"),
        ("stall", "timeout", "idle"),
        ("error-event", "overloaded", None),
        ("json-error", "internal", None),
        ("503", "overloaded", None),
    ],
)
async def test_a_stream_that_breaks_says_so_and_ends_properly(
    net: Net, kind: str, code: str, reason: str | None
) -> None:
    mock = await net.mock(deltas=10, rate=200, fault=Fault(kind, 3))
    gateway = await net.gateway(mock, idle_timeout=0.2, heartbeat=0.1)
    for model in ("m", "claude"):
        response = await gateway.ask("POST", NATIVE, {**QUERY, "model": model})
        assert response.status == 200
        assert response.ended
        assert response.types == ["start", *["text.delta"] * 3, "error", "done"]
        error = response.events[-2]
        assert (error["error"]["code"], error["error"]["phase"]) == (code, "mid_stream")
        if reason is not None:
            assert error["error"]["reason"] == reason
        assert error["usage"]["source"] == "partial"
        assert response.events[-1] == {"type": "done", "finished": False}
        ndjson = await gateway.ask("POST", f"{NATIVE}?framing=ndjson", {**QUERY, "model": model})
        assert ndjson.types[-2:] == ["error", "done"]
        simple = await gateway.ask("POST", f"{NATIVE}?format=simple", {**QUERY, "model": model})
        assert "error" in simple.events[-1]
        assert b"[DONE]" not in simple.body
        openai = await gateway.ask("POST", CHAT, {**OPENAI, "model": model})
        assert openai.ended
        assert joined(openai.events[:-1]) == response.text
        assert openai.events[-1]["error"].keys() >= {"message", "type", "param", "code"}
        assert b"[DONE]" not in openai.body
        whole = await gateway.ask("POST", NATIVE, {**QUERY, "model": model, "stream": False})
        assert whole.error["code"] == code
        assert whole.status == {"network": 502, "timeout": 504, "overloaded": 503, "internal": 500}[code]


@on_uvloop
async def test_a_chunk_that_cannot_be_read_and_may_hold_text_is_a_failure_amid_the_stream(net: Net) -> None:
    """A text with a hole was passed on, and ended like a whole one."""
    for on_malformed in ("skip", "error"):
        gateway = await net.gateway(await net.mock(deltas=4, fault=Fault("malformed", 2)), on_malformed=on_malformed)
        response = await gateway.ask("POST", NATIVE, M)
        assert response.types == ["start", "text.delta", "text.delta", "error", "done"]
        assert response.events[-2]["error"]["reason"] == "malformed_chunk"
        passed = await gateway.ask("POST", CHAT, OPENAI)
        assert b"[DONE]" not in passed.body


@on_steady_loop
async def test_the_first_event_has_a_time_limit_that_comments_do_not_stretch(net: Net) -> None:
    async def chatty(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD)
        while not peer.reader.at_eof():
            await peer.send(chunk(b": ping\n\n"))
            await asyncio.sleep(0.02)

    for commit_after, committed in ((NEVER, False), (0.05, True)):
        upstream = await net.upstream(chatty)
        gateway = await net.gateway(upstream, first_event_timeout=0.4, idle_timeout=5, commit_after=commit_after)
        response = await gateway.ask("POST", NATIVE, M)
        error = response.events[0]["error"] if committed else response.error
        assert response.status == (200 if committed else 504)
        assert (error["code"], error["reason"], error["phase"]) == ("timeout", "first_event", "first_event")
        await upstream.until_finished()


@on_steady_loop
async def test_the_whole_answer_has_a_time_limit(net: Net) -> None:
    gateway = await net.gateway(await net.mock(rate=50, deltas=10_000), total_timeout=0.4)
    response = await gateway.ask("POST", NATIVE, M)
    assert (response.types[-2], response.events[-2]["error"]["reason"]) == ("error", "total")


@on_both_loops
async def test_an_upstream_that_goes_on_after_its_end_does_not_hold_the_client(net: Net) -> None:
    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("hi")), chunk(FINISH), chunk(DONE))
        while not peer.reader.at_eof():
            await peer.send(chunk(delta("more")))
            await asyncio.sleep(0.01)

    upstream = await net.upstream(endless)
    gateway = await net.gateway(upstream)
    response = await gateway.ask("POST", NATIVE, M)
    assert response.types == ["start", "text.delta", "finish", "done"]
    await upstream.until_finished()


@on_both_loops
async def test_an_upstream_that_ends_its_framing_late_keeps_its_connection(net: Net) -> None:
    async def late(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(SSE_HEAD, chunk(delta("hi")), chunk(FINISH), chunk(DONE))
            await asyncio.sleep(0.05)
            await peer.send(LAST_CHUNK)

    upstream = await net.upstream(late)
    gateway = await net.gateway(upstream)
    for _ in range(3):
        assert (await gateway.ask("POST", NATIVE, M)).types[-1] == "done"
        (pool,) = gateway.running.engine.upstreams._pools.values()
        await until(lambda pool=pool: pool.stats.open == pool.stats.idle)
    assert len(upstream.peers) == 1


# ---- heartbeats ------------------------------------------------------------------------------------------------------


@on_both_loops
@pytest.mark.parametrize("path", [NATIVE, f"{NATIVE}?format=simple", f"{NATIVE}?framing=ndjson", CHAT])
async def test_heartbeats_come_before_the_first_event_and_between_events_never_inside_one(net: Net, path: str) -> None:
    half = delta("world")
    go = [asyncio.Event() for _ in range(3)]

    async def handler(peer: Peer) -> None:
        await peer.request()
        await go[0].wait()
        await peer.send(SSE_HEAD, chunk(delta("hello ")), chunk(half[:20]))
        await go[1].wait()
        await peer.send(chunk(half[20:]))
        await go[2].wait()
        await peer.send(*END)

    gateway = await net.gateway(await net.upstream(handler), commit_after=0.05, heartbeat=0.05)
    _, response = await gateway.stream(OPENAI if path == CHAT else M, path)
    ping = b"\n" if "ndjson" in path else b": ping\n"
    assert await response.more()
    assert response.body == ping
    await response.more()
    assert response.body == ping * 2
    for step, after in ((0, b"hello"), (1, b"world"), (2, b"")):
        go[step].set()
        if after:
            await response.until(after)
            had = len(response.body)
            await response.more()
            await response.more()
            assert response.body[had:] == ping * 2
    await response.rest()
    assert response.ended
    if path == CHAT:
        assert without_pings(response.body) == delta("hello ") + half + FINISH + DONE
    elif "simple" in path:
        assert without_pings(response.body) == b'data: {"content":"hello "}\n\ndata: {"content":"world"}\n\n' + DONE
    else:
        assert response.text == "hello world"
        assert response.types[-1] == "done"


@on_steady_loop
async def test_a_client_that_gets_bytes_gets_no_heartbeat_and_zero_means_never(net: Net) -> None:
    mock = await net.mock(deltas=20, rate=20)
    gateway = await net.gateway(mock, heartbeat=0.4)
    assert b": ping" not in (await gateway.ask("POST", NATIVE, M)).body
    gateway = await net.gateway(await net.mock(deltas=2, rate=2), heartbeat=0, commit_after=0.05)
    assert b": ping" not in (await gateway.ask("POST", NATIVE, M)).body


# ---- passthrough -----------------------------------------------------------------------------------------------------


async def passed(net: Net, frames: bytes, size: int, **more: Any) -> tuple[Response, bytes]:
    """Returns the answer to these bytes, sent in pieces of a size, and the requests to the upstream."""
    asked = b""

    async def handler(peer: Peer) -> None:
        nonlocal asked
        asked = await peer.request()
        await peer.send(SSE_HEAD)
        for at in range(0, len(frames), size):
            await peer.send(chunk(frames[at : at + size]))
            if size == 1:
                await asyncio.sleep(0)
        await peer.send(LAST_CHUNK)

    gateway = await net.gateway(await net.upstream(handler))
    response = await gateway.ask("POST", CHAT, {**OPENAI, **more})
    assert response.ended
    return response, asked


@on_both_loops
async def test_the_upstreams_bytes_are_passed_on_as_they_are(net: Net) -> None:
    odd = (
        b": a comment\n\n"
        + delta("é \\u00e9").replace(b'"created": 1', b'"created":12345678901234567890,"x":{"y":[1e400]}')
        + delta("two").replace(b"\n\n", b"\r\n\r\n")
        + b"event: message\nid: 7\n"
        + delta("three")
        + b": in between\n"
        + delta("").replace(b"data: {", b"data:{")
        + FINISH
        + b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"mock","choices":[],"usage":null}\n\n'
        + DONE
    )
    for size in (1, 7, len(odd)):
        response, _ = await passed(net, odd, size)
        assert response.body == odd
    mock = await net.mock(deltas=6)
    gateway = await net.gateway(mock)
    through = await gateway.ask("POST", CHAT, OPENAI)
    upstream = await net.connect(mock.url.removeprefix("http://"))
    direct = await upstream.ask("POST", CHAT, {**OPENAI, "model": "mock"})
    assert through.body.replace(b"mock-1", b"mock-2") == direct.body


@on_uvloop
async def test_the_clients_fields_reach_the_upstream_exact(net: Net) -> None:
    more = {"x_unknown": {"a": [1, None]}, "seed": 2**70, "top_p": 0.1, "metadata": {"é": "\u2028"}, "logit_bias": {}}
    _, asked = await passed(net, delta("a") + FINISH + DONE, 100, **more)
    assert json.loads(asked) == {**OPENAI, **more, "model": "mock"}
    assert str(2**70).encode() in asked


@on_uvloop
async def test_a_whole_answer_is_passed_on_unchanged(net: Net) -> None:
    answer = (
        b' {"id":"c1", "object":"chat.completion","created":12345678901234567890,"model":"mock","x":{"y":1e400},'
        b'"choices":[{"index":0,"message":{"role":"assistant","content":"h\\u00e9"},"finish_reason":"stop"}]}\n'
    )

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer("200 OK", answer, JSON_TYPE)

    gateway = await net.gateway(await net.upstream(handler))
    response = await gateway.ask("POST", CHAT, {**OPENAI, "stream": False})
    assert response.body.strip() == answer.strip()
    assert response.headers["content-type"] == "application/json"


@on_uvloop
async def test_another_dialect_is_translated(net: Net) -> None:
    mock = await net.mock(deltas=5)
    gateway = await net.gateway(mock)
    body = {**OPENAI, "model": "claude", "max_tokens": 50, "stream_options": {"include_usage": True}}
    response = await gateway.ask("POST", CHAT, body)
    assert mock.requests[0].path == "/v1/messages"
    assert mock.requests[0].headers["x-api-key"] == KEY
    native = await gateway.ask("POST", NATIVE, {**QUERY, "model": "claude"})
    assert joined(response.events) == native.text
    assert response.data[-1] == "[DONE]"
    assert response.events[-1]["usage"]["completion_tokens"] == 5
    assert all(event["object"] == "chat.completion.chunk" for event in response.events)
    whole = await gateway.ask("POST", CHAT, {**body, "stream": False})
    assert whole.json["object"] == "chat.completion"
    assert whole.json["choices"][0]["message"]["content"] == native.text
    refused = await gateway.ask("POST", CHAT, {**body, "logit_bias": {"1": 2}})
    assert (refused.status, refused.error["code"]) == (400, "unsupported")


@on_steady_loop
async def test_output_is_gathered_for_flush_interval(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD)
        for _ in range(40):
            await asyncio.sleep(0.0025)
            await peer.send(chunk(delta("a")))
        await peer.send(*END)

    async def pieces(gateway: Gateway) -> int:
        response = await gateway.ask("POST", NATIVE, M)
        assert response.types == ["start", *["text.delta"] * 40, "finish", "done"]
        return response.pieces

    upstream = await net.upstream(handler)
    gathered = await pieces(await net.gateway(upstream, flush_interval=0.05))
    assert gathered < await pieces(await net.gateway(upstream)) / 2


@on_uvloop
async def test_a_pool_that_is_used_up_lets_streams_wait(net: Net) -> None:
    mock = await net.mock(deltas=3, rate=100)
    gateway = await net.gateway(mock, max_connections=2)
    responses = await asyncio.gather(*(gateway.ask("POST", NATIVE, M) for _ in range(8)))
    assert [response.types[-1] for response in responses] == ["done"] * 8
    assert mock.connections <= 3
    await until(lambda: gateway.streams == 0)


@on_uvloop
@pytest.mark.parametrize("path", [CHAT, "/v1/rerank"])
async def test_a_caller_whose_requests_wait_for_a_connection_leaves_another_its_turn(net: Net, path: str) -> None:
    asked: list[str] = []
    goes_on = asyncio.Event()

    async def handler(peer: Peer) -> None:
        while body := await peer.request():
            asked.append("bob" if b"of bob" in body else "alice")
            await goes_on.wait()
            await (peer.send(SSE_HEAD, *END) if path == CHAT else peer.answer("200 OK", b"{}", JSON_TYPE))

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream, keys=KEYS, lane=("/v1/rerank",), max_connections=1, pool_wait=60)

    async def ask(key: str, text: str) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True}
        assert (await gateway.ask("POST", path, body, {"x-api-key": key})).status == 200

    waiting = gateway.running.engine.upstreams.waiting
    answers = [asyncio.create_task(ask(ALICE, "of alice"))]
    await until(lambda: asked == ["alice"])
    answers += [asyncio.create_task(ask(ALICE, "of alice")) for _ in range(5)]
    await until(lambda: waiting()["up"] == 5)
    answers.append(asyncio.create_task(ask(BOB, "of bob")))
    await until(lambda: waiting()["up"] == 6)
    goes_on.set()
    await asyncio.gather(*answers)
    assert asked == ["alice", "alice", "bob", "alice", "alice", "alice", "alice"]
