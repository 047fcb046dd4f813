"""`csrc/` from C, under the address and undefined-behaviour sanitizers: each `test_*.c` here is a program.

On an x86-64 the programs are also cross-compiled for AArch64 and run under qemu, so that NEON is tested.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
PROGRAMS = sorted(HERE.glob("test_*.c"))
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{CSRC}", f"-I{HERE}")
FLAGS = (*WARNINGS, "-g1", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# Not what a sanitized Python is run with: these programs bring their own.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "ASAN_OPTIONS")}


@dataclass(frozen=True, slots=True)
class Target:
    """A machine that the programs are compiled for and run on.

    Args:
        compiler: Its compiler.
        runner: The command before a program's name.
    """

    compiler: str
    runner: tuple[str, ...] = ()

    def compile(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return run([self.compiler, *map(str, arguments)])

    def run(self, program: Path) -> subprocess.CompletedProcess[str]:
        # qemu does not let a process trace another one, as the search for leaks does.
        return run([*self.runner, str(program)], **({"ASAN_OPTIONS": "detect_leaks=0"} if self.runner else {}))


HOST = Target((os.environ.get("CC") or "cc").split()[0])
TARGETS = {"host": HOST}
if platform.machine() == "x86_64" and platform.system() == "Linux":
    TARGETS["aarch64"] = Target("aarch64-linux-gnu-gcc", ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"))


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**ENVIRONMENT, **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=environment)


@pytest.fixture(scope="session", params=TARGETS)
def target(request: pytest.FixtureRequest, unavailable: Callable[[str], NoReturn]) -> Target:
    """Returns each machine whose compiler is here."""
    target = TARGETS[request.param]
    for program in (target.compiler, *target.runner[:1]):
        if shutil.which(program) is None:
            unavailable(f"{program}, which the tests of csrc for {request.param} need")
    return target


@pytest.fixture(scope="session")
def objects(
    target: Target, tmp_path_factory: pytest.TempPathFactory, unavailable: Callable[[str], NoReturn]
) -> list[Path]:
    """Returns the C files of `csrc/`, compiled once for all programs."""
    folder = tmp_path_factory.mktemp("csrc")
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    if target.compile(*FLAGS, probe, "-o", folder / "probe").returncode or target.run(folder / "probe").returncode:
        unavailable(f"the address and undefined-behaviour sanitizers of {target.compiler}")
    made = []
    for source in sorted(CSRC.glob("*.c")):
        made.append(folder / f"{source.stem}.o")
        compiled = target.compile(*FLAGS, "-c", source, "-o", made[-1])
        assert compiled.returncode == 0, compiled.stderr
    return made


@pytest.fixture(scope="session")
def build(target: Target, objects: list[Path]) -> Callable[[Path], Path]:
    """Builds a program for the target, once."""

    @cache
    def built(source: Path) -> Path:
        made = objects[0].with_name(source.stem)
        linked = target.compile(*FLAGS, source, *objects, "-o", made)
        assert linked.returncode == 0, linked.stderr
        return made

    return built


@pytest.fixture(scope="session")
def ran(target: Target, build: Callable[[Path], Path]) -> Callable[[Path], subprocess.CompletedProcess[str]]:
    """Runs a program on the target, once."""
    return cache(lambda program: target.run(build(program)))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_finds_nothing_wrong(program: Path, ran: Callable[[Path], subprocess.CompletedProcess[str]]) -> None:
    result = ran(program)
    assert result.returncode == 0, result.stderr


def test_a_program_that_reads_too_far_is_seen(target: Target, build: Callable[[Path], Path], tmp_path: Path) -> None:
    """Else all of the above would be true without sanitizers."""
    wrong = tmp_path / "wrong.c"
    wrong.write_text(
        '#include "check.h"\nint main(int two, char **_) { return (void)_, exactly("abc", 3)[two + 2]; }\n'
    )
    result = target.run(build(wrong))
    assert result.returncode != 0
    assert "wrong.c:2" in result.stderr


def test_vectors_are_among_the_forms_that_are_tested(
    target: Target, ran: Callable[[Path], subprocess.CompletedProcess[str]]
) -> None:
    """A form that is not found is not tested either; the import of the kernels says which are there."""
    machine = target.compile("-dumpmachine").stdout
    vectors = "neon" if machine.startswith(("aarch64", "arm64")) else "sse"
    assert ran(HERE / "test_simd.c").stdout.split() == ["scalar", vectors]


def test_a_compiler_below_the_floor_is_refused_and_says_what_to_do(target: Target) -> None:
    """GCC 8 is the floor. The compiler here poses as others; the warnings are its own version's."""
    if "__clang__" in target.compile("-dM", "-E", "-x", "c", os.devnull).stdout:
        return  # it poses as GCC 4 all the time, and compiles the programs above
    for source in sorted(CSRC.glob("*.c")):
        posing = (*WARNINGS, "-fsyntax-only", "-U__GNUC__", source)
        refused = target.compile(*posing, "-D__GNUC__=7")
        assert refused.returncode != 0, source
        assert "gai-fast needs GCC 8 or newer, or Clang: name one with CC=" in refused.stderr
        assert "GAI_FAST_BUILD=pure" in refused.stderr
        accepted = target.compile(*posing, "-D__GNUC__=8")
        assert accepted.returncode == 0, accepted.stderr


# What later releases of GCC brought to their headers and to the language, and is easily written on a newer one.
NEWER = {
    9: ("__builtin_convertvector", "__builtin_has_attribute", "_mm_loadu_si64", "_mm_storeu_si64"),
    10: ("_zextsi128_", "_zextsi256_", "_mm512_loadu_epi8", "_mm512_storeu_epi8", "__has_builtin", "vld1q_u8_x"),
    11: ("_mm_loadu_si16", "_mm_loadu_si32", "_mm_storeu_si16", "_mm_storeu_si32", "__builtin_clear_padding"),
}


def test_the_sources_have_nothing_that_the_oldest_compiler_lacks() -> None:
    """The floor itself is not run here: Debian has no GCC that old."""
    sources = {path: path.read_text() for path in sorted(CSRC.iterdir())}
    found = [(path.name, release, name) for path in sources for release in NEWER for name in NEWER[release]]
    assert not [hit for hit in found if hit[2] in sources[CSRC / hit[0]]]
