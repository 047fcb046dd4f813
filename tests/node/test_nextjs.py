"""examples/nextjs: TypeScript accepts it, and its route passes the AI SDK's chats on to a gateway with the key."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import pytest

from gai_fast.server.serving import start
from tests.docs.pages import ROOT
from tests.node.conftest import PACKAGES, Run
from tests.unit.config.folders import Folder
from tests.waiting import SECONDS

EXAMPLE: Final = ROOT / "examples/nextjs"
ROUTE: Final = EXAMPLE / "app/api/chat/[[...rest]]/route.ts"
SECRET: Final = "the-key-of-the-page"
CONFIGURATION: Final = '[server]\nport = 0\n[[key]]\nname = "page"\nsecret = "env:PAGE"\n'
# What `next` itself declares; it is not installed for the tests.
DECLARED: Final = "declare const process: { env: Record<string, string | undefined> };\n"
# The SDK under the names that the example has for it.
PATHS: Final = {
    "ai": ["ai-7"],
    "@ai-sdk/react": ["@ai-sdk/react-7"],
    "react": ["@types/react"],
    "react/jsx-runtime": ["@types/react/jsx-runtime"],
}


async def run(*command: str | Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(SECONDS * 2):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode()


@pytest.fixture
def node(unavailable: Callable[[str], NoReturn]) -> str:
    found = shutil.which("node")
    if found is None or not (PACKAGES / "@types/react").exists():
        unavailable("Node and the packages of tests/node (ci/system-deps.sh installs both)")
    return found


async def test_its_types_are_right(node: str, tmp_path: Path) -> None:
    (tmp_path / "declared.d.ts").write_text(DECLARED)
    options = {
        "plugins": [],
        "types": [],
        "paths": {name: [str(PACKAGES / path) for path in paths] for name, paths in PATHS.items()},
    }
    project = {
        "extends": str(EXAMPLE / "tsconfig.json"),
        "compilerOptions": options,
        "include": [str(tmp_path / "declared.d.ts"), str(EXAMPLE / "app")],
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps(project))
    assert await run(node, PACKAGES / "typescript/bin/tsc", "-p", tmp_path) == (0, "")


async def test_its_route_passes_a_chat_on_and_resumes_it(node: str, tmp_path: Path, run_node: Run) -> None:
    compiled = tmp_path / "route.mjs"
    options = ("--format=esm", "--log-level=error", f"--outfile={compiled}")
    assert await run(PACKAGES / "esbuild/bin/esbuild", ROUTE, *options) == (0, "")
    gateway = await start(Folder(tmp_path).read(CONFIGURATION, {"PAGE": SECRET}).settings)
    try:
        [result] = await run_node("nextjs.mjs", [{"route": str(compiled), "gateway": gateway.url, "key": SECRET}])
    finally:
        await gateway.close()
    assert result["text"].startswith("One stormy night")
    assert result["resumed"] == result["text"]
    assert result["idle"] is True
    assert "unauthorized" in result["refused"]
