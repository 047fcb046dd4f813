"""The command line in this process, in an empty folder and with an empty environment."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gai_fast.cli import local_upstreams, main

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith("GAI_FAST_") or name.endswith("_API_KEY") or name in ("OLLAMA_HOST", "NO_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def no_local_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found of what runs on the machine of the tests."""
    monkeypatch.setattr(local_upstreams, "usual_places", list)


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, ("gai_fast", "gai_fast.access", "gai_fast.audit"))]
    handlers = root.handlers[:]
    former = [(logger.level, logger.disabled) for logger in loggers]
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    root.handlers[:] = handlers
    for logger, (level, is_off) in zip(loggers, former, strict=True):
        logger.setLevel(level)
        logger.disabled = is_off


@pytest.fixture
def run() -> Run:
    """Runs a command: `run("check", "--json", env={…}, input="…")`."""

    def run(*arguments: str, **options: object) -> Result:
        return CliRunner().invoke(main, list(arguments), **options)

    return run
