"""The records of one run in the store: no call is made twice, and another worker can continue the run.

Owns the order of log, state and call. `records.py` has the form of the records, `driver.py` what a state is.

1. A call that is not idempotent is noted before it is made, in every run. If it cannot be noted, it is not made.
2. A run that another worker may continue keeps its state too: at the end of each turn, and at the beginning of the
   next. The log is written before the state, and the state before its calls are noted. So the log has every event of
   the state, and the state has every call that was made.
3. A state that could not be kept is tried again, and is kept before the next call is noted.
4. The result of a call of such a run is kept until a state has it. Other runs keep none: no worker would read them. A
   run that only its own worker goes on with, behind a wait, has them in its state.
5. A change that has begun ends, also if its call is cancelled: the next one must know what the store has.
6. A worker that has lost the run makes no call. It calls `lost`.
7. What is kept stays until the store has the end of the log: until then the last turn may be asked again. That calls
   were made stays known, where another worker or another request with the key might make them again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec

from gai_fast.core.call_key import idempotency_key
from gai_fast.core.run import CallResult, RunCall
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.net.runs.records.records import KeptRun, LostRun, OwnedRun, RunRecords
from gai_fast.net.toolbox.run_calls import NotStored, RunIdentity
from gai_fast.stores.backend import StoreError

_Result: Final = tuple[Any, bool, tuple[dict[str, Any], ...], bool, int]
_log: Final = logging.getLogger("gai_fast.tools")
_NONE: Final[frozenset[Any]] = frozenset()
"""What most runs have: an empty set of their own takes 216 bytes."""


class KeptCalls:
    """The records of one run; as `CallRecords`. Belongs to one loop.

    Args:
        records: Those of all runs.
        identity: What its calls have in common.
        stored: Returns whether the store has all that the run's log has by now. None if nobody may go on with the run.
        lost: Called if another worker has the run.
        is_shared: Whether other workers may go on with the run. If not, this one may, behind a wait.
    """

    def __init__(
        self,
        records: RunRecords,
        identity: RunIdentity,
        stored: Callable[[], Awaitable[bool]] | None,
        lost: Callable[[], object],
        *,
        is_shared: bool = True,
    ) -> None:
        self._records = records
        self._identity = identity
        self._stored = stored
        self._lost = lost
        self._is_shared = is_shared
        self._owned: OwnedRun | None = None
        self._has_tried = False  # to begin the record
        self._again: asyncio.TimerHandle | None = None  # keeps what could not be kept: rule 3
        self._is_left = self._has_ended = False
        self._waiting: list[tuple[bytes, bytes, list[str]]] = []  # states that are not kept yet: rule 3
        self._turn = asyncio.Lock()
        self._tasks: frozenset[asyncio.Task[Any]] = _NONE

    @property
    def is_kept(self) -> bool:
        """Whether others may go on with the run, or this worker behind a wait."""
        return self._stored is not None

    # -- states --

    def keep(self, state: bytes, added: bytes = b"", calls: Sequence[RunCall] = ()) -> None:
        """Keeps a state of the run, soon: rule 2.

        Args:
            state: The state.
            added: What the run has added to its conversation since the last one.
            calls: The calls of its last turn, as they are in the state.
        """
        if self._stored is not None:
            self._waiting.append((state, added, self._open_of(calls)))
            self._start(self._catch_up())

    def _open_of(self, calls: Sequence[RunCall]) -> list[str]:
        """Returns the keys of the calls that have not ended."""
        return [self.key_of(call) for call in calls if call.phase != "ended" and call.tool is not None]

    async def keep_now(self, state: bytes, added: bytes = b"", calls: Sequence[RunCall] = ()) -> bool | None:
        """Keeps a state of the run, and returns whether it is kept. None if it is too large to be kept.

        Args:
            state: The state.
            added: As for `keep`.
            calls: As for `keep`.
        """
        if len(self._waiting) > 1 and not self._waiting[-1][1]:  # while the store fails: the first may be under way
            self._waiting.pop()
        self._waiting.append((state, added, self._open_of(calls)))
        is_small = await self.is_small()
        if self._waiting or self._owned is None:
            return False
        return True if is_small else None

    async def is_small(self) -> bool:
        """Returns whether the last state that is kept was not too large. Keeps those before that are not kept yet."""
        await asyncio.shield(self._start(self._catch_up()))
        return self._owned is None or self._owned.is_whole

    async def _catch_up(self) -> None:
        try:
            await self._save()
        except LostRun:
            self._lost()
        except (StoreError, Error) as problem:
            _log.warning("stream %s: its run is not kept yet: %s", self._identity.stream_id, problem)
            if self._again is None and not self._is_left:
                loop = asyncio.get_running_loop()
                self._again = loop.call_later(SHARED.store_retry, self._try_again)

    def _try_again(self) -> None:
        self._again = None
        if self._waiting and not self._is_left:
            self._start(self._catch_up())

    def leave(self) -> None:
        """Tries no more to keep what is not kept yet: another worker may continue the run."""
        self._is_left = True

    async def _save(self) -> None:
        async with self._turn:
            while self._waiting:
                state = self._waiting[0]
                is_stored = self._stored is None or await self._stored()
                if not self._waiting:  # the run ended during the wait
                    return
                if not is_stored:
                    raise StoreError("unreachable", "the store lacks events of this run")
                await (await self._own()).save(*state)
                if self._waiting:
                    del self._waiting[0]

    async def _own(self) -> OwnedRun:
        if self._owned is None:
            again, self._has_tried = self._has_tried, True
            self._owned = await self._records.begin(self._identity.stream_id, self._identity.caller, 1, again=again)
        return self._owned

    async def go_on(self, epoch: int, *, is_own: bool = False) -> KeptRun | None:
        """Takes over the run of a lost worker, or goes on with one that has waited; as `RunRecords.go_on`.

        Args:
            epoch: The epoch of this worker.
            is_own: As for `RunRecords.take_over`.
        """
        found = await self._records.go_on(self._identity.stream_id, self._identity.caller, epoch, is_own=is_own)
        if found is None:
            return None
        self._owned, kept = found
        return kept

    async def end(self) -> None:
        """Removes what is kept: the run has ended."""
        self._waiting.clear()
        self._has_ended = True
        if self._tasks:
            await asyncio.wait(self._tasks)  # a result that is being written goes, too
        if self._stored is not None:
            await self._stored()  # rule 7; if the store fails, so does what follows
        try:
            async with self._turn:
                if self._owned is None:
                    return
                if self._may_be_repeated():
                    await self._owned.close()
                else:
                    await self._owned.end()
        except LostRun:
            pass  # it is the other worker's
        except StoreError as problem:
            _log.warning("stream %s: the record of its run expires: %s", self._identity.stream_id, problem)

    def _may_be_repeated(self) -> bool:
        """Returns whether somebody might make the calls again, until the store has the end of the log: rule 7."""
        has_key = self._identity.request_key != self._identity.stream_id
        return has_key if self._stored is None else self._is_shared

    # -- calls (`CallRecords`) --

    async def started(self, call: RunCall, key: str) -> None:
        """Notes a call; as `CallRecords.started`."""
        await asyncio.shield(self._start(self._note(call, key)))

    async def _note(self, call: RunCall, key: str) -> None:
        try:
            await self._save()
            async with self._turn:
                owned = await self._own()
            await owned.started(key, call.attempt)
        except LostRun as problem:
            self._lost()
            raise NotStored(str(problem)) from None
        except (StoreError, Error) as problem:
            _log.warning("stream %s: a call is not noted: %s", self._identity.stream_id, problem)
            raise NotStored("the store is out of reach") from None

    async def ended(self, call: RunCall, result: CallResult) -> None:
        """Keeps a result; as `CallRecords.ended`: rule 4."""
        if self._stored is not None and self._is_shared and call.tool is not None and not self._has_ended:
            await asyncio.shield(self._start(self._keep_result(call, result)))

    async def _keep_result(self, call: RunCall, result: CallResult) -> None:
        whole = [result.value, result.is_error, list(result.parts), result.is_truncated, result.duration_ms]
        try:
            await self._save()
            if self._owned is not None:  # else nothing of the run is kept yet
                await self._owned.ended(self.key_of(call), encode_json(whole))
        except LostRun as problem:
            self._lost()
            raise NotStored(str(problem)) from None
        except (StoreError, Error, ValueError, TypeError) as problem:
            raise NotStored(str(problem)) from None

    async def result(self, call: RunCall) -> CallResult | None:
        """Returns the result of a call of the worker that is gone. None if none is kept.

        Raises:
            StoreError: The store fails, or the record is damaged.
        """
        assert self._owned is not None
        raw = await self._owned.result(self.key_of(call))
        if raw is None:
            return None
        try:
            whole = msgspec.convert(parse_exact(raw.decode()), _Result)
        except (ValueError, TypeError):
            raise StoreError("damaged", "the record of a result in the store is damaged") from None
        return CallResult(*whole)

    def key_of(self, call: RunCall) -> str:
        """Returns the key of a call of one of the gateway's tools."""
        assert call.tool is not None
        identity = self._identity
        return call.key or idempotency_key(
            identity.caller, identity.request_key, call.step, call.ordinal, call.tool.address, call.arguments
        )

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)  # rule 5
        self._tasks |= {task}
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks -= {task}
        problem = None if task.cancelled() else task.exception()
        if problem is not None and not isinstance(problem, NotStored):
            _log.error("the record of a run has failed by a bug of the gateway", exc_info=problem)
