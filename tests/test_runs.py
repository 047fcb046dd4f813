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


def test_ci_leaves_out_no_test_that_runs_on_interpreted_modules_alone() -> None:
    """Its other steps have compiled modules, so that what `step_pure` ignores would run nowhere."""
    step = (ROOT / ".ci/run").read_text().partition("\nstep_pure() {")[2].partition("\n}\n")[0]
    ignored = [ROOT / path for path in re.findall(r"--ignore (\S+)", step)]
    assert ignored
    files = [file for path in ignored for file in ([path] if path.is_file() else path.rglob("test_*.py"))]
    assert all(path.exists() for path in ignored)
    assert not [str(file) for file in files if "mark.interpreted" in file.read_text()]
