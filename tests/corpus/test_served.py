"""Every recording through a running gateway, over a socket on both sides; `served.py` says what is compared."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import NamedTuple

import pytest

from tests.corpus.recordings import RECORDED, ROOT, judge, recordings_of
from tests.corpus.summary import note_exact
from tests.corpus.test_recordings import environment
from tests.kernels import IMPLEMENTATIONS


class Served(NamedTuple):
    """The report of a process on all recordings.

    Args:
        implementation: Its implementation.
        compared: How many recordings of each provider it served and compared.
        wrong: What is wrong with those that are not exact, by their names.
    """

    implementation: str
    compared: dict[str, int]
    wrong: dict[str, str]


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def served(request: pytest.FixtureRequest) -> Served:
    """Returns the recordings that a process with one implementation compared."""
    judge()
    result = subprocess.run(
        [sys.executable, "-m", "tests.corpus.served"],
        cwd=ROOT,
        env=environment(request.param),
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = Served(*json.loads(result.stdout))
    assert found.implementation == request.param
    return found


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("provider", RECORDED)
def test_a_running_server_says_of_every_recording_what_decode_says(provider: str, served: Served) -> None:
    names = [recording.name for recording in recordings_of(provider)]
    wrong = {name: served.wrong[name] for name in names if name in served.wrong}
    judged = served.compared.get(provider, 0)
    note_exact(f"{served.implementation}, through a server", provider, judged - len(wrong), judged)
    assert not wrong
    assert judged == len(names)
