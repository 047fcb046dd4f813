"""`make leaks`: whether a word that must not be said is ever sent, and whether anything else is changed.

    python -m tests.leaks --cases 1000000 --seed 7 --jobs 2

Each case is a stream in process, and a request (`asked.py`): planted matches, cuts, dialects, formats and routes at
random. Their judge is the whole text, searched by others' code (`oracle.py`). A stream without a match must be the
unguarded one, byte for byte; so must the request that goes up. Prints the first faults, each with its seed; exit code 1
if there are any.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import SystemRandom
from typing import Any

from tests.leaks.asked import ask, faults_of, matches_of
from tests.leaks.cases import make, takes_turns
from tests.leaks.running import faults, matches_in

SHARE = 500
SHOWN = 20


def run(first: int, begin: int) -> tuple[Counter[str], list[str]]:
    """Runs a share of the cases. Returns how often each thing was in them, and the faults."""
    counts: Counter[str] = Counter()
    found: list[str] = []
    for seed in range(first + begin, first + begin + SHARE):
        case = make(seed)
        counts.update((case.route, case.dialect, case.form, *["without a match"] * case.is_plain))
        counts.update(["normalized"] * any(each.normalize for each in case.guards))
        counts.update({kind for kind, _ in case.pieces} & {"usage", "citation"})
        counts.update(["calls in turns"] * takes_turns(case))
        counts.update(["judged"] * (case.judged is not None) + ["own words"] * bool(case.own))
        counts["matches"] += matches_in(case)
        found += [f"--only {seed} ({case.dialect}, {case.form}, {case.route}): {each}" for each in tried(faults, case)]
        asked = ask(seed)
        counts.update((f"asked: {asked.route}", f"asked: {asked.dialect}"))
        counts.update(["asked: own words"] * any(asked.restores) + ["asked: calls"] * asked.has("call"))
        counts["asked: unknown members"] += asked.has("facts")
        counts["asked: matches"] += matches_of(asked)
        counts["asked: stopped"] += any(each.action == "stop" for each in asked.guards)
        found += [f"--only {seed} (asked, {asked.route}, {asked.dialect}): {each}" for each in tried(faults_of, asked)]
    return counts, found


def tried(judge: Callable[[Any], list[str]], case: Any) -> list[str]:
    """Returns the faults of a case. A stream that cannot be read, or a request that cannot be written, is one."""
    try:
        return judge(case)
    except Exception as problem:  # noqa: BLE001  # whatever it is, it is this case's
        return [f"{type(problem).__name__}: {problem}"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.leaks", description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1 << 32))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, help="the seed of one case")
    given = parser.parse_args()
    if given.only is not None:
        case = make(given.only)
        print(case, *faults(case), ask(given.only), *faults_of(ask(given.only)), sep="\n")
        return 0
    print(f"seed {given.seed}", flush=True)
    begun = time.monotonic()
    counts: Counter[str] = Counter()
    found: list[str] = []
    with multiprocessing.get_context("fork").Pool(given.jobs) as pool:
        for counted, wrong in pool.imap_unordered(partial(run, given.seed), range(0, given.cases, SHARE)):
            counts.update(counted)
            for each in wrong[: max(0, SHOWN - len(found))]:
                print(each, flush=True)
            found += wrong
    for name, count in sorted(counts.items()):
        print(f"{count:>10,}  {name}")
    print(f"{len(found)} faults in {given.cases:,} cases, {time.monotonic() - begun:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
