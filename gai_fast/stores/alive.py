"""Whether the owner of a stream lives.

Owns the one definition of it, for the workers of one server and for servers on other machines. A stream's owner is the
worker that its record in the store names; its id only names the worker that began it.

1. The server knows its own workers: one that refuses its connection is gone, every other one lives, however long it
   does not answer.
2. Of another server on this machine the system knows: a process that has ended is gone.
3. Of everybody else there is the lease alone. A worker without one has not reached the store for `limits.lease_lost`,
   and counts as gone. Until then nothing ends for it: followers wait.
4. A process that stood still for half a lease, or whose clock was set by as much, cannot judge by leases: others may
   have stood still with it, and would renew theirs a moment later. For the time of a lease it counts none as gone.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from gai_fast.model.limits import SHARED
from gai_fast.runtime.ids import process_of
from gai_fast.runtime.processes import has_ended
from gai_fast.stores.backend import Backend

IsGone = Callable[[str], Awaitable[bool | None]]
"""Returns whether a worker of this server is gone, by its name or by the id of a stream that it began. None if it is
no worker of this server."""


class Alive:
    """The knowledge of this process about the workers that share its store.

    Args:
        backend: The store; open.

    Attributes:
        in_server: Knows the workers of this server. None if this is the only one.
    """

    def __init__(self, backend: Backend) -> None:
        self.in_server: IsGone | None = None
        self._backend: Final = backend
        self._leased: dict[str, bool] = {}  # by worker, since `_looked_at`
        self._looked_at = 0.0
        self._beat_at: tuple[float, float] | None = None  # monotonic and wall clock
        self._judges_from = -math.inf

    def beat(self) -> None:
        """Notes that this process runs; called before each renewal of its lease."""
        self._notice_standstill()
        self._beat_at = time.monotonic(), time.time()

    def _notice_standstill(self) -> None:
        """Begins the time of rule 4 if the last beat is too long ago."""
        if self._beat_at is None:
            return
        now, wall = time.monotonic(), time.time()
        if max(now - self._beat_at[0], wall - self._beat_at[1]) >= SHARED.lease_lost / 2:
            self._judges_from = now + SHARED.lease_lost

    async def _without_lease(self, workers: Collection[str]) -> set[str]:
        """Returns those of some workers that count as gone by their lease: rules 3 and 4."""
        leased = await self._backend.leased(workers) if workers else ()
        self._notice_standstill()  # also if it happened during the call
        return set[str]() if time.monotonic() < self._judges_from else {*workers}.difference(leased)

    async def gone(self, workers: Collection[str]) -> set[str]:
        """Returns those of some workers that are gone.

        Args:
            workers: Their names.

        Raises:
            StoreError: The store is out of reach, and only leases would tell.
        """
        names = [*workers]
        known = dict(zip(names, await asyncio.gather(*map(self.is_known_gone, names)), strict=True))
        unknown = {worker for worker in names if known[worker] is None}
        return await self._without_lease(unknown) | {worker for worker in names if known[worker]}

    async def is_gone(self, worker: str) -> bool:
        """Returns whether a worker is gone, or had no lease a moment ago: followers of a killed one all ask at once.

        Args:
            worker: Its name.

        Raises:
            StoreError: As `gone`.
        """
        known = await self.is_known_gone(worker)
        if known is not None:
            return known
        now = time.monotonic()
        if now - self._looked_at >= SHARED.lease_renewal:
            self._looked_at = now
            self._leased.clear()
        if worker not in self._leased:
            self._leased[worker] = not await self._without_lease([worker])
        return not self._leased[worker]

    async def is_any_late(self, own: str) -> bool:
        """Returns whether a worker that may live has not reached the store lately: it may run streams that no other
        process has heard of.

        Args:
            own: The name of this process, which knows its own streams.

        Raises:
            StoreError: The store is out of reach.
        """
        late = {*await self._backend.late()} - {own}
        return bool(late) and not all(await asyncio.gather(*map(self.is_known_gone, late)))

    async def is_known_gone(self, worker: str) -> bool | None:
        """Returns whether a worker is gone, by rules 1 and 2. None if only its lease tells.

        Args:
            worker: Its name, or the id of a stream that it began.
        """
        told = None if self.in_server is None else await self.in_server(worker)
        if told is None and has_ended(process_of(worker)):
            return True
        return told
