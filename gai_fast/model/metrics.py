"""The figures of a stream, explained, and `MetricsSink`, which receives them at the stream's end.

Owns the definitions of the figures; `core/meter.py` measures them. Knows no exposition format and no log.
"""

from __future__ import annotations

from typing import Protocol

from gai_fast.model.figures import GAP_BOUNDS, NO_GAPS, Outcome, StreamMetrics

__all__ = ["GAP_BOUNDS", "NO_GAPS", "MetricsSink", "Outcome", "StreamMetrics", "Tallies"]

StreamMetrics.__doc__ = """One stream, measured. Times in seconds; `None` where there was nothing to measure.

Args:
    duration: From the request to the stream's end.
    time_to_first_token: From the request until the first delta was handed to the client's connection. A frame
        without content, such as a role, is no token; deltas that processors hold back or leave out do not count. A
        whole answer, one JSON object, is handed over at its end.
    upstream_time_to_first_token: From the request to the upstream until its first delta was read.
    gateway_overhead: The gateway's own work: until the upstream was asked, and on every read.
    gaps: The number of gaps between the upstream's tokens, for each of `GAP_BOUNDS` and for longer ones. Of tokens
        that came in one read all but the first have no gap.
    gap_sum: All gaps together: from the first token to the last.
    backpressure: The time in which the upstream was not read because the client was slow.
    deltas: Deltas that the upstream sent.
    events: All events.
    bytes_in: Bytes of the upstream's body.
    bytes_out: Bytes for the client.
    outcome: The end of the stream.
    code: The error's code, where it failed.
    finish_reason: The finish reason of the stream.
    usage: The usage of the stream (docs/events.md).
    provider: The adapter's name.
    upstream: The configured upstream that answered.
    model: The model that the client asked for.
    answered_by: The model as the provider reports it.
    response_id: The provider's own id of the answer.
    endpoint: The route.
    transport: `sse`, `ndjson`, `ws`, `json` or `library`.
    stream_id: The stream's id.
    request_id: The request's id.
    trace_id: The trace's id, where there is one.
    retries: Attempts of the same model that failed before.
    fallbacks: Models that failed before.
    key: The name of the key that the stream belongs to; `anonymous` where none is needed, empty for a program in
        this process.
    cost: The cost of the stream, failed attempts included; `None`: it is not known.
    currency: The currency of the cost.
    charges: The cost by attempt, in all currencies.
    cache: Where the answer came from, of a stream that may share one (`[cache]`): `hit`, `joined` or `miss`. Only
        with `miss` was a model asked, and has it to be paid for.
"""


class Tallies:
    """Counts of one process that no stream's figures hold. Each is there from the start, at 0.

    Attributes:
        hedges: Second targets that were asked because the first was silent.
        cache_requests: Requests that asked for the cache, by its answer.
    """

    __slots__ = ("cache_requests", "hedges")

    def __init__(self) -> None:
        self.hedges = 0
        self.cache_requests = {"hit": 0, "joined": 0, "miss": 0}


class MetricsSink(Protocol):
    """Receives the figures of streams. An exception of a sink harms no stream."""

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """A stream has ended. Called once for each, on the loop: it must not block."""
