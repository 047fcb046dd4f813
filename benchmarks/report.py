"""The results of a run as a table for the terminal and as one HTML file: `python -m benchmarks.report RESULTS.json`.

Owns the choice of figures and their computation from samples: medians over turns, and for CPU the median of the ratios
to the baseline of the same turn. Measures nothing.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import plots
from benchmarks.plots import Buckets, Curve, Dot, Role
from gai_fast.cli.bench.figures import figure, seconds

BASELINE: Final = "nginx"
SUBJECT: Final = "gai-fast"
MICRO: Final = 1e-6
KIB: Final = 1024
NOTHING: Final = "–"
"""Stands for a contender that takes no part in a scenario."""

Results = dict[str, Any]
Result = dict[str, Any]
Read = Callable[[Result | None], float | None]
"""A figure of a result; nothing if it has none."""

METHOD: Final = (
    "Every contender is a fresh process, on a core of its own; the fake provider and the client, both small C "
    "programs, share another. Contenders take turns (A B A B …); a figure is the median of its turns. CPU is the "
    "kernel's own accounting (user and system time of the relay's whole process tree), which holds on a noisy machine "
    "where wall time does not; its ratio to nginx is the median of the ratios within each turn.",
    "Correctness stands beside every number: in every answer of every turn the client compares the text with what the "
    "provider sent, byte by byte, counts the events, and looks for the end mark and the proper end of the response. "
    "One answer that differs makes the contender fail this scenario: it has no time there.",
    "Where the upstream speaks TLS, an nginx on the provider's core ends it, in records of 4 KiB; every contender "
    "verifies its certificate. At a cold start every turn is the first of a fresh process, without a warm-up.",
    "Every delta carries the time at which it was sent. Latency is from there to its arrival at the client, so it "
    "holds the relay, two loopback connections and what a shared machine adds; “no relay” is the same without a relay.",
    "Contenders that normalize do the same work: parse each chunk, send a typed event with a number, then usage and an "
    "end. Those in Python use uvloop, orjson, and aiohttp as client, whatever their own examples use. Contenders that "
    "copy bytes do less, and are here as the floor.",
)


def _medians(result: Result | None, read: Callable[[dict[str, Any]], float]) -> float | None:
    if result is None or "fault" in result:
        return None
    return median(map(read, result["samples"]))


def cpu(result: Result | None) -> float | None:
    """Microseconds of CPU per event; nothing if there is no relay."""
    if result is None or "cpu_us_per_event" not in result.get("samples", [{}])[0]:
        return None
    return _medians(result, lambda sample: sample["cpu_us_per_event"])


def ratio(result: Result | None, baseline: Result | None, read: Read) -> float | None:
    """Returns a figure of a result, as a multiple of the baseline's of the same turn; the median of the turns.

    Args:
        result: Of a contender.
        baseline: Of the baseline.
        read: The figure.
    """
    if result is None or baseline is None or read(result) is None or not read(baseline):
        return None
    pairs = zip(_turns(result), _turns(baseline), strict=True)
    ratios = [own / its for own, its in ((read(own), read(its)) for own, its in pairs) if own is not None and its]
    return median(ratios) if ratios else None


def _turns(result: Result) -> list[Result]:
    """Returns a result for each turn; one for all if its samples are levels of one growth."""
    if "resident_kib_before" in result["samples"][0]:
        return [result]
    return [{"samples": [sample]} for sample in result["samples"]]


def time_of(result: Result | None, what: str, which: str) -> float | None:
    """Seconds: `ttft` or `latency`, a percentile of it."""
    return _medians(result, lambda sample: sample[what][which] * MICRO)


def first_p50(result: Result | None) -> float | None:
    """Seconds to the first delta, at the median."""
    return time_of(result, "ttft", "p50")


def first_p99(result: Result | None) -> float | None:
    """Seconds to the first delta, at the 99th percentile."""
    return time_of(result, "ttft", "p99")


def kib_per_stream(result: Result | None) -> float | None:
    """Memory that each open stream adds, at the most streams that were open."""
    grown = _growth(result)
    return grown[-1][1] / grown[-1][0] if grown else None


def events_per_second(result: Result | None) -> float | None:
    """Events in a second of the contender's CPU; none for a run too short to have cost a tick of it."""
    spent = cpu(result)
    return 1 / (spent * MICRO) if spent else None


def _growth(result: Result | None) -> list[tuple[float, float]]:
    """Open streams and the resident memory that they added, in KiB."""
    if result is None or "fault" in result:
        return []
    before = result["samples"][0]["resident_kib_before"]
    return [(sample["open"], sample["resident_kib_most"] - before) for sample in result["samples"]]


def _histogram(result: Result, what: str) -> Buckets:
    counted: Counter[int] = Counter()
    for sample in result["samples"]:
        counted.update(dict(sample[what].get("buckets", ())))
    return [(value * MICRO, count) for value, count in sorted(counted.items())]


OURS: Final = frozenset({SUBJECT})
COMPARED: Final = (cpu, first_p99, kib_per_stream)
"""The figures that stand with their ratio to the baseline."""


def _role(name: str) -> Role:
    return "main" if name.startswith(SUBJECT) else "second" if name == BASELINE else "other"


# ---- the table -------------------------------------------------------------------------------------------------------


def _rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Returns the summary: head and rows, one for each contender."""
    measured = {one["key"]: one for one in results["scenarios"]}
    head = ["contender", "what it does"]
    columns: list[tuple[str, Read, Callable[[float], str]]] = []
    for key, scenario in measured.items():
        title = scenario["title"]
        if scenario["kind"] in ("burst", "paced", "cold"):
            columns.append((key, cpu, figure))
            head.append(f"{title}: CPU µs/event")
        if scenario["kind"] == "paced":
            columns += [(key, lambda result: time_of(result, "latency", "p50"), seconds)]
            columns += [(key, lambda result: time_of(result, "latency", "p99"), seconds)]
            head += [f"{title}: latency p50", "p99"]
        if scenario["kind"] == "first":
            columns.append((key, first_p50, seconds))
            head.append(f"{title}: p50")
        if scenario["kind"] == "cold":
            columns.append((key, first_p99, seconds))
            head.append(f"{title}: first delta p99")
        if scenario["kind"] == "streams":
            columns.append((key, kib_per_stream, figure))
            head.append(f"{title}: KiB/stream")
        if scenario["kind"] == "memory":
            columns.append((key, events_per_second, lambda value: f"{value:,.0f}"))
            head.append(f"{title}: events/s")
    rows = []
    for contender in results["contenders"]:
        name = contender["name"]
        row = [name, contender["does"]]
        for key, read, write in columns:
            scenario = measured[key]
            result = scenario["results"].get(name)
            value = read(result)
            if value is None:
                row.append("missing" if contender["missing"] else "FAILED" if result and "fault" in result else NOTHING)
                continue
            times = ratio(result, scenario["results"].get(BASELINE), read) if read in COMPARED else None
            row.append(write(value) + (f" ({figure(times)}×)" if times is not None and name != BASELINE else ""))
        rows.append(row)
    return head, rows


def problems(results: Results) -> list[str]:
    """Returns the missing contenders and the failures, one line each."""
    missing = [f"{one['name']} is missing: {one['missing']}" for one in results["contenders"] if one["missing"]]
    return missing + faults(results)


def faults(results: Results) -> list[str]:
    """Returns the failures: contender, scenario and reason."""
    return [
        f"{scenario['title']}: {name}: {result['fault']}"
        for scenario in results["scenarios"]
        for name, result in scenario["results"].items()
        if "fault" in result
    ]


def table(results: Results) -> str:
    """Returns the summary for a terminal: each scenario a block, since one table of all is too wide."""
    head, rows = _rows(results)
    width = max(len(row[0]) for row in rows)
    blocks = []
    for start in range(2, len(head), 4):
        titles, cells = head[start : start + 4], [row[start : start + 4] for row in rows]
        sizes = [max(len(text) for text in column) for column in zip(titles, *cells, strict=True)]
        lines = ["  ".join([" " * width, *(text.rjust(size) for text, size in zip(titles, sizes, strict=True))])]
        for row, texts in zip(rows, cells, strict=True):
            if set(texts) == {NOTHING}:
                continue  # it takes part in none of these scenarios
            shown = [text.rjust(size) for text, size in zip(texts, sizes, strict=True)]
            lines.append("  ".join([row[0].ljust(width), *shown]))
        blocks.append("\n".join(lines))
    result = problems(results)
    return "\n\n".join([*blocks, *(["\n".join(result)] if result else [])])


# ---- the page --------------------------------------------------------------------------------------------------------


def _dot_plot(scenario: dict[str, Any], read: Read, write: Callable[[float], str], unit: str) -> str:
    rows = []
    for name, result in scenario["results"].items():
        value = read(result)
        if value is not None:
            rows.append(Dot(name, value, write(value), _role(name)))
        elif "fault" in result:
            rows.append(Dot(name, None, "failed: see above", _role(name)))
    return plots.dots(scenario["title"], rows, unit)


def _distributions(scenario: dict[str, Any], what: str, title: str, share: str) -> str:
    drawn = [
        (name, _histogram(result, what), _role(name))
        for name, result in scenario["results"].items()
        if "fault" not in result
    ]
    return plots.distributions(title, drawn, share)


def _micros_of(read: Read) -> Read:
    def micros(result: Result | None) -> float | None:
        value = read(result)
        return None if value is None else value / MICRO

    return micros


def _micros(value: float) -> str:
    return f"{figure(value)} µs"


def _plots(scenario: dict[str, Any]) -> list[str]:
    cpu_plot = _dot_plot(scenario, cpu, _micros, "µs of CPU per event")
    match scenario["kind"]:
        case "burst":
            return [cpu_plot]
        case "paced":
            share = "share of the deltas that came at least as fast"
            return [cpu_plot, _distributions(scenario, "latency", "Latency of a delta", share)]
        case "first":
            share = "share of the answers that began at least as fast"
            return [
                _dot_plot(scenario, _micros_of(first_p50), _micros, "µs from the request to the first delta, median"),
                _distributions(scenario, "ttft", "Time to the first delta", share),
            ]
        case "cold":
            share = "share of the answers that began at least as fast"
            return [
                cpu_plot,
                _dot_plot(scenario, _micros_of(first_p99), _micros, "µs to the first delta, 99th percentile"),
                _distributions(scenario, "ttft", "Time to the first delta", share),
            ]
        case "streams":
            lines = [
                Curve(name, [(0.0, 0.0), *((streams, kib / KIB) for streams, kib in _growth(result))], _role(name))
                for name, result in scenario["results"].items()
                if _growth(result)
            ]
            return [
                _dot_plot(scenario, kib_per_stream, lambda value: f"{figure(value)} KiB", "KiB per open stream"),
                plots.curves("Memory by open streams", lines, "open streams", "MiB"),
            ]
        case _:
            return [_dot_plot(scenario, events_per_second, lambda value: f"{value:,.0f}", "events per second of CPU")]


def render(results: Results) -> str:
    """Returns the report."""
    machine = results["machine"]
    result = problems(results)
    summary = plots.table(*_rows(results), OURS)
    sections = [plots.section("Summary", "In brackets: times that of nginx.", summary)]
    if result:
        sections.append(plots.section("Missing and failed", "", plots.table(["what"], [[one] for one in result])))
    for scenario in results["scenarios"]:
        about = f"{scenario['about'][:1].upper()}{scenario['about'][1:]}; {scenario['rounds']} turns."
        sections.append(plots.section(scenario["title"], about, *_plots(scenario)))
    contenders = [[one["name"], one["does"], one["note"], one["version"] or "–"] for one in results["contenders"]]
    facts = [[name.replace("_", " "), str(value)] for name, value in machine.items()]
    facts += [["commit", results["commit"]], ["implementation", results["implementation"]], ["run", results["mode"]]]
    sections += [
        plots.section("Contenders", "", plots.table(["contender", "does", "how", "versions"], contenders, OURS)),
        plots.section("Machine", "", plots.table(["what", "value"], facts)),
        plots.section("Method", "", plots.paragraphs(METHOD)),
    ]
    about = f"Streaming relays beside one another, {results['started']}, {machine['cpu']}, commit {results['commit']}."
    return plots.page("gai-fast benchmarks", about, *sections)


def main(arguments: Sequence[str]) -> None:
    """Writes the report beside a file of results."""
    for name in arguments:
        path = Path(name)
        results = json.loads(path.read_text())
        print(table(results))
        path.with_name("report.html").write_text(render(results))


if __name__ == "__main__":
    main(sys.argv[1:])
