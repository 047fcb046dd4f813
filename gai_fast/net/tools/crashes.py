"""Whose calls end the process of a server of tools, which callers share.

1. A caller is the cause of a crash if the process had no other's calls, or if the caller is in doubt already.
2. All whose calls it had are in doubt as long as nobody is the cause. Their calls are then made one at a time, which
   tells them apart; each waits `limits.crash_wait` at most. A call that the process survives ends its caller's doubt.
3. A crash concerns its cause alone. What it has taken from others may be asked again, by whoever knows that it is safe.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from gai_fast.net.tools.limits import LIMITS


class Crash:
    """One end of a process that nobody has asked for.

    Args:
        callers: Those whose calls it had.

    Attributes:
        causes: Those of them who are the cause. None until that is decided.
    """

    __slots__ = ("callers", "causes")

    def __init__(self, callers: frozenset[str]) -> None:
        self.callers: Final = callers
        self.causes: frozenset[str] | None = None


class Crashes:
    """The crashes of one server. Belongs to one loop."""

    __slots__ = ("_doubted", "_one")

    def __init__(self) -> None:
        self._doubted: frozenset[str] = frozenset()
        self._one = asyncio.Lock()

    async def take_turn(self, caller: str) -> bool:
        """Waits until a caller may make a call: alone among those in doubt, if it is one of them.

        Returns:
            Whether `give_turn_back` must follow the call.
        """
        if caller not in self._doubted:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(LIMITS.crash_wait):
                return await self._one.acquire()
        return False

    def give_turn_back(self) -> None:
        """Lets the next caller in doubt make its call."""
        self._one.release()

    def is_cause(self, crash: Crash, caller: str) -> bool:
        """Returns whether a caller is the cause of a crash: rules 1 and 2."""
        if crash.causes is None:
            alone = crash.callers if len(crash.callers) == 1 else crash.callers & self._doubted
            crash.causes = alone
            self._doubted = alone or crash.callers
        return caller in crash.causes

    def survived(self, caller: str) -> None:
        """Notes that a call has ended without a crash."""
        if caller in self._doubted:
            self._doubted -= {caller}
