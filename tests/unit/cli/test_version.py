"""`gai-fast version`: what a bug report needs."""

from __future__ import annotations

import json
import platform

from gai_fast import IMPLEMENTATION
from gai_fast.kernels import MODULES, SIMD
from gai_fast.model.version import __version__

from .conftest import Run


def test_it_prints_the_version_and_the_implementation(run: Run) -> None:
    first, second, third, *_ = run("version").output.splitlines()
    assert second == f"modules {MODULES}"
    assert third == f"simd {SIMD or 'none'}"
    assert first.startswith(f"gai-fast {__version__} ({IMPLEMENTATION}, {platform.python_implementation()} ")


def test_json_holds_the_dependencies(run: Run) -> None:
    shown = json.loads(run("version", "--json").output)
    assert shown["version"] == __version__
    assert shown["implementation"] == IMPLEMENTATION
    assert shown["modules"] == MODULES
    assert shown["simd"] == SIMD
    assert shown["dependencies"]["httptools"]
