"""Environments of the programs, in the user's cache folder: one for each install command, kept from run to run."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

INSTALL_SECONDS: Final = 900
NODE: Final = "node@24"
"""The Node that runs programs from npm: the newest of them refuse the one that most systems have, and npm then chooses
older ones."""
_VERSION_OF: Final = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
_PACKAGE: Final = re.compile(r"(@?[^@\[<>=~!]+)")
"""The name in what an install command takes, without extras and version."""


Install = Callable[[Path, list[str]], Awaitable[None]]


class NotInstalled(Exception):
    """A program cannot be installed here; says why."""


@dataclass(frozen=True)
class Environment:
    """The place of an installed program.

    Args:
        path: The folders of its commands.
        modules: The `node_modules` that its scripts import from, for npm.
        version: The version of the first package.
    """

    path: tuple[Path, ...]
    modules: Path | None
    version: str

    def before(self, path: str) -> str:
        """A value of `PATH` that finds its commands first."""
        return os.pathsep.join((*map(str, self.path), path))


def cache() -> Path:
    """The folder of all environments."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "gai-fast/programs"


async def environment(install: str, *, update: bool = False) -> Environment:
    """The environment of an install command, made where it is not there.

    Args:
        install: The command, as the page shows it.
        update: Whether one that is there is made anew.

    Raises:
        NotInstalled: The tool is missing, or fails.
    """
    tool, _, *arguments = shlex.split(install)
    if tool == "pip":
        folder = await _made(f"pip {sys.version_info[:2]} {arguments}", _pip, arguments, update)
        version = await _run(str(folder / "bin/python"), "-c", _VERSION_OF, _package(arguments))
        return Environment((folder / "bin",), None, version.strip())
    node = await _made(f"npm {NODE}", _npm, [NODE], False) / "node_modules/.bin"
    folder = await _made(f"npm {NODE} {arguments}", partial(_npm, node=node), arguments, update)
    # npm puts what is installed with -g elsewhere.
    is_global = "-g" in arguments
    modules = folder / ("lib/node_modules" if is_global else "node_modules")
    found = json.loads((modules / _package(arguments) / "package.json").read_text())
    return Environment((folder / "bin" if is_global else modules / ".bin", node), modules, found["version"])


async def _made(key: str, install: Install, arguments: list[str], update: bool) -> Path:
    """The folder of what is installed under a key."""
    folder = cache() / f"{key.partition(' ')[0]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    complete = folder / ".complete"
    if update or not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        await install(folder, arguments)
        complete.touch()
    return folder


async def _pip(folder: Path, arguments: list[str]) -> None:
    await _run(sys.executable, "-m", "venv", str(folder))
    await _run(str(folder / "bin/python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *arguments)


async def _npm(folder: Path, arguments: list[str], node: Path | None = None) -> None:
    quiet = ("--no-audit", "--no-fund", "--loglevel=error")
    path = os.environ.get("PATH", os.defpath)
    variables = {**os.environ, "PATH": f"{node}{os.pathsep}{path}"} if node else None
    await _run("npm", "install", "--prefix", str(folder), *quiet, *arguments, variables=variables)


def _package(arguments: list[str]) -> str:
    """The name of the first package that a command installs."""
    named = _PACKAGE.match(next(each for each in arguments if not each.startswith("-")))
    assert named is not None
    return named[1]


async def _run(*command: str, variables: Mapping[str, str] | None = None) -> str:
    """The output of a command.

    Raises:
        NotInstalled: It is not there, fails, or takes too long.
    """
    name = Path(command[0]).name
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=variables,
        )
    except OSError as problem:
        raise NotInstalled(f"{name}: {problem.strerror}") from None
    try:
        async with asyncio.timeout(INSTALL_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise NotInstalled(f"{name} took more than {INSTALL_SECONDS} s") from None
    text = output.decode(errors="replace")
    if process.returncode:
        lines = text.strip().splitlines() or ["it said nothing"]
        errors = [line for line in lines if "error" in line.lower()] or lines
        raise NotInstalled(f"{name}: {errors[-1]}")
    return text
