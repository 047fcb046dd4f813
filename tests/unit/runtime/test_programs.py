"""Programs that print secrets: what they print, and every way in which they fail."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence

import pytest

from gai_fast.runtime.programs import Cancellation, ProgramError, output_of


def run(script: str, *, seconds: float = 10.0, most: int = 100) -> bytes:
    return output_of([sys.executable, "-S", "-c", script], Cancellation(), seconds=seconds, most=most)


def test_what_a_program_prints_is_returned_and_its_standard_error_is_not() -> None:
    assert run("import sys; print('word'); print('secret', file=sys.stderr)") == b"word\n"


def test_a_program_gets_no_input() -> None:
    assert run("import sys; print(len(sys.stdin.read()))") == b"0\n"


@pytest.mark.parametrize(
    ("script", "fault", "expected"),
    [
        ("print('s' * 101)", "output", "prints more than 100 bytes"),
        ("print('secret'); raise SystemExit(3)", "failed", "exited with code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "failed", "was ended by signal 15"),
        ("import time; time.sleep(60)", "late", "has not ended within 0.5 s"),
    ],
)
def test_a_program_that_fails_is_reported_without_what_it_printed(script: str, fault: str, expected: str) -> None:
    with pytest.raises(ProgramError) as refused:
        run(script, seconds=0.5 if fault == "late" else 10.0)
    assert (str(refused.value), refused.value.fault) == (expected, fault)


@pytest.mark.parametrize("command", [["/no/such/program"], ["nul\0"]])
def test_a_program_that_cannot_be_run_is_reported(command: Sequence[str]) -> None:
    with pytest.raises(ProgramError, match=r"^cannot be run: ") as refused:
        output_of(command, Cancellation(), seconds=1.0, most=1)
    assert refused.value.fault == "missing"


def test_another_thread_ends_a_program() -> None:
    cancellation = Cancellation()
    threading.Timer(0.2, cancellation.cancel).start()
    begun = time.monotonic()
    with pytest.raises(ProgramError, match="signal 9"):
        output_of(["sleep", "60"], cancellation, seconds=30.0, most=1)
    assert time.monotonic() - begun < 10
