"""`make soak-machines`: two servers of one Redis, faults of the store and of the machines, and what readers got.

    python -m tests.soak.machines --seed 1
    python -m tests.soak.machines --faults pause,flush --streams 20

Starts two `gai-fast serve`, which take each other for servers of other machines, redis-servers and an upstream, on
loopback, and ends them all by their own ids. Each fault is a round: streams begin on both machines, are followed,
resumed and cancelled through the other one, and the fault happens while they run. The exit code is 1 if an event was
lost or doubled, a stream ended in two ways, or a reader heard that a stream is gone whose worker lives.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random, SystemRandom
from typing import Final

import uvloop

from tests.integration.stores.servers import RedisServer
from tests.soak.gateway import Gateway
from tests.soak.machines.network import StoreLink
from tests.soak.machines.streams import HEARD, Judge, Machine, Round
from tests.soak.upstream import Upstream

LEAD: Final = 2.0
"""Seconds of streams before a fault."""
_IN_STEP: Final = b"master_link_status:up"
LONGEST: Final = 8.0
"""Seconds for which streams run beyond a fault, at most."""


class World:
    """Two machines, their store and their upstream.

    Args:
        folder: For all files.
    """

    def __init__(self, folder: Path) -> None:
        self.machines: list[Machine] = []
        self.links: dict[str, StoreLink] = {}
        self.upstream = Upstream()
        self._folder = folder
        self._servers: list[RedisServer] = []
        self._lives = 0

    @property
    def store(self) -> RedisServer:
        """The present server."""
        return self._servers[-1]

    async def start(self) -> None:
        """Starts everything."""
        self.make_server()
        await self.upstream.start()
        for name in "ab":
            self.links[name] = StoreLink(self.store.port)
            await self.links[name].start()
        self.machines += await asyncio.gather(*(self.boot(name) for name in "ab"))

    async def stop(self) -> None:
        """Ends everything."""
        for machine in self.machines:
            await machine.gateway.kill()
        for link in self.links.values():
            await link.stop()
        await self.upstream.stop()
        for server in self._servers:
            server.kill()

    async def boot(self, name: str) -> Machine:
        """Starts the server of a machine."""
        self._lives += 1
        folder = self._folder / f"{name}{self._lives}"
        folder.mkdir()
        gateway = Gateway(
            folder, store=self.links[name].url, workers=2, upstream=self.upstream.url, machine=f"machine-{name}"
        )
        await gateway.start()
        return Machine(name, gateway)

    def make_server(self, *options: str) -> RedisServer:
        """Starts one more redis-server."""
        folder = self._folder / f"redis{len(self._servers)}"
        folder.mkdir()
        self._servers.append(RedisServer(folder, *options))
        self.store.start()
        return self.store

    async def replace_store(self, lag: float) -> None:
        """A replica takes the place of the store, which is killed.

        Args:
            lag: Seconds of writes that it has not had by then.
        """
        former = self.store
        replica = self.make_server("--replicaof", "127.0.0.1", str(former.port))
        async with asyncio.timeout(20):
            while _IN_STEP not in replica.command("INFO", "replication"):  # noqa: ASYNC110  # nothing tells when
                await asyncio.sleep(0.05)
        replica.command("REPLICAOF", "NO", "ONE")
        await asyncio.sleep(lag)
        former.kill()
        for link in self.links.values():
            link.lead_to(replica.port)

    async def partition(self, seconds: float, *, is_silent: bool) -> None:
        """The first machine cannot reach the store."""
        link = self.links["a"]
        link.silence() if is_silent else link.refuse()
        await asyncio.sleep(seconds)
        link.heal()

    async def pause(self, seconds: float) -> None:
        """The store stands still."""
        self.store.pause()
        await asyncio.sleep(seconds)
        self.store.resume()

    async def flush(self, times: int) -> None:
        """The store is emptied, perhaps again some seconds later."""
        for number in range(times):
            await asyncio.sleep(2.0 if number else 0.0)
            self.store.command("FLUSHALL")

    async def restart(self) -> None:
        """The store is killed, and comes back empty."""
        self.store.kill()
        await asyncio.sleep(1.0)
        self.store.start()
        self.store.command("REPLICAOF", "NO", "ONE")  # it may have been a replica once

    async def kill_worker_in_pause(self, seconds: float) -> None:
        """A worker of the first machine is killed while the store stands still."""
        pause = asyncio.ensure_future(self.pause(seconds))
        await self.kill_worker()
        await pause

    async def kill_worker(self) -> None:
        """A worker of the first machine is killed, and replaced."""
        machine = self.machines[0]
        before, at = set(machine.gateway.killed), time.monotonic()
        await machine.gateway.kill_worker(min(machine.gateway.workers))
        async with asyncio.timeout(20):
            while not (new := set(machine.gateway.killed) - before):  # noqa: ASYNC110  # nothing tells when
                await asyncio.sleep(0.01)
        machine.workers.update(dict.fromkeys(new, at))

    async def kill_machine(self) -> None:
        """The server of the first machine is killed, and starts again a moment later."""
        self.machines[0].died_at = time.monotonic()
        await self.machines[0].gateway.kill()
        await asyncio.sleep(1.0)
        self.machines[0] = await self.boot("a")


FAULTS: Final[dict[str, tuple[float, Callable[[World, float], Awaitable[None]]]]] = {
    "partition": (6, lambda world, seconds: world.partition(seconds, is_silent=False)),
    "long partition": (14, lambda world, seconds: world.partition(seconds, is_silent=False)),
    "silence": (6, lambda world, seconds: world.partition(seconds, is_silent=True)),
    "long silence": (14, lambda world, seconds: world.partition(seconds, is_silent=True)),
    "pause": (1, World.pause),
    "long pause": (14, World.pause),
    "pause beyond the lease": (40, World.pause),
    "pause of a minute": (60, World.pause),
    "worker killed": (0, lambda world, _: world.kill_worker()),
    "worker killed in a pause": (12, World.kill_worker_in_pause),
    "machine killed": (1, lambda world, _: world.kill_machine()),
    "flush": (0, lambda world, _: world.flush(1)),
    "flush again": (4, lambda world, _: world.flush(2)),
    "restart": (1, lambda world, _: world.restart()),
    "failover": (0, lambda world, _: world.replace_store(0.0)),
    "late failover": (0.7, World.replace_store),
}
"""The length of each fault, and what happens."""
SHORT: Final = 2.0
"""Seconds of a fault and of its streams in a short run."""


async def run_round(world: World, fault: str, *, streams: int, random: Random, first: int, is_short: bool) -> Judge:
    """Runs one fault while streams run; returns what was found."""
    seconds, act = FAULTS[fault]
    longest = LONGEST
    if is_short:
        seconds, longest = min(seconds, SHORT), SHORT
    judge = Judge()
    patience = LEAD + seconds + longest + HEARD + 10
    round_ = Round(world.machines, world.upstream, judge, random, first, patience)
    for _ in range(streams):
        round_.begin(LEAD + random.uniform(0, seconds + longest))
        await asyncio.sleep(LEAD / streams)
    happening = asyncio.ensure_future(act(world, seconds))
    for _ in range(streams // 2):
        await asyncio.sleep(max(seconds, 1.0) / (streams // 2))
        if world.machines[0].died_at == float("inf"):
            round_.begin(random.uniform(1, longest))
    await happening
    await round_.ended()
    return judge


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the rounds; returns the exit code."""
    parser = argparse.ArgumentParser(prog="soak-machines", description="Two machines, one store, and faults.")
    parser.add_argument("--faults", default=",".join(FAULTS), help=f"of: {', '.join(FAULTS)} (default: all)")
    parser.add_argument("--streams", type=int, default=24, help="of a round, before its fault (default: 24)")
    parser.add_argument("--short", action="store_true", help=f"faults and streams of {SHORT:g} s at most")
    parser.add_argument("--seed", type=int, help="of all plans (default: a new one)")
    options = parser.parse_args(arguments)
    faults = options.faults.split(",")
    if options.streams < 2 or not set(faults) <= set(FAULTS):
        parser.error("two streams at least, and faults of the list")
    if options.seed is None:
        options.seed = SystemRandom().randrange(1_000_000)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with (
        tempfile.TemporaryDirectory(prefix="gai-fast-machines-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        try:
            return runner.run(_soak(Path(folder), faults, options))
        except (KeyboardInterrupt, asyncio.CancelledError):
            print("interrupted; every process has been ended", file=sys.stderr)
            return 130


async def _soak(folder: Path, faults: Sequence[str], options: argparse.Namespace) -> int:
    streams, seed = options.streams, options.seed
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    print(f"soak-machines: {streams} streams before each fault, seed {seed}", flush=True)
    world = World(folder)
    has_passed = True
    try:
        await world.start()
        for number, fault in enumerate(faults):
            random = Random(f"{fault} {seed}")
            judge = await run_round(
                world, fault, streams=streams, random=random, first=1 + number * 10_000, is_short=options.short
            )
            has_passed &= judge.has_passed
            print(
                f"{fault}: {judge.streams} streams, {judge.readers} readers, {judge.resumed} connections, "
                f"{judge.events} deltas; lost {judge.lost}, doubled {judge.doubled}, two ends {judge.two_ends}, "
                f"declared dead while alive {judge.declared_dead}, "
                f"other {len(judge.others)}; refused for now {judge.refused}, "
                f"heard of an end within {judge.waited:.1f} s",
                *judge.others[:8], sep="\n  ", flush=True,
            )  # fmt: skip
        for machine in world.machines:
            for line in machine.gateway.bad_lines:
                has_passed = False
                print(f"the log of {machine.name}: {line[:300]} … {line[-300:]}")
    finally:
        await world.stop()
    return 0 if has_passed else 1


if __name__ == "__main__":
    sys.exit(main())
