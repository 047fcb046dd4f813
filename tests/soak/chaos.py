"""The faults of the soak while streams run: kills, reloads, an upstream that fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random

from tests.soak.gateway import Gateway
from tests.soak.upstream import Upstream
from tests.soak.verdict import Judge, Kill


class Chaos:
    """Three series of faults, at times that follow from the seed.

    One of the first workers is never killed, so that its memory can be followed from the beginning to the end.

    Args:
        gateway: The server.
        upstream: Its upstream.
        judge: Gets the kills.
        seed: Of the times.
        seconds: How long it lasts; each series has at least one fault.

    Attributes:
        kills, reloads, outages: How many there were.
        survivor: The process that is not killed.
    """

    def __init__(self, gateway: Gateway, upstream: Upstream, judge: Judge, *, seed: int, seconds: float) -> None:
        self.kills = self.reloads = self.outages = 0
        self._gateway = gateway
        self._upstream = upstream
        self._judge = judge
        self._random = Random(f"chaos {seed}")
        self._end = time.monotonic() + seconds
        self._seconds = seconds
        self.survivor = self._random.choice(sorted(gateway.workers))

    async def run(self) -> None:
        """Runs until the end of its time."""
        await asyncio.gather(
            self._repeat(45.0, self._kill), self._repeat(20.0, self._reload), self._repeat(30.0, self._outage)
        )

    async def _repeat(self, interval: float, act: Callable[[], Awaitable[None]]) -> None:
        interval = min(interval, self._seconds / 2)
        while True:
            wait = interval * self._random.uniform(0.7, 1.3)
            if time.monotonic() + wait > self._end:
                return
            await asyncio.sleep(wait)
            await act()

    async def _kill(self) -> None:
        victims = sorted(self._gateway.workers - {self.survivor})
        if not victims:
            return  # the one before has not been replaced yet
        pid = self._random.choice(victims)
        kill = Kill(pid, time.monotonic())
        self._judge.kills.append(kill)
        self.kills += 1
        await self._gateway.kill_worker(pid)
        kill.gone = time.monotonic()

    async def _reload(self) -> None:
        self.reloads += 1
        self._gateway.reload()

    async def _outage(self) -> None:
        self.outages += 1
        self._upstream.fail(self._random.uniform(0.2, 2.0), self._random.choice((0.0, 0.02, 0.2)))
