"""`python -m benchmarks.macro [--quick] [--only WORD]…`: measures, prints a table, writes JSON and the HTML report.

nginx takes part in every run: each ratio is to it. Exit code 1: an answer was wrong, nginx is missing, or, with
GAI_FAST_REQUIRE_ALL=1, any contender is. If a contender cannot be installed, the report names it with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import Contender, Place, load
from benchmarks.macro.environments import CACHE, ROOT, interpreter, own_folder, prepare, version
from benchmarks.macro.measuring import DIRECT, Measuring
from benchmarks.macro.running import Fault, cores
from benchmarks.macro.scenarios import Scenario, scenarios
from benchmarks.report import BASELINE, Results, faults, render, table
from gai_fast import IMPLEMENTATION

RESULTS: Final = ROOT / "benchmarks/results"
BAR: Final = 24


class Progress:
    """A bar that rewrites its line on a terminal, otherwise a line per step; on the standard error.

    Args:
        total: Steps in all.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._begun = time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    def step(self, text: str) -> None:
        """Shows that a step begins."""
        self._done += 1
        if not self._is_terminal:
            print(f"[{self._done}/{self._total}] {text}", file=sys.stderr, flush=True)
            return
        share = min(self._done / self._total, 1.0)
        elapsed = time.monotonic() - self._begun
        left = elapsed / share - elapsed
        bar = "█" * round(share * BAR) + "░" * (BAR - round(share * BAR))
        width = shutil.get_terminal_size().columns
        line = f"{bar} {share:4.0%}  {left // 60:.0f}:{left % 60:02.0f} left  {text}"
        print(f"\r\033[K{line[: width - 1]}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Ends the line, for other output."""
        if self._is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    pair = cores()
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        "pinning": f"relay on core {pair[0]}, provider and client on core {pair[1]}" if pair else "none: one core",
        "load_average": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }


def _commit() -> str:
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _install(
    contenders: Sequence[Contender], folder: Path
) -> tuple[list[tuple[Contender, Path]], list[dict[str, str]]]:
    """Returns the contenders that take part, and their lines in the report."""
    progress = Progress(len(contenders))
    there, seen = [], []
    for contender in contenders:
        progress.step(f"preparing {contender.name}")
        entry = {"name": contender.name, "does": contender.does, "note": contender.note, "version": "", "missing": ""}
        seen.append(entry)
        try:
            place = Place(interpreter(contender), 0, "", folder, own_folder(CACHE))
            prepare(contender, place)
            entry["version"] = version(contender, place)
        except Fault as fault:
            entry["missing"] = str(fault)
        else:
            there.append((contender, place.python))
    progress.end()
    return there, seen


def check_baseline(expected: Sequence[dict[str, str]]) -> None:
    """Looks for the baseline among the contenders' lines.

    Raises:
        Fault: It is missing, so there would be no ratios.
    """
    for one in expected:
        if one["name"] == BASELINE and one["missing"]:
            raise Fault(f"{BASELINE} is missing, which every figure is compared with: {one['missing']}")


def exit_code(results: Results, *, requires_all: bool) -> int:
    """1 if a contender failed or, if all are required, one is missing."""
    missing = any(one["missing"] for one in results["contenders"])
    return int(bool(faults(results)) or (missing and requires_all))


def _measure(chosen: Sequence[Scenario], there: Sequence[tuple[Contender, Path]], folder: Path) -> list[dict[str, Any]]:
    progress: Progress | None = None

    def step(scenario: Scenario, name: str) -> None:
        assert progress is not None
        progress.step(f"{scenario.title}: {name}")

    measuring = Measuring(there, folder, step)
    progress = Progress(sum(map(measuring.turns, chosen)))
    done = [{**asdict(scenario), "results": measuring.run(scenario)} for scenario in chosen]
    progress.end()
    return done


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.macro", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the lightest contenders, a fifth of the time")
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD", help="nginx, and those whose name holds it"
    )
    parser.add_argument("--scenario", action="append", default=[], metavar="KEY", help="only these scenarios")
    chosen = parser.parse_args()
    everybody = [
        one
        for one in load()
        if one.name == BASELINE
        or (any(word in one.name for word in chosen.only) if chosen.only else one.quick or not chosen.quick)
    ]
    shapes = scenarios(quick=chosen.quick)
    unknown = set(chosen.scenario) - {one.key for one in shapes}
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    absent = [word for word in chosen.only if not any(word in one.name for one in everybody)]
    if absent:
        parser.error(f"no such contender: {', '.join(absent)}")
    shapes = [one for one in shapes if not chosen.scenario or one.key in chosen.scenario]

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))  # a relay of 4,000 streams has 8,000 sockets
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers end with it in any case
    started, machine = datetime.now(UTC), _machine()
    try:
        with tempfile.TemporaryDirectory(prefix="gai-fast-bench-") as name:
            there, result = _install(everybody, Path(name))
            check_baseline(result)
            measured = _measure(shapes, there, Path(name))
    except Fault as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was written", file=sys.stderr)
        return 130
    direct = {"name": DIRECT, "does": "–", "note": "the provider asked directly", "version": "", "missing": ""}
    results = {
        "schema": "gai-fast.benchmarks.v1",
        "mode": "quick" if chosen.quick else "full",
        "started": started.isoformat(timespec="seconds"),
        "commit": _commit(),
        "implementation": IMPLEMENTATION,
        "machine": machine,
        "contenders": [*result, direct],
        "scenarios": measured,
    }
    (own_folder(RESULTS) / "results.json").write_text(json.dumps(results))
    (RESULTS / "report.html").write_text(render(results))
    print(table(results))
    print(f"\nreport: {os.path.relpath(RESULTS / 'report.html')}")
    return exit_code(results, requires_all=os.environ.get("GAI_FAST_REQUIRE_ALL", "") not in ("", "0"))


if __name__ == "__main__":
    sys.exit(main())
