"""What a run waits for beside its turns and calls: what is kept of it, and the moment at which it leaves its session.

1. A run that goes on reads what is kept of it, once the store answers.
2. A run that waits for approvals alone leaves its session as soon as all is kept, and processors hold nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from gai_fast.core.run import CallResult, RunCall
from gai_fast.model.events import Event
from gai_fast.model.limits import SHARED
from gai_fast.net.runs.approvals.desk import RunApprovals
from gai_fast.net.runs.records.kept_calls import KeptCalls
from gai_fast.net.runs.records.records import KeptRun
from gai_fast.net.runs.records.state import calls_of_state, results_in
from gai_fast.net.tools.limits import LIMITS
from gai_fast.runtime.clock import now_ms
from gai_fast.stores.backend import StoreError

_log: Final = logging.getLogger("gai_fast.tools")


class RecalledRun(NamedTuple):
    """A run as its last owner has left it.

    Attributes:
        state: As of `KeptRun`.
        turns: The parts of its turns.
        said: The events that its clients have, or that its whole answer has had.
        begun: As of `KeptRun`.
    """

    state: bytes
    turns: Sequence[Sequence[Mapping[str, Any]]]
    said: Sequence[Event]
    begun: Mapping[str, int]


KeptTurns = tuple[RecalledRun, dict[str, CallResult | None]] | None
"""A run, and what is known of the calls of its last turn, by their ids; as for `ToolRun.load`. None if nothing is."""


async def kept_turns(
    kept: KeptCalls, epoch: int, recalled: Callable[[KeptRun], RecalledRun], stream_id: str, *, is_own: bool
) -> KeptTurns:
    """Returns what is kept of a run: rule 1.

    Args:
        kept: The records of the run.
        epoch: The epoch of this worker.
        recalled: Reads what is kept.
        stream_id: The id of its stream.
        is_own: As for `KeptCalls.go_on`.

    Raises:
        LostRun: Another worker has the run.
        StoreError: What is kept is damaged, or cannot be opened.
        ValueError: It is damaged.
    """
    while True:
        try:
            run = await kept.go_on(epoch, is_own=is_own)
            found = None if run is None else recalled(run)
            return None if found is None else (found, await _results(kept, found))
        except StoreError as problem:
            if problem.fault in ("damaged", "sealed"):  # it stays so
                raise
            _log.warning("stream %s: its run does not go on yet: %s", stream_id, problem)
        is_own = True  # it may be already
        await asyncio.sleep(SHARED.store_retry)


async def _results(kept: KeptCalls, run: RecalledRun) -> dict[str, CallResult | None]:
    found: dict[str, CallResult | None] = {}
    if not run.state:
        return found
    told = results_in(run.said)
    for call in calls_of_state(run.state):
        result = await kept.result(call) or told.get(call.call_id)
        if result is not None or kept.key_of(call) in run.begun:
            found[call.call_id] = result
    return found


async def park(
    kept: KeptCalls,
    approvals: RunApprovals,
    waits: Callable[[], int | None],
    holds: Callable[[], bool],
    state: Callable[[], tuple[bytes, bytes, Sequence[RunCall]]],
    leave: Callable[[dict[str, int]], object],
) -> None:
    """Leaves the session once all is kept, if the run still waits then: rule 2.

    Args:
        kept: The records of the run.
        approvals: Its approvals.
        waits: Returns a number that changes with what the run does. None if it does not wait any more.
        holds: Returns whether processors hold events.
        state: Returns the state of the run, what is added, and its calls, as for `KeptCalls.keep_now`.
        leave: Leaves; called with the approvals that are open, as `RunApprovals.open`.
    """
    while (executed := waits()) is not None:
        if approvals.work:
            await asyncio.wait([*approvals.work])
        elif holds():
            await asyncio.sleep(LIMITS.run_held)
        else:
            is_kept = await kept.keep_now(*state())
            are_open = approvals.open()
            if is_kept is None or min(are_open.values(), default=0) < now_ms() + LIMITS.run_expiring:
                return  # its next decision leads here again
            if not is_kept:
                await asyncio.sleep(SHARED.store_retry)
            elif executed == waits() and not approvals.work:
                leave(are_open)
                return


async def known(value: bool) -> bool:
    """Returns a value that is known already, for callers that await it."""
    return value
