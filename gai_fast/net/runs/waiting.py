"""The runs of a process that wait for approvals alone: each is a log and a timer, until it goes on.

Owns when a waiting run goes on, and its end if it does not. It must not know what goes on (`engine/takeover.py`).

1. A run goes on at a decision, and at the end of the first of its approvals.
2. If there is no room for it, or the store fails, it waits on, and is tried again.
3. It holds no session, no reservation and no place among the streams. What is needed to go on is in the store.
4. A run that ends while it waits withdraws its approvals, and what is kept of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.net.runs.approvals.desk import ApprovalDesk
from gai_fast.net.runs.tallies import RunTallies
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.stores import StreamLog
from gai_fast.stores._base import EndsInstead, GoesOn, NoRoom, TakeOver
from gai_fast.stores.backend import StoreError

_log: Final = logging.getLogger("gai_fast.tools")
_MS: Final = 1000

Waking = Callable[[StreamLog, Mapping[str, Any]], Awaitable[GoesOn | EndsInstead]]
"""Prepares that a run goes on. Its arguments are its log, and what its end says (`ending.py`). May raise `NoRoom`,
`StoreError`, and an `Error` for a log that is damaged."""
Close = Callable[[StreamLog, EndsInstead], None]
"""Ends a log."""


class _WaitingRun:
    """A run that waits.

    Args:
        log: Its log.
        desk: Has its approvals, and what is kept of it.
        approvals: The ids of its open approvals.
        told: What its end says.
        wake: Makes a run go on, by its stream.
    """

    __slots__ = ("_told", "_wake", "approvals", "desk", "log", "timer", "waking")

    def __init__(
        self,
        log: StreamLog,
        desk: ApprovalDesk,
        approvals: tuple[str, ...],
        told: dict[str, Any],
        wake: Callable[[str], None],
    ) -> None:
        self.log = log
        self.desk = desk
        self.approvals = approvals
        self._wake = wake
        self._told = encode_json(told)  # a third of its memory
        self.timer: Timer | None = None
        self.waking: asyncio.Task[None] | None = None

    @property
    def told(self) -> dict[str, Any]:
        """What its end says."""
        told: dict[str, Any] = parse_exact(self._told.decode())
        return told

    def hear(self, approval_id: str) -> None:
        """Goes on; as `approvals.watch.Waits`."""
        self._wake(self.log.header.stream_id)


class WaitingRuns:
    """The waiting runs of one process. Belongs to one loop.

    Args:
        timers: The loop's timers.
        tallies: Counts them.
        waking: Prepares that one goes on.
        close: Ends the log of one that does not.
    """

    def __init__(self, timers: Timers, tallies: RunTallies, waking: Waking, close: Close) -> None:
        self._timers = timers
        self._tallies = tallies
        self._waking = waking
        self._close = close
        self._runs: dict[str, _WaitingRun] = {}  # by stream

    def __contains__(self, stream_id: object) -> bool:
        return stream_id in self._runs

    def add(self, log: StreamLog, desk: ApprovalDesk, approvals: dict[str, int], told: dict[str, Any]) -> None:
        """Adds a run.

        Args:
            log: Its log, which has all its events.
            desk: Has its approvals, and what is kept of it.
            approvals: The ids of its open approvals, each with its last millisecond.
            told: What its end says if it does not go on; as `ending.told_of`.
        """
        stream_id = log.header.stream_id
        self._runs[stream_id] = waiting = _WaitingRun(log, desk, (*approvals,), told, self.wake)
        for approval_id in waiting.approvals:
            desk.watch.add(approval_id, waiting)
        ends = self._timers.clock() + (min(approvals.values()) - now_ms()) / _MS
        waiting.timer = self._timers.schedule(ends, partial(self.wake, stream_id))
        self._tallies.waiting += 1

    def wake(self, stream_id: str) -> None:
        """Makes a run go on: rule 1. Does nothing if it does not wait here, or goes on already."""
        waiting = self._runs.get(stream_id)
        if waiting is not None and waiting.waking is None:
            waiting.waking = waiting.desk.start(self._wake(waiting))
            waiting.waking.add_done_callback(partial(self._woken, waiting))

    def forget(self, stream_id: str) -> StreamLog | None:
        """Removes a run. Returns its log. None if it does not wait here."""
        waiting = self._runs.pop(stream_id, None)
        if waiting is None:
            return None
        self._tallies.waiting -= 1
        for approval_id in waiting.approvals:
            waiting.desk.watch.remove(approval_id, waiting)
        if waiting.timer is not None:
            waiting.timer.cancel()
        if waiting.waking is not None:
            waiting.waking.cancel()
        return waiting.log

    def leave(self) -> list[StreamLog]:
        """Removes all runs, because other workers go on with them. Returns their logs."""
        logs = [each.log for each in self._runs.values()]
        for log in logs:
            self.forget(log.header.stream_id)
        return logs

    def end(self, stream_id: str, error: Error | None = None, *, is_cancelled: bool = True) -> bool:
        """Ends a run: rule 4. Returns whether it has waited here.

        Args:
            stream_id: Its stream.
            error: The error of its end, or the reason of a cancelled one.
            is_cancelled: Whether it is cancelled.
        """
        waiting = self._runs.get(stream_id)
        if waiting is None:
            return False
        self.forget(stream_id)
        self._end(waiting, EndsInstead(error, is_cancelled))
        return True

    def _end(self, waiting: _WaitingRun, end: EndsInstead) -> None:
        """Ends a run that does not wait here any more: rule 4."""
        told, log = waiting.told, waiting.log
        waiting.desk.withdraw(log.header.stream_id, log.header.caller, log.takeovers + 1, is_own=True)
        self._tallies.run_ended(len(told["steps"]))
        self._close(log, end._replace(told=told))

    def end_all(self, error: Error) -> None:
        """Ends all runs.

        Args:
            error: The error of their ends.
        """
        for stream_id in [*self._runs]:
            self.end(stream_id, error, is_cancelled=False)

    def end_undecided(self, error: Error) -> None:
        """Ends all runs but those that go on already.

        Args:
            error: The error of their ends.
        """
        for stream_id in [name for name, each in self._runs.items() if each.waking is None]:
            self.end(stream_id, error, is_cancelled=False)

    def end_callers(self, callers: Collection[str], error: Error) -> None:
        """Ends all runs of some callers, as cancelled.

        Args:
            callers: Their names.
            error: Has the reason.
        """
        for stream_id in [name for name, each in self._runs.items() if each.log.header.caller in callers]:
            self.end(stream_id, error)

    async def _wake(self, waiting: _WaitingRun) -> None:
        log = waiting.log
        stream_id = log.header.stream_id
        while True:
            try:
                found = await self._waking(log, waiting.told)
                break
            except NoRoom:
                pass
            except StoreError as problem:
                _log.warning("stream %s: its run does not go on yet: %s", stream_id, problem)
            except Error as problem:
                found = EndsInstead(problem)
                break
            await asyncio.sleep(SHARED.store_retry)
        waiting.waking = None  # it has done its work
        if isinstance(found, EndsInstead):
            self.end(stream_id, found.error, is_cancelled=found.is_cancelled)
            return
        self.forget(stream_id)
        found.begin(TakeOver("", "", log.takeovers + 1, 0.0))

    def _woken(self, waiting: _WaitingRun, task: asyncio.Task[None]) -> None:
        """Ends a run that a bug keeps from going on: it would wait for ever."""
        if task.cancelled() or task.exception() is None:
            return
        error = Error("internal", "the gateway failed to go on with this stream")
        if not self.end(waiting.log.header.stream_id, error, is_cancelled=False) and not waiting.log.is_over:
            self._end(waiting, EndsInstead(error))
