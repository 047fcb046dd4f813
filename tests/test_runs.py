"""The effects of `conftest.py` and `kernels.py` on a run: the choice of tests, and the treatment of skips."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SKIPS = """
import pytest

def test_runs():
    pass

def test_skips():
    pytest.skip("no such program")

@pytest.mark.skipif(True, reason="not today")
def test_is_marked():
    raise AssertionError
"""
SKIPPED_FILE = """
import pytest

pytest.skip("no such package", allow_module_level=True)
"""
IMPLEMENTATIONS = """
import pytest
from tests.kernels import kernels

@pytest.mark.native
def test_marked():
    pass

def test_named(native):
    pass

@pytest.fixture
def native():
    return None

def test_each(kernels):
    pass
"""


def run(folder: Path, source: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Returns a run of one test file under the repository's `conftest.py`."""
    path = folder / "test_it.py"
    path.write_text(source)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GAI_FAST_")}
    options = ["-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-p", "no:cacheprovider", "-q", *arguments]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(path)],
        cwd=ROOT,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def test_a_skip_fails_where_everything_is_required(tmp_path: Path) -> None:
    """Elsewhere it is a skip, with its reason."""
    assert "1 passed, 2 skipped" in run(tmp_path, SKIPS).stdout
    done = run(tmp_path, SKIPS, GAI_FAST_REQUIRE_ALL="1")
    assert done.returncode == 1
    assert "1 failed, 1 passed, 1 error" in done.stdout  # a mark skips before the test
    for reason in ("no such program", "not today"):
        assert f"required here (GAI_FAST_REQUIRE_ALL): Skipped: {reason}" in done.stdout


def test_a_file_that_is_skipped_fails_where_everything_is_required(tmp_path: Path) -> None:
    assert "1 skipped" in run(tmp_path, SKIPPED_FILE).stdout
    done = run(tmp_path, SKIPPED_FILE, GAI_FAST_REQUIRE_ALL="1")
    assert done.returncode != 0
    assert "required here (GAI_FAST_REQUIRE_ALL)" in done.stdout


@pytest.mark.parametrize(
    ("variable", "found"),
    [
        ("GAI_FAST_NO_EXTENSIONS", ["test_each[pure]"]),
        ("GAI_FAST_REQUIRE_EXTENSIONS", ["test_marked", "test_named", "test_each[native]"]),
        ("GAI_FAST_REQUIRE_ALL", ["test_marked", "test_named", "test_each[native]"]),
    ],
)
def test_a_run_of_one_implementation_holds_no_test_of_the_other(
    tmp_path: Path, variable: str, found: list[str]
) -> None:
    done = run(tmp_path, IMPLEMENTATIONS, "--collect-only", **{variable: "1"})
    assert [line.rpartition("::")[2] for line in done.stdout.splitlines() if "::" in line] == found


STUBS = """
needs() { :; }
nice() { "${@:3}"; }
pure() { test.sh "$@"; }
test.sh() { echo "$*"; }
"""


def files_of_steps() -> dict[str, set[Path]]:
    """Returns the files that steps of `.ci/run` test: bash prints what pytest would be given.

    Of the wheel's step, which builds in its folder, the last command alone is run.
    """
    script = (ROOT / ".ci/run").read_text().replace("ci/test.sh", "test.sh").replace("ci/check.sh", ":")
    begin, end = script.index("\nstores=("), script.index("\n# A package without compiled modules")
    steps = f"python= system_python={script[begin:end]}{STUBS}"
    commands = {name: f"{steps}step_{name}" for name in re.findall(r"^step_(\w+)\(\)", steps, re.M)}
    wheel = re.search(r"\nstep_wheel_\w+\(\) \{.*?\n  (PYTHON=\S+ test\.sh .*?)\n\}", script, re.S)
    assert wheel
    commands["wheel"] = f"{steps}{wheel[1]}"
    files = {}
    for name, command in commands.items():
        bash = ["bash", "-euc", command]
        arguments = subprocess.run(bash, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True).stdout
        if arguments:
            ignored = re.compile(r"--ignore[ =](\S+)")
            named = re.findall(r"tests/\S+", ignored.sub("", arguments)) or ["tests"]
            files[name] = files_in(named) - files_in(ignored.findall(arguments))
    return files


def files_in(paths: list[str]) -> set[Path]:
    """Returns the test files among paths and in folders, each of which must be there."""
    named = [ROOT / path.partition("::")[0] for path in paths]
    assert not [path for path in named if not path.exists()]
    return {file for path in named for file in ([path] if path.is_file() else path.rglob("test_*.py"))}


NOT_NATIVE = ("pure", "pure_units", "pure_lasting", "wheel")


def test_ci_runs_each_file_once_on_the_native_build() -> None:
    files = [file for name, files in files_of_steps().items() if name not in NOT_NATIVE for file in files]
    assert sorted(files) == sorted((ROOT / "tests").rglob("test_*.py"))


def test_ci_leaves_out_no_test_that_runs_on_interpreted_modules_alone() -> None:
    """The native build has compiled modules, so that what no other step runs would run nowhere."""
    steps = files_of_steps()
    elsewhere = set().union(*(steps[name] for name in NOT_NATIVE), [Path(__file__)])
    interpreted = {file for file in (ROOT / "tests").rglob("test_*.py") if "mark.interpreted" in file.read_text()}
    assert len(interpreted) > 1
    assert interpreted <= elsewhere
