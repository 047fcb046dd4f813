"""`make soak`, for some seconds: a worker is killed, and every outcome is explained."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.docs.pages import ROOT
from tests.integration.test_cli import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")


async def soak(*arguments: str, store: str = "memory") -> dict[str, str]:
    """Runs a short soak that passes; returns the rows of its table."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak", *arguments,
        "--longest", "1", "--streams", "20", "--store", store, "--seed", "1",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT, env=environment(),
    )  # fmt: skip
    try:
        output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    lines = [line.strip().split("  ", 1) for line in output.splitlines()]
    rows = {line[0]: line[1].strip() for line in lines if len(line) == 2}
    assert process.returncode == 0, output
    assert {rows[name] for name in ("lost", "duplicated", "unexplained")} == {"0"}
    assert not rows["faults"].startswith("0 workers killed")
    return rows


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_short_soak_loses_and_doubles_nothing(store: str) -> None:
    await soak("--minutes", "0.05", store=store)


async def test_an_upstream_that_speaks_tls_and_changes_all_the_time_loses_nothing() -> None:
    rows = await soak("--minutes", "0.06", "--tls")
    assert len(rows["changes of the upstream"].split(", ")) == 7
    assert rows["wrong certificates"].endswith(" 0 requests came")
