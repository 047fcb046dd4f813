"""Which target a request is sent to, what it is sent, and what failed attempts leave."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import Error, Internal, Overloaded
from gai_fast.model.metrics import Tallies
from gai_fast.model.request import Request
from gai_fast.model.settings import ANONYMOUS, ModelSettings, Secret, Settings, StreamSettings, UpstreamSettings
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.net.engine import targets as module
from gai_fast.net.engine import upstreams
from gai_fast.net.engine.targets import Targets
from gai_fast.net.engine.upstreams import Upstreams
from gai_fast.providers import API, Adapter, Target, get_provider
from gai_fast.runtime.timers import TimerWheel
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.unit.net.conftest import Recorder
from tests.unit.net.fakes import FakeOutput, FakePool

UPSTREAM = UpstreamSettings(
    "up", "openai-compatible", "http://127.0.0.1:9/v1", Secret("sk-canary"), max_connections=7, idle_timeout=5.5
)
MODEL = ModelSettings("m", UPSTREAM, "real-id", StreamSettings(commit_after=60))
DEMO = ModelSettings("demo", UpstreamSettings("demo", "demo", ""), "demo")
REQUEST = parse_request(b'{"query":"hi"}')
PLACE = ("up", "real-id")


def call(model: ModelSettings = MODEL, **more: Any) -> StreamSpec:
    return StreamSpec(model, more.pop("request", REQUEST), FakeOutput(), **more)


def ask(targets: Targets, spec: StreamSpec) -> Recorder:
    """Sends a request; returns its receiver."""
    receiver = Recorder()
    targets.open(spec, receiver, "s1", 1, spec.model.upstream.api_key)
    return receiver


@pytest.fixture
async def targets(pools: list[FakePool]) -> Targets:
    loop = asyncio.get_running_loop()
    timers = TimerWheel(loop)
    return Targets(Settings(), Upstreams(timers, loop), Tallies(), timers, loop)


async def test_the_upstream_is_asked_for_its_own_model_with_its_own_key(
    targets: Targets, pools: list[FakePool]
) -> None:
    receiver = ask(targets, call())
    ((method, path, headers, body, asked_by, caller),) = pools[0].asked
    assert (method, path) == ("POST", "/chat/completions")
    assert orjson.loads(body)["model"] == "real-id"
    assert ("authorization", "Bearer sk-canary") in [(name.lower(), value) for name, value in headers]
    assert (asked_by, caller) == (receiver, ANONYMOUS)


GEMINI = dataclasses.replace(MODEL, upstream=dataclasses.replace(UPSTREAM, provider="gemini"))
THREE = b'{"query":"hi","provider_options":{"gemini":{"generationConfig":{"candidateCount":3}}}}'


@pytest.mark.parametrize(
    ("model", "request_", "wanted"),
    [
        (MODEL, REQUEST, 1),
        (GEMINI, parse_request(THREE), 3),
        (MODEL, {"messages": [], "n": 2}, 2),
        (MODEL, {"messages": [], "n": None}, 1),
    ],
)
async def test_the_adapter_knows_how_many_choices_were_asked_for(
    targets: Targets, pools: list[FakePool], model: ModelSettings, request_: Any, wanted: int
) -> None:
    adapter, *_ = targets.open(call(model, request=request_), Recorder(), "s1", 1, UPSTREAM.api_key)
    assert adapter.wanted_choices == wanted


async def test_a_model_without_targets_is_one_that_can_be_taken_out(targets: Targets) -> None:
    targets.use(Settings(models={"m": MODEL}))
    assert targets.conditions({}) == [("m", PLACE, "ready", 0)]
    assert targets.conditions({("m", PLACE): 2}) == [("m", PLACE, "ready", 2)]
    assert not targets.drain("m", "other", "real-id")
    assert targets.drain("m", *PLACE)
    assert targets.conditions({("m", PLACE): 2}) == [("m", PLACE, "draining", 2)]
    assert targets.conditions({}) == [("m", PLACE, "drained", 0)]
    targets.use(Settings(models={"m": MODEL}))
    assert targets.conditions({}) == [("m", PLACE, "drained", 0)], "a reload brings none back"
    assert targets.restore("m", *PLACE)
    assert targets.conditions({}) == [("m", PLACE, "ready", 0)]
    assert not targets.restore("m", "other", "real-id")


async def test_the_operator_is_notified_of_it_once_a_minute_and_of_nothing_that_clients_did(
    targets: Targets, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(targets, "_loop", SimpleNamespace(time=lambda: now[0]))
    refused, other = Error("unauthorized", "bad key sk-canary", status=401), dataclasses.replace(UPSTREAM, name="two")
    for upstream in (UPSTREAM, UPSTREAM, other):
        targets.attempt_failed(upstream, refused)
    targets.attempt_failed(dataclasses.replace(UPSTREAM, name="three"), Error("invalid_request", "no such field"))
    result = "upstream %r refuses our credentials: the operator should check `api_key` of this [[upstream]]"
    assert caplog.messages == [result % "up", result % "two"]
    now[0] += LIMITS.warning_interval
    targets.attempt_failed(UPSTREAM, refused)
    assert caplog.messages[2:] == [result % "up"]


async def test_a_failure_that_another_target_hides_is_told_with_its_address(
    targets: Targets, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(targets, "_loop", SimpleNamespace(time=lambda: now[0]))
    lost = Error("network", "cannot connect", reason="connect", phase="connect")
    caplog.set_level(logging.INFO, "gai_fast.engine")
    for _ in range(2):
        targets.failure_hidden(UPSTREAM, lost)
    targets.failure_hidden(dataclasses.replace(UPSTREAM, name="two"), Error("context_length_exceeded", "too long"))
    assert len(caplog.messages) == 1
    assert f"upstream 'up' at {UPSTREAM.base_url}: cannot connect" in caplog.messages[0]
    now[0] += LIMITS.warning_interval
    targets.failure_hidden(UPSTREAM, lost)
    assert len(caplog.messages) == 2


async def test_a_want_of_descriptors_while_a_request_is_sent_is_no_bug(
    targets: Targets, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The demo's recording is read at its first request, and a traceback was logged for each."""

    def fail(name: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(upstreams, "load_recording", fail)
    with pytest.raises(Overloaded) as caught:
        ask(targets, call(model=DEMO))
    assert (caught.value.reason, caught.value.phase) == ("descriptors", "connect")
    assert caplog.text == ""


SEQUENCE = "sequence item 0: expected str instance, int found"


@pytest.mark.parametrize("method", ["build_request", "adapter"])
async def test_whatever_an_adapter_raises_while_a_request_is_built_is_an_error_and_logged(
    targets: Targets,
    pools: list[FakePool],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
) -> None:
    def fail(*_: Any) -> Any:
        raise TypeError(SEQUENCE)

    known = get_provider("openai-compatible")

    class Failing(API):
        """A class of its own, because a compiled one ignores a method that is replaced."""

        provider = known.provider

        def body(self, request: Request, target: Target) -> dict[str, Any]:
            return known.body(request, target)

        def adapter(self, model: str | None = None) -> Adapter:
            return known.adapter(model)

    setattr(Failing, method, fail)
    failing = Failing()
    monkeypatch.setattr(module, "get_provider", lambda name: failing)
    with pytest.raises(Internal) as caught:
        ask(targets, call())
    assert "'up'" in caught.value.message
    assert "sequence" not in caught.value.message
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [SEQUENCE]
    assert pools == []


async def test_upstreams_keep_their_breakers_where_a_new_configuration_has_not_changed_them(targets: Targets) -> None:
    other = dataclasses.replace(UPSTREAM, name="other")
    settings = Settings(models={"m": MODEL}, upstreams={"other": other})  # one is in a model alone
    targets.use(settings)
    kept = [targets.breaker(UPSTREAM), targets.breaker(other)]
    assert None not in kept
    targets.use(settings)
    assert [targets.breaker(UPSTREAM), targets.breaker(other)] == kept
    targets.use(dataclasses.replace(settings, upstreams={"other": dataclasses.replace(other, base_url="http://x")}))
    assert targets.breaker(UPSTREAM) is kept[0]
    assert targets.breaker(other) is not kept[1]
    targets.close()


async def test_a_stream_of_a_former_configuration_brings_no_breaker_and_no_keys_of_it_back(targets: Targets) -> None:
    former = dataclasses.replace(UPSTREAM, more_api_keys=(Secret("sk-canary-2"),))
    targets.use(Settings(upstreams={"up": former}))
    assert targets.breaker(former) is not None
    single = dataclasses.replace(UPSTREAM, breaker=None)
    targets.use(Settings(upstreams={"up": single}))
    assert targets.key_ring(former).next(0.0) == UPSTREAM.api_key
    assert targets.key_ring(former) is not targets.key_ring(former)
    for each in (former, single):
        assert targets.breaker(each) is None
    assert targets.breaker_states() == {}
    targets.close()


async def test_the_keys_of_another_configuration_are_not_sent_to_an_upstream_of_a_former_one(targets: Targets) -> None:
    former = dataclasses.replace(UPSTREAM, more_api_keys=(Secret("sk-canary-2"),))
    moved = dataclasses.replace(former, base_url="http://127.0.0.2:9/v1", api_key=Secret("sk-canary-3"))
    targets.use(Settings(upstreams={"up": former}))
    targets.use(Settings(upstreams={"up": moved}))
    assert targets.key_ring(former).next(0.0) == UPSTREAM.api_key
    ring = targets.key_ring(moved)
    targets.use(Settings(upstreams={"up": dataclasses.replace(moved)}))
    assert targets.key_ring(moved) is ring, "nothing has changed"
    targets.close()


async def test_limits_of_made_up_models_keep_no_room_from_others(
    targets: Targets, monkeypatch: pytest.MonkeyPatch, change_limits: ChangeLimits
) -> None:
    """Nobody asks for them again."""
    change_limits(limited_places=2)
    settings = Settings(models={"m": MODEL}, upstreams={"up": UPSTREAM})
    targets.use(settings)
    now = 100.0
    monkeypatch.setattr(targets, "_loop", SimpleNamespace(time=lambda: now))

    def limited(name: str) -> bool:
        model = settings.model(name)
        assert model is not None
        target = targets.limited_target(model)
        if target is not None:
            target.limited.note("a", now)
        return target is not None

    assert [limited(f"up/x{number}") for number in range(4)] == [True, True, False, False]
    assert limited("m"), "a configured model has its place"
    now += LIMITS.limited_alone
    assert limited("up/y")
