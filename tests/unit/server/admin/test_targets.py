"""The targets of models, as the admin API shows and changes them."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import AsyncIterator
from typing import get_args

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import ModelSettings, Settings, TargetSettings, UpstreamSettings
from gai_fast.net.attempts.balance import TargetCondition
from gai_fast.net.engine.engine import Engine
from gai_fast.server.admin.bodies import Condition, Target, TargetState
from gai_fast.server.admin.targets import all_targets, read_target, set_drained, together

UPSTREAMS = {name: UpstreamSettings(name, "openai", f"http://{name}.test/v1") for name in ("east", "west")}
TARGETS = tuple(TargetSettings(each, "gpt") for each in UPSTREAMS.values())
MODEL = ModelSettings("m", UPSTREAMS["east"], "gpt", targets=TARGETS)
WEST = Target(model="m", upstream="west", id="gpt")


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(Settings(upstreams=UPSTREAMS, models={"m": MODEL}), asyncio.get_running_loop())
    yield engine
    await engine.close()


def row(upstream: str, state: Condition, streams: int = 0, model: str = "m") -> TargetState:
    return TargetState(model, upstream, "gpt", state, streams)


async def test_a_target_is_taken_out_and_back_in(engine: Engine) -> None:
    assert all_targets(engine) == [row("east", "ready"), row("west", "ready")]
    assert set_drained(engine, WEST, is_drained=True)
    assert all_targets(engine) == [row("east", "ready"), row("west", "drained")]
    assert set_drained(engine, WEST, is_drained=False)
    assert all_targets(engine)[1].state in ("ready", "slow_start")


async def test_an_unknown_target_is_none(engine: Engine) -> None:
    for target in (
        Target(model="n", upstream="west", id="gpt"),
        Target(model="m", upstream="north", id="gpt"),
        Target(model="m", upstream="west", id="other"),
    ):
        assert not set_drained(engine, target, is_drained=True)


async def test_the_upstream_of_a_model_without_targets_is_its_target() -> None:
    alone = ModelSettings("one", UPSTREAMS["east"], "gpt")
    models = {"one": alone, "m": MODEL}
    engine = Engine(Settings(upstreams=UPSTREAMS, models=models), asyncio.get_running_loop())
    east = Target(model="one", upstream="east", id="gpt")

    def state() -> object:
        return all_targets(engine)[0].state

    assert all_targets(engine) == [row("east", "ready", model="one"), row("east", "ready"), row("west", "ready")]
    assert engine.targets.with_target(alone, "") is alone
    for unknown in (
        Target(model="one", upstream="west", id="gpt"),
        Target(model="one", upstream="east", id="x"),
    ):
        assert not set_drained(engine, unknown, is_drained=True)
        assert not set_drained(engine, unknown, is_drained=False)
    assert set_drained(engine, east, is_drained=True)
    assert set_drained(engine, east, is_drained=True)
    assert state() == "drained"
    assert engine.targets.target_wait(engine.targets.with_target(alone, ""), any_target=True) == math.inf
    assert engine.targets.with_target(MODEL, "").targets == TARGETS
    engine.use(Settings(upstreams=UPSTREAMS, models=models))
    assert state() == "drained", "a reload keeps it out"
    engine.use(Settings(upstreams=UPSTREAMS, models={"one": dataclasses.replace(alone, id="new")}))
    assert state() == "ready", "this is another one"
    engine.use(Settings(upstreams=UPSTREAMS, models=models))
    assert set_drained(engine, east, is_drained=True)
    assert set_drained(engine, east, is_drained=False)
    assert set_drained(engine, east, is_drained=False)
    assert state() == "ready"
    assert engine.targets.with_target(alone, "") is alone
    await engine.close()


def test_of_several_workers_streams_are_added_and_the_worst_condition_counts() -> None:
    parts = [[row("east", "ready", 2), row("west", "drained")], [row("east", "cooling", 1), row("west", "draining", 1)]]
    assert together(parts) == [row("east", "cooling", 3), row("west", "draining", 1)]
    assert together([]) == []


def test_every_condition_has_its_rank() -> None:
    assert {*get_args(Condition)} == {*get_args(TargetCondition)}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"model":"m"}', b'{"model":1,"upstream":"u","id":"i"}'])
def test_a_body_that_names_no_target_is_refused(body: bytes) -> None:
    with pytest.raises(Error) as caught:
        read_target(body)
    assert caught.value.code == "invalid_request"
    assert read_target(b'{"model":"m","upstream":"west","id":"gpt"}') == WEST
