"""`gai_fast/net/toolbox/known_list.py`: what runs are offered while a server is slow, dead, or changes its list."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gai_fast.net.toolbox.known_list import KnownList
from gai_fast.net.toolbox.tool_source import SourceList
from gai_fast.net.tools.rpc import ToolServerError
from tests.limits import LIMITS
from tests.steady import JumpingLoop
from tests.unit.net.toolbox.test_tool_source import TOOL, Scripted, fails

ONE = SourceList((TOOL,), ttl=5.0)
TWO = SourceList((TOOL, TOOL), ttl=5.0)


class Listing(Scripted):
    """A source whose lists come from a script: a list, a failure, or seconds until it has one."""

    def __init__(self, *script: SourceList | BaseException | float) -> None:
        super().__init__(fails("answer"))
        self.script = [*script]
        self.read = 0

    async def list_tools(self) -> SourceList:
        self.read += 1
        while isinstance(step := self.script.pop(0), float):  # noqa: ASYNC110  # a script of pauses
            await asyncio.sleep(step)
        if isinstance(step, BaseException):
            raise step
        return step


def on_loop(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


def test_a_list_is_read_once_while_it_holds_and_then_anew() -> None:
    async def scenario() -> None:
        source = Listing(ONE, TWO)
        known = KnownList(source, 5.0)
        assert source.read == 0, "nothing is asked before the first run"
        assert await asyncio.gather(known.current(), known.current()) == [ONE, ONE]
        await asyncio.sleep(4.0)
        assert (await known.current(), source.read) == (ONE, 1)
        await asyncio.sleep(1.5)
        assert (await known.current(), source.read) == (TWO, 2)

    on_loop(scenario)


def test_a_list_without_an_end_is_read_once() -> None:
    async def scenario() -> None:
        source = Listing(SourceList((TOOL,)))
        known = KnownList(source, 5.0)
        await known.current()
        await asyncio.sleep(1e6)
        assert (await known.current(), source.read) == (SourceList((TOOL,)), 1)

    on_loop(scenario)


def test_a_slow_server_offers_nothing_until_its_list_is_there() -> None:
    async def scenario() -> None:
        source = Listing(8.0, ONE)
        known = KnownList(source, 5.0)
        assert await known.current() == SourceList(())
        assert await known.current() == ONE
        assert source.read == 1

    on_loop(scenario)


def test_a_list_that_hangs_when_it_is_read_again_holds_nobody_up() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        source = Listing(ONE, 60.0, TWO)
        known = KnownList(source, 5.0)
        await known.current()
        await asyncio.sleep(6.0)
        began = loop.time()
        for _ in range(20):
            assert (known.known() or await known.current()) == ONE
            await asyncio.sleep(1.0)
        waited = loop.time() - began - 20.0
        assert waited < 2 * LIMITS.list_again, "the first run waits for a moment, the others for nothing"
        await asyncio.sleep(42.0)
        assert (known.known(), source.read) == (TWO, 2)

    on_loop(scenario)


def test_after_a_failure_the_former_list_is_used_and_no_run_waits(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        gone = ToolServerError("it cannot be reached", "unreachable")
        source = Listing(gone, ONE, 2.0, gone, TWO)
        known = KnownList(source, 5.0)
        assert await known.current() == SourceList(())
        assert await known.current() == SourceList(())
        assert source.read == 1
        await asyncio.sleep(LIMITS.list_ttl + 1)
        assert await known.current() == ONE
        await asyncio.sleep(6.0)
        assert await known.current() == ONE
        assert (await known.current(), source.read) == (ONE, 3)
        await asyncio.sleep(LIMITS.list_ttl + 3)
        assert await known.current() == TWO

    on_loop(scenario)
    assert [record.getMessage() for record in caplog.records] == [
        "tools 'docs': there is no list: it cannot be reached: it offers nothing",
        "tools 'docs': there is no list: it cannot be reached: the 1 tools of before are used",
    ]


def test_a_source_that_breaks_is_not_asked_again_at_once() -> None:
    async def scenario() -> None:
        source = Listing(asyncio.CancelledError(), ONE)
        known = KnownList(source, 5.0)
        assert await known.current() == SourceList(())
        assert (await known.current(), source.read) == (SourceList(()), 1)

    on_loop(scenario)


def test_what_is_left_out_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        first = SourceList((TOOL,), (("a", "why"),), 1.0)
        known = KnownList(Listing(first, first, SourceList((TOOL,), (("a", "why"), ("b", "not")), 1.0)), 5.0)
        for _ in range(3):
            await known.current()
            await asyncio.sleep(2.0)

    on_loop(scenario)
    texts = [record.getMessage() for record in caplog.records]
    assert texts == ["tools 'docs': left out: a: why", "tools 'docs': left out: b: not"]


def test_a_list_that_changes_for_ever_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    most = LIMITS.list_warnings

    async def scenario() -> None:
        left_out = tuple((f"tool{number:03}", "why") for number in range(most + 3))
        await KnownList(Listing(SourceList((TOOL,), left_out, 1.0)), 5.0).current()

    on_loop(scenario)
    texts = [record.getMessage() for record in caplog.records]
    assert texts[-2:] == [f"tools 'docs': left out: tool{most - 1:03}: why", "tools 'docs': left out: 3 more"]
    assert len(texts) == most + 1


def test_the_end_does_not_wait_for_a_list() -> None:
    async def scenario() -> None:
        known = KnownList(Listing(1e5, ONE), 1.0)
        await known.current()
        await known.close()
        await known.close()
        assert asyncio.get_running_loop().time() < 1e6

    on_loop(scenario)


def test_a_list_that_is_the_same_stays_the_same_object_and_its_time_is_the_new_one() -> None:
    async def scenario() -> None:
        first, same = (SourceList((TOOL,), ttl=ttl, digest=b"one") for ttl in (5.0, 50.0))
        source = Listing(first, same, SourceList((TOOL,), ttl=5.0, digest=b"two"))
        known = KnownList(source, 5.0)
        assert await known.current() is first
        await asyncio.sleep(6.0)
        assert await known.current() is first
        assert source.read == 2
        await asyncio.sleep(40.0)
        assert await known.current() is first
        assert source.read == 2, "the second one holds for 50 s"
        await asyncio.sleep(20.0)
        assert (await known.current()).digest == b"two"

    on_loop(scenario)
