"""The memory of the process: what it may have, what it has, and what is done if it is short."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from gai_fast.model.limits import MIB
from gai_fast.model.settings import LimitSettings
from gai_fast.runtime.timers import TimerWheel
from gai_fast.server.admission import memory
from gai_fast.server.admission.memory import MemoryWatch, Resident, give_back, memory_limit, watch_memory
from gai_fast.server.admission.server_limits import ServerLimits
from tests.limits import LIMITS

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def groups(root: Path, lines: str, **limits: str) -> Path:
    """Returns a system whose process is in these control groups; `__` stands for `/` in the names of the files."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(lines)
    for name, text in limits.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("lines", "limits", "expected"),
    [
        ("0::/\n", {}, MACHINE),
        ("0::/\n", {"memory_dot_max": "1000\n"}, 1000),
        ("0::/\n", {"memory_dot_max": "max\n"}, MACHINE),
        ("0::/a/b\n", {"a__b__memory_dot_max": "3000\n", "a__memory_dot_max": "2000\n"}, 2000),
        ("0::/a/b\n", {"a__b__memory_dot_max": "max\n", "memory_dot_max": "4000\n"}, 4000),
        ("0::/seen/from/outside\n", {"memory_dot_max": "5000\n"}, 5000),
        ("4:memory:/c\n0::/\n", {"memory__c__memory_dot_limit_in_bytes": "6000\n"}, 6000),
        ("4:cpu,memory:/c\n", {"memory__memory_dot_limit_in_bytes": "7000\n"}, 7000),
        ("4:memory:/c\n", {"memory__c__memory_dot_limit_in_bytes": "9223372036854771712\n"}, MACHINE),
        ("5:cpuset:/c\n", {"memory__memory_dot_limit_in_bytes": "8000\n"}, MACHINE),
    ],
)
def test_the_least_limit_of_the_machine_and_the_groups_counts(
    tmp_path: Path, lines: str, limits: dict[str, str], expected: int
) -> None:
    assert memory_limit(groups(tmp_path, lines, **limits)) == expected


def test_a_system_without_control_groups_has_the_machines_memory(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) == MACHINE
    assert 0 < memory_limit() <= MACHINE


def test_the_process_sees_its_memory_grow_without_another_descriptor(unavailable: Callable[[str], NoReturn]) -> None:
    if sys.platform != "linux":
        unavailable("Linux")
    resident = Resident()
    files = Path("/proc/self/fd")
    before, opened = resident.read(), len([*files.iterdir()])
    with mmap.mmap(-1, 64 * MIB) as pages:  # not from the heap, which may have as much to spare
        pages.write(bytes(64 * MIB))
        assert resident.read() - before > 32 * MIB
    assert len([*files.iterdir()]) == opened
    give_back()
    resident.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        resident.read()


class FakeMemory:
    used = 0
    is_closed = False

    def read(self) -> int:
        return self.used

    def close(self) -> None:
        self.is_closed = True


class Process:
    """A process with a mark at 100 MiB, on a clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.memory = FakeMemory()
        self.server_limits = ServerLimits(LimitSettings())
        self.shed: list[int] = []
        self.given_back: list[float] = []
        self.freed = 0
        self.kept = 0  # freed bytes that the C library has
        monkeypatch.setattr(memory, "give_back", self.give_back)
        monkeypatch.setattr(memory, "freed", lambda: self.kept)
        self.timers = TimerWheel(asyncio.get_running_loop(), clock=lambda: self.now)
        limits = LimitSettings(memory_high_water=100 * MIB)
        self.watch = MemoryWatch(limits, self.server_limits, self.memory, self.cut_off, self.timers)

    def give_back(self) -> None:
        self.given_back.append(self.now)
        self.memory.used -= self.freed

    def cut_off(self, size: int) -> int:
        self.shed.append(size)
        return 2

    def uses(self, mib: int) -> bool:
        """Returns whether memory is short if so much is used at the next look."""
        self.memory.used = mib * MIB
        self.now += LIMITS.memory_check * 2 + LIMITS.timer_late
        self.timers._wake()
        self.timers._wake()  # the wheel was late, so the first time it lets the sockets be read
        return self.server_limits.is_short_of_memory


async def test_above_the_mark_no_stream_begins_and_below_it_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(monkeypatch)
    with caplog.at_level(logging.WARNING, "gai_fast.server"):
        assert not process.uses(100)
        assert not caplog.messages
        assert process.uses(130)
    assert caplog.messages == [
        "130 MiB of memory are used, memory_high_water is 100 MiB: no stream begins; slow clients cut off: 0"
    ]
    assert not process.shed, "at first nobody is cut off"
    assert not process.uses(99)
    process.watch.close()
    assert process.memory.is_closed
    assert not len(process.timers)


async def test_where_that_is_not_enough_slow_clients_are_cut_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(monkeypatch)
    process.uses(130)
    process.uses(120)
    assert process.shed == [20 * MIB]
    assert caplog.messages[-1].endswith("slow clients cut off: 2")
    process.uses(100)
    process.uses(110)
    assert process.shed == [20 * MIB], "it was not short at the look before"
    process.watch.close()


async def test_freed_memory_is_given_back_before_anybody_is_refused_and_not_at_each_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = Process(monkeypatch)
    process.freed = 40 * MIB
    assert not process.uses(130)
    assert len(process.given_back) == 1
    process.freed = 0
    for _ in range(5):
        assert process.uses(130)
    assert len(process.given_back) == 1
    process.now += LIMITS.memory_given_back
    process.uses(130)
    assert len(process.given_back) == 2
    process.watch.close()


async def test_what_was_freed_is_given_back_as_soon_as_that_may_be_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without any stream refused all for 28 s: it had given memory back a moment before it was freed."""
    process = Process(monkeypatch)
    assert process.uses(130)
    process.kept = 20 * MIB
    assert process.uses(130), "that would not be enough"
    assert len(process.given_back) == 1
    process.kept = process.freed = 40 * MIB
    assert not process.uses(130)
    assert len(process.given_back) == 2
    process.freed = 0
    assert process.uses(130)
    assert len(process.given_back) == 2, "nothing was freed since then"
    process.watch.close()


def test_the_process_sees_what_is_freed_and_not_given_back(unavailable: Callable[[str], NoReturn]) -> None:
    if getattr(ctypes.CDLL(None), "mallinfo2", None) is None:
        unavailable("glibc 2.33")
    blocks = [bytes(4000) for _ in range(20_000)]
    last = bytes(4000)  # above them, so that the heap cannot shrink
    before = memory.freed()
    del blocks
    assert memory.freed() - before > 32 * MIB
    assert last


async def test_the_mark_may_change_and_is_a_share_of_what_there_is_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(monkeypatch)
    monkeypatch.setattr(memory, "memory_limit", lambda: 1000 * MIB)
    process.watch.use(LimitSettings())
    assert not process.uses(800)
    assert process.uses(801)
    process.watch.use(LimitSettings(memory_high_water=900 * MIB))
    assert not process.uses(900)
    process.watch.close()


async def test_a_watch_begins_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    resident, timers = FakeMemory(), TimerWheel(asyncio.get_running_loop())
    monkeypatch.setattr(memory, "Resident", lambda: resident)
    watch = watch_memory(LimitSettings(), ServerLimits(LimitSettings()), lambda _: 0, timers)
    assert watch is not None
    assert len(timers) == 1
    watch.close()
    assert not len(timers)
    assert resident.is_closed


async def test_a_system_that_does_not_tell_is_not_watched(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent() -> None:
        raise FileNotFoundError

    monkeypatch.setattr(memory, "Resident", absent)
    for configured, result in ((None, 0), (123 * MIB, 1)):
        limits = LimitSettings(memory_high_water=configured)
        assert watch_memory(limits, ServerLimits(limits), lambda _: 0, TimerWheel(asyncio.get_running_loop())) is None
        assert len(caplog.messages) == result
