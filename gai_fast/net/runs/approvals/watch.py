"""The approvals that the runs of a process wait for, looked at from time to time.

Owns when a lost message is made up for. It must not know what a decision means.

A decision is kept, and then told to the run's worker by a message without reply (`stores/messages.py`). If the store or
a connection fails between the two, the person may not ask again, and the run would hear of nothing until the end of the
approval's time: an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from gai_fast.net.limits import LIMITS
from gai_fast.net.runs.records.records import RunRecords
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.stores.backend import StoreError


class Waits(Protocol):
    """A run that waits for an approval."""

    def hear(self, approval_id: str) -> None:
        """Learns that an approval was decided."""


class ApprovalWatch:
    """Looks whether approvals that are waited for are decided, every `limits.approval_look`. Belongs to one loop.

    Args:
        records: Has the approvals.
        timers: The loop's timers.
        start: Starts work on what is kept of a run.
    """

    def __init__(
        self, records: RunRecords, timers: Timers, start: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self._records = records
        self._timers = timers
        self._start = start
        self._waits: dict[str, Waits] = {}  # by approval
        self._timer: Timer | None = None
        self._is_looking = False

    def add(self, approval_id: str, waits: Waits) -> None:
        """Begins to look at an approval. The run replaces the one that has waited for it before."""
        self._waits[approval_id] = waits
        self._look_later()

    def remove(self, approval_id: str, waits: Waits) -> None:
        """Stops looking at an approval, unless another run waits for it by now."""
        if self._waits.get(approval_id) is waits:
            del self._waits[approval_id]
        if not self._waits and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        if self._waits and self._timer is None and not self._is_looking:
            self._timer = self._timers.schedule(self._timers.clock() + LIMITS.approval_look, self._due)

    def _due(self) -> None:
        self._timer, self._is_looking = None, True
        self._start(self._look())

    async def _look(self) -> None:
        try:
            for approval_id in [*self._waits]:
                if approval_id in self._waits and await self._is_decided(approval_id):
                    waits = self._waits.get(approval_id)
                    if waits is not None:
                        waits.hear(approval_id)
        except StoreError:
            pass  # looked at again
        finally:
            self._is_looking = False
            self._look_later()

    async def _is_decided(self, approval_id: str) -> bool:
        try:
            return await self._records.is_decided(approval_id)
        except StoreError as problem:
            if approval_id in self._waits:
                self._waits[approval_id] = self._waits.pop(approval_id)  # the others are read before it
            if problem.fault in ("damaged", "sealed", "slow"):  # it may stay so, and must not hide the others
                return False
            raise
