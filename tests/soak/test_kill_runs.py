"""`make kill-runs`, for a few runs: over both stores, with both kinds of `sync`."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.docs.pages import ROOT
from tests.integration.stores.servers import PROGRAM
from tests.integration.test_cli import environment

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc"),
    pytest.mark.skipif(PROGRAM is None, reason="missing on this machine: redis-server or valkey-server"),
]


async def test_no_call_is_made_twice_while_servers_are_killed() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.kill_runs", "--runs", "16", "--seed", "1",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT, env=environment(),
    )  # fmt: skip
    try:
        output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, output
    assert "faults: 0" in output
    assert output.count("'runs': 4") == 4
