"""`gai_fast/net/toolbox/tool_sessions.py`: whose client makes a call, and when sessions end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from gai_fast.model.settings import ANONYMOUS, SessionKind
from gai_fast.net.toolbox.tool_sessions import ToolSessions
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.protocol import STATELESS, Agreement
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.net.tools.tool_client import ToolClient
from gai_fast.runtime.timers import TimerWheel
from tests.conftest import ChangeLimits
from tests.steady import JumpingLoop

IN_SESSION = Agreement("2025-06-18", "", "s1")


class Client:
    """A client that notes its end."""

    def __init__(self, number: int, agreed: Agreement) -> None:
        self.number = number
        self.agreed: Agreement | None = None
        self._agreement = agreed
        self.has_left = self.is_closed = False

    async def connect(self) -> Agreement:
        self.agreed = self._agreement
        return self.agreed

    async def leave(self) -> None:
        self.has_left = True

    async def close(self) -> None:
        self.is_closed = True


class Scene:
    """The sessions of a server."""

    def __init__(self, kind: SessionKind, agreed: Agreement = IN_SESSION, *, is_process: bool = False) -> None:
        self.clients: list[Client] = []
        self._agreed = agreed
        wheel = TimerWheel(asyncio.get_running_loop())
        self.sessions = ToolSessions(kind, self._made, is_process=is_process, timers=wheel)

    def _made(self) -> ToolClient:
        self.clients.append(Client(len(self.clients), self._agreed))
        return cast(ToolClient, self.clients[-1])

    async def call(self, caller: str, run: str = "r") -> int:
        """Makes a call; returns the number of its client. The first one's is 0."""
        async with self.sessions.client(caller, run) as client:
            return cast(Any, client).number

    @property
    def left(self) -> list[int]:
        return [each.number for each in self.clients if each.has_left]


def on_loop(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


@pytest.mark.parametrize("is_process", [False, True])
def test_each_caller_has_a_session_and_keeps_it(is_process: bool) -> None:
    async def scenario() -> None:
        scene = Scene("caller", is_process=is_process)
        assert [await scene.call("a", "r1"), await scene.call("b", "r2"), await scene.call("a", "r3")] == [1, 2, 1]
        assert await scene.call(ANONYMOUS) == 3

    on_loop(scenario)


def test_each_run_has_a_session_which_ends_with_it() -> None:
    async def scenario() -> None:
        scene = Scene("run")
        assert [await scene.call("a", "r1"), await scene.call("a", "r2"), await scene.call("b", "r1")] == [1, 2, 3]
        scene.sessions.run_ended("a", "r1")
        async with scene.sessions.client("a", "r2"):
            scene.sessions.run_ended("a", "r2")
            await asyncio.sleep(0)
            assert scene.left == [1], "a call is under way"
        await asyncio.sleep(0)
        assert scene.left == [1, 2]
        scene.sessions.run_ended("nobody", "r1")

    on_loop(scenario)


@pytest.mark.parametrize(
    ("kind", "agreed", "is_process"),
    [("shared", IN_SESSION, False), ("shared", IN_SESSION, True), ("caller", Agreement(STATELESS), False)],
)
def test_where_nothing_is_to_divide_all_share_one_client(
    kind: SessionKind, agreed: Agreement, is_process: bool
) -> None:
    async def scenario() -> None:
        scene = Scene(kind, agreed, is_process=is_process)
        assert [await scene.call("a"), await scene.call("b")] == [0, 0]
        assert len(scene.clients) == 1

    on_loop(scenario)


def test_an_idle_session_ends_after_its_time() -> None:
    async def scenario() -> None:
        scene = Scene("caller")
        await scene.call("a")
        await asyncio.sleep(LIMITS.session_idle / 2)
        await scene.call("b")
        async with scene.sessions.client("c", "r"):
            await asyncio.sleep(LIMITS.session_idle / 2 + 1)
            assert scene.left == [1]
            await asyncio.sleep(LIMITS.session_idle)
            assert scene.left == [1, 2], "a call is under way"
        assert await scene.call("a") == 4
        await asyncio.sleep(2 * LIMITS.session_idle + 1)
        assert scene.left == [1, 2, 3, 4]

    on_loop(scenario)


def test_for_one_more_the_longest_idle_ends_and_none_that_is_in_use(change_limits: ChangeLimits) -> None:
    change_limits(sessions=2)

    async def scenario() -> None:
        scene = Scene("caller")
        await scene.call("a")
        await scene.call("b")
        await scene.call("a")
        assert await scene.call("c") == 3
        await asyncio.sleep(0)
        assert scene.left == [2]
        async with scene.sessions.client("a", "r"), scene.sessions.client("c", "r"):
            with pytest.raises(ToolServerError, match=r"2 of its sessions are in use \(limit sessions\)"):
                await scene.call("d")
        assert await scene.call("d") == 4

    on_loop(scenario)


def test_runs_of_one_caller_have_half_of_the_sessions(change_limits: ChangeLimits) -> None:
    change_limits(sessions=4)

    async def scenario() -> None:
        scene = Scene("run")
        await scene.call("other")
        async with AsyncExitStack() as stack:
            for run in ("r1", "r2"):
                await stack.enter_async_context(scene.sessions.client("a", run))
            with pytest.raises(ToolServerError, match="2 of its sessions are in use"):
                await scene.call("a", "r3")
            await scene.call("b", "r1")
        await scene.call("a", "r3")
        await asyncio.sleep(0)
        assert scene.left == [3], "its own that is idle for the longest time"

    on_loop(scenario)


def test_its_end_ends_every_client_and_a_call_under_way_begins_nothing_anew() -> None:
    async def scenario() -> None:
        scene = Scene("caller")
        await scene.call("a")
        async with scene.sessions.client("b", "r"):
            await scene.sessions.close()
        assert scene.left == [1, 2]
        assert [each.is_closed for each in scene.clients] == [True, False, False]
        assert len(scene.clients) == 3

    on_loop(scenario)
