"""The counts of several workers as one: the dump of a worker's counts, and their sum.

Owns the form of the counts between processes. `counts.py` owns the counts. `metrics.py` owns how each value is combined
over several processes, and exposes them.

A dump has only MessagePack types: `requests`, `errors`, `costs`, `models`, `gauges`, `process`, `loop_lag`,
`pool_wait`, `guard_delays`, `tool_durations` and `run_steps`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gai_fast.server.observe.counts import ModelCounts, StreamCounts
from gai_fast.server.observe.metrics import GAUGES, PROCESS, PrometheusSink, Reading, process_gauges
from gai_fast.server.observe.process import process_figures


def dump(sink: PrometheusSink) -> dict[str, Any]:
    """Returns the dump of a worker's counts.

    Args:
        sink: The worker's counts and gauges.
    """
    return {
        "gauges": {name: dict(read()) for name, read in sink.gauges.items()},
        "process": dict(sink.process()),
        "loop_lag": [sink.loop_lag.counts, sink.loop_lag.sum],
        "pool_wait": [sink.pool_wait.counts, sink.pool_wait.sum],
        "guard_delays": {guard: [each.counts, each.sum] for guard, each in sink.guard_delays.items()},
        "tool_durations": {server: [each.counts, each.sum] for server, each in sink.tool_durations.items()},
        "run_steps": [sink.run_steps.counts, sink.run_steps.sum],
        "requests": [[list(labels), number] for labels, number in sink.requests.items()],
        "errors": [[list(labels), number] for labels, number in sink.errors.items()],
        # As text: an integer of MessagePack has 64 bits.
        "costs": [[list(labels), str(amount)] for labels, amount in sink.costs.items()],
        "models": [[list(labels), _dump_model(model)] for labels, model in sink.models.items()],
    }


def dump_process() -> dict[str, Any]:
    """Returns the dump of the supervisor's process, which serves no requests."""
    return dump(PrometheusSink((), process_gauges(), process_figures))


def _dump_model(model: ModelCounts) -> dict[str, Any]:
    return {
        "histograms": [[each.counts, each.sum] for each in model.histograms.values()],
        "numbers": list(model.numbers.values()),
    }


def add(dumps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the sum of the counts of workers that have ended. Of their gauges and process values, only counters stay.

    Args:
        dumps: The last dump of each worker.
    """
    kinds = {"gauges": GAUGES, "process": PROCESS}
    counters = [{**each, **{kind: _counters(each[kind], table) for kind, table in kinds.items()}} for each in dumps]
    return dump(total(counters, ()))


def _counters(figures: Mapping[str, Any], table: Mapping[str, Reading]) -> dict[str, Any]:
    return {name: values for name, values in figures.items() if table[name].is_counter}


def total(dumps: Sequence[Mapping[str, Any]], models: Collection[str]) -> PrometheusSink:
    """Returns the counts and gauges of a server with several workers.

    Args:
        dumps: The dumps of its workers, including workers that have ended.
        models: As for `PrometheusSink`.
    """
    gauges: dict[str, dict[str, float]] = {}
    process: dict[str, float] = {}
    for each in dumps:
        for name, value in each["process"].items():
            process[name] = PROCESS[name].combine(process[name], value) if name in process else value
        for name, values in each["gauges"].items():
            sums = gauges.setdefault(name, {})
            for label, value in values.items():
                sums[label] = GAUGES[name].combine(sums[label], value) if label in sums else value
    sink = PrometheusSink(models, {name: values.copy for name, values in gauges.items()}, lambda: process)
    for each in dumps:
        _restore(sink, each)
    return sink


def _restore(counts: StreamCounts, dumped: Mapping[str, Any]) -> None:
    late, seconds = dumped["loop_lag"]
    counts.loop_lag.merge(tuple(late), seconds)
    waits, seconds = dumped["pool_wait"]
    counts.pool_wait.merge(tuple(waits), seconds)
    for guard, (delays, seconds) in dumped["guard_delays"].items():
        counts.guard_delay(guard).merge(tuple(delays), seconds)
    for server, (durations, seconds) in dumped["tool_durations"].items():
        counts.tool_duration(server).merge(tuple(durations), seconds)
    turns, seen_turns = dumped["run_steps"]
    counts.run_steps.merge(tuple(turns), seen_turns)
    for given, number in dumped["requests"]:
        endpoint, provider, model, status, outcome, code = given
        counts.add_requests((endpoint, provider, model, status, outcome, code), number)
    for (code, provider, upstream), number in dumped["errors"]:
        error = (code, provider, upstream)
        counts.errors[error] = counts.errors.get(error, 0) + number
    for (key, model, provider, currency), amount in dumped["costs"]:
        counts.add_cost((key, model, provider, currency), int(amount))
    for given, figures in dumped["models"]:
        provider, model = given
        kept = counts.models.setdefault((provider, model), ModelCounts())
        for histogram, (seen, sum_) in zip(kept.histograms.values(), figures["histograms"], strict=True):
            histogram.merge(tuple(seen), sum_)
        kept.add_numbers(figures["numbers"])
