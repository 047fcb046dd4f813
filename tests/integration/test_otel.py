"""Spans and metrics that a receiver of OTLP gets, and what becomes of streams while it fails."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from typing import Any

import pytest
from aiohttp import web

from gai_fast.library.gateway import Gateway as Library
from gai_fast.model.settings import KeySettings, OTelSettings, Secret, key_digest
from gai_fast.net.upstream.http_request import _encode_head
from tests.integration.gateway import CHAT, MESSAGES, NATIVE, QUERY, Net, delta, on_uvloop, settings_for
from tests.integration.test_retry import BUSY, ROLE, SSE_HEAD, Steps, answer, chunk, gateway_for
from tests.otlp import Receiver, read
from tests.waiting import until

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=1,b=2"}


async def receiver_of(net: Net) -> Receiver:
    return await net.stack.enter_async_context(Receiver())


def to(receiver: Receiver, **more: Any) -> OTelSettings:
    return OTelSettings(receiver.url, **{"span_delay": 0.02, "metric_interval": 0.02, **more})


def hexed(data: bytes) -> str:
    return data.hex()


@on_uvloop
async def test_a_request_has_a_server_span_and_each_attempt_a_client_span(net: Net) -> None:
    receiver = await receiver_of(net)
    main = Steps(BUSY, BUSY)
    gateway = await gateway_for(net, main, Steps(answer("Hello")), retries=1, otel=to(receiver))
    body = {"model": "m", "messages": MESSAGES, "stream": True, "max_tokens": 7, "temperature": 0.5, "stop": "END"}
    response = await gateway.ask("POST", CHAT, body, {**TRACED, "x-request-id": "mine"})
    assert response.status == 200
    await until(lambda: len(receiver.spans) == 4)
    (server,) = receiver.servers
    assert (hexed(server.trace_id), hexed(server.parent_span_id), server.trace_state) == (TRACE, SPAN, "a=1,b=2")
    assert server.name == f"POST {CHAT}"
    about = read(server.attributes)
    wanted = {
        "http.request.method": "POST", "url.path": CHAT, "http.route": CHAT, "http.response.status_code": 200,
        "client.address": "127.0.0.1", "gai.request_id": "mine", "url.scheme": "http",
    }  # fmt: skip
    assert {name: about[name] for name in wanted} == wanted
    assert [event.name for event in server.events] == ["retry", "fallback", "first_token"]
    first, second, third = receiver.clients
    for span in (first, second, third):
        assert (hexed(span.trace_id), span.parent_span_id) == (TRACE, server.span_id)
        assert server.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
    assert [span.name for span in receiver.clients] == ["chat mock", "chat mock", "chat mock-2"]
    assert [[event.name for event in span.events] for span in receiver.clients] == [
        [], ["retry"], ["fallback", "first_token"],
    ]  # fmt: skip
    assert [span.status.code for span in receiver.clients] == [2, 2, 0]
    assert read(first.attributes)["error.type"] == "provider_unavailable"
    about = read(third.attributes)
    wanted = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai-compatible", "gen_ai.request.model": "mock-2",
        "gen_ai.request.stream": True, "gen_ai.request.max_tokens": 7, "gen_ai.request.temperature": 0.5,
        "gen_ai.request.stop_sequences": ["END"], "gen_ai.response.finish_reasons": ["stop"],
        "server.address": "127.0.0.1", "gai.upstream": "spare",
    }  # fmt: skip
    assert {name: about[name] for name in wanted} == wanted
    assert about["gen_ai.usage.output_tokens"] > 0
    assert about["gen_ai.response.time_to_first_chunk"] > 0
    assert about["gen_ai.response.id"] == "c1"
    assert not any("messages" in name for name in about), "no prompt"
    assert receiver.resources[0]["service.name"] == "gai-fast"


@on_uvloop
async def test_the_upstream_gets_the_trace_with_the_id_of_its_attempt(net: Net) -> None:
    receiver = await receiver_of(net)
    heads = []

    async def handle(peer: Any) -> None:
        await peer.request()
        heads.append(peer.head.decode().lower())
        await peer.send(answer("Hi"))

    upstream = await net.upstream(handle)
    gateway = await net.gateway(upstream, otel=to(receiver))
    unsampled = {"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": "x" * 513}
    missed = _encode_head.cache_info().misses
    for headers in (TRACED, unsampled, {}):
        assert (await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"}, headers)).status == 200
    await until(lambda: len(receiver.clients) == 2)
    assert _encode_head.cache_info().misses == missed, "no trace is cached"
    sent = [re.search(r"traceparent: 00-(\w{32})-(\w{16})-(0[01])\r\n", head) for head in heads]
    spans = {(hexed(span.trace_id), hexed(span.span_id)) for span in receiver.clients}
    assert sent[0] is not None
    assert sent[1] is not None
    assert sent[2] is not None
    assert {(sent[0][1], sent[0][2]), (sent[2][1], sent[2][2])} == spans
    assert (sent[0][1], sent[0][3], sent[1][1], sent[1][3]) == (TRACE, "01", TRACE, "00")
    assert SPAN not in (sent[0][2], sent[1][2]), "the parent is the attempt"
    assert sent[2][1] != TRACE
    assert "tracestate: a=1,b=2\r\n" in heads[0]
    assert "tracestate" not in heads[1], "longer than 512 bytes"


@on_uvloop
async def test_without_a_receiver_the_upstream_gets_no_trace(net: Net) -> None:
    heads = []

    async def handle(peer: Any) -> None:
        await peer.request()
        heads.append(peer.head.lower())
        await peer.send(answer("Hi"))

    gateway = await net.gateway(await net.upstream(handle))
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"}, TRACED)
    assert response.events[0]["trace_id"] == TRACE
    assert b"traceparent" not in heads[0]


@on_uvloop
async def test_the_events_of_a_traced_stream_have_the_id_of_its_trace(net: Net) -> None:
    receiver = await receiver_of(net)
    gateway = await net.gateway(await net.mock(deltas=1), otel=to(receiver))
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    await until(lambda: len(receiver.spans) == 2)
    assert response.events[0]["trace_id"] == hexed(receiver.spans[0].trace_id)


@on_uvloop
async def test_metrics_have_the_bounds_and_attributes_of_the_conventions(net: Net) -> None:
    receiver = await receiver_of(net)
    gateway = await gateway_for(net, Steps(BUSY), Steps(answer("Hello")), retries=0, otel=to(receiver, sample=0.0))
    for _ in range(3):
        await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    await gateway.ask("POST", NATIVE, {**QUERY, "model": "up/made-up"})

    def counts(name: str) -> dict[tuple[Any, ...], int]:
        points = [(read(point.attributes), point.count) for point in receiver.points.get(f"gen_ai.client.{name}", [])]
        names = ("gen_ai.request.model", "error.type", "gen_ai.token.type")
        return {tuple(about.get(each) for each in names): count for about, count in points}

    await until(lambda: sum(counts("operation.duration").values()) == 7)
    assert counts("operation.duration") == {
        ("mock", "provider_unavailable", None): 3,
        ("mock-2", None, None): 3,
        ("_OTHER", "provider_unavailable", None): 1,
    }
    await until(lambda: sum(counts("operation.time_to_first_chunk").values()) == 3)
    assert counts("token.usage") == {("mock-2", None, "input"): 3, ("mock-2", None, "output"): 3}
    (point,) = receiver.points["gen_ai.client.operation.time_to_first_chunk"]
    assert list(point.explicit_bounds) == pytest.approx([0.01 * 2**power for power in range(14)])
    (point, _) = receiver.points["gen_ai.client.token.usage"]
    assert list(point.explicit_bounds) == [4.0**power for power in range(14)]
    assert sum(point.bucket_counts) == point.count
    assert receiver.spans == [], "nothing is sampled"


@on_uvloop
async def test_a_refused_request_has_a_server_span_and_operations_have_none(net: Net) -> None:
    receiver = await receiver_of(net)
    gateway = await net.gateway(await net.mock(), otel=to(receiver))
    assert (await gateway.ask("GET", "/healthz")).status == 200
    assert (await gateway.ask("POST", NATIVE, {**QUERY, "model": "none"})).status == 404
    assert (await gateway.ask("GET", "/v1/nothing/\udc80?a=secret".encode("utf-8", "replace").decode())).status == 404
    await until(lambda: len(receiver.spans) == 2)
    about = [read(span.attributes) for span in receiver.servers]
    assert [each["error.type"] for each in about] == ["not_found"] * 2
    assert [span.name for span in receiver.servers] == [f"POST {NATIVE}", "GET other"]
    assert about[1]["url.path"].startswith("/v1/nothing/")
    assert "secret" not in str(about)
    assert [span.status.code for span in receiver.servers] == [0, 0], "a client's fault"


@on_uvloop
async def test_a_resumed_answer_says_so(net: Net) -> None:
    receiver = await receiver_of(net)
    broken = SSE_HEAD + b"".join(map(chunk, (ROLE, delta("Hel"))))
    main = Steps(broken, answer("Hello"))
    gateway = await gateway_for(net, main, on_midstream_failure="continue", otel=to(receiver))
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    assert response.events[-1]["type"] == "done"
    await until(lambda: len(receiver.clients) == 2)
    first, second = receiver.clients
    assert [event.name for event in first.events] == ["first_token"]
    assert [event.name for event in second.events] == ["retry", "resume"]


@on_uvloop
async def test_a_client_that_comes_back_to_a_stream_has_a_span_that_says_so(net: Net) -> None:
    receiver = await receiver_of(net)
    gateway = await net.gateway(await net.mock(deltas=3), otel=to(receiver))
    first = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m", "resumable": True})
    stream_id = first.headers["x-gai-stream-id"]
    path = f"/api/v1/streams/{stream_id}"
    again = await gateway.ask("GET", path, None, {"last-event-id": f"{stream_id}.2"})
    assert again.status == 200
    await until(lambda: len(receiver.spans) == 3)
    server = receiver.servers[1]
    assert server.name == "GET /api/v1/streams/{}"
    (event,) = server.events
    assert (event.name, read(event.attributes)) == ("resume", {"gai.stream_id": stream_id, "gai.after": 2})


@on_uvloop
async def test_prompts_are_exported_only_where_that_is_asked_for(net: Net) -> None:
    for content in (False, True):
        receiver = await receiver_of(net)
        gateway = await net.gateway(await net.mock(deltas=1), otel=to(receiver, content=content))
        await gateway.ask("POST", NATIVE, {"model": "m", "system": "canary-1", "query": "canary-2"})
        chat = [{"role": "user", "content": "canary-3"}]
        await gateway.ask("POST", CHAT, {"model": "m", "messages": chat, "stream": True})
        await until(lambda receiver=receiver: len(receiver.spans) == 4)
        exported = str([read(span.attributes) for span in receiver.spans])
        assert all((f"canary-{number}" in exported) is content for number in (1, 2, 3))
        answers = [read(each.attributes).get("gen_ai.output.messages") for each in receiver.clients]
        if content:
            for answer in answers:
                (message,) = json.loads(answer)
                assert message["parts"][-1]["type"] == "text"
                assert message["finish_reason"] == "stop"
        else:
            assert answers == [None, None]


@on_uvloop
async def test_the_receiver_gets_its_headers_and_nobody_else_sees_them(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = await receiver_of(net)
    otel = to(receiver, headers={"authorization": Secret("Bearer canary")}, resource={"service.name": "mine"})
    gateway = await net.gateway(await net.mock(deltas=1), otel=otel)
    await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    await until(lambda: receiver.spans)
    assert receiver.headers[0]["authorization"] == "Bearer canary"
    assert receiver.headers[0]["content-type"] == "application/json"
    assert receiver.resources[0]["service.name"] == "mine"
    assert "canary" not in caplog.text
    assert "canary" not in repr(otel)


@on_uvloop
async def test_a_program_in_this_process_has_client_spans(net: Net) -> None:
    receiver = await receiver_of(net)
    url = (await net.upstream(Steps(answer("Hello")))).url
    async with (
        Library(settings_for(url, otel=to(receiver))) as library,
        library.stream({"model": "m", "query": "hi"}) as stream,
    ):
        assert (await stream.result()).text == "Hello"
    await until(lambda: receiver.clients)
    (span,) = receiver.clients
    assert span.parent_span_id == b""
    assert receiver.servers == []


# ---- a receiver that fails -------------------------------------------------------------------------------------------


async def hang(_: web.Request) -> web.StreamResponse | None:
    await asyncio.sleep(3600)
    return None


async def garbage(request: web.Request) -> web.StreamResponse | None:
    assert request.transport is not None
    request.transport.write(b"\x00\xff garbage\r\n\r\n")
    request.transport.close()
    return None


async def refuse(_: web.Request) -> web.StreamResponse | None:
    return web.Response(status=400, text="x" * 100_000)


async def busy(_: web.Request) -> web.StreamResponse | None:
    return web.Response(status=503, headers={"retry-after": "3600"})


async def redirect(_: web.Request) -> web.StreamResponse | None:
    return web.Response(status=302, headers={"location": "http://127.0.0.1:1/"})


@pytest.mark.parametrize("failure", [hang, garbage, refuse, busy, redirect])
@on_uvloop
async def test_a_receiver_that_fails_harms_no_stream_and_no_end(
    net: Net, caplog: pytest.LogCaptureFixture, failure: Any
) -> None:
    receiver = await receiver_of(net)
    receiver.answer = failure
    gateway = await net.gateway(await net.mock(deltas=2), otel=to(receiver))
    for _ in range(20):
        assert (await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})).status == 200
    await until(lambda: receiver.requests)
    if failure is not hang:  # which becomes known after `limits.otel_request`
        await until(lambda: "cannot be exported" in caplog.text)
    began = time.monotonic()
    await gateway.running.close()
    assert time.monotonic() - began < 10, "a machine that stands still"
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING and "otel" in record.name]
    assert len(warnings) == (failure is not hang)
    net.logged.clear()


@on_uvloop
async def test_spans_that_the_receiver_could_not_take_come_later(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gai_fast.otel")
    receiver = await receiver_of(net)
    refused = []

    async def first_busy(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/v1/traces" and len(refused) < 2:
            refused.append(request.path)
            return web.Response(status=429, headers={"retry-after": "0"})
        return None

    receiver.answer = first_busy
    gateway = await net.gateway(await net.mock(deltas=2), otel=to(receiver, metric_interval=3600.0))
    await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    await until(lambda: len(receiver.spans) == 2)
    await until(lambda: "again: 0 spans were lost" in caplog.text)
    assert len(refused) == 2
    net.logged.clear()


@on_uvloop
async def test_the_last_spans_are_sent_at_the_end(net: Net) -> None:
    receiver = await receiver_of(net)
    otel = to(receiver, span_delay=3600.0, metric_interval=3600.0)
    gateway = await net.gateway(await net.mock(deltas=2), otel=otel)
    await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"})
    await gateway.running.close()
    assert len(receiver.spans) == 2
    assert "gen_ai.client.operation.duration" in receiver.points


@on_uvloop
@pytest.mark.parametrize("fast_lane", ["auto", "off"])
async def test_the_sampled_flag_of_an_admitted_caller_counts_and_a_strangers_does_not(net: Net, fast_lane: str) -> None:
    """`sample = 0`: only what a caller samples is exported."""
    receiver = await receiver_of(net)
    key = KeySettings("alice", (key_digest("sk-alice-0123456789"),))
    gateway = await net.gateway(
        await net.mock(deltas=2), keys=(key,), otel=to(receiver, sample=0.0), fast_lane=fast_lane
    )
    for headers in ({}, {"x-api-key": "sk-wrong-0123456789"}, {"host": "a b", "x-api-key": "sk-alice-0123456789"}):
        for path in (CHAT, "/v1/nothing"):
            body = {"model": "m", "messages": MESSAGES}
            assert (await gateway.ask("POST", path, body, {**TRACED, **headers})).status in (400, 401)
    body, allowed = {"model": "none", "messages": MESSAGES}, {**TRACED, "x-api-key": "sk-alice-0123456789"}
    assert (await gateway.ask("POST", CHAT, body, allowed)).status == 404
    await until(lambda: receiver.servers)
    (server,) = receiver.servers
    assert (hexed(server.trace_id), read(server.attributes)["http.response.status_code"]) == (TRACE, 404)
