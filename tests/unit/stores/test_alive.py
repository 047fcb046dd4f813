"""`gai_fast/stores/alive.py`: one definition of a worker that is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gai_fast.runtime.processes import process_name
from gai_fast.stores.alive import Alive
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.unit.stores.fake_backend import FakeBackend, World

NAME = "x" * 22
needs_proc = pytest.mark.skipif(not process_name(), reason="the system does not name its processes")


@pytest.fixture
def alive(world: World) -> Alive:
    return Alive(FakeBackend(world))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def ended() -> Iterator[str]:
    """Returns the name of a worker whose process has ended."""
    source = "from gai_fast.runtime.processes import process_name; print(process_name())"
    done = subprocess.run(
        [sys.executable, "-c", source], check=True, capture_output=True, text=True, env={**os.environ}
    )
    return f"{NAME}.{done.stdout.strip()}"


async def test_a_worker_of_another_machine_is_gone_once_its_lease_is(alive: Alive, world: World) -> None:
    world.leases.add("there.machine.1.1")
    assert await alive.gone(["there.machine.1.1", "nowhere", "former release"]) == {"nowhere", "former release"}
    assert await alive.is_known_gone("nowhere") is None, "only its lease tells"


@needs_proc
async def test_a_process_of_this_machine_that_has_ended_is_gone_whatever_its_lease_says(
    alive: Alive, world: World, ended: str
) -> None:
    world.leases |= {ended, own := f"{NAME}.{process_name()}"}
    assert await alive.gone([ended, own]) == {ended}
    assert await alive.is_known_gone(ended) is True


async def test_the_owner_of_a_stream_that_was_let_go_is_gone(alive: Alive, world: World) -> None:
    world.fail()
    assert await alive.gone([""]) == {""}
    assert await alive.is_gone("")


async def test_the_server_knows_its_workers_better_than_their_leases_tell(alive: Alive, world: World) -> None:
    result = {"busy": False, "killed": True}

    async def in_server(worker: str) -> bool | None:
        return result.get(worker)

    alive.in_server = in_server
    world.leases |= {"killed", "elsewhere"}
    assert await alive.gone(["busy", "killed", "elsewhere", "lost"]) == {"killed", "lost"}
    world.fail()
    assert await alive.gone(["busy", "killed"]) == {"killed"}, "the store is not asked"
    assert not await alive.is_gone("busy")


async def test_leases_are_asked_for_once_while_many_ask(
    alive: Alive, world: World, change_limits: ChangeLimits
) -> None:
    change_limits(lease_renewal=60.0)
    world.leases.add("there")
    assert not await alive.is_gone("there")
    world.fail()
    assert not await alive.is_gone("there"), "it had its lease a moment ago"


class Clocks:
    """The clocks of the machine."""

    def __init__(self) -> None:
        self.monotonic_now = self.wall_now = 1000.0

    def monotonic(self) -> float:
        return self.monotonic_now

    def time(self) -> float:
        return self.wall_now


@pytest.mark.parametrize("clock", ["monotonic_now", "wall_now"])
@pytest.mark.parametrize("is_noticed", [False, True], ids=["before its next renewal", "after it"])
async def test_a_process_that_stood_still_itself_takes_nobody_for_gone_until_others_had_time(
    alive: Alive, monkeypatch: pytest.MonkeyPatch, clock: str, is_noticed: bool
) -> None:
    """All processes of a machine that stands still lose their leases: the first that went on ended the rest."""
    clocks = Clocks()
    monkeypatch.setattr("gai_fast.stores.alive.time", clocks)
    alive.beat()
    assert await alive.gone(["nowhere"]) == {"nowhere"}
    setattr(clocks, clock, getattr(clocks, clock) + LIMITS.lease_lost - 0.1)
    if is_noticed:
        alive.beat()
    assert await alive.gone(["nowhere"]) == set()
    assert not await alive.is_gone("nowhere")
    for _ in range(int(LIMITS.lease_lost)):
        alive.beat()
        clocks.monotonic_now += 1
        clocks.wall_now += 1
    assert await alive.gone(["nowhere"]) == {"nowhere"}
    assert await alive.is_gone("nowhere")


@needs_proc
async def test_a_process_that_stood_still_still_knows_which_have_ended(
    alive: Alive, monkeypatch: pytest.MonkeyPatch, ended: str
) -> None:
    clocks = Clocks()
    monkeypatch.setattr("gai_fast.stores.alive.time", clocks)
    alive.beat()
    clocks.monotonic_now += LIMITS.lease_lost
    assert await alive.gone([ended]) == {ended}
