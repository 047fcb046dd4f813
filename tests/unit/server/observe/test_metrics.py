"""`/metrics` and the log line of a stream."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from importlib.util import find_spec
from itertools import groupby
from typing import Any, NoReturn

import pytest

from gai_fast.core.meter import StreamMeter
from gai_fast.kernels import IMPLEMENTATION, MODULES
from gai_fast.model.figures import DURATION_BOUNDS, FIRST_TOKEN_BOUNDS, GAP_BOUNDS
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import Settings, UpstreamSettings
from gai_fast.net.engine.engine import Engine
from gai_fast.server.observe import log_queue
from gai_fast.server.observe.metrics import PrometheusSink, engine_gauges, log_fields, process_gauges
from tests.limits import LIMITS

NATIVE = "/api/v1/stream"


def metrics(**about: Any) -> StreamMetrics:
    meter = StreamMeter(0.0)
    meter.asked(0.001)
    meter.counters.read(0.2, 0.2001, 300, 3)
    meter.delta_sent(0.2001)
    meter.counters.read(0.24, 0.2401, 10, 4)
    meter.counters.wrote(55)
    result = {"events": 7, "provider": "p", "model": "fast", "endpoint": "/api/v1/stream", **about}
    return meter.end(0.5, StreamMetrics(**result))


@pytest.fixture
def lines(unavailable: Callable[[str], NoReturn]) -> Callable[[PrometheusSink], set[str]]:
    """Returns the answer to a scrape, without the comments."""
    if find_spec("prometheus_client") is None:
        unavailable("prometheus_client")

    def scrape(sink: PrometheusSink) -> set[str]:
        body, content_type = sink.expose()
        assert content_type.startswith("text/plain; version=0.0.4")
        return {line for line in body.decode().splitlines() if not line.startswith("#")}

    return scrape


def test_requests_are_counted_by_status_outcome_and_code(lines: Callable[[PrometheusSink], set[str]]) -> None:
    """`status` is the HTTP status, `outcome` how the request ended."""
    sink = PrometheusSink(["fast"])
    sink.request_ended(NATIVE, 200, metrics())
    sink.request_ended(NATIVE, 200, metrics())
    sink.request_ended(NATIVE, 429, metrics(outcome="failed", code="rate_limited"))
    sink.request_refused(NATIVE, 415, "invalid_request")
    result = lines(sink)
    of = f'endpoint="{NATIVE}",model="fast",outcome='
    assert f'gai_fast_requests_total{{code="",{of}"finished",provider="p",status="200"}} 2.0' in result
    assert f'gai_fast_requests_total{{code="rate_limited",{of}"failed",provider="p",status="429"}} 1.0' in result
    refused = f'code="invalid_request",endpoint="{NATIVE}",model="",outcome="refused",provider="",status="415"'
    assert f"gai_fast_requests_total{{{refused}}} 1.0" in result


MODELS = 3 * LIMITS.scrape_rows + 1
"""So many rows of a metric that four slices have them."""


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_no_slice_of_a_scrape_has_more_rows_than_the_limit(unavailable: Callable[[str], NoReturn], accept: str) -> None:
    """However many models there are; together the slices are what one piece would be."""
    if find_spec("prometheus_client") is None:
        unavailable("prometheus_client")
    names_of_models = [f"model {number}" for number in range(MODELS)]
    sink = PrometheusSink(names_of_models, {"breaker_state": lambda: dict.fromkeys("ab", 0)})
    for name in names_of_models:
        one = metrics(model=name, usage={"input_tokens": 1, "output_tokens": 1})
        sink.stream_ended(one)
        sink.request_ended(NATIVE, 200, one)
    slices, _ = sink.slices(accept)
    result = list(slices)
    lines = [[line for line in text.splitlines() if not line.startswith(b"#")] for text in result]
    most_buckets = max(len(bounds) for bounds in (GAP_BOUNDS, FIRST_TOKEN_BOUNDS, DURATION_BOUNDS)) + 1
    assert max(map(len, lines)) == LIMITS.scrape_rows * (most_buckets + len(("sum", "count")))
    body = b"".join(result)
    assert body == sink.expose(accept)[0]
    names = [line.split(b" ")[2] for line in body.splitlines() if line.startswith(b"# TYPE ")]
    assert len(names) == len(set(names)), "each metric is described once"
    series = [line.rpartition(b" ")[0] for text in lines for line in text]
    assert len(series) == len(set(series)) > MODELS * len(names)
    families = [re.sub(rb"(_bucket|_sum|_count)?\{.*", b"", line) for line in series]
    assert len(list(groupby(families))) == len(set(families)), "no metric is interrupted by another's rows"


def test_a_stream_that_ends_during_a_scrape_does_not_break_it(unavailable: Callable[[str], NoReturn]) -> None:
    """Its model may get a kind of tokens that it did not have when the scrape began."""
    if find_spec("prometheus_client") is None:
        unavailable("prometheus_client")
    names = [f"model {number}" for number in range(MODELS)]
    sink = PrometheusSink(names)
    for name in names:
        sink.stream_ended(metrics(model=name, usage={"input_tokens": 1, "output_tokens": 1, "reasoning_tokens": 1}))
    slices, result = sink.slices()[0], b""
    for text in slices:
        result += text
        if b"gai_fast_tokens_total{" in text:
            for name in names:
                sink.stream_ended(metrics(model=name, usage={"cached_input_tokens": 1}))
    for name in names:
        assert result.count(b'gai_fast_tokens_total{model="%b"' % name.encode()) >= 3


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text ;charset=utf-8; version=1.0.0", True),
        ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4", True),
        ("application/openmetrics-text;version=canary", False),
        ("application/openmetrics-text; version=" + "9" * 5000, False),
        ("application/openmetrics-text; version=1.0.0.77", False),
        ("application/openmetrics-text; version=0.0.1", False),
        ("text/plain; version=canary", False),
        ("text/plain; version=1.0.0", False),
        (",;=\x7f", False),
    ],
)
def test_no_accept_header_breaks_a_scrape_or_stands_in_its_content_type(
    unavailable: Callable[[str], NoReturn], accept: str, is_open: bool
) -> None:
    """A content type of the caller's own would also be a scrape of its own, which is never shared."""
    if find_spec("prometheus_client") is None:
        unavailable("prometheus_client")
    sink = PrometheusSink([])
    body, content_type = sink.expose(accept)
    alike = "application/openmetrics-text; version=1.0.0" if is_open else ""
    assert (body, content_type) == sink.expose(alike)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0" if is_open else "text/plain")


def test_a_model_that_is_not_configured_makes_no_label(lines: Callable[[PrometheusSink], set[str]]) -> None:
    sink = PrometheusSink(["fast"])
    sink.stream_ended(metrics(model="p/made-up"))
    result = "\n".join(lines(sink))
    assert "made-up" not in result
    assert 'model="other"' in result


def test_histograms_are_cumulative_and_in_seconds(lines: Callable[[PrometheusSink], set[str]]) -> None:
    sink = PrometheusSink(["fast"])
    sink.stream_ended(metrics())
    result = lines(sink)
    of = 'model="fast",provider="p"'
    for line in (
        f'gai_fast_time_to_first_token_seconds_bucket{{le="0.1",{of}}} 0.0',
        f'gai_fast_time_to_first_token_seconds_bucket{{le="0.25",{of}}} 1.0',
        f'gai_fast_time_to_first_token_seconds_bucket{{le="+Inf",{of}}} 1.0',
        f"gai_fast_time_to_first_token_seconds_count{{{of}}} 1.0",
        f'gai_fast_inter_token_latency_seconds_bucket{{le="0.001",{of}}} 2.0',
        f'gai_fast_inter_token_latency_seconds_bucket{{le="0.05",{of}}} 3.0',
        f"gai_fast_request_duration_seconds_sum{{{of}}} 0.5",
        f'gai_fast_gateway_overhead_seconds_bucket{{le="0.000025",{of}}} 0.0',
        f'gai_fast_gateway_overhead_seconds_bucket{{le="0.0025",{of}}} 1.0',
    ):
        assert line in result, line


def test_counters_add_up(lines: Callable[[PrometheusSink], set[str]]) -> None:
    sink = PrometheusSink(["fast"])
    usage = {"input_tokens": 3, "output_tokens": 9, "total_tokens": 12, "reasoning_tokens": 2}
    sink.stream_ended(metrics(usage=usage, retries=2))
    sink.stream_ended(metrics(usage=usage, outcome="disconnected", fallbacks=1))
    result = lines(sink)
    of = 'model="fast",provider="p"'
    for line in (
        f'gai_fast_tokens_total{{{of},type="input"}} 6.0',
        f'gai_fast_tokens_total{{{of},type="output"}} 18.0',
        f'gai_fast_tokens_total{{{of},type="reasoning"}} 4.0',
        f'gai_fast_events_total{{{of},type="delta"}} 8.0',
        f'gai_fast_events_total{{{of},type="other"}} 6.0',
        f'gai_fast_bytes_total{{direction="in",{of}}} 620.0',
        f'gai_fast_bytes_total{{direction="out",{of}}} 110.0',
        f"gai_fast_client_disconnects_total{{{of}}} 1.0",
        f"gai_fast_retries_total{{{of}}} 2.0",
        f"gai_fast_fallbacks_total{{{of}}} 1.0",
    ):
        assert line in result, line


def test_gauges_are_read_when_they_are_scraped(lines: Callable[[PrometheusSink], set[str]]) -> None:
    running = {"sse": 0}
    sink = PrometheusSink([], {"active_streams": lambda: running, "breaker_state": lambda: {"openai": 1}})
    running["sse"] = 3
    result = lines(sink)
    assert 'gai_fast_active_streams{transport="sse"} 3.0' in result
    assert 'gai_fast_breaker_state{upstream="openai"} 1.0' in result
    (build,) = (line for line in result if line.startswith("gai_fast_build_info{"))
    assert f'implementation="{IMPLEMENTATION}"' in build
    assert f'modules="{MODULES}"' in build


async def test_what_was_refused_is_counted_by_its_limit_and_what_runs_by_its_caller(
    lines: Callable[[PrometheusSink], set[str]],
) -> None:
    engine = Engine(Settings(), asyncio.get_running_loop())
    engine.begin_transfer("one", "alice", print)
    engine.begin_transfer("two", "alice", print)
    refused = {"streams": 0, "memory": 1}
    result = lines(PrometheusSink([], engine_gauges(engine, refused)))
    assert 'gai_fast_limited_total{limit="streams"} 0.0' in result
    assert 'gai_fast_limited_total{limit="memory"} 1.0' in result
    assert 'gai_fast_caller_streams{caller="alice"} 2.0' in result
    engine.ledger.refused["streams"] += 2
    engine.ledger.refused["spend"] += 1
    result = lines(PrometheusSink([], engine_gauges(engine, refused)))
    assert 'gai_fast_limited_total{limit="streams"} 2.0' in result, "of the server and of its callers"
    assert 'gai_fast_limited_total{limit="spend"} 1.0' in result
    await engine.close()


async def test_what_has_not_happened_yet_is_there_as_zero(lines: Callable[[PrometheusSink], set[str]]) -> None:
    """Else the first increase of each would be lost to rates."""
    upstream = UpstreamSettings("up", "openai", "http://localhost/v1")
    engine = Engine(Settings(upstreams={"up": upstream}), asyncio.get_running_loop())
    result = lines(PrometheusSink([], engine_gauges(engine, {})))
    for line in (
        "gai_fast_hedges_total",
        'gai_fast_cache_requests_total{result="hit"}',
        'gai_fast_cache_requests_total{result="joined"}',
        'gai_fast_cache_requests_total{result="miss"}',
        'gai_fast_limited_total{limit="requests_per_minute"}',
        'gai_fast_limited_total{limit="tokens_per_minute"}',
        'gai_fast_limited_total{limit="spend"}',
        'gai_fast_breaker_state{upstream="up"}',
        'gai_fast_upstream_connections{upstream="up"}',
        "gai_fast_loop_lag_seconds_count",
    ):
        assert f"{line} 0.0" in result
    await engine.close()


def test_costs_are_exposed_in_units_of_their_currency(lines: Callable[[PrometheusSink], set[str]]) -> None:
    sink = PrometheusSink(["m"])
    sink.costs["alice", "m", "p", "USD"] = 6_600_000_000
    labels = 'currency="USD",key="alice",model="m",provider="p"'
    assert f"gai_fast_cost_total{{{labels}}} 0.0066" in lines(sink)


def test_figures_of_the_process_have_the_names_that_dashboards_know(
    lines: Callable[[PrometheusSink], set[str]],
) -> None:
    result = lines(PrometheusSink([], process=lambda: {"process_cpu_seconds": 1.5, "process_open_fds": 3}))
    assert {"process_cpu_seconds_total 1.5", "process_open_fds 3.0"} <= result


def test_log_lines_that_were_dropped_are_counted(
    lines: Callable[[PrometheusSink], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = PrometheusSink([], process_gauges())
    assert "gai_fast_log_lines_dropped_total 0.0" in lines(sink)
    monkeypatch.setattr(log_queue, "dropped", lambda: 3)
    assert "gai_fast_log_lines_dropped_total 3.0" in lines(sink)


async def test_a_scrape_does_not_walk_the_streams() -> None:
    """The engine counts them as they start and end."""
    engine = Engine(Settings(), asyncio.get_running_loop())
    engine._active["sse"].number = 20_000
    gauge = engine_gauges(engine, {})["active_streams"]
    assert gauge() == {"sse": 20_000, "ndjson": 0, "ws": 0, "json": 0, "pass_through": 0}
    assert gauge() is not engine.active, "it may change between two slices of a scrape"
    await engine.close()


def test_open_metrics_where_it_is_asked_for(lines: Callable[[PrometheusSink], set[str]]) -> None:
    body, content_type = PrometheusSink([]).expose("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


def test_the_fields_of_the_log_line_say_how_a_stream_went() -> None:
    line = log_fields(metrics(usage={"input_tokens": 3, "output_tokens": 0, "source": "partial"}, code="network"))
    assert (line["error_code"], line["model"], line["input_tokens"], line["output_tokens"]) == ("network", "fast", 3, 0)
    assert (line["time_to_first_token_ms"], line["deltas"], line["usage_source"]) == (200.1, 4, "partial")
    assert "trace_id" not in line


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_what_is_exposed_is_what_scrapers_read(unavailable: Callable[[str], NoReturn], accept: str) -> None:
    if find_spec("prometheus_client") is None:
        unavailable("prometheus_client")
    from prometheus_client import parser
    from prometheus_client.openmetrics import parser as openmetrics

    name = 'quoted "name"\\ and\nanother line'
    sink = PrometheusSink([name], {"active_streams": lambda: {"sse": 1}})
    usage = {"input_tokens": 3, "output_tokens": 0, "total_tokens": 3}
    for outcome in ("finished", "failed", "cancelled", "disconnected"):
        for one in (metrics(model=name, usage=usage, outcome=outcome, code="timeout"), metrics(model="made-up")):
            sink.stream_ended(one)
            sink.request_ended(NATIVE, 200, one)
    body, _ = sink.expose(accept)
    read = openmetrics.text_string_to_metric_families if accept else parser.text_string_to_metric_families
    families = {family.name: family for family in read(body.decode())}
    assert all(
        family.documentation and family.type in ("counter", "gauge", "histogram") for family in families.values()
    )
    models = {sample.labels.get("model") for family in families.values() for sample in family.samples}
    assert models == {None, name, "other"}
    names = [sample.name for family in families.values() for sample in family.samples]
    assert len(
        {(sample.name, *sorted(sample.labels.items())) for family in families.values() for sample in family.samples}
    ) == len(names)
    for family in families.values():
        if family.type != "histogram":
            continue
        of_one = [sample for sample in family.samples if sample.labels.get("model", name) == name]
        buckets = [sample.value for sample in of_one if sample.name.endswith("_bucket")]
        assert buckets == sorted(buckets)
        assert [sample.value for sample in of_one if sample.name.endswith("_count")] == buckets[-1:]
