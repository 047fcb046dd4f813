"""What is done with the figures of streams: a log line each, and `/metrics` for Prometheus.

Owns the names and labels of the exposed metrics and the fields of the log line. The figures themselves are
`gai_fast.metrics`'s. A stream costs one call at its end; `prometheus_client` writes what is scraped and is imported
when it first is.
"""

from __future__ import annotations

import logging
import platform
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING, Any, Final

from gai_fast._impl import IMPLEMENTATION, encode_json
from gai_fast._version import __version__
from gai_fast.metrics import GAP_BOUNDS, StreamMetrics
from gai_fast.net.engine import Engine

if TYPE_CHECKING:
    from prometheus_client import Metric

# The bounds of vLLM's and LiteLLM's histograms where they have one, so that dashboards can stand side by side.
FIRST_TOKEN_BOUNDS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
)  # fmt: skip
DURATION_BOUNDS: Final = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
)  # fmt: skip
OVERHEAD_BOUNDS: Final = (
    0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0,
)  # fmt: skip

OTHER: Final = "other"
"""The label of models that are not configured by name: clients must not be able to make labels."""

Gauge = Callable[[], Mapping[str, float]]


class LogSink:
    """One line of JSON per stream: who asked for what, how it ended, how long it took; never what was said.

    Args:
        logger: Where to; by default the access log.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logging.getLogger("gai_fast.access") if logger is None else logger

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """Writes the line, where the log is on."""
        if self._logger.isEnabledFor(logging.INFO):
            self._logger.info("%s", encode_json(log_fields(metrics)).decode())


def log_fields(metrics: StreamMetrics) -> dict[str, Any]:
    """What the log line says."""
    usage = metrics.usage or {}
    said = {
        "event": "stream",
        "endpoint": metrics.endpoint,
        "outcome": metrics.outcome,
        "error_code": metrics.code,
        "finish_reason": metrics.finish_reason,
        "request_id": metrics.request_id,
        "stream_id": metrics.stream_id,
        "trace_id": metrics.trace_id,
        "provider": metrics.provider,
        "upstream": metrics.upstream,
        "model": metrics.model,
        "answered_by": metrics.answered_by,
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "usage_source": usage.get("source"),
    }
    return {key: value for key, value in said.items() if value not in (None, "")} | metrics.as_dict()


class _Histogram:
    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float | None) -> None:
        if value is not None:
            self.counts[bisect_left(self.bounds, value)] += 1
            self.sum += value

    def merge(self, counts: tuple[int, ...], total: float) -> None:
        self.counts = list(map(add, self.counts, counts))
        self.sum += total

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus has them: cumulative, by their upper bound."""
        names = [*map(_bound, self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


def _bound(bound: float) -> str:
    return f"{bound:.6f}".rstrip("0") + ("0" if bound.is_integer() else "")


@dataclass(slots=True)
class _Model:
    """All streams of one provider and model."""

    first_token: _Histogram = field(default_factory=lambda: _Histogram(FIRST_TOKEN_BOUNDS))
    upstream_first_token: _Histogram = field(default_factory=lambda: _Histogram(FIRST_TOKEN_BOUNDS))
    gaps: _Histogram = field(default_factory=lambda: _Histogram(GAP_BOUNDS))
    duration: _Histogram = field(default_factory=lambda: _Histogram(DURATION_BOUNDS))
    overhead: _Histogram = field(default_factory=lambda: _Histogram(OVERHEAD_BOUNDS))
    backpressure: _Histogram = field(default_factory=lambda: _Histogram(DURATION_BOUNDS))
    tokens: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=lambda: {"delta": 0, "other": 0})
    bytes: dict[str, int] = field(default_factory=lambda: {"in": 0, "out": 0})
    disconnects: int = 0
    retries: int = 0
    fallbacks: int = 0


class PrometheusSink:
    """Counts streams, and exposes the counts.

    Args:
        models: The configured models' names; others are counted as `other`.
        gauges: By metric name without `gai_fast_`, one of `GAUGES`: a function that gives the present values by label
            value.
    """

    def __init__(self, models: Collection[str], gauges: Mapping[str, Gauge] | None = None) -> None:
        self._known = frozenset(models)
        self._gauges = dict(gauges or {})
        self._requests: dict[tuple[str, ...], int] = {}
        self._models: dict[tuple[str, str], _Model] = {}

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """Counts one stream."""
        name = metrics.model if metrics.model in self._known else OTHER
        labels = (metrics.endpoint, metrics.provider, name, metrics.outcome, metrics.code or "")
        self._requests[labels] = self._requests.get(labels, 0) + 1
        model = self._models.get((metrics.provider, name))
        if model is None:
            model = self._models[metrics.provider, name] = _Model()
        model.first_token.observe(metrics.time_to_first_token)
        model.upstream_first_token.observe(metrics.upstream_time_to_first_token)
        model.gaps.merge(metrics.gaps, metrics.gap_sum)
        model.duration.observe(metrics.duration)
        model.overhead.observe(metrics.gateway_overhead)
        if metrics.backpressure:
            model.backpressure.observe(metrics.backpressure)
        if metrics.usage:
            for key, count in metrics.usage.items():
                if count and key in _TOKENS:
                    kind = _TOKENS[key]
                    model.tokens[kind] = model.tokens.get(kind, 0) + count
        model.events["delta"] += metrics.deltas
        model.events["other"] += max(0, metrics.events - metrics.deltas)
        model.bytes["in"] += metrics.bytes_in
        model.bytes["out"] += metrics.bytes_out
        model.disconnects += metrics.outcome == "disconnected"
        model.retries += metrics.retries
        model.fallbacks += metrics.fallbacks

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """What a scrape is answered with.

        Args:
            accept: The scrape's `Accept`: OpenMetrics where it asks for that.

        Returns:
            The body and its content type.
        """
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def describe(self) -> list[Metric]:
        """Nothing: registering must not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The present counts, for a registry of `prometheus_client`."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        info = GaugeMetricFamily(
            "gai_fast_build_info", "What runs here.", labels=["version", "implementation", "python"]
        )
        info.add_metric([__version__, IMPLEMENTATION, platform.python_version()], 1)
        yield info
        requests = CounterMetricFamily("gai_fast_requests", "Streams that have ended.", labels=_REQUEST_LABELS)
        for labels, count in self._requests.items():
            requests.add_metric(labels, count)
        yield requests
        for name, (attribute, about) in _HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"gai_fast_{name}", about, labels=_MODEL_LABELS)
            for labels, model in self._models.items():
                found: _Histogram = getattr(model, attribute)
                histogram.add_metric(labels, found.buckets(), found.sum)
            yield histogram
        for name, (attribute, about, label) in _COUNTERS.items():
            counter = CounterMetricFamily(f"gai_fast_{name}", about, labels=[*_MODEL_LABELS, *filter(None, [label])])
            for labels, model in self._models.items():
                counted = getattr(model, attribute)
                for key, count in (counted if label else {"": counted}).items():
                    counter.add_metric([*labels, *([key] if label else [])], count)
            yield counter
        for name, read in self._gauges.items():
            label, about = GAUGES[name]
            gauge = GaugeMetricFamily(f"gai_fast_{name}", about, labels=[label])
            for key, value in read().items():
                gauge.add_metric([key], value)
            yield gauge


def engine_gauges(engine: Engine) -> dict[str, Gauge]:
    """What `PrometheusSink` tells of the streams that are under way."""

    def active_streams() -> Mapping[str, float]:
        counts = dict.fromkeys(("sse", "ndjson", "json"), 0)
        for session in engine.streams.values():
            transport = session.call.transport
            counts[transport] = counts.get(transport, 0) + 1
        return counts

    def breaker_state() -> Mapping[str, float]:
        return {name: _BREAKER_STATES[state] for name, state in engine.breaker_states().items()}

    return {
        "active_streams": active_streams,
        "breaker_state": breaker_state,
        "upstream_connections": engine.connections,
    }


_BREAKER_STATES: Final = {"closed": 0, "probing": 1, "open": 2}
GAUGES: Final = {
    "active_streams": ("transport", "Streams that are under way."),
    "breaker_state": ("upstream", "0: closed, 1: one request is let through as a probe, 2: open."),
    "upstream_connections": ("upstream", "Open connections, idle ones included."),
}
"""The label of each gauge, and what it is."""
_REQUEST_LABELS: Final = ("endpoint", "provider", "model", "status", "code")
_MODEL_LABELS: Final = ("provider", "model")
_TOKENS: Final = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cached_input_tokens": "cached_input",
    "cache_write_input_tokens": "cache_write_input",
    "reasoning_tokens": "reasoning",
}
_HISTOGRAMS: Final = {
    "time_to_first_token_seconds": ("first_token", "From the request to its first token."),
    "upstream_time_to_first_token_seconds": ("upstream_first_token", "From asking the upstream to its first token."),
    "inter_token_latency_seconds": ("gaps", "Between two tokens."),
    "request_duration_seconds": ("duration", "From the request to the end of its stream."),
    "gateway_overhead_seconds": ("overhead", "What the gateway itself worked on a stream."),
    "backpressure_seconds": ("backpressure", "How long slow clients kept a stream's upstream from being read."),
}
_COUNTERS: Final = {
    "tokens": ("tokens", "Tokens; cached and written input is part of input, reasoning of output.", "type"),
    "events": ("events", "Events of streams.", "type"),
    "bytes": ("bytes", "Bytes of upstreams' bodies (in) and for clients (out).", "direction"),
    "client_disconnects": ("disconnects", "Streams whose client went away.", ""),
    "retries": ("retries", "Attempts that failed and were made again.", ""),
    "fallbacks": ("fallbacks", "Models that failed and were replaced.", ""),
}
