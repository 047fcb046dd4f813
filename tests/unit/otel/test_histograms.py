"""The series of metrics, and how many there are."""

from __future__ import annotations

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint

from gai_fast.otel import otlp
from gai_fast.otel.histograms import DURATION, INSTRUMENTS, TOKENS, Histograms
from tests.limits import LIMITS
from tests.otlp import parsed, read


def points(histograms: Histograms) -> dict[str, list[HistogramDataPoint]]:
    data = otlp.metrics({}, "1", histograms.encode(9))
    metrics = parsed(ExportMetricsServiceRequest, data).resource_metrics[0].scope_metrics[0].metrics
    return {metric.name: list(metric.histogram.data_points) for metric in metrics}


def test_without_a_value_there_is_nothing_to_send() -> None:
    assert Histograms(1).encode(2) == b""


def test_a_value_is_counted_in_the_bucket_of_its_bound_and_series_are_apart() -> None:
    histograms = Histograms(1)
    for value in (0.0, 0.01, 0.011, 1000.0):
        histograms.observe(DURATION, (("a", "x"),), value)
    histograms.observe(DURATION, (("a", "y"),), 1.0)
    first, second = points(histograms)["gen_ai.client.operation.duration"]
    assert list(first.bucket_counts) == [2, 1, *[0] * 12, 1]
    assert (first.count, first.start_time_unix_nano, first.time_unix_nano) == (4, 1, 9)
    assert (read(first.attributes), read(second.attributes)) == ({"a": "x"}, {"a": "y"})


def test_beyond_the_limit_series_are_counted_together() -> None:
    histograms = Histograms(1)
    for number in range(LIMITS.otel_series + 5):
        histograms.observe(TOKENS, (("model", f"m{number}"),), 1.0)
    histograms.observe(TOKENS, (("model", "m3"),), 1.0)
    found = points(histograms)["gen_ai.client.token.usage"]
    assert len(found) == LIMITS.otel_series + 1
    counts = {read(point.attributes).get("model"): point.count for point in found}
    assert (counts["m3"], counts[None]) == (2, 5)


def test_the_names_are_those_of_the_conventions() -> None:
    assert [(each.name, each.unit, len(each.bounds)) for each in INSTRUMENTS] == [
        ("gen_ai.client.operation.duration", "s", 14),
        ("gen_ai.client.operation.time_to_first_chunk", "s", 14),
        ("gen_ai.client.token.usage", "{token}", 14),
    ]
    assert (DURATION.bounds[0], DURATION.bounds[-1], TOKENS.bounds[-1]) == (0.01, 81.92, 67108864)
