"""The folders of installed contenders and built tools, under `benchmarks/.cache`, kept from run to run.

An environment is made for the exact requirements it is named after, so a changed list makes a new one. The folder
ignores itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.contenders import Contender, Place, versions
from benchmarks.macro.running import Fault

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
CACHE: Final = HERE.parent / ".cache"
INSTALL_SECONDS: Final = 900
BUILD_SECONDS: Final = 120
ASK_SECONDS: Final = 60

VERSIONS: Final = """
import importlib.metadata, sys
print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in sys.argv[1:]))
"""


def own_folder(path: Path) -> Path:
    """Returns a folder that git and the linters leave alone."""
    path.mkdir(parents=True, exist_ok=True)
    (path / ".gitignore").write_text("*\n")
    return path


def tool(name: str) -> str:
    """Returns the program built from `NAME.c`.

    Raises:
        Fault: There is no C compiler, or it fails.
    """
    sources = (HERE / f"{name}.c", HERE / "common.h")
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    program = own_folder(CACHE) / f"{name}-{digest}"
    if not program.exists():
        compiler = os.environ.get("CC") or "cc"
        if shutil.which(compiler) is None:
            raise Fault(f"no C compiler ({compiler}): the upstream and the client of the benchmarks are written in C")
        unfinished = program.with_suffix(f".{os.getpid()}")
        _run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(unfinished), str(sources[0])], BUILD_SECONDS)
        unfinished.replace(program)
    return str(program)


def interpreter(contender: Contender) -> Path:
    """Returns the interpreter of a contender's environment, which is made if it is not there.

    Raises:
        Fault: It cannot be installed.
    """
    if not contender.requirements:
        return Path(sys.executable)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    requirements = list(map(versions.pinned, contender.requirements))
    digest = hashlib.sha256(" ".join((version, *requirements)).encode()).hexdigest()[:12]
    folder = own_folder(CACHE) / f"venv-{digest}"
    python = folder / "bin/python"
    complete = folder / ".complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], INSTALL_SECONDS)
        pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        _run([*pip, *requirements], INSTALL_SECONDS)
        complete.touch()
    return python


def prepare(contender: Contender, place: Place) -> None:
    """Builds the parts of a contender that are no packages.

    Raises:
        Fault: It cannot be built.
    """
    if contender.prepare is not None:
        try:
            contender.prepare(place)
        except (OSError, RuntimeError, subprocess.TimeoutExpired) as problem:
            raise Fault(str(problem)) from None


def version(contender: Contender, place: Place) -> str:
    """Returns the installed versions, in one line."""
    if contender.version is not None:
        said = _run(contender.version(place), ASK_SECONDS, contender.environment)
    else:
        said = _run([str(place.python), "-c", VERSIONS, *contender.distributions], ASK_SECONDS)
    return ", ".join(line.strip() for line in said.splitlines())


def _run(command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> str:
    """Returns the output of a program.

    Raises:
        Fault: It fails.
    """
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=variables,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise Fault(str(problem)) from None
    lines = (done.stderr + done.stdout).strip().splitlines()
    if done.returncode:
        errors = [line for line in lines if line.lower().startswith("error")] or lines or ["it said nothing"]
        raise Fault(f"{' '.join(command[:4])} …: {errors[-1]}")
    return done.stdout or done.stderr
