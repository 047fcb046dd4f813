"""The version has one source, which a build reads without importing the package."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import gai_fast
from gai_fast.model import version

ROOT = Path(__file__).parents[3]


def test_the_package_shows_the_version() -> None:
    assert gai_fast.__version__ == version.__version__


def test_a_build_reads_the_version_from_this_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": f"{version.__name__}.__version__"}
    module = ast.parse(Path(version.__file__).read_text())
    assigned = [node for node in module.body if isinstance(node, ast.Assign)]
    assert [ast.literal_eval(node.value) for node in assigned] == [
        version.__version__
    ]  # setuptools evaluates a literal
