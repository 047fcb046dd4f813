"""`make soak-outlive` and `make soak-charged`, for a few kills: over both stores, with both kinds of `sync`."""

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


async def test_no_word_is_lost_or_doubled_while_servers_are_killed() -> None:
    output = await output_of("tests.soak.outlive", "--kills", "8")
    assert output.count("'kills': 2") == 4


async def test_keys_are_charged_what_was_generated_though_servers_are_killed() -> None:
    output = await output_of("tests.soak.outlive.charged", "--kills", "4", "--sync", "batched")
    assert output.count("'kills': 2") == 2
    assert output.count("'whole attempts'") == output.count("'dead attempts'") == 2


async def output_of(*arguments: str) -> str:
    """Returns what a soak has printed, which has found no fault."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, "--seed", "1",
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
    return output
