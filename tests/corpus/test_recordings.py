"""Recorded answers of real providers, judged by the corpus' own judge; they stay outside the repository.

`GAI_FAST_CORPUS` names their folder. Each implementation runs in a process of its own, since one process has one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels import IMPLEMENTATIONS, is_set, load

ROOT = Path(__file__).parents[2]
CORPUS = Path(os.environ.get("GAI_FAST_CORPUS") or ROOT / "../shared/streams").resolve()

# The APIs that are built; the others come with their providers.
APIS = ("openai.chat", "openai.completions", "anthropic.messages")


def judge() -> Path:
    """The judge's path; without the corpus a skip, or a failure where everything is required."""
    path = CORPUS / "score.py"
    if not path.is_file():
        missing = f"no recordings: {path} is missing (GAI_FAST_CORPUS names their folder)"
        if is_set("GAI_FAST_REQUIRE_ALL"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@pytest.mark.timeout(300)
@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_recording_is_exact_at_every_split(implementation: str, api: str) -> None:
    path = judge()
    load(implementation)
    choice = {"native": "GAI_FAST_REQUIRE_EXTENSIONS", "pure": "GAI_FAST_NO_EXTENSIONS"}[implementation]
    others = {name: value for name, value in os.environ.items() if name != "GAI_FAST_REQUIRE_EXTENSIONS"}
    told = subprocess.run(
        [sys.executable, str(path), "--api", api, "--implementation", implementation, "--verbose", "--min-pct", "100"],
        env={**others, "PYTHONPATH": str(ROOT), choice: "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
