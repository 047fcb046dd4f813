"""`[[tool]]` with `python`: a function of the operator's that is a tool, async on the loop or plain in a thread.

1. A plain function is called in one of `max_calls` threads. If its time ends or the call is cancelled, its result is
   dropped; its thread is free once it returns. An awaitable that it returns is awaited on the loop.
2. An async function is cancelled. One that goes on nevertheless is left alone after `limits.tool_function_end`, and its
   result is dropped. As long as `max_calls` of them go on, no further call is made.
3. Whatever a function raises is a result, also what would end the process: the type and the text of the exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from inspect import isawaitable, iscoroutinefunction
from typing import Any

import msgspec

from gai_fast.kernels import encode_json
from gai_fast.model.settings import ToolSettings
from gai_fast.model.tool_functions import ToolMeta
from gai_fast.net.toolbox.function_schema import ToolFunction
from gai_fast.net.toolbox.http_tool import own_tool
from gai_fast.net.toolbox.model_names import model_name
from gai_fast.net.toolbox.tool_source import GatewayTool, SourceList, ToolSource
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.rpc import ToolServerError, readable
from gai_fast.net.tools.tool_results import ToolResult
from gai_fast.net.tools.wire import OnProgress
from gai_fast.runtime.thread_pool import EndingError, NoThreadError, ThreadPool


def settings_of(function: ToolFunction) -> ToolSettings:
    """Returns the settings of a program's own function that is a tool.

    Raises:
        ValueError: It has no name that models can call.
    """
    name: str = function.own_name or getattr(function.function, "__name__", "") or ""
    if model_name("", name) != name or not name:
        raise ValueError(f"{name!r} is no name that models can call: give it one by its decorator")
    return ToolSettings(
        name,
        function.description,
        function.schema,
        approve=function.approve,
        idempotent=function.idempotent,
    )


class FunctionTool(ToolSource):
    """A function that is a tool.

    Args:
        settings: The tool.
        function: Its function.
    """

    def __init__(self, settings: ToolSettings, function: ToolFunction) -> None:
        super().__init__(settings.name, settings.max_calls)
        self._settings = settings
        self._function = function
        called = function.function
        self._is_async = iscoroutinefunction(called) or iscoroutinefunction(getattr(called, "__call__", None))  # noqa: B004  # its kind
        self._threads = ThreadPool(settings.max_calls, "gai-fast-tool")
        self._left: set[asyncio.Task[ToolResult]] = set()  # calls that have ended before their functions: rule 2

    async def list_tools(self) -> SourceList:
        """As `ToolSource.list_tools`: the function itself."""
        return SourceList((own_tool(self._settings),))

    async def close(self) -> None:
        """As `ToolSource.close`; a thread ends once its function returns."""
        self._threads.close()

    async def _called(
        self,
        tool: GatewayTool,
        arguments: Mapping[str, Any],
        meta: ToolMeta,
        on_progress: OnProgress | None,
        caller: str,
    ) -> ToolResult:
        if len(self._left) >= self._settings.max_calls:
            raise ToolServerError(f"{len(self._left)} calls that were ended go on (max_calls)", "wait")
        bound = self._function.bound(arguments, meta)
        task = asyncio.get_running_loop().create_task(self._result(bound))
        try:
            done, _ = await asyncio.wait((task,), timeout=self._settings.timeout)
        finally:
            await self._end(task)
        if done:
            return task.result()
        raise ToolServerError(f"it does not answer within {self._settings.timeout:g} s", "late", may_have_run=True)

    async def _end(self, task: asyncio.Task[ToolResult]) -> None:
        """Cancels what has not ended: rule 2."""
        if task.done():
            return
        self._left.add(task)
        task.add_done_callback(self._forget)
        task.cancel()
        await asyncio.wait((task,), timeout=LIMITS.tool_function_end)

    def _forget(self, task: asyncio.Task[ToolResult]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # nobody waits for it

    async def _result(self, bound: Mapping[str, Any]) -> ToolResult:
        """Calls the function: rules 1 and 3."""
        try:
            return self._read(await self._returned(bound))
        except asyncio.CancelledError as problem:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return _raised(problem)  # of something else that the function has waited for
        except NoThreadError as problem:
            raise ToolServerError(str(problem), "unreachable") from None
        except ToolServerError:
            raise
        except BaseException as problem:  # noqa: BLE001  # rule 3
            return _raised(problem)

    async def _returned(self, bound: Mapping[str, Any]) -> Any:
        function = self._function.function
        returned = function(**bound) if self._is_async else await self._threads.call(lambda: function(**bound))
        return await returned if isawaitable(returned) else returned

    def _read(self, returned: Any) -> ToolResult:
        """Returns the result: a text as it is, everything else as JSON."""
        most = self._settings.max_result
        if isinstance(returned, str):
            written = returned.encode("utf-8", "replace")
            returned = written.decode()  # a lone surrogate is in no request
        else:
            try:
                written = encode_json(msgspec.to_builtins(returned, str_keys=True))
                returned = msgspec.json.decode(written)
            except (TypeError, ValueError, RecursionError) as problem:
                text = f"it returns what is not JSON: {readable(str(problem))}"
                raise ToolServerError(text, "form", may_have_run=True) from None
        if len(written) <= most:
            return ToolResult(returned)
        return ToolResult(written[:most].decode("utf-8", "ignore"), is_truncated=True)


def _raised(problem: BaseException) -> ToolResult:
    """Returns the result of a function that has raised: no traceback."""
    inner = problem.__cause__ or problem if isinstance(problem, EndingError) else problem
    return ToolResult(readable(f"{type(inner).__name__}: {inner}".rstrip(": ")), is_error=True)
