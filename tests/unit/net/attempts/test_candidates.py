"""Which targets and models one answer may still be asked of. How attempts use them: `test_attempts.py`."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS, ModelSettings, Settings, TargetSettings, UpstreamSettings
from gai_fast.net.attempts.balance import TargetKey, target_key
from gai_fast.net.attempts.candidates import Candidates, TargetChoice
from gai_fast.net.attempts.spec import StreamSpec
from tests.unit.net.fakes import FakeOutput


def upstream(name: str) -> UpstreamSettings:
    return UpstreamSettings(name, "openai-compatible", f"http://{name}")


class InOrder(TargetChoice):
    """Chooses the first target that is allowed."""

    def __init__(self) -> None:
        self.is_early = False

    def choose_target(
        self, model: ModelSettings, home: str, without: Container[TargetKey], caller: str = ANONYMOUS
    ) -> ModelSettings | None:
        for target in model.targets:
            placed = ModelSettings(model.name, target.upstream, target.id, targets=model.targets)
            if target_key(placed) not in without:
                return placed
        return None

    def with_target(self, model: ModelSettings, home: str, caller: str = ANONYMOUS) -> ModelSettings:
        return model

    def is_premature(self, model: ModelSettings, now: float) -> bool:
        return self.is_early


def model(name: str = "m", targets: str = "", fallback: tuple[str, ...] = (), **more: Any) -> ModelSettings:
    ups = [upstream(each) for each in targets or name]
    several = tuple(TargetSettings(each, each.name, 1) for each in ups) if targets else ()
    return ModelSettings(name, ups[0], ups[0].name, targets=several, fallback=fallback, **more)


def candidates(first: ModelSettings, *others: ModelSettings) -> tuple[Candidates, StreamSpec, InOrder]:
    settings = Settings(models={each.name: each for each in (first, *others)})
    choice = InOrder()
    return (
        Candidates(choice, settings, first, 0.0),
        StreamSpec(first, parse_request(b'{"query":"hi"}'), FakeOutput()),
        choice,
    )


def asked(those: Candidates, spec: StreamSpec) -> list[str]:
    found = []
    while (following := those.following(spec, has_begun=False)) is not None:
        found.append(following.model.upstream.name)
        spec = following
    return found


def test_the_other_targets_come_first_and_then_each_model_of_fallback_once() -> None:
    those, spec, _ = candidates(model(targets="abc", fallback=("x", "m", "x", "gone", "y")), model("x"), model("y"))
    assert asked(those, spec) == ["b", "c", "x", "y"]
    assert those.models == 3


def test_the_model_that_fallback_on_names_comes_before_those_of_fallback() -> None:
    first = model(fallback=("x",), fallback_on={"timeout": "y"})
    those, spec, _ = candidates(first, model("x"), model("y"))
    named = those.fall_back(Error("timeout"), spec, has_begun=False)
    assert named is not None
    assert named.model.name == "y"
    assert asked(those, spec) == ["x"]


def test_nothing_follows_a_failure_that_would_recur() -> None:
    those, spec, _ = candidates(model(targets="ab", fallback=("x",)), model("x"))
    those.drop()
    assert not asked(those, spec)
    assert not those.has_fallbacks


def test_the_first_attempt_waits_a_bounded_time_and_then_takes_the_target_that_is_best() -> None:
    those, spec, choice = candidates(model(targets="ab"))
    assert those.chosen_first(spec, 0.0) is spec
    choice.is_early = True
    assert those.chosen_first(spec, 0.0) is None
    assert those.chosen_first(spec, 1e6) is spec
    choice.is_early = False
    spec.model = InOrder().choose_target(spec.model, "", {target_key(spec.model)}) or spec.model
    assert spec.model.upstream.name == "b"
    first = those.chosen_first(spec, 0.0)
    assert first is not None
    assert first.model.upstream.name == "a"
    assert asked(those, first) == ["b"]


def test_counters_of_attempts_begin_again_at_another_target_and_another_model() -> None:
    those, spec, _ = candidates(model(targets="ab", fallback=("x",)), model("x"))
    those.at_model = those.at_target = 2
    those.following(spec, has_begun=False)
    assert (those.at_model, those.at_target) == (2, 0)
    those.at_target = 1
    those.following(spec, has_begun=False)
    assert (those.at_model, those.at_target) == (0, 0)
