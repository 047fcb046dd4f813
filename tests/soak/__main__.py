"""`make soak`: a mixed load of streams on a real server while workers are killed and upstreams fail.

    python -m tests.soak --minutes 10 --streams 2000 --store sqlite --seed 1
    python -m tests.soak --tls --minutes 10 --streams 500

Starts `gai-fast serve`, an upstream and clients on loopback, ends them all by their own ids, and prints a table. The
exit code is 1 where an event was lost or doubled, a stream ended in a way that is not promised, or descriptors, timers
or other objects leak. With `--tls` also where a request reached an upstream whose certificate is wrong, or none came
after a change of the upstream.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import SystemRandom

import uvloop

from tests.integration.certificates import Authority
from tests.integration.stores.servers import RedisServer
from tests.soak.chaos import Chaos
from tests.soak.gateway import LOOK, STARVED, Gateway, Holdings
from tests.soak.load import Load
from tests.soak.moves import NAME, Moves, issue
from tests.soak.report import Moment, course, grown, has_leaked, most_objects, slope, table
from tests.soak.upstream import Upstream
from tests.soak.verdict import Judge

MIB = 1 << 20
SETTLING = 90.0
"""Seconds after the load in which the last streams, connections and descriptors must have gone."""
WARM_UP = 40
"""Streams before the descriptors are counted, at the most."""
MOMENTS = 10
"""Lines of the table over time."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the soak; returns the exit code."""
    parser = argparse.ArgumentParser(prog="soak", description="A mixed load with faults on a real server.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long streams are begun (default: 10)")
    parser.add_argument("--streams", type=int, default=2000, help="how many run at a time (default: 2000)")
    parser.add_argument("--workers", type=int, default=2, help="of the server, two at least (default: 2)")
    parser.add_argument("--store", choices=("memory", "sqlite", "redis"), default="sqlite", help="default: sqlite")
    parser.add_argument("--seed", type=int, help="of the plans and the faults (default: a new one)")
    parser.add_argument("--tls", action="store_true", help="the upstream speaks TLS, and changes all the time")
    parser.add_argument("--longest", type=float, default=30.0, help="seconds that an answer takes (default: 30)")
    options = parser.parse_args(arguments)
    if options.workers < 2 or options.streams < 1 or options.minutes <= 0 or options.longest < 1:
        parser.error("two workers, one stream, answers of one second and some time at least")
    if options.seed is None:
        options.seed = SystemRandom().randrange(1_000_000)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gai-fast-soak-")))
        store = stack.enter_context(store_url(options.store, folder))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                return runner.run(_soak(options, folder, store))
            except (KeyboardInterrupt, asyncio.CancelledError):
                print("interrupted; every process has been ended", file=sys.stderr)
                return 130


@contextmanager
def store_url(kind: str, folder: Path) -> Iterator[str]:
    """Yields the URL of an empty store."""
    if kind == "memory":
        yield "memory://"
    elif kind == "sqlite":
        yield f"sqlite:///{folder / 'store.db'}"
    else:
        files = folder / "redis"
        files.mkdir()
        server = RedisServer(files)
        try:
            server.start()
            yield server.url
        finally:
            server.kill()


async def _soak(options: argparse.Namespace, folder: Path, store: str) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    upstream, authority = Upstream(), None
    if options.tls:
        authority = Authority(folder)
        issue(authority)
        upstream = Upstream(NAME, authority.server("first"))
    await upstream.start()
    gateway = Gateway(
        folder,
        store=store,
        workers=options.workers,
        upstream=upstream.url,
        trusted=None if authority is None else folder / "ca.pem",
    )
    if authority is not None:
        gateway.resolve(NAME, upstream.place[0])
    judge = Judge(upstream, gateway.starved_until, outlives_workers=options.store != "memory")
    gateway.killed = judge.killed
    try:
        await gateway.start()
        return await _run(options, upstream, judge, gateway, authority)
    finally:
        await gateway.kill()
        await upstream.stop()


async def _run(
    options: argparse.Namespace, upstream: Upstream, judge: Judge, gateway: Gateway, authority: Authority | None
) -> int:
    seconds = options.minutes * 60
    print(
        f"soak: {options.minutes:g} min, {options.streams:,} streams at a time, {options.workers} workers, "
        f"store {options.store}, seed {options.seed}{', TLS' if options.tls else ''}",
        flush=True,
    )
    load = Load(gateway.host, upstream, judge, seed=options.seed, streams=options.streams, longest=options.longest)
    first = await _descriptors_before(load, upstream, gateway, options.streams)
    held = await _holdings(gateway, upstream)
    chaos = Chaos(gateway, upstream, judge, seed=options.seed, seconds=seconds)
    moves = authority and Moves(gateway, upstream, authority, seed=options.seed, seconds=seconds)
    began, cpu = time.monotonic(), time.process_time()
    moments = [await _moment(gateway, chaos.survivor, load, began)]
    noting = asyncio.create_task(_note_moments(moments, seconds, gateway, chaos.survivor, load, began))
    looks = asyncio.create_task(_look(gateway))
    faults = asyncio.create_task(chaos.run())
    changes = asyncio.create_task(moves.run() if moves else asyncio.sleep(0))
    try:
        await load.run(seconds)
        await asyncio.gather(faults, noting)
        while not changes.done():  # each must be followed by a request
            load.begin()
            await asyncio.wait([changes], timeout=0.1)
        await changes
        left = await load.ended(SETTLING)
        took = time.monotonic() - began
        gateway.reload()  # what is left of former configurations goes with the next one
        last = await _settled(gateway, upstream, first, options.workers)
        kept = await _holdings_after(gateway, upstream, held, options.workers)
        moments.append(await _moment(gateway, chaos.survivor, load, began))
        gateway.look()
    finally:
        noting.cancel()
        looks.cancel()
        faults.cancel()
        changes.cancel()
    code = await gateway.stop()
    await _until(lambda: not upstream.opened)
    judge.finish(gateway.retries())
    note_remains(judge, upstream, gateway, left, code)
    if has_leaked(first, last, options.workers):
        judge.note(f"descriptors are left: {dict(last - first)}")
    if more := grown(held.kinds, kept.kinds, options.workers):
        judge.note(f"objects are left: {more}; tasks: {dict(kept.tasks - held.tasks)}")
    if moves is not None:
        note_moves(judge, upstream, moves)
    tally, counts = judge.tally, load.counts
    total = sum(process.cpu for process in gateway.processes.values())
    rows = [
        ("streams begun", f"{counts.begun:,}; at most {counts.most_running:,} at a time; {counts.readers:,} readers"),
        *((f"  {name}", f"{count:,}") for name, count in tally.outcomes.most_common()),
        ("ended", f"{sum(tally.outcomes.values()):,} readers; {left} streams have not"),
        ("resumed", f"{counts.resumed:,} ({counts.own_cuts:,} cuts by readers)"),
        ("lost", f"{tally.lost}"),
        ("duplicated", f"{tally.doubled}"),
        ("unexplained", f"{len(tally.unexplained)}"),
        *((f"  {name}", f"{count:,}") for name, count in tally.kinds.most_common()),
        ("faults", f"{chaos.kills} workers killed, {chaos.reloads} reloads, {chaos.outages} outages of the upstream"),
        *(() if moves is None else move_rows(upstream, moves, kept)),
        ("checked", f"{tally.events:,} deltas, {counts.bytes / MIB:,.0f} MiB"),
        (
            "upstream calls",
            f"{upstream.calls_made:,}, of which {tally.repeated:,} for a stream that had one before; "
            f"{tally.counted:,} retries by the metrics",
        ),
        ("upstream connections", f"{upstream.opened} at the end"),
        ("descriptors of the workers", f"{first.total()} at the start, {last.total()} at the end"),
        *(
            (f"  {kind}", f"{held.kinds[kind]} at the start, {kept.kinds[kind]} at the end")
            for kind in most_objects(options.workers)
        ),
        *_memory_rows(gateway, chaos.survivor),
        (
            "longest wait for a core",
            f"{gateway.longest_wait:.1f} s of a worker; the machine is too busy from {STARVED} s on",
        ),
        ("CPU of the workers", f"{total:,.0f} s of {took:,.0f} s; of this program {time.process_time() - cpu:,.0f} s"),
    ]
    print(f"worker {chaos.survivor}, which is never killed:\n{course(moments)}\n")
    print(table(rows, tally.unexplained), flush=True)
    return 1 if tally.lost or tally.doubled or tally.unexplained else 0


def note_remains(judge: Judge, upstream: Upstream, gateway: Gateway, left: int, code: int) -> None:
    """Notes what a run must not leave, and a run that has compared nothing."""
    if not judge.tally.events:
        judge.note("no delta was checked")
    if left:
        judge.note(f"{left} streams have not ended")
    if upstream.active or upstream.opened:
        judge.note(f"{upstream.active} requests and {upstream.opened} connections are left at the upstream")
    if code:
        judge.note(f"the server ended with exit code {code}")
    for line in gateway.bad_lines:
        judge.note(f"the server's log: {line}")


def note_moves(judge: Judge, upstream: Upstream, moves: Moves) -> None:
    """Notes what the changes of an upstream must not bring about."""
    if upstream.served_untrusted:
        judge.note(f"{upstream.served_untrusted} requests reached an upstream whose certificate is wrong")
    if moves.made["wrong certificate"] and not upstream.refused:
        judge.note("no handshake was refused")
    for kind in moves.missing:
        judge.note(f"no request came after a change: {kind}")


def move_rows(upstream: Upstream, moves: Moves, kept: Holdings) -> list[tuple[str, str]]:
    """Returns the rows about the changes of an upstream."""
    made = kept.connections
    return [
        ("changes of the upstream", ", ".join(f"{kind}: {count}" for kind, count in sorted(moves.made.items()))),
        (
            "  seconds until a request came",
            ", ".join(f"{kind}: {took:.1f}" for kind, took in sorted(moves.took.items())),
        ),
        ("  wrong certificates", f"{upstream.refused} handshakes refused, {upstream.served_untrusted} requests came"),
        (
            "connections of the last workers",
            f"{made['made']:,} made, {made['reused']:,} times reused, {made['retried']:,} dead when they were; "
            f"{upstream.closed_idle:,} closed by the upstream, idle; {upstream.crossed:,} requests came then",
        ),
    ]


async def _holdings(gateway: Gateway, upstream: Upstream) -> Holdings:
    """Returns the objects of idle workers, without connections to the upstream."""
    upstream.close_idle()
    await _until(lambda: not upstream.opened)
    return await gateway.holdings()


async def _holdings_after(gateway: Gateway, upstream: Upstream, first: Holdings, workers: int) -> Holdings:
    """As before, when everything has ended; waits until there are no more than at first."""
    end = time.monotonic() + SETTLING
    while True:
        last = await _holdings(gateway, upstream)
        if time.monotonic() > end or not grown(first.kinds, last.kinds, workers):
            return last
        await asyncio.sleep(0.5)


def _memory_rows(gateway: Gateway, survivor: int) -> list[tuple[str, str]]:
    """Returns the workers whose memory was followed for long enough, the worker that was never killed first."""
    rows = []
    for process in sorted(gateway.processes.values(), key=lambda each: each.pid != survivor):
        sizes = [size for _, size in process.samples]
        growth = slope(process.samples)
        if not sizes:
            continue
        age = process.samples[-1][0] - process.samples[0][0]
        result = "too short to tell" if growth is None else f"{growth * 60 / MIB:+.2f} MiB/min"
        rows.append(
            (
                f"RSS slope of worker {process.pid}",
                f"{result} in {age:,.0f} s ({sizes[0] / MIB:.0f} … {max(sizes) / MIB:.0f} … {sizes[-1] / MIB:.0f} MiB)",
            )
        )
    return rows


async def _descriptors_before(load: Load, upstream: Upstream, gateway: Gateway, streams: int) -> Counter[str]:
    """Returns the descriptors of workers that have answered and are idle; connections to the upstream do not count."""
    for _ in range(min(WARM_UP, streams)):
        load.begin()
    await load.ended(SETTLING)
    await _until(lambda: not upstream.active)
    return _descriptors(gateway, upstream)


async def _settled(gateway: Gateway, upstream: Upstream, first: Counter[str], workers: int) -> Counter[str]:
    """As before, when everything has ended; waits until there are no more than at first."""
    await _until(lambda: len(gateway.workers) == workers and not upstream.active)
    await _until(lambda: not has_leaked(first, _descriptors(gateway, upstream), workers))
    return _descriptors(gateway, upstream)


def _descriptors(gateway: Gateway, upstream: Upstream) -> Counter[str]:
    return gateway.descriptors() - Counter(tcp=upstream.opened)


async def _until(condition: Callable[[], bool]) -> bool:
    """Waits for a condition for `SETTLING`; whether it holds."""
    end = time.monotonic() + SETTLING
    while not condition():  # other processes set no event
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.1)
    return True


async def _moment(gateway: Gateway, pid: int, load: Load, began: float) -> Moment:
    held = await gateway.holdings_now(pid)
    kinds = held.kinds
    gateway.look()
    return Moment(
        minute=(time.monotonic() - began) / 60,
        streams=load.running,
        mib=gateway.processes[pid].samples[-1][1] / MIB,
        descriptors=gateway.descriptors(pid).total(),
        timers=kinds["TimerHandle"],
        tasks=kinds["Task"],
        connections=kinds["UpstreamConnection"],
        objects=kinds.total(),
        blocks=held.blocks,
    )


async def _note_moments(
    moments: list[Moment], seconds: float, gateway: Gateway, pid: int, load: Load, began: float
) -> None:
    for _ in range(MOMENTS - 1):  # one more comes at the end
        await asyncio.sleep(seconds / MOMENTS)
        moments.append(await _moment(gateway, pid, load, began))


async def _look(gateway: Gateway) -> None:
    while True:
        gateway.look()
        began = time.monotonic()
        await asyncio.sleep(LOOK)
        gateway.note_wait(time.monotonic() - began - LOOK)


if __name__ == "__main__":
    sys.exit(main())
