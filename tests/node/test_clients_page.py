"""The JavaScript of docs/clients.md, with the packages that it imports."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.docs.pages import blocks, read
from tests.integration.gateway import Net, on_uvloop
from tests.node.conftest import PACKAGES
from tests.waiting import SECONDS

BLOCKS = {block.section: block for block in blocks(read("docs/clients.md")) if block.language == "js"}
ENDS = {"AG-UI": "console.log(agent.messages.at(-1).content);"}
"""Lines added to a block that runs outside a page, so that it prints its answer."""
NODE = shutil.which("node")


@pytest.fixture(autouse=True)
def packages(unavailable: Callable[[str], NoReturn]) -> None:
    if NODE is None or not PACKAGES.is_dir():
        unavailable("Node and the packages of tests/node (ci/system-deps.sh installs both)")


async def node(folder: Path, text: str, *options: str) -> str:
    """Returns the output of a program."""
    file = folder / "block.mjs"
    file.write_text(text)
    (folder / "node_modules").symlink_to(PACKAGES)
    process = await asyncio.create_subprocess_exec(
        str(NODE), *options, str(file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(SECONDS):
        said, problems = await process.communicate()
    assert process.returncode == 0, problems.decode()
    return said.decode()


@on_uvloop
async def test_a_block_that_needs_no_page_prints_the_story(net: Net, tmp_path: Path) -> None:
    gateway = await net.gateway(None, demo=True)
    [(section, end)] = ENDS.items()
    text = BLOCKS[section].text.replace("http://127.0.0.1:8080", gateway.url)
    assert (await node(tmp_path, text + end)).startswith("One stormy night")


@pytest.mark.parametrize("section", BLOCKS.keys() - ENDS.keys())
async def test_a_block_of_a_page_has_no_mistake_in_its_syntax(tmp_path: Path, section: str) -> None:
    assert await node(tmp_path, BLOCKS[section].text, "--check") == ""
