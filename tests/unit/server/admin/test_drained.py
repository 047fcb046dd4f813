"""The list of drained targets: the supervisor's, and a worker's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gai_fast.model.settings import ModelSettings, Settings, TargetSettings, UpstreamSettings
from gai_fast.net.engine.engine import Engine
from gai_fast.server.admin.drained import DrainedTargets, DrainedTargetsHome

UPSTREAMS = {name: UpstreamSettings(name, "openai", f"http://{name}.test/v1") for name in ("east", "west")}
TARGETS = tuple(TargetSettings(each, "gpt") for each in UPSTREAMS.values())
SETTINGS = Settings(upstreams=UPSTREAMS, models={"m": ModelSettings("m", UPSTREAMS["east"], "gpt", targets=TARGETS)})
EAST, WEST = ("m", "east", "gpt"), ("m", "west", "gpt")


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(SETTINGS, asyncio.get_running_loop())
    yield engine
    await engine.close()


def drained(engine: Engine) -> set[tuple[str, str, str]]:
    return {(model, *place) for model, place, condition, _ in engine.list_targets() if condition == "drained"}


def test_each_change_has_a_higher_number() -> None:
    home = DrainedTargetsHome()
    assert home.answer([]) == [0, []]
    assert home.answer([*WEST, True]) == [1, [WEST]]
    assert home.answer([*EAST, True]) == [2, [EAST, WEST]]
    assert home.answer([*WEST, False]) == [3, [EAST]]
    assert home.answer([]) == [3, [EAST]]


def test_the_upstream_of_a_model_without_targets_stays_on_the_list() -> None:
    home = DrainedTargetsHome()
    home.answer(["one", "east", "gpt", True])
    home.answer(["one", "east", "other", True])
    home.use(Settings(upstreams=UPSTREAMS, models={"one": ModelSettings("one", UPSTREAMS["east"], "gpt")}))
    assert home.answer([]) == [2, [("one", "east", "gpt")]]


def test_a_target_that_a_reload_removes_is_on_the_list_no_longer() -> None:
    home = DrainedTargetsHome()
    for target in (WEST, ("m", "north", "gpt"), ("n", "west", "gpt")):
        home.answer([*target, True])
    home.use(SETTINGS)
    assert home.answer([]) == [3, [WEST]]


async def test_a_worker_takes_targets_out_and_back_in(engine: Engine) -> None:
    worker = DrainedTargets(engine)
    worker.take(1, [list(WEST), ["m", "unknown", "gpt"]])
    assert drained(engine) == {WEST}
    worker.take(2, [EAST])
    assert drained(engine) == {EAST}
    worker.take(3, [])
    assert not drained(engine)


async def test_an_earlier_list_that_comes_later_changes_nothing(engine: Engine) -> None:
    worker = DrainedTargets(engine)
    worker.take(5, [WEST])
    worker.take(4, [])
    assert drained(engine) == {WEST}
