"""Where tools come from: what a run needs of a server of tools, of a web hook and of a function.

Owns what holds for every call: its checks, how many run at a time, the breaker. It must not know how a tool is called.

1. Arguments are checked before a call is made (`argument_check.py`).
2. A source has at most `max_calls` calls at a time; callers take turns, and half of those that wait are of one caller.
3. The breaker is that of an upstream. Refusals by a status of 4xx concern a call alone.
4. A status is an answer: a result that is an error.
5. A pause that a source asks for (`tools/pause.py`) holds for all callers, until a call of another one than that which
   has brought it about succeeds.
6. A process that ends under the calls of several callers concerns the breaker for its cause alone (`tools/crashes.py`).
   What others have lost with it is called again, once, if it is idempotent or was not sent.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec import UNSET, Raw

from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.request import SharedTools, Tool
from gai_fast.model.settings import ANONYMOUS, BreakerSettings
from gai_fast.model.tool_functions import ToolMeta
from gai_fast.model.upstream_errors import classify
from gai_fast.net.attempts.retry import Breaker, is_fault_of_upstream
from gai_fast.net.toolbox.argument_check import ArgumentCheck
from gai_fast.net.tools.crashes import Crashes
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.pause import PAUSES
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.net.tools.tool_list import OfferedTool
from gai_fast.net.tools.tool_results import ToolResult
from gai_fast.net.tools.wire import OnProgress
from gai_fast.runtime.places import NoPlace, Places

BeforeSend = Callable[[], Awaitable[None]]
"""What must have happened before a call is made."""


@dataclass(frozen=True, slots=True)
class GatewayTool:
    """A tool that the gateway can call.

    Attributes:
        server: The label of its server; empty for one of the gateway's own.
        offered: The tool as it is offered there.
        approve: Whether its calls wait for a person.
        idempotent: Whether it may be called again after a fault.
    """

    server: str
    offered: OfferedTool
    approve: bool
    idempotent: bool

    @property
    def name(self) -> str:
        """Its name there."""
        return self.offered.name

    @property
    def address(self) -> str:
        """Its name in configurations and requests: `docs.search`, or `weather` of the gateway's own."""
        return f"{self.server}.{self.name}" if self.server else self.name


@dataclass(frozen=True, slots=True)
class SourceList:
    """The tools of one source.

    Attributes:
        tools: Those that can be called, in the source's order.
        left_out: The others: each name for people, and the reason.
        ttl: Seconds for which the list holds. None if it holds for ever.
        digest: Of what the source has sent: a list with the same one is the same. Empty if that is not known.
    """

    tools: tuple[GatewayTool, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    ttl: float | None = None
    digest: bytes = b""


class ToolSource(ABC):
    """A source of tools. Belongs to one loop. After use, `close` must be awaited.

    Args:
        name: The label of a server, or the name of a tool of the gateway's own.
        max_calls: Calls at a time.

    Attributes:
        is_process: Whether a process of ours makes its calls: rule 6.
    """

    is_process = False

    def __init__(self, name: str, max_calls: int) -> None:
        self.name = name
        self._places = Places(max_calls, LIMITS.tool_waiting)
        self._checks = ArgumentCheck()
        self._breaker = Breaker(BreakerSettings())
        self._crashes = Crashes()
        self._paused_by: str | None = None  # the caller of the last call after which it may have asked for a pause

    @abstractmethod
    async def list_tools(self) -> SourceList:
        """Returns the tools.

        Raises:
            ToolServerError: There is no list.
        """

    async def call(
        self,
        tool: GatewayTool,
        arguments: Any,
        meta: ToolMeta,
        *,
        caller: str = ANONYMOUS,
        on_progress: OnProgress | None = None,
        before_send: BeforeSend | None = None,
        is_checked: bool = False,
    ) -> ToolResult:
        """Calls a tool. If this is cancelled, the call is: a server hears of it, a function is cancelled.

        Args:
            tool: A tool of this source.
            arguments: Its arguments, as JSON.
            meta: The call.
            caller: The name of the run's caller.
            on_progress: Called for each notice of progress. None if there is nothing to call.
            before_send: Awaited once nothing but the call itself is left to do. What it raises is raised, and the call
                is not made.
            is_checked: Whether the arguments are known to be usable, as far as the run itself checks them.

        Raises:
            ToolServerError: There is no result.
        """
        checked = self._checks.checked(tool.name, tool.offered.schema, arguments, is_known=is_checked)
        try:
            await self._places.take(caller)
        except NoPlace:
            text = f"{LIMITS.tool_waiting} calls wait for it, or half as many of this caller (limit tool_waiting)"
            raise ToolServerError(text, "wait") from None
        try:
            return await self._judged(tool, checked, meta, caller, on_progress, before_send)
        finally:
            self._places.give_back()

    @abstractmethod
    async def close(self) -> None:
        """Ends running calls, and everything that the source has opened."""

    @abstractmethod
    async def _called(
        self,
        tool: GatewayTool,
        arguments: Mapping[str, Any],
        meta: ToolMeta,
        on_progress: OnProgress | None,
        caller: str,
    ) -> ToolResult:
        """Calls a tool, as `call`, without its bounds."""

    def _end_pause(self) -> None:  # noqa: B027  # as above
        """Ends the pause that the source has asked for."""

    def _check_pause(self) -> None:  # noqa: B027  # most sources have none
        """Checks whether the source may be called now.

        Raises:
            ToolServerError: `wait`: it has asked for a pause.
        """

    async def _judged(
        self,
        tool: GatewayTool,
        arguments: Mapping[str, Any],
        meta: ToolMeta,
        caller: str,
        on_progress: OnProgress | None,
        before_send: BeforeSend | None,
    ) -> ToolResult:
        """Calls a tool if the breaker lets it, and counts the outcome: rules 3 and 4."""
        clock, call = asyncio.get_running_loop().time, object()
        if not self._breaker.admits(clock(), call, caller):
            raise ToolServerError("it has failed too often: its breaker is open", "wait")
        try:
            self._check_pause()
            if before_send is not None:
                await before_send()
            called = self._apart if self.is_process else self._called
            result = await called(tool, arguments, meta, on_progress, caller)
            self._breaker.succeeded()
            if self._paused_by not in (None, caller):
                self._paused_by = None
                self._end_pause()
        except ToolServerError as problem:
            if problem.status in PAUSES:
                self._paused_by = caller
            if problem.crash is not None and not self._crashes.is_cause(problem.crash, caller):
                raise  # rule 6
            if _is_fault_of_server(problem):
                self._breaker.failed(clock(), call, caller)
            elif problem.fault not in _NOT_ASKED:
                self._breaker.succeeded()
            if problem.fault == "status" and problem.status is not None:
                return ToolResult(str(problem), is_error=True)
            raise
        finally:
            self._breaker.abandoned(call)  # means nothing once the outcome was counted
        return result

    async def _apart(
        self,
        tool: GatewayTool,
        arguments: Mapping[str, Any],
        meta: ToolMeta,
        on_progress: OnProgress | None,
        caller: str,
    ) -> ToolResult:
        """Calls a tool, once more if another caller's call has taken it along: rule 6."""
        for is_last in (False, True):
            has_turn = await self._crashes.take_turn(caller)
            try:
                result = await self._called(tool, arguments, meta, on_progress, caller)
                break
            except ToolServerError as problem:
                if problem.crash is None:
                    raise
                is_safe = tool.idempotent or not problem.may_have_run
                if self._crashes.is_cause(problem.crash, caller) or is_last or not is_safe:
                    raise
            finally:
                if has_turn:
                    self._crashes.give_turn_back()
        self._crashes.survived(caller)
        return result


_NOT_ASKED: Final = frozenset({"wait", "argument"})
_OF_SERVERS: Final = frozenset({"unreachable", "lost", "late", "form", "session"})


def _is_fault_of_server(problem: ToolServerError) -> bool:
    if problem.status is not None:
        return is_fault_of_upstream(Error(classify("", (), problem.status)))
    return problem.fault in _OF_SERVERS


def native_tools(offered: Mapping[str, GatewayTool]) -> SharedTools:
    """Returns the tools of runs that offer the same.

    Args:
        offered: What they offer, by the names that models see.
    """
    return SharedTools([_tool(name, each.offered) for name, each in offered.items()])


def _tool(name: str, offered: OfferedTool) -> Tool:
    parameters = Raw(encode_json({"type": "object", **(offered.sent or offered.schema)}))
    return Tool(name=name, description=offered.description or UNSET, parameters=parameters)
