"""`StreamMetrics`, the figures of a stream. `metrics.py` explains them.

Apart from `metrics.py`, because mypyc compiles this: every stream makes one, and its figures are read thirty times.
Compiled classes have no docstrings at run time, where users read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Final, Literal

from gai_fast.model.money import Amount, Charge

# Not a tuple of 22: mypyc takes the constant of such a type for one that was never set.
GAP_BOUNDS: Final[tuple[float, ...]] = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
"""Upper bounds of the gaps between tokens, in seconds: those of vLLM, and finer ones for bursts."""

NO_GAPS: Final = (0,) * (len(GAP_BOUNDS) + 1)
"""The gaps of a stream with one token, or none."""

Outcome = Literal["finished", "failed", "cancelled", "disconnected", "refused"]
"""The ends of a stream; `refused`: it never began, because its request cannot be made of the upstream."""


@dataclass(init=False, slots=True)
class StreamMetrics:
    """One stream, measured; `metrics.py` explains every figure."""

    duration: Final[float]
    time_to_first_token: Final[float | None]
    upstream_time_to_first_token: Final[float | None]
    gateway_overhead: Final[float]
    gaps: Final[tuple[int, ...]]
    gap_sum: Final[float]
    backpressure: Final[float]
    deltas: Final[int]
    events: Final[int]
    bytes_in: Final[int]
    bytes_out: Final[int]
    outcome: Final[Outcome]
    code: Final[str | None]
    finish_reason: Final[str | None]
    usage: Final[Mapping[str, Any] | None]
    provider: Final[str]
    upstream: Final[str]
    model: Final[str]
    answered_by: Final[str]
    response_id: Final[str]
    endpoint: Final[str]
    transport: Final[str]
    stream_id: Final[str]
    request_id: Final[str]
    trace_id: Final[str | None]
    retries: Final[int]
    fallbacks: Final[int]
    key: Final[str]
    cost: Final[Amount | None]
    currency: Final[str]
    charges: Final[tuple[Charge, ...]]
    cache: Final[str | None]

    # By hand: that of a dataclass is interpreted, and one for each stream takes 1 us more.
    def __init__(
        self,
        *,
        duration: float,
        time_to_first_token: float | None = None,
        upstream_time_to_first_token: float | None = None,
        gateway_overhead: float = 0.0,
        gaps: tuple[int, ...] = NO_GAPS,
        gap_sum: float = 0.0,
        backpressure: float = 0.0,
        deltas: int = 0,
        events: int = 0,
        bytes_in: int = 0,
        bytes_out: int = 0,
        outcome: Outcome = "finished",
        code: str | None = None,
        finish_reason: str | None = None,
        usage: Mapping[str, Any] | None = None,
        provider: str = "",
        upstream: str = "",
        model: str = "",
        answered_by: str = "",
        response_id: str = "",
        endpoint: str = "",
        transport: str = "",
        stream_id: str = "",
        request_id: str = "",
        trace_id: str | None = None,
        retries: int = 0,
        fallbacks: int = 0,
        key: str = "",
        cost: Amount | None = None,
        currency: str = "",
        charges: tuple[Charge, ...] = (),
        cache: str | None = None,
    ) -> None:
        self.duration = duration
        self.time_to_first_token = time_to_first_token
        self.upstream_time_to_first_token = upstream_time_to_first_token
        self.gateway_overhead = gateway_overhead
        self.gaps = gaps
        self.gap_sum = gap_sum
        self.backpressure = backpressure
        self.deltas = deltas
        self.events = events
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out
        self.outcome = outcome
        self.code = code
        self.finish_reason = finish_reason
        self.usage = usage
        self.provider = provider
        self.upstream = upstream
        self.model = model
        self.answered_by = answered_by
        self.response_id = response_id
        self.endpoint = endpoint
        self.transport = transport
        self.stream_id = stream_id
        self.request_id = request_id
        self.trace_id = trace_id
        self.retries = retries
        self.fallbacks = fallbacks
        self.key = key
        self.cost = cost
        self.currency = currency
        self.charges = charges
        self.cache = cache

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(StreamMetrics, **{each.name: getattr(self, each.name) for each in fields(self)}), ()

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


_MS: Final = 1000


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * _MS, 3)
