"""Results of `gai-fast bench --json` as a page, and beside earlier ones.

    python -m benchmarks.endpoint RESULTS.json [BEFORE.json] > report.html

Owns the choice of figures. Measures nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks import plots
from benchmarks.plots import Buckets
from gai_fast.cli.bench.command import PERCENTS, TIMES
from gai_fast.cli.bench.figures import figure, seconds

RATES: Final = ("requests_per_second", "events_per_second", "tokens_per_second")
SETTINGS: Final = ("url", "format", "model", "connections", "rate", "started", "version")

Results = dict[str, Any]


def changes(results: Results, before: Results | None) -> list[list[str]]:
    """Returns a row for each figure: its name, its value, the earlier one, and the change in per cent."""
    rows = [
        _row(f"{title}, {one}", results[name][one], before and before[name][one], seconds)
        for name, title in TIMES.items()
        for one in (*(f"p{percent}" for percent in PERCENTS), "max")
    ]
    rows += [_row(rate.replace("_", " "), results[rate], before and before[rate], figure) for rate in RATES]
    return rows


def _row(title: str, value: float | None, former: float | None, write: Any) -> list[str]:
    change = f"{value / former - 1:+.0%}" if value is not None and former else ""
    return [title, *("–" if each is None else write(each) for each in (value, former)), change]


def page(results: Results, before: Results | None = None) -> str:
    """Returns the HTML report."""
    drawn: list[tuple[str, Results, plots.Role]] = [("this run", results, "main")]
    if before is not None:
        drawn.append(("before", before, "other"))
    sections = [plots.section("Figures", "", plots.table(["", "this run", "before", ""], changes(results, before)))]
    for name, title in TIMES.items():
        series = [(label, _buckets(one[name]), role) for label, one, role in drawn]
        if any(buckets for _, buckets, _ in series):
            share = "share of the events" if name == "gap" else "share of the answers"
            sections.append(plots.section(title[:1].upper() + title[1:], "", plots.distributions(title, series, share)))
    settings = [[name, *(str(one[name]) for _, one, _ in drawn)] for name in SETTINGS]
    sections.append(plots.section("Settings", "", plots.table(["", *(label for label, _, _ in drawn)], settings)))
    return plots.page("gai-fast bench", results["url"], *sections)


def _buckets(times: dict[str, Any]) -> Buckets:
    return [(max(float(value), 1e-6), count) for value, count in times["buckets"].items()]


if __name__ == "__main__":
    print(page(*(json.loads(Path(name).read_text()) for name in sys.argv[1:3])), end="")
