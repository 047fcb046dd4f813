"""`python -m benchmarks.instructions`; the package's docstring has the commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from benchmarks.instructions.bounds import compare_bounds
from benchmarks.instructions.cases import QUADRATIC, STEPPED
from benchmarks.instructions.counting import Cost, environment, measure, run_cases
from benchmarks.instructions.durable import measure_durable
from benchmarks.instructions.guards import measure_guards, run_lists
from benchmarks.instructions.path import measure_path, path_environment, serve
from benchmarks.instructions.sealed import compare_sealed, measure_sealed, serve_by_turns
from benchmarks.instructions.sessions import measure_sessions
from benchmarks.instructions.state import PARTS, measure_state
from gai_fast.kernels import IMPLEMENTATION, MODULES

BASELINE = Path(__file__).with_name("baseline.json")
PATH_BASELINE = Path(__file__).with_name("path_baseline.json")
TOLERANCE = 0.03
LINEAR = 2.1
ACCEPT = "python -m benchmarks.instructions accept"

Baseline = dict[str, dict[str, dict[str, float]]]


def compare(
    costs: Mapping[str, Cost],
    baseline: Baseline,
    where: str,
    growths: Mapping[str, float] = MappingProxyType({}),
    *,
    is_required: bool = False,
) -> tuple[list[str], bool]:
    """Returns the table, and whether all figures equal the baseline.

    Args:
        costs: The measured figures.
        baseline: By environment and case: `instructions` and `allocations` an event.
        where: The environment.
        growths: The cost of twice the work, divided by the cost of the work.
        is_required: Whether it is a failure that there is no baseline for `where`.
    """
    known = baseline.get(where, {})
    # Cases and allocations depend on no compiler: any entry tells them.
    accepted = known or next(iter(baseline.values()), {})
    lines = [f"{'an event':34} {'baseline':>10} {'now':>10} {'':>8} {'allocations':>11}"]
    fine = True
    for name, cost in costs.items():
        problems = []
        before = known.get(name, {}).get("instructions")
        change = "" if not before else f"{cost.instructions / before - 1:+.1%}"
        if accepted and name not in accepted:
            problems.append("not in the baseline")
        elif before is not None and abs(cost.instructions - before) > max(TOLERANCE * before, 1):
            problems.append(f"more than {TOLERANCE:.0%} {'worse' if cost.instructions > before else 'better'}")
        counted = accepted.get(name, {}).get("allocations")
        if counted is not None and abs(cost.allocations - counted) > 0.01:
            problems.append(f"{cost.allocations:g} allocations, not {counted:g}")
        if cost.growth > LINEAR:
            problems.append(f"twice as many events cost {cost.growth:.2f} times as much")
        result = "" if before is None else f"{before:10.1f}"
        numbers = f"{result:>10} {cost.instructions:10.1f} {change:>8} {cost.allocations:11g}"
        lines.append(f"{name:34} {numbers}  {'; '.join(problems)}".rstrip())
        fine = fine and not problems
    for name, growth in growths.items():
        is_fine = (growth > STEPPED.get(name, LINEAR)) is (name == QUADRATIC)
        lines.append(f"{name:34} twice as much costs {growth:.2f} times as much{'' if is_fine else ': wrong'}")
        fine = fine and is_fine
    for name in accepted.keys() - costs.keys():
        lines.append(f"{name:34} is in the baseline and was not measured")
        fine = False
    if not known:
        lines.append(f"no baseline for {where}: instructions are not compared, only allocations and growth")
        fine = fine and not is_required
    if not fine:
        lines.append(f"to accept: {ACCEPT}")
    return lines, fine


def requires_all() -> bool:
    """Returns whether a figure without a baseline is a failure."""
    return os.environ.get("GAI_FAST_REQUIRE_ALL", "") not in ("", "0")


def check() -> tuple[list[str], bool]:
    """Counts everything and compares it with the baselines. Returns the tables, and whether all figures equal them.

    Raises:
        RuntimeError: It cannot be counted here, or this build has no kernels.
    """
    if IMPLEMENTATION == "pure":
        raise RuntimeError("count on a build that has the native kernels: make install")
    costs, growths = measure()
    lines, fine = compare(costs, load_baseline(BASELINE), environment(), growths, is_required=requires_all())
    if MODULES == "interpreted":
        lines.append("not counted: whole requests, since the modules of this build are interpreted")
        return lines, fine and not requires_all()
    with TemporaryDirectory() as folder:
        path_costs = measure_path(Path(folder))
    more, as_before = compare(path_costs, load_baseline(PATH_BASELINE), path_environment(), is_required=requires_all())
    return [*lines, "", *more], fine and as_before


def load_baseline(path: Path) -> Baseline:
    """Returns the accepted figures, by environment."""
    found: Baseline = json.loads(path.read_text()) if path.exists() else {}
    return found


def accept() -> list[str]:
    """Counts everything and writes it into the baselines. Returns the written figures.

    Raises:
        RuntimeError: It cannot be counted here, or the modules of this build are interpreted.
    """
    if MODULES == "interpreted":
        raise RuntimeError("accept on a build whose modules are compiled: make install")
    costs, _ = measure()
    with TemporaryDirectory() as folder:
        path_costs = measure_path(Path(folder))
    return [write(BASELINE, environment(), costs), write(PATH_BASELINE, path_environment(), path_costs)]


def sealed() -> tuple[list[str], bool]:
    """Counts durable events. Returns the table, and whether sealing costs no more than it may.

    Raises:
        RuntimeError: As `accept`.
    """
    if MODULES == "interpreted":
        raise RuntimeError("count on a build whose modules are compiled: make install")
    with TemporaryDirectory() as folder:
        return compare_sealed(measure_sealed(Path(folder)))


def state(parts: Sequence[str] = ()) -> tuple[list[str], bool]:
    """Counts what kept responses add to requests. Returns the table, and whether nothing costs more than it may.

    Args:
        parts: As for `measure_state`.

    Raises:
        RuntimeError: It cannot be counted here.
    """
    with TemporaryDirectory() as folder:
        return compare_bounds(measure_state(Path(folder), parts))


def sessions() -> tuple[list[str], bool]:
    """Counts what a session's home adds to requests. Returns the table, and whether nothing costs more than it may.

    Raises:
        RuntimeError: It cannot be counted here.
    """
    with TemporaryDirectory() as folder:
        return compare_bounds(measure_sessions(Path(folder)))


def durable() -> tuple[list[str], bool]:
    """Counts durable streams of dialects' routes. Returns the table, and whether none costs more than it may.

    Raises:
        RuntimeError: As `accept`.
    """
    if MODULES == "interpreted":
        raise RuntimeError("count on a build whose modules are compiled: make install")
    with TemporaryDirectory() as folder:
        return compare_bounds(measure_durable(Path(folder)))


def guards() -> tuple[list[str], bool]:
    """Counts what guards add to requests. Returns the table, and whether nothing costs more than it may.

    Raises:
        RuntimeError: As `accept`.
    """
    if MODULES == "interpreted":
        raise RuntimeError("count on a build whose modules are compiled: make install")
    with TemporaryDirectory() as folder:
        return compare_bounds(measure_guards(Path(folder)))


def write(path: Path, where: str, costs: Mapping[str, Cost]) -> str:
    """Replaces an environment's entry in a baseline."""
    baseline: dict[str, Any] = load_baseline(path)
    baseline[where] = {
        name: {"instructions": round(cost.instructions, 1), "allocations": round(cost.allocations, 2)}
        for name, cost in costs.items()
    }
    path.write_text(json.dumps(dict(sorted(baseline.items())), indent=1) + "\n")
    return f"accepted {len(costs)} cases for {where}"


COUNTS: Mapping[str, Callable[[], tuple[list[str], bool]]] = MappingProxyType(
    {
        "check": check,
        "accept": lambda: (accept(), True),
        "sealed": sealed,
        "durable": durable,
        "state": state,
        "sessions": sessions,
        "guards": guards,
    }
)
"""By command, what counts: it returns a table, and whether its figures are within their bounds."""


def main(arguments: list[str]) -> int:
    match arguments:
        case ["run", marks]:
            run_cases(marks)
            return 0
        case ["lists", marks]:
            run_lists(marks)
            return 0
        case ["serve", marks, configuration]:
            serve(marks, configuration)
            return 0
        case ["serve-by-turns", marks, configuration]:
            serve_by_turns(marks, configuration)
            return 0
        case ["state", *parts] if set(parts) <= set(PARTS):
            count: Callable[[], tuple[list[str], bool]] = partial(state, parts)
        case [command] if command in COUNTS:
            count = COUNTS[command]
        case _:
            print(f"usage: python -m benchmarks.instructions {' | '.join(COUNTS)}", file=sys.stderr)
            return 2
    try:
        lines, fine = count()
    except RuntimeError as problem:
        print(problem, file=sys.stderr)
        return 1
    print("\n".join(lines))
    return not fine


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
