"""Limits of an upstream (429), for each spelling of one target: whose requests they hold up."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gai_fast.model.settings import Secret, TargetSettings
from gai_fast.server.serving import start
from tests.integration.gateway import Gateway, Net, Peer, on_uvloop, settings_for
from tests.integration.test_shared_state import HOSTILE, KEYS, OTHER, Failing, ask

pytestmark = pytest.mark.usefixtures("quick_retries")

STATUS = "429 Too Many Requests"
SAID = b"Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 36278."
TOO_LARGE = b'{"error":{"code":"rate_limit_exceeded","message":"%b"}}' % SAID
SPELLINGS = ["upstream", "targets", "keys", "keys and targets", "an id of the upstream"]
"""The spellings of one target."""


class Limiting(Failing):
    """Limits what is hostile, or everything."""

    limits_all = False

    async def answer(self, peer: Peer, sent: dict[str, Any], is_hostile: bool) -> None:
        await super().answer(peer, sent, is_hostile or self.limits_all)


async def spelled(net: Net, upstream: Limiting, spelling: str, **more: Any) -> tuple[Gateway, str]:
    """Returns a gateway whose model has one target, and the model's name in requests."""
    settings = settings_for((await net.upstream(upstream)).url, keys=KEYS, **{"retries": 0, **more})
    model = settings.models["m"]
    one = dataclasses.replace(model.upstream, api_key=Secret("k1"))
    if spelling.startswith("keys"):
        one = dataclasses.replace(one, more_api_keys=(Secret("k2"),))
    model = dataclasses.replace(model, upstream=one)
    if spelling.endswith("targets"):
        model = dataclasses.replace(model, targets=(TargetSettings(one, model.id),))
    name = f"up/{model.id}" if spelling.startswith("an id") else "m"
    models = {} if name != "m" else {"m": model}
    running = await start(dataclasses.replace(settings, models=models, upstreams={"up": one}))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1], name


async def statuses(gateway: Gateway, model: str, *asked: tuple[str, str]) -> list[int]:
    return [(await ask(gateway, secret, text, model=model)).status for secret, text in asked]


@pytest.mark.parametrize("spelling", SPELLINGS)
@on_uvloop
async def test_a_limit_without_a_time_holds_up_no_other_caller(net: Net, spelling: str) -> None:
    upstream = Limiting(STATUS, b'{"error":{"message":"slow down"}}')
    gateway, model = await spelled(net, upstream, spelling)
    for _ in range(3):
        refused = await ask(gateway, HOSTILE, "hostile", model=model)
        assert (refused.status, refused.headers.get("retry-after")) == (429, None), "nobody has named a time"
        assert await statuses(gateway, model, (OTHER, "hi"), (OTHER, "hi")) == [200, 200]
    assert await statuses(gateway, model, (HOSTILE, "hi")) == [200], "there is no other target"


@pytest.mark.parametrize("spelling", SPELLINGS)
@on_uvloop
async def test_a_limit_without_a_time_that_two_callers_meet_is_of_all(net: Net, spelling: str) -> None:
    upstream = Limiting(STATUS, b'{"error":{"message":"slow down"}}')
    gateway, model = await spelled(net, upstream, spelling)
    upstream.limits_all = True
    assert await statuses(gateway, model, (HOSTILE, "hi"), (OTHER, "hi")) == [429, 429]
    asked = len(upstream.seen)
    for _ in range(3):
        response = await ask(gateway, OTHER, model=model)
        assert (response.status, 1 <= int(response.headers["retry-after"]) <= 5) == (429, True)
    assert len(upstream.seen) == asked


@pytest.mark.parametrize("spelling", SPELLINGS)
@on_uvloop
async def test_a_limit_with_a_time_is_of_all_until_then(net: Net, spelling: str) -> None:
    upstream = Limiting(STATUS, b"{}", "Retry-After: 20")
    gateway, model = await spelled(net, upstream, spelling)
    assert await statuses(gateway, model, (HOSTILE, "hostile")) == [429]
    asked = len(upstream.seen)
    for _ in range(20):
        response = await ask(gateway, OTHER, model=model)
        assert (response.status, response.headers["retry-after"]) == (429, "20")
    assert len(upstream.seen) == asked


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("time", [(), ("Retry-After: 20",)], ids=["no time", "a time"])
@on_uvloop
async def test_a_request_above_the_limit_holds_up_nobody(net: Net, spelling: str, time: tuple[str, ...]) -> None:
    upstream = Limiting(STATUS, TOO_LARGE, *time)
    gateway, model = await spelled(net, upstream, spelling)
    asked = [(HOSTILE, "hostile"), (OTHER, "hi"), (HOSTILE, "hi"), (OTHER, "hostile"), (OTHER, "hi"), (HOSTILE, "hi")]
    assert await statuses(gateway, model, *asked) == [429, 200, 200, 429, 200, 200]


@on_uvloop
async def test_a_caller_that_was_limited_without_a_time_asks_another_target_first(net: Net) -> None:
    slow, free = Limiting(STATUS, b"{}"), Limiting(STATUS, b"{}")
    slow.limits_all = True
    settings = settings_for((await net.upstream(slow)).url, keys=KEYS, retries=2)
    model = settings.models["m"]
    other = dataclasses.replace(model.upstream, name="other", base_url=(await net.upstream(free)).url + "/v1")
    targets = (TargetSettings(model.upstream, "m1"), TargetSettings(other, "m1"))
    models = {"m": dataclasses.replace(model, targets=targets, balance="weighted")}
    running = await start(dataclasses.replace(settings, models=models))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    for _ in range(4):
        assert (await ask(net.gateways[-1], HOSTILE)).status == 200
    assert (len(slow.seen), len(free.seen)) == (1, 4)


@on_uvloop
async def test_a_limit_that_is_over_is_forgotten(net: Net) -> None:
    upstream = Limiting(STATUS, b"{}", "retry-after-ms: 1")
    gateway, _ = await spelled(net, upstream, "upstream")
    for _ in range(3):
        await ask(gateway, HOSTILE, "hostile")
    assert (await ask(gateway, OTHER)).text == "Hello"
    targets = gateway.running.engine.targets
    assert targets.with_target(targets.settings.models["m"], "").targets == ()
