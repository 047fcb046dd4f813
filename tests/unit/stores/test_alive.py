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
    """The name of a worker whose process has ended."""
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


async def test_the_server_knows_its_workers_better_than_their_leases_tell(alive: Alive, world: World) -> None:
    told = {"busy": False, "killed": True}

    async def in_server(worker: str) -> bool | None:
        return told.get(worker)

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
