"""Recorded answers of real providers, judged by the corpus' own judge.

Each implementation runs in a process of its own, since one process has one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.corpus.recordings import APIS, ROOT, judge, note_exact, recordings
from tests.kernels import IMPLEMENTATIONS


def environment(implementation: str) -> dict[str, str]:
    """The environment of a process that has this implementation."""
    choice = {"native": "GAI_FAST_REQUIRE_EXTENSIONS", "pure": "GAI_FAST_NO_EXTENSIONS"}[implementation]
    others = {name: value for name, value in os.environ.items() if name != "GAI_FAST_REQUIRE_EXTENSIONS"}
    return {**others, "PYTHONPATH": str(ROOT), choice: "1"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_recording_is_exact_at_every_split(implementation: str, api: str) -> None:
    path = judge()
    told = subprocess.run(
        [sys.executable, str(path), "--api", api, "--implementation", implementation, "--verbose", "--min-pct", "100"],
        env=environment(implementation),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    judged = [recording for recording in recordings() if recording.api == api]
    has_judged = re.search(r"^whole +\d+ of \d+ exact$", told.stdout, re.M)
    failed = re.findall(r"^FAIL (\S+) ", told.stdout, re.M) if has_judged else [one.name for one in judged]
    note_exact(implementation, judged, failed)
    assert told.returncode == 0, told.stdout + told.stderr


def test_every_api_of_the_recordings_is_judged() -> None:
    assert {recording.api for recording in recordings()} == set(APIS)
