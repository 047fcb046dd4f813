"""The messages of OTLP 1.x in protobuf's wire format: spans, histograms, and the requests that carry them.

Owns the numbers of fields (opentelemetry-proto, `trace.proto`, `metrics.proto`, `common.proto`). Knows no names of
attributes, no queue and no time.

OpenTelemetry's SDK takes 77 us for the two spans and four figures of a request on the caller's thread, and another
70 us in its exporter's, which shares the interpreter's lock with the loop. Here they take 26 us in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Final

from gai_fast.otel.limits import LIMITS

Value = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Value]

INTERNAL: Final = 1
"""The kind of a span for work within the process."""
SERVER: Final = 2
"""The kind of a span for a request that was received."""
CLIENT: Final = 3
"""The kind of a span for a request that was sent."""

ATTRIBUTE: Final = b"\x4a"
"""The tag of an attribute of a span."""

_BYTE: Final = 0x80
_LOW: Final = 0x7F
_NEGATIVE: Final = 1 << 64
_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 63) - 1
_DOUBLE: Final = Struct("<d").pack
_FIXED: Final = Struct("<Q").pack
_SMALL: Final = tuple(bytes((value,)) for value in range(_BYTE))
_ERROR: Final = 2  # a value of `StatusCode`
_CUMULATIVE: Final = 2  # a value of `AggregationTemporality`


def varint(value: int) -> bytes:
    """Encodes an integer; negative ones as 64 bits in two's complement."""
    if 0 <= value < _BYTE:
        return _SMALL[value]
    if value < 0:
        value += _NEGATIVE
    written = bytearray()
    while value >= _BYTE:
        written.append(value & _LOW | _BYTE)
        value >>= 7
    written.append(value)
    return bytes(written)


def field(tag: bytes, data: bytes) -> bytes:
    """Encodes a length-delimited field: a text, bytes or a message."""
    return tag + varint(len(data)) + data


def text(tag: bytes, value: str) -> bytes:
    """Encodes a text. Lone surrogates become question marks; a long text is truncated."""
    return field(tag, value[: LIMITS.otel_text].encode("utf-8", "replace"))


def attributes(tag: bytes, given: Attributes) -> bytes:
    """Encodes attributes as fields of type `KeyValue`, in order."""
    return b"".join([_attribute(tag, name, value) for name, value in given.items()])


def _attribute(tag: bytes, name: str, value: Value) -> bytes:
    key = _keys.get(name)
    if key is None:
        key = _key(name)
    if isinstance(value, str):
        data = value[: LIMITS.otel_text].encode("utf-8", "replace")
        size = len(data)
        whole = len(key) + size + _AROUND
        if whole < _BYTE:  # most are short: a third of the time of what follows
            return tag + _SMALL[whole] + key + _TEXTS[size] + data
        return field(tag, key + field(b"\x12", field(b"\x0a", data)))
    return field(tag, key + field(b"\x12", _value(value)))


_keys: Final[dict[str, bytes]] = {}
_AROUND: Final = 4  # the tags and lengths of a short text in a value in an attribute
_TEXTS: Final = tuple(b"\x12" + bytes((size + 2,)) + b"\x0a" + bytes((size,)) for size in range(_BYTE - _AROUND))


def _key(name: str) -> bytes:
    """Returns the key of an attribute; all names are ours or from the operator's resource."""
    written = _keys[name] = field(b"\x0a", name.encode())
    return written


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + varint(max(_LEAST, min(value, _MOST)))
    if isinstance(value, float):
        return b"\x21" + _DOUBLE(value)
    return field(b"\x2a", b"".join([field(b"\x0a", text(b"\x0a", item)) for item in value]))


# ---- traces ----------------------------------------------------------------------------------------------------------


def event(name: str, time_ns: int, given: Attributes) -> bytes:
    """Returns an event of a span, as a field of it.

    Args:
        name: Its name.
        time_ns: Nanoseconds since the epoch.
        given: Its attributes.
    """
    return field(b"\x5a", b"\x09" + _FIXED(time_ns) + text(b"\x12", name) + attributes(b"\x1a", given))


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
    known: bytes = b"",
    events: bytes = b"",
    error: str | None = None,
    link: tuple[str, str] | None = None,
) -> bytes:
    """Returns a sampled span, as a field of `ScopeSpans`.

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
        known: More of them, encoded already, with `ATTRIBUTE`.
        events: Results of `event`.
        error: Why it failed. None if it did not fail.
        link: The trace and the id of another span that it goes on from. None if there is none.
    """
    parts = [
        b"\x0a\x10",
        bytes.fromhex(trace_id),
        b"\x12\x08",
        bytes.fromhex(span_id),
        text(b"\x1a", state) if state else b"",
        b"\x22\x08" + bytes.fromhex(parent_id) if parent_id else b"",
        text(b"\x2a", name),
        b"\x30",
        varint(kind),
        b"\x39",
        _FIXED(began_ns),
        b"\x41",
        _FIXED(max(began_ns, ended_ns)),
        known,
        attributes(ATTRIBUTE, given),
        events,
    ]
    if link is not None:
        linked = b"\x0a\x10" + bytes.fromhex(link[0]) + b"\x12\x08" + bytes.fromhex(link[1])
        parts.append(field(b"\x6a", linked))
    if error is not None:
        parts.append(field(b"\x7a", text(b"\x12", error) + b"\x18" + varint(_ERROR)))
    parts.append(b"\x85\x01\x01\x00\x00\x00")  # flags: sampled
    return field(b"\x12", b"".join(parts))


# ---- metrics ---------------------------------------------------------------------------------------------------------


def point(
    given: Attributes, *, began_ns: int, now_ns: int, counts: Sequence[int], total: float, bounds: Sequence[float]
) -> bytes:
    """Returns one series of a histogram, as a field of `Histogram`.

    Args:
        given: Its attributes.
        began_ns: When counting began, in nanoseconds since the epoch.
        now_ns: Until when it was counted.
        counts: The count up to each bound, and the count above the last.
        total: The sum of the values.
        bounds: The upper bounds of the buckets.
    """
    return field(
        b"\x0a",
        b"\x11" + _FIXED(began_ns)
        + b"\x19" + _FIXED(now_ns)
        + b"\x21" + _FIXED(sum(counts))
        + b"\x29" + _DOUBLE(total)
        + field(b"\x32", b"".join(map(_FIXED, counts)))
        + field(b"\x3a", b"".join(map(_DOUBLE, bounds)))
        + attributes(b"\x4a", given),
    )  # fmt: skip


def histogram(name: str, about: str, unit: str, points: Iterable[bytes]) -> bytes:
    """Returns a histogram that counts from its beginning, as a field of `ScopeMetrics`.

    Args:
        name: Its name.
        about: Its description.
        unit: Its unit (UCUM).
        points: Results of `point`.
    """
    data = b"".join(points) + b"\x10" + varint(_CUMULATIVE)
    return field(b"\x12", text(b"\x0a", name) + text(b"\x12", about) + text(b"\x1a", unit) + field(b"\x4a", data))


# ---- requests --------------------------------------------------------------------------------------------------------


def resource(given: Attributes) -> bytes:
    """Returns the process that spans and metrics come from, as the first field of `request`."""
    return field(b"\x0a", attributes(b"\x0a", given))


def request(origin: bytes, scope: str, version: str, items: bytes) -> bytes:
    """Returns an `ExportTraceServiceRequest` or `ExportMetricsServiceRequest`: their fields have the same numbers.

    Args:
        origin: The result of `resource`.
        scope: The name of the software that has measured.
        version: Its version.
        items: Fields of type `Span` or `Metric`.
    """
    by = field(b"\x0a", text(b"\x0a", scope) + text(b"\x12", version))
    return field(b"\x0a", origin + field(b"\x12", by + items))
