"""Every route and every refusal, byte for byte, over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from gai_fast import IMPLEMENTATION, __version__
from gai_fast.model.settings import KeySettings, key_digest
from tests.conftest import ChangeLimits
from tests.integration.gateway import (
    MESSAGES,
    QUERY,
    Client,
    Gateway,
    Net,
    Response,
    joined,
    on_both_loops,
    on_uvloop,
    request_bytes,
)
from tests.limits import LIMITS
from tests.waiting import SECONDS, until

ROUTES = {
    "/": "GET, HEAD, OPTIONS",
    "/healthz": "GET, HEAD, OPTIONS",
    "/health": "GET, HEAD, OPTIONS",
    "/readyz": "GET, HEAD, OPTIONS",
    "/version": "GET, HEAD, OPTIONS",
    "/v1/models": "GET, HEAD, OPTIONS",
    "/v1/models/m": "GET, HEAD, OPTIONS",
    "/playground/app.js": "GET, HEAD, OPTIONS",
    "/v1/chat/completions": "OPTIONS, POST",
    "/api/v1/stream": "GET, OPTIONS, POST",
    "/api/v1/streams": "OPTIONS, POST",
    "/api/v1/streams/AAAAAAAAAAAAAAAAAAAAAA": "DELETE, GET, HEAD, OPTIONS",
    "/api/v1/chat": "OPTIONS, POST",
    "/api/v1/chat/c/stream": "GET, OPTIONS",
    "/v1/messages": "OPTIONS, POST",
    "/v1/messages/count_tokens": "OPTIONS, POST",
    "/v1/responses": "GET, OPTIONS, POST",
    "/v1/responses/resp_AAAAAAAAAAAAAAAAAAAAAA": "DELETE, GET, OPTIONS",
    "/v1/responses/resp_AAAAAAAAAAAAAAAAAAAAAA/input_items": "GET, OPTIONS",
    "/v1/responses/resp_AAAAAAAAAAAAAAAAAAAAAA/cancel": "OPTIONS, POST",
    "/v1/completions": "OPTIONS, POST",
    "/client.js": "GET, HEAD, OPTIONS",
    "/gai.proto": "GET, HEAD, OPTIONS",
    "/ws/stream": "GET, OPTIONS",
}
METHODS = "GET HEAD POST PUT PATCH DELETE TRACE".split()
CANARY = "canary77"
CHAT = {"model": "m", "messages": MESSAGES}
CONTENT = "text/event-stream; charset=utf-8"
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def assert_refused(response: Response, status: int, code: str, reason: str | None) -> None:
    """A native error, whole, with the headers that go with it."""
    assert response.ended
    assert response.status == status, response.body
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-should-retry"] == str(response.error["temporary"]).lower()
    assert response.error["code"] == code
    assert response.error.get("reason") == reason, response.error
    assert "phase" not in response.error
    assert response.error["request_id"] == response.headers["x-request-id"] == response.headers["request-id"]
    assert CANARY.encode() not in response.body
    parsedate_to_datetime(response.headers["date"])


# ---- routes ----------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_route_takes_its_methods_and_no_other(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    client = await gateway.connect()
    for path, allowed in ROUTES.items():
        for method in METHODS:
            if method in allowed.split(", "):
                continue
            response = await client.ask(method, path)
            assert response.headers["allow"] == allowed, (method, path)
            assert response.status == 405
            if method != "HEAD" and not path.startswith("/v1/"):
                assert_refused(response, 405, "invalid_request", "method")
        response = await client.ask("OPTIONS", path)
        assert (response.status, response.headers["allow"], response.body) == (204, allowed, b"")
    assert (await client.ask("OPTIONS", "*")).status == 204


@on_uvloop
async def test_every_route_but_those_of_the_operation_needs_a_key(net: Net) -> None:
    gateway = await net.gateway(await net.mock(), keys=(KeySettings("alice", (key_digest("sk-alice-012345"),)),))
    for path, allowed in ROUTES.items():
        is_open = not path.startswith(("/api/", "/v1/", "/ws/"))
        for method in ("GET", "POST", "DELETE"):
            if method in allowed and not is_open:
                response = await gateway.ask(method, path, b"{}" if method == "POST" else None)
                assert response.status == 401, (method, path)
        response = await gateway.ask("OPTIONS", path)
        assert response.status == (204 if is_open else 401)


@on_uvloop
async def test_a_path_that_is_none_of_ours_is_not_found_whatever_it_resembles(net: Net) -> None:
    gateway = await net.gateway()
    client = await gateway.connect()
    for path in (
        *("/nothing", "/healthz/", "/Healthz", "//healthz", "/healthz.", "/healthz%20", "/%68ealthz", "/healthz;a"),
        *("/api/../healthz", "/api/%2e%2e/healthz", "/./healthz", "/healthz%00", "/healthz%c0%af", "/healthz#a"),
        *(
            "/api/v1/stream/",
            "/api",
            "/playground",
            "/playground/",
            "/playground/../app.py",
            "/playground/%2e%2e/app.py",
        ),
        *("/metrics/", "/openapi.yaml", "/a://b", "/" + "a" * 8000),
    ):
        assert_refused(await client.ask("GET", path), 404, "not_found", "route")
    for path in ("/v1/batches", "/v1/", "/v1/models/nobody", "/v1//models"):
        response = await client.ask("GET", path)
        assert response.status == 404
        assert response.error.keys() == {"message", "type", "param", "code"}
        assert response.error["code"] == "not_found"


@on_uvloop
async def test_under_v1_every_refusal_has_the_openai_shape(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    path = "/v1/chat/completions"
    for (method, body, headers), (status, code, kind) in {
        ("PUT", None, ()): (405, "invalid_request", "invalid_request_error"),
        ("POST", b"{}", (("content-type", "text/plain"),)): (415, "invalid_request", "invalid_request_error"),
        ("POST", b"{", ()): (400, "invalid_request", "invalid_request_error"),
        ("POST", None, (("host", "evil.example"),)): (403, "forbidden", "permission_error"),
        ("POST", b'{"model":"x"}', ()): (404, "not_found", "invalid_request_error"),
    }.items():
        response = await gateway.ask(method, path, body, dict(headers))
        assert response.status == status, response.body
        assert response.error.keys() == {"message", "type", "param", "code"}
        assert (response.error["code"], response.error["type"]) == (code, kind)
        assert response.headers["x-should-retry"] == "false"
        assert UUID7.fullmatch(response.headers["x-request-id"])


@on_both_loops
async def test_head_is_get_without_its_body(net: Net) -> None:
    gateway = await net.gateway()
    client = await gateway.connect()
    for path in ("/", "/healthz", "/v1/models", "/playground/style.css", "/nothing"):
        whole = await client.ask("GET", path)
        client.request("HEAD", path)
        head = await client.response()
        assert head.status == whole.status
        if whole.status == 200:
            assert head.headers["content-length"] == str(len(whole.body))
            assert head.headers.keys() == whole.headers.keys()
    assert await client.is_open()


@on_uvloop
async def test_a_head_that_is_refused_early_has_no_body_either(net: Net) -> None:
    """Defect A17."""
    gateway = await net.gateway()
    for path, headers in (("/healthz", "Host: evil.example"), ("/nothing", f"Host: {gateway.host}")):
        client = await gateway.connect()
        client.send(f"HEAD {path} HTTP/1.1\r\n{headers}\r\nContent-Length: 99\r\n\r\n".encode())
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.split(b" ")[1] in (b"403", b"404")
        assert await client.reader.read() == b""


@on_uvloop
async def test_operations_say_what_runs(net: Net) -> None:
    gateway = await net.gateway(await net.mock(), demo=True)
    client = await gateway.connect()
    for path in ("/healthz", "/health"):
        assert (await client.ask("GET", path)).json == {"status": "ok"}
    ready = await client.ask("GET", "/readyz")
    assert ready.json == {"status": "ready", "upstreams": ["up", "anthropic", "native", "demo"], "durability": "memory"}
    version = await client.ask("GET", "/version")
    assert (version.json["version"], version.json["implementation"]) == (__version__, IMPLEMENTATION)
    assert version.headers["cache-control"] == "no-store"
    models = (await client.ask("GET", "/v1/models")).json
    assert [model["id"] for model in models["data"]] == ["m", "claude", "demo"]
    assert (models["object"], models["has_more"]) == ("list", False)
    assert (models["first_id"], models["last_id"]) == ("m", "demo")
    assert {"id", "object", "created", "owned_by", "type", "display_name", "created_at"} == models["data"][0].keys()
    assert (await client.ask("GET", "/v1/models/claude")).json == models["data"][1]
    assert (await client.ask("GET", "/v1/models/up%2Fsome%2Fid")).json["id"] == "up/some/id"
    assert (await client.ask("GET", "/v1/models/up/some/id")).json["owned_by"] == "up"


@on_uvloop
async def test_the_playground_needs_nothing_from_elsewhere(net: Net) -> None:
    gateway = await net.gateway()
    client = await gateway.connect()
    index = await client.ask("GET", "/")
    names = re.findall(r'(?:src|href)="(/?playground/[^"]+)"', index.body.decode())
    assert names
    for name in ("", *names):
        asset = await client.ask("GET", f"/{name.lstrip('/')}")
        assert asset.status == 200
        assert "default-src 'none'" in asset.headers["content-security-policy"]
        assert "unsafe" not in asset.headers["content-security-policy"]
        assert asset.headers["x-content-type-options"] == "nosniff"
        found = re.findall(rb"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", asset.body)
        assert [url for url in found if b"w3.org" not in url] == [], name


@on_uvloop
async def test_an_unknown_format_is_unsupported(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    assert_refused(await gateway.ask("POST", "/api/v1/stream?format=nonsense", QUERY), 400, "unsupported", "format")


# ---- streams ---------------------------------------------------------------------------------------------------------


@on_uvloop
async def test_a_native_stream_in_every_format_and_framing(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=5))
    client = await gateway.connect()
    texts = set()
    for query, accept, kind in (
        ("", "", CONTENT),
        ("", "text/event-stream", CONTENT),
        ("", "application/json", CONTENT),
        ("", "application/x-ndjson", "application/x-ndjson"),
        ("?framing=ndjson", "text/event-stream", "application/x-ndjson"),
        ("?framing=sse", "application/x-ndjson", CONTENT),
        ("?envelope=full", "", CONTENT),
    ):
        response = await client.ask("POST", f"/api/v1/stream{query}", {**QUERY, "model": "m"}, {"accept": accept})
        assert response.headers["content-type"] == kind
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-cache, no-store, no-transform"
        assert re.fullmatch(r"[A-Za-z0-9_-]{22}", response.headers["x-gai-stream-id"])
        assert response.types == ["start", *["text.delta"] * 5, "finish", "done"]
        start = response.events[0]
        assert start["stream_id"] == response.headers["x-gai-stream-id"]
        assert start["request_id"] == response.headers["x-request-id"] == response.headers["request-id"]
        full = kind != CONTENT or "full" in query
        assert "schema" in start
        assert all(("schema" in event) == ("ts" in event) == full for event in response.events[1:-1])
        assert [event.get("seq") for event in response.events] == [*range(1, 8), None]
        assert b"id: " not in response.body
        assert response.events[-2]["usage"]["output_tokens"] == 5
        texts.add(response.text)
    assert len(texts) == 1
    text = texts.pop()
    response = await client.ask("POST", "/api/v1/stream?format=openai", {**QUERY, "model": "m"})
    assert response.data[-1] == "[DONE]"
    assert joined(response.events) == text
    response = await client.ask("POST", "/api/v1/stream?format=openai&framing=ndjson", {**QUERY, "model": "m"})
    assert joined(response.events) == text
    response = await client.ask("POST", "/api/v1/stream?format=simple", {**QUERY, "model": "m"})
    assert "".join(piece["content"] for piece in response.events) == text
    assert response.body.endswith(b"data: [DONE]\n\n")
    assert (await client.ask("POST", "/api/v1/stream", QUERY, {"accept": "image/png"})).status == 406


@on_uvloop
async def test_an_answer_that_is_no_stream_is_one_json_object(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=5))
    client = await gateway.connect()
    for model in ("m", "claude"):
        body = {**QUERY, "model": model, "stream": False}
        response = await client.ask("POST", "/api/v1/stream", body, {"accept": "image/png"})
        assert response.headers["content-type"] == "application/json"
        assert [*response.json] == (
            "id request_id provider model message text reasoning refusal tool_calls citations finish_reason "
            "finish_reason_raw usage metrics"
        ).split()
        assert response.json["id"] == response.headers["x-gai-stream-id"]
        assert response.json["request_id"] == response.headers["x-request-id"]
        assert response.json["message"]["content"][0]["text"] == response.json["text"]
        body = {"messages": [{"role": "user", "content": "hi"}, response.json["message"]], "query": "and?"}
        assert (await client.ask("POST", "/api/v1/stream", {**body, "model": model})).types[-1] == "done"


@on_uvloop
async def test_timestamps_and_the_envelope_follow_the_configuration(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=2), timestamps=True)
    response = await gateway.ask("POST", "/api/v1/stream", {**QUERY, "model": "m"})
    assert ["ts" in event for event in response.events] == [True, True, True, True, False]
    gateway = await net.gateway(await net.mock(deltas=2), envelope="compact")
    response = await gateway.ask("POST", "/api/v1/stream?framing=ndjson", {**QUERY, "model": "m"})
    assert ["schema" in event for event in response.events] == [True, False, False, False, False]


@on_both_loops
async def test_an_event_source_starts_the_demo_and_never_generates_again(net: Net) -> None:
    mock = await net.mock(deltas=2)
    gateway = await net.gateway(mock, demo=True, allow_get_start=True)
    client = await gateway.connect()
    response = await client.ask("GET", "/api/v1/stream?q=Hello%20%C3%A9&model=m")
    name = response.headers["x-gai-stream-id"]
    assert re.findall(rb"^id: (.*)$", response.body, re.M) == [f"{name}.{n}".encode() for n in range(1, 5)]
    assert response.body.count(b"retry: ") == 1
    first = response.body.split(b"\n\n")[0].split(b"\n")
    assert [line.partition(b": ")[0] for line in first] == [b"event", b"id", b"retry", b"data"]
    assert response.types[-2:] == ["finish", "done"]
    assert json.loads(mock.requests[0].raw)["messages"][-1]["content"] == "Hello é"
    again = await client.ask("GET", "/api/v1/stream?q=Hello&model=m", headers={"last-event-id": f"{name}.4"})
    assert (again.status, again.body) == (204, b"")
    assert "content-length" not in again.headers
    assert len(mock.requests) == 1
    assert (await client.ask("GET", "/api/v1/stream")).error["reason"] == "query"
    assert (await client.ask("GET", "/api/v1/stream?q=")).error["reason"] == "query"
    foreign = await client.ask("GET", "/api/v1/stream?q=a&model=m", headers={"origin": "https://evil.example"})
    assert_refused(foreign, 403, "forbidden", "origin")
    own = await client.ask("GET", "/api/v1/stream?q=a&model=m", headers={"origin": f"http://{gateway.host}"})
    assert own.status == 200

    gateway = await net.gateway(mock, demo=True)
    assert_refused(await gateway.ask("GET", "/api/v1/stream?q=a&model=m"), 403, "forbidden", "get_start")
    client = await gateway.connect()
    client.request("GET", "/api/v1/stream?q=a&model=demo")
    response = await client.response()
    await response.until(b"text.delta")
    assert response.events[0]["provider"] == "demo"


@on_uvloop
async def test_the_body_may_name_the_request_and_a_header_wins(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1))
    body = {**QUERY, "model": "m", "request_id": "from-body"}
    for header, expected in (({}, "from-body"), ({"x-request-id": "from-header"}, "from-header")):
        response = await gateway.ask("POST", "/api/v1/stream", body, header)
        assert response.headers["x-request-id"] == response.events[0]["request_id"] == expected
    failed = await gateway.ask("POST", "/api/v1/stream", {**body, "model": "nobody"})
    assert failed.error["request_id"] == failed.headers["x-request-id"] == "from-body"
    for unfit in ("a" * 129, "a b", "ä", ""):
        response = await gateway.ask("POST", "/api/v1/stream", {**QUERY, "model": "m", "request_id": unfit})
        assert UUID7.fullmatch(response.headers["x-request-id"])
        response = await gateway.ask("GET", "/healthz", headers={"x-request-id": unfit.replace("ä", "(")})
        assert UUID7.fullmatch(response.headers["x-request-id"])
    longest = "a" * LIMITS.identifier
    assert (await gateway.ask("GET", "/healthz", headers={"x-request-id": longest})).headers["request-id"] == longest
    response = await gateway.ask("POST", "/api/v1/stream", {**QUERY, "model": "m"}, {"traceparent": TRACEPARENT})
    assert response.events[0]["trace_id"] == TRACEPARENT.split("-")[1]
    assert "trace_id" not in response.events[1]


@on_both_loops
async def test_two_hundred_streams_at_once_complete(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=20, rate=200))

    async def one(number: int) -> None:
        model = ("m", "claude")[number % 2]
        response = await gateway.ask("POST", "/api/v1/stream", {**QUERY, "model": model})
        assert response.types == ["start", *["text.delta"] * 20, "finish", "done"]
        assert response.ended

    await asyncio.gather(*map(one, range(200)))


@on_both_loops
async def test_an_upstream_connection_is_used_again_after_a_stream(net: Net) -> None:
    mock = await net.mock(deltas=3)
    gateway = await net.gateway(mock)
    client = await gateway.connect()
    for _ in range(10):
        assert (await client.ask("POST", "/api/v1/stream", {**QUERY, "model": "m"})).types[-1] == "done"
        (pool,) = gateway.running.engine.upstreams._pools.values()
        # The end of the response's framing may come after its last event.
        await until(lambda pool=pool: pool.stats.open == pool.stats.idle)
    assert mock.connections == 1


# ---- cancel ----------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_delete_cancels_a_stream_and_tells_its_follower(net: Net) -> None:
    mock = await net.mock(rate=20, deltas=1000)
    gateway = await net.gateway(mock)
    for path, body in (
        ("/api/v1/stream", {**QUERY, "model": "m"}),
        ("/api/v1/stream", {**QUERY, "model": "claude"}),
        ("/v1/chat/completions", {**CHAT, "stream": True}),
    ):
        _, response = await gateway.stream(body, path)
        url = f"/api/v1/streams/{response.headers['x-gai-stream-id']}"
        await response.until(b"upon")
        result = await gateway.ask("DELETE", url)
        assert (result.status, result.json) == (202, {"id": url.rpartition("/")[2], "state": "cancelled"})
        await response.rest()
        assert response.ended
        if path == "/api/v1/stream":
            finish, done = response.events[-2:]
            assert finish["finish_reason"] == "cancelled"
            assert finish["usage"]["source"] == "partial"
            assert done == {"type": "done", "finished": True}
        else:
            assert response.data[-1] == "[DONE]"
            assert response.events[-1]["x_gai"]["finish_reason"] == "cancelled"
        await asyncio.wait_for(mock.requests[-1].closed.wait(), SECONDS)
        assert_refused(await gateway.ask("DELETE", url), 404, "not_found", "stream")
    for unknown in ("A" * 22, "x", "..", "%00", "a/b", "A" * 3000):
        assert_refused(await gateway.ask("DELETE", f"/api/v1/streams/{unknown}"), 404, "not_found", "stream")


@on_both_loops
async def test_a_stream_without_an_event_yet_and_one_json_answer_can_be_cancelled(net: Net) -> None:
    mock = await net.mock(ttft=60)
    gateway = await net.gateway(mock)
    for asked, stream in enumerate((True, False), 1):
        client = await gateway.connect()
        client.request("POST", "/api/v1/stream", {**QUERY, "model": "m", "stream": stream})
        await until(lambda asked=asked: gateway.streams and len(mock.requests) == asked)
        (name,) = gateway.running.engine.streams
        assert (await gateway.ask("DELETE", f"/api/v1/streams/{name}")).status == 202
        response = await (await client.response()).rest()
        if stream:
            assert response.types == ["start", "finish", "done"]
        else:
            assert response.json["finish_reason"] == "cancelled"
        await asyncio.wait_for(mock.requests[-1].closed.wait(), SECONDS)


# ---- requests that cannot be read ------------------------------------------------------------------------------------

GARBAGE: dict[str, tuple[bytes, int, str]] = {
    "garbage": (b"canary77\x01\x02\r\n\r\n", 400, "http"),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03canary77" + b"\x00" * 200, 400, "http"),
    "an HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "http"),
    "a header without a colon": (b"GET / HTTP/1.1\r\nHost: H\r\ncanary77\r\n\r\n", 400, "http"),
    "a header that is a word of our dialect": (b"GET / HTTP/1.1\r\nHost: H\r\ncanary77 : a\r\n\r\n", 400, "http"),
    "a folded header": (b"GET / HTTP/1.1\r\nHost: H\r\nX: a\r\n canary77\r\n\r\n", 400, "http"),
    "a NUL in a header": (b"GET / HTTP/1.1\r\nHost: H\r\nX: canary77\x00\r\n\r\n", 400, "http"),
    "no Host": (b"GET /canary77 HTTP/1.1\r\n\r\n", 400, "host"),
    "two Hosts": (b"GET /canary77 HTTP/1.1\r\nHost: H\r\nHost: H\r\n\r\n", 400, "host"),
    "a bare LF": (b"GET /canary77 HTTP/1.1\nHost: H\r\n\r\n", 400, "http"),
    "a lower-case method": (b"get /canary77 HTTP/1.1\r\nHost: H\r\n\r\n", 400, "http"),
    "an unknown method": (b"CANARY77 / HTTP/1.1\r\nHost: H\r\n\r\n", 400, "http"),
    "CONNECT": (b"CONNECT canary77:443 HTTP/1.1\r\nHost: H\r\n\r\n", 400, "http"),
    "a target of another scheme": (b"GET ftp://canary77/ HTTP/1.1\r\nHost: H\r\n\r\n", 400, "http"),
    "HTTP/2.0": (b"GET /canary77 HTTP/2.0\r\nHost: H\r\n\r\n", 505, "http_version"),
    "HTTP/1.2": (b"GET /canary77 HTTP/1.2\r\nHost: H\r\n\r\n", 400, "http"),
    "HTTP/0.9": (b"GET /canary77 HTTP/0.9\r\nHost: H\r\n\r\n", 505, "http_version"),
    "a long target": (b"GET /canary77" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: H\r\n\r\n", 414, "uri_too_long"),
    "a long header": (
        b"GET / HTTP/1.1\r\nHost: H\r\nX: canary77" + b"a" * 9000 + b"\r\n\r\n",
        431,
        "headers_too_large",
    ),
    "many headers": (
        b"GET / HTTP/1.1\r\nHost: H\r\n" + b"X: canary77\r\n" * 200 + b"\r\n",
        431,
        "headers_too_large",
    ),
    "both lengths": (
        b"POST /api/v1/stream HTTP/1.1\r\nHost: H\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "http",
    ),
    "two lengths": (
        b"POST /api/v1/stream HTTP/1.1\r\nHost: H\r\nContent-Length: 8\r\nContent-Length: 9\r\n\r\n",
        400,
        "http",
    ),
    **{
        f"the length {value!r}": (
            b"POST /canary77 HTTP/1.1\r\nHost: H\r\nContent-Length: %b\r\n\r\n12345" % value.encode(),
            400,
            "http",
        )
        for value in ("+5", "-1", "5,5", "0x5", "5 5", "5_", "", "1e1", "99999999999999999999999")
    },
    **{
        f"the coding {value!r}": (
            b"POST /canary77 HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: %b\r\n\r\n0\r\n\r\n" % value.encode(),
            400,
            "http",
        )
        for value in ("", "xchunked", "gzip", "identity", "chunked, identity", "chunked, chunked", "\x0bchunked")
    },
    **{
        f"the Host {value!r}": (b"GET /canary77 HTTP/1.1\r\nHost: %b\r\n\r\n" % value.encode(), 400, "host")
        for value in ("", "a@127.0.0.1", "127.0.0.1/x", "127.0.0.1:99999", "127.0.0.1:x", "[::1", "::1", "a,b", "a b")
    },
}


async def assert_one_refusal(client: Client, status: int, reason: str) -> None:
    response = await (await client.response()).rest()
    assert_refused(response, status, "invalid_request", reason)
    assert response.headers["connection"] == "close"
    assert UUID7.fullmatch(response.headers["x-request-id"])
    assert await client.is_closed()


@on_both_loops
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "bytes"])
async def test_a_request_that_cannot_be_read_is_refused_in_json_without_a_word_of_it(
    net: Net, whole: bool, change_limits: ChangeLimits
) -> None:
    change_limits(lingering=SECONDS)  # all clients at once take long to send the rest, which is read
    gateway = await net.gateway(await net.mock())

    async def one(name: str, data: bytes, status: int, reason: str) -> None:
        data = data.replace(b"Host: H\r\n", f"Host: {gateway.host}\r\n".encode())
        client = await gateway.connect()
        if whole:
            client.send(data)
        else:
            with suppress(ConnectionError):  # refused before the last byte
                await client.send_in_pieces(data, 1 + len(data) // 10_000)
        try:
            await assert_one_refusal(client, status, reason)
        except (AssertionError, ConnectionError, EOFError, TimeoutError) as problem:
            raise AssertionError(f"{name}: {problem!r}") from problem

    await asyncio.gather(*(one(name, *case) for name, case in GARBAGE.items()))


@on_both_loops
async def test_a_body_that_cannot_be_read_is_refused_once_and_at_once(net: Net) -> None:
    mock = await net.mock()
    gateway = await net.gateway(mock)
    head = b"POST /api/v1/stream HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n" % gateway.host.encode()
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    for body in (
        *(b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"1_0\r\n", b"fffffffffffffffff\r\n", b"1;\n\r\n", b" 1\r\n", b"\r\n"),
        *(b"2\r\n{}\n", b"2\r\n{}x\r\n0\r\n\r\n", b"2\r\n{}\r\n0\r\nbroken\r\n\r\n"),
        b"2\r\n{}\r\n0\r\n" + b"X-Trailer: a\r\n" * 200 + b"\r\n",
        b"2\r\n{}\r\n0\r\n" + b"X-Trailer: " + b"a" * 2_000_000,
    ):
        for at_once in (True, False):
            client = await gateway.connect()
            if at_once:
                client.send(head + body)
            else:
                client.send(head)
                await asyncio.sleep(0.01)
                client.send(body)
            response = await (await client.response()).rest()
            assert response.status in (400, 431), body[:50]
            assert response.error["code"] == "invalid_request"
            assert response.headers["connection"] == "close"
            assert await client.is_closed(), body[:50]
    assert mock.requests == []


@on_uvloop
async def test_a_foreign_host_is_forbidden_and_a_configured_one_served(net: Net) -> None:
    gateway = await net.gateway(allowed_hosts=("gai.example", "Other.example:81"))
    for host in (
        "evil.example",
        "evil.example:81",
        "127.0.0.1.evil.example",
        "0.0.0.0",
        "[::2]",
        "10.0.0.1",
    ):
        response = await gateway.ask("GET", "/healthz", headers={"host": host})
        assert_refused(response, 403, "forbidden", "host")
        assert response.headers["connection"] == "close"
    for host in (
        *("127.0.0.1", "127.9.9.9:1", "localhost", "LOCALHOST:99", "localhost.", "app.localhost", "[::1]:80"),
        *("gai.example", "GAI.example:8080", "other.example:81"),
    ):
        assert (await gateway.ask("GET", "/healthz", headers={"host": host})).status == 200, host
    assert (await gateway.ask("GET", "/healthz", headers={"host": "other.example:82"})).status == 403
    client = await gateway.connect()
    # In absolute form the target counts (RFC 9112, 3.2.2).
    for target, status in (("http://localhost/healthz?a=http://b", 200), ("HTTP://127.0.0.1:1/healthz", 200)):
        assert (await client.ask("GET", target, headers={"host": "evil.example"})).status == status
    # An empty path is `/` (RFC 9110, 4.2.3).
    for target in ("http://localhost", "http://localhost?q=a%2fb", "http://127.0.0.1:1/"):
        page = await client.ask("GET", target, headers={"host": "evil.example"})
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8"), target
    for target in ("http://evil.example", "http://evil.example/healthz"):
        refused = await (await gateway.connect()).ask("GET", target)
        assert_refused(refused, 403, "forbidden", "host")


# ---- bodies ----------------------------------------------------------------------------------------------------------


@on_uvloop
async def test_a_body_must_be_json_and_say_so(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1))
    for kind in (
        *(
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=a",
            "application/jsonx",
        ),
        *("application/json; charset=utf-16", "application/json; charset=latin-1"),
    ):
        response = await gateway.ask("POST", "/api/v1/stream", QUERY, {"content-type": kind})
        assert_refused(response, 415, "invalid_request", "content_type")
    for kind in ("application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"', "application/json;"):
        response = await gateway.ask("POST", "/api/v1/stream", {**QUERY, "model": "m"}, {"content-type": kind})
        assert response.status == 200, kind
    for coding in ("gzip", "br", "zstd", "deflate", "gzip, gzip", "identity, gzip"):
        response = await gateway.ask("POST", "/api/v1/stream", QUERY, {"content-encoding": coding})
        assert_refused(response, 415, "invalid_request", "content_encoding")


@on_uvloop
@pytest.mark.parametrize("path", ["/api/v1/stream", "/v1/chat/completions"])
async def test_a_body_that_is_no_request_is_a_400(net: Net, path: str) -> None:
    mock = await net.mock()
    gateway = await net.gateway(mock)
    client = await gateway.connect()
    for body in (
        *(b"", b"null", b"[]", b'"x"', b"1", b'{"a":', b"{} x", b"{}{}", b'{"a":NaN}', b'{"a":01}', b'{"a":.5}'),
        *(b"{'a':1}", b'{"a":1,}', b"\xef\xbb\xbf{}", b'{"model":"\xff"}', b'{"model":"\\ud800"}', b"{}\x00"),
        *("{}".encode("utf-16"), b"[" * 100_000, b'{"a":' * 1000 + b"1" + b"}" * 1000, b'{"model":1e999}'),
        *(b'{"stream":"true"}', b'{"stream":1}', b'{"model":7}', b'{"model":["m"]}'),
    ):
        response = await client.ask("POST", path, body)
        assert response.status == 400, (body[:50], response.body)
        assert response.error["code"] == "invalid_request"
    assert mock.requests == []
    assert await client.is_open()


@on_uvloop
async def test_a_native_request_is_strict_and_models_are_names(net: Net) -> None:
    mock = await net.mock()
    gateway = await net.gateway(mock)
    client = await gateway.connect()
    for more in (
        *({"steam": True}, {"temperature": None}, {"max_tokens": "5"}, {"max_tokens": 0}, {"max_tokens": 1.5}),
        *({"temperature": -1}, {"temperature": 99}, {"top_p": 2}, {"messages": [{"role": "x", "content": ""}]}),
        *({"model": ""}, {"model": "a" * 10_000}, {"base_url": "http://evil"}),
    ):
        response = await client.ask("POST", "/api/v1/stream", {**QUERY, **more})
        assert_refused(response, 400, "invalid_request", "validation")
    for name in ("nobody", "../x", "http://evil/", "a\r\nb", "nobody/x", "up/", CANARY):
        response = await client.ask("POST", "/api/v1/stream", {**QUERY, "model": name})
        assert (response.status, response.error["code"], response.error["reason"]) == (404, "not_found", "model")
        assert f"Unknown model {name!r}. " in response.error["message"]  # the caller's own text, escaped
        response = await client.ask("POST", "/v1/chat/completions", {**CHAT, "model": name})
        assert (response.status, response.error["code"]) == (404, "not_found")
    assert mock.requests == []
    assert "'m'" in (await client.ask("POST", "/api/v1/stream", {**QUERY, "model": "mm"})).error["message"]
    response = await client.ask("POST", "/api/v1/stream", {**QUERY, "model": "up/some/id"})
    assert response.types[-1] == "done"
    assert mock.requests[-1].body["model"] == "some/id"
    # No model: the default, else the first.
    await client.ask("POST", "/api/v1/stream", QUERY)
    assert mock.requests[-1].body["model"] == "mock"
    for options in ("x", ["include_usage"], 7, None, {}):
        response = await client.ask("POST", "/v1/chat/completions", {**CHAT, "stream": True, "stream_options": options})
        assert response.status == (400 if options else 200), options
        if options:
            assert "stream_options" in response.error["message"]


@on_uvloop
async def test_the_last_of_duplicate_keys_counts_here_and_upstream(net: Net) -> None:
    mock = await net.mock(deltas=1)
    gateway = await net.gateway(mock)
    body = b'{"model":"nobody","stream":false,"messages":[],"model":"m","messages":[{"role":"user","content":"x"}],'
    response = await gateway.ask("POST", "/v1/chat/completions", body + b'"stream":true}')
    assert response.headers["content-type"] == CONTENT
    assert mock.requests[0].raw.count(b'"model"') == mock.requests[0].raw.count(b'"stream"') == 1
    assert b'"nobody"' not in mock.requests[0].raw


@on_both_loops
async def test_a_body_may_be_as_large_as_max_body_and_no_larger(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1), max_body=1000)

    def body(size: int) -> bytes:
        start = b'{"model":"m","query":"'
        return start + b"a" * (size - len(start) - 2) + b'"}'

    for chunked in (False, True):
        for size, status in ((1000, 200), (1001, 413), (1_000_000, 413)):
            client = await gateway.connect()
            data = body(size)
            headers = {"host": gateway.host, "content-type": "application/json"}
            if chunked:
                data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
                headers["transfer-encoding"] = "chunked"
            else:
                headers["content-length"] = str(len(data))
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            client.send(f"POST /api/v1/stream HTTP/1.1\r\n{head}\r\n".encode() + data)
            response = await (await client.response()).rest()
            assert response.status == status
            if status == 413:
                assert_refused(response, 413, "invalid_request", "max_body")
    # Before the body has come: its length is enough.
    client = await gateway.connect()
    client.request("POST", "/api/v1/stream", headers={"content-type": "application/json", "content-length": "1001"})
    await assert_one_refusal(client, 413, "max_body")


@on_both_loops
async def test_a_body_that_does_not_come_is_a_408(net: Net) -> None:
    gateway = await net.gateway(await net.mock(), body_timeout=0.2)
    for path in ("/api/v1/stream", "/v1/chat/completions"):
        client = await gateway.connect()
        client.request("POST", path, headers={"content-type": "application/json", "content-length": "10"})
        client.send(b"{")
        response = await (await client.response()).rest()
        assert response.status == 408
        assert response.error["code"] == "timeout"
        assert response.headers["x-should-retry"] == "true"
        # What still comes is dropped, and no second answer follows.
        client.send(b"{}")
        assert await client.is_closed()


@on_both_loops
async def test_a_head_that_does_not_come_is_a_408(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1), header_timeout=0.3)

    async def slow(client: Client) -> None:
        for byte in b"GET /healthz HTTP/1.1\r\nX-Slow: " + b"a" * 500:
            client.send(bytes((byte,)))
            await asyncio.sleep(0.02)

    async def expect_408(client: Client) -> None:
        response = await (await client.response()).rest()
        assert_refused(response, 408, "timeout", "header_timeout")
        assert response.headers["connection"] == "close"
        assert await client.is_closed()

    silent = await gateway.connect()
    assert await silent.is_closed(), "a connection that never sent a byte is closed without a word"
    client = await gateway.connect()
    writing = asyncio.create_task(slow(client))
    assert_refused(await (await client.response()).rest(), 408, "timeout", "header_timeout")
    writing.cancel()
    # The next head on a connection that has been used.
    client = await gateway.connect()
    await client.ask("POST", "/api/v1/stream", {**QUERY, "model": "m"})
    await asyncio.sleep(0.5)
    assert await client.is_open(), "an idle connection waits for no head"
    client.send(b"GET ")
    await expect_408(client)
    # A stream is no head, however long it takes and whatever comes meanwhile.
    mock = await net.mock(deltas=3, rate=4)
    gateway = await net.gateway(mock, header_timeout=0.2)
    client, response = await gateway.stream({**QUERY, "model": "m"})
    client.send(b"GET ")
    assert (await response.rest()).types[-1] == "done"


@on_both_loops
async def test_expectations_are_met_or_refused(net: Net) -> None:
    mock = await net.mock(deltas=1)
    gateway = await net.gateway(mock)
    body = json.dumps({**QUERY, "model": "m"}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "expect": "100-continue"}
    client = await gateway.connect()
    client.request("POST", "/api/v1/stream", headers=headers)
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(body)
    assert (await (await client.response()).rest()).types[-1] == "done"
    client.request("POST", "/api/v1/stream", headers={**headers, "expect": "something"})
    await assert_one_refusal(client, 417, "expect")
    client = await (await net.gateway(mock, body_timeout=0.3)).connect()
    client.request("POST", "/api/v1/stream", headers=headers)
    assert (await client.response()).status == 408
    # What is refused anyway is not waited for.
    client = await gateway.connect()
    client.request("POST", "/api/v1/stream", headers={**headers, "content-type": "text/plain"})
    assert (await client.reader.readuntil(b"\r\n")) == b"HTTP/1.1 415 Unsupported Media Type\r\n"
    # HTTP/1.0 knows no interim answers (RFC 9110, 10.1.1).
    client = await gateway.connect()
    client.send(
        request_bytes(gateway.host, "POST", "/api/v1/stream", body, {"expect": "100-continue"}).replace(
            b"1.1", b"1.0", 1
        )
    )
    assert (await client.response()).status == 200


# ---- connections -----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_connection_carries_request_after_request(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=2))
    client = await gateway.connect()
    for _ in range(3):
        assert (await client.ask("POST", "/api/v1/stream", {**QUERY, "model": "m"})).types[-1] == "done"
        assert (await client.ask("POST", "/api/v1/stream", {**QUERY, "model": "m", "stream": False})).status == 200
        assert (await client.ask("POST", "/api/v1/stream", {})).status == 400
        assert (await client.ask("GET", "/nothing")).status == 404
        assert (await client.ask("POST", "/v1/chat/completions", {**CHAT, "stream": True})).data[-1] == "[DONE]"
        response = await client.ask("GET", "/healthz")
        assert "connection" not in response.headers
    response = await client.ask("GET", "/healthz", headers={"connection": "close"})
    assert response.headers["connection"] == "close"
    assert await client.is_closed()
    client = await gateway.connect()
    response = await client.ask("POST", "/api/v1/stream", {**QUERY, "model": "m"}, {"connection": "close"})
    assert response.types[-1] == "done"
    assert await client.is_closed()


@on_both_loops
async def test_a_body_that_nobody_reads_is_not_the_next_request(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    smuggled = request_bytes(gateway.host, "GET", "/version")
    for method, path, status in (
        ("GET", "/healthz", 413),
        ("GET", "/nothing", 404),
        ("DELETE", "/api/v1/streams/x", 404),
        ("POST", "/healthz", 405),
        ("OPTIONS", "/healthz", 413),
        ("GET", "/api/v1/stream?q=a&model=m", 403),
    ):
        for whole in (True, False):
            if not whole and status not in (404, 405, 413):
                continue  # what is not refused by its head is answered when it is whole
            if not whole and method == "DELETE":
                continue
            client = await gateway.connect()
            client.request(method, path, headers={"content-length": str(len(smuggled) + (not whole))})
            client.send(smuggled)
            response = await client.response()
            response.ended = status == 204
            assert (await response.rest()).status == status
            if response.headers.get("connection") == "close":
                assert await client.is_closed()
            else:
                assert await client.is_open()


@on_both_loops
async def test_requests_in_a_row_are_answered_in_order(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3, rate=100))
    client = await gateway.connect()
    requests = [
        ("GET", "/version", None),
        ("POST", "/api/v1/stream", {**QUERY, "model": "m"}),
        ("GET", "/nothing", None),
        ("POST", "/v1/chat/completions", {**CHAT, "stream": True}),
        ("POST", "/api/v1/stream", {**QUERY, "model": "claude", "stream": False}),
        ("GET", "/healthz", None),
    ] * 5
    data = b"".join(request_bytes(gateway.host, *request) for request in requests)
    client.send(data)
    for method, path, body in requests:
        response = await (await client.response()).rest()
        assert response.ended
        match path, body:
            case "/version", _:
                assert "implementation" in response.json
            case "/api/v1/stream", {"stream": False}:
                assert response.json["finish_reason"] == "stop"
            case "/api/v1/stream", _:
                assert response.types[-1] == "done"
            case "/nothing", _:
                assert response.status == 404
            case "/v1/chat/completions", _:
                assert response.data[-1] == "[DONE]"
            case _:
                assert response.json == {"status": "ok"}, method
    # The first that cannot be read is the last: after it no request can be recognized.
    client.send(b"junk\r\n\r\n" + request_bytes(gateway.host, "GET", "/"))
    await assert_one_refusal(client, 400, "http")


@on_both_loops
async def test_junk_behind_a_stream_does_not_disturb_it(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=5, rate=50))
    client, response = await gateway.stream({**QUERY, "model": "m"})
    for _ in range(5):
        client.send(b"\x00junk\r\n\r\n")
        await asyncio.sleep(0.01)
    assert (await response.rest()).types[-1] == "done"
    await assert_one_refusal(client, 400, "http")


@on_both_loops
async def test_http_1_0_clients_get_a_body_that_ends_with_the_connection(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3))
    for more in ({}, {"connection": "keep-alive"}):
        for method, path, body in (
            ("GET", "/healthz", None),
            ("GET", "/nothing", None),
            ("POST", "/api/v1/stream", {**QUERY, "model": "m"}),
            ("POST", "/api/v1/stream", {**QUERY, "model": "m", "stream": False}),
        ):
            client = await gateway.connect()
            client.send(request_bytes(gateway.host, method, path, body, more).replace(b"HTTP/1.1", b"HTTP/1.0"))
            response = await client.response()
            assert response.headers["connection"] == "close"
            assert "transfer-encoding" not in response.headers
            async with asyncio.timeout(SECONDS):
                await response.rest()
            assert await client.is_closed()
            if body and "stream" not in body:
                assert response.types[-1] == "done"


@on_both_loops
async def test_an_upgrade_is_declined_and_the_request_answered(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=1))
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "eA==",
    }
    client = await gateway.connect()
    client.send(request_bytes(gateway.host, "GET", "/healthz", None, headers) + request_bytes(gateway.host, "GET", "/"))
    assert (await (await client.response()).rest()).json == {"status": "ok"}
    assert (await (await client.response()).rest()).body.startswith(b"<!")
    response = await client.ask("POST", "/api/v1/stream", {**QUERY, "model": "m"}, headers)
    assert response.types[-1] == "done"
    assert await client.is_open()


# ---- origins ---------------------------------------------------------------------------------------------------------

PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


async def allowed_origin(gateway: Gateway, origin: str) -> str | None:
    """Returns the headers that a page of this origin may read; preflight, success, refusal and stream agree."""
    client = await gateway.connect()
    headers = {"origin": origin}
    answers = [
        await client.ask("GET", "/healthz", headers=headers),
        await client.ask("GET", "/nothing", headers=headers),
        await client.ask("POST", "/api/v1/stream", {**QUERY, "model": "nobody"}, headers),
        await client.ask("OPTIONS", "/api/v1/stream", headers={**headers, **PREFLIGHT}),
    ]
    allowed = {answer.headers.get("access-control-allow-origin") for answer in answers}
    assert len(allowed) == 1
    assert not any("access-control-allow-credentials" in answer.headers for answer in answers)
    assert answers[-1].status == (403 if allowed == {None} else 204)
    client.close()
    return allowed.pop()


@on_uvloop
async def test_configured_origins_are_matched_exactly(net: Net) -> None:
    good = "https://good.example"
    gateway = await net.gateway(await net.mock(deltas=1), cors_origins=(good, "http://localhost:3000"))
    assert await allowed_origin(gateway, good) == good
    for origin in (
        *("null", "https://good.example.evil", "https://evilgood.example", "https://good.example:444", "http://[::1"),
        *(
            "HTTPS://good.example",
            "https://GOOD.example",
            "http://good.example",
            "https://good.example/",
            "*",
            "http://",
        ),
        *("http://localhost", "http://127.0.0.1:3000", ""),
    ):
        assert await allowed_origin(gateway, origin) is None, origin
    response = await gateway.ask("POST", "/api/v1/stream", {**QUERY, "model": "m"}, {"origin": good})
    assert response.headers["access-control-allow-origin"] == good
    assert "x-gai-stream-id" in response.headers["access-control-expose-headers"]
    preflight = await gateway.ask("OPTIONS", "/v1/chat/completions", headers={"origin": good, **PREFLIGHT})
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "authorization, content-type"
    # What is answered depends on the origin, so every answer says so, also if there was none.
    for headers in ({}, {"origin": good}, {"origin": "null"}):
        for path in ("/healthz", "/nothing"):
            assert (await gateway.ask("GET", path, headers=headers)).headers["vary"] == "Origin"
        response = await gateway.ask("POST", "/api/v1/stream", {**QUERY, "model": "m"}, headers)
        assert response.headers["vary"] == "Origin"


@on_uvloop
async def test_with_only_the_demo_loopback_origins_may_use_it(net: Net) -> None:
    gateway = await net.gateway()
    for origin in ("http://localhost:3000", "http://127.0.0.1", "https://[::1]:8443", "http://app.localhost"):
        assert await allowed_origin(gateway, origin) == origin
    for origin in (
        *(
            "https://evil.example",
            "http://localhost.evil.example",
            "null",
            "file://localhost",
            "http://localhost@evil.example",
        ),
        *("http://[::1", "http://localhost:x", "http://localhost:99999999", "http://evil.example#localhost"),
    ):
        assert await allowed_origin(gateway, origin) is None, origin
    response = await gateway.ask("GET", "/api/v1/stream?q=a", headers={"origin": "https://evil.example"})
    assert_refused(response, 403, "forbidden", "origin")
    assert (await gateway.ask("GET", "/healthz")).headers["vary"] == "Origin"


@on_uvloop
async def test_without_configured_origins_none_is_allowed(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    assert await allowed_origin(gateway, "http://localhost:3000") is None
    assert "vary" not in (await gateway.ask("GET", "/healthz")).headers


# ---- the log and the end ---------------------------------------------------------------------------------------------


@on_uvloop
async def test_the_access_log_tells_every_request_without_its_query(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    gateway = await net.gateway(await net.mock(deltas=1))
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        await gateway.ask("GET", "/healthz?secret=canary77", headers={"x-request-id": "abc"})
        await gateway.ask("POST", "/api/v1/stream", {**QUERY, "model": "m"})
        await gateway.ask("GET", "/%0a%1b[31m")
    assert "canary77" not in caplog.text
    lines = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"127\.0\.0\.1 GET '/healthz' 200 [0-9.]+ abc", lines[0])
    assert "POST '/api/v1/stream' 200" in lines[1]
    assert "GET '/%0a%1b[31m' 404" in lines[2]


@pytest.mark.usefixtures("patient_end")
@on_both_loops
async def test_a_server_that_stops_tells_its_streams_and_leaves_nothing(net: Net) -> None:
    mock = await net.mock(ttft=0.05, rate=10, deltas=1000)
    gateway = await net.gateway(mock, commit_after=60)
    _, native = await gateway.stream({**QUERY, "model": "m"})
    await native.until(b"upon")
    _, openai = await gateway.stream({**CHAT, "stream": True}, "/v1/chat/completions")
    await openai.until(b"upon")
    waiting = await gateway.connect()
    mock.ttft = 60
    waiting.request("POST", "/api/v1/stream", {**QUERY, "model": "m"})
    whole = await gateway.connect()
    whole.request("POST", "/api/v1/stream", {**QUERY, "model": "m", "stream": False})
    idle = await gateway.connect()
    await idle.ask("GET", "/healthz")
    silent = await gateway.connect()
    await until(lambda: gateway.streams == 4)
    await asyncio.wait_for(gateway.running.close(), SECONDS)
    await native.rest()
    assert native.ended
    assert native.types[-2:] == ["error", "done"]
    assert native.events[-2]["error"]["code"] == "overloaded"
    assert native.events[-1]["finished"] is False
    assert (await openai.rest()).ended
    assert b"[DONE]" not in openai.body
    assert openai.events[-1]["error"]["code"] == "overloaded"
    for client in (waiting, whole):
        response = await (await client.response()).rest()
        assert (response.status, response.error["reason"]) == (503, "draining")
    for client in (idle, silent):
        assert await client.is_closed()
    for request in mock.requests:
        await asyncio.wait_for(request.closed.wait(), SECONDS)
    with pytest.raises(OSError, match=r"."):
        await gateway.connect()


@on_both_loops
async def test_a_client_that_leaves_while_it_sends_is_no_error(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    for leave in (Client.close, Client.reset):
        for data in (
            b"GET /healthz HT",
            request_bytes(gateway.host, "POST", "/api/v1/stream", {**QUERY, "model": "m"})[:-5],
            request_bytes(gateway.host, "POST", "/v1/chat/completions", CHAT)[:-5],
            request_bytes(gateway.host, "GET", "/"),
        ):
            client = await gateway.connect()
            client.send(data)
            await until(lambda: gateway.is_connected)
            leave(client)
            await until(lambda: not gateway.is_connected)
    assert gateway.streams == 0
    assert (await gateway.ask("GET", "/healthz")).status == 200


def test_a_taken_address_is_reported() -> None:
    import socket

    from gai_fast.server.serving import start
    from tests.integration.gateway import settings_for

    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            settings: Any = settings_for(None, port=taken.getsockname()[1])
            with pytest.raises(OSError, match=r"in use"):
                await start(settings)

    asyncio.run(main())


@on_both_loops
@pytest.mark.parametrize("fast_lane", ["auto", "off"])
async def test_every_status_line_has_the_servers_version(net: Net, fast_lane: str) -> None:
    """RFC 9112, 2.3: the version in a response is the sender's own, not the one of the request."""
    gateway = await net.gateway(fast_lane=fast_lane)
    end = b"\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    for head, status in (
        (b"GET /healthz HTTP/1.1" + end, 200),
        (b"GET /healthz HTTP/1.0" + end, 200),
        (b"GET /nothing HTTP/1.0" + end, 404),
        (b"GET /healthz HTTP/2.0" + end, 505),
        (b"GET /healthz HTTP/0.9" + end, 505),
        (b"GET /healthz HTTP/1.1\r\nno header\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nA: " + b"x" * 40_000 + b"\r\n\r\n", 431),
        (b"nonsense\r\n\r\n", 400),
    ):
        host, _, port = gateway.host.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head)
        line = await asyncio.wait_for(reader.readline(), SECONDS)
        writer.close()
        assert line.startswith(b"HTTP/1.1 %d " % status), (head[:40], line)
