"""`gai_fast/net/tools/pause.py`: nothing is asked before the time that a server has named."""

from __future__ import annotations

import asyncio

import pytest

from gai_fast.net.tools.pause import Pause
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.runtime.timers import TimerWheel
from tests.limits import LIMITS
from tests.steady import SteadyLoop


def test_a_pause_ends_and_is_never_longer_than_the_limit() -> None:
    async def main() -> None:
        pause = Pause(TimerWheel(asyncio.get_running_loop()))
        pause.check()
        pause.note(429, {"content-type": "text/plain"})
        pause.check()
        pause.note(429, {"retry-after": "1"})
        with pytest.raises(ToolServerError, match="it has asked for a pause, which ends in 1 s") as raised:
            pause.check(may_have_run=True)
        assert (raised.value.fault, raised.value.may_have_run) == ("wait", True)
        await asyncio.sleep(1.1)
        pause.check()
        pause.note(429, {"retry-after": "86400"})
        pause.note(429, {"retry-after": "1"})
        with pytest.raises(ToolServerError, match=f"ends in {LIMITS.retry_after_ms // 1000} s"):
            pause.check()

    with asyncio.Runner(loop_factory=SteadyLoop) as runner:
        runner.run(main())
