"""The figures of a process."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from gai_fast.server.observe.metrics import PROCESS
from gai_fast.server.observe.process import process_figures

STAT = "17 (a (name) of) spaces) S " + " ".join(map(str, range(1, 50)))


def proc(folder: Path, descriptors: int = 3) -> Path:
    own = folder / "self"
    (own / "fd").mkdir(parents=True)
    for number in range(descriptors):
        (own / "fd" / str(number)).touch()
    (own / "statm").write_text("100 20 3 4 0 5 0\n")
    (own / "stat").write_text(STAT)
    (folder / "stat").write_text("cpu 1 2 3\nbtime 1000\nprocesses 5\n")
    return folder


def test_the_figures_are_those_that_the_system_tells(tmp_path: Path) -> None:
    page, ticks = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    figures = process_figures(proc(tmp_path))
    assert figures["process_virtual_memory_bytes"] == 100 * page
    assert figures["process_resident_memory_bytes"] == 20 * page
    assert figures["process_start_time_seconds"] == 1000 + 19 / ticks


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_this_process_has_all_of_them() -> None:
    figures = process_figures()
    assert set(figures) == set(PROCESS)
    assert abs(figures["process_open_fds"] - sum(1 for _ in Path("/proc/self/fd").iterdir())) <= 1
    assert 0 < figures["process_start_time_seconds"] <= time.time()
    assert figures["process_cpu_seconds"] > 0


def test_without_proc_there_are_those_that_every_system_tells(tmp_path: Path) -> None:
    assert set(process_figures(tmp_path / "none")) == {"process_cpu_seconds", "process_max_fds"}
