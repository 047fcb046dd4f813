"""What is asked after a failed attempt; `tests/integration/test_pass_through_targets.py` asks over sockets."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import (
    ANONYMOUS,
    ModelSettings,
    Secret,
    Settings,
    StreamSettings,
    TargetSettings,
    UpstreamSettings,
)
from gai_fast.net.attempts.attempt import AttemptRunner
from gai_fast.net.attempts.balance import TargetKey, target_key
from gai_fast.net.attempts.retry import RetryPolicy
from gai_fast.server.pass_through.calls import AskedCall, NextCalls, PassedCall

FAILED = Error("provider_unavailable", reason="connect")


class InOrder(AttemptRunner):
    """Targets without breakers, each ready, chosen in order."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.policy = RetryPolicy()

    def choose_target(
        self, model: ModelSettings, home: str, without: Container[TargetKey], caller: str = ANONYMOUS
    ) -> ModelSettings | None:
        for target in model.targets:
            placed = ModelSettings(model.name, target.upstream, target.id, targets=model.targets)
            if target_key(placed) not in without:
                return placed
        return None

    def target_wait(self, model: ModelSettings, *, any_target: bool) -> float:
        return 7.0 if any_target else 0.0

    def breaker(self, upstream: UpstreamSettings) -> None:
        return None


def upstream(name: str, **more: Any) -> UpstreamSettings:
    return UpstreamSettings(name, "openai-compatible", f"http://{name}", retries=0, **more)


def call_at(model: ModelSettings, at: Callable[[ModelSettings], PassedCall] | None) -> PassedCall:
    call = PassedCall(model.upstream, "/embeddings", b"{}", StreamSettings(), "/v1/embeddings")
    call.model, call.at = model, at
    return call


def model(names: str, **more: Any) -> ModelSettings:
    targets = tuple(TargetSettings(upstream(name), name) for name in names)
    return ModelSettings("m", targets[0].upstream, names[0], targets=targets, **more)


def next_calls(model: ModelSettings, without_route: str = "") -> NextCalls:
    def at(model: ModelSettings) -> PassedCall:
        if model.upstream.name in without_route:
            raise Error("unsupported")
        return call_at(model, at)

    return NextCalls(InOrder(), call_at(model, at), "", 1, 10.0, is_retry=False)


def test_the_other_targets_follow_each_once_but_for_those_without_the_route() -> None:
    those = next_calls(model("abcd"), without_route="bc")
    planned = those.after(FAILED, 0.0, has_key=False)
    assert planned is not None
    assert (planned[0].upstream.name, planned[1]) == ("d", 0.0)
    assert those.is_first()
    assert not those.is_first()
    assert those.after(FAILED, 0.0, has_key=False) is None


def test_a_target_that_cannot_be_asked_is_followed_by_another() -> None:
    those = next_calls(model("abc"))
    assert [call and call.upstream.name for call in (those.other(), those.other(), those.other())] == ["b", "c", None]


def test_another_key_of_the_same_target_comes_first() -> None:
    first = model("ab")
    two = UpstreamSettings("a", "openai-compatible", "http://a", more_api_keys=(Secret("b"),), retries=0)
    those = next_calls(ModelSettings("m", two, "a", targets=first.targets))
    again = those.after(Error("rate_limited"), 0.0, has_key=True)
    assert again is not None
    assert again[0].upstream is two


def test_no_model_of_fallback_follows() -> None:
    more = {"fallback": ("x",), "fallback_on": {"provider_unavailable": "x"}}
    assert next_calls(model("a", **more)).after(FAILED, 0.0, has_key=False) is None
    asked = AskedCall(call_at(model("a", **more), None), model("a", **more), "", is_retry=False)
    assert (asked.model.fallback, asked.model.fallback_on) == ((), {})


def test_an_upstreams_own_path_is_asked_again_there_alone() -> None:
    own = UpstreamSettings("a", "openai-compatible", "http://a", retries=1)
    call = PassedCall(own, "/x", b"", StreamSettings(), "/p/{}")
    those = NextCalls(InOrder(), call, "", 1, 10.0, is_retry=False)
    again = those.after(Error("network", reason="connect"), 0.0, has_key=False)
    assert again is not None
    assert again[0] is call
    assert not those.is_first()
    assert those.after(Error("network", reason="connect"), 0.0, has_key=False) is None
    with pytest.raises(Error, match="own paths"):
        AskedCall(call, ModelSettings("", own, ""), "", is_retry=False).to(model("b"), has_begun=False)


def test_the_last_failure_names_the_shortest_wait_of_all_targets() -> None:
    error = Error("rate_limited", retry_after_ms=90_000)
    next_calls(model("ab")).shorten_wait(error)
    assert error.retry_after_ms == 7000
