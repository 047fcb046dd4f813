"""Recorded answers of real providers, judged by the corpus' own judge.

Each implementation runs in a process of its own, since one process has one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.corpus.recordings import APIS, ROOT, judge, recordings
from tests.corpus.summary import note_exact
from tests.kernels import IMPLEMENTATIONS, IS_REPEATED

WAYS, SPLITS = (["--split", "random:1"], 1) if IS_REPEATED else ([], 3)
"""The judge's arguments, and in how many ways it cuts each answer: whole, byte by byte and at random.

Of a run that repeats another's, at random alone: `test_splits.py` compares an answer in one piece with its cuts, and
`tests/parity/test_relay.py` reads recordings byte by byte on both kernels.
"""


def environment(implementation: str) -> dict[str, str]:
    """Returns the environment of a process that has this implementation."""
    choice = {"native": "GAI_FAST_REQUIRE_EXTENSIONS", "pure": "GAI_FAST_NO_EXTENSIONS"}[implementation]
    others = {name: value for name, value in os.environ.items() if name != "GAI_FAST_REQUIRE_EXTENSIONS"}
    return {**others, "PYTHONPATH": str(ROOT), choice: "1"}


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_recording_is_exact_at_every_split(implementation: str, api: str) -> None:
    path = judge()
    asked = ["--api", api, "--implementation", implementation, "--verbose", "--min-pct", "100", *WAYS]
    result = subprocess.run(
        [sys.executable, str(path), *asked],
        env=environment(implementation),
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )
    expected = sum(recording.api == api for recording in recordings())
    # A line for each way of cutting; without them the judge has counted nothing.
    counted = [tuple(map(int, found)) for found in re.findall(r"^\S+ +(\d+) of (\d+) exact$", result.stdout, re.M)]
    note_exact(implementation, api, *min(counted, default=(0, 0)))
    assert result.returncode == 0, result.stdout + result.stderr
    assert counted == [(expected, expected)] * SPLITS


def test_every_api_of_the_recordings_is_judged() -> None:
    assert {recording.api for recording in recordings()} == set(APIS)
