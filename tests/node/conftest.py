"""The npm packages of the tests, which `ci/system-deps.sh` installs, and a way to run a script with them."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import SECONDS

HERE = Path(__file__).parent
PACKAGES = HERE.parents[1] / ".node/node_modules"

Run = Callable[[str, list[dict[str, Any]]], Awaitable[list[dict[str, Any]]]]


@pytest.fixture
def run_node() -> Run:
    """Runs a script of this folder for some jobs; returns its results."""
    program = shutil.which("node")
    if program is None or not PACKAGES.is_dir():
        pytest.skip("missing on this machine: Node and the packages of tests/node (ci/system-deps.sh installs both)")

    async def run(script: str, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        process = await asyncio.create_subprocess_exec(
            program,
            str(HERE / script),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(SECONDS + len(jobs)):
                result, problems = await process.communicate(
                    json.dumps({"packages": str(PACKAGES), "jobs": jobs}).encode()
                )
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, problems.decode()
        results: list[dict[str, Any]] = json.loads(result)
        return results

    return run
