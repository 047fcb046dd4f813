"""`gai_fast/kernels/__init__.py`: one implementation, all or nothing, and no fault hidden."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from gai_fast import kernels as switch
from tests.kernels import load

ROOT = Path(__file__).parents[2]
OFF_THE_HOT_PATH = ("ArrayFramer", "head_of")
VALUES_AND_INTERFACES = ("Borrower", "Frame", "FrameLog", "LendingTransport", "Part", "Piece", "SSEEvent")
ERRORS = ("BufferTooSmall", "NotJSON")
SWITCHES = ("GAI_FAST_NO_EXTENSIONS", "GAI_FAST_REQUIRE_EXTENSIONS", "GAI_FAST_SIMD")

# Runs in a fresh interpreter: stands in for a `_native` module that is missing or broken, then imports the switch.
SCRIPT = """
import importlib.abc, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "gai_fast.kernels._native.parsers":
            raise {error}
sys.meta_path.insert(0, Finder()) if {error!r} != "None" else None
from gai_fast import kernels as switch
names = ("escape", "SSEEncoder", "SSEFramer", "NDJSONParser")
homes = {{getattr(switch, name).__module__.split(".")[2] for name in names}}
print(switch.IMPLEMENTATION, *sorted(homes))
print("simd", switch.SIMD, file=sys.stderr)
"""
MISSING = "ModuleNotFoundError(name, name=name)"


def run(error: str = "None", **switches: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(error=error)],
        env={**environment, **switches},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def test_the_switch_has_every_name_of_one_implementation() -> None:
    kernels = load(switch.IMPLEMENTATION)
    assert all(getattr(switch, name) is getattr(kernels, name) for name in kernels.__all__)


def test_both_implementations_have_the_same_names(both: tuple[ModuleType, ModuleType]) -> None:
    native, pure = both
    assert native.__all__ == pure.__all__
    for name in pure.__all__:
        public = {member for member in dir(getattr(pure, name)) if not member.startswith("_")}
        assert public == {member for member in dir(getattr(native, name)) if not member.startswith("_")}, name
    shared = {name for name in pure.__all__ if getattr(native, name) is getattr(pure, name)}
    assert shared == {*OFF_THE_HOT_PATH, *VALUES_AND_INTERFACES, *ERRORS}


@pytest.mark.native
def test_native_is_taken_where_it_is_built() -> None:
    assert run().stdout == "native _native\n"


def test_no_extensions_runs_pure() -> None:
    assert run(GAI_FAST_NO_EXTENSIONS="1").stdout == "pure _pure\n"


def test_a_missing_module_of_ours_means_not_built() -> None:
    assert run(MISSING).stdout == "pure _pure\n"


def test_required_extensions_that_are_missing_are_a_failure() -> None:
    result = run(MISSING, GAI_FAST_REQUIRE_EXTENSIONS="1")
    assert result.returncode == 1
    assert "ModuleNotFoundError" in result.stderr
    assert "gai_fast.kernels._native." in result.stderr


@pytest.mark.native
@pytest.mark.parametrize("error", ["ImportError('undefined symbol')", "ModuleNotFoundError('orjson', name='orjson')"])
def test_any_other_import_error_is_a_fault(error: str) -> None:
    result = run(error)
    assert result.returncode == 1
    assert error.split("'")[1] in result.stderr


@pytest.mark.native
def test_gai_fast_simd_chooses_a_form_that_is_there() -> None:
    from gai_fast.kernels._native import encoders

    for form in ("", *encoders.forms()):
        result = run(GAI_FAST_SIMD=form)
        assert result.stdout == "native _native\n"
        assert result.stderr == f"simd {form or encoders.forms()[-1]}\n"
    for removed in ("avx2", "avx512") if "sse" in encoders.forms() else ():
        assert run(GAI_FAST_SIMD=removed).stderr == "simd sse\n"
    foreign = "sse" if "neon" in encoders.forms() else "neon"
    for form in ("avx1024", foreign, "SCALAR"):
        result = run(GAI_FAST_SIMD=form)
        assert result.returncode == 1
        found = f"GAI_FAST_SIMD='{form}': this machine and build can run {', '.join(encoders.forms())}"
        assert result.stderr.splitlines()[-1] == f"ImportError: {found}"


def test_pure_python_has_no_form_to_choose() -> None:
    assert run(GAI_FAST_NO_EXTENSIONS="1", GAI_FAST_SIMD="").stderr == "simd None\n"
    result = run(GAI_FAST_NO_EXTENSIONS="1", GAI_FAST_SIMD="scalar")
    assert result.returncode == 1
    assert "GAI_FAST_SIMD='scalar' names a form of the native kernels, and pure Python is in use" in result.stderr


def test_declarations_of_the_kernels_are_not_installed() -> None:
    """Without their C headers nobody could use them; docs/architecture/kernels.md, "The kernels"."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert project["include-package-data"] is False
    assert "gai_fast" in project["package-data"]
    assert not [ending for endings in project["package-data"].values() for ending in endings if ending.endswith("pxd")]
