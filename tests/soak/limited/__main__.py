"""`make soak-limits`: a mixed load of keys with limits on a real server, and a table of what the limits have decided.

    python -m tests.soak.limited --minutes 10 --store redis --seed 1

Starts `gai-fast serve` with workers, a store, an upstream and clients on loopback, ends them all by their own ids, and
prints a table: requests that were allowed and refused, and those that should have been, by `expected.py`, which knows
nothing of the gateway. The exit code is 1 where streams or spend differ at all, a limit a minute by more than 1 %, the
report of spend from what the upstream has counted, an answer is none that was promised, or anything was not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import math
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from random import SystemRandom
from typing import Final, NamedTuple

import uvloop

from tests.soak.__main__ import store_url
from tests.soak.client import Connection
from tests.soak.gateway import Gateway
from tests.soak.limited.callers import INPUT_PRICE, OUTPUT_PRICE, UNIT, Caller, Load
from tests.soak.limited.clock import WallClock
from tests.soak.limited.expected import (
    NAMES,
    PATIENCE,
    REQUESTS,
    STREAMS,
    TOKENS,
    Verdict,
    judge_requests,
    judge_spend,
    judge_streams,
    judge_tokens,
    note_disturbances,
)
from tests.soak.limited.probes import KINDS, Probes, percentile
from tests.soak.limited.upstream import Upstream

_ADMIN: Final = Caller("admin")
_RATES: Final = (REQUESTS, TOKENS)
_TOLERANCE: Final = 0.01
"""The part of the requests by which a limit a minute may be off."""
_LEAST: Final = 1.0
"""The number of times a second that each figure must have been taken."""
_PATIENCE: Final = 60.0
"""Seconds for which the load goes on until everything has been measured: other work may hold up a short run."""
_SHOWN: Final = 20

_CONFIG: Final = """\
[server]
port = 0
grace = 20
demo = false
access_log = true
log_format = "json"

[[upstream]]
name = "openai"
provider = "openai-compatible"
base_url = "{url}/v1"
max_connections = 5000
retries = 0
breaker = false

[[upstream]]
name = "anthropic"
provider = "anthropic"
api_key = "file:admin"
base_url = "{url}"
max_connections = 5000
retries = 0
breaker = false

[[model]]
name = "chat"
upstream = "openai"
price = {{input = {input}, output = {output}}}

[[model]]
name = "claude"
upstream = "anthropic"
price = {{input = {input}, output = {output}}}

[[key]]
name = "admin"
secret = "file:admin"
role = "admin"

{keys}
"""


class LimitedGateway(Gateway):
    """A gateway whose configuration has keys.

    Args:
        folder: For its files.
        store: The URL of its store.
        workers: How many.
        upstream: The base URL of its upstream.
        callers: The keys.
    """

    def __init__(self, folder: Path, *, store: str, workers: int, upstream: str, callers: Sequence[Caller]) -> None:
        super().__init__(folder, store=store, workers=workers, upstream=upstream)
        keys = "\n".join(caller.config() for caller in callers)
        self._files = {caller.name: caller.secret for caller in (_ADMIN, *callers)}
        self._files["gai-fast.toml"] = _CONFIG.format(url=upstream, input=INPUT_PRICE, output=OUTPUT_PRICE, keys=keys)
        self._place = folder

    def _configure(self) -> None:
        for name, text in self._files.items():
            (self._place / name).write_text(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the load; returns the exit code."""
    parser = argparse.ArgumentParser(prog="soak-limits", description="A mixed load of keys with limits.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long requests are begun (default: 10)")
    parser.add_argument("--workers", type=int, default=2, help="of the server, two at least (default: 2)")
    parser.add_argument("--store", choices=("memory", "sqlite", "redis"), default="redis", help="default: redis")
    parser.add_argument("--seed", type=int, help="of what is asked (default: a new one)")
    options = parser.parse_args(arguments)
    if options.workers < 2 or options.minutes <= 0:
        parser.error("two workers and some time at least")
    if options.seed is None:
        options.seed = SystemRandom().randrange(1_000_000)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gai-fast-soak-")))
        store = stack.enter_context(store_url(options.store, folder))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                return runner.run(_soak(options, folder, store))
            except (KeyboardInterrupt, asyncio.CancelledError):
                print("interrupted; every process has been ended", file=sys.stderr)
                return 130


async def _soak(options: argparse.Namespace, folder: Path, store: str) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    upstream, probes, clock = Upstream(), Probes(), WallClock()
    await upstream.start()
    seconds = options.minutes * 60
    load = Load(upstream, seed=options.seed, seconds=seconds)
    gateway = LimitedGateway(
        folder, store=store, workers=options.workers, upstream=upstream.url, callers=[*load.callers, *KINDS]
    )
    print(
        f"limits: {options.minutes:g} min, {len(load.callers)} keys with limits, {options.workers} workers, "
        f"store {options.store}, seed {options.seed}",
        flush=True,
    )
    try:
        await gateway.start()
        load.host = probes.host = gateway.host
        began = time.monotonic()
        await asyncio.gather(load.run(), probes.run(seconds, seconds * _LEAST))
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until and unmeasured(load, probes, judge_all(load, clock, folder / "log"), options):
            await load.run()
        took = time.monotonic() - began
        report = await _spend_report(gateway.host)
        gateway.look()
        code = await gateway.stop()
    finally:
        await gateway.kill()
        await upstream.stop()
    verdicts = judge_all(load, clock, folder / "log")
    faults = [*load.problems, *upstream.faults, *(f"the server's log: {line}" for line in gateway.bad_lines)]
    if code:
        faults.append(f"the server ended with exit code {code}")
    disturbances = note_disturbances(load.asked)
    spend = compare_spend(load.callers, report)
    faults += spend.faults
    faults += unmeasured(load, probes, verdicts, options)
    faults += differences([verdict for _, verdict in verdicts])
    print(_table([verdict for _, verdict in verdicts]))
    print(_keys(verdicts))
    print(_probe_table(probes))
    print(f"report of spend: {spend.exact} keys have what the upstream has counted, {spend.bounded} with answers that")
    print(f"clients have left are within their bounds; {spend.total / UNIT:,.6f} USD in all")
    cpu = sum(process.cpu for process in gateway.processes.values())
    requests = len(load.asked)
    print(f"{requests:,} requests in {took:,.0f} s; CPU of the workers {cpu:,.0f} s; answers " + _counts(load.forms))
    print(f"ends: {_counts(load.ends)}; {disturbances} waits longer than {PATIENCE} s")
    for line in faults[:_SHOWN]:
        print(f"* {line}")
    print(f"faults  {len(faults)}", flush=True)
    return 1 if faults else 0


def judge_all(load: Load, clock: WallClock, log: Path) -> list[tuple[Caller, Verdict]]:
    """Judges what each limit of each key has decided, by the gateway's log so far."""
    with log.open() as lines:
        load.take_over(clock.ends(lines))
    note_disturbances(load.asked)
    return [(caller, judge(caller, name, load)) for caller in load.callers for name in caller.limits]


def judge(caller: Caller, name: str, load: Load) -> Verdict:
    """Judges what one limit of a key has decided."""
    limit = caller.limits[name]
    if name == REQUESTS:
        return judge_requests(limit, caller.asked)
    if name == TOKENS:
        return judge_tokens(limit, caller.asked, load.lasts)
    return (judge_streams if name == STREAMS else judge_spend)(limit, caller.asked)


def differences(verdicts: Sequence[Verdict]) -> list[str]:
    """Returns the lines of what is not as it should be."""
    lines = [f"{verdict.limit}: {line}" for verdict in verdicts for line in verdict.wrong]
    for name in _RATES:
        mine = [verdict for verdict in verdicts if verdict.limit == name]
        off, most = sum(each.difference for each in mine), sum(each.most for each in mine)
        if off > max(1, most * _TOLERANCE):  # one request of a short run says nothing
            lines.append(f"{name}: {off} of {most} requests differ, more than {_TOLERANCE:.0%}")
    return lines


def unmeasured(
    load: Load, probes: Probes, verdicts: Sequence[tuple[Caller, Verdict]], options: argparse.Namespace
) -> list[str]:
    """Returns the lines of what has not been measured: a check without a baseline passes nothing."""
    lines, least = [], options.minutes * 60 * _LEAST
    for name in NAMES:
        mine = [verdict for _, verdict in verdicts if verdict.limit == name]
        allowed, refused, is_open = (
            sum(getattr(each, count) for each in mine) for count in ("allowed", "refused", "open")
        )
        if not allowed or not refused:
            lines.append(f"{name}: {allowed} requests were allowed and {refused} refused: nothing was compared")
        elif allowed + refused - is_open < least:
            lines.append(f"{name}: {is_open} of {allowed + refused} requests may have been decided on either way")
        answering = {asked.worker for caller in load.callers if name in caller.limits for asked in caller.asked} - {""}
        if len(answering) < options.workers:
            lines.append(f"{name}: {len(answering)} of {options.workers} workers have answered")
    if sum(each.logged < math.inf for each in load.asked) * 2 <= len(load.asked):
        lines.append("the gateway's log has not shown when most answers had ended")
    if len(probes.workers) < 2:
        lines.append("the first tokens are those of one worker")
    for name, times in probes.times.items():
        if len(times) < least:
            lines.append(f"{name}: {len(times)} first tokens were timed")
    lines += [f"no answer was {end}" for end in ("read to the end", "cancelled", "left") if not load.ends[end]]
    return lines


class Compared(NamedTuple):
    """The report of spend, compared.

    Attributes:
        exact: Keys whose amount equals the upstream's counts.
        bounded: Keys with answers that are not whole, whose amount is within its bounds.
        total: The amounts of both, in 10^-12 of the currency.
        faults: A line for each other key.
    """

    exact: int
    bounded: int
    total: int
    faults: list[str]


def compare_spend(callers: Sequence[Caller], report: dict[str, int]) -> Compared:
    """Compares the report of spend with what the upstream has counted.

    Args:
        callers: The keys.
        report: Amounts in 10^-12 of the currency by key.
    """
    exact = bounded = total = 0
    faults = []
    for caller in callers:
        least = sum(asked.least_cost for asked in caller.asked)
        most = sum(asked.most_cost for asked in caller.asked)
        result = report.get(caller.name, 0)
        total += result
        if not least <= result <= most:
            faults.append(f"key {caller.name}: the report has {result}, and its streams have cost {least} to {most}")
        elif least == most:
            exact += 1
        else:
            bounded += 1
    if not exact or not total:
        faults.append("no key's spend was compared")
    return Compared(exact, bounded, total, faults)


async def _spend_report(host: str) -> dict[str, int]:
    """Returns the spend by key, in 10^-12 of the currency."""
    connection = await Connection.open(host)
    headers = {"authorization": f"Bearer {_ADMIN.secret}"}
    reply = await connection.ask("GET", "/admin/v1/spend?by=key&format=csv", headers=headers)
    rows = csv.DictReader(io.StringIO((await reply.rest()).decode()))
    connection.close()
    return {row["key"]: int(Decimal(row["amount"]) * UNIT) for row in rows}


# ---- the table -------------------------------------------------------------------------------------------------------


def _table(verdicts: Sequence[Verdict]) -> str:
    """Returns a line for each kind of limit."""
    lines = [("limit", "keys", "allowed", "refused", "allowed, expected", "open", "difference")]
    for name in NAMES:
        mine = [verdict for verdict in verdicts if verdict.limit == name]
        off, most = sum(each.difference for each in mine), sum(each.most for each in mine)
        share = f" ({off / most:.2%})" if name in _RATES and most else ""
        lines.append((name, str(len(mine)), *_line(mine), f"{off}{share}"))
    return _columns(lines)


def _keys(verdicts: Sequence[tuple[Caller, Verdict]]) -> str:
    """Returns a line for each limit of each key."""
    lines = [("key", "limit", "allowed", "refused", "allowed, expected", "open", "difference")]
    lines += [(caller.name, each.limit, *_line([each]), str(each.difference)) for caller, each in verdicts]
    return _columns(lines)


def _line(verdicts: Sequence[Verdict]) -> tuple[str, str, str, str]:
    allowed, refused, least, most, is_open = (
        sum(getattr(each, name) for each in verdicts) for name in ("allowed", "refused", "least", "most", "open")
    )
    expected = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return f"{allowed:,}", f"{refused:,}", expected, f"{is_open:,}"


def _probe_table(probes: Probes) -> str:
    """Returns the times to the first token."""
    lines = [("time to first token", "requests", "p50", "p99", "added p50", "added p99")]
    base = probes.times[KINDS[0].name]
    for caller in KINDS:
        times = probes.times[caller.name]
        points = [percentile(times, percent) for percent in (50, 99)]
        more = [point - percentile(base, percent) for point, percent in zip(points, (50, 99), strict=True)]
        result = [f"{point * 1e3:.2f} ms" for point in points]
        added = [f"{each * 1e3:+.2f} ms" for each in more] if caller is not KINDS[0] else ["", ""]
        lines.append((caller.name, f"{len(times):,}", *result, *added))
    return _columns(lines)


def _columns(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return (
        "\n".join(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )
        + "\n"
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
