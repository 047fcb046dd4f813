"""The figures of the whole server at one moment."""

from __future__ import annotations

from typing import Any

from gai_fast.model.metrics import GAP_BOUNDS, StreamMetrics
from gai_fast.server.admin.bodies import plain
from gai_fast.server.admin.samples import Sampler, side_of
from gai_fast.server.observe.metrics import PrometheusSink
from tests.limits import LIMITS


def stream(**about: Any) -> StreamMetrics:
    usage = {"input_tokens": 3, "output_tokens": 8}
    return StreamMetrics(**{"duration": 1.0, "model": "m", "provider": "p", "upstream": "up", "usage": usage, **about})


class Server:
    """Counts, streams and a clock."""

    def __init__(self) -> None:
        self.sink = PrometheusSink(["m"], {"breaker_state": lambda: {"up": 2}})
        self.streams: dict[str, Any] = {"total": 0, "deltas": 0, "bytes": 0, "data": []}
        self.now = 10.0
        self.sampler = Sampler(self._counts, self._streams, lambda: self.now)

    async def _counts(self) -> PrometheusSink:
        return self.sink

    async def _streams(self) -> dict[str, Any]:
        return self.streams

    def count(self, **about: Any) -> None:
        one = stream(**about)
        self.sink.stream_ended(one)
        self.sink.request_ended("/r", 200, one)


async def test_rates_are_those_since_the_last_sample() -> None:
    server = Server()
    server.count()
    first = plain(await server.sampler.sample())
    assert first["rates"] is None
    server.count()
    server.count(outcome="failed", code="network")
    server.now += 2
    rates = (await server.sampler.sample()).rates
    assert rates == {
        "requests": 1.0,
        "errors": 0.5,
        "client_errors": 0.0,
        "deltas": 0.0,
        "input_tokens": 3.0,
        "output_tokens": 8.0,
        "bytes": 0.0,
    }


async def test_running_streams_have_their_rates_too() -> None:
    """What they have sent moves to the counts when they end, and is counted once."""
    server = Server()
    server.streams = {"total": 1, "deltas": 10, "bytes": 1000, "data": []}
    await server.sampler.sample()
    server.streams = {"total": 1, "deltas": 30, "bytes": 4000, "data": []}
    server.now += 2
    rates = (await server.sampler.sample()).rates
    assert (rates["deltas"], rates["bytes"]) == (10.0, 1500.0)
    server.streams = {"total": 0, "deltas": 0, "bytes": 0, "data": []}
    server.count(deltas=30, bytes_out=4000)
    server.now += 2
    rates = (await server.sampler.sample()).rates
    assert (rates["deltas"], rates["bytes"]) == (0.0, 0.0)


async def test_a_sum_that_falls_is_no_negative_rate() -> None:
    server = Server()
    server.count()
    await server.sampler.sample()
    server.sink.requests.clear()
    server.now += 1
    assert (await server.sampler.sample()).rates["requests"] == 0


async def test_distributions_errors_and_breakers() -> None:
    server = Server()
    server.count(time_to_first_token=0.003, gaps=(5,) + (0,) * len(GAP_BOUNDS), gap_sum=0.001)
    server.count(time_to_first_token=1000.0, model="made-up")
    for code in ("network", "network", "timeout"):
        server.count(outcome="failed", code=code)
    sample = plain(await server.sampler.sample())
    counts = {each["le"]: each["count"] for each in sample["first_token_seconds"]}
    assert (counts[0.005], counts[0.01], counts[None]) == (1, 0, 1)
    assert sample["gap_seconds"][0] == {"le": GAP_BOUNDS[0], "count": 5}
    assert sample["errors"] == [
        {"code": "network", "provider": "p", "upstream": "up", "side": "upstream", "count": 2},
        {"code": "timeout", "provider": "p", "upstream": "up", "side": "upstream", "count": 1},
    ]
    assert sample["breakers"] == {"up": 2}


async def test_a_sample_has_an_end_however_many_streams_and_errors_there_are() -> None:
    server = Server()
    server.streams = {"total": 10_000, "deltas": 0, "bytes": 0, "data": [{"id": "s"}] * 1000}
    for number in range(LIMITS.errors_sampled + 1):
        server.count(outcome="failed", code=f"c{number}")
    sample = plain(await server.sampler.sample())
    assert (sample["active"], len(sample["streams"])) == (10_000, LIMITS.streams_sampled)
    assert len(sample["errors"]) == LIMITS.errors_sampled


async def test_before_any_model_there_are_distributions_of_nothing() -> None:
    sample = plain(await Server().sampler.sample())
    assert {each["count"] for each in sample["first_token_seconds"]} == {0}
    assert sample["memory_bytes"] is None


def test_an_error_is_of_the_client_of_an_upstream_or_of_the_gateway() -> None:
    for code in ("invalid_request", "context_length_exceeded", "content_filtered", "unsupported"):
        assert {side_of(code, upstream) for upstream in ("", "up")} == {"client"}
    for code in ("unauthorized", "forbidden", "not_found", "rate_limited"):
        assert (side_of(code, ""), side_of(code, "up")) == ("client", "upstream"), "of an upstream it is our key's"
    for code in ("timeout", "network", "overloaded", "provider_unavailable", "internal"):
        assert (side_of(code, ""), side_of(code, "up")) == ("gateway", "upstream")
