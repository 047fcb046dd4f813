"""Every recording through a running gateway, over a socket on both sides; `served.py` says what is compared."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.corpus.recordings import RECORDED, ROOT, judge, note_exact, recordings_of
from tests.corpus.test_recordings import environment
from tests.kernels import IMPLEMENTATIONS


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def served(request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    """An implementation, and what is wrong with the recordings that it does not serve exactly."""
    judge()
    told = subprocess.run(
        [sys.executable, "-m", "tests.corpus.served"],
        cwd=ROOT,
        env=environment(request.param),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    implementation, wrong = json.loads(told.stdout)
    assert implementation == request.param
    return implementation, wrong


@pytest.mark.timeout(300)
@pytest.mark.parametrize("provider", RECORDED)
def test_a_running_server_says_of_every_recording_what_decode_says(
    provider: str, served: tuple[str, dict[str, str]]
) -> None:
    implementation, wrong = served
    recordings = recordings_of(provider)
    note_exact(f"{implementation}, through a server", recordings, wrong)
    assert not {recording.name: wrong[recording.name] for recording in recordings if recording.name in wrong}
