"""The fields of a stream's log line, and the metrics that Prometheus scrapes.

Owns the fields of the log line, and the names and labels of the exposed metrics except for streams' figures:
`gai_fast.model.figures` owns these. `counts.py` adds figures up, `scrape.py` responds to the request.
`prometheus_client` writes the text; the first scrape imports it.
"""

from __future__ import annotations

import operator
import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gai_fast.kernels import IMPLEMENTATION, MODULES, Histogram
from gai_fast.model.figures import SERIES, Series
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.money import Amount, units
from gai_fast.model.settings import figure_label
from gai_fast.model.version import __version__
from gai_fast.net.engine.engine import Engine
from gai_fast.server.limits import LIMITS
from gai_fast.server.observe import log_queue
from gai_fast.server.observe.counts import CostLabels, ModelCounts, RequestLabels, StreamCounts

if TYPE_CHECKING:
    from prometheus_client import Metric

Gauge = Callable[[], Mapping[str, float]]
Figures = Callable[[], Mapping[str, float]]
_Models = Sequence[tuple[tuple[str, str], ModelCounts]]
_Row = tuple[Any, ...]
"""Label values, followed by the other arguments of `add_metric` for the kind of metric."""
_Family = tuple[Callable[..., Any], str, str, Sequence[str], Iterator[_Row]]
"""The class of a metric, its name, its description, its labels and its rows."""


class Reading(NamedTuple):
    """Describes how to expose a value that each scrape reads.

    Attributes:
        about: The description of the metric.
        label: The metric's label. Empty if the metric has no label, and so only one value. Of two labels, and in the
            keys of their values, a space is between them; the second value may hold others.
        is_counter: Whether the value never decreases; otherwise the metric is a gauge.
        combine: Combines the values of two processes into one.
    """

    about: str
    label: str = ""
    is_counter: bool = False
    combine: Callable[[float, float], float] = operator.add


def log_fields(metrics: StreamMetrics) -> dict[str, Any]:
    """Returns the fields of a stream's log line."""
    usage = metrics.usage or {}
    fields = {
        "event": "stream",
        "endpoint": metrics.endpoint,
        "outcome": metrics.outcome,
        "error_code": metrics.code,
        "reason": metrics.reason,
        "finish_reason": metrics.finish_reason,
        "request_id": metrics.request_id,
        "stream_id": metrics.stream_id,
        "trace_id": metrics.trace_id,
        "provider": metrics.provider,
        "upstream": metrics.upstream,
        "model": metrics.model,
        "answered_by": metrics.answered_by,
        "session": metrics.session,
        "upstream_key": metrics.upstream_key or None,
        "input_tokens": usage.get("input_tokens"),
        "cached_input_tokens": usage.get("cached_input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "usage_source": usage.get("source"),
        "dropped": [*metrics.dropped] or None,
    }
    return {key: value for key, value in fields.items() if value not in (None, "")} | metrics.as_dict()


class PrometheusSink(StreamCounts):
    """Counts requests and streams, and exposes the counts.

    Args:
        models: The names of the configured models; other models are counted as `other`.
        gauges: Functions that return the present values by label value. The keys are metric names of `GAUGES`, without
            `gai_fast_`.
        process: Returns the figures of one or several processes, by name: some of `PROCESS`.

    Attributes:
        gauges: The argument `gauges`.
        process: The argument `process`.
    """

    def __init__(
        self, models: Collection[str], gauges: Mapping[str, Gauge] | None = None, process: Figures = dict
    ) -> None:
        super().__init__(models)
        self.gauges: dict[str, Gauge] = dict(gauges or {})
        self.process = process

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """Returns the response to a scrape, written at once.

        Args:
            accept: The scrape's `Accept`. The response is OpenMetrics 1.0.0 if `Accept` names it.

        Returns:
            The body and its content type, which is one of two.
        """
        slices, content_type = self.slices(accept)
        return b"".join(slices), content_type

    def slices(self, accept: str = "") -> tuple[Iterator[bytes], str]:
        """Returns the response to a scrape in slices of at most `limits.scrape_rows` rows.

        Args:
            accept: As for `expose`.

        Returns:
            An iterator that writes the slices of the body one by one, and the content type.
        """
        from prometheus_client.exposition import choose_encoder

        # The header itself is not passed on: `prometheus_client` repeats its version, and fails if it is not a number.
        encode, content_type = choose_encoder(_OPEN_METRICS if _asks_for_open_metrics(accept) else "")
        return self._slices(encode), content_type

    def _slices(self, encode: Callable[[Any], bytes]) -> Iterator[bytes]:
        end = encode(_Families())
        for make, name, about, labels, rows in self._families():
            is_first = True
            while True:
                some = list(islice(rows, LIMITS.scrape_rows))
                if not some and not is_first:
                    break
                family = make(name, about, labels=labels)
                for row in some:
                    family.add_metric(*row)
                text = encode(_Families(family)).removesuffix(end)
                yield text if is_first else _without_comments(text)
                is_first = False
        yield end

    def _families(self) -> Iterator[_Family]:
        """Yields every metric. The rows of a metric are lazy iterators."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        models = list(self.models.items())
        build = (__version__, IMPLEMENTATION, MODULES, platform.python_version())
        yield GaugeMetricFamily, "gai_fast_build_info", "What runs here.", _BUILD_LABELS, iter([(build, 1)])
        about = "Requests that a stream answered, or that were refused."
        yield (
            CounterMetricFamily,
            "gai_fast_requests",
            about,
            _REQUEST_LABELS,
            _request_rows(list(self.requests.items())),
        )
        yield CounterMetricFamily, "gai_fast_cost", _COST, _COST_LABELS, _cost_rows(list(self.costs.items()))
        for metric, series in groupby(SERIES, lambda each: each.metric):
            names = (*_MODEL_LABELS, metric.label) if metric.label else _MODEL_LABELS
            kind: Callable[..., Any] = HistogramMetricFamily if metric.bounds else CounterMetricFamily
            model_rows = _histogram_rows if metric.bounds else _counter_rows
            yield kind, f"gai_fast_{metric.name}", metric.about, names, model_rows(models, list(series))
        for name, read in self.gauges.items():
            reading = GAUGES[name]
            labels = tuple(reading.label.split())
            rows = ((_label_values(key, len(labels)), value) for key, value in read().items())
            kind = CounterMetricFamily if reading.is_counter else GaugeMetricFamily
            yield kind, f"gai_fast_{name}", reading.about, labels, rows
        lag = [((), _buckets(self.loop_lag), self.loop_lag.sum)]
        yield HistogramMetricFamily, "gai_fast_loop_lag_seconds", _LAG, (), iter(lag)
        waits = [((), _buckets(self.pool_wait), self.pool_wait.sum)]
        yield HistogramMetricFamily, "gai_fast_upstream_pool_wait_seconds", _WAIT, (), iter(waits)
        delays = [((guard,), _buckets(each), each.sum) for guard, each in self.guard_delays.items()]
        yield HistogramMetricFamily, "gai_fast_guard_delay_seconds", _DELAY, ("guard",), iter(delays)
        calls = [((server,), _buckets(each), each.sum) for server, each in self.tool_durations.items()]
        yield HistogramMetricFamily, "gai_fast_tool_duration_seconds", _CALLS, ("server",), iter(calls)
        steps = [((), _buckets(self.run_steps), self.run_steps.sum)]
        yield HistogramMetricFamily, "gai_fast_run_steps", _STEPS, (), iter(steps)
        for name, value in self.process().items():
            reading = PROCESS[name]
            kind = CounterMetricFamily if reading.is_counter else GaugeMetricFamily
            yield kind, name, reading.about, (), iter([((), value)])


class _Families:
    """A registry of metrics, in the form that an encoder of `prometheus_client` reads."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> tuple[Metric, ...]:
        return self._families


_OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0"


def _asks_for_open_metrics(accept: str) -> bool:
    """Returns whether an `Accept` header names OpenMetrics 1.0.0, or OpenMetrics without a version."""
    for item in accept.lower().split(","):
        media, *parameters = (part.strip() for part in item.split(";"))
        versions = [parameter for parameter in parameters if parameter.startswith("version=")]
        if media == "application/openmetrics-text" and versions in ([], ["version=1.0.0"]):
            return True
    return False


def _without_comments(text: bytes) -> bytes:
    """Returns a slice without the type and description of its metric, which an earlier slice has."""
    return b"".join(line + b"\n" for line in text.split(b"\n") if line and not line.startswith(b"#"))


def _request_rows(requests: Iterable[tuple[RequestLabels, int]]) -> Iterator[_Row]:
    for (endpoint, provider, model, status, outcome, code), count in requests:
        yield (endpoint, provider, model, str(status), outcome, code), count


def _cost_rows(costs: Iterable[tuple[CostLabels, Amount]]) -> Iterator[_Row]:
    for labels, amount in costs:
        yield labels, units(amount)


def _histogram_rows(models: _Models, series: Sequence[Series]) -> Iterator[_Row]:
    for labels, model in models:
        for each in series:
            histogram = model.histograms[each.source]
            yield _labels(labels, each), _buckets(histogram), histogram.sum


def _counter_rows(models: _Models, series: Sequence[Series]) -> Iterator[_Row]:
    for labels, model in models:
        numbers = model.numbers
        for each in series:
            yield _labels(labels, each), numbers[each.source]


def _labels(model: tuple[str, str], series: Series) -> tuple[str, ...]:
    return (*model, series.value) if series.metric.label else model


def _label_values(key: str, labels: int) -> tuple[str, ...]:
    """Returns the values of a reading's labels: see `Reading.label`."""
    return tuple(key.split(" ", labels - 1)) if labels else ()


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Returns the cumulative counts by their upper bound, as Prometheus expects them."""
    names = [*map(_bound, histogram.bounds.values), "+Inf"]
    return list(zip(names, map(float, accumulate(histogram.counts)), strict=True))


def _bound(bound: float) -> str:
    return f"{bound:.6f}".rstrip("0") + ("0" if bound.is_integer() else "")


def engine_gauges(engine: Engine, refused: Mapping[str, int]) -> dict[str, Gauge]:
    """Returns the gauges of an engine and its server, for `PrometheusSink`.

    Args:
        engine: The engine.
        refused: The number of streams and connections that each limit of the server has refused.
    """

    def limited() -> Mapping[str, float]:
        counts = dict(refused)
        for limit, count in engine.ledger.refused.items():
            counts[limit] = counts.get(limit, 0) + count
        return counts

    def caller_streams() -> Mapping[str, float]:
        counts = dict.fromkeys((issuer.name for issuer in engine.settings.issuers), 0)
        for caller, count in engine.callers.items():
            label = figure_label(caller)
            counts[label] = counts.get(label, 0) + count
        return counts

    def breaker_state() -> Mapping[str, float]:
        return {name: _BREAKER_STATES[state] for name, state in engine.targets.breaker_states().items()}

    return {
        "active_streams": lambda: engine.active,
        "caller_streams": caller_streams,
        "limited": limited,
        "hedges": lambda: {"": engine.tallies.hedges},
        "cache_requests": lambda: dict(engine.tallies.cache_requests),
        "session_moves": lambda: {f"{why} {model}": n for (model, why), n in engine.tallies.session_moves.items()},
        "takeovers": lambda: {f"{how} {model}": n for (model, how), n in engine.tallies.takeovers.items()},
        "breaker_state": breaker_state,
        "upstream_connections": engine.upstreams.connections,
        "upstream_pool_waiting": engine.upstreams.waiting,
        "store_degraded": lambda: {"": float(engine.store.is_degraded)},
        "store_sealed_errors": lambda: {"": engine.store.sealed_errors},
        "responses_not_kept": lambda: dict(engine.store.responses.not_kept),
        "responses_dropped": lambda: {"": engine.store.responses.dropped},
        "guard": lambda: {" ".join(labels): n for labels, n in engine.guarding.tallies.actions.items()},
        "guard_failures": lambda: dict(engine.guarding.tallies.failures),
        "tool_calls": lambda: {" ".join(labels): n for labels, n in engine.runs.calls.items()},
        "runs_waiting": lambda: {"": engine.runs.waiting},
        **process_gauges(),
    }


def process_gauges() -> dict[str, Gauge]:
    """Returns the gauges of any process of a server, including the supervisor, for `PrometheusSink`."""
    return {"log_lines_dropped": lambda: {"": float(log_queue.dropped())}}


_BREAKER_STATES: Final = {"closed": 0, "probing": 1, "open": 2}
GAUGES: Final = {
    "active_streams": Reading("Streams that are under way.", "transport"),
    "caller_streams": Reading("Streams that are under way.", "caller"),
    "limited": Reading("Requests, streams and connections that a limit refused.", "limit", is_counter=True),
    "hedges": Reading("Second targets that were asked because the first was silent.", is_counter=True),
    "cache_requests": Reading("Requests that asked for the cache.", "result", is_counter=True),
    "session_moves": Reading(
        "Requests of sessions that did not go to their session's target or key.", "reason model", is_counter=True
    ),
    "takeovers": Reading("Streams of workers that were gone.", "outcome model", is_counter=True),
    "breaker_state": Reading("0: closed, 1: probing with one request, 2: open.", "upstream", combine=max),
    "upstream_connections": Reading("Open connections, idle ones included.", "upstream"),
    "upstream_pool_waiting": Reading("Requests that wait for a connection, as max_connections are in use.", "upstream"),
    "store_degraded": Reading("1: the store of durable streams fails; 0: it works.", combine=max),
    "store_sealed_errors": Reading("Reads and writes of the store without their key.", is_counter=True),
    "responses_not_kept": Reading("Responses that could not be kept.", "reason", is_counter=True),
    "responses_dropped": Reading("Kept responses that were dropped for newer ones.", is_counter=True),
    "guard": Reading("Matches of guards.", "guard on action", is_counter=True),
    "guard_failures": Reading("Texts without a verdict: a judge or a search has failed.", "guard", is_counter=True),
    "tool_calls": Reading("Calls of tools by the gateway.", "server outcome tool", is_counter=True),
    "runs_waiting": Reading("Runs that wait for approvals, and for nothing else."),
    "log_lines_dropped": Reading("Log lines that the standard error did not take.", is_counter=True),
}
"""The gauges of a server, and its counters that are not in streams' figures."""
PROCESS: Final = {
    "process_cpu_seconds": Reading("Seconds of CPU that all processes of the server have taken.", is_counter=True),
    "process_resident_memory_bytes": Reading(
        "Memory of all processes of the server; what they share counts in each.",
    ),
    "process_virtual_memory_bytes": Reading("Virtual memory of all processes of the server."),
    "process_open_fds": Reading("Open file descriptors of all processes of the server."),
    "process_max_fds": Reading("File descriptors that all processes of the server may open."),
    "process_start_time_seconds": Reading(
        "When the first process of the server started, in seconds since the epoch.", combine=min
    ),
}
"""The figures of a process, by the names that all Prometheus client libraries use."""
_COST: Final = "What streams have cost, in units of the currency."
_LAG: Final = "How late the event loop was, of ten looks a second."
_CALLS: Final = "How long calls of tools took."
_STEPS: Final = "Turns of the model in runs that have ended."
_WAIT: Final = "How long requests waited for a connection to an upstream whose max_connections were in use."
_DELAY: Final = "Time for which texts waited for the verdict of a guard, in seconds."
_BUILD_LABELS: Final = ("version", "implementation", "modules", "python")
_REQUEST_LABELS: Final = ("endpoint", "provider", "model", "status", "outcome", "code")
_COST_LABELS: Final = ("key", "model", "provider", "currency")
_MODEL_LABELS: Final = ("provider", "model")
