"""The counts for `/metrics`: counts each request and each stream when it ends.

Owns the outcomes and the labels of a count. The table of `gai_fast.model.figures` lists what is counted of a stream;
`metrics.py` exposes the counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from mypy_extensions import mypyc_attr

from gai_fast.kernels import Histogram
from gai_fast.model.figures import COUNTED, NO_GAPS, SERIES, Series, StreamMetrics
from gai_fast.model.limits import OTHER, SHARED
from gai_fast.model.money import Amount
from gai_fast.model.settings import figure_label
from gai_fast.server.limits import LIMITS

STEP_BOUNDS: Final[tuple[float, ...]] = (1.0, 2.0, 3.0, 5.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0)
CALL_BOUNDS: Final[tuple[float, ...]] = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
LAG_BOUNDS: Final[tuple[float, ...]] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

RequestOutcome = Literal["finished", "failed", "cancelled", "refused"]
RequestLabels = tuple[str, str, str, int, RequestOutcome, str]
"""Endpoint, provider, model, HTTP status, outcome, error code."""

ErrorLabels = tuple[str, str, str]
"""Error code, provider, upstream. Provider and upstream are empty if the gateway refused the request."""

CostLabels = tuple[str, str, str, str]
"""Key, model, provider, currency."""

_OUTCOMES: Final[dict[str, RequestOutcome]] = {
    "finished": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
    "disconnected": "cancelled",  # the client disconnected; `client_disconnects` counts only these
    "refused": "refused",
}
# Constants of this module, because each look-up of a name in another module costs a stream 0.03 us.
_MOST_TOKENS: Final = SHARED.priced_tokens
_NO_GAPS: Final = NO_GAPS


class _Number:
    """A mutable count, so that a table is searched only once for it."""

    def __init__(self) -> None:
        self.number = 0


class _Counter(_Number):
    """The counter of a series.

    Attributes:
        at: The place of its figure in `StreamMetrics.counted`; -1 for a member of `usage`.
        source: As in `Series`.
    """

    def __init__(self, series: Series) -> None:
        super().__init__()
        self.at = -1 if series.field == "usage" else COUNTED.index(series.source)
        self.source = series.source


class _Observer:
    """The methods of a series' histogram, bound once: each is called for every stream.

    Attributes:
        at: The place of its figure in `StreamMetrics.counted`.
        total_at: The place of the sum of the values, if the figure is a tuple of counts; else -1.
        observe: Counts a value.
        merge: Adds the counts of several values, and their sum.
    """

    def __init__(self, series: Series, histogram: Histogram) -> None:
        self.at = COUNTED.index(series.source)
        self.total_at = COUNTED.index(series.total) if series.total else -1
        self.observe = histogram.observe
        self.merge = histogram.merge


class _Counts:
    """The counts of some series of one provider and model, by how they are counted.

    Args:
        series: The series.
        histograms: The histograms by `Series.source`.
        counters: The counters by `Series.source`.
    """

    def __init__(
        self, series: Sequence[Series], histograms: Mapping[str, Histogram], counters: Mapping[str, _Counter]
    ) -> None:
        observers = [_Observer(each, histograms[each.source]) for each in series if each.metric.bounds]
        self._values = [each for each in observers if each.total_at < 0]
        self._merged = [each for each in observers if each.total_at >= 0]
        self._numbers = [counters[each.source] for each in series if not each.metric.bounds and each.field != "usage"]
        self._tokens = [counters[each.source] for each in series if each.field == "usage"]

    def add(self, figures: tuple[Any, ...], usage: Mapping[str, Any] | None) -> None:
        """Counts one stream.

        Args:
            figures: The result of `StreamMetrics.counted`.
            usage: As in `StreamMetrics`.
        """
        for observer in self._values:
            observer.observe(figures[observer.at])
        for observer in self._merged:
            counts: tuple[int, ...] = figures[observer.at]
            if counts is not _NO_GAPS:
                observer.merge(counts, figures[observer.total_at])
        for counter in self._numbers:
            number: int = figures[counter.at]
            counter.number += number
        if usage and self._tokens:
            counted: dict[str, Any] = usage if isinstance(usage, dict) else dict(usage)
            for counter in self._tokens:
                counter.number += _tokens(counted, counter.source)


class ModelCounts:
    """The figures of all streams of one provider and model, by `Series.source`.

    Attributes:
        histograms: The histograms.
    """

    def __init__(self) -> None:
        histograms = {each.source: Histogram(each.metric.bounds) for each in SERIES if each.metric.bounds}
        counters = {each.source: _Counter(each) for each in SERIES if not each.metric.bounds}
        self.histograms: dict[str, Histogram] = histograms
        self._counters = counters
        self._work = _Counts([each for each in SERIES if each.is_work], histograms, counters)
        self._each_stream = _Counts([each for each in SERIES if not each.is_work], histograms, counters)

    @property
    def numbers(self) -> dict[str, int]:
        """The counters."""
        return {name: count.number for name, count in self._counters.items()}

    def add_numbers(self, numbers: Iterable[int]) -> None:
        """Adds the counters of another process, in the order of `numbers`."""
        for mine, other in zip(self._counters.values(), numbers, strict=True):
            mine.number += other

    def add(self, metrics: StreamMetrics) -> None:
        """Counts one stream. The upstream's work for a shared response was counted with the stream that caused it."""
        figures, usage = metrics.counted(), metrics.usage
        self._each_stream.add(figures, usage)
        if not metrics.is_shared:
            self._work.add(figures, usage)


@mypyc_attr(allow_interpreted_subclasses=True)
class StreamCounts:
    """Counts requests and streams.

    Args:
        models: The names of the configured models; other models are counted as `other`.

    Attributes:
        models: The streams' figures, by provider and model.
        errors: The number of requests that failed or were refused, by labels.
        costs: The cost of streams, by labels.
        loop_lag: The histogram of seconds by which the event loop was late.
        pool_wait: The histogram of seconds for which requests waited for a connection of a full pool.
        guard_delays: The histograms of seconds for which texts waited for a verdict, by guard.
        tool_durations: The histograms of seconds that calls of tools took, by server.
        run_steps: The histogram of turns of runs.
    """

    def __init__(self, models: Collection[str]) -> None:
        self._known = frozenset(models)
        self.models: dict[tuple[str, str], ModelCounts] = {}
        self._requests: dict[RequestLabels, _Number] = {}
        self.errors: dict[ErrorLabels, int] = {}
        self.costs: dict[CostLabels, Amount] = {}
        self.loop_lag = Histogram(LAG_BOUNDS)
        self.pool_wait = Histogram(LAG_BOUNDS)
        self.guard_delays: dict[str, Histogram] = {}
        self.tool_durations: dict[str, Histogram] = {}
        self.run_steps = Histogram(STEP_BOUNDS)

    def guard_delay(self, guard: str) -> Histogram:
        """Returns the histogram of seconds for which texts waited for the verdict of a guard."""
        found = self.guard_delays.get(guard)
        if found is None:
            found = self.guard_delays[guard] = Histogram(LAG_BOUNDS)
        return found

    def note_guard_delay(self, guard: str, seconds: float) -> None:
        """Counts a text that has waited for its verdict."""
        self.guard_delay(guard).observe(seconds)

    def tool_duration(self, server: str) -> Histogram:
        """Returns the histogram of seconds that calls of a server's tools took."""
        found = self.tool_durations.get(server)
        if found is None:
            found = self.tool_durations[server] = Histogram(CALL_BOUNDS)
        return found

    def note_tool_duration(self, server: str, seconds: float) -> None:
        """Counts a call of a tool."""
        self.tool_duration(server).observe(seconds)

    def use(self, models: Collection[str]) -> None:
        """Sets the names of the configured models from now on."""
        self._known = frozenset(models)

    def expect(self, models: Iterable[tuple[str, str]], endpoints: Collection[str]) -> None:
        """Starts the counts of models at 0: a rate does not see the first increase of a count that did not exist.

        Args:
            models: Provider and name of each model.
            endpoints: The routes at which clients are expected to request the models.
        """
        for provider, name in models:
            self.models.setdefault((provider, name), ModelCounts())
            for endpoint in endpoints:
                self.add_requests((endpoint, provider, name, 200, "finished", ""), 0)

    @property
    def requests(self) -> dict[RequestLabels, int]:
        """The number of requests that ended, by labels."""
        return {labels: count.number for labels, count in self._requests.items()}

    def add_requests(self, labels: RequestLabels, number: int) -> None:
        """Adds to the number of requests that ended."""
        _add(self._requests, labels, number)

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """Counts the figures of one stream. A refused stream has no figures."""
        if metrics.outcome == "refused":
            return
        labels = (metrics.provider, _label(metrics.model, self._known))
        model = self.models.get(labels)
        if model is None:
            model = self.models[labels] = ModelCounts()
        model.add(metrics)
        for charge in metrics.charges:
            self.add_cost((figure_label(metrics.key), labels[1], charge.provider, charge.currency), charge.amount)

    def add_cost(self, labels: CostLabels, amount: Amount) -> None:
        """Adds a cost. Beyond `limits.cost_series` labels, the key and the model of new labels become `OTHER`."""
        if labels not in self.costs and len(self.costs) >= LIMITS.cost_series:
            labels = (OTHER, OTHER, labels[2], labels[3])
        self.costs[labels] = self.costs.get(labels, 0) + amount

    # Other requests (health, metrics, pages) are not counted: probes would outnumber the streams. No argument has a
    # default, because subclasses are interpreted and each call would take 0.4 us more.

    def request_ended(self, endpoint: str, status: int, stream: StreamMetrics) -> None:
        """Counts one request with a stream.

        Args:
            endpoint: The route.
            status: The HTTP status; 499 if the client disconnected before the response was complete.
            stream: The figures of the stream.
        """
        code, provider = stream.code or "", stream.provider
        labels = (endpoint, provider, _label(stream.model, self._known), status, _OUTCOMES[stream.outcome], code)
        _add(self._requests, labels, 1)
        if code:
            self._count_error((code, provider, stream.upstream))

    def request_refused(self, endpoint: str, status: int, code: str) -> None:
        """Counts one request without a stream, because it was refused or the gateway failed.

        Args:
            endpoint: The route; `OTHER` if there is no such route.
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
    """Returns a valid count of usage: an upstream or a processor may have set any value."""
    count = usage.get(name)
    return min(count, _MOST_TOKENS) if isinstance(count, int) else 0


def _label(model: str, known: frozenset[str]) -> str:
    # A function, because a method that a subclass may override is called through the interpreter.
    return model if model in known else OTHER
