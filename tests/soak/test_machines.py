"""`make soak-machines`, for some seconds: two machines, one Redis, and faults that are short."""

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


async def test_no_stream_is_lost_doubled_ended_twice_or_said_to_be_dead_while_its_worker_lives() -> None:
    faults = "partition,worker killed,late failover,flush again"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.machines", "--faults", faults, "--short", "--streams", "8", "--seed", "1",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT, env=environment(),
    )  # fmt: skip
    try:
        output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, output
    assert output.count("lost 0, doubled 0, two ends 0, declared dead while alive 0, other 0") == 4
