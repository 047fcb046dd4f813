"""`make soak`, for some seconds: a worker is killed, and every outcome is explained."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.docs.pages import ROOT
from tests.integration.test_cli import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")


async def test_a_short_soak_loses_and_doubles_nothing() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak",
        "--minutes", "0.05", "--longest", "1", "--streams", "20", "--store", "memory", "--seed", "1",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT, env=environment(),
    )  # fmt: skip
    try:
        output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    rows = dict(line.split("  ", 1) for line in output.splitlines() if "  " in line.strip())
    assert process.returncode == 0, output
    assert {rows[name].strip() for name in ("lost", "duplicated", "unexplained")} == {"0"}
    assert not rows["faults"].strip().startswith("0 workers killed")
