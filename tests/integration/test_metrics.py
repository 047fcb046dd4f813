"""The figures of a stream: on `/metrics`, in the access log, in a whole answer."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NoReturn

import pytest

import gai_fast
from gai_fast.cli.mock.command import Fault
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import BreakerSettings, KeyLimits, KeySettings, key_digest
from gai_fast.server.serving import start
from tests.integration.gateway import (
    CHAT,
    END,
    MESSAGES,
    NATIVE,
    QUERY,
    SSE_HEAD,
    Client,
    Gateway,
    Net,
    Peer,
    delta,
    on_both_loops,
    on_uvloop,
    settings_for,
)
from tests.integration.test_retry import BUSY, Steps, answer, gateway_for
from tests.waiting import until
from tests.wire import chunk


@pytest.fixture(autouse=True)
def prometheus(unavailable: Callable[[str], NoReturn]) -> None:
    if find_spec("prometheus_client") is None:
        unavailable("prometheus_client")


async def scraped(gateway: Gateway) -> dict[str, float]:
    """Returns the samples, by name and labels."""
    response = await gateway.ask("GET", "/metrics")
    assert response.status == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    lines = [line for line in response.body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def total(samples: dict[str, float], name: str, *labels: str) -> float:
    """Returns the sum of all samples of a name that have these labels."""
    return sum(
        value
        for key, value in samples.items()
        if key.startswith(f"gai_fast_{name}{{") and all(label in key for label in labels)
    )


@on_uvloop
async def test_every_count_of_the_configuration_is_there_before_the_first_request(net: Net) -> None:
    """A rate cannot see the first increase of a count that was not there."""
    gateway = await net.gateway(await net.mock())
    samples = await scraped(gateway)
    of_m = ('provider="openai-compatible"', 'model="m"')
    for path in (NATIVE, CHAT, "/v1/messages", "/v1/responses"):
        labels = f'code="",endpoint="{path}",model="m",outcome="finished",provider="openai-compatible",status="200"'
        assert samples[f"gai_fast_requests_total{{{labels}}}"] == 0
    for kind in ("input", "output", "cached_input", "cache_write_input", "reasoning"):
        assert samples[f'gai_fast_tokens_total{{model="m",provider="openai-compatible",type="{kind}"}}'] == 0
    assert any(name.startswith("gai_fast_retries_total{") and all(label in name for label in of_m) for name in samples)
    assert samples['gai_fast_upstream_connections{upstream="up"}'] == 0
    assert samples["process_start_time_seconds"] > 0
    assert samples["process_open_fds"] > 0
    await until(lambda: gateway.running.service.metrics.loop_lag.sum > 0)
    assert (await scraped(gateway))["gai_fast_loop_lag_seconds_count"] > 0


# ---- /metrics --------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_every_stream_is_counted_by_route_model_and_end(net: Net) -> None:
    mock = await net.mock(deltas=5)
    gateway = await net.gateway(mock)
    for _ in range(2):
        await gateway.chat()
    await gateway.ask("POST", NATIVE, {**QUERY, "model": "up/made-up"})
    mock.fault = Fault("500")
    await gateway.chat()
    samples = await scraped(gateway)
    of_m = ('endpoint="/v1/chat/completions"', 'model="m"', 'provider="openai-compatible"')
    assert total(samples, "requests_total", *of_m, 'status="200"', 'outcome="finished"', 'code=""') == 2
    assert total(samples, "requests_total", *of_m, 'status="500"', 'outcome="failed"', 'code="internal"') == 1
    assert total(samples, "requests_total", 'endpoint="/api/v1/stream"', 'model="other"', 'outcome="finished"') == 1
    assert total(samples, "time_to_first_token_seconds_count", 'model="m"') == 2
    assert total(samples, "inter_token_latency_seconds_count", 'model="m"') == 8
    assert total(samples, "tokens_total", 'type="output"') > 0
    assert total(samples, "events_total", 'type="delta"') == 15
    assert total(samples, "bytes_total", 'direction="out"') > 0
    assert total(samples, "upstream_connections", 'upstream="up"') >= 1
    assert total(samples, "build_info") == 1
    assert not any("made-up" in name for name in samples)


@on_uvloop
async def test_what_runs_now_is_reported_by_its_transport(net: Net) -> None:
    gateway = await net.gateway(await net.mock(rate=50, deltas=1000))
    client, response = await gateway.stream({**QUERY, "model": "m"}, accept="application/x-ndjson")
    await response.until(b"text.delta")
    samples = await scraped(gateway)
    assert samples['gai_fast_active_streams{transport="ndjson"}'] == 1
    assert samples['gai_fast_active_streams{transport="sse"}'] == 0
    client.reset()
    await until(lambda: not gateway.streams)
    samples = await scraped(gateway)
    assert samples['gai_fast_active_streams{transport="ndjson"}'] == 0
    assert total(samples, "client_disconnects_total") == 1
    assert total(samples, "requests_total", 'status="499"', 'outcome="cancelled"') == 1


@on_both_loops
async def test_refusals_are_counted_by_route_and_status(net: Net) -> None:
    """Also requests whose stream could not begin, and requests without a route."""
    gateway = await net.gateway(await net.mock(fault=Fault("cut", 3)))
    await gateway.ask("POST", NATIVE, {**QUERY, "model": "none"})
    await gateway.ask("POST", NATIVE, {"unknown": 1})
    sound = {"role": "user", "content": [{"type": "audio", "data": "AA==", "media_type": "audio/x-made-up"}]}
    await gateway.ask("POST", NATIVE, {"messages": [sound], "model": "m"})  # the upstream has no place for it
    await gateway.ask("GET", "/api/v1/streams/unknown-1")
    await gateway.ask("GET", "/made-up/by-a-client")
    await gateway.ask("GET", "/healthz")
    await gateway.chat()
    samples = await scraped(gateway)
    native = ('endpoint="/api/v1/stream"', 'outcome="refused"')
    assert total(samples, "requests_total", *native, 'status="404"', 'code="not_found"') == 1
    assert total(samples, "requests_total", *native, 'status="400"', 'code="invalid_request"') == 1
    assert total(samples, "requests_total", *native, 'status="400"', 'code="unsupported"') == 1
    assert total(samples, "requests_total", 'endpoint="/api/v1/streams/{}"', 'status="404"', 'outcome="refused"') == 1
    assert total(samples, "requests_total", 'endpoint="other"', 'status="404"', 'outcome="refused"') == 1
    assert total(samples, "requests_total", 'status="200"', 'outcome="failed"', 'code="network"') == 1
    assert total(samples, "requests_total") == 6
    assert total(samples, "request_duration_seconds_count") == 1, "a refused stream has no figures"
    assert not any("made-up" in name or "healthz" in name or "unknown-1" in name for name in samples)


@on_uvloop
async def test_what_a_limit_of_a_key_refuses_is_counted_by_it(net: Net) -> None:
    limits = KeyLimits(requests_per_minute=1)
    gateway = await net.gateway(
        await net.mock(), keys=(KeySettings("alice", (key_digest("sk-alice"),), limits=limits),), metrics="open"
    )
    statuses = [
        (await gateway.ask("POST", NATIVE, {**QUERY, "model": "m"}, {"x-api-key": "sk-alice"})).status for _ in range(3)
    ]
    assert statuses == [200, 429, 429]
    samples = await scraped(gateway)
    assert total(samples, "limited_total", 'limit="requests_per_minute"') == 2
    assert total(samples, "limited_total") == 2


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"no request at all\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", 431),
        (b"POST /api/v1/stream HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n", 400),
    ],
)
@on_both_loops
async def test_a_request_that_cannot_be_read_is_counted_as_refused(net: Net, request_bytes: bytes, status: int) -> None:
    gateway = await net.gateway(await net.mock())
    client = await gateway.connect()
    client.send(request_bytes)
    assert (await client.response()).status == status
    samples = await scraped(gateway)
    of = ('endpoint="other"', f'status="{status}"', 'outcome="refused"', 'code="invalid_request"')
    assert total(samples, "requests_total", *of) == total(samples, "requests_total") == 1


@on_uvloop
async def test_retries_fallbacks_and_breakers_are_reported(net: Net) -> None:
    main, backup = Steps(BUSY), Steps(answer())
    breaker = BreakerSettings(failures=2)
    gateway = await gateway_for(net, main, backup, retries=1, breaker=breaker)
    for _ in range(2):
        await gateway.chat()
    samples = await scraped(gateway)
    assert total(samples, "retries_total") == 1, "the second one finds the breaker open"
    assert total(samples, "fallbacks_total") == 2
    assert total(samples, "requests_total", 'model="m"', 'outcome="finished"') == 2, "as the client asked for it"
    assert samples['gai_fast_breaker_state{upstream="up"}'] == 2
    alone = await gateway_for(net, Steps(BUSY), retries=0, breaker=BreakerSettings(failures=1))
    for _ in range(2):
        await alone.chat()
    assert total(await scraped(alone), "requests_total", 'code="provider_unavailable"') == 2
    assert net.warned("nothing is sent to it for 10 s") == 2


@on_uvloop
async def test_it_is_open_to_those_that_healthz_is(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    for path in ("/healthz", "/metrics"):
        assert (await gateway.ask("HEAD", path)).status == 200
        assert (await gateway.ask("POST", path, {})).status == 405
        assert (await gateway.ask("GET", path, headers={"host": "evil.example"})).status == 403
    wanted = {"accept": "application/openmetrics-text; version=1.0.0"}
    response = await gateway.ask("GET", "/metrics", headers=wanted)
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert response.body.endswith(b"# EOF\n")


# ---- the access log --------------------------------------------------------------------------------------------------


def figures(line: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(line[line.index("{") :])
    return result


@on_uvloop
async def test_the_line_of_a_stream_says_how_it_went(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    gateway = await gateway_for(net, Steps(BUSY), Steps(answer("Hello")), retries=1)
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        await gateway.ask("POST", CHAT, {"model": "m", "messages": MESSAGES, "stream": True}, {"x-request-id": "abc"})
        await gateway.ask("GET", "/healthz")
    stream, other = [record.getMessage() for record in caplog.records if record.name == "gai_fast.access"]
    assert re.match(r"127\.0\.0\.1 POST '/v1/chat/completions' 200 [0-9.]+ abc \{", stream)
    result = figures(stream)
    assert (result["model"], result["upstream"], result["retries"], result["fallbacks"]) == ("m", "spare", 1, 1)
    assert (result["outcome"], result["finish_reason"], result["deltas"]) == ("finished", "stop", 5)
    assert result["duration_ms"] >= result["time_to_first_token_ms"] > 0
    assert result["output_tokens"] > 0
    assert result["request_id"] == "abc"
    assert "Hello" not in stream
    assert "{" not in other


@on_uvloop
async def test_the_id_that_a_body_gives_is_that_of_its_line_and_refusals_have_lines(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    """Defect A21."""
    gateway = await net.gateway(await net.mock(deltas=1))
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        response = await gateway.ask("POST", "/api/v1/stream", {**QUERY, "model": "m", "request_id": "of-the-body"})
        assert response.headers["x-request-id"] == "of-the-body"
        await gateway.ask("POST", "/v1/chat/completions", b"{}", {"content-type": "text/plain", "x-request-id": "mine"})
        client = await gateway.connect()
        client.send(b"canary77\r\n\r\n")
        await (await client.response()).rest()
    lines = [record.getMessage() for record in caplog.records if record.name == "gai_fast.access"]
    assert re.match(r"127\.0\.0\.1 POST '/api/v1/stream' 200 [0-9.]+ of-the-body \{", lines[0])
    assert re.fullmatch(r"127\.0\.0\.1 POST '/v1/chat/completions' 415 [0-9.]+ mine {.*content_type.*}", lines[1])
    assert re.match(r"127\.0\.0\.1 - '-' 400 ", lines[2])
    assert len(lines) == 3


@on_both_loops
async def test_a_stream_whose_client_goes_has_its_line_too(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    gateway = await net.gateway(await net.mock(rate=50, deltas=1000))
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        client, response = await gateway.stream({**QUERY, "model": "m"})
        await response.until(b"text.delta")
        client.reset()
        await until(lambda: not gateway.streams)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "gai_fast.access"]
    assert re.match(r"127\.0\.0\.1 POST '/api/v1/stream' 499 ", line)
    assert figures(line)["outcome"] == "disconnected"


@on_uvloop
async def test_a_failure_is_reported_by_its_code(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    gateway = await net.gateway(await net.mock(fault=Fault("cut", 3)))
    with caplog.at_level(logging.INFO, "gai_fast.access"):
        await gateway.chat()
    result = figures(caplog.records[-1].getMessage())
    assert (result["outcome"], result["error_code"], result["deltas"]) == ("failed", "network", 3)


@on_uvloop
async def test_nothing_is_formatted_where_the_log_is_off(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await net.gateway(await net.mock(deltas=1))

    def never(*_: object) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr("gai_fast.server.observe.access_log.log_fields", never)
    assert (await gateway.chat()).status == 200


# ---- whole answers ---------------------------------------------------------------------------------------------------


@on_uvloop
async def test_a_whole_answer_has_its_metrics(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=6, ttft=0.02))
    response = await gateway.ask("POST", NATIVE, {**QUERY, "model": "m", "stream": False})
    metrics = response.json["metrics"]
    assert (metrics["deltas"], metrics["bytes_in"] > 0) == (6, True)
    assert metrics["duration_ms"] >= metrics["time_to_first_token_ms"] >= 20
    assert sum(bucket["count"] for bucket in metrics["inter_token_ms"]) == 5
    client: Client = await gateway.connect()
    assert await client.is_open()
    client.close()


# ---- the first token -------------------------------------------------------------------------------------------------


class Ends:
    """A sink that keeps its calls."""

    def __init__(self) -> None:
        self.received: list[StreamMetrics] = []

    def stream_ended(self, metrics: StreamMetrics) -> None:
        self.received.append(metrics)


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@pytest.mark.parametrize("stream", [True, False])
@on_uvloop
async def test_a_stream_all_of_whose_text_is_left_out_has_no_first_token(net: Net, path: str, stream: bool) -> None:
    mock = await net.mock(deltas=5)
    settings = dataclasses.replace(settings_for(mock.url), processors=({"use": "filter", "drop": ["text.delta"]},))
    running = await start(settings)
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    running.engine.sinks.append(ends := Ends())
    asked = {"model": "m", "stream": stream, **(QUERY if path == NATIVE else {"messages": MESSAGES})}
    assert (await net.gateways[-1].ask("POST", path, asked)).status == 200
    (end,) = ends.received
    assert (end.outcome, end.deltas, end.time_to_first_token) == ("finished", 5, None)
    assert end.upstream_time_to_first_token is not None
    samples = await scraped(net.gateways[-1])
    assert total(samples, "time_to_first_token_seconds_count") == 0
    assert total(samples, "upstream_time_to_first_token_seconds_count") == 1


@on_both_loops
async def test_the_clients_first_token_is_later_than_the_upstreams_where_output_is_gathered(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("Hel")))
        await written.wait()
        await peer.send(chunk(delta("lo")), *END)

    written = asyncio.Event()
    gateway = await net.gateway(await net.upstream(handler), flush_interval=0.05)
    gateway.running.engine.sinks.append(ends := Ends())
    client, response = await gateway.stream({**QUERY, "model": "m"})
    await response.until(b"Hel")
    written.set()
    await response.rest()
    client.close()
    (end,) = ends.received
    assert end.time_to_first_token is not None
    assert end.upstream_time_to_first_token is not None
    assert end.time_to_first_token >= end.upstream_time_to_first_token + 0.04


@on_both_loops
async def test_a_program_in_this_process_has_it_too_also_in_the_callback_of_the_end(net: Net) -> None:
    def note(event: Any) -> None:
        seen.append(event["metrics"]["time_to_first_token_ms"])

    seen: list[float] = []
    url = (await net.upstream(Steps(answer("H")))).url  # one read
    async with gai_fast.Gateway(settings_for(url)) as gateway:
        asked = {**QUERY, "model": "m"}
        async with gateway.stream(asked, events=gai_fast.EventManager(on_complete=note)) as stream:
            seen.append((await stream.result()).metrics["time_to_first_token_ms"])
    assert len(seen) == 2
    assert seen[1] >= seen[0] > 0


@on_uvloop
async def test_a_program_in_this_process_has_its_first_token_before_the_rest_comes(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("Hel")))
        await read.wait()
        await asyncio.sleep(0.05)
        await peer.send(chunk(delta("lo")), *END)

    read = asyncio.Event()
    async with (
        gai_fast.Gateway(settings_for((await net.upstream(handler)).url)) as gateway,
        gateway.stream({**QUERY, "model": "m"}) as stream,
    ):
        async for event in stream:
            if event["type"] == "text.delta":
                read.set()
        metrics = (await stream.result()).metrics
    assert metrics["duration_ms"] >= metrics["time_to_first_token_ms"] + 40
