"""Gateways as users run them: `gai-fast serve` with the page's configuration, one for each dialect of the upstream."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from programs.dialects import Dialect
from programs.page import KEY, PROVIDER

START_SECONDS: Final = 300


class Gateway:
    """A running gateway.

    Args:
        url: Its address.
        log: The file of its standard error.
    """

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log
        self._read = 0

    def new_lines(self) -> list[str]:
        """The lines of its log since the last call."""
        data = self._log.read_bytes()
        new, self._read = data[self._read :], len(data)
        return new.decode(errors="replace").splitlines()


@asynccontextmanager
async def gateway(folder: Path, configuration: str, dialect: Dialect, upstream: str) -> AsyncIterator[Gateway]:
    """Runs a gateway.

    Args:
        folder: An empty folder for its files.
        configuration: The page's configuration.
        dialect: What its upstream speaks.
        upstream: The address of the upstream.

    Raises:
        RuntimeError: It does not start; says what it printed.
    """
    there = f'provider = "{dialect.provider}"\nbase_url = "{upstream}{dialect.prefix}"\n'
    (folder / "gai-fast.toml").write_text(configuration.replace(PROVIDER, there))
    log = folder / "log"
    variables = {**os.environ, "GATEWAY_KEY": KEY, "OPENAI_API_KEY": "the-provider's", "GAI_FAST_PORT": "0"}
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gai_fast", "serve", "-c", str(folder / "gai-fast.toml"),
            stdout=asyncio.subprocess.PIPE, stderr=errors, env=variables,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            banner = (await process.stdout.readline()).decode()
        if not banner:
            raise RuntimeError(f"the gateway does not start: {log.read_text(errors='replace')}")
        yield Gateway(banner.rpartition(" ")[2].strip(), log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
