"""The counts of several workers as one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import gai_fast
from gai_fast.model.figures import SERIES
from gai_fast.model.metrics import StreamMetrics
from gai_fast.server.observe import log_queue
from gai_fast.server.observe.metrics import PrometheusSink
from gai_fast.server.workers import totals

MODELS = ("m",)


def counted(streams: int, **gauges: dict[str, float]) -> PrometheusSink:
    """Returns the counts of a worker that has had some streams."""
    sink = PrometheusSink(MODELS, {name: values.copy for name, values in gauges.items()})
    count(sink, streams)
    return sink


def count(sink: PrometheusSink, streams: int) -> None:
    """Counts the same streams and requests each time."""
    for number in range(streams):
        metrics = StreamMetrics(
            duration=0.5 + number,
            outcome="finished",
            provider="openai",
            model="m",
            time_to_first_token=0.02,
            gaps=tuple([1] * 2),
            gap_sum=0.1,
            usage={"input_tokens": 3, "output_tokens": 4},
            deltas=5,
            events=7,
            bytes_in=11,
            bytes_out=13,
        )
        sink.stream_ended(metrics)
        sink.request_ended("/api/v1/stream", 200, metrics)


def sent(sink: PrometheusSink) -> Any:
    """Returns a worker's counts as another process receives them."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(totals.dump(sink)))


def exposed(sink: PrometheusSink) -> list[str]:
    """Returns the lines of a scrape, in any order: workers meet models in different orders."""
    return sorted(sink.expose()[0].decode().splitlines())


def test_the_sum_of_workers_reads_as_if_one_had_done_it_all() -> None:
    total = totals.total([sent(counted(2)), sent(counted(0)), sent(counted(2))], MODELS)
    alone = counted(2)
    count(alone, 2)
    assert exposed(total) == exposed(alone)


def test_every_series_of_a_figure_is_counted_added_up_and_exposed() -> None:
    """A figure that is declared is exposed: nothing else names it."""
    usage = {each.source: 1 for each in SERIES if each.field == "usage"}
    special = {"gaps": (1,), "usage": usage, "outcome": "disconnected", "events": 2}
    values: dict[str, Any] = {**{each.field: 1 for each in SERIES}, **special}
    worker = counted(0)
    worker.stream_ended(StreamMetrics(**{"provider": "p", "model": "m", **values}))
    lines = exposed(totals.total([totals.add([sent(worker)])], MODELS))
    for each in SERIES:
        labels = {"provider": "p", "model": "m"} | ({each.metric.label: each.value} if each.metric.label else {})
        text = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
        kind = "count" if each.metric.bounds else "total"
        assert f"gai_fast_{each.metric.name}_{kind}{{{text}}} 1.0" in lines
    types = [line for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types)), "the series of a metric stand together"


ONE_LINE = """\
    hops: int = figure("Hops.", _counter("hops", "Hops of streams."), default=0, member=Member("hops", _if_any))
"""
ANOTHER_LINE = """\
    nap: float = figure("Naps.", _histogram("nap_seconds", "Naps.", DURATION_BOUNDS), default=0.0, is_work=True)
"""
HOPS = """
from gai_fast.model.metrics import StreamMetrics
from gai_fast.server.observe.metrics import PrometheusSink
from gai_fast.server.workers import totals

metrics = StreamMetrics(provider="p", model="m", hops=3, nap=0.25)
assert metrics.as_dict()["hops"] == 3
assert "    hops: Hops." in StreamMetrics.__doc__
worker = PrometheusSink(("m",), {})
worker.stream_ended(metrics)
worker.stream_ended(StreamMetrics(provider="p", model="m", nap=0.25, cache="hit"))
total = totals.total([totals.dump(worker), totals.dump(worker)], ("m",))
print(total.expose()[0].decode())
"""


def test_a_new_figure_is_one_line(tmp_path: Path) -> None:
    """The line of the table makes the attribute, its description, the member of results, the count and the series."""
    package = Path(gai_fast.__file__).parent
    shutil.copytree(package, tmp_path / "gai_fast", ignore=shutil.ignore_patterns("*.so", "_native"))
    table = tmp_path / "gai_fast/model/figures.py"
    table.write_text(table.read_text().replace("    deltas: int", f"{ONE_LINE}{ANOTHER_LINE}    deltas: int", 1))
    ran = subprocess.run(
        [sys.executable, "-c", HOPS],
        cwd=tmp_path,
        env={**os.environ, "GAI_FAST_NO_EXTENSIONS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "# HELP gai_fast_hops_total Hops of streams." in ran.stdout
    assert 'gai_fast_hops_total{model="m",provider="p"} 6.0' in ran.stdout
    assert 'gai_fast_nap_seconds_sum{model="m",provider="p"} 0.5' in ran.stdout


def test_errors_of_workers_are_added() -> None:
    one, other = counted(0), counted(0)
    one.errors["network", "openai", "up"] = 2
    other.errors.update({("network", "openai", "up"): 1, ("unauthorized", "", ""): 4})
    total = totals.total([sent(one), totals.add([sent(other)])], MODELS)
    assert total.errors == {("network", "openai", "up"): 3, ("unauthorized", "", ""): 4}


def test_gauges_are_added_and_of_breakers_the_worst_is_reported() -> None:
    one = counted(0, active_streams={"sse": 2, "json": 1}, breaker_state={"up": 2})
    other = counted(0, active_streams={"sse": 3}, breaker_state={"up": 0, "down": 1})
    text = totals.total([sent(one), sent(other)], MODELS).expose()[0].decode()
    assert 'gai_fast_active_streams{transport="sse"} 5.0' in text
    assert 'gai_fast_active_streams{transport="json"} 1.0' in text
    assert 'gai_fast_breaker_state{upstream="up"} 2.0' in text
    assert 'gai_fast_breaker_state{upstream="down"} 1.0' in text


def test_of_workers_that_are_gone_the_counters_are_kept_and_not_what_they_held() -> None:
    gone = totals.add([sent(counted(1, active_streams={"sse": 2}, limited={"streams": 4})), sent(counted(2))])
    gone = totals.add([gone, sent(counted(0, limited={"streams": 1}))])
    text = totals.total([gone, sent(counted(1, limited={"streams": 0}))], MODELS).expose()[0].decode()
    assert "active_streams" not in text
    assert 'gai_fast_limited_total{limit="streams"} 5.0' in text
    assert 'outcome="finished",provider="openai",status="200"} 4.0' in text.replace('model="m",', "")


def test_the_figures_of_processes_are_added_and_their_start_is_the_first() -> None:
    def process(cpu: float, start: float) -> Any:
        figures = {"process_cpu_seconds": cpu, "process_open_fds": 7, "process_start_time_seconds": start}
        return sent(PrometheusSink(MODELS, process=lambda: figures))

    gone = totals.add([process(1.5, 50.0), process(0.5, 60.0)])
    text = totals.total([gone, process(2.0, 200.0), process(4.0, 100.0)], MODELS).expose()[0].decode()
    assert "process_cpu_seconds_total 8.0" in text, "a counter must not fall where a worker ends"
    assert "process_open_fds 14.0" in text
    assert "process_start_time_seconds 100.0" in text


def test_costs_are_added_exactly_above_64_bits_too() -> None:
    one, other = PrometheusSink(MODELS), PrometheusSink(MODELS)
    labels = ("alice", "m", "p", "USD")
    one.costs[labels] = 2**64
    other.costs[labels] = 1
    assert totals.total([totals.add([sent(one)]), sent(other)], MODELS).costs == {labels: 2**64 + 1}


def test_the_lateness_of_all_loops_is_one_histogram() -> None:
    one, other = PrometheusSink(MODELS), PrometheusSink(MODELS)
    one.loop_lag.observe(0.002)
    other.loop_lag.observe(3.0)
    lines = exposed(totals.total([totals.add([sent(one)]), sent(other)], MODELS))
    assert 'gai_fast_loop_lag_seconds_bucket{le="0.0025"} 1.0' in lines
    assert 'gai_fast_loop_lag_seconds_bucket{le="+Inf"} 2.0' in lines
    assert "gai_fast_loop_lag_seconds_sum 3.002" in lines


def test_the_calls_of_tools_and_the_turns_of_runs_are_added() -> None:
    one, other = (counted(0, tool_calls={"docs ok my tool": 2}, runs_waiting={"": 1}) for _ in range(2))
    one.note_tool_duration("docs", 0.02)
    other.note_tool_duration("docs", 400.0)
    other.run_steps.observe(3)
    lines = exposed(totals.total([totals.add([sent(one)]), sent(other)], MODELS))
    assert 'gai_fast_tool_calls_total{outcome="ok",server="docs",tool="my tool"} 4.0' in lines
    assert "gai_fast_runs_waiting 1.0" in lines, "of a worker that is gone nothing waits"
    assert 'gai_fast_tool_duration_seconds_bucket{le="300.0",server="docs"} 1.0' in lines
    assert 'gai_fast_tool_duration_seconds_count{server="docs"} 2.0' in lines
    assert 'gai_fast_run_steps_bucket{le="3.0"} 1.0' in lines


def test_the_dropped_log_lines_of_all_processes_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of the supervisor count, and the lines of gone workers."""
    workers = [sent(counted(0, log_lines_dropped={"": 2})) for _ in range(2)]
    monkeypatch.setattr(log_queue, "dropped", lambda: 3)
    total = totals.total([totals.dump_process(), totals.add(workers)], MODELS)
    assert "gai_fast_log_lines_dropped_total 7.0" in exposed(total)
