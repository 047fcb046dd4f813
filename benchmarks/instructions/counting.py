"""Runs the cases under callgrind and reads its counts.

One process for all of them: valgrind starts slowly. It counts nothing until the first mark, and writes one file a mark.
"""

from __future__ import annotations

import gc
import importlib
import os
import platform
import re
import subprocess
import sys
import sysconfig
from ctypes import CDLL
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

from benchmarks.instructions.cases import CASES, COUNT, COUNTS, GROWTH_COUNT, GROWTHS
from gai_fast.kernels import IMPLEMENTATION

ROOT = Path(__file__).parents[2]
MARKS = Path(__file__).with_name("marks.c")
TIMEOUT = 300

_POSITIONS = frozenset("+-*0123456789")
"""The beginnings of a line that has a cost."""
_ALLOCATORS = {"malloc", "realloc", "calloc"}
_NAMED = re.compile(r"(c?)(ob|fn)=(?:\((\d+)\))?\s*(.*)")


@dataclass(frozen=True, slots=True)
class Counted:
    """The counts in one of callgrind's files.

    Args:
        kernels: Instructions in our kernels.
        allocations: Calls of allocators by our kernels.
        everything: Instructions of the process.
        without_libc: Instructions of the process outside libc.
    """

    kernels: int
    allocations: int
    everything: int
    without_libc: int


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one case, an event."""

    instructions: float
    allocations: float
    growth: float
    """Returns the cost of twice as many events, divided by the cost of the events."""


def environment() -> str:
    """Returns the environment that the counts depend on."""
    simd = importlib.import_module("gai_fast.kernels._native.encoders")
    version = ".".join(platform.python_version_tuple()[:2])
    # Extensions are compiled with the flags that the interpreter was.
    flags = crc32((sysconfig.get_config_var("CFLAGS") or "").encode())
    return f"{platform.machine()}, {simd.build()}, python {version}, flags {flags:08x}, {counted_form()}"


def counted_form() -> str:
    """Returns the name of the vector loops' form that is counted: vectors if the machine has them."""
    forms: tuple[str, ...] = importlib.import_module("gai_fast.kernels._native.encoders").forms()
    return forms[-1]


def counted_environment() -> dict[str, str]:
    """Returns the variables of a process that is counted: it has the kernels that this process has."""
    if IMPLEMENTATION == "pure":
        return {"PYTHONHASHSEED": "0", "GAI_FAST_NO_EXTENSIONS": "1"}
    return {"PYTHONHASHSEED": "0", "GAI_FAST_REQUIRE_EXTENSIONS": "1", "GAI_FAST_SIMD": counted_form()}


def measure() -> tuple[dict[str, Cost], dict[str, float]]:
    """Returns the cost of each case; for `GROWTHS` also the cost of twice the work, divided by the cost of the work.

    Raises:
        RuntimeError: valgrind or a C compiler is missing, or a run failed.
    """
    with TemporaryDirectory() as folder:
        marks = build_marks(Path(folder))
        _run(
            [
                "valgrind",
                "--tool=callgrind",
                "--instr-atstart=no",
                f"--callgrind-out-file={folder}/out",
                sys.executable,
                "-m",
                "benchmarks.instructions",
                "run",
                str(marks),
            ],
            counted_environment(),
        )
        counted = {}
        for file in Path(folder).glob("out.*"):
            if name := mark_of(file):
                counted[name] = read(file)
    costs = {name: _cost(COUNTS.get(name, COUNT), counted[f"{name}/1"], counted[f"{name}/2"]) for name in CASES}
    return costs, {name: counted[f"{name}/2"].everything / counted[f"{name}/1"].everything for name in GROWTHS}


def _cost(n: int, once: Counted, twice: Counted) -> Cost:
    kernels, allocations = twice.kernels - once.kernels, twice.allocations - once.allocations
    return Cost(kernels / n, allocations / n, twice.kernels / once.kernels)


def build_marks(folder: Path) -> Path:
    """Compiles the library through which a process controls callgrind.

    Raises:
        RuntimeError: There is no C compiler, or valgrind's headers are missing.
    """
    marks = folder / "marks.so"
    _run([os.environ.get("CC", "cc"), "-O1", "-shared", "-fPIC", str(MARKS), "-o", str(marks)], {})
    return marks


def _run(command: list[str], variables: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise RuntimeError(f"{command[0]} is needed to count instructions") from None
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed ({done.returncode}):\n{done.stderr[-2000:]}")


def run_cases(marks_path: str) -> None:
    """Under valgrind: does every case n and 2n times, and marks each."""
    marks = CDLL(marks_path)
    gc.disable()
    for name, make in (CASES | GROWTHS).items():
        run = make()
        n = GROWTH_COUNT if name in GROWTHS else COUNTS.get(name, COUNT)
        run(n)  # warm-up: buffers grow, strings are made
        for times in (1, 2):
            marks.gai_count_from_here()
            run(times * n)
            marks.gai_dump(f"{name}/{times}".encode())


def read(file: Path) -> Counted:
    """Reads one of callgrind's files.

    Valgrind's manual, "Callgrind Format Specification", describes the format: names are given once with a number.
    """
    names: dict[tuple[str, str], str] = {}
    here = {"ob": "", "fn": "", "cob": "", "cfn": ""}
    ours = allocations = everything = libc = 0
    called = -1  # no call; callgrind counts 0 for what calls the main function of a thread
    is_ours = is_libc = False
    for line in file.read_text().splitlines():
        if line[:1] in _POSITIONS:
            if called >= 0:
                # The cost of the call is the callee's.
                if is_ours and here["cfn"].partition("@")[0] in _ALLOCATORS:
                    allocations += called
                called = -1
            elif is_ours:
                ours += int(line.rpartition(" ")[2])
            elif is_libc:
                libc += int(line.rpartition(" ")[2])
        elif named := _NAMED.match(line):
            callee, kind, number, name = named.groups()
            if number and name:
                names[kind, number] = name
            here[callee + kind] = name = names.get((kind, number), name) if number else name
            if kind == "ob" and not callee:
                is_ours = "/gai_fast/kernels/_native/" in name
                is_libc = "/libc.so" in name or "/libc-" in name
        elif line.startswith("calls="):
            called = int(line[6:].split()[0])
        elif line.startswith("summary: "):
            everything = int(line[9:])
    return Counted(ours, allocations, everything, everything - libc)


def mark_of(file: Path) -> str:
    """The name of the mark that a file was written at; empty for what callgrind writes when the process ends."""
    found = re.search(r"^desc: Trigger: Client Request: (.*)$", file.read_text(), re.M)
    return found[1] if found else ""
