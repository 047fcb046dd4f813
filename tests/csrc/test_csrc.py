"""`csrc/` from C, under the address and undefined-behaviour sanitizers: each `test_*.c` here is a program."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
PROGRAMS = sorted(HERE.glob("test_*.c"))
FLAGS = ("-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined")
FLAGS += ("-fno-sanitize-recover=all", f"-I{CSRC}", f"-I{HERE}")
# Not what a sanitized Python is run with: these programs bring their own.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "ASAN_OPTIONS")}


def compiler() -> str | None:
    return shutil.which(os.environ.get("CC", "").split()[0] if os.environ.get("CC") else "cc")


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory, unavailable: Callable[[str], NoReturn]) -> list[Path]:
    """The C files of `csrc/`, compiled once for all programs."""
    cc = compiler()
    if cc is None:
        unavailable("a C compiler")
    folder = tmp_path_factory.mktemp("csrc")
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    tried = run([cc, *FLAGS, str(probe), "-o", str(folder / "probe")])
    if tried.returncode or run([str(folder / "probe")]).returncode:
        unavailable("a C compiler with the address and undefined-behaviour sanitizers")
    made = []
    for source in sorted(CSRC.glob("*.c")):
        made.append(folder / f"{source.stem}.o")
        compiled = run([cc, *FLAGS, "-c", str(source), "-o", str(made[-1])])
        assert compiled.returncode == 0, compiled.stderr
    return made


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=ENVIRONMENT)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_finds_nothing_wrong(program: Path, objects: list[Path], tmp_path: Path) -> None:
    made = str(tmp_path / program.stem)
    linked = run([compiler() or "", *FLAGS, str(program), *map(str, objects), "-o", made])
    assert linked.returncode == 0, linked.stderr
    result = run([made])
    assert result.returncode == 0, result.stderr


def test_a_program_that_reads_too_far_is_seen(objects: list[Path], tmp_path: Path) -> None:
    """Else all of the above would be true without sanitizers."""
    wrong = tmp_path / "wrong.c"
    wrong.write_text(
        '#include "check.h"\nint main(int two, char **_) { return (void)_, exactly("abc", 3)[two + 2]; }\n'
    )
    made = str(tmp_path / "wrong")
    assert run([compiler() or "", *FLAGS, str(wrong), *map(str, objects), "-o", made]).returncode == 0
    result = run([made])
    assert result.returncode != 0
    assert "wrong.c:2" in result.stderr
