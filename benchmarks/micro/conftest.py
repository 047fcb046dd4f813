"""The shared parts of all micro benchmarks: the two implementations, the core, and the table at the end."""

from __future__ import annotations

import gc
import os
import platform
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from gai_fast import kernels as switch
from tests.kernels import load

IMPLEMENTATIONS = ("native", "pure")


class Figure(NamedTuple):
    """One case on one implementation, per event."""

    case: str
    implementation: str
    nanoseconds: float
    kept: float
    recera: str


FIGURES: list[Figure] = []


@pytest.fixture(scope="session", params=IMPLEMENTATIONS)
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    return load(request.param)


@pytest.fixture(scope="session", autouse=True)
def one_core() -> Iterator[None]:
    """The last core: the first one serves interrupts. Frees and freezes what exists, so that no collection falls in."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if before:
        os.sched_setaffinity(0, {max(before)})
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()
    if before:
        os.sched_setaffinity(0, before)


def blocks_kept(call: Callable[[], Any], events: int) -> float:
    """Blocks of Python's allocator that a call leaves behind, an event: its results, and the memory of buffers.

    Blocks that are freed again are not seen: calls of allocators are counted by `benchmarks.instructions`.
    """
    calls = 200
    kept: list[Any] = [None] * calls
    call()
    before = sys.getallocatedblocks()
    for number in range(calls):
        kept[number] = call()
    return max(0, sys.getallocatedblocks() - before - 1) / calls / events


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Times a call that handles so many events, and notes the published figure of Go's gai (`""`: none)."""

    def measured(call: Callable[[], Any], *, events: int = 1, recera: str = "") -> None:
        kept = blocks_kept(call, events)
        benchmark.extra_info |= {"events": events, "blocks_kept_per_event": kept, "recera": recera}
        benchmark(call)
        if benchmark.stats is None:
            return  # --benchmark-disable
        variants = request.node.callspec.id.split("-") if hasattr(request.node, "callspec") else []
        implementation = next((name for name in IMPLEMENTATIONS if name in variants), switch.IMPLEMENTATION)
        name = request.node.originalname.removeprefix("test_").replace("_", " ")
        name = ", ".join([name, *(variant for variant in variants if variant != implementation)])
        FIGURES.append(Figure(name, implementation, benchmark.stats.stats.min * 1e9 / events, kept, recera))

    return measured


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not FIGURES:
        return
    write = terminalreporter.write_line
    terminalreporter.section("per event, fastest round")
    write(f"{platform.processor() or platform.machine()}, CPython {platform.python_version()}, one core, no collection")
    write(f"{'':46} {'native':>12} {'pure':>12} {'blocks kept':>12}   recera/gai")
    for case in dict.fromkeys(figure.case for figure in FIGURES):
        found = {figure.implementation: figure for figure in FIGURES if figure.case == case}
        times = [f"{found[name].nanoseconds:,.0f} ns" if name in found else "" for name in IMPLEMENTATIONS]
        first = next(iter(found.values()))
        kept = f"{first.kept:.1f}"
        write(f"{case:46} {times[0]:>12} {times[1]:>12} {kept:>12}   {first.recera}".rstrip())
