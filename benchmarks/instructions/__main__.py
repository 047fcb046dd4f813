"""`python -m benchmarks.instructions check | accept`; see the package's docstring."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.instructions.cases import QUADRATIC, STEPPED
from benchmarks.instructions.counting import Cost, environment, measure, run_cases

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.03
LINEAR = 2.1
ACCEPT = "python -m benchmarks.instructions accept"

Baseline = dict[str, dict[str, dict[str, float]]]


def compare(
    costs: Mapping[str, Cost], baseline: Baseline, where: str, growths: Mapping[str, float] = MappingProxyType({})
) -> tuple[list[str], bool]:
    """The table, and whether all is as it was.

    Args:
        costs: What was measured.
        baseline: By environment and case: `instructions` and `allocations` an event.
        where: The environment.
        growths: What twice as much costs by what it costs once.
    """
    known = baseline.get(where, {})
    # Allocations depend on no compiler: any entry tells them.
    allocations = known or next(iter(baseline.values()), {})
    lines = [f"{'an event':34} {'baseline':>10} {'now':>10} {'':>8} {'allocations':>11}"]
    fine = True
    for name, cost in costs.items():
        problems = []
        before = known.get(name, {}).get("instructions")
        change = "" if not before else f"{cost.instructions / before - 1:+.1%}"
        if known and before is None:
            problems.append("not in the baseline")
        elif before is not None and abs(cost.instructions - before) > max(TOLERANCE * before, 1):
            problems.append(f"more than {TOLERANCE:.0%} {'worse' if cost.instructions > before else 'better'}")
        counted = allocations.get(name, {}).get("allocations")
        if counted is not None and abs(cost.allocations - counted) > 0.01:
            problems.append(f"{cost.allocations:g} allocations, not {counted:g}")
        if cost.growth > LINEAR:
            problems.append(f"twice as many events cost {cost.growth:.2f} times as much")
        told = "" if before is None else f"{before:10.1f}"
        numbers = f"{told:>10} {cost.instructions:10.1f} {change:>8} {cost.allocations:11g}"
        lines.append(f"{name:34} {numbers}  {'; '.join(problems)}".rstrip())
        fine = fine and not problems
    for name, growth in growths.items():
        is_fine = (growth > STEPPED.get(name, LINEAR)) is (name == QUADRATIC)
        lines.append(f"{name:34} twice as much costs {growth:.2f} times as much{'' if is_fine else ': wrong'}")
        fine = fine and is_fine
    for name in known.keys() - costs.keys():
        lines.append(f"{name:34} is in the baseline and was not measured")
        fine = False
    if not known:
        lines.append(f"no baseline for {where}: instructions are not compared, only allocations and growth")
    if not fine:
        lines.append(f"to accept: {ACCEPT}")
    return lines, fine


def main(arguments: list[str]) -> int:
    match arguments:
        case ["run", marks]:
            run_cases(marks)
            return 0
        case ["check" | "accept"]:
            pass
        case _:
            print("usage: python -m benchmarks.instructions check | accept", file=sys.stderr)
            return 2
    baseline: Baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    where = environment()
    try:
        costs, growths = measure()
    except RuntimeError as problem:
        print(problem, file=sys.stderr)
        return 1
    if arguments == ["check"]:
        lines, fine = compare(costs, baseline, where, growths)
        print("\n".join(lines))
        return not fine
    baseline[where] = {
        name: {"instructions": round(cost.instructions, 1), "allocations": round(cost.allocations, 2)}
        for name, cost in costs.items()
    }
    written: dict[str, Any] = dict(sorted(baseline.items()))
    BASELINE.write_text(json.dumps(written, indent=1) + "\n")
    print(f"accepted {len(costs)} cases for {where}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
