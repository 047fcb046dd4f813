"""`compression`: streams in a content coding, by the client's choice, whatever serves them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from gai_fast.cli.mock.command import Fault
from gai_fast.core import compression
from gai_fast.core.compression import CODINGS
from tests.integration.gateway import MESSAGES, QUERY, Net, Response, on_both_loops, on_uvloop
from tests.integration.test_durable import STREAMS
from tests.integration.test_idempotency import WAYS, site

NATIVE = "/api/v1/stream"
ASKED: dict[str, Any] = {**QUERY, "model": "m"}
CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES, "stream": True}


def decoded(response: Response) -> bytes:
    """Returns the body, read as its `content-encoding` says."""
    body, coding = bytes(response.body), response.headers.get("content-encoding")
    read: Callable[[bytes], bytes] = bytes
    if coding == "gzip":
        read = zlib.decompressobj(zlib.MAX_WBITS + 16).decompress
    elif coding == "zstd":
        zstd: Any = import_module(compression._ZSTD)
        read = zstd.ZstdDecompressor().decompress
    elif coding == "br":
        brotli: Any = import_module("brotli")
        read = brotli.Decompressor().process
    return read(body)


async def ask(
    net: Net, host: str, path: str, body: Any, accept: str | None, prefix: str = "", method: str = "POST"
) -> Response:
    client = await net.connect(host)
    client.request(method, f"{prefix}{path}", body, {} if accept is None else {"accept-encoding": accept})
    return await client.response()


@on_both_loops
@WAYS
async def test_a_client_that_wants_a_coding_gets_the_same_stream_in_it(net: Net, way: str) -> None:
    where = await site(net, way, (await net.mock(deltas=40)).url, compression=CODINGS, envelope="compact")
    for path, body in ((NATIVE, ASKED), (f"{NATIVE}?framing=ndjson", ASKED), ("/v1/chat/completions", CHAT)):
        plain = await (await ask(net, where.host, path, body, None, where.prefix)).rest()
        assert "content-encoding" not in plain.headers
        assert plain.headers["vary"] == "accept-encoding"
        for coding in CODINGS:
            response = await (await ask(net, where.host, path, body, coding, where.prefix)).rest()
            assert (response.status, response.ended) == (200, True)
            assert (response.headers["content-encoding"], response.headers["vary"]) == (coding, "accept-encoding")
            assert len(decoded(response).split(b"\n")) == len(plain.body.split(b"\n"))
            assert decoded(response)[-20:] == plain.body[-20:]
            assert len(response.body) < len(plain.body)


@on_uvloop
@WAYS
async def test_without_the_key_nothing_is_compressed(net: Net, way: str) -> None:
    where = await site(net, way, (await net.mock(deltas=2)).url)
    response = await (await ask(net, where.host, NATIVE, ASKED, "gzip", where.prefix)).rest()
    assert "content-encoding" not in response.headers
    assert "vary" not in response.headers
    assert response.types[-1] == "done"


@on_uvloop
@pytest.mark.parametrize("fast_lane", ["auto", "off"])
async def test_every_event_can_be_read_when_it_comes(net: Net, fast_lane: str) -> None:
    """A keep-alive as well: nothing waits in the compressor for what follows."""
    mock = await net.mock(deltas=3, fault=Fault("stall", 2))
    gateway = await net.gateway(mock, compression=("gzip",), fast_lane=fast_lane, heartbeat=0.05)
    response = await ask(net, gateway.host, NATIVE, ASKED, "gzip")
    while decoded(response).count(b"text.delta") < 4 or b": ping\n" not in decoded(response):
        assert await response.more()


@on_uvloop
async def test_followers_of_a_durable_stream_have_a_coding_each(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=30), compression=("zstd", "gzip"))
    first = await (await ask(net, gateway.host, NATIVE, {**ASKED, "resumable": True}, "gzip")).rest()
    path = f"{STREAMS}/{first.headers['x-gai-stream-id']}"
    plain = await (await ask(net, gateway.host, path, None, None, method="GET")).rest()
    second = await (await ask(net, gateway.host, path, None, "zstd", method="GET")).rest()
    assert (first.headers["content-encoding"], second.headers["content-encoding"]) == ("gzip", "zstd")
    assert decoded(first) == decoded(second) == plain.body
    assert b"id: " in plain.body


@on_uvloop
async def test_a_whole_answer_and_a_refusal_are_sent_as_they_are(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=2), compression=("gzip",))
    whole = await (await ask(net, gateway.host, NATIVE, {**ASKED, "stream": False}, "gzip")).rest()
    refused = await (await ask(net, gateway.host, NATIVE, {"query": 1}, "gzip")).rest()
    assert "content-encoding" not in {**whole.headers, **refused.headers}
    assert (whole.json["finish_reason"], refused.error["code"]) == ("stop", "invalid_request")


@on_uvloop
async def test_a_stream_that_breaks_off_does_not_look_complete(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3, fault=Fault("stall", 2)), compression=("gzip",))
    response = await ask(net, gateway.host, NATIVE, ASKED, "gzip")
    while b"text.delta" not in decoded(response):
        assert await response.more()
    await gateway.running.close()
    await response.rest()
    reader = zlib.decompressobj(zlib.MAX_WBITS + 16)
    result = reader.decompress(bytes(response.body))
    assert response.ended is reader.eof is (b'"type":"done"' in result)
