"""The counts of several workers as one: how a worker tells its own, and how they are added up.

Owns the form of the counts between processes, and how a gauge of several workers reads. `counts.py` owns the counts,
`metrics.py` exposes them.

A worker's dump is what MessagePack can hold: `requests`, `errors`, `costs`, `models`, `gauges`, `process` and
`loop_lag`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from gai_fast.kernels import Histogram
from gai_fast.server.observe.counts import ModelCounts, StreamCounts
from gai_fast.server.observe.metrics import COUNTED, LARGEST, SMALLEST, PrometheusSink, process_gauges
from gai_fast.server.observe.process import process_figures

_HISTOGRAMS: Final = ("first_token", "upstream_first_token", "gaps", "duration", "overhead", "backpressure")
_NUMBERS: Final = (
    "deltas",
    "others",
    "bytes_in",
    "bytes_out",
    "disconnects",
    "retries",
    "fallbacks",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "reasoning_tokens",
)


def dump(sink: PrometheusSink) -> dict[str, Any]:
    """The counts of a worker.

    Args:
        sink: Its counts and gauges.
    """
    return {
        "gauges": {name: dict(read()) for name, read in sink.gauges.items()},
        "process": dict(sink.process()),
        "loop_lag": [sink.loop_lag.counts, sink.loop_lag.sum],
        "requests": [[list(labels), number] for labels, number in sink.requests.items()],
        "errors": [[list(labels), number] for labels, number in sink.errors.items()],
        # As text: MessagePack has whole numbers of 64 bits.
        "costs": [[list(labels), str(amount)] for labels, amount in sink.costs.items()],
        "models": [[list(labels), _dump_model(model)] for labels, model in sink.models.items()],
    }


def dump_process() -> dict[str, Any]:
    """The counts of a process that serves nobody: the supervisor."""
    return dump(PrometheusSink((), process_gauges(), process_figures))


def _dump_model(model: ModelCounts) -> dict[str, Any]:
    histograms: list[Histogram] = [getattr(model, name) for name in _HISTOGRAMS]
    return {
        "histograms": [[each.counts, each.sum] for each in histograms],
        "numbers": [getattr(model, name) for name in _NUMBERS],
    }


def add(dumps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of the counts of workers that are gone; of their gauges and figures, those that never fall.

    Args:
        dumps: The last counts of each worker.
    """
    kinds = ("gauges", "process")
    return dump(total([{**each, **{kind: _counters(each[kind]) for kind in kinds}} for each in dumps], ()))


def _counters(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values for name, values in figures.items() if name in COUNTED}


def _together(name: str, one: float, other: float) -> float:
    """Returns one figure for two processes: the largest, the smallest or the sum."""
    return max(one, other) if name in LARGEST else min(one, other) if name in SMALLEST else one + other


def total(dumps: Sequence[Mapping[str, Any]], models: Collection[str]) -> PrometheusSink:
    """The counts and gauges of a server with several workers, to be exposed.

    Args:
        dumps: The counts of its workers, those that are gone included.
        models: As for `PrometheusSink`.
    """
    gauges: dict[str, dict[str, float]] = {}
    process: dict[str, float] = {}
    for each in dumps:
        for name, value in each["process"].items():
            process[name] = _together(name, process[name], value) if name in process else value
        for name, values in each["gauges"].items():
            sums = gauges.setdefault(name, {})
            for label, value in values.items():
                sums[label] = _together(name, sums[label], value) if label in sums else value
    sink = PrometheusSink(models, {name: values.copy for name, values in gauges.items()}, lambda: process)
    for each in dumps:
        _restore(sink, each)
    return sink


def _restore(counts: StreamCounts, dumped: Mapping[str, Any]) -> None:
    late, seconds = dumped["loop_lag"]
    counts.loop_lag.merge(tuple(late), seconds)
    for given, number in dumped["requests"]:
        endpoint, provider, model, status, outcome, code = given
        counts.add_requests((endpoint, provider, model, status, outcome, code), number)
    for (code, provider, upstream), number in dumped["errors"]:
        error = (code, provider, upstream)
        counts.errors[error] = counts.errors.get(error, 0) + number
    for (key, model, provider, currency), amount in dumped["costs"]:
        counts.add_cost((key, model, provider, currency), int(amount))
    for given, figures in dumped["models"]:
        provider, name = given
        kept = counts.models.setdefault((provider, name), ModelCounts())
        for attribute, (seen, sum_) in zip(_HISTOGRAMS, figures["histograms"], strict=True):
            getattr(kept, attribute).merge(tuple(seen), sum_)
        for attribute, number in zip(_NUMBERS, figures["numbers"], strict=True):
            setattr(kept, attribute, getattr(kept, attribute) + number)
