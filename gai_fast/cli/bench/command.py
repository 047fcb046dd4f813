"""`gai-fast bench`: loads an endpoint with many requests at once and reports times and rates of its streams.

Owns the command, the table and the conditions of `--fail-on`. `load.py` generates the load and measures it.
"""

from __future__ import annotations

import asyncio
import operator
import re
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

import click

from gai_fast.cli import Failure, FiniteRange, WholeRange, header_option, json_option, option, print_json
from gai_fast.cli.bench.figures import figure, seconds
from gai_fast.cli.bench.load import NATIVE, Load, LoadedEndpoint, LoadHistogram, Measured, endpoint
from gai_fast.cli.processor_time import BUSY
from gai_fast.cli.serve import QUERY, run_async
from gai_fast.model.errors import Error
from gai_fast.model.version import __version__

SCHEMA: Final = "gai-fast.bench.v1"
DEFAULT_REQUESTS: Final = 100
LOOK_SECONDS: Final = 0.2
INTERRUPTED: Final = 130
"""The exit code after Ctrl-C, by the convention of shells."""

TIMES: Final = {"ttft": "TTFT", "gap": "inter-event gap", "duration": "duration"}
PERCENTS: Final = (50, 90, 99)

Results = dict[str, Any]
"""The JSON document; see docs/performance.md."""


# ---- conditions ------------------------------------------------------------------------------------------------------


_CONDITION: Final = re.compile(
    r"\s*(?P<metric>[a-z0-9_.]+)\s*(?P<sign>[<>]=?)\s*(?P<limit>[0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(?P<unit>[^\s0-9.]*)\s*"
)
_TIME: Final = re.compile(r"(?:p([0-9]{1,2}(?:\.[0-9]{1,3})?)|(mean|max))_(ttft|gap|duration)")
_SIGNS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_SECONDS: Final = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_PERCENT: Final = {"%": 1.0}
_NUMBER: Final = {"": 1.0}


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that makes the run fail, such as `p99_ttft>200ms`.

    Args:
        text: The condition as the user wrote it.
        read: Returns its figure, or None if nothing was measured.
        holds: Returns whether the condition holds for a figure.
        write: Formats a figure.
    """

    text: str
    read: Callable[[Measured], float | None]
    holds: Callable[[float], bool]
    write: Callable[[float], str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `METRIC SIGN VALUE UNIT`, with or without blanks.

        Metrics: `pN`, `mean` or `max` of `_ttft`, `_gap`, `_duration`, with the unit us, ms or s; `error_rate` with %;
        `errors`, `requests_per_second`, `events_per_second`, `tokens_per_second` without a unit. Signs: > >= < <=.

        Raises:
            ValueError: The text is not a condition.
        """
        found = _CONDITION.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no condition: they are like p99_ttft>200ms, error_rate>1%, errors>0")
        metric, unit, sign = found["metric"], found["unit"], _SIGNS[found["sign"]]
        time = _TIME.fullmatch(metric)
        if time is None and metric not in _COUNTS:
            raise ValueError(f"{text!r}: no metric {metric!r}; known: p99_ttft and its like, {', '.join(_COUNTS)}")
        units = _SECONDS if time else _PERCENT if metric == "error_rate" else _NUMBER
        if unit not in units:
            raise ValueError(
                f"{text!r}: {metric} has {'no unit' if units is _NUMBER else 'the unit ' + ' or '.join(units)}"
            )
        limit = float(found["limit"]) * units[unit]
        write = seconds if time else lambda value: f"{figure(value) if value % 1 else f'{value:,.0f}'}{unit}"
        read = _read_time(*time.groups()) if time else _COUNTS[metric]
        return cls(text, read, lambda value: sign(value, limit), write)

    def problem(self, measured: Measured) -> str | None:
        """Returns the reason to fail, or None. A condition without a measured figure fails, too."""
        value = self.read(measured)
        if value is None:
            return f"{self.text}: nothing was measured"
        return f"{self.text}: it is {self.write(value)}" if self.holds(value) else None


def _read_time(percent: str | None, of: str | None, time: str) -> Callable[[Measured], float | None]:
    def read(measured: Measured) -> float | None:
        histogram: LoadHistogram = getattr(measured, time)
        if percent is not None:
            return histogram.percentile(float(percent))
        return histogram.mean if of == "mean" else histogram.most if histogram.count else None

    return read


def _per_second(count: float | None, measured: Measured) -> float | None:
    return None if count is None or not measured.seconds else count / measured.seconds


_COUNTS: Final[Mapping[str, Callable[[Measured], float | None]]] = {
    "errors": lambda measured: measured.errors.total(),
    "error_rate": lambda measured: 100 * measured.errors.total() / measured.requests if measured.requests else None,
    "requests_per_second": lambda measured: _per_second(measured.requests, measured),
    "events_per_second": lambda measured: _per_second(measured.events, measured),
    "tokens_per_second": lambda measured: _per_second(measured.output_tokens, measured),
}


# ---- the figures -----------------------------------------------------------------------------------------------------


def results_of(load: Load, connections: int, rate: float | None, begun: datetime) -> Results:
    """Returns the JSON document of a load. Times are in seconds."""
    measured, asked = load.measured, load.endpoint
    return {
        "schema": SCHEMA,
        "version": __version__,
        "started": begun.isoformat(timespec="seconds"),
        "url": asked.url,
        "format": asked.format,
        "model": asked.model or None,
        "connections": connections,
        "rate": rate,
        "seconds": measured.seconds,
        "interrupted": measured.interrupted,
        "requests": measured.requests,
        "unsent": measured.unsent,
        "errors": measured.errors.total(),
        "errors_by_code": dict(measured.errors.most_common()),
        "first_error": measured.first_error or None,
        "events": measured.events,
        "output_tokens": measured.output_tokens,
        "client_cpu": measured.client_cpu,
        "mock_cpu": measured.mock_cpu,
        **{name: read(measured) for name, read in _COUNTS.items() if name.endswith("_per_second")},
        **{name: _times(getattr(measured, name)) for name in TIMES},
    }


def _times(histogram: LoadHistogram) -> dict[str, Any]:
    return {
        "count": histogram.count,
        "mean": histogram.mean,
        **{f"p{percent}": histogram.percentile(percent) for percent in PERCENTS},
        "max": histogram.most if histogram.count else None,
        "buckets": {f"{value:.6g}": count for value, count in histogram.buckets()},
    }


# ---- the table -------------------------------------------------------------------------------------------------------


def _time_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    columns = [f"p{percent}" for percent in PERCENTS] + ["max"]
    rows = [
        [title, *("–" if results[name][one] is None else seconds(results[name][one]) for one in columns)]
        for name, title in TIMES.items()
    ]
    return ["", *columns], rows


def _count_rows(results: Results) -> list[list[str]]:
    rows = []
    for title, count, rate in (
        ("requests", "requests", "requests_per_second"),
        ("events", "events", "events_per_second"),
        ("output tokens", "output_tokens", "tokens_per_second"),
    ):
        if results[count] is not None:
            speed = "–" if results[rate] is None else f"{figure(results[rate])}/s"
            rows.append([title, f"{results[count]:,}", speed])
    errors = results["errors"]
    codes = ", ".join(f"{code} {count:,}" for code, count in results["errors_by_code"].items())
    rows.append(["errors", f"{errors:,}", codes])
    rows.append(["client CPU", f"{results['client_cpu']:.0%}", "of a core"])
    if results["unsent"]:
        rows.append(["never sent", f"{results['unsent']:,}", "due while all connections were busy"])
    return rows


def _notes(results: Results) -> list[str]:
    notes = [f"first error: {results['first_error']}"] if results["first_error"] else []
    if results["client_cpu"] > BUSY and results["seconds"] >= 1:
        notes.append(f"this client used {results['client_cpu']:.0%} of a core: the figures may be its own")
    if (results["mock_cpu"] or 0) > BUSY:
        notes.append(f"the mock used {results['mock_cpu']:.0%} of a core: it is the limit")
    if results["interrupted"]:
        notes.append("interrupted: unfinished answers are left out")
    return notes


def _headline(results: Results) -> str:
    parts = [results["url"], results["format"], results["model"], f"{results['connections']} connections"]
    if results["rate"]:
        parts.append(f"{results['rate']:g} requests/s due")
    return " · ".join(filter(None, [*parts, seconds(results["seconds"])]))


def shown(results: Results) -> str:
    """Returns the table for a terminal."""
    head, rows = _time_rows(results)
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [_headline(results), ""]
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("   ".join(cells).rstrip())
    lines.append("")
    counts = _count_rows(results)
    width = max(len(row[1]) for row in counts)
    lines += [f"{title.ljust(widths[0])}   {count.rjust(width)}   {more}".rstrip() for title, count, more in counts]
    return "\n".join([*lines, *_notes(results)])


# ---- the command -----------------------------------------------------------------------------------------------------


async def _run(load: Load) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, load.stop)
    watching = loop.create_task(_watch(load)) if sys.stderr.isatty() else None
    try:
        await load.run()
    finally:
        if watching is not None:
            watching.cancel()
            click.echo("\r\033[K", nl=False, err=True)


async def _watch(load: Load) -> None:
    """Rewrites one line of the terminal with the progress."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        measured = load.measured
        of = f"/{load.requests:,}" if load.requests is not None else ""
        median = measured.ttft.percentile(50)
        parts = [
            f"{load.elapsed:.0f} s",
            f"{measured.requests:,}{of} answers",
            f"{load.running:,} running",
            f"{measured.events / load.elapsed:,.0f} events/s",
            f"TTFT {'–' if median is None else seconds(median)}",
            f"{measured.errors.total():,} errors",
        ]
        click.echo(f"\r\033[K{' · '.join(parts)}", nl=False, err=True)


def _conditions(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[Condition]:
    try:
        return [Condition.parse(value) for value in values]
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


@click.command()
@click.argument("url")
@click.argument("more", nargs=-1, metavar="")
@option(
    "--format",
    default=NATIVE,
    metavar="NAME",
    help="gai, or the provider whose API the endpoint speaks, as in a configuration.",
)
@option("-m", "--model", default="", help="The model; needed unless the format is gai.")
@option("--prompt", default=QUERY, help="The user's message.")
@option("--max-tokens", type=WholeRange(1), help="The longest answer to ask for.")
@option("--connections", type=WholeRange(1, 20_000), default=10, help="Requests at once, at most.")
@option("--requests", type=WholeRange(1), show_default="100, or none with --duration", help="Requests in all.")
@option(
    "--rate",
    type=FiniteRange(0, min_open=True),
    help="Requests a second, even if answers are slow; by default each connection sends its next request at once.",
)
@option("--duration", type=FiniteRange(0, min_open=True), help="Seconds after which no request is sent.")
@option(
    "--timeout",
    type=FiniteRange(0, min_open=True),
    default=120.0,
    help="Seconds in which an answer must have ended.",
)
@option("--api-key", help="The endpoint's key. Prefer the variable: other users can read a command line.")
@header_option(help="Sent with every request.")
@json_option
@option(
    "--fail-on",
    multiple=True,
    callback=_conditions,
    metavar="CONDITION",
    help="Exit with 1 if it holds: p99_ttft>200ms, error_rate>1%.",
)
def command(
    url: str,
    more: tuple[str, ...],
    format: str,
    model: str,
    prompt: str,
    max_tokens: int | None,
    connections: int,
    requests: int | None,
    rate: float | None,
    duration: float | None,
    timeout: float,
    api_key: str | None,
    header: dict[str, str],
    json: bool,
    fail_on: list[Condition],
) -> None:
    """Load an endpoint, and show its times, rates and errors.

    URL is the endpoint, the base URL of an SDK, or only scheme, host and port: `gai-fast bench
    http://127.0.0.1:8080`. A failure inside a stream is an error, as a status is. Exit code 1: a condition of --fail-on
    holds, or no answer was complete.
    """
    if json and (more or "://" not in url):
        raise click.UsageError("--json takes no file, it prints: gai-fast bench URL --json > FILE")
    if more:
        raise click.UsageError(f"one URL only, not also {' '.join(more)}")
    load = Load(
        _endpoint(url, format, model, prompt, max_tokens, api_key, header),
        connections=connections,
        requests=requests if requests is not None or duration is not None else DEFAULT_REQUESTS,
        rate=rate,
        duration=duration,
        timeout=timeout,
    )
    begun = datetime.now(UTC)
    run_async(_run(load))
    results = results_of(load, connections, rate, begun)
    if json:
        print_json(results)
    else:
        click.echo(shown(results))
    tripped = [reason for one in fail_on if (reason := one.problem(load.measured)) is not None]
    if tripped:
        raise Failure("\n".join(tripped))
    if load.measured.interrupted:
        raise click.exceptions.Exit(INTERRUPTED)
    if not load.measured.duration.count:
        raise Failure(f"no answer was complete: {load.measured.first_error or 'none was asked for'}")


def _endpoint(
    url: str, format: str, model: str, prompt: str, max_tokens: int | None, api_key: str | None, headers: dict[str, str]
) -> LoadedEndpoint:
    try:
        return endpoint(
            url,
            format=format,
            model=model,
            prompt=prompt,
            max_tokens=max_tokens,
            api_key=api_key,
            headers=headers,
        )
    except (ValueError, Error) as problem:
        raise click.UsageError(str(problem)) from None
