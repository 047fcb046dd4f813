"""The choice of tests in a run, the treatment of skips, and the files that each step of `.ci/run` tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
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
INTERPRETED_STEPS = ("pure", "pure_units", "pure_lasting", "wheel")
"""The steps whose modules are not compiled by mypyc."""


@pytest.fixture(scope="module")
def script() -> str:
    return (ROOT / ".ci/run").read_text()


@pytest.fixture(scope="module")
def steps(script: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[Path]]:
    """Returns the test files of each step of `.ci/run`.

    Bash runs the step, in an empty folder and without programs, with a stub that prints pytest's arguments. The step of
    the wheel builds first, so only its last command is run.
    """
    text = script.replace("ci/test.sh", "test.sh").replace("ci/check.sh", ":")
    begin, end = text.index("\nstores=("), text.index("\n# A package without compiled modules")
    functions = f"python= system_python={text[begin:end]}{STUBS}"
    commands = {name: f"{functions}step_{name}" for name in re.findall(r"^step_(\w+)\(\)", functions, re.M)}
    wheel = re.search(r"\nstep_wheel_\w+\(\) \{.*?\n  (PYTHON=\S+ test\.sh .*?)\n\}", text, re.S)
    assert wheel
    commands["wheel"] = f"{functions}{wheel[1]}"
    bash = shutil.which("bash")
    assert bash
    folder = tmp_path_factory.mktemp("empty")
    files = {}
    for name, command in commands.items():
        line = [bash, "-euc", command]
        done = subprocess.run(
            line, cwd=folder, env={"PATH": ""}, capture_output=True, text=True, timeout=10, check=True
        )
        if arguments := done.stdout:
            assert arguments.count("\n") == 1  # a step has one pytest
            ignored = re.findall(r"--ignore[ =](\S+)", arguments)
            named = re.sub(r"--ignore[ =]\S+", "", arguments).split()
            assert not [each for each in named if not each.startswith("tests/")]
            # pytest collects an argument although it is ignored.
            paths = [each.partition("::")[0] for each in named]
            assert not [each for each in paths for path in ignored if f"{each}/".startswith(f"{path}/")]
            whole = [each for each in named if "::" not in each] if named else ["tests"]
            files[name] = files_in(whole) - files_in(ignored)
    return files


def files_in(paths: list[str]) -> set[Path]:
    """Returns the test files that paths name or contain. Each path must exist."""
    found = [ROOT / path for path in paths]
    missing = [path for path in found if not path.exists()]
    assert not missing, missing
    return {file for path in found for file in ([path] if path.is_file() else path.rglob("test_*.py"))}


def test_ci_runs_each_file_once_on_the_native_build(script: str, steps: dict[str, set[Path]]) -> None:
    """`simd` and `sanitizers`, which are not counted, repeat some files on other builds of the kernels."""
    counts = Counter(file for name, files in steps.items() if name not in INTERPRETED_STEPS for file in files)
    problems = {file: counts[file] for file in {*counts, *files_in(["tests"])} if counts[file] != 1}
    assert not problems, problems
    summed = re.search(r"tail -qn 1 \S+/\{([\w,]+)\}\.log", script)
    assert summed
    assert sorted(summed[1].split(",")) == sorted(name for name in steps if name not in INTERPRETED_STEPS)


def test_ci_begins_each_of_its_steps_once(script: str) -> None:
    queue = re.search(r"^steps=\((.*?)\)", script, re.M | re.S)
    assert queue
    assert sorted(queue[1].split()) == sorted(re.findall(r"^step_(\w+)\(\)", script, re.M))


def test_ci_runs_each_interpreted_test_in_some_step(script: str, steps: dict[str, set[Path]]) -> None:
    """A test marked `interpreted` does not run on the native build, so another step must have its file."""
    pure = re.search(r"^pure\(\) \{\n(.*?)^\}", script, re.M | re.S)
    assert pure
    assert re.search(r"^  .*GAI_FAST_NO_EXTENSIONS=1 ", pure[1], re.M)
    assert pure[1].endswith(' ci/test.sh "$@"\n')
    assert re.search(r"^step_wheel_\w+\(\) \{\n  export .*GAI_FAST_MYPYC=0", script, re.M)
    interpreted = {file for file in files_in(["tests"]) if "mark.interpreted" in file.read_text()}
    interpreted.remove(Path(__file__))  # which only names the mark
    assert interpreted
    missing = interpreted - set().union(*(steps[name] for name in INTERPRETED_STEPS))
    assert not missing, missing
