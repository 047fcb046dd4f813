"""The pass-through: what goes to an upstream and back, byte for byte, and what does not."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from typing import Any

import openai
import pytest

from gai_fast.model.money import UNIT
from gai_fast.model.settings import IdentitySettings, KeyLimits, KeySettings, Price, Secret, SpendLimit, key_digest
from gai_fast.server.serving import start
from tests.conftest import ChangeLimits
from tests.integration.gateway import (
    KEY,
    Client,
    Gateway,
    Net,
    Peer,
    Response,
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.limits import LIMITS
from tests.waiting import until
from tests.wire import chunk

LANE = (
    *("/v1/embeddings", "/v1/moderations", "/v1/rerank", "/v1/images/*", "/v1/audio/*"),
    *("/v1/fine_tuning/jobs", "DELETE /v1/models/*", "/v1beta/models/*:embedContent"),
)
EMBEDDING = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 1.0]}
EMBEDDINGS = {
    "object": "list",
    "data": [EMBEDDING],
    "model": "mock",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
ASK = {"model": "m", "input": "hello"}
ALL_BYTES = bytes(range(256)) * 512  # 128 KiB


def key(name: str, **more: Any) -> KeySettings:
    return KeySettings(name, (key_digest(f"sk-{name}-0123456789"),), **more)


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}-0123456789"}


def head_lines(peer: Peer) -> dict[str, str]:
    first, *lines = peer.head.decode("latin-1").strip().split("\r\n")
    return {"": first, **{name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}}


heads: list[dict[str, str]] = []
"""The heads of the requests that `embeds` has got since a test has cleared the list."""


async def embeds(peer: Peer) -> None:
    """An upstream that answers each request with an embedding."""
    while True:
        await peer.request()
        heads.append(head_lines(peer))
        body = json.dumps(EMBEDDINGS).encode()
        await peer.answer("200 OK", body, "Content-Type: application/json", "X-Upstream: 1", "Set-Cookie: a=b")


# ---- routes with a model ---------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_json_route_replaces_the_model_and_changes_nothing_else(net: Net) -> None:
    upstream = await net.upstream(embeds)
    gateway = await net.gateway(upstream, lane=LANE)
    body = (
        b'{ "input": [1, 2.50, 1e400, "\\u00e9\\/"],\n"model" : "m", "x": {"model": "m" , "n": 12345678901234567890}}'
    )
    answer = await gateway.ask("POST", "/v1/embeddings", body)
    assert (answer.status, answer.json) == (200, EMBEDDINGS)
    sent = upstream.peers[0]
    assert sent.head.startswith(b"POST /v1/embeddings HTTP/1.1\r\n")
    assert sent.body == (
        b'{"input":[1, 2.50, 1e400, "\\u00e9\\/"],"model":"mock","x":{"model": "m" , "n": 12345678901234567890}}'
    )
    assert answer.headers["x-upstream"] == "1"
    assert (answer.headers["x-gai-model"], answer.headers["x-gai-upstream"]) == ("m", "up")
    assert "set-cookie" not in answer.headers
    guards = answer.headers["x-content-type-options"], answer.headers["content-security-policy"]
    assert guards == ("nosniff", "sandbox")
    assert answer.headers["content-length"] == str(len(answer.body))


@on_uvloop
async def test_an_idempotency_key_is_for_the_upstream_alone(net: Net) -> None:
    """Nothing is replayed here: the store is not asked, and no header is judged, whatever the body's size."""
    gateway = await net.gateway(await net.upstream(embeds), lane=LANE)
    heads.clear()
    for size in (1, 2 * LIMITS.early_check):
        body = {"model": "m", "input": "x" * size}
        answer = await gateway.ask("POST", "/v1/embeddings", body, {"idempotency-key": "no, token"})
        assert (answer.status, answer.json) == (200, EMBEDDINGS)
    assert [head["idempotency-key"] for head in heads] == ["no, token"] * 2


@on_uvloop
async def test_one_model_reaches_the_upstream_however_it_is_written(net: Net) -> None:
    upstream = await net.upstream(embeds)
    gateway = await net.gateway(upstream, lane=LANE)
    for body, sent in (
        (b'{"model":"m","input":"a"}', b'{"model":"mock","input":"a"}'),
        (b' {"input" : ["a", "\xc3\xa9\\n"], "model" : "m"}\n', b'{"input":["a", "\xc3\xa9\\n"],"model":"mock"}'),
        (b'{"model":"no","input":1,"model":"m"}', b'{"model":"mock","input":1}'),
        (b'{"mod\\u0065l":"no","input":1,"model":"m"}', b'{"model":"mock","input":1}'),
        (b'{"model":"no","mod\\u0065l":"m","input":1}', b'{"model":"mock","input":1}'),
        (b'{"model":"\\u006d","input":1}', b'{"model":"mock","input":1}'),
        (b'{"model":"m","input":1,"input":2}', b'{"model":"mock","input":2}'),
        (b'{"model":"m","x":{"model":"no","model":"m"}}', b'{"model":"mock","x":{"model":"no","model":"m"}}'),
    ):
        answer = await gateway.ask("POST", "/v1/embeddings", body)
        assert (answer.status, upstream.peers[-1].body) == (200, sent), answer.body
    heads.clear()
    for body in (b'{"model":"m","model":""}', b'{"model":"m","model":1}', b'{"model":"m","input":}', b'{"model":"m"}}'):
        assert (await gateway.ask("POST", "/v1/embeddings", body)).status == 400, body
    assert not heads


@on_uvloop
async def test_the_clients_credentials_stay_here_and_the_upstreams_are_put_in(net: Net) -> None:
    upstream = await net.upstream(embeds)
    gateway = await net.gateway(upstream, lane=LANE, keys=(key("alice", pass_upstreams=("up",)),))
    mine = {
        **bearer("alice"),
        "cookie": "session=1",
        "x-goog-api-key": "sk-mine",
        "x-forwarded-for": "192.0.2.1",
        "proxy-authorization": "Basic x",
        "openai-organization": "org-mine",
        "x-gai-cache": "on",
        "accept-encoding": "gzip",
        "connection": "keep-alive, x-hop",
        "x-hop": "1",
        "x-http-method-override": "DELETE",
        "x-original-url": "/v1/files",
        "te": "trailers",
        "x-own": "kept",
        "openai-beta": "assistants=v2",
    }
    heads.clear()
    query = "key=sk-mine&b=%20&KEY=x&a=1&_method=PUT&b="
    for method, path in (("POST", "/v1/embeddings"), ("POST", f"/p/up/v1/embeddings?{query}")):
        answer = await gateway.ask(method, path, ASK, mine)
        assert answer.status == 200, answer.body
    first, second = heads
    assert second[""] == "POST /v1/embeddings?b=%20&a=1&b= HTTP/1.1"
    for lines in (first, second):
        assert lines["authorization"] == f"Bearer {KEY}"
        assert lines["x-own"] == "kept"
        assert lines["openai-beta"] == "assistants=v2"
        assert lines["accept-encoding"] == "identity"
        kept = {"", "host", "user-agent", "content-type", "content-length", "authorization", "accept-encoding"}
        assert set(lines) <= kept | {"x-own", "openai-beta"}


@on_uvloop
async def test_requests_with_the_same_head_have_the_upstream_and_the_key_of_each(net: Net) -> None:
    upstream = await net.upstream(embeds)
    other = Secret("sk-other-0123456789")
    keys, lanes = (key("alice"),), {"lane": LANE, "native_lane": LANE}
    gateway = await net.gateway(upstream, **lanes, keys=keys, more_api_keys=(other,))
    client, given = await gateway.connect(), {**bearer("alice"), "x-own": "kept", "cookie": "a=b"}
    heads.clear()
    for model in ("m", "m", "m", "native/a", "native/b", "m", "anthropic/c", "m"):
        answer = await client.ask("POST", "/v1/embeddings", {**ASK, "model": model}, given)
        assert answer.status == (404 if model == "anthropic/c" else 200), answer.body
        assert answer.headers.get("x-gai-upstream") == {"m": "up", "anthropic/c": None}.get(model, "native")
    first, second = KEY, other.reveal()
    sent = [first, second, first, first, second, second, first]
    assert [lines["authorization"] for lines in heads] == [f"Bearer {each}" for each in sent]
    assert all(lines["x-own"] == "kept" and "cookie" not in lines for lines in heads)
    again = await client.ask("POST", "/v1/embeddings", ASK, {**given, "x-own": "other"})
    assert again.status == 200
    assert heads[-1]["x-own"] == "other"


@on_uvloop
async def test_without_a_lane_of_the_models_upstream_there_is_no_such_route_and_the_error_names_it(net: Net) -> None:
    upstream = await net.upstream(embeds)
    nobody = await net.gateway(upstream)
    for path in ("/v1/embeddings", "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/images/edits"):
        answer = await nobody.ask("POST", path, ASK)
        assert (answer.status, answer.error["code"]) == (404, "not_found")
        assert "`lane`" in answer.error["message"]
    gateway = await net.gateway(upstream, lane=LANE)
    answer = await gateway.ask("POST", "/v1/embeddings", {**ASK, "model": "claude"})
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert "`lane` of [[upstream]] 'anthropic'" in answer.error["message"]
    files = await gateway.ask("POST", "/v1/files", b"", {"content-type": "multipart/form-data; boundary=x"})
    assert files.status == 404
    assert not upstream.peers


@on_uvloop
async def test_the_model_is_there_is_a_text_and_is_one_that_the_key_may_use(net: Net) -> None:
    upstream = await net.upstream(embeds)
    gateway = await net.gateway(upstream, lane=LANE, keys=(key("alice", models=("m",)),))
    cases: list[tuple[Any, int]] = [
        ({"input": "x"}, 400),
        ({"model": 1, "input": "x"}, 400),
        ({"model": "", "input": "x"}, 400),
        ({"model": "claude", "input": "x"}, 403),
        ({"model": "up/any", "input": "x"}, 403),
        ([1], 400),
        (b'{"model": "m", "input": ', 400),
        (b'{"model": "m", "input": "\xff"}', 400),
    ]
    for body, status in cases:
        answer = await gateway.ask("POST", "/v1/embeddings", body, bearer("alice"))
        assert answer.status == status, (body, answer.body)
    answer = await gateway.ask("POST", "/v1/embeddings", b"{}", {**bearer("alice"), "content-type": "text/plain"})
    assert answer.status == 415
    assert not upstream.peers
    assert (await gateway.ask("POST", "/v1/embeddings", ASK, bearer("alice"))).status == 200


# ---- /p/ -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../embeddings", "/v1/%2e%2e/embeddings", "/v1/.%2E/embeddings", "/v1/./embeddings", "/v1/%2e/embeddings",
        "/v1%2fembeddings", "/v1%2Fembeddings", "/v1%5cembeddings", "/v1\\embeddings", "//v1/embeddings",
        "/v1//embeddings", "/v1/%00", "/v1/audio/%0d%0aX:%20y", "/v1/audio/%7f", "/v1/audio/%252e%252e%252fx",
        "/v1/audio/%252f", "/v1/audio/..;x", "/v1/audio/%zz", "/v1/audio/%ff", "/v1/audio/%c2%85", "/v1/audio/a\"b",
    ],
)  # fmt: skip
@on_uvloop
async def test_a_path_that_servers_read_differently_is_refused(net: Net, path: str) -> None:
    upstream = await net.upstream(embeds)
    gateway = await net.gateway(upstream, lane=(*LANE, "/*", "/*/*", "/*/*/*", "/*/*/*/*"))
    answer = await gateway.ask("POST", f"/p/up{path}", ASK)
    assert (answer.status, answer.error["reason"]) == (400, "path")
    assert not upstream.peers


@on_uvloop
async def test_only_the_paths_and_methods_of_the_lane_are_offered(net: Net) -> None:
    heads.clear()
    gateway = await net.gateway(await net.upstream(embeds), lane=LANE)
    for method, path, status in (
        ("POST", "/p/up/v1/embeddings", 200),
        ("GET", "/p/up/v1/fine_tuning/jobs?limit=2", 200),
        ("POST", "/p/up/v1/%65mbeddings", 200),  # matched decoded
        ("DELETE", "/p/up/v1/models/mine", 200),
        ("POST", "/p/up/v1beta/models/text-1:embedContent", 200),
        ("GET", "/p/up/v1/models/mine", 405),
        ("DELETE", "/p/up/v1/embeddings", 405),
        ("PUT", "/p/up/v1/embeddings", 405),
        ("POST", "/p/up/v1/chat/completions", 404),
        ("POST", "/p/up/v1/embeddings/", 404),
        ("POST", "/p/up/v1/audio/a/b", 404),
        ("POST", "/p/up", 404),
        ("POST", "/p/up/", 404),
        ("POST", "/p/none/v1/embeddings", 404),
        ("POST", "/p/", 404),
        ("OPTIONS", "/p/up/v1/embeddings", 204),
    ):
        answer = await gateway.ask(method, path, ASK if method in ("POST", "PUT") else None)
        assert answer.status == status, (method, path, answer.body)
        if status == 405:
            assert answer.headers["allow"] == ("DELETE" if method == "GET" else "GET, POST")
    assert [lines[""].split()[1] for lines in heads] == [
        "/v1/embeddings",
        "/v1/fine_tuning/jobs?limit=2",
        "/v1/%65mbeddings",
        "/v1/models/mine",
        "/v1/v1beta/models/text-1:embedContent",  # below the base URL
    ]


@on_uvloop
async def test_a_key_uses_the_paths_of_the_upstreams_in_its_lane_alone(net: Net) -> None:
    upstream = await net.upstream(embeds)
    keys = (key("alice", pass_upstreams=("up",)), key("bob"))
    gateway = await net.gateway(upstream, lane=LANE, keys=keys)
    path = "/p/up/v1/embeddings"
    assert (await gateway.ask("POST", path, ASK)).status == 401
    for name in ("up", "none"):  # tells nothing of which upstreams there are
        answer = await gateway.ask("POST", f"/p/{name}/v1/embeddings", ASK, bearer("bob"))
        assert (answer.status, answer.error["reason"]) == (403, "lane")
    assert not upstream.peers
    assert (await gateway.ask("POST", path, ASK, bearer("alice"))).status == 200


@on_uvloop
async def test_no_page_of_another_origin_uses_an_upstream_without_a_key(net: Net) -> None:
    """A browser asks no permission (CORS preflight) for a GET, nor for a POST of a form or of plain text."""
    upstream = await net.upstream(embeds)
    gateway = await net.gateway(upstream, lane=LANE, cors_origins=("https://mine.example",))
    page = {"origin": "https://other.example"}
    for method, path, kind in (
        ("POST", "/p/up/v1/embeddings", "text/plain"),
        ("POST", "/v1/audio/transcriptions", "multipart/form-data; boundary=x"),
        ("POST", "/v1/images/edits", "application/x-www-form-urlencoded"),
    ):
        for headers, status in (
            (page, 403),
            ({"origin": "null"}, 403),
            ({"sec-fetch-site": "cross-site"}, 403),
            ({"origin": "https://mine.example", "sec-fetch-site": "cross-site"}, 200),
            ({}, 200),
        ):
            answer = await gateway.ask(method, path, b"--x--", {"content-type": kind, **headers})
            assert (answer.status, answer.status == 403) == (status, b"another origin" in answer.body), (path, headers)
    for headers, status in (({"sec-fetch-site": "same-site"}, 403), ({"sec-fetch-site": "none"}, 200)):
        assert (await gateway.ask("GET", "/p/up/v1/fine_tuning/jobs", None, headers)).status == status
    with_key = await net.gateway(upstream, lane=LANE, keys=(key("alice", pass_upstreams=("up",)),))
    assert (await with_key.ask("POST", "/p/up/v1/embeddings", ASK, {**page, **bearer("alice")})).status == 200


# ---- bodies ----------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_form_of_any_size_arrives_as_it_was_sent(net: Net) -> None:
    upstream = await net.upstream(embeds)
    gateway = await net.gateway(upstream, lane=LANE)
    kind = {"content-type": "multipart/form-data; boundary=xyz"}
    for size in (1, 40):  # below and above what is read whole
        body = b"--xyz\r\n\r\n" + size * ALL_BYTES + b"\r\n--xyz--\r\n"
        answer = await gateway.ask("POST", "/v1/audio/transcriptions", body, kind)
        assert (answer.status, answer.json) == (200, EMBEDDINGS)
        peer = upstream.peers[-1]
        assert peer.body == body
        assert head_lines(peer)["content-type"] == kind["content-type"]
        assert head_lines(peer)[""] == "POST /v1/audio/transcriptions HTTP/1.1"


@on_uvloop
async def test_a_form_is_refused_where_its_model_would_matter(net: Net) -> None:
    upstream = await net.upstream(embeds)
    keys = (key("alice", models=("m",), pass_upstreams=("up",)), key("bob"))
    gateway = await net.gateway(upstream, lane=LANE, keys=keys)
    kind = {"content-type": "multipart/form-data; boundary=xyz"}
    answer = await gateway.ask("POST", "/v1/images/edits", b"--xyz--", {**kind, **bearer("alice")})
    assert (answer.status, answer.error["code"]) == (403, "forbidden")
    assert not upstream.peers
    assert (await gateway.ask("POST", "/v1/images/edits", b"--xyz--", {**kind, **bearer("bob")})).status == 200


@on_both_loops
async def test_json_at_the_route_of_a_form_names_a_model_and_no_file_of_another_caller(net: Net) -> None:
    upstream = await net.upstream(embeds)
    keys = (key("alice", models=("m",)), key("bob"))
    gateway = await net.gateway(upstream, lane=LANE, keys=keys, shared_ids=("file-all",))
    path, edit = "/v1/images/edits", {"model": "m", "prompt": "a hat"}
    for more, status, code in (
        ({"images": [{"file_id": "file-bobs"}]}, 400, "file_not_found"),
        ({"mask": {"file_id": "file-bobs"}, "images": [{"file_id": "file-all"}]}, 400, "file_not_found"),
        ({"images": [{"file_id": "file-bobs"}], "padding": "x" * (2 << 20)}, 400, "file_not_found"),
        ({"model": "claude"}, 403, "forbidden"),
        ({"images": [{"image_url": "https://a.example/a.png"}, {"file_id": "file-all"}]}, 200, ""),
    ):
        answer = await gateway.ask("POST", path, {**edit, **more}, bearer("alice"))
        assert (answer.status, answer.json.get("error", {}).get("code", "")) == (status, code), answer.body
    assert [json.loads(peer.body)["model"] for peer in upstream.peers] == ["mock"]
    twice = b'{"model":"m","images":[{"file_id":"file-bobs","file_id":"file-all"}],"n":12345678901234567890}'
    assert (await gateway.ask("POST", path, twice, bearer("alice"))).status == 200
    anew = b'{"model":"mock","images":[{"file_id":"file-all"}],"n":12345678901234567890}'
    assert upstream.peers[0].body == anew, "the last of duplicate members counts, and no other is sent"
    for kind in ("text/plain", "application/x+json", "multipart/mixed", "application/json; charset=utf-16", ""):
        answer = await gateway.ask("POST", path, json.dumps(edit).encode(), {**bearer("bob"), "content-type": kind})
        assert answer.status == 415, kind
    without_keys = await net.gateway(upstream, lane=LANE)
    assert (await without_keys.ask("POST", path, {**edit, "images": [{"file_id": "file-1"}]})).status == 200


@on_both_loops
async def test_a_form_names_no_file_of_another_caller(net: Net) -> None:
    upstream = await net.upstream(embeds)
    gateway = await net.gateway(upstream, lane=LANE, keys=(key("alice"),), shared_ids=("file-all",))
    path, kind = "/v1/audio/transcriptions", {"content-type": "multipart/form-data; boundary=xyz", **bearer("alice")}

    def field(name: str, value: str) -> bytes:
        return f'--xyz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()

    for size in (1, 3 << 20):  # the file is read whole, or passed on while it comes
        for identifier, status, code in (("file-bobs", 400, "file_not_found"), ("file-all", 200, "")):
            body = field("file", "x" * size) + field("file_id", identifier) + b"--xyz--\r\n"
            answer = await gateway.ask("POST", path, body, kind)
            assert (answer.status, answer.json.get("error", {}).get("code", "")) == (status, code), answer.body
    first = field("file_id", "file-bobs") + field("file", "x" * (3 << 20)) + b"--xyz--\r\n"
    assert (await gateway.ask("POST", path, first, kind)).error["code"] == "file_not_found"
    without_end = field("file", "x" * (3 << 20)) + field("file_id", "file-bobs")
    assert (await gateway.ask("POST", path, without_end, kind)).error["code"] == "file_not_found"
    packed = await gateway.ask("POST", path, b"\x1f\x8b", {**kind, "content-encoding": "gzip"})
    assert (packed.status, packed.error["message"]) == (415, "a compressed body is not accepted")
    assert all(b"file-bobs" not in peer.body for peer in upstream.peers)
    without_keys = await net.gateway(upstream, lane=LANE)
    assert (await without_keys.ask("POST", path, field("file_id", "file-1") + b"--xyz--", kind)).status == 200


@on_uvloop
async def test_the_number_of_ids_in_a_form_is_limited(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(named_ids=2)
    upstream = await net.upstream(embeds)
    gateway = await net.gateway(upstream, lane=LANE, keys=(key("alice"),), shared_ids=("file-*",))
    kind = {"content-type": "application/x-www-form-urlencoded", **bearer("alice")}
    for body, status in (
        (b"file_id=file-a&file_id=file-b", 200),
        (b"file_id=file-a" + b"&file_id=file-b" * 2, 400),
    ):
        answer = await gateway.ask("POST", "/v1/images/edits", body, kind)
        assert answer.status == status, answer.body
    assert "more than 2 ids" in answer.error["message"]


async def pieces(client: Client, count: int) -> None:
    for _ in range(count):
        client.send(chunk(ALL_BYTES))
        await client.writer.drain()


@on_both_loops
async def test_an_upload_without_a_length_is_sent_on_while_it_comes(net: Net) -> None:
    got = bytearray()
    lengths: list[int] = []

    async def handler(peer: Peer) -> None:
        peer.head = await peer.reader.readuntil(b"\r\n\r\n")
        while size := int(await peer.reader.readline(), 16):
            got.extend(await peer.reader.readexactly(size))
            lengths.append(size)
            await peer.reader.readexactly(2)
        await peer.reader.readexactly(2)
        await peer.answer("200 OK", b"ok")

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream, lane=LANE)
    client = await gateway.connect()
    client.send(
        f"POST /p/up/v1/audio/x HTTP/1.1\r\nhost: {gateway.host}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    )
    await pieces(client, 16)
    await until(lambda: len(got) > 1 << 20)  # before the end of the body
    await pieces(client, 16)
    client.send(b"0\r\n\r\n")
    response = await (await client.response()).rest()
    assert (response.status, bytes(response.body)) == (200, b"ok")
    assert bytes(got) == 32 * ALL_BYTES
    assert b"transfer-encoding: chunked" in upstream.peers[0].head.lower()


@on_uvloop
async def test_an_upload_waits_for_its_upstream_and_little_of_it_is_held(net: Net) -> None:
    may_read = asyncio.Event()

    async def handler(peer: Peer) -> None:
        peer.writer.transport.pause_reading()
        await may_read.wait()
        peer.writer.transport.resume_reading()
        await peer.request()
        await peer.answer("200 OK", str(len(peer.body)).encode())

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream, lane=LANE)
    client = await gateway.connect()
    size = 400 * len(ALL_BYTES)  # 50 MiB
    head = f"POST /p/up/v1/audio/x HTTP/1.1\r\nhost: {gateway.host}\r\ncontent-length: {size}\r\n\r\n"
    client.send(head.encode())
    sending = asyncio.create_task(client.send_in_pieces(400 * ALL_BYTES, 1 << 16))
    await until(lambda: client.writer.transport.get_write_buffer_size() > 0 and upstream.peers)
    await asyncio.sleep(0.05)
    assert not sending.done()
    may_read.set()
    await sending
    response = await (await client.response()).rest()
    assert bytes(response.body) == str(size).encode()


@on_uvloop
async def test_a_refusal_before_the_end_of_an_upload_announces_that_its_connection_is_closed(net: Net) -> None:
    """A client that is not told goes on sending, or sends its next request to a closed connection (RFC 9112, 9.6)."""
    gateway = await net.gateway(await net.upstream(embeds), lane=LANE)
    for path, status in (("/p/up/v1/none", 404), ("/p/none/v1/x", 404), ("/p/up/v1/x/../jobs", 400)):
        client = await gateway.connect()
        client.send(
            f"POST {path} HTTP/1.1\r\nhost: {gateway.host}\r\ncontent-length: {50 * len(ALL_BYTES)}\r\n\r\n".encode()
        )
        client.send(ALL_BYTES)
        refused = await client.response()
        assert (refused.status, refused.headers["connection"]) == (status, "close")
    refused = await gateway.ask("POST", "/p/up/v1/none", b"x")
    assert "connection" not in refused.headers


@on_both_loops
async def test_a_large_body_passes_its_gates_after_its_first_bytes(net: Net, change_limits: ChangeLimits) -> None:
    """The caller's limits count it and its upstream is asked after `whole_upload` bytes, or before if it has a length.

    A refusal comes as early.
    """
    change_limits(whole_upload=2 * len(ALL_BYTES))
    got = bytearray()

    async def handler(peer: Peer) -> None:
        peer.head = await peer.reader.readuntil(b"\r\n\r\n")
        while b"end" not in got[-16:]:
            got.extend(await peer.reader.read(1 << 16))
        await peer.answer("200 OK", b"ok")

    upstream = await net.upstream(handler)
    limits = KeyLimits(requests_per_minute=1)
    names = ("alice", "bob")
    keys = tuple(key(name, pass_upstreams=("up",), limits=limits) for name in names)
    gateway = await net.gateway(upstream, lane=LANE, keys=keys)
    size = 20 * len(ALL_BYTES)
    for number, (name, framing, first) in enumerate(
        (("alice", f"content-length: {size}", b""), ("bob", "transfer-encoding: chunked", chunk(3 * ALL_BYTES)))
    ):
        head = f"POST /p/up/v1/audio/x HTTP/1.1\r\nhost: {gateway.host}\r\n{framing}\r\n"
        head += f"authorization: {bearer(name)['authorization']}\r\n\r\n"
        got.clear()
        client = await gateway.connect()
        client.send(head.encode() + first)
        await until(lambda number=number: len(upstream.peers) > number and upstream.peers[number].head)
        refused = await gateway.connect()  # the same request, while the first one has not ended
        refused.send(head.encode() + first)
        response = await refused.response()
        assert (response.status, response.headers["connection"]) == (429, "close")
        if first:
            await until(lambda: len(got) >= 3 * len(ALL_BYTES))
            client.send(chunk(b"end") + b"0\r\n\r\n")
        else:
            assert not got
            client.send(b"x" * (size - 3) + b"end")
        response = await (await client.response()).rest()
        assert (response.status, response.headers["x-ratelimit-remaining-requests"]) == (200, "0")
    assert len(upstream.peers) == len(names)


@on_uvloop
async def test_a_body_beyond_lane_body_is_refused(net: Net) -> None:
    upstream = await net.upstream(embeds)
    gateway = await net.gateway(upstream, lane=LANE, lane_body=3 * len(ALL_BYTES), max_body=10)
    body = 4 * ALL_BYTES
    answer = await gateway.ask("POST", "/p/up/v1/audio/x", body, {"content-type": "audio/wav"})
    assert (answer.status, answer.error["reason"]) == (413, "max_body")
    client = await gateway.connect()
    client.send(
        f"POST /p/up/v1/audio/x HTTP/1.1\r\nhost: {gateway.host}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    )
    await pieces(client, 4)
    assert (await client.response()).status == 413
    assert (await gateway.ask("POST", "/p/up/v1/audio/x", 2 * ALL_BYTES)).status == 200  # more than `max_body`
    assert (await gateway.ask("POST", "/v1/embeddings", ASK)).status == 413


@on_both_loops
async def test_a_client_that_leaves_amid_its_body_closes_the_upstreams_connection(net: Net) -> None:
    upstream = await net.upstream(Peer.request)
    gateway = await net.gateway(upstream, lane=LANE)
    client = await gateway.connect()
    head = f"POST /p/up/v1/audio/x HTTP/1.1\r\nhost: {gateway.host}\r\ncontent-length: 9000000\r\n\r\n"
    client.send(head.encode() + 16 * ALL_BYTES)
    await until(lambda: bool(upstream.peers))
    client.reset()
    await upstream.until_finished()


# ---- answers ---------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_an_answer_of_any_bytes_is_sent_on_while_it_comes(net: Net) -> None:
    more = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 201 Created\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n")
        await peer.send(b"Location: /x\r\nX-Request-Id: theirs\r\nKeep-Alive: timeout=5\r\n\r\n")
        await peer.send(chunk(ALL_BYTES[:1000]))
        await more.wait()
        await peer.send(chunk(ALL_BYTES), b"0\r\n\r\n")

    gateway = await net.gateway(await net.upstream(handler), lane=LANE)
    client = await gateway.connect()
    client.request("POST", "/v1/audio/speech", {"model": "m", "input": "hi", "voice": "alloy"})
    response = await client.response()
    assert (response.status, response.headers["content-type"]) == (201, "audio/mpeg")
    assert not {"location", "set-cookie", "keep-alive"} & response.headers.keys()
    assert response.headers["x-request-id"] != "theirs"
    assert response.headers["x-content-type-options"] == "nosniff"
    await response.until(ALL_BYTES[:1000])
    more.set()
    assert bytes((await response.rest()).body) == ALL_BYTES[:1000] + ALL_BYTES
    assert response.ended
    assert await client.is_open()


@on_both_loops
async def test_a_slow_reader_slows_the_upstream_down_and_gets_every_byte(net: Net) -> None:
    pieces = 400

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (pieces * len(ALL_BYTES)))
        for _ in range(pieces):
            await peer.send(ALL_BYTES)
        await peer.until_gone()

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream, lane=LANE, client_buffer=65536)
    client = await gateway.connect(receive_buffer=65536)
    client.pause()
    client.request("GET", "/p/up/v1/audio/x")
    await until(lambda: bool(upstream.peers))
    peer = upstream.peers[0]
    before = -1
    while before != peer.sent:
        before = peer.sent
        await asyncio.sleep(0.1)
    assert peer.sent < pieces * len(ALL_BYTES)  # 50 MiB
    assert gateway.unsent <= 65536 + 2 * LIMITS.plain_read
    client.resume()
    response = await (await client.response()).rest()
    assert len(response.body) == pieces * len(ALL_BYTES)
    assert bytes(response.body) == pieces * ALL_BYTES
    assert response.ended


@on_both_loops
async def test_a_client_that_leaves_closes_the_upstreams_connection(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"a"))
        await peer.until_gone()

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream, lane=LANE)
    for path in ("/p/up/v1/audio/x", "/v1/audio/speech"):
        client = await gateway.connect()
        client.request("POST", path, {"model": "m"})
        await (await client.response()).until(b"a")
        client.reset()
    await upstream.until_finished(2)
    await until(lambda: not gateway.running.engine.transfers)


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 900000"])
@pytest.mark.parametrize("path", ["/p/up/v1/audio/x", "/v1/audio/speech"])
@on_both_loops
async def test_an_answer_that_breaks_never_looks_complete(net: Net, framing: str, path: str) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        piece = chunk(ALL_BYTES) if "chunked" in framing else ALL_BYTES
        await peer.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode(), piece)

    gateway = await net.gateway(await net.upstream(handler), lane=LANE)
    response = await gateway.ask("POST", path, {"model": "m"})
    assert response.status == 200
    assert bytes(response.body) == ALL_BYTES
    assert not response.ended
    net.logged.clear()


@on_uvloop
async def test_an_answer_that_breaks_before_anything_was_sent_on_is_an_error(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfive!")

    gateway = await net.gateway(await net.upstream(handler), lane=LANE, keys=(key("alice"),))
    response = await gateway.ask("POST", "/v1/embeddings", ASK, bearer("alice"))
    assert (response.status, response.error["code"]) == (502, "network")
    assert "127.0.0.1" not in response.error["message"]
    net.logged.clear()


@on_uvloop
async def test_an_upstreams_error_comes_back_as_it_is_but_for_a_refusal_of_our_credentials(net: Net) -> None:
    errors: list[tuple[str, bytes]] = []

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(*errors[-1], "Content-Type: application/json", "Retry-After: 7")

    gateway = await net.gateway(await net.upstream(handler), lane=LANE)

    async def answer_to(status: str, body: bytes) -> Response:
        errors.append((status, body))
        return await gateway.ask("POST", "/v1/embeddings", ASK)

    for status, body in (
        ("400 Bad Request", b'{"error": {"message": "no such dimensions", "param": "dimensions"}}'),
        ("422 Unprocessable", b"[1]"),
        ("500 Oops", b"<html>"),
    ):
        answer = await answer_to(status, body)
        assert (answer.status, bytes(answer.body)) == (int(status[:3]), body)
        assert answer.headers["retry-after"] == "7"
    for status, body in (
        ("401 Unauthorized", b'{"error": {"message": "Incorrect API key"}}'),
        ("402 Payment Required", b"{}"),
        ("401 Unauthorized", 5 * ALL_BYTES),
    ):
        answer = await answer_to(status, body)
        assert (answer.status, answer.error["code"]) == (502, "provider_unavailable")
        assert "Incorrect" not in answer.error["message"]
    answer = await answer_to("400 Bad Request", b'{"error": {"message": "bad key %b"}}' % KEY.encode())
    assert answer.status == 400
    assert KEY.encode() not in answer.body
    limited = b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}'
    answer = await answer_to("429 Too Many", limited)  # the last: nobody is asked until its time is over
    assert (answer.status, bytes(answer.body), answer.headers["retry-after"]) == (429, limited, "7")
    net.logged.clear()


@on_uvloop
async def test_nothing_answered_is_asked_again_and_an_answer_is_not(net: Net) -> None:
    bodies: list[bytes] = []

    async def handler(peer: Peer) -> None:
        bodies.append(await peer.request())
        if len(bodies) == 2:
            await peer.answer("503 Busy", b"busy")
        else:
            peer.reset()

    gateway = await net.gateway(await net.upstream(handler), lane=LANE, retries=2)
    answer = await gateway.ask("POST", "/v1/embeddings", ASK)
    assert (answer.status, bytes(answer.body)) == (503, b"busy")
    assert bodies == 2 * [b'{"model":"mock","input": "hello"}'.replace(b": ", b":")]
    large = await gateway.ask("POST", "/p/up/v1/audio/x", 16 * ALL_BYTES, {"content-type": "audio/wav"})
    assert large.status == 502
    assert len(bodies) == 3
    net.logged.clear()


@pytest.mark.parametrize(
    ("method", "path", "times"),
    [
        ("POST", "/p/up/v1/fine_tuning/jobs", 1),
        ("POST", "/v1/images/generations", 1),
        ("POST", "/v1/audio/speech", 1),
        ("DELETE", "/p/up/v1/models/mine", 1),
        ("GET", "/p/up/v1/fine_tuning/jobs", 3),
        ("POST", "/v1/embeddings", 3),
        ("POST", "/p/up/v1/moderations", 3),
    ],
)
@on_uvloop
async def test_what_may_have_been_carried_out_is_sent_once(net: Net, method: str, path: str, times: int) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream, lane=LANE, retries=2)
    answer = await gateway.ask(method, path, ASK if method == "POST" else None)
    assert (answer.status, answer.error["code"]) == (502, "network")
    assert len(upstream.peers) == times
    net.logged.clear()


@on_uvloop
async def test_a_request_that_was_never_sent_is_sent_again(net: Net) -> None:
    """No connection could be made: whatever the request does, it has done nothing."""
    upstream = await net.upstream(embeds)
    gateway = await net.gateway(upstream, lane=LANE, retries=2)
    await upstream.stop()
    refused = await gateway.ask("POST", "/p/up/v1/fine_tuning/jobs", ASK)
    assert refused.status == 502
    metrics = (await gateway.ask("GET", "/metrics")).body.decode()
    assert re.search(r"^gai_fast_retries_total\S* 2(?:\.0)?$", metrics, re.MULTILINE), metrics
    net.logged.clear()


@pytest.mark.parametrize(("path", "times"), [("/p/up/v1/fine_tuning/jobs", 1), ("/v1/embeddings", 2)])
@on_both_loops
async def test_a_pooled_connection_that_dies_with_a_request_repeats_none_that_may_have_been_carried_out(
    net: Net, path: str, times: int
) -> None:
    asked: list[bytes] = []

    async def handler(peer: Peer) -> None:
        while True:
            first = await peer.request()
            if first:
                asked.append(first)
                if len(asked) == 1:
                    peer.reset()
                    return
            await peer.answer("200 OK", b"{}", "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler), lane=LANE)
    assert (await gateway.ask("GET", "/p/up/v1/fine_tuning/jobs")).status == 200
    answer = await gateway.ask("POST", path, ASK)
    assert answer.status == (200 if times == 2 else 502)
    assert len(asked) == times
    net.logged.clear()


# ---- limits, figures, spend ------------------------------------------------------------------------------------------


@on_uvloop
async def test_a_request_counts_for_the_limits_of_its_key_and_of_the_server(net: Net) -> None:
    may_end = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"a"))
        await may_end.wait()
        await peer.send(b"0\r\n\r\n")

    limits = KeyLimits(requests_per_minute=3, streams=1)
    gateway = await net.gateway(
        await net.upstream(handler),
        lane=LANE,
        streams=2,
        keys=(key("alice", pass_upstreams=("up",), limits=limits), key("bob", pass_upstreams=("up",))),
    )
    clients = []
    for name in ("alice", "bob"):
        client = await gateway.connect()
        client.request("POST", "/p/up/v1/audio/x", {}, bearer(name))
        response = await client.response()
        await response.until(b"a")
        clients.append(response)
    assert clients[0].headers["x-ratelimit-remaining-requests"] == "2"
    answer = await gateway.ask("POST", "/p/up/v1/audio/x", {}, bearer("alice"))
    assert (answer.status, answer.error["reason"]) == (429, "streams")
    answer = await gateway.ask("POST", "/p/up/v1/audio/x", {}, bearer("bob"))
    assert (answer.status, answer.error["reason"]) == (503, "streams")
    may_end.set()
    for response in clients:
        assert (await response.rest()).ended
    assert (await gateway.ask("POST", "/p/up/v1/audio/x", {}, bearer("alice"))).status == 200
    assert (await gateway.ask("POST", "/p/up/v1/audio/x", {}, bearer("alice"))).status == 200
    answer = await gateway.ask("POST", "/p/up/v1/audio/x", {}, bearer("alice"))
    assert (answer.status, answer.error["reason"]) == (429, "requests_per_minute")


@on_uvloop
async def test_a_key_with_a_limit_of_spend_needs_a_cost_that_is_known(net: Net) -> None:
    upstream = await net.upstream(embeds)
    limits = KeyLimits(spend=SpendLimit(10 * UNIT, "total"))
    keys = (key("alice", pass_upstreams=("up",), limits=limits),)
    price = Price(UNIT, UNIT, UNIT, UNIT, UNIT)
    gateway = await net.gateway(upstream, lane=LANE, keys=keys, price=price)
    answer = await gateway.ask("POST", "/v1/embeddings", ASK, bearer("alice"))
    assert (answer.status, answer.headers["x-gai-cost"]) == (200, "0.000008")
    form = {**bearer("alice"), "content-type": "multipart/form-data; boundary=x"}
    for path, headers in (
        ("/v1/audio/speech", bearer("alice")),
        ("/p/up/v1/embeddings", bearer("alice")),
        ("/v1/audio/transcriptions", form),
    ):
        answer = await gateway.ask("POST", path, ASK, headers)
        assert (answer.status, "limit of spend" in answer.error["message"]) == (403, True), path
    by_request = await net.gateway(upstream, lane=LANE, keys=keys, price=Price(0, 0, 0, 0, 0, request=4 * UNIT))
    for _ in range(2):
        answer = await by_request.ask("POST", "/v1/audio/speech", ASK, bearer("alice"))
        assert (answer.status, answer.headers["x-gai-cost"]) == (200, "4")
    answer = await by_request.ask("POST", "/v1/audio/speech", ASK, bearer("alice"))
    assert (answer.status, answer.error["code"]) == (429, "rate_limited")


IMAGES = "/v1/images/generations"


@on_uvloop
@pytest.mark.parametrize("route", [IMAGES, "/v1/images/edits"])
@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        (KeyLimits(spend=SpendLimit(100 * UNIT, "total")), "a limit of spend"),
        (KeyLimits(tokens_per_minute=10_000), "a limit of tokens"),
    ],
)
async def test_images_without_counts_need_a_price_of_their_own_under_a_limit(
    net: Net, route: str, limits: KeyLimits, kind: str
) -> None:
    async def draws(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer("200 OK", b'{"created": 1, "data": [{"url": "x"}]}', "Content-Type: application/json")

    upstream, keys = await net.upstream(draws), (key("alice", limits=limits),)
    ask, tokens = {"model": "m", "prompt": "a cat", "n": 3}, Price(UNIT, UNIT, UNIT, UNIT, UNIT)
    refused = await (await net.gateway(upstream, lane=LANE, keys=keys, price=tokens)).ask(
        "POST", route, ask, bearer("alice")
    )
    assert (refused.status, kind in refused.error["message"]) == (403, True)
    assert "`request` or `image`" in refused.error["message"]
    for price, cost in (
        (Price(0, 0, 0, 0, 0, request=4 * UNIT), "4"),
        (Price(0, 0, 0, 0, 0, image=4 * UNIT), "12"),
        (replace(tokens, request=UNIT, image=4 * UNIT), "13.000002"),
    ):
        gateway = await net.gateway(upstream, lane=LANE, keys=keys, price=price)
        answer = await gateway.ask("POST", route, ask, bearer("alice"))
        assert (answer.status, answer.headers["x-gai-cost"]) == (200, cost)


@on_uvloop
async def test_images_are_reserved_by_their_number(net: Net) -> None:
    async def never(peer: Peer) -> None:
        raise AssertionError("nothing is asked")

    keys = (key("alice", limits=KeyLimits(spend=SpendLimit(10 * UNIT, "total"))),)
    price = Price(0, 0, 0, 0, 0, image=4 * UNIT)
    gateway = await net.gateway(await net.upstream(never), lane=LANE, keys=keys, price=price)
    for number in (3, 2**60, 10**30):
        answer = await gateway.ask("POST", IMAGES, {"model": "m", "prompt": "x", "n": number}, bearer("alice"))
        assert (answer.status, answer.error["code"]) == (429, "rate_limited"), number


@on_uvloop
async def test_images_of_models_that_count_them_need_no_price_of_their_own(net: Net) -> None:
    async def draws(peer: Peer) -> None:
        await peer.request()
        usage = {"input_tokens": 5, "output_tokens": 1000, "total_tokens": 1005}
        await peer.answer("200 OK", json.dumps({"data": [], "usage": usage}).encode(), "Content-Type: application/json")

    keys = (key("alice", limits=KeyLimits(spend=SpendLimit(10 * UNIT, "total"))),)
    settings = settings_for((await net.upstream(draws)).url, lane=LANE, keys=keys)
    model = replace(settings.models["m"], id="gpt-image-1", price=Price(UNIT, UNIT, UNIT, UNIT, UNIT))
    gateway = Gateway(net, await start(replace(settings, models={"m": model})))
    net.stack.push_async_callback(gateway.running.close)
    answer = await gateway.ask("POST", IMAGES, {"model": "m", "prompt": "x"}, bearer("alice"))
    assert (answer.status, answer.headers["x-gai-cost"]) == (200, "0.001005")


@on_uvloop
@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"prompt_tokens": 2**32 - 1, "total_tokens": 2**32 - 1}, "0.000002"),
        ({"completion_tokens": 7}, "0.000009"),
        ({"prompt_tokens": True, "total_tokens": 7}, "0.000007"),
    ],
)
async def test_counts_of_a_transfer_that_are_not_measured_are_estimated(
    net: Net, usage: dict[str, Any], cost: str
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        body = json.dumps({**EMBEDDINGS, "usage": usage}).encode()
        await peer.answer("200 OK", body, "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler), lane=LANE, price=Price(UNIT, UNIT, UNIT, UNIT, UNIT))
    assert (await gateway.ask("POST", "/v1/embeddings", ASK)).headers["x-gai-cost"] == cost
    assert net.warned("counts more than its model has room for") == (cost == "0.000002")


@on_uvloop
async def test_a_count_of_zero_is_no_count(net: Net) -> None:
    """LM Studio's embeddings."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        body = json.dumps({**EMBEDDINGS, "usage": {"prompt_tokens": 0, "total_tokens": 0}}).encode()
        await peer.answer("200 OK", body, "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler), lane=LANE, price=Price(UNIT, UNIT, UNIT, UNIT, UNIT))
    answer = await gateway.ask("POST", "/v1/embeddings", ASK)
    assert answer.headers["x-gai-cost"] == "0.000002", "its text is `hello`"


@on_uvloop
async def test_a_client_that_leaves_before_the_answer_pays_for_what_was_sent(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    upstream = await net.upstream(handler)
    price = Price(0, 0, 0, 0, 0, request=4 * UNIT)
    gateway = await net.gateway(upstream, lane=LANE, price=price, max_connections=1)
    transfers = gateway.running.engine.transfers
    for count, path in enumerate(("/v1/images/generations", "/v1/audio/speech"), 1):
        first, waiting = await gateway.connect(), await gateway.connect()
        first.request("POST", path, ASK)
        await until(lambda: len(upstream.peers) == count and upstream.peers[-1].body)  # noqa: B023  # awaited here
        waiting.request("POST", path, ASK)
        await until(lambda: len(transfers) == 2)
        waiting.close()
        await until(lambda: len(transfers) == 1)
        first.close()
        await until(lambda: not transfers)
        (row,) = await gateway.running.engine.ledger.spend("key")
        assert (row.amount, row.requests) == (count * 4 * UNIT, count)


@on_uvloop
async def test_metrics_have_the_route_the_upstream_the_tokens_and_the_bytes(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(embeds), lane=LANE)
    await gateway.ask("POST", "/v1/embeddings", ASK)
    await gateway.ask("POST", "/p/up/v1/embeddings", ASK)
    await gateway.ask("POST", "/p/up/v1/none", ASK)
    text = (await gateway.ask("GET", "/metrics")).body.decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]

    def value(name: str, *labels: str) -> float:
        found = [line for line in lines if line.startswith(name) and all(label in line for label in labels)]
        assert len(found) == 1, (name, labels, found)
        return float(found[0].rpartition(" ")[2])

    assert value("gai_fast_requests_total{", 'endpoint="/v1/embeddings"', 'model="m"', 'status="200"') == 1
    assert value("gai_fast_requests_total{", 'endpoint="/p/{}"', 'model="other"', 'status="200"') == 1
    assert value("gai_fast_requests_total{", 'endpoint="/p/{}"', 'status="404"') == 1
    assert value("gai_fast_tokens_total{", 'model="m"', 'type="input"') == 8


@on_uvloop
async def test_a_request_gets_the_token_of_its_upstreams_identity(net: Net) -> None:
    heads.clear()
    identity = IdentitySettings(command=("sh", "-c", "echo tok-0123456789"))
    gateway = await net.gateway(await net.upstream(embeds), lane=LANE, identity=identity)
    assert (await gateway.ask("POST", "/v1/embeddings", ASK, {"authorization": "Bearer mine"})).status == 200
    long = {"content-type": "audio/wav"}
    assert (await gateway.ask("POST", "/p/up/v1/audio/x", 12 * ALL_BYTES, long)).status == 200
    assert [lines["authorization"] for lines in heads] == 2 * ["Bearer tok-0123456789"]


# ---- SDKs ------------------------------------------------------------------------------------------------------------


def openai_answers(requests: list[tuple[str, dict[str, str], bytes]]) -> Any:
    """Returns an upstream with the routes of OpenAI that are passed through."""
    image = {"created": 1, "data": [{"b64_json": "aGk="}], "usage": {
        "input_tokens": 5, "output_tokens": 9, "total_tokens": 14,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 5}}}  # fmt: skip
    moderation = {"id": "modr-1", "model": "omni-moderation-latest", "results": [
        {"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}]}  # fmt: skip
    answers: dict[str, Any] = {
        "/v1/embeddings": EMBEDDINGS,
        "/v1/moderations": moderation,
        "/v1/images/generations": image,
        "/v1/images/edits": image,
        "/v1/audio/transcriptions": {"text": "hello", "usage": {"type": "duration", "seconds": 1}},
    }

    async def handler(peer: Peer) -> None:
        while True:
            body = await peer.request()
            lines = head_lines(peer)
            path = lines[""].split()[1]
            requests.append((path, lines, body))
            if path == "/v1/audio/speech":
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n")
                await peer.send(chunk(ALL_BYTES), chunk(ALL_BYTES[::-1]), b"0\r\n\r\n")
            else:
                await peer.answer("200 OK", json.dumps(answers[path]).encode(), "Content-Type: application/json")

    return handler


async def answers_of(base_url: str, net: Net) -> list[Any]:
    client = openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0)
    net.stack.push_async_callback(client.close)
    found: list[Any] = [
        await client.embeddings.create(model="m", input=["a", "b"], dimensions=3, encoding_format="float"),
        await client.moderations.create(model="m", input="bad"),
        await client.images.generate(model="m", prompt="a cat"),
        await client.images.edit(model="m", prompt="a cat", image=("a.png", ALL_BYTES, "image/png")),
        await client.audio.transcriptions.create(model="m", file=("a.wav", 12 * ALL_BYTES, "audio/wav")),
    ]
    async with client.audio.speech.with_streaming_response.create(model="m", input="hi", voice="alloy") as speech:
        found.append(b"".join([piece async for piece in speech.iter_bytes()]))
    return [each if isinstance(each, bytes) else each.model_dump() for each in found]


@on_uvloop
async def test_the_openai_sdk_gets_through_the_gateway_what_it_gets_straight(net: Net) -> None:
    requests: list[tuple[str, dict[str, str], bytes]] = []
    upstream = await net.upstream(openai_answers(requests))
    gateway: Gateway = await net.gateway(upstream, lane=LANE)
    straight = await answers_of(upstream.url, net)
    asked = list(requests)
    requests.clear()
    assert await answers_of(gateway.url, net) == straight
    for (path, theirs, body), (its_path, its, its_body) in zip(asked, requests, strict=True):
        assert path == its_path
        if "multipart" in theirs["content-type"]:
            boundary = theirs["content-type"].partition("boundary=")[2].encode()
            its_boundary = its["content-type"].partition("boundary=")[2].encode()
            assert body.replace(boundary, b"") == its_body.replace(its_boundary, b"")
        else:
            assert json.loads(body) | {"model": "mock"} == json.loads(its_body)


# ---- Responses -------------------------------------------------------------------------------------------------------


@on_uvloop
async def test_a_conversation_is_compacted_by_an_upstream_that_can(net: Net) -> None:
    compacted = {
        "id": "resp_1",
        "object": "response.compaction",
        "output": [],
        "usage": {"input_tokens": 9, "output_tokens": 2},
    }
    paths: list[str] = []
    bodies: list[Any] = []

    async def handler(peer: Peer) -> None:
        while True:
            bodies.append(json.loads(await peer.request()))
            paths.append(head_lines(peer)[""].split()[1])
            await peer.answer("200 OK", json.dumps(compacted).encode(), "Content-Type: application/json")

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream, native_lane=("/v1/responses/compact",))
    ask = {"model": "native/mock", "input": [{"role": "user", "content": "hi"}], "instructions": "be brief"}
    answer = await gateway.ask("POST", "/v1/responses/compact", ask)
    assert (answer.status, answer.json) == (200, compacted)
    assert (paths, bodies) == (["/v1/responses/compact"], [{**ask, "model": "mock"}])
    for model, status, code in (
        ("m", 400, "unsupported"),
        ("claude", 400, "unsupported"),
        (None, 400, "invalid_request"),
    ):
        body = {**ask, "model": model} if model else {"input": "hi"}
        answer = await gateway.ask("POST", "/v1/responses/compact", body)
        assert (answer.status, answer.error["code"]) == (status, code), answer.error
    assert len(paths) == 1


@on_uvloop
async def test_a_key_compacts_only_what_it_got_here(net: Net) -> None:
    upstream = await net.upstream(embeds)
    gateway = await net.gateway(upstream, native_lane=("/v1/responses/compact",), keys=(key("alice"),))
    ask = {"model": "native/x", "previous_response_id": "resp_theirs"}
    answer = await gateway.ask("POST", "/v1/responses/compact", ask, bearer("alice"))
    assert (answer.status, answer.error["code"]) == (400, "previous_response_not_found")
    assert not upstream.peers
    answer = await gateway.ask("POST", "/v1/responses/compact", {"model": "native/x", "input": "hi"}, bearer("alice"))
    assert answer.status == 200


@on_uvloop
async def test_input_tokens_are_estimated_where_the_upstream_counts_none(net: Net) -> None:
    gateway = await net.gateway(await net.upstream(embeds))
    client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    net.stack.push_async_callback(client.close)
    for model in ("m", "claude", "native/x"):
        counted = await client.responses.input_tokens.count(model=model, input="Tell me a story, and a long one")
        assert (counted.object, counted.input_tokens) == ("response.input_tokens", 8)
    tool = {"type": "function", "name": "weather", "description": "Tells the weather " * 20, "parameters": {}}
    added = [{"role": "user", "content": "hi"}, {"type": "additional_tools", "role": "developer", "tools": [tool]}]
    for asked in ({"input": "hi", "tools": [tool]}, {"input": added}):
        answer = await gateway.ask("POST", "/v1/responses/input_tokens", {"model": "m", **asked})
        assert 90 < answer.json["input_tokens"] < 130
    answer = await gateway.ask("POST", "/v1/responses/input_tokens", {"model": "m", "input": "hi"})
    assert answer.headers["x-gai-usage-source"] == "estimated"
    answer = await gateway.ask("POST", "/v1/responses/input_tokens", {"model": "m", "input": 1})
    assert answer.status == 400
