"""How late the event loop is."""

from __future__ import annotations

import asyncio
import time

from gai_fast.server.admission.loop_lag import LoopLag
from tests.limits import LIMITS
from tests.waiting import until


async def test_a_loop_that_is_held_up_is_late_by_nearly_that_time() -> None:
    seen: list[float] = []
    lag = LoopLag(asyncio.get_running_loop(), seen.append)
    await until(lambda: bool(seen))
    held = 5 * LIMITS.loop_check
    time.sleep(held)  # noqa: ASYNC251  # this is what is measured
    before = len(seen)
    await until(lambda: len(seen) > before)
    assert seen[before] > held - LIMITS.loop_check - 0.01
    assert min(seen) >= 0
    lag.close()
    lag.close()


async def test_a_closed_one_looks_no_more() -> None:
    seen: list[float] = []
    LoopLag(asyncio.get_running_loop(), seen.append).close()
    await asyncio.sleep(2 * LIMITS.loop_check)
    assert not seen
