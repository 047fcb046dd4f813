"""`gai_fast/runtime/processes.py`: a process that has ended is known by its name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gai_fast.runtime import processes
from gai_fast.runtime.processes import has_ended, process_name

PROGRAM = "import sys; from gai_fast.runtime.processes import process_name; print(process_name(), flush=True); input()"

pytestmark = pytest.mark.skipif(not process_name(), reason="the system does not name its processes")


def test_a_process_has_ended_when_it_is_killed_and_not_while_it_stands_still() -> None:
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        name = child.stdout.readline().strip()
        assert not has_ended(name)
        os.kill(child.pid, signal.SIGSTOP)
        assert not has_ended(name)
    finally:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert has_ended(name), "nobody has asked for its exit code yet"
    child.communicate()
    assert has_ended(name)


def test_another_process_with_the_same_number_is_another_process() -> None:
    machine, pid, start = process_name().split(".")
    assert not has_ended(process_name())
    assert has_ended(f"{machine}.{pid}.{int(start) - 1}")


@pytest.mark.parametrize("name", ["", "machine.1.1", "a.b.c", ".1.1", "x..", process_name().partition(".")[0]])
def test_nothing_is_known_of_other_machines_and_other_texts(name: str) -> None:
    assert not has_ended(name)


def test_a_system_without_proc_names_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = process_name()
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    assert process_name() == ""
    assert not has_ended(name)
    assert not has_ended(".1.1")
