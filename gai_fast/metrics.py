"""The figures of a stream: `StreamMetrics`, and `MetricsSink`, which receives them at the stream's end.

Owns the definitions of the figures; `meter.py` measures them. Knows no exposition format and no log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

from msgspec import Struct

from gai_fast.money import Amount, Charge

GAP_BOUNDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
"""Upper bounds of the gaps between tokens, in seconds: those of vLLM, and finer ones for bursts."""

NO_GAPS: Final = (0,) * (len(GAP_BOUNDS) + 1)
"""The gaps of a stream with one token, or none."""

Outcome = Literal["finished", "failed", "cancelled", "disconnected", "refused"]
"""The ends of a stream; `refused`: it never began, because its request cannot be made of the upstream."""


class StreamMetrics(Struct, frozen=True, kw_only=True):  # one for each stream: a frozen dataclass takes 3 µs more
    """One stream, measured. Times in seconds; `None` where there was nothing to measure.

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

    duration: float
    time_to_first_token: float | None = None
    upstream_time_to_first_token: float | None = None
    gateway_overhead: float = 0.0
    gaps: tuple[int, ...] = NO_GAPS
    gap_sum: float = 0.0
    backpressure: float = 0.0
    deltas: int = 0
    events: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    outcome: Outcome = "finished"
    code: str | None = None
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    provider: str = ""
    upstream: str = ""
    model: str = ""
    answered_by: str = ""
    response_id: str = ""
    endpoint: str = ""
    transport: str = ""
    stream_id: str = ""
    request_id: str = ""
    trace_id: str | None = None
    retries: int = 0
    fallbacks: int = 0
    key: str = ""
    cost: Amount | None = None
    currency: str = ""
    charges: tuple[Charge, ...] = ()
    cache: str | None = None

    @property
    def is_shared(self) -> bool:
        """Whether the answer was another stream's: it spends nothing."""
        return self.cache in ("hit", "joined")

    @property
    def tokens_per_second(self) -> float | None:
        """Output tokens after the first, a second; `None` where all came in one read."""
        tokens = (self.usage or {}).get("output_tokens", 0) - 1
        return float(tokens / self.gap_sum) if tokens > 0 and self.gap_sum else None

    def as_dict(self) -> dict[str, Any]:
        """The content of `Result.metrics`: times in milliseconds, rates a second, without what was not measured."""
        bounds = [*(bound * _MS for bound in GAP_BOUNDS), None]
        figures = {
            "duration_ms": _milliseconds(self.duration),
            "time_to_first_token_ms": _milliseconds(self.time_to_first_token),
            "upstream_time_to_first_token_ms": _milliseconds(self.upstream_time_to_first_token),
            "gateway_overhead_ms": _milliseconds(self.gateway_overhead),
            "backpressure_ms": _milliseconds(self.backpressure or None),
            "tokens_per_second": None if self.tokens_per_second is None else round(self.tokens_per_second, 2),
            "inter_token_ms": [
                {"le": bound, "count": count} for bound, count in zip(bounds, self.gaps, strict=True) if count
            ],
            "deltas": self.deltas,
            "events": self.events,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "retries": self.retries or None,
            "fallbacks": self.fallbacks or None,
        }
        return {key: value for key, value in figures.items() if value is not None}


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


_MS: Final = 1000


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * _MS, 3)
