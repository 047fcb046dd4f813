"""The messages of OTLP in JSON, as OpenTelemetry's own package reads them."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gai_fast.otel import otlp
from tests.limits import LIMITS
from tests.otlp import parsed, read

TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"


def span_of(given: dict[str, Any], **more: Any) -> Span:
    """Returns a span, written and read."""
    about = {"parent_id": PARENT, "state": "a=1", "name": "chat m", "kind": otlp.CLIENT, **more}
    items = otlp.span(trace_id=TRACE, span_id=SPAN, began_ns=5, ended_ns=9, given=given, **about)
    request = parsed(ExportTraceServiceRequest, otlp.traces({"service.name": "x"}, "1.2", items + b"," + items))
    (resource,) = request.resource_spans
    assert read(resource.resource.attributes) == {"service.name": "x"}
    (scope,) = resource.scope_spans
    assert (scope.scope.name, scope.scope.version) == ("gai-fast", "1.2")
    first, second = scope.spans
    assert first == second
    return first


def test_a_span_has_its_ids_its_times_and_its_flags() -> None:
    span = span_of({})
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN, PARENT)
    assert (span.trace_state, span.name, span.kind) == ("a=1", "chat m", Span.SPAN_KIND_CLIENT)
    assert (span.start_time_unix_nano, span.end_time_unix_nano, span.flags) == (5, 9, 1)
    assert span.status.code == 0
    root = span_of({}, parent_id="", state="", kind=otlp.SERVER)
    assert (root.parent_span_id, root.trace_state, root.kind) == (b"", "", Span.SPAN_KIND_SERVER)


def test_a_span_that_failed_says_why() -> None:
    status = span_of({}, error="timeout").status
    assert (status.code, status.message) == (2, "timeout")


def test_events_have_their_time_and_attributes() -> None:
    events = [otlp.event("first_token", 7, {}), otlp.event("retry", 8, {"n": 2})]
    first, second = span_of({}, events=events).events
    assert (first.name, first.time_unix_nano, read(first.attributes)) == ("first_token", 7, {})
    assert (second.name, second.time_unix_nano, read(second.attributes)) == ("retry", 8, {"n": 2})


@pytest.mark.parametrize(
    "value",
    ["", "é", "x" * 100, "x" * 118, "x" * 119, "x" * 120, "x" * 121, "x" * 127, "x" * 128, "x" * 129, "x" * 9000,
     True, False, 0, 1, 127, 128, 300, -1, 2**63 - 1, -(2**63), 0.5, -1e300, ["a", "bb"], []],
    ids=lambda value: f"{str(value)[:8]}-{len(str(value))}",
)  # fmt: skip
def test_values_of_every_kind_are_read_as_they_were_given(value: Any) -> None:
    for name in ("n", "a.name.of.middle.length", "n" * 126):
        known = otlp.attributes({"known": 1})
        found = read(span_of({name: value, "next": "one"}, known=known).attributes)
        assert found == {"known": 1, name: value, "next": "one"}
        assert type(found[name]) is type(value)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a\ud800b", "a\ufffdb"),
        ("x" * (LIMITS.otel_text + 1), "x" * LIMITS.otel_text),
        (2**200, 2**63 - 1),
        (-(2**200), -(2**63)),
    ],
    ids=["surrogate", "long", "large", "small"],
)
def test_what_has_no_place_in_a_message_is_brought_into_bounds(value: Any, written: Any) -> None:
    assert read(span_of({"n": value}).attributes) == {"n": written}


def test_a_histogram_counts_from_its_beginning() -> None:
    point = otlp.point({"a": "b"}, began_ns=3, now_ns=4, counts=[1, 0, 2], total=7.5, bounds=[1.0, 2.0])
    items = otlp.histogram("name", "about", "s", [point])
    request = parsed(ExportMetricsServiceRequest, otlp.metrics({}, "1", items))
    (metric,) = request.resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, metric.description, metric.unit) == ("name", "about", "s")
    assert metric.histogram.aggregation_temporality == 2
    (read_point,) = metric.histogram.data_points
    assert (read_point.start_time_unix_nano, read_point.time_unix_nano) == (3, 4)
    assert (read_point.count, read_point.sum) == (3, 7.5)
    assert (list(read_point.bucket_counts), list(read_point.explicit_bounds)) == ([1, 0, 2], [1.0, 2.0])
    assert read(read_point.attributes) == {"a": "b"}
