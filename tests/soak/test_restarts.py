"""`make soak-restarts`, for two restarts: each connection is answered, by a server or by its successor."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.docs.pages import ROOT
from tests.integration.test_cli import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_request_is_unanswered_while_servers_follow_each_other_and_streams_outlast_grace(workers: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.restarts", "--restarts", "2", "--workers", str(workers), "--seed", "1",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT, env=environment(),
    )  # fmt: skip
    try:
        output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, output
    assert "'long streams': 12, 'handovers': 6}" in output
