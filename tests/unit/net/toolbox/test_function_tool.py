"""`gai_fast/net/toolbox/function_tool.py`: whatever a function does, its call has one outcome and harms no other."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from gai_fast.model.settings import ToolSettings
from gai_fast.model.tool_functions import ToolMeta
from gai_fast.net.toolbox.function_schema import read_function
from gai_fast.net.toolbox.function_tool import FunctionTool
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.net.tools.tool_results import ToolResult


@dataclass
class Point:
    x: int
    y: int


def source_of(function: Callable[..., Any], **settings: Any) -> FunctionTool:
    return FunctionTool(ToolSettings("own", parameters={"type": "object"}, **settings), read_function(function))


async def called(source: FunctionTool, **arguments: Any) -> ToolResult:
    [tool] = (await source.list_tools()).tools
    return await source.call(tool, arguments, ToolMeta(call_id="c"))


def run(scenario: Awaitable[None]) -> None:
    async def main() -> None:
        await scenario

    asyncio.run(main())


async def on_loop(a: int) -> int:
    await asyncio.sleep(0)
    return a + 1


def in_thread(a: int) -> int:
    assert threading.current_thread() is not threading.main_thread()
    return a + 1


def awaitable(a: int) -> Awaitable[int]:
    return on_loop(a)


@pytest.mark.parametrize("function", [on_loop, in_thread, awaitable])
def test_a_function_of_each_kind_is_called(function: Callable[..., Any]) -> None:
    async def scenario() -> None:
        source = source_of(function)
        assert await called(source, a=1) == ToolResult(2)
        await source.close()

    run(scenario())


@pytest.mark.parametrize(
    ("returned", "result"),
    [
        ("text", ToolResult("text")),
        ("a\ud800b", ToolResult("a?b")),
        ({"a\ud800": "\udfff"}, ToolResult({"a\ufffd": "\ufffd"})),
        (None, ToolResult(None)),
        ({"a": (1, 2)}, ToolResult({"a": [1, 2]})),
        (Point(1, 2), ToolResult({"x": 1, "y": 2})),
        ("äöü" * 9, ToolResult("äöüäöüäö", is_truncated=True)),
        ([100] * 9, ToolResult("[100,100,100,100,", is_truncated=True)),
    ],
)
def test_what_it_returns_is_the_result(returned: Any, result: ToolResult) -> None:
    async def scenario() -> None:
        assert await called(source_of(lambda: returned, max_result=17)) == result

    run(scenario())


def no_json() -> object:
    return object()


def test_what_is_not_json_is_a_failure() -> None:
    async def scenario() -> None:
        with pytest.raises(ToolServerError, match="it returns what is not JSON"):
            await called(source_of(no_json))

    run(scenario())


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("no\x1b good"),
        SystemExit(3),
        KeyboardInterrupt(),
        StopIteration(),
        TimeoutError("own"),
        asyncio.CancelledError(),
        GeneratorExit(),
    ],
)
@pytest.mark.parametrize("is_async", [True, False])
def test_what_it_raises_is_a_result_without_a_traceback(raised: BaseException, is_async: bool) -> None:
    async def asynchronous() -> None:
        raise raised

    def plain() -> None:
        raise raised

    async def scenario() -> None:
        result = await called(source_of(asynchronous if is_async else plain))
        assert result.is_error
        assert "Traceback" not in result.value
        expected = " ".join(f"{type(raised).__name__}: {raised}".rstrip(": ").replace("\x1b", " ").split())
        if is_async and isinstance(raised, StopIteration):  # Python's own rule for coroutines
            expected = "RuntimeError: coroutine raised StopIteration"
        assert result.value == expected

    run(scenario())


def test_one_that_is_late_is_cancelled() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def scenario() -> None:
        with pytest.raises(ToolServerError, match=r"it does not answer within 0.01 s") as raised:
            await called(source_of(slow, timeout=0.01))
        assert (raised.value.fault, raised.value.may_have_run, ended) == ("late", True, ["cancelled"])

    run(scenario())


def test_what_it_waits_for_may_be_cancelled() -> None:
    async def waits() -> None:
        inner = asyncio.ensure_future(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner

    async def scenario() -> None:
        assert await called(source_of(waits)) == ToolResult("CancelledError", is_error=True)

    run(scenario())


def test_one_that_goes_on_nevertheless_is_left_alone() -> None:
    go_on = asyncio.Event()

    async def stubborn() -> str:
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await go_on.wait()
        return "too late"

    async def scenario() -> None:
        source = source_of(stubborn, timeout=0.01, max_calls=2)
        with pytest.raises(ToolServerError, match=r"it does not answer within 0.01 s"):
            await called(source)
        call = asyncio.ensure_future(called(source))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(ToolServerError, match=r"2 calls that were ended go on \(max_calls\)"):
            await called(source)
        go_on.set()
        await asyncio.sleep(0.01)
        assert await called(source) == ToolResult("too late")

    run(scenario())


def test_keys_of_a_dictionary_are_read_as_their_types() -> None:
    async def names(a: dict[int, str]) -> list[int]:
        return [*a]

    async def scenario() -> None:
        assert await called(source_of(names), a={"1": "b"}) == ToolResult([1])

    run(scenario())


def test_the_result_of_a_thread_whose_call_was_cancelled_is_dropped() -> None:
    go_on = threading.Event()

    def slow() -> str:
        go_on.wait()
        return "too late"

    async def scenario() -> None:
        source = source_of(slow, max_calls=1)
        call = asyncio.ensure_future(called(source))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        go_on.set()
        assert await called(source) == ToolResult("too late")
        await source.close()

    run(scenario())


def test_a_call_can_ask_which_one_it_is() -> None:
    def asks(meta: ToolMeta) -> str:
        return meta.call_id

    async def scenario() -> None:
        assert await called(source_of(asks)) == ToolResult("c")

    run(scenario())


def test_arguments_are_checked_by_the_signature() -> None:
    async def scenario() -> None:
        with pytest.raises(ToolServerError, match="the arguments do not fit: Expected `int`, got `str`"):
            await called(source_of(on_loop), a="1")

    run(scenario())
    assert sys.exc_info() == (None, None, None)
