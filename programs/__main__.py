"""`python -m programs [--only WORD]… [--upstream DIALECT]… [--update]`: runs the programs of programs/README.md.

Exit code 1: a program fails, or, with GAI_FAST_REQUIRE_ALL=1, one could not be run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from programs.dialects import DIALECTS
from programs.environments import NotInstalled, environment
from programs.gateways import gateway
from programs.page import PAGE, Program, configuration, programs
from programs.running import Bench, Verdict
from programs.upstream import Upstream


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    program: str
    version: str
    text: str
    tool: str
    differs: str
    failed: bool = False
    missing: bool = False


async def rows(chosen: list[Program], page: str, upstreams: list[str], update: bool) -> list[Row]:
    """Runs programs, one after the other."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream())
        gateways = {}
        for name in upstreams:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gai-fast-")))
            running = gateway(folder, configuration(page), DIALECTS[name], upstream.url)
            gateways[name] = await stack.enter_async_context(running)
        bench = Bench(upstream, gateways)
        found = []
        for number, program in enumerate(chosen, 1):
            print(f"[{number}/{len(chosen)}] {program.name}: {program.install}", file=sys.stderr, flush=True)
            found.append(await _row(bench, program, update))
        return found


async def _row(bench: Bench, program: Program, update: bool) -> Row:
    try:
        place = await environment(program.install, update=update)
    except NotInstalled as problem:
        return Row(program.name, "", "", "", f"not run: {problem}", missing=True)
    verdicts = await bench.judge(program, place)
    faults = [fault for verdict in verdicts for fault in verdict.faults]
    remarks = dict.fromkeys(remark for verdict in verdicts for remark in verdict.remarks)
    text, tool = map(_cell, verdicts)
    return Row(
        program.name, place.version, text, tool, "; ".join([*faults, *remarks]) or "nothing", failed=bool(faults)
    )


def _cell(verdict: Verdict) -> str:
    return f"{verdict.right} of {verdict.runs}"


def table(found: list[Row]) -> str:
    """The rows as a Markdown table."""
    head = ("program", "version", "text", "tool", "what differs")
    lines = [head, *((row.program, row.version, row.text, row.tool, row.differs) for row in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    cells = [[*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]] for line in lines]
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in [cells[0], ["-" * w for w in (*widths, 12)], *cells[1:]]
    )


def exit_code(found: list[Row], *, requires_all: bool) -> int:
    """1 where a program failed or, if all are required, one is missing."""
    return int(any(row.failed or (row.missing and requires_all) for row in found))


def main() -> int:
    """Parses the command line, runs, prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m programs", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", action="append", metavar="WORD", help="programs whose name has this word")
    parser.add_argument("--upstream", action="append", choices=list(DIALECTS), help="what the upstream speaks")
    parser.add_argument("--update", action="store_true", help="install the current versions anew")
    options = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    words = [word.lower() for word in options.only or [""]]
    chosen = [program for program in programs(page) if any(word in program.name.lower() for word in words)]
    if not chosen:
        parser.error(f"no program has one of these words in its name: {', '.join(words)}")
    # As Ctrl-C does, it ends the gateways too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found = asyncio.run(rows(chosen, page, options.upstream or list(DIALECTS), options.update))
    print(table(found))
    return exit_code(found, requires_all=os.environ.get("GAI_FAST_REQUIRE_ALL") == "1")


if __name__ == "__main__":
    sys.exit(main())
