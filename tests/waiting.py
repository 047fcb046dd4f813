"""Waiting for a condition that the code under test brings about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

SECONDS = 60.0
"""The longest wait: far more than anything takes on a machine that is slow, busy or stands still for a while."""


async def until(condition: Callable[[], object]) -> None:
    """Returns once the condition holds.

    Raises:
        TimeoutError: It does not hold within `SECONDS`.
    """
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110  # the code under test sets no event
            await asyncio.sleep(0.002)


async def until_answered(ask: Callable[[], Awaitable[object]]) -> None:
    """Returns once the answer is true; as `until`, if the condition must be awaited."""
    async with asyncio.timeout(SECONDS):
        while not await ask():  # noqa: ASYNC110  # the code under test sets no event
            await asyncio.sleep(0.02)
