"""Counts the work of a walk for an input of n and for one of 2n, in steps or in instructions.

Steps are lines and calls of Python, which the interpreter reports: exact, and cheap enough for a thousand walks. They
show no work of C. Instructions are of the whole process, counted by callgrind: those of the C behind `in`, `index` and
`+` count, too, but each takes fifty times as long.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from ctypes import CDLL
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType
from typing import Any

from benchmarks.instructions.counting import ROOT, build_marks
from gai_fast.kernels._pure import jsontext
from gai_fast.kernels._pure.jsontext import _depth
from gai_fast.runtime.breathing import breathe
from tests.linear.cases import TABLES, Case, Work

_SUMMARY = re.compile(rb"^(?:summary|totals): ([0-9]+)", re.M)
_KERNELS = str(Path(jsontext.__file__).parent)
_HEAD = 4096
_SMALL = 8
"""The share of n that a walk does before it is counted: it fills caches, and imports what it needs."""


def steps(case: Case) -> tuple[int, int, int]:
    """Returns the steps of a walk for n, 2n and 3n. Compiled modules have none.

    Args:
        case: The walk.
    """
    found = []
    for n in (case.n, 2 * case.n, 3 * case.n):
        forget()
        case.make(max(1, case.n // _SMALL))()
        found.append(_steps(case.make(n)))
    once, twice, thrice = found
    return once, twice, thrice


def forget() -> None:
    """Empties the caches of functions that keep a bounded number of values: an earlier walk may have filled them.

    Caches without a bound are of what the software itself has, such as providers: no input fills them.
    """
    for clear in _caches(len(sys.modules)):
        clear()


@lru_cache(1)
def _caches(modules: int) -> list[Callable[[], None]]:
    """Returns what empties each cache. A walk may import a module; `modules` is their number."""
    own = [module for name, module in [*sys.modules.items()] if name.startswith("gai_fast.")]
    values = [value for module in own for value in vars(module).values() if hasattr(value, "cache_parameters")]
    return [value.cache_clear for value in values if value.cache_parameters()["maxsize"] is not None]


Breathed = Callable[[int], None]
"""Called with the steps so far when work breathes."""


def _steps(work: Work, breathed: Breathed | None = None) -> int:
    """Returns the steps of work, without the look at a text's depth by the pure kernels: few brackets need none."""
    return (_traced if sys.version_info < (3, 12) else _monitored)(work, breathed)


def _traced(work: Work, breathed: Breathed | None) -> int:
    counted = 0

    def note(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal counted
        if frame.f_code is _depth.__code__ or (breathed is not None and _is_of_kernels(frame)):
            return None
        counted += 1
        if breathed is not None and event == "call" and frame.f_code is breathe.__code__:
            breathed(counted)
        return note

    before = sys.gettrace()
    sys.settrace(note)
    try:
        work()
    finally:
        sys.settrace(before)
    return counted


def _is_of_kernels(frame: FrameType) -> bool:
    """Returns whether a frame is of the pure kernels, or called by them."""
    caller = frame.f_back
    callers = (frame,) if caller is None else (frame, caller)
    return any(each.f_code.co_filename.startswith(_KERNELS) for each in callers)


def longest_turn(work: Work) -> int:
    """Returns the most steps of a walk between two breaths, without those of the pure kernels: natively they are C.

    Args:
        work: The walk.
    """
    longest = last = 0

    def breathed(counted: int) -> None:
        nonlocal longest, last
        longest, last = max(longest, counted - last), counted

    breathed(_steps(work, breathed))
    return longest


def _monitored(work: Work, breathed: Breathed | None) -> int:
    """Jumps count, too: they are the only steps of a comprehension in one line. Takes two thirds of the time."""
    counted = 0
    monitoring = sys.monitoring
    events, tool = monitoring.events, monitoring.PROFILER_ID

    def note(code: CodeType, place: int, target: int = 0) -> object:
        nonlocal counted
        if code is _depth.__code__:
            return monitoring.DISABLE
        if breathed is not None and _is_of_kernels(sys._getframe(1)):
            return None
        counted += 1
        if breathed is not None and code is breathe.__code__:
            breathed(counted)
        return None

    monitoring.use_tool_id(tool, "steps")
    try:
        for event in (events.PY_START, events.LINE, events.JUMP):
            monitoring.register_callback(tool, event, note)
        monitoring.set_events(tool, events.PY_START | events.LINE | events.JUMP)
        work()
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    return counted


def instructions(table: str, timeout: float) -> dict[str, tuple[int, int]]:
    """Returns the instructions of each walk of a table for n and for 2n.

    Args:
        table: The table's name.
        timeout: Seconds.

    Raises:
        RuntimeError: valgrind or a C compiler is missing, or a walk failed.
    """
    with TemporaryDirectory() as folder:
        marks = build_marks(Path(folder))
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out"]
        done = subprocess.run(
            [*command, sys.executable, "-m", "tests.linear.counting", table, str(marks), folder],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"the walks failed ({done.returncode}):\n{done.stderr[-2000:]}")
    found: dict[str, tuple[int, int]] = {}
    for line in done.stdout.splitlines():
        name, once, twice = json.loads(line)
        found[name] = once, twice
    return found


def count(case: Case, marks: CDLL, folder: Path) -> list[int]:
    """Returns the instructions of a walk for n and for 2n; under callgrind.

    Args:
        case: The walk.
        marks: The library that controls callgrind.
        folder: Where it writes its counts.
    """
    case.make(max(1, case.n // _SMALL))()
    found = []
    for n in (case.n, 2 * case.n):
        work = case.make(n)
        marks.gai_count_from_here()
        work()
        marks.gai_dump(b"walk")
        for file in folder.glob("out.*"):
            with file.open("rb") as counts:
                summary = _SUMMARY.search(counts.read(_HEAD))
            file.unlink()
            assert summary is not None
            found.append(int(summary[1]))
    return found


def main(table: str, marks: str, folder: str) -> None:
    """Writes a line for each walk of a table."""
    library = CDLL(marks)
    gc.disable()
    for name, case in TABLES[table]().items():
        print(json.dumps([name, *count(case, library, Path(folder))]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
