"""Decides whether the owner of a stream lives.

Owns the only definition of "gone", for the workers of one server and for servers on other machines. A stream's owner is
the worker that its record in the store names. A stream's id names the worker that began it, which may be another one.

1. A worker of this server is gone if it refuses a connection. Otherwise it lives, however long it does not answer.
2. A process of another server on this machine is gone if the operating system reports that it has ended.
3. Any other worker is gone if it has no lease: it has not reached the store for `limits.lease_lost`. Until then its
   streams do not end, and their followers wait.
4. A stream whose owner has no name was let go: its owner is gone.
5. A process that stood still for half a lease, or whose clock was set by as much, cannot judge by leases: the other
   workers may have stood still too, and may be about to renew theirs. For the duration of a lease it counts no worker
   as gone.
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
"""Returns whether a worker of this server is gone. Its argument is the worker's name or the id of a stream that it
began. None if it is no worker of this server."""


class Alive:
    """Decides for this process which of the workers that share its store are gone.

    Args:
        backend: The store; open.

    Attributes:
        in_server: Decides by rule 1. None if this process is the server's only worker.
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
        """Starts the period of rule 5 if the last beat is too long ago."""
        if self._beat_at is None:
            return
        now, wall = time.monotonic(), time.time()
        if max(now - self._beat_at[0], wall - self._beat_at[1]) >= SHARED.lease_lost / 2:
            self._judges_from = now + SHARED.lease_lost

    async def _without_lease(self, workers: Collection[str]) -> set[str]:
        """Returns the workers that are gone by their lease: rules 3 and 5."""
        leased = await self._backend.leased(workers) if workers else ()
        self._notice_standstill()  # the process may have stood still during the call
        return set[str]() if time.monotonic() < self._judges_from else {*workers}.difference(leased)

    async def gone(self, workers: Collection[str]) -> set[str]:
        """Returns the workers that are gone.

        Args:
            workers: Their names.

        Raises:
            StoreError: The store is out of reach, and a worker can be judged by its lease only.
        """
        names = [*workers]
        known = dict(zip(names, await asyncio.gather(*map(self.is_known_gone, names)), strict=True))
        unknown = {worker for worker in names if known[worker] is None}
        return await self._without_lease(unknown) | {worker for worker in names if known[worker]}

    async def is_gone(self, worker: str) -> bool:
        """Returns whether a worker is gone. Caches leases, because all followers of a killed worker ask at once.

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
        """Returns whether a worker that may live has not reached the store lately. It may run streams that are not in
        the store.

        Args:
            own: The name of this process, which is not counted.

        Raises:
            StoreError: The store is out of reach.
        """
        late = {*await self._backend.late()} - {own}
        return bool(late) and not all(await asyncio.gather(*map(self.is_known_gone, late)))

    async def is_known_gone(self, worker: str) -> bool | None:
        """Returns whether a worker is gone by rules 1, 2 and 4. None if only its lease can decide.

        Args:
            worker: Its name, or the id of a stream that it began.
        """
        if not worker:
            return True
        is_gone = None if self.in_server is None else await self.in_server(worker)
        if is_gone is None and has_ended(process_of(worker)):
            return True
        return is_gone
