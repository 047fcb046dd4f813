"""The counts behind `/metrics`: requests at their end, and the figures of streams at theirs.

Owns the bounds of the histograms, the outcomes, and the labels of a count. `metrics.py` exposes the counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final, Literal

from mypy_extensions import mypyc_attr

from gai_fast.kernels import Histogram
from gai_fast.model.limits import LIMITS, OTHER
from gai_fast.model.metrics import GAP_BOUNDS, NO_GAPS, StreamMetrics
from gai_fast.model.money import Amount

# The bounds of vLLM's and LiteLLM's histograms where they have one, so that dashboards compare.
FIRST_TOKEN_BOUNDS: Final[tuple[float, ...]] = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
)  # fmt: skip
LAG_BOUNDS: Final[tuple[float, ...]] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
DURATION_BOUNDS: Final[tuple[float, ...]] = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
)  # fmt: skip
OVERHEAD_BOUNDS: Final[tuple[float, ...]] = (
    0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0,
)  # fmt: skip

RequestOutcome = Literal["finished", "failed", "cancelled", "refused"]
RequestLabels = tuple[str, str, str, int, RequestOutcome, str]
"""Endpoint, provider, model, HTTP status, outcome, error code."""

ErrorLabels = tuple[str, str, str]
"""Error code, provider, upstream; both are empty where the gateway refused the request."""

CostLabels = tuple[str, str, str, str]
"""Key, model, provider, currency."""

_OUTCOMES: Final[dict[str, RequestOutcome]] = {
    "finished": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
    "disconnected": "cancelled",  # the client left; `client_disconnects` counts these alone
    "refused": "refused",
}
# As constants of this module, because looking up a name of another one costs each stream 0.03 us a time.
_MOST_TOKENS: Final = LIMITS.priced_tokens
_NO_GAPS: Final = NO_GAPS


class ModelCounts:
    """The figures of all streams of one provider and model."""

    def __init__(self) -> None:
        self.first_token = Histogram(FIRST_TOKEN_BOUNDS)
        self.upstream_first_token = Histogram(FIRST_TOKEN_BOUNDS)
        self.gaps = Histogram(GAP_BOUNDS)
        self.duration = Histogram(DURATION_BOUNDS)
        self.overhead = Histogram(OVERHEAD_BOUNDS)
        self.backpressure = Histogram(DURATION_BOUNDS)
        self._observe_first_token = self.first_token.observe  # looked up once, because every stream is counted
        self._observe_upstream = self.upstream_first_token.observe
        self._observe_duration = self.duration.observe
        self._observe_overhead = self.overhead.observe
        self.input_tokens = 0
        self.output_tokens = 0
        self.cached_input_tokens = 0
        self.cache_write_input_tokens = 0
        self.reasoning_tokens = 0
        self.deltas = 0
        self.others = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.disconnects = 0
        self.retries = 0
        self.fallbacks = 0

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens by their kind."""
        return {
            "input": self.input_tokens,
            "output": self.output_tokens,
            "cached_input": self.cached_input_tokens,
            "cache_write_input": self.cache_write_input_tokens,
            "reasoning": self.reasoning_tokens,
        }

    @property
    def events(self) -> dict[str, int]:
        """Events by their kind."""
        return {"delta": self.deltas, "other": self.others}

    @property
    def bytes(self) -> dict[str, int]:
        """Bytes by their direction."""
        return {"in": self.bytes_in, "out": self.bytes_out}

    def add(self, metrics: StreamMetrics) -> None:
        """Counts one stream. The upstream's part of a shared answer was counted with the stream that asked for it."""
        self._observe_first_token(metrics.time_to_first_token)
        self._observe_duration(metrics.duration)
        self._observe_overhead(metrics.gateway_overhead)
        if metrics.cache is None or not metrics.is_shared:
            self._add_upstream(metrics)
        deltas: int = metrics.deltas
        self.deltas += deltas
        self.others += max(0, metrics.events - deltas)
        self.bytes_out += metrics.bytes_out
        self.disconnects += metrics.outcome == "disconnected"
        self.retries += metrics.retries
        self.fallbacks += metrics.fallbacks

    def _add_upstream(self, metrics: StreamMetrics) -> None:
        self._observe_upstream(metrics.upstream_time_to_first_token)
        gaps, paused, usage = metrics.gaps, metrics.backpressure, metrics.usage
        if gaps is not _NO_GAPS:
            self.gaps.merge(gaps, metrics.gap_sum)
        if paused:
            self.backpressure.observe(paused)
        if usage:
            counted: dict[str, Any] = usage if isinstance(usage, dict) else dict(usage)
            self.input_tokens += _tokens(counted, "input_tokens")
            self.output_tokens += _tokens(counted, "output_tokens")
            self.cached_input_tokens += _tokens(counted, "cached_input_tokens")
            self.cache_write_input_tokens += _tokens(counted, "cache_write_input_tokens")
            self.reasoning_tokens += _tokens(counted, "reasoning_tokens")
        self.bytes_in += metrics.bytes_in


class _Number:
    """A number of requests: another one in its place would cost a second look-up of its six labels."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


@mypyc_attr(allow_interpreted_subclasses=True)
class StreamCounts:
    """Counts requests and streams.

    Args:
        models: The configured models' names; others are counted as `other`.

    Attributes:
        models: The streams' figures, by provider and model.
        errors: The number of those that failed or were refused, by their labels.
        costs: The cost of streams, by their labels.
        loop_lag: Seconds by which the event loop was late.
    """

    def __init__(self, models: Collection[str]) -> None:
        self._known = frozenset(models)
        self.models: dict[tuple[str, str], ModelCounts] = {}
        self._requests: dict[RequestLabels, _Number] = {}
        self.errors: dict[ErrorLabels, int] = {}
        self.costs: dict[CostLabels, Amount] = {}
        self.loop_lag = Histogram(LAG_BOUNDS)

    def use(self, models: Collection[str]) -> None:
        """Counts these models by name from now on."""
        self._known = frozenset(models)

    def expect(self, models: Iterable[tuple[str, str]], endpoints: Collection[str]) -> None:
        """Lets the counts of models begin at 0: a rate cannot see the first increase of a count that was not there.

        Args:
            models: Provider and name of each.
            endpoints: The routes that are expected to be asked for them.
        """
        for provider, name in models:
            self.models.setdefault((provider, name), ModelCounts())
            for endpoint in endpoints:
                self.add_requests((endpoint, provider, name, 200, "finished", ""), 0)

    @property
    def requests(self) -> dict[RequestLabels, int]:
        """The number of requests that ended, by their labels."""
        return {labels: count.number for labels, count in self._requests.items()}

    def add_requests(self, labels: RequestLabels, number: int) -> None:
        """Adds to the number of requests that ended."""
        _add(self._requests, labels, number)

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """Counts the figures of one stream; one that was refused has none."""
        if metrics.outcome == "refused":
            return
        labels = (metrics.provider, _label(metrics.model, self._known))
        model = self.models.get(labels)
        if model is None:
            model = self.models[labels] = ModelCounts()
        model.add(metrics)
        for charge in metrics.charges:
            self.add_cost((metrics.key, labels[1], charge.provider, charge.currency), charge.amount)

    def add_cost(self, labels: CostLabels, amount: Amount) -> None:
        """Adds a cost; beyond `limits.cost_series` labels new ones count as those of `OTHER` keys and models."""
        if labels not in self.costs and len(self.costs) >= LIMITS.cost_series:
            labels = (OTHER, OTHER, labels[2], labels[3])
        self.costs[labels] = self.costs.get(labels, 0) + amount

    # Other requests (health, metrics, pages) are not counted: probes would outnumber the streams. No argument has a
    # default, since a subclass is interpreted: such a call would take 0.4 us more.

    def request_ended(self, endpoint: str, status: int, stream: StreamMetrics) -> None:
        """Counts one request that a stream answered.

        Args:
            endpoint: The route.
            status: The HTTP status; 499 where the client left before its answer was complete.
            stream: The figures of the stream.
        """
        code, provider = stream.code or "", stream.provider
        labels = (endpoint, provider, _label(stream.model, self._known), status, _OUTCOMES[stream.outcome], code)
        _add(self._requests, labels, 1)
        if code:
            self._count_error((code, provider, stream.upstream))

    def request_refused(self, endpoint: str, status: int, code: str) -> None:
        """Counts one request that was refused, or that the gateway failed to answer: no stream began.

        Args:
            endpoint: The route; `OTHER` where there is none.
            status: The HTTP status.
            code: The error's code.
        """
        labels: RequestLabels = (endpoint, "", "", status, "failed" if code == "internal" else "refused", code)
        _add(self._requests, labels, 1)
        self._count_error((code, "", ""))

    def _count_error(self, labels: ErrorLabels) -> None:
        self.errors[labels] = self.errors.get(labels, 0) + 1


def _add(counts: dict[RequestLabels, _Number], labels: RequestLabels, number: int) -> None:
    count = counts.get(labels)
    if count is None:
        count = counts[labels] = _Number()
    count.number += number


def _tokens(usage: dict[str, Any], name: str) -> int:
    """Returns a count of usage; an upstream, or a processor, may say anything."""
    count = usage.get(name)
    return min(count, _MOST_TOKENS) if isinstance(count, int) else 0


def _label(model: str, known: frozenset[str]) -> str:
    # A function, because a method that a subclass may replace is called through the interpreter.
    return model if model in known else OTHER
