"""The time to the first token of requests with limits and without, in turn, while the load runs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Final

from tests.soak.client import Connection
from tests.soak.limited.callers import UNIT, Caller
from tests.soak.limited.expected import REQUESTS, SPEND, STREAMS, TOKENS
from tests.soak.limited.upstream import Plan

_PAUSE: Final = 0.015
_PATIENCE: Final = 60.0
_FIRST_NUMBER: Final = 10**9
_LARGE: Final = 10**9
KINDS: Final = (
    Caller("probe-none"),
    Caller("probe-kept", {REQUESTS: _LARGE, TOKENS: _LARGE, STREAMS: 10**6, SPEND: 10**6 * UNIT}),
    Caller("probe-asked", {REQUESTS: _LARGE, TOKENS: _LARGE, STREAMS: 60, SPEND: 10**6 * UNIT}),
)
"""Without limits; with limits of which workers keep parts; with one so small that the store is asked each time."""


class Probes:
    """Requests that are timed.

    Attributes:
        host: The gateway's `address:port`.
        times: Seconds from each request to its first token, by the name of its caller.
        workers: Those that have answered.
    """

    def __init__(self) -> None:
        self.host = ""
        self.times: dict[str, list[float]] = {caller.name: [] for caller in KINDS}
        self.workers: set[str] = set()
        self._numbers = _FIRST_NUMBER

    async def run(self, seconds: float, least: float) -> None:
        """Asks with each key in turn, each time on one connection that has had an answer.

        Args:
            seconds: For how long.
            least: The first tokens of each key and the answering workers without which it asks on: other work on the
                machine may hold up a short run.
        """
        until = time.monotonic() + seconds
        patience = until + _PATIENCE
        while (now := time.monotonic()) < until or (now < patience and not self._has(least)):
            connection = await Connection.open(self.host)  # the workers take turns
            await (await connection.ask("GET", "/healthz")).rest()
            for caller in KINDS:
                await asyncio.sleep(_PAUSE)
                await self._ask(connection, caller)
            connection.close()

    def _has(self, least: float) -> bool:
        return len(self.workers) > 1 and min(map(len, self.times.values())) >= least

    async def _ask(self, connection: Connection, caller: Caller) -> None:
        self._numbers += 1
        body = {"model": "chat", "query": Plan(self._numbers, 20, 2).text}
        began = time.monotonic()
        reply = await connection.ask("POST", "/api/v1/stream", body, {"authorization": f"Bearer {caller.secret}"})
        data = b""
        while b"text.delta" not in data and not reply.ended:
            data += await reply.read()
        took = time.monotonic() - began
        await reply.rest()
        if reply.status == 200 and b"text.delta" in data:
            self.times[caller.name].append(took)
            self.workers.add(reply.headers["x-gai-stream-id"][22:])


def percentile(times: Sequence[float], percent: float) -> float:
    """Returns the percentile by nearest rank; `nan` of nothing."""
    if not times:
        return math.nan
    return sorted(times)[max(0, math.ceil(len(times) * percent / 100) - 1)]
