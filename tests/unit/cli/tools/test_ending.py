"""`cli/tools/ending.py`: a signal cancels the work, and is the exit code; `test_command.py` has processes that end."""

from __future__ import annotations

import asyncio
import os
import signal

import click
import pytest

from gai_fast.cli.tools.ending import run_to_its_end


def test_work_that_ends_by_itself_has_no_exit_code() -> None:
    ended: list[int] = []

    async def work() -> None:
        ended.append(1)

    run_to_its_end(work())
    assert ended == [1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_the_work(number: signal.Signals) -> None:
    ended: list[str] = []

    async def work() -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("closed")

    with pytest.raises(click.exceptions.Exit) as raised:
        run_to_its_end(work())
    assert (raised.value.exit_code, ended) == (128 + number, ["closed"])
