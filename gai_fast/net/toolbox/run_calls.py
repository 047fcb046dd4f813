"""The calls of one run: makes those that `core/run.py` begins, and has their results.

Owns the order of record and call. It must not know turns, nor where records are kept.

1. A call that is not idempotent is made once its record is stored. If it cannot be stored, it is not made: an error.
   It is stored as late as can be: a call whose arguments are refused, or that waits for its place, has none.
2. A result is recorded before the run has it, as guards have let it through. That of rule 1 is not: another worker that
   has the run by now may make the call.
3. Whatever fails is a result: a text of at most `limits.tool_problem` characters that is an error, and no traceback.
4. A call that is ended is cancelled at once: its connection closes, its server hears of it, its function is cancelled.
   Its result, if there is one, is dropped.
5. A bug of ours is logged, and is the call's result.
6. Few calls begin in one turn of the loop, and few go on with their results: the runs of many users hold up nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, Protocol

from gai_fast.core.call_key import idempotency_key
from gai_fast.core.run import CallResult, RunCall
from gai_fast.model.limits import SHARED
from gai_fast.model.tool_functions import ToolMeta
from gai_fast.net.toolbox.tool_source import GatewayTool
from gai_fast.net.toolbox.toolbox import Toolbox
from gai_fast.net.tools.rpc import ToolServerError, readable
from gai_fast.net.tools.tool_results import ResultPart, ToolResult
from gai_fast.net.tools.wire import OnProgress, ToolProgress
from gai_fast.runtime.pace import Pace

_log: Final = logging.getLogger("gai_fast.tools")
_MS: Final = 1e-3
_NONE: Final[frozenset[Any]] = frozenset()
"""What most runs have: an empty set of their own takes 216 bytes."""


class NotStored(Exception):
    """A record cannot be stored: the store is out of reach, or another worker has the run."""


class CallRecords(Protocol):
    """Where the records of a run's calls are kept."""

    async def started(self, call: RunCall, key: str) -> None:
        """Stores that a call is about to be made.

        Raises:
            NotStored: It must not be made.
        """

    async def ended(self, call: RunCall, result: CallResult) -> None:
        """Stores a result.

        Raises:
            NotStored: The run has its result nevertheless; after a fault its outcome is unknown.
        """


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What all calls of a run have in common.

    Attributes:
        caller: The name of its caller.
        request_id: The id of its request.
        stream_id: The id of its stream.
        request_key: The idempotency key of the request, or the stream's id.
        traceparent: What tools get as `traceparent` if the gateway traces nothing. Empty for nothing.
    """

    caller: str
    request_id: str
    stream_id: str
    request_key: str
    traceparent: str = ""


CallEnd = Callable[[RunCall, CallResult], object]
"""Called once with the result of a call that was not ended before."""


class RunCalls:
    """The running calls of one run. Belongs to one loop. After use, `close` must be awaited.

    Args:
        toolbox: The tools of the configuration that the run began with.
        offered: The tools that the run offers, by address.
        identity: What its calls have in common.
        records: Where their records are kept.
        ended: Called with each result.
        progressed: Called with each notice of progress.
        guarded: Returns what guards let through of a result. None if none looks.
        pace: The places of all runs in turns of the loop.
    """

    def __init__(
        self,
        toolbox: Toolbox,
        offered: Mapping[str, GatewayTool],
        identity: RunIdentity,
        records: CallRecords,
        ended: CallEnd,
        progressed: Callable[[RunCall, ToolProgress], object],
        guarded: Callable[[CallResult], Awaitable[CallResult]] | None,
        pace: Pace,
    ) -> None:
        self._toolbox = toolbox
        self._offered = offered
        self._identity = identity
        self._records = records
        self._ended = ended
        self._progressed = progressed
        self._guarded = guarded
        self._pace = pace
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by id of the call
        self._dropped: frozenset[asyncio.Task[None]] = _NONE  # those that are ended

    def begin(self, call: RunCall, traceparent: str = "") -> None:
        """Makes a call that the run has begun.

        Args:
            call: The call.
            traceparent: What its tool gets as `traceparent`. Empty: as in `RunIdentity`.
        """
        task = asyncio.get_running_loop().create_task(self._make(call, traceparent))
        self._tasks[call.call_id] = task
        task.add_done_callback(partial(self._forget, call))

    def end(self, call: RunCall) -> None:
        """Ends a call: rule 4; idempotent."""
        task = self._tasks.get(call.call_id)
        if task is not None:
            self._drop(task)

    async def close(self) -> None:
        """Ends all calls, and returns when nothing of them is left."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            self._drop(task)
        if tasks:
            await asyncio.wait(tasks)

    def _drop(self, task: asyncio.Task[None]) -> None:
        self._dropped |= {task}
        task.cancel()

    def _forget(self, call: RunCall, task: asyncio.Task[None]) -> None:
        if self._tasks.get(call.call_id) is task:
            del self._tasks[call.call_id]
        if task in self._dropped:
            self._dropped -= {task}
            if task.cancelled():
                return
        elif task.cancelled():
            self._ended(call, _error("the call was cancelled, and not by its run"))
            return
        problem = task.exception()
        if problem is not None:  # rule 5
            _log.error("tools %r: a call has failed by a bug of the gateway", _address(call), exc_info=problem)
            self._ended(call, _error("the gateway has failed while it made this call"))

    async def _make(self, call: RunCall, traceparent: str) -> None:
        await self._pace.place(self._identity.caller)
        clock = asyncio.get_running_loop().time
        began, is_made = clock(), True
        try:
            result = await self._result(call, traceparent, began)
        except NotStored as problem:
            is_made, result = False, _error(f"the call was not made: {problem}", clock() - began)
        await self._pace.place(self._identity.caller)
        if self._guarded is not None:
            result = await self._guarded(result)
        if is_made:
            await self._store(call, result)
        self._ended(call, result)

    async def _store(self, call: RunCall, result: CallResult) -> None:
        try:
            await self._records.ended(call, result)
        except NotStored as problem:
            _log.warning("tools %r: a result is not stored: %s", _address(call), problem)

    async def _result(self, call: RunCall, traceparent: str, began: float) -> CallResult:
        """Makes a call that began at a time of the loop's: rules 1 and 3.

        Raises:
            NotStored: It is not made.
        """
        tool = self._offered.get(_address(call))
        source = None if tool is None else self._toolbox.source_of(tool.address)
        if tool is None or source is None:
            return _error("the tool is not there any more")
        identity, clock = self._identity, asyncio.get_running_loop().time
        key = call.key or idempotency_key(
            identity.caller, identity.request_key, call.step, call.ordinal, tool.address, call.arguments
        )
        meta = ToolMeta(
            identity.request_id,
            identity.stream_id,
            call.step,
            call.call_id,
            call.attempt,
            key,
            traceparent or identity.traceparent,
        )
        try:
            progressed: OnProgress = partial(self._progressed, call)
            stored = None if tool.idempotent else partial(self._records.started, call, key)
            made = await source.call(
                tool,
                call.arguments,
                meta,
                caller=identity.caller,
                on_progress=progressed,
                before_send=stored,
                is_checked=call.is_checked,
            )
        except ToolServerError as problem:
            return _error(str(problem), clock() - began, "timeout" if problem.fault == "late" else "")
        return _read(made, clock() - began)


def _address(call: RunCall) -> str:
    return "" if call.tool is None else call.tool.address


def _error(text: str, seconds: float = 0.0, fault: Literal["", "timeout"] = "") -> CallResult:
    return CallResult(readable(text), is_error=True, duration_ms=round(seconds / _MS), fault=fault)


def _read(made: ToolResult, seconds: float) -> CallResult:
    duration = round(seconds / _MS)
    if made.is_error:
        text, most = str(made.value), SHARED.tool_problem
        return CallResult(text[:most], is_error=True, is_truncated=len(text) > most, duration_ms=duration)
    parts = tuple(map(_part, made.parts))
    return CallResult(made.value, parts=parts, is_truncated=made.is_truncated, duration_ms=duration)


def _part(part: ResultPart) -> Mapping[str, Any]:
    """Returns a part as requests have it."""
    if part.kind == "text":
        return {"type": "text", "text": part.text}
    return {"type": part.kind, "data": part.text, "media_type": part.media_type}
