"""`Makefile`: which targets compile what, and when again. What it runs is a stand-in that compiles nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = """#!/bin/sh
# Makes environments of itself, and notes what setup.py would compile: GAI_FAST_MYPYC is 1 for everything.
case "$*" in
  "-c import furo"*) [ -z "$NO_SPHINX" ] || exit 1 ;;
  *" pip uv") [ -z "$NO_PIP" ] || exit 1; echo "$*" >>installed ;;
  "-m venv "*)
    echo "$*" >>environments
    for folder; do :; done; mkdir -p "$folder/bin"; cp -f "$0" "$folder/bin/python" ;;
  setup.py*) echo "$GAI_FAST_BUILD $GAI_FAST_MYPYC" >>compiled; touch "gai_fast/any.so"; exit "${FAILS:-0}" ;;
  *" install "*) echo "$*" >>installed ;;
esac
"""
KERNELS, EVERYTHING = "auto 0", "auto 1"

Make = Callable[..., list[str]]


@pytest.fixture
def make(tmp_path: Path, unavailable: Callable[[str], NoReturn]) -> Make:
    """Runs make in a folder of one kernel and two modules; returns what was compiled."""
    if shutil.which("make") is None:
        unavailable("make")
    (tmp_path / "ci").mkdir()
    for name in ("Makefile", "pyproject.toml", "ci/install.sh", "ci/docs.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("runtime", "net"):
        (tmp_path / "gai_fast" / name).mkdir(parents=True)
    (tmp_path / "setup.py").touch()
    (tmp_path / "building").mkdir()
    (tmp_path / "building/compiled.txt").write_text("net/limits\nruntime/clock\n")
    for name in ("parsers.pyx", "runtime/clock.py", "net/limits.py"):
        (tmp_path / "gai_fast" / name).touch()
    commands = tmp_path / ".venv/bin"
    commands.mkdir(parents=True)
    for path in (tmp_path / "python", commands / "python", commands / "gai-fast"):
        path.write_text(PYTHON)
        path.chmod(0o755)
    for path in tmp_path.rglob("*"):
        os.utime(path, (0, 0))

    def run(target: str, *, code: int = 0, **variables: str) -> list[str]:
        outer = ("GAI_FAST_", "MAKE", "MFLAGS", "VENV", "LOCAL", "PYTHON")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
        noted = tmp_path / "compiled"
        noted.write_text("")
        done = subprocess.run(
            ["make", target],
            cwd=tmp_path,
            env={**kept, "PYTHON": str(tmp_path / "python"), **variables},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert (done.returncode != 0) == (code != 0), done.stderr
        return noted.read_text().splitlines()

    return run


def edit(source: Path) -> None:
    """Makes a source newer than what was built of it."""
    folder = next(parent for parent in source.parents if parent.name == "gai_fast").parent
    before = time.time() - 100
    for stamp in (folder / ".venv").glob(".*"):
        os.utime(stamp, (before, before))
    source.touch()


def test_serve_compiles_the_kernels_alone_and_install_compiles_the_rest(make: Make) -> None:
    assert make("serve") == [KERNELS]
    assert make("serve") == []
    assert make("install") == [EVERYTHING]
    assert make("install") == []


@pytest.mark.parametrize("target", ["install", "programs", "bench", "bench-quick", "bench-others"])
def test_what_is_measured_and_tested_is_compiled_whole(make: Make, target: str) -> None:
    assert make(target) == [EVERYTHING]
    assert make("serve") == []


def test_the_pages_need_nothing_compiled(make: Make, tmp_path: Path) -> None:
    assert make("docs") == []
    installed = tmp_path / "installed"
    assert not installed.exists(), "the environment that is there will do"
    assert make("docs", NO_SPHINX="1") == []
    assert "gai-fast[docs]" in installed.read_text()
    assert "gai-fast[dev]" not in installed.read_text()


def test_the_tests_packages_are_installed_by_install_alone(make: Make, tmp_path: Path) -> None:
    make("serve")
    installed = tmp_path / "installed"
    assert "gai-fast[dev]" not in installed.read_text()
    assert "mypy" not in installed.read_text()
    make("install")
    assert "gai-fast[dev]" in installed.read_text()
    assert "mypy[mypyc]" in installed.read_text()


def test_an_edited_kernel_is_compiled_again_and_a_module_where_it_was_compiled(make: Make, tmp_path: Path) -> None:
    package = tmp_path / "gai_fast"
    kernel, *modules = package / "parsers.pyx", package / "runtime/clock.py", package / "net/limits.py"
    make("serve")
    for module in modules:
        edit(module)
    assert make("serve") == []
    edit(kernel)
    assert make("serve") == [KERNELS]
    make("install")
    for module in modules:
        edit(module)
        assert make("serve") == [EVERYTHING]
    edit(kernel)
    assert make("serve") == [EVERYTHING]


def test_a_pure_build_removes_what_is_compiled_each_time(make: Make, tmp_path: Path) -> None:
    """Also after it has been made once: extensions would be imported in place of the sources."""
    for _ in range(2):
        assert make("install") == [EVERYTHING]
        assert make("serve", GAI_FAST_BUILD="pure") == []
        assert not (tmp_path / "gai_fast/any.so").exists()
        assert make("serve") == [KERNELS]
        assert make("install", GAI_FAST_BUILD="pure") == []
        assert not (tmp_path / "gai_fast/any.so").exists()


def test_another_kind_of_build_replaces_all_that_was_compiled(make: Make) -> None:
    make("install")
    assert make("serve", GAI_FAST_BUILD="native") == ["native 1"]
    assert make("serve") == [EVERYTHING]


def test_a_build_that_failed_is_made_again(make: Make) -> None:
    assert make("serve", code=2, FAILS="1") == [KERNELS]
    assert make("serve") == [KERNELS]
    assert make("install", code=2, FAILS="1") == [EVERYTHING]
    assert make("serve") == [KERNELS]
    assert make("install") == [EVERYTHING]


def test_an_environment_has_the_pip_that_the_interpreters_pip_installs(make: Make, tmp_path: Path) -> None:
    """To unpack the one that Python brings takes 4 s of a core."""
    shutil.rmtree(tmp_path / ".venv/bin")
    make("install")
    made = (tmp_path / "environments").read_text().splitlines()
    assert made == ["-m venv --without-pip .venv", "-m venv --without-pip .venv/build"]
    first = (tmp_path / "installed").read_text().splitlines()[0]
    assert first == "-m pip --python .venv/bin/python install -qq --disable-pip-version-check --no-compile pip uv"


def test_an_environment_has_pythons_own_pip_if_the_interpreter_has_none(make: Make, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / ".venv/bin")
    make("install", NO_PIP="1")
    made = (tmp_path / "environments").read_text().splitlines()
    assert made == ["-m venv --without-pip .venv", "-m venv .venv", "-m venv --without-pip .venv/build"]
    first = (tmp_path / "installed").read_text().splitlines()[0]
    assert first == "-m pip install -qq --disable-pip-version-check uv"


@pytest.mark.parametrize(
    ("uv", "called"),
    [("exit 0", ["uv"]), ("exit 1", ["uv", "pip"]), (None, ["pip"])],
    ids=["uv", "uv fails", "no uv"],
)
def test_pip_installs_if_uv_does_not(tmp_path: Path, uv: str | None, called: list[str]) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, script in {"uv": uv, "python": "exit 0"}.items():
        if script is not None:
            (commands / name).write_text(f'#!/bin/sh\necho "$0 $*" >>{tmp_path}/calls\n{script}\n')
            (commands / name).chmod(0o755)
    arguments = [ROOT / "ci/install.sh", commands / "python", "--no-deps", "gai-fast[test]"]
    subprocess.run(arguments, capture_output=True, timeout=100, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert ["pip" if "/python -m pip" in call else "uv" for call in calls] == called
    assert all(call.endswith("--no-deps gai-fast[test]") for call in calls)
