"""Work that starts processes, and must end them whatever ends it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

import click

_ENDS: Final = (signal.SIGTERM, signal.SIGHUP)
"""Signals that cancel the work, and with it the processes that it has started."""


def run_to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Runs work on a loop of its own. A signal cancels it.

    Raises:
        Exit: A signal has ended it: 128 and its number.
    """
    from gai_fast.cli.serve import run_async

    ended_by: list[int] = []

    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def end(number: int) -> None:
            ended_by.append(number)
            task.cancel()

        for number in _ENDS:
            loop.add_signal_handler(number, end, number)
        await work

    with suppress(asyncio.CancelledError):
        run_async(main())
    if ended_by:
        raise click.exceptions.Exit(128 + ended_by[0])
