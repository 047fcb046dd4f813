"""Codex from npm, unmodified, waits through silences that are longer than its own patience."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest

from gai_fast.cli.mock.command import Mock
from programs.environments import Environment, NotInstalled, environment
from tests.integration.gateway import Net
from tests.integration.processes import configure, serving

PATIENCE: Final = 5
"""Seconds without an event after which Codex gives an answer up; 300 by default."""
SILENCE: Final = 11
SECONDS: Final = 180
"""The most that it may take."""
INSTALL: Final = "npm install -g @openai/codex"
PROVIDER: Final = """
model = "m"
model_provider = "gateway"

[model_providers.gateway]
name = "gateway"
base_url = "{url}/v1"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
stream_idle_timeout_ms = {patience}
"""


async def codex() -> Environment:
    try:
        return await environment(INSTALL)
    except NotInstalled as problem:
        pytest.skip(f"missing on this machine: {INSTALL} ({problem})")


async def test_codex_waits_before_the_first_word_and_between_two(tmp_path: Path) -> None:
    place = await codex()
    home = tmp_path / "home"
    home.mkdir()
    async with AsyncExitStack() as stack, Mock(deltas=2, rate=1 / SILENCE, ttft=SILENCE) as mock:
        configure(tmp_path, mock, more='[stream]\nheartbeat = 2\non_unsupported = "drop"\n')
        async with serving(Net(stack), tmp_path) as server:
            (home / "config.toml").write_text(PROVIDER.format(url=f"http://{server.host}", patience=PATIENCE * 1000))
            process = await asyncio.create_subprocess_exec(
                "codex", "exec", "--skip-git-repo-check", "Tell me a story",
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                cwd=tmp_path,
                env={"CODEX_HOME": str(home), "HOME": str(home), "PATH": place.before(os.environ["PATH"])},
            )  # fmt: skip
            try:
                async with asyncio.timeout(SECONDS):
                    output, errors = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    assert process.returncode == 0, errors.decode()[-2000:]
    assert output.startswith(b"Once upon"), output
    assert b"Reconnecting" not in errors
    assert len(mock.requests) == 1
