"""The approvals of one run: asked for, waited for, decided.

Owns the tasks and timers of calls that wait for a person. It must not know what a decision means for the run.

1. An approval is kept and listed (`records.py`) before anybody is asked for it.
2. The first decision that is kept counts: a person's, or the gateway's own at the end of the approval's time.
3. What cannot be kept is denied: the store fails, too many runs wait, or this one is too large.
4. If the store fails at a decision, the call goes on waiting: the decision is read again, and at the end of its time
   the call is denied. A record that is damaged, or that no key opens, stays so: its call is denied at once.
5. A decision whose message is lost is found by a look (`watch.py`).
6. Guards look at a person's reason before it counts: a model reads it. The decision itself counts in any case.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from gai_fast.core.run import RunCall
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import RunSettings
from gai_fast.model.tool_rules import server_and_name
from gai_fast.net.limits import LIMITS
from gai_fast.net.runs.approvals.watch import ApprovalWatch
from gai_fast.net.runs.records.records import ENDED, ApprovalDecision, AskedApproval, LostRun, RunRecords
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.timers import Timer, Timers
from gai_fast.stores.backend import StoreError

_log: Final = logging.getLogger("gai_fast.tools")
_MS: Final = 1000
EXPIRED: Final = "expired"
"""The reason of a denial at the end of an approval's time."""
_TOO_LARGE: Final = f"nobody is asked in a conversation of more than {LIMITS.run // 2**20} MiB"


_LASTING: Final = ("damaged", "sealed")
_DAMAGED: Final = ApprovalDecision("deny", "", "its approval is damaged in the store")
_DAMAGED_LINE: Final = "stream %s: an approval is damaged; its call is denied"


class ApprovalDesk:
    """The approvals of all runs of a process. Belongs to one loop.

    Args:
        records: Keeps approvals.
        timers: The loop's timers.
        loop: The loop.

    Attributes:
        settings: `[runs]`.
        watch: Looks at the approvals that are waited for.
    """

    def __init__(
        self, records: RunRecords, timers: Timers, loop: asyncio.AbstractEventLoop, settings: RunSettings
    ) -> None:
        self.settings = settings
        self.records = records
        self.timers = timers
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self.watch = ApprovalWatch(records, timers, self.start)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts work on what is kept of a run."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def withdraw(self, stream_id: str, caller: str, epoch: int, *, is_own: bool = False) -> None:
        """Removes what is kept of a run that has ended before this process had read it; as `RunRecords.withdraw`.

        Args:
            stream_id: Its stream.
            caller: The name of its caller.
            epoch: The epoch of this worker.
            is_own: As for `RunRecords.take_over`.
        """
        self.start(self._withdraw(stream_id, caller, epoch, is_own=is_own))

    async def _withdraw(self, stream_id: str, caller: str, epoch: int, *, is_own: bool) -> None:
        try:
            await self.records.withdraw(stream_id, caller, epoch, is_own=is_own)
        except LostRun:
            return
        except StoreError as problem:
            _log.warning("stream %s: what is kept of its run expires: %s", stream_id, problem)

    async def close(self) -> None:
        """Returns once no work is left."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        problem = None if task.cancelled() else task.exception()
        if problem is not None:
            _log.error("what is kept of a run has failed by a bug of the gateway", exc_info=problem)


@dataclass(slots=True)
class _Waiting:
    """A call that waits.

    Attributes:
        call: The call.
        asked: What is asked.
        timer: The end of its time. None before anybody is asked.
        is_heard: Whether a decision was heard of before that: an admin may have found it in the list.
        is_decided: Whether its decision has come. Guards may still look at the reason.
    """

    call: RunCall
    asked: AskedApproval
    timer: Timer | None = None
    is_heard: bool = False
    is_decided: bool = False


class RunApprovals:
    """The approvals of one run.

    Args:
        desk: Those of all runs.
        stream_id: The stream of the run.
        caller: The name of its caller.
        may_wait: Returns whether the run may wait: it is not too large.
        asked: Called with what a person is asked.
        decided: Called with each decision.
        reason: Returns what guards let through of a person's reason. None if none looks at it.
    """

    def __init__(
        self,
        desk: ApprovalDesk,
        stream_id: str,
        caller: str,
        may_wait: Callable[[], Awaitable[bool]],
        asked: Callable[[RunCall, AskedApproval], object],
        decided: Callable[[RunCall, AskedApproval, ApprovalDecision], object],
        reason: Callable[[str], Awaitable[str]] | None = None,
    ) -> None:
        self._reason = reason
        self._desk = desk
        self._stream_id = stream_id
        self._caller = caller
        self._may_wait = may_wait
        self._asked = asked
        self._decided = decided
        self.work: set[asyncio.Task[None]] = set()
        """What is under way: as long as it is, more is asked or decided."""
        self._waiting: dict[str, _Waiting] = {}  # by id of the approval
        self._is_closed = self._is_left = False

    def open(self) -> dict[str, int]:
        """Returns the ids of the approvals that are waited for, each with its last millisecond."""
        return {name: each.asked.expires for name, each in self._waiting.items()}

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._desk.start(work)
        self.work.add(task)
        task.add_done_callback(self.work.discard)

    def ask(self, call: RunCall, digest: str) -> None:
        """Asks for an approval: rules 1 and 3."""
        asked = AskedApproval(
            call.approval_id,
            self._stream_id,
            self._caller,
            digest,
            now_ms() + round(self._desk.settings.approval_ttl * _MS),
            _shown(call),
        )
        self._waiting[asked.id] = waiting = _Waiting(call, asked)
        self._start(self._ask(waiting))

    def ask_on(self, call: RunCall, digest: str) -> None:
        """Goes on to wait for an approval that another worker has asked for, or asks for it if that has not.

        Args:
            call: The call.
            digest: As for `ask`.
        """
        self._start(self._ask_on(call, digest))

    async def _ask_on(self, call: RunCall, digest: str) -> None:
        try:
            found = await self._desk.records.asked(call.approval_id)
            if found is not None and (found[0].id, found[0].digest) != (call.approval_id, digest):
                raise StoreError("damaged", "it is about another call")
        except StoreError as fault:  # rule 4
            if fault.fault in _LASTING:
                self._deny(call, digest)
                return
            _log.warning("stream %s: an approval is not read yet: %s", self._stream_id, fault)
            await asyncio.sleep(SHARED.store_retry)
            if not self._is_closed:
                self.ask_on(call, digest)
            return
        if self._is_closed:
            return
        if found is None:
            self.ask(call, digest)
            return
        asked, decision = found
        if decision is not None:
            asked = replace(asked, call=_shown(call))
        self._waiting[asked.id] = waiting = _Waiting(call, asked)
        self._asked(call, asked)
        if decision is not None:
            await self._use(waiting, decision)
            return
        self._desk.records.waits_on(asked)
        self._wait(waiting)
        self._start(self._read(asked.id))  # it may have been decided since

    def _deny(self, call: RunCall, digest: str) -> None:
        """Denies a call whose approval is damaged before this worker waits for it."""
        _log.warning(_DAMAGED_LINE, self._stream_id)
        if not self._is_closed:
            asked = AskedApproval(call.approval_id, self._stream_id, self._caller, digest, 0, b"")
            self._desk.records.passed(asked)
            self._decided(call, asked, _DAMAGED)

    def _wait(self, waiting: _Waiting) -> None:
        ends = self._desk.timers.clock() + (waiting.asked.expires - now_ms()) / _MS
        waiting.timer = self._desk.timers.schedule(ends, partial(self._expire, waiting.asked.id))
        self._desk.watch.add(waiting.asked.id, self)

    def leave(self) -> None:
        """Ends the waits. The approvals stay listed, for the run's next worker."""
        self._is_closed = self._is_left = True
        for approval_id in [*self._waiting]:
            self._take(approval_id)

    def hear(self, approval_id: str) -> None:
        """Learns that an approval was decided."""
        waiting = self._waiting.get(approval_id)
        if waiting is not None and waiting.timer is None:
            waiting.is_heard = True
        elif waiting is not None:
            self._start(self._read(approval_id))

    def close(self) -> None:
        """Ends the waits, because the run is over. Removes its undecided approvals from the list."""
        self._is_closed = True
        for approval_id in [*self._waiting]:
            if self._take(approval_id) is not None:
                self._start(self._withdraw(approval_id))

    async def _ask(self, waiting: _Waiting) -> None:
        asked, desk = waiting.asked, self._desk
        try:
            is_small = await self._may_wait()
            is_kept = is_small and await desk.records.ask(asked, desk.settings.waiting)
            most = f"{desk.settings.waiting} runs wait already, or half as many of this caller (waiting)"
            problem = most if is_small else _TOO_LARGE
        except (StoreError, Error) as fault:
            is_kept, problem = False, "the approval could not be kept: the store is out of reach"
            _log.warning("stream %s: an approval is not kept: %s", self._stream_id, fault)
        if asked.id not in self._waiting:  # closed or left during the write
            if not self._is_left:
                await self._withdraw(asked.id)
        elif is_kept:
            self._wait(waiting)
            self._asked(waiting.call, asked)
            if waiting.is_heard:
                self.hear(asked.id)
        else:
            self._settle(asked.id, ApprovalDecision("deny", "", problem))

    async def _read(self, approval_id: str) -> None:
        try:
            found = await self._desk.records.asked(approval_id)
        except StoreError as fault:  # rule 4
            if fault.fault in _LASTING:
                if approval_id in self._waiting:
                    _log.warning(_DAMAGED_LINE, self._stream_id)
                    self._settle(approval_id, _DAMAGED)
                return
            _log.warning("stream %s: a decision is not read yet: %s", self._stream_id, fault)
            await asyncio.sleep(SHARED.store_retry)
            self.hear(approval_id)
            return
        waiting = self._waiting.get(approval_id)
        if found is None or found[1] is None or waiting is None:
            return
        if found[0].digest == waiting.asked.digest:  # else it is about another call, of a turn that was asked again
            await self._use(waiting, found[1])

    def _expire(self, approval_id: str) -> None:
        self._start(self._end_time(approval_id))

    async def _end_time(self, approval_id: str) -> None:
        own, waiting = ApprovalDecision("deny", "", EXPIRED), self._waiting.get(approval_id)
        if waiting is None:
            return
        try:
            standing = await self._desk.records.decide(approval_id, own, waiting.asked.digest)
        except StoreError as fault:
            _log.warning("stream %s: the end of an approval is not kept: %s", self._stream_id, fault)
            standing = None
        await self._use(waiting, standing or own)

    async def _withdraw(self, approval_id: str) -> None:
        try:
            await self._desk.records.decide(approval_id, ENDED)
        except StoreError as fault:
            _log.warning("stream %s: an approval is listed until it expires: %s", self._stream_id, fault)

    async def _use(self, waiting: _Waiting, decision: ApprovalDecision) -> None:
        """Uses the decision that counts, with what guards let through of its reason: rule 6."""
        if waiting.is_decided:
            return
        waiting.is_decided = True
        if decision.by and decision.reason and self._reason is not None:
            decision = replace(decision, reason=await self._reason(decision.reason))
        self._settle(waiting.asked.id, decision)

    def _settle(self, approval_id: str, decision: ApprovalDecision) -> None:
        waiting = self._take(approval_id)
        if waiting is not None:
            self._desk.records.passed(waiting.asked)
            self._decided(waiting.call, waiting.asked, decision)

    def _take(self, approval_id: str) -> _Waiting | None:
        waiting = self._waiting.pop(approval_id, None)
        if waiting is not None and waiting.timer is not None:
            waiting.timer.cancel()
            self._desk.watch.remove(approval_id, self)
        return waiting


def _shown(call: RunCall) -> bytes:
    """Returns a call for who decides."""
    assert call.tool is not None
    server, name = server_and_name(call.tool.address)
    return encode_json({"call_id": call.call_id, "tool": name, "server": server, "input": call.arguments})
