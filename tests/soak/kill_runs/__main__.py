"""`make kill-runs`: workers, servers, the store and the tools are killed amid runs, and no call is made twice.

    python -m tests.soak.kill_runs --runs 400 --seed 1
    python -m tests.soak.kill_runs --runs 50 --stores redis --sync batched --faults store,tools

Runs of ten steps call tools that must not be called twice and one that may be, one or two in a step. Two servers over
one store answer them; one has two workers. Over `memory://` it is alone. Each group of runs meets one fault, at a
random moment: a worker or its whole server is killed, the store (Redis is killed and started again, or stopped; the
file is locked), the tool server, or nothing. Some calls wait for a person, who decides by the server that answers. Some
clients want a whole answer. All of them come back after a cut: for a stream by its id, for the rest by their key.

The exit code is 1 if anything is wrong that `judge.py` does not excuse: a call that was made twice, one that is unknown
though no kill fell between its record and that of its result, a run that is lost or has not one legal end. Each line
names run, call, key and times.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random, SystemRandom
from typing import Final

from tests.soak.client import SilenceError
from tests.soak.kill_runs.clients import RunClient
from tests.soak.kill_runs.journal import Journal
from tests.soak.kill_runs.judge import NEAR, Fault, FaultKind, Story, judge
from tests.soak.kill_runs.kept import Events, events_of
from tests.soak.kill_runs.peers import PlannedModel
from tests.soak.kill_runs.plans import plan_of
from tests.soak.kill_runs.scene import PATIENCE, PAUSE, Scene

AT_ONCE: Final = 10
"""Runs of a group."""
_SPREAD: Final = 0.4
"""Seconds within which the runs of a group begin."""
_SPAN: Final = 2.4
"""Seconds within which the fault falls; the runs take about as long."""
_TICK: Final = 0.02
"""Seconds between two looks at how late this process is."""
_MOST_FAULTS: Final = 20
"""Faults after which a store is given up."""


class Groups:
    """Groups of runs over one store.

    Args:
        scene: The processes.
        model: The model.
        seed: Of everything random.
        kinds: The faults, one for a group.
        size: Runs of a group.
        tally: Counts.

    Attributes:
        faults: What is wrong, a line each.
    """

    def __init__(
        self,
        scene: Scene,
        model: PlannedModel,
        seed: str,
        kinds: Sequence[FaultKind],
        size: int,
        tally: Counter[str],
    ) -> None:
        self.faults: list[str] = []
        self._scene, self._model, self._seed, self._kinds, self._tally = scene, model, seed, kinds, tally
        self._random = Random(seed)  # of faults and times alone: each run has its own
        self._size = size
        self._journal = Journal(scene.journal)
        self._has_tripped = False  # the breakers may be open

    async def run(self, runs: int) -> None:
        """Makes so many runs. Each fault comes as often as every other."""
        kinds: list[FaultKind] = []
        while runs > 0 and len(self.faults) < _MOST_FAULTS:
            if not kinds:
                kinds = self._random.sample(self._kinds, len(self._kinds))
            await self._group(min(runs, self._size), kinds.pop())
            runs -= self._size
        self._judge_keys()

    async def _group(self, runs: int, kind: FaultKind) -> None:
        scene, random = self._scene, self._random
        if self._has_tripped:
            await scene.renew()
        await scene.until_well()
        clients = []
        for _ in range(runs):
            tag = f"{scene.store}-{scene.sync}-{self._tally['runs']}"
            own = Random(f"{self._seed} {tag}")
            plan = plan_of(own, tag)
            self._tally["runs"] += 1
            self._tally[f"runs: {kind}"] += 1
            self._model.plans[plan.tag] = plan
            clients.append(RunClient(plan, scene.host, own, is_kept=scene.store != "memory"))
        lag = asyncio.create_task(_longest_lag())
        running = [asyncio.create_task(self._ended(client, random.uniform(0, _SPREAD))) for client in clients]
        await asyncio.sleep(random.uniform(0, _SPAN))
        fault = await scene.strike(kind)
        await asyncio.gather(*running)
        lag.cancel()
        fault = fault._replace(near=NEAR + await lag)
        self._journal.read()
        for client in clients:
            await self._judge(client, fault)
        self._has_tripped = kind == "tools"

    async def _ended(self, client: RunClient, delay: float) -> None:
        await asyncio.sleep(delay)
        try:
            async with asyncio.timeout(PATIENCE):
                await client.run()
        except (TimeoutError, SilenceError) as problem:
            events = [*client.told.events.values()]
            answers = client.told.answers[-5:]
            text = f"({client.told.stream_id}) it has no end: {problem!r}, decisions {answers}, behind {events[-1:]}"
            client.told.faults.append(text)

    async def _judge(self, client: RunClient, fault: Fault) -> None:
        plan, told = client.plan, client.told
        calls = {place: calls for place, calls in self._journal.calls.items() if place.tag == plan.tag}
        story = Story(plan, fault, told, self._model.asked.get(plan.tag, []), calls, tally=self._tally)
        if told.ends and told.ends[0] == "finish":
            try:
                async with asyncio.timeout(PATIENCE):
                    first, second = await client.kept(), await client.kept()
                story.events = events_of(first)
                again = events_of(second)
                story.is_same = again == story.events
                story.where = "" if story.is_same else _difference(story.events, again)
            except (TimeoutError, SilenceError) as problem:
                told.faults.append(f"({told.stream_id}) it cannot be had again: {problem!r}")
        self._tally["cuts"] += told.cuts
        self.faults += judge(story)

    def _judge_keys(self) -> None:
        keys: dict[str, set[object]] = {}
        for place, calls in self._journal.calls.items():
            for call in calls:
                keys.setdefault(call.key, set()).add(place)
        self.faults += [f"the key {key} has several calls: {places}" for key, places in keys.items() if len(places) > 1]


def _difference(first: Events, second: Events) -> str:
    at = next((at for at, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), -1)
    return f"{len(first)} and {len(second)} events, at {at}: {first[at : at + 2]}, {second[at : at + 2]}"


async def _longest_lag() -> float:
    """Returns, once it is cancelled, by how many seconds this process was late at most: others are as late."""
    longest = 0.0
    while True:
        began = time.monotonic()
        try:
            await asyncio.sleep(_TICK)
        except asyncio.CancelledError:
            return longest
        longest = max(longest, time.monotonic() - began - _TICK)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the soak; returns the exit code."""
    parser = argparse.ArgumentParser(prog="kill-runs", description="Processes are killed amid runs.")
    parser.add_argument("--runs", type=int, default=400, help="how many (default: 400)")
    parser.add_argument("--stores", default="memory,sqlite,redis", help="of which kind (default: all)")
    parser.add_argument("--sync", default="before_send,batched", help="`[store] sync` (default: both)")
    parser.add_argument("--faults", default="", help="which: none,worker,server,store,tools (default: all)")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"runs for a fault (default: {AT_ONCE})")
    parser.add_argument("--logs", help="a folder for what the servers log where something is wrong")
    parser.add_argument("--seed", type=int, help="of everything random (default: a new one)")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = SystemRandom().randrange(1_000_000)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its processes end with it
    return asyncio.run(_soak(options))


async def _soak(options: argparse.Namespace) -> int:
    syncs = options.sync.split(",")
    cases = [
        (store, sync) for store in options.stores.split(",") for sync in syncs if store != "memory" or sync == syncs[0]
    ]
    faults = 0
    for number, (store, sync) in enumerate(cases):
        seed, began, tally = f"{options.seed} {store} {sync}", time.monotonic(), Counter[str]()
        runs = options.runs // len(cases) + (number < options.runs % len(cases))
        model = PlannedModel(PAUSE)
        await model.start()
        with tempfile.TemporaryDirectory(prefix="gai-fast-runs-") as name:
            scene = Scene(Path(name), store, sync, model.port, Random(seed))
            kinds = [kind for kind in scene.kinds if not options.faults or kind in options.faults.split(",")]
            groups = Groups(scene, model, seed, kinds, options.at_once, tally)
            async with scene:
                await groups.run(runs)
            said = scene.log
            if groups.faults and options.logs:
                Path(options.logs).mkdir(parents=True, exist_ok=True)
                Path(options.logs, f"{store}-{sync}-{options.seed}.log").write_text(said)
        model.stop()
        if "bug" in said or "Traceback" in said:
            groups.faults.append(said[-3000:])
        faults += len(groups.faults)
        text = f"{store}, {sync}, seed {options.seed}: {time.monotonic() - began:.0f} s, {dict(sorted(tally.items()))}"
        print(text, *groups.faults[:_MOST_FAULTS], sep="\n  ", flush=True)
    print(f"faults: {faults}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
