"""What is done with the figures of streams: a log line each, and `/metrics` for Prometheus.

Owns the names and labels of the exposed metrics and the fields of the log line. The figures themselves are
`gai_fast.metrics`'s, and `counts.py` adds them up. `prometheus_client` writes what is scraped, and is imported when it
first is.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from gai_fast._impl import IMPLEMENTATION, encode_json
from gai_fast._version import __version__
from gai_fast.metrics import StreamMetrics
from gai_fast.net.engine import Engine
from gai_fast.server.counts import Histogram, StreamCounts

if TYPE_CHECKING:
    from prometheus_client import Metric

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


class PrometheusSink(StreamCounts):
    """Counts streams, and exposes the counts.

    Args:
        models: The configured models' names; others are counted as `other`.
        gauges: By metric name without `gai_fast_`, one of `GAUGES`: a function that gives the present values by label
            value.
    """

    def __init__(self, models: Collection[str], gauges: Mapping[str, Gauge] | None = None) -> None:
        super().__init__(models)
        self._gauges = dict(gauges or {})

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
        for ended, count in self.requests.items():
            requests.add_metric(ended, count)
        yield requests
        for name, (attribute, about) in _HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"gai_fast_{name}", about, labels=_MODEL_LABELS)
            for labels, model in self.models.items():
                found: Histogram = getattr(model, attribute)
                histogram.add_metric(labels, _buckets(found), found.sum)
            yield histogram
        for name, (attribute, about, label) in _COUNTERS.items():
            counter = CounterMetricFamily(f"gai_fast_{name}", about, labels=[*_MODEL_LABELS, *filter(None, [label])])
            for labels, model in self.models.items():
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


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """As Prometheus has them: cumulative, by their upper bound."""
    names = [*map(_bound, histogram.bounds.values), "+Inf"]
    return list(zip(names, map(float, accumulate(histogram.counts)), strict=True))


def _bound(bound: float) -> str:
    return f"{bound:.6f}".rstrip("0") + ("0" if bound.is_integer() else "")


def engine_gauges(engine: Engine) -> dict[str, Gauge]:
    """What `PrometheusSink` tells of the streams that are under way."""

    def active_streams() -> Mapping[str, float]:
        counts = dict.fromkeys(("sse", "ndjson", "json"), 0)
        for session in engine.streams.values():
            transport = session.spec.transport
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
