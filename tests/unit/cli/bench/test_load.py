"""`cli/bench/load.py`: what is asked, how answers are read, how times are counted; `test_bench.py` makes load."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web

from gai_fast.cli.bench.load import Load, LoadedEndpoint, LoadHistogram, Measured, NativeReader, endpoint
from gai_fast.cli.local_server import LocalServer
from gai_fast.model.errors import Error
from tests.waiting import SECONDS

SSE = {"content-type": "text/event-stream; charset=utf-8"}
STREAM = (
    b'event: start\ndata: {"type":"start","seq":1,"provider":"x"}\n\n'
    b'event: text.delta\ndata: {"type":"text.delta","seq":2,"text":"caf\xc3\xa9"}\n\n: ping\n'
    b'event: text.delta\ndata: {"type":"text.delta","seq":3,"text":"!"}\n\n'
    b'event: finish\ndata: {"type":"finish","seq":4,"usage":{"output_tokens":2},"finish_reason":"stop"}\n\n'
    b'event: done\ndata: {"type":"done","finished":true}\n\n'
)
TYPES = ["start", "text.delta", "text.delta", "finish", "done"]


class TestHistogram:
    def test_of_nothing_nothing_is_known(self) -> None:
        empty = LoadHistogram()
        assert (empty.mean, empty.percentile(50), empty.buckets()) == (None, None, [])

    def test_a_percentile_is_the_nearest_rank_within_half_a_percent(self) -> None:
        values = [random.Random(seed).lognormvariate(-4, 2) for seed in range(1000)]
        counted = LoadHistogram()
        for value in values:
            counted.add(value)
        ordered = sorted(values)
        for percent in (1, 50, 90, 99, 99.9, 100):
            exact = ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
            assert counted.percentile(percent) == pytest.approx(exact, rel=0.0051)

    def test_count_mean_and_most_are_exact(self) -> None:
        counted = LoadHistogram()
        for value in (0.001, 0.002, 0.006):
            counted.add(value)
        assert (counted.count, counted.mean, counted.most) == (3, pytest.approx(0.003), 0.006)
        assert counted.percentile(100) == pytest.approx(0.006, rel=0.0051)
        assert counted.percentile(100) <= counted.most

    def test_what_is_shorter_than_a_microsecond_is_nought(self) -> None:
        counted = LoadHistogram()
        counted.add(0.0)
        counted.add(9e-7)
        counted.add(1.0)
        assert counted.percentile(50) == 0.0
        assert [count for _, count in counted.buckets()] == [2, 1]


def read(
    pieces: Sequence[bytes], *, status: int = 200, headers: dict[str, str] = SSE, error: Error | None = None
) -> Any:
    reader = NativeReader()
    events = [*reader.head(status, headers)]
    for piece in pieces:
        events += reader.feed(piece)
    return [*events, *reader.end(error)]


class TestNativeReader:
    def test_events_are_reported_whole_byte_by_byte_and_at_random_edges(self) -> None:
        whole = read([STREAM])
        assert [event["type"] for event in whole] == TYPES
        assert whole[3]["usage"] == {"output_tokens": 2}
        assert read([STREAM[at : at + 1] for at in range(len(STREAM))]) == whole
        for seed in range(20):
            cuts = sorted(random.Random(seed).sample(range(len(STREAM)), 5))
            assert read([STREAM[a:b] for a, b in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)]) == whole

    def test_an_error_in_the_stream_is_reported_with_its_code(self) -> None:
        reported = b'data: {"type":"error","error":{"code":"overloaded","message":"busy","temporary":true}}\n\n'
        assert read([reported, b'data: {"type":"done","finished":false}\n\n'])[0]["error"] == {
            "code": "overloaded",
            "message": "busy",
        }

    @pytest.mark.parametrize(
        ("status", "body", "code", "message"),
        [
            (429, b'{"error":{"code":"rate_limited","message":"slow down"}}', "rate_limited", "slow down"),
            (503, b"<html>no</html>", "provider_unavailable", "answered with status 503"),
            (404, b'{"detail":"Not Found"}', "not_found", "answered with status 404"),
            (401, b'{"error":"x"}', "unauthorized", "answered with status 401"),
        ],
    )
    def test_a_refusal_is_an_error_with_its_own_code_or_that_of_its_status(
        self, status: int, body: bytes, code: str, message: str
    ) -> None:
        first, last = read([body[:5], body[5:]], status=status, headers={"content-type": "text/html"})
        assert first == {"type": "error", "error": {"code": code, "message": message}}
        assert last == {"type": "done", "finished": False}

    def test_what_is_no_stream_is_an_error_whatever_its_status(self) -> None:
        first, _ = read([b"<html>hello</html>"], headers={"content-type": "text/html"})
        assert first["error"] == {
            "code": "provider_unavailable",
            "message": "answered with text/html, not with a stream",
        }

    def test_a_stream_without_its_end_is_an_error(self) -> None:
        *events, error, _ = read([STREAM[:-60]])
        assert [event["type"] for event in events] == TYPES[:3]
        assert error["error"]["code"] == "network"

    def test_a_stream_that_broke_says_why(self) -> None:
        broke = Error("timeout", "nothing came for 60 s")
        assert read([STREAM[:90]], error=broke)[-2]["error"] == {"code": "timeout", "message": "nothing came for 60 s"}

    @pytest.mark.parametrize(
        "data", [b"[DONE]", b"{", b"[]", b'{"type":1}', b'{"choices":[]}', b'{"type":"x","error":1}']
    )
    def test_what_is_no_event_is_an_error_and_ends_the_reading(self, data: bytes) -> None:
        first, last = read([b"data: %b\n\n" % data, STREAM])
        assert first["error"]["code"] == "provider_unavailable"
        assert last["type"] == "done"

    def test_an_event_that_is_nested_too_deep_is_an_error(self) -> None:
        deep = b'{"type":"x","y":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        assert read([b"data: %b\n\n" % deep])[0]["error"]["code"] == "provider_unavailable"
        refusal = read([b"[" * 100_000], status=503)[0]["error"]
        assert refusal == {"code": "provider_unavailable", "message": "answered with status 503"}

    def test_after_the_end_nothing_counts(self) -> None:
        assert read([STREAM, STREAM], error=Error("network", "reset")) == read([STREAM])


def ask(url: str, **given: Any) -> LoadedEndpoint:
    defaults = {"format": "gai", "model": "", "prompt": "hi", "max_tokens": None, "api_key": None, "headers": {}}
    return endpoint(url, **{**defaults, **given})


class TestEndpoint:
    @pytest.mark.parametrize(
        ("url", "format", "path"),
        [
            ("http://h:1", "gai", "/api/v1/stream"),
            ("http://h:1/", "gai", "/api/v1/stream"),
            ("http://h:1/gateway/api/v1/stream", "gai", "/gateway/api/v1/stream"),
            ("http://h:1", "openai", "/v1/chat/completions"),
            ("http://h:1/v1", "openai", "/v1/chat/completions"),
            ("http://h:1/v1/", "openai-compatible", "/v1/chat/completions"),
            ("http://h:1/v1/chat/completions", "openai", "/v1/chat/completions"),
            ("http://h:1/proxy/v1", "openai", "/proxy/v1/chat/completions"),
            ("http://h:1", "anthropic", "/v1/messages"),
            ("http://h:1/v1/messages", "anthropic", "/v1/messages"),
            ("http://h:1", "groq", "/openai/v1/chat/completions"),
        ],
    )
    def test_a_url_may_be_the_endpoint_what_an_sdk_takes_or_only_the_host(
        self, url: str, format: str, path: str
    ) -> None:
        asked = ask(url, format=format, model="m")
        assert (asked.base, asked.path, asked.url) == ("http://h:1", path, f"http://h:1{path}")

    def test_the_native_request_holds_what_was_given_and_no_more(self) -> None:
        assert json.loads(ask("http://h").body) == {"query": "hi"}
        full = ask("http://h", model="m", max_tokens=5, api_key="k")
        assert json.loads(full.body) == {"model": "m", "query": "hi", "max_tokens": 5}
        assert ("authorization", "Bearer k") in full.headers

    def test_a_providers_request_is_its_own(self) -> None:
        asked = ask("http://h", format="anthropic", model="m", max_tokens=5, api_key="k")
        body = json.loads(asked.body)
        assert (body["model"], body["max_tokens"], body["stream"]) == ("m", 5, True)
        assert dict(asked.headers)["x-api-key"] == "k"

    def test_a_header_of_the_user_wins(self) -> None:
        sent = ask("http://h", api_key="k", headers={"authorization": "Basic x", "x-team": "a"}).headers
        assert dict(sent)["authorization"] == "Basic x"
        assert dict(sent)["x-team"] == "a"
        assert len({name for name, _ in sent}) == len(sent)

    @pytest.mark.parametrize(
        ("url", "given", "why"),
        [
            ("h:1", {}, "the URL must begin with http"),
            ("localhost", {}, "the URL must begin with http"),
            ("http://u:secret@h", {}, "must not hold credentials"),
            ("http://h/?q=1", {}, "must not hold a query"),
            ("http://h", {"format": "nope", "model": "m"}, "unknown provider 'nope'"),
            ("http://h", {"format": "opnai"}, "unknown provider 'opnai'; did you mean 'openai'"),
            ("http://h", {"format": "openai"}, "needs a model: name one with --model"),
            ("http://h", {"format": "demo", "model": "demo"}, "is a recording"),
            ("http://h", {"headers": {"host": "x"}}, "set by the connection itself"),
            ("http://h", {"headers": {"x": "a\r\nb"}}, "holds a line break"),
        ],
    )
    def test_what_cannot_be_asked_is_refused_without_a_secret(self, url: str, given: dict[str, Any], why: str) -> None:
        with pytest.raises(ValueError, match=why) as caught:
            ask(url, **given)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("tokens", [b'"many"', b"[1]", b"1e308", b"null"])
async def test_usage_of_another_type_does_not_count_and_the_load_ends(tokens: bytes) -> None:
    finish = b'{"type":"finish","usage":{"source":"counted","output_tokens":%b}}' % tokens
    measured = await load_of(b'data: %b\n\ndata: {"type":"done"}\n\n' % finish)
    assert (measured.requests, measured.errors.total(), measured.output_tokens) == (2, 0, None)


async def test_the_words_of_an_endpoint_make_no_kinds_of_errors_and_control_no_terminal() -> None:
    error = b'{"type":"error","error":{"code":"\\u001b[2J","message":"\\u001b]0;x"}}'
    measured = await load_of(b'data: %b\n\ndata: {"type":"done"}\n\n' % error)
    assert measured.errors == {"provider_unavailable": 2}
    assert measured.first_error == "provider_unavailable: ]0;x"


async def load_of(body: bytes) -> Measured:
    """Returns the figures of two requests that are answered with this stream."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers=SSE)

    app = web.Application()
    app.router.add_post("/api/v1/stream", answer)
    async with LocalServer(app) as server:
        load = Load(ask(server.url), connections=1, requests=2, rate=None, duration=None, timeout=SECONDS)
        async with asyncio.timeout(SECONDS):
            await load.run()
    return load.measured
