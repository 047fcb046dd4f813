"""`gai_fast/net/toolbox/tool_source.py`: what holds for every call, whatever the tool is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from gai_fast.model.settings import BreakerSettings
from gai_fast.model.tool_functions import ToolMeta
from gai_fast.net.toolbox.tool_source import GatewayTool, SourceList, ToolSource
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.net.tools.tool_list import OfferedTool
from gai_fast.net.tools.tool_results import ToolResult
from gai_fast.net.tools.wire import OnProgress
from tests.conftest import ChangeLimits
from tests.steady import JumpingLoop

TOOL = GatewayTool("docs", OfferedTool("search", "", {"type": "object"}, 17), approve=False, idempotent=False)
META = ToolMeta()


class Scripted(ToolSource):
    """A source whose calls do what a test says."""

    def __init__(self, answer: Callable[[], Awaitable[ToolResult]], max_calls: int = 2) -> None:
        super().__init__("docs", max_calls)
        self.answer = answer
        self.calls = 0

    async def list_tools(self) -> SourceList:
        return SourceList((TOOL,))

    async def close(self) -> None: ...

    async def _called(
        self,
        tool: GatewayTool,
        arguments: Mapping[str, Any],
        meta: ToolMeta,
        on_progress: OnProgress | None,
        caller: str,
    ) -> ToolResult:
        self.calls += 1
        return await self.answer()


class Paused(Scripted):
    """One that has asked for a pause."""

    ended = 0

    def _end_pause(self) -> None:
        self.ended += 1


def run(scenario: Awaitable[None]) -> None:
    async def main() -> None:
        await scenario

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


def fails(fault: Any, **more: Any) -> Callable[[], Awaitable[ToolResult]]:
    async def answer() -> ToolResult:
        raise ToolServerError("no", fault, **more)

    return answer


@pytest.mark.parametrize(("other", "ends"), [("bob", 1), ("alice", 0)])
def test_a_pause_ends_once_the_call_of_another_caller_succeeds(other: str, ends: int) -> None:
    async def scenario() -> None:
        gate = asyncio.Event()

        async def answer() -> ToolResult:
            if source.calls == 2:
                raise ToolServerError("no", "status", status=429)
            await gate.wait()
            return ToolResult("ok")

        source = Paused(answer)
        running = asyncio.ensure_future(source.call(TOOL, {}, META, caller=other))
        await asyncio.sleep(0)
        assert (await source.call(TOOL, {}, META, caller="alice")).is_error
        gate.set()
        await running
        assert source.ended == ends

    run(scenario())


def test_a_caller_whose_calls_hang_leaves_others_their_turn_and_half_of_the_room(change_limits: ChangeLimits) -> None:
    change_limits(tool_waiting=8)

    async def scenario() -> None:
        served, gates = [], [asyncio.Event() for _ in range(8)]

        async def answer() -> ToolResult:
            await gates[source.calls - 1].wait()
            return ToolResult("ok")

        async def call(caller: str) -> None:
            await source.call(TOOL, {}, META, caller=caller)
            served.append(caller)

        source = Scripted(answer, max_calls=1)
        many = [asyncio.ensure_future(call("hostile")) for _ in range(5)]  # one runs
        await asyncio.sleep(0)
        with pytest.raises(ToolServerError, match="half as many of this caller"):
            await source.call(TOOL, {}, META, caller="hostile")
        other = asyncio.ensure_future(call("other"))
        await asyncio.sleep(0)
        for gate in gates[:3]:
            gate.set()
            await asyncio.sleep(0.02)
        assert served == ["hostile", "hostile", "other"]
        for each in (*many, other):
            each.cancel()

    run(scenario())


def test_further_calls_wait_and_no_more_than_the_limit(change_limits: ChangeLimits) -> None:
    change_limits(tool_waiting=1)

    async def scenario() -> None:
        gate = asyncio.Event()

        async def answer() -> ToolResult:
            await gate.wait()
            return ToolResult("ok")

        source = Scripted(answer)
        calls = [asyncio.ensure_future(source.call(TOOL, {}, META)) for _ in range(3)]
        await asyncio.sleep(0)
        assert source.calls == 2
        with pytest.raises(ToolServerError, match=r"1 calls wait for it, .* \(limit tool_waiting\)") as raised:
            await source.call(TOOL, {}, META)
        assert raised.value.fault == "wait"
        calls[0].cancel()
        await asyncio.sleep(0.02)
        assert source.calls == 3
        gate.set()
        assert await asyncio.gather(*calls[1:]) == [ToolResult("ok")] * 2

    run(scenario())


@pytest.mark.parametrize("fault", ["unreachable", "lost", "late", "form"])
def test_a_server_that_fails_often_is_left_alone_and_then_probed(fault: str) -> None:
    async def scenario() -> None:
        source = Scripted(fails(fault))
        for number in range(BreakerSettings().failures):
            with pytest.raises(ToolServerError, match="no"):
                await source.call(TOOL, {}, META, caller=f"caller{number % 2}")
        with pytest.raises(ToolServerError, match="its breaker is open") as raised:
            await source.call(TOOL, {}, META)
        assert (raised.value.fault, source.calls) == ("wait", 5)
        await asyncio.sleep(BreakerSettings().open + 0.1)

        async def answer() -> ToolResult:
            return ToolResult("back")

        source.answer = answer
        assert await source.call(TOOL, {}, META) == ToolResult("back")
        assert await source.call(TOOL, {}, META) == ToolResult("back")

    run(scenario())


@pytest.mark.parametrize("answer", [fails("refused"), fails("answer"), fails("wait"), fails("status", status=404)])
def test_what_concerns_a_call_alone_leaves_the_breaker_closed(answer: Callable[[], Awaitable[ToolResult]]) -> None:
    async def scenario() -> None:
        source = Scripted(answer)
        for number in range(10):
            with suppress(ToolServerError):
                await source.call(TOOL, {}, META, caller=f"caller{number % 2}")
        assert source.calls == 10

    run(scenario())


def test_arguments_are_checked_before_a_place_is_taken() -> None:
    async def scenario() -> None:
        source = Scripted(fails("lost"))
        with pytest.raises(ToolServerError, match="the arguments are no JSON object"):
            await source.call(TOOL, [], META)
        assert source.calls == 0

    run(scenario())


def test_a_status_is_a_result_that_is_an_error() -> None:
    async def scenario() -> None:
        source = Scripted(fails("status", status=503, may_have_run=True))
        assert await source.call(TOOL, {}, META) == ToolResult("no", is_error=True)

    run(scenario())


def test_a_tool_has_an_address() -> None:
    assert TOOL.address == "docs.search"
    own = GatewayTool("", TOOL.offered, approve=False, idempotent=False)
    assert own.address == own.name == "search"
