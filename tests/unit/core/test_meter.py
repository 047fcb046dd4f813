"""A stream is measured from times that are given."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import gai_fast
from gai_fast.core.meter import StreamMeter
from gai_fast.model.metrics import GAP_BOUNDS, StreamMetrics


def test_times_are_measured_per_read() -> None:
    meter = StreamMeter(100.0)
    meter.asked(100.002)
    meter.counters.read(100.1, 100.101, 50, 0)  # a role is no token
    meter.counters.read(100.2, 100.201, 300, 3)
    meter.delta_sent(100.2005)
    meter.counters.read(100.24, 100.241, 100, 4)
    meter.counters.read(100.3, 100.301, 20, 4)
    meter.counters.wrote(40)
    meter.counters.wrote(2)
    result = meter.end(100.5, StreamMetrics(events=9, model="m"))
    assert result.duration == pytest.approx(0.5)
    assert result.time_to_first_token == pytest.approx(0.2005)
    assert result.upstream_time_to_first_token == pytest.approx(0.198)
    assert result.gateway_overhead == pytest.approx(0.006)
    assert (result.deltas, result.events, result.bytes_in, result.bytes_out, result.model) == (4, 9, 470, 42, "m")


def test_gaps_are_those_between_reads_and_none_within_one() -> None:
    meter = StreamMeter(0.0)
    for ended, deltas in ((1.0, 5), (1.0005, 6), (1.0405, 8), (200.0, 9)):
        meter.counters.read(ended, ended, 1, deltas)
    result = meter.end(201.0, StreamMetrics())
    counted = {bound: count for bound, count in zip([*GAP_BOUNDS, None], result.gaps, strict=True) if count}
    assert counted == {0.001: 4 + 1 + 1, 0.05: 1, None: 1}
    assert sum(result.gaps) == result.deltas - 1
    assert result.gap_sum == pytest.approx(199.0)


def test_the_time_that_a_slow_client_took_is_added_up() -> None:
    meter = StreamMeter(0.0)
    for paused, resumed in ((1.0, 1.5), (2.0, 2.25)):
        meter.paused(paused)
        meter.paused(paused + 0.1)
        meter.resumed(resumed)
        meter.resumed(resumed + 0.1)
    assert meter.end(3.0, StreamMetrics()).backpressure == 0.75
    meter.paused(3.0)
    assert meter.end(4.0, StreamMetrics()).as_dict()["backpressure_ms"] == 1750.0, "it is not over yet"


def test_a_stream_without_content_has_no_first_token() -> None:
    meter = StreamMeter(0.0)
    meter.asked(1.0)
    result = meter.end(2.0, StreamMetrics(outcome="failed", code="timeout"))
    assert result.time_to_first_token is None
    assert result.upstream_time_to_first_token is None
    assert result.tokens_per_second is None
    assert result.as_dict() == {
        "duration_ms": 2000.0,
        "gateway_overhead_ms": 1000.0,
        "inter_token_ms": [],
        "deltas": 0,
        "events": 0,
        "bytes_in": 0,
        "bytes_out": 0,
    }


def test_the_attempt_that_gave_the_first_delta_is_the_one_that_is_measured() -> None:
    meter = StreamMeter(0.0)
    meter.asked(0.1)
    meter.asked(5.0)
    meter.counters.read(6.0, 6.0, 1, 1)
    meter.asked(8.0)  # what followed was cut off, and is gone on with
    meter.counters.read(9.0, 9.0, 1, 2)
    result = meter.end(10.0, StreamMetrics())
    assert result.upstream_time_to_first_token == pytest.approx(1.0)
    assert result.gateway_overhead == pytest.approx(0.1)


def test_what_the_client_was_never_given_has_no_first_token() -> None:
    meter = StreamMeter(0.0)
    meter.counters.read(1.0, 1.0, 9, 3)
    meter.counters.wrote(20)
    result = meter.end(2.0, StreamMetrics())
    assert result.time_to_first_token is None
    assert (result.upstream_time_to_first_token, result.deltas) == (1.0, 3)


def test_what_a_result_holds_is_json_in_milliseconds() -> None:
    meter = StreamMeter(0.0)
    for now in (0.1, 0.12):
        meter.counters.read(now, now, 1, meter.counters.deltas + 1)
    meter.delta_sent(0.1)
    result = json.loads(json.dumps(meter.end(1.0, StreamMetrics(retries=1)).as_dict()))
    assert result["time_to_first_token_ms"] == 100.0
    assert result["inter_token_ms"] == [{"le": 25.0, "count": 1}]
    assert result["retries"] == 1
    assert "fallbacks" not in result


def test_all_that_is_reported_of_a_stream_is_measured_or_handed_in() -> None:
    measured = StreamMeter(0.0).end(1.0, StreamMetrics())
    assert measured == StreamMetrics(duration=1.0)
    result = {"outcome": "failed", "code": "c", "events": 1, "finish_reason": "stop", "usage": {"total_tokens": 1}}
    result |= {name: name for name in ("provider", "upstream", "model", "answered_by", "endpoint", "transport")}
    result |= {"response_id": "resp"}
    result |= {"stream_id": "s", "request_id": "r", "trace_id": "t", "retries": 2, "fallbacks": 3}
    assert StreamMeter(0.0).end(1.0, StreamMetrics(**result)) == StreamMetrics(duration=1.0, **result)


def test_it_reads_no_clock() -> None:
    source = Path(gai_fast.__file__).with_name("core") / "meter.py"
    assert not re.search(r"^(import|from) (time|asyncio)", source.read_text(), re.M)
