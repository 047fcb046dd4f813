"""gai-fast.d.ts, checked by TypeScript at its strictest with a program that uses all of it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from typing import NoReturn

from tests.node.conftest import HERE, PACKAGES
from tests.waiting import SECONDS

STRICT = ("--strict", "--noEmit", "--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom")


async def test_a_program_compiles_and_its_mistakes_are_seen(unavailable: Callable[[str], NoReturn]) -> None:
    """`types.mts` marks the mistakes: if TypeScript does not see a mistake, that is an error."""
    compiler = PACKAGES / "typescript/bin/tsc"
    node = shutil.which("node")
    if node is None or not compiler.exists():
        unavailable("Node and the packages of tests/node (ci/system-deps.sh installs both)")
    process = await asyncio.create_subprocess_exec(
        node, str(compiler), *STRICT, str(HERE / "types.mts"), stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(SECONDS):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert said.decode() == ""
    assert process.returncode == 0
