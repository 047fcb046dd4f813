"""The list of known failures, which a test keeps exact and which only shrinks.

`python -m tests.requests.known [TARGET…]` judges the targets whose names begin so, all of them without names, and
rewrites their lines in the list. It refuses to write failures that were not listed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.requests.gateway import Bench
from tests.requests.judge import Judge, Verdict
from tests.requests.targets import TARGETS

FILE = Path(__file__).parent / "failures.txt"


def known(name: str) -> list[str]:
    """Returns the listed failures of a target."""
    return [line for line in _lines() if line.startswith(f"{name} · ")]


def summary(name: str, verdict: Verdict) -> str:
    """Returns the line that `make test` prints for a target."""
    return (
        f"{name}: {verdict.accepted} of {verdict.received} requests accepted by its own types, "
        f"{verdict.kept} of {verdict.asked} meanings kept"
    )


def grown(before: list[str], after: list[str]) -> list[str]:
    """Returns the lines that are not listed, or are listed with fewer ways."""
    listed = {line.rpartition(" · ")[0]: set(line.rpartition(" · ")[2].split(",")) for line in before}
    return [
        line
        for line in after
        if not set(line.rpartition(" · ")[2].split(",")) <= listed.get(line.rpartition(" · ")[0], set())
    ]


def _lines() -> list[str]:
    return FILE.read_text().splitlines() if FILE.exists() else []


def main(arguments: list[str]) -> int:
    """Judges targets and rewrites their lines; returns 1 if there are new failures and no `--grow`."""
    wanted = tuple(each for each in arguments if each != "--grow") or ("",)
    before = _lines()
    after = list(before)
    bench = Bench()
    judge = Judge(bench)
    for target in TARGETS:
        if target.name.startswith(wanted):
            verdict = judge.verdict(target)
            kept = [line for line in after if not line.startswith(f"{target.name} · ")]
            after = kept + verdict.lines(target)
            print(summary(target.name, verdict))
    bench.close()
    new = grown(before, after)
    if new and "--grow" not in arguments:
        print("new failures, and the list only shrinks:", *new, sep="\n")
        return 1
    FILE.write_text("".join(f"{line}\n" for line in sorted(after)))
    print(f"{len(before)} failures were listed, {len(after)} are now")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
