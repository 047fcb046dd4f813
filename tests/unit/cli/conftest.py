"""The command line in this process, in an empty folder and with an empty environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gai_fast.cli import main

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith("GAI_FAST_") or name.endswith("_API_KEY") or name in ("OLLAMA_HOST", "NO_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    root, ours, access = logging.getLogger(), logging.getLogger("gai_fast"), logging.getLogger("gai_fast.access")
    handlers, levels, disabled = root.handlers[:], (root.level, ours.level, access.level), access.disabled
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    access.setLevel(levels[2])
    access.disabled = disabled


@pytest.fixture
def run() -> Run:
    """Runs a command: `run("check", "--json", env={…}, input="…")`."""

    def run(*arguments: str, **options: object) -> Result:
        return CliRunner().invoke(main, list(arguments), **options)  # type: ignore[arg-type]  # invoke's own names

    return run
