"""`gai_fast/net/tools/wire.py`: notices of progress, and the time that they renew."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gai_fast.net.tools.rpc import Notice, ToolServerError
from gai_fast.net.tools.wire import ToolProgress, ToolRequest, within
from tests.limits import LIMITS
from tests.steady import SteadyLoop


def progress(**params: Any) -> Notice:
    return Notice("notifications/progress", {"progressToken": 1, **params})


def request_of(found: list[ToolProgress]) -> ToolRequest:
    return ToolRequest(1, "tools/call", {}, is_repeatable=False, on_progress=found.append)


def test_only_progress_of_the_request_counts() -> None:
    found: list[ToolProgress] = []
    request = request_of(found)
    for notice in (
        progress(progress=1, total=2, message="half"),
        progress(progress=1.5, total="x", message=1),
        progress(progress="1"),
        progress(progress=True),
        progress(progress=2, progressToken=2),
        Notice("notifications/message", {"progressToken": 1, "progress": 3}),
        progress(progress=3, message="x" * 9999),
        progress(progress=10**400),
        progress(progress=4, total=-(10**400), message="with sk-canary\n"),
    ):
        request.noticed(notice, {b"sk-canary"})
    assert found[:2] == [ToolProgress(1, 2, "half"), ToolProgress(1.5, None, "")]
    assert (found[2].progress, len(found[2].text)) == (3, LIMITS.tool_problem)
    assert found[3:] == [ToolProgress(4, None, "with ***")]


def test_of_a_flood_of_progress_a_thousand_notices_count() -> None:
    found: list[ToolProgress] = []
    request = request_of(found)
    for number in range(100_000):
        request.noticed(progress(progress=number), ())
    assert [each.progress for each in found] == [*range(LIMITS.tool_progress)]


def test_progress_renews_the_time_and_silence_ends_it() -> None:
    request = request_of([])

    async def answer() -> str:
        for number in range(4):
            await asyncio.sleep(0.08)
            request.noticed(progress(progress=number), ())
        return "done"

    async def silence() -> str:
        request.was_sent = True
        await asyncio.Event().wait()
        return "never"

    async def main() -> None:
        assert await within(0.1, request, answer) == "done"
        with pytest.raises(ToolServerError, match=r"it does not answer within 0.1 s") as raised:
            await within(0.1, request, silence)
        assert (raised.value.fault, raised.value.may_have_run) == ("late", True)
        request.noticed(progress(progress=9), ())  # nothing waits any more

    with asyncio.Runner(loop_factory=SteadyLoop) as runner:
        runner.run(main())
