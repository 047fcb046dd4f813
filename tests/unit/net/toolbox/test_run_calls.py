"""`gai_fast/net/toolbox/run_calls.py`: each call has one result, and is made once its record is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from gai_fast.core.call_key import idempotency_key
from gai_fast.core.run import BeginCall, BeginTurn, CallResult, EndCall, RunCall, RunLimits, RunTool, ToolRun
from gai_fast.model.settings import Settings
from gai_fast.model.tool_functions import ToolMeta
from gai_fast.net.toolbox.run_calls import NotStored, RunCalls, RunIdentity
from gai_fast.net.toolbox.tool_source import GatewayTool, SourceList, ToolSource
from gai_fast.net.toolbox.toolbox import Toolbox
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.net.tools.tool_list import OfferedTool
from gai_fast.net.tools.tool_results import ResultPart, ToolResult
from gai_fast.net.tools.wire import OnProgress, ToolProgress
from gai_fast.runtime.pace import Pace
from gai_fast.runtime.places import Places
from gai_fast.runtime.timers import TimerWheel
from tests.limits import LIMITS

IDENTITY = RunIdentity("alice", "request-1", "stream-1", "key-1")
Answer = Callable[[str, dict[str, Any], OnProgress | None], Awaitable[ToolResult]]


class Records:
    """Records that are noted, or refused."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.refuses: set[str] = set()

    async def started(self, call: RunCall, key: str) -> None:
        await self._note(f"started {call.call_id} {key[:4]}")

    async def ended(self, call: RunCall, result: CallResult) -> None:
        await self._note(f"ended {call.call_id}")

    async def _note(self, text: str) -> None:
        await asyncio.sleep(0)
        if text.partition(" ")[0] in self.refuses:
            raise NotStored("the store is out of reach")
        self.log.append(text)


class Source(ToolSource):
    """A server whose tools answer as a test says."""

    def __init__(self, answer: Answer, log: list[str]) -> None:
        super().__init__("docs", 16)
        self.answer = answer
        self.log = log
        self.metas: list[ToolMeta] = []

    async def list_tools(self) -> SourceList:
        return SourceList(())

    async def close(self) -> None: ...

    async def _called(
        self, tool: GatewayTool, arguments: Any, meta: ToolMeta, on_progress: OnProgress | None, caller: str
    ) -> ToolResult:
        self.log.append(f"called {meta.call_id}")
        self.metas.append(meta)
        return await self.answer(tool.name, arguments, on_progress)


def gateway_tool(name: str, *, idempotent: bool) -> GatewayTool:
    return GatewayTool("docs", OfferedTool(name, "", {"type": "object"}, 17), approve=False, idempotent=idempotent)


class Place:
    """The calls of one run, and what becomes of them."""

    def __init__(self, answer: Answer) -> None:
        self.log: list[str] = []
        self.results: dict[str, CallResult] = {}
        self.progress: list[tuple[str, ToolProgress]] = []
        self.records = Records(self.log)
        self.source = Source(answer, self.log)
        loop = asyncio.get_running_loop()
        box = Toolbox(Settings(), TimerWheel(loop), loop)
        box.servers = {"docs": self.source}  # type: ignore[dict-item]  # a fake server
        offered = {f"docs.{name}": gateway_tool(name, idempotent=name == "read") for name in ("read", "write")}
        self.calls = RunCalls(box, offered, IDENTITY, self.records, self.ended, self.progressed, None, Pace(loop, 4))

    def ended(self, call: RunCall, result: CallResult) -> None:
        self.results[call.call_id] = replace(result, duration_ms=0)
        self.log.append(f"result {call.call_id}")

    def progressed(self, call: RunCall, progress: ToolProgress) -> None:
        self.progress.append((call.call_id, progress))

    async def until_ended(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.results) < count:  # noqa: ASYNC110  # results come by a callback
                await asyncio.sleep(0.001)


def call_of(call_id: str, name: str, **arguments: Any) -> RunCall:
    return RunCall(
        call_id, f"docs__{name}", arguments, 2, 1, RunTool(f"docs.{name}", idempotent=name == "read"), attempt=1
    )


async def ok(name: str, arguments: dict[str, Any], on_progress: OnProgress | None) -> ToolResult:
    await asyncio.sleep(0)
    return ToolResult({"name": name})


def test_a_call_that_is_not_idempotent_is_recorded_before_it_is_made() -> None:
    async def main() -> None:
        place = Place(ok)
        place.calls.begin(call_of("a", "write", q=1), "00-1-2-01")
        await place.until_ended(1)
        key = idempotency_key("alice", "key-1", 2, 1, "docs.write", {"q": 1})
        assert place.log == [f"started a {key[:4]}", "called a", "ended a", "result a"]
        assert place.source.metas == [ToolMeta("request-1", "stream-1", 2, "a", 1, key, "00-1-2-01")]
        assert place.results == {"a": CallResult({"name": "write"})}
        place.calls.begin(call_of("b", "read"))
        await place.until_ended(2)
        assert place.log[4:] == ["called b", "ended b", "result b"]
        await place.calls.close()

    asyncio.run(main())


def test_without_its_record_a_call_is_not_made() -> None:
    async def main() -> None:
        place = Place(ok)
        place.records.refuses = {"started"}
        place.calls.begin(call_of("a", "write"))
        await place.until_ended(1)
        text = "the call was not made: the store is out of reach"
        assert (place.results, place.log) == (
            {"a": CallResult(text, is_error=True)},
            ["result a"],
        ), "nor has it a result that another worker could find"

    asyncio.run(main())


def test_a_call_that_is_not_sent_has_no_record() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def waits(name: str, arguments: dict[str, Any], on_progress: OnProgress | None) -> ToolResult:
            await go_on.wait()
            return ToolResult("done")

        place = Place(waits)
        place.source._places = Places(1, 9)
        place.calls.begin(call_of("a", "write"))
        place.calls.begin(call_of("b", "write"))
        place.calls.begin(replace(call_of("c", "write"), arguments=[]))
        await place.until_ended(1)
        assert [line[:9] for line in place.log if line.startswith("started")] == ["started a"]
        go_on.set()
        await place.until_ended(3)
        assert [line[:9] for line in place.log if line.startswith("started")] == ["started a", "started b"]

    asyncio.run(main())


def test_a_call_whose_task_something_else_cancels_has_a_result() -> None:
    async def cancelled(name: str, arguments: dict[str, Any], on_progress: OnProgress | None) -> ToolResult:
        raise asyncio.CancelledError

    async def main() -> None:
        place = Place(cancelled)
        place.calls.begin(call_of("a", "read"))
        await place.until_ended(1)
        assert place.results["a"] == CallResult("the call was cancelled, and not by its run", is_error=True)
        await place.calls.close()

    asyncio.run(main())


def test_a_result_that_cannot_be_stored_is_the_run_s_nevertheless(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        place = Place(ok)
        place.records.refuses = {"ended"}
        place.calls.begin(call_of("a", "read"))
        await place.until_ended(1)
        assert not place.results["a"].is_error

    asyncio.run(main())
    assert "tools 'docs.read': a result is not stored: the store is out of reach" in caplog.text


def test_every_failure_is_a_short_text() -> None:
    async def fails(name: str, arguments: dict[str, Any], on_progress: OnProgress | None) -> ToolResult:
        if arguments["q"] == "long":
            return ToolResult("x" * 9999, is_error=True)
        raise ToolServerError("it does not answer\nwithin 30 s " + "y" * 9999, "late", may_have_run=True)

    async def main() -> None:
        place = Place(fails)
        place.calls.begin(call_of("a", "read", q="long"))
        place.calls.begin(call_of("b", "read", q="late"))
        place.calls.begin(replace(call_of("c", "read"), tool=RunTool("docs.gone")))
        place.calls.begin(replace(call_of("d", "read"), arguments=[]))
        await place.until_ended(4)
        assert all(result.is_error for result in place.results.values())
        assert place.results["a"] == CallResult("x" * LIMITS.tool_problem, is_error=True, is_truncated=True)
        assert place.results["b"].value.startswith("it does not answer within 30 s yyy")
        assert len(place.results["b"].value) == LIMITS.tool_problem
        assert place.results["c"].value == "the tool is not there any more"
        assert place.results["d"].value == "the arguments are no JSON object"

    asyncio.run(main())


def test_progress_and_parts_are_passed_on() -> None:
    async def draws(name: str, arguments: dict[str, Any], on_progress: OnProgress | None) -> ToolResult:
        assert on_progress is not None
        on_progress(ToolProgress(1, 2, "half"))
        parts = (ResultPart("text", "t"), ResultPart("image", "AAAA", "image/png"))
        return ToolResult("t", parts, is_truncated=True)

    async def main() -> None:
        place = Place(draws)
        place.calls.begin(call_of("a", "read"))
        await place.until_ended(1)
        assert place.progress == [("a", ToolProgress(1, 2, "half"))]
        parts = ({"type": "text", "text": "t"}, {"type": "image", "data": "AAAA", "media_type": "image/png"})
        assert place.results["a"] == CallResult("t", parts=parts, is_truncated=True)

    asyncio.run(main())


def test_a_call_that_is_ended_is_cancelled_and_has_no_result() -> None:
    async def main() -> None:
        cancelled: list[str] = []

        async def hangs(name: str, arguments: dict[str, Any], on_progress: OnProgress | None) -> ToolResult:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(name)
            return ToolResult("never")

        place = Place(hangs)
        calls = [call_of(name, "read") for name in "ab"]
        for call in calls:
            place.calls.begin(call)
        await asyncio.sleep(0.01)
        place.calls.end(calls[0])
        place.calls.end(calls[0])
        await asyncio.sleep(0.01)
        assert cancelled == ["read"]
        await place.calls.close()
        assert (cancelled, place.results) == (["read", "read"], {})
        place.calls.end(calls[1])

    asyncio.run(main())


def test_a_bug_is_logged_and_is_the_result(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(name: str, arguments: dict[str, Any], on_progress: OnProgress | None) -> ToolResult:
        raise KeyError("sk-canary")

    async def main() -> None:
        place = Place(broken)
        place.calls.begin(call_of("a", "read"))
        await place.until_ended(1)
        assert place.results["a"] == CallResult("the gateway has failed while it made this call", is_error=True)

    asyncio.run(main())
    assert "tools 'docs.read': a call has failed by a bug of the gateway" in caplog.text


def test_a_run_and_its_calls_come_to_the_next_turn() -> None:
    async def main() -> None:
        place = Place(ok)
        tools = {f"docs__{name}": RunTool(f"docs.{name}", idempotent=name == "read") for name in ("read", "write")}
        run = ToolRun(tools, (), RunLimits(parallel_tools=2), "stream-1")
        turns: list[BeginTurn] = []

        def do(actions: list[Any]) -> None:
            for each in actions:
                if isinstance(each, BeginCall):
                    place.calls.begin(each.call)
                elif isinstance(each, EndCall):
                    place.calls.end(each.call)
                elif isinstance(each, BeginTurn):
                    turns.append(each)

        place.calls._ended = lambda call, result: do(run.end_call(call, result))
        for number in range(5):
            do(run.note_call(f"c{number}", ("docs__read", "docs__write")[number % 2], {"n": number}))
        do(run.end_turn("tool_calls"))
        async with asyncio.timeout(5):
            while not turns:  # noqa: ASYNC110  # results come by a callback
                await asyncio.sleep(0.001)
        assert turns == [BeginTurn(2, without_tools=False)]
        assert sorted(line for line in place.log if line.startswith("called")) == [f"called c{n}" for n in range(5)]

    asyncio.run(main())
