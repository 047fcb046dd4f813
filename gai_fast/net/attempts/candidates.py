"""The targets and models that may still be asked for one answer, of a stream or of what is passed through.

Owns their order, and that each is asked once: the other targets of the model, then the models of `fallback`. The model
that `fallback_on` names for a failure comes before those. `balance.py` chooses among the targets of a model, `retry.py`
decides whether the same one is asked again.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Final, TypeVar

from mypy_extensions import mypyc_attr

from gai_fast.model.errors import Error
from gai_fast.model.retry_after import shorter_wait
from gai_fast.model.settings import ModelSettings, Settings, UpstreamSettings
from gai_fast.net.attempts.balance import TargetKey, target_key
from gai_fast.net.attempts.caller_keys import is_callers
from gai_fast.net.attempts.limited import is_untimed
from gai_fast.net.attempts.retry import (
    BREAKER_OPEN,
    END,
    NO_TOKEN,
    REFUSED_IDENTITY,
    AttemptFailure,
    Breaker,
    RetryPolicy,
    asks_for_a_pause,
)
from gai_fast.net.attempts.spec import Asked
from gai_fast.net.limits import LIMITS

LEFT_ALONE: Final = frozenset(
    {BREAKER_OPEN, "cooling", "drained", "target_streams", "upstream_keys", REFUSED_IDENTITY, NO_TOKEN}
)
"""Reasons why nothing is sent to an upstream for a while. If the first attempt has one, others are tried at once."""
_Asked = TypeVar("_Asked", bound=Asked)


@mypyc_attr(allow_interpreted_subclasses=True)
class TargetChoice:
    """Chooses among the targets of a model. A class and no protocol, as `Timers`.

    Attributes:
        policy: Decides on failed attempts.
    """

    policy: RetryPolicy

    def breaker(self, upstream: UpstreamSettings) -> Breaker | None:
        """Returns the upstream's breaker. None if it has none."""
        raise NotImplementedError

    def target_wait(self, model: ModelSettings, *, any_target: bool) -> float:
        """Returns the seconds until the model's target, or any of its targets, is ready; 0 if it is ready."""
        raise NotImplementedError

    def choose_target(
        self, model: ModelSettings, home: str, without: Container[TargetKey], caller: str
    ) -> ModelSettings | None:
        """Chooses a ready target of a model.

        Args:
            model: A model with targets.
            home: As for `Asked`.
            without: Targets that must not be chosen.
            caller: The name of the request's caller.

        Returns:
            The model with the target's upstream and id. None if no target is ready.
        """
        raise NotImplementedError

    def with_target(self, model: ModelSettings, home: str, caller: str) -> ModelSettings:
        """Returns a model with a target, ready or not, or the model itself if it has no targets.

        Args:
            model: The model.
            home: As for `Asked`.
            caller: As for `Asked`.
        """
        raise NotImplementedError

    def is_premature(self, model: ModelSettings, now: float) -> bool:
        """Returns whether a request should wait before it is sent to a target of a model.

        Args:
            model: The model with the target's upstream and id.
            now: Monotonic seconds.
        """
        raise NotImplementedError


class Candidates:
    """The targets and models that have not been asked.

    Args:
        choice: Chooses targets.
        settings: The stream's settings.
        model: The model that is asked first, with its target.
        commit_by: The time until which the response head may be held, in monotonic seconds.

    Attributes:
        at_model: Attempts at the current model.
        at_target: Attempts at the current target.
        commit_by: As above.
        models: Models asked so far.
    """

    def __init__(self, choice: TargetChoice, settings: Settings, model: ModelSettings, commit_by: float) -> None:
        self._choice = choice
        self._settings = settings
        self._stream = model.stream  # the client's options hold whichever model answers
        self._fallbacks: tuple[str, ...] = model.fallback  # tuples, because most streams leave these as they are
        self._tried: tuple[str, ...] = (model.name,)
        self._limit_wait = 0.0  # seconds that upstreams' limits have been waited for
        self._wait_until: float | None = None
        self.at_model = 0
        self.at_target = 0
        self.commit_by = commit_by
        self.models = 1
        self.use(model)

    @property
    def has_fallbacks(self) -> bool:
        """Whether models of `fallback` are left."""
        return bool(self._fallbacks)

    def has_others(self, model: ModelSettings) -> bool:
        """Returns whether another target or model is left for an answer that does not come in time.

        Args:
            model: The model that is asked, with its target.
        """
        if self._fallbacks:
            return True
        named = model.fallback_on.get("timeout") if model.fallback_on else None
        if named is not None and named not in self._tried:
            return True
        others = model.targets if self._others is not None else ()
        return any(other.weight and (other.upstream.name, other.id) not in self._places for other in others)

    def chosen_first(self, spec: _Asked, now: float) -> _Asked | None:
        """Returns the spec of the first attempt, after a wait with the target that is then best.

        Args:
            spec: The spec so far.
            now: Monotonic seconds.

        Returns:
            None if the attempt must wait, because no target's speed is known: see `balance.py`, rule 4.
        """
        model = spec.model
        if not model.targets or (self._wait_until is None and not self._choice.is_premature(model, now)):
            return spec
        chosen = self._choice.choose_target(model, spec.home, (), spec.caller) or model
        until = now + LIMITS.unmeasured_wait if self._wait_until is None else self._wait_until
        if now < until and self._choice.is_premature(chosen, now):
            self._wait_until = until
            return None
        other = self.placed(spec, chosen, has_begun=False) if target_key(chosen) != target_key(model) else None
        if other is None:
            return spec
        self.use(other.model)
        return other

    def use(self, model: ModelSettings) -> None:
        """Notes the model, and its target, that is asked next."""
        self._others: ModelSettings | None = model if model.targets else None
        self._places: tuple[TargetKey, ...] = (target_key(model),) if model.targets else ()

    def after(
        self, error: Error, spec: _Asked, now: float, *, has_begun: bool, has_content: bool, has_key: bool
    ) -> tuple[_Asked, float] | None:
        """Returns the request after a failed one, and the seconds until it. None if there is none.

        Args:
            error: The failure.
            spec: The request.
            now: Monotonic seconds.
            has_begun: Whether events of an answer have been written.
            has_content: Whether the attempt has brought content.
            has_key: Whether the upstream has another key, which may do better.
        """
        choice, model, upstream = self._choice, spec.model, spec.model.upstream
        if has_key and self.at_target <= upstream.other_keys:
            same = spec.again(has_begun=has_begun)
            if same is not None:
                return same, 0.0
        breaker = choice.breaker(upstream)
        is_broken = breaker is not None and breaker.state(now) == "open"
        is_left_alone = is_broken or (bool(model.targets) and choice.target_wait(model, any_target=False) > 0)
        has_stalled = error.code == "timeout" and error.reason in ("first_event", "idle")
        failure = AttemptFailure(
            error,
            is_silence=has_stalled and not has_content,
            attempts=self.at_target,
            retries=0 if is_left_alone else upstream.retries,
            seconds_to_commit=self.commit_by - now,
            is_clients_retry=spec.is_retry,
            upstream=upstream.name,
            caller=spec.caller,
        )
        if has_stalled and has_content:
            # Each attempt at a target that stalls costs its client an `idle_timeout`.
            other = self.fall_back(error, spec, has_begun=True)
            if other is not None:
                return other, 0.0
        if is_untimed(error):
            other = self.other_target(spec, has_begun=has_begun)
            if other is not None:
                self.at_target = 0
                return other, 0.0
        is_refused = error.code != "rate_limited" and is_callers(upstream, error)  # so would all others
        verdict = END if is_refused else choice.policy.decide(failure, now)
        again = spec.again(has_begun=has_begun) if verdict.action == "again" else None
        if again is not None:
            if error.retry_after_ms is not None:
                self._waits(error, verdict.delay)
            return again, verdict.delay
        if verdict.action == "end":
            self.drop()
        other = self.fall_back(error, spec, has_begun=has_begun)
        if other is not None:
            return other, 0.0
        if is_broken or verdict.action == "end":
            return None
        most = model.wait_for_limit - self._limit_wait
        wait = choice.policy.wait(replace(failure, retries=upstream.retries), most, now)
        again = None if wait is None else spec.again(has_begun=has_begun)
        if wait is None or again is None:
            return None
        self._waits(error, wait)
        return again, wait

    def shorten_wait(self, error: Error, model: ModelSettings) -> None:
        """Names the shortest wait, if the last of a model's targets has failed and all of them are left alone.

        Args:
            error: The last failure.
            model: The model.
        """
        if error.is_temporary and model.targets:
            wait = self._choice.target_wait(model, any_target=True)
            if is_untimed(error) and len(model.targets) > 1:
                wait = wait or LIMITS.cooling
            error.retry_after_ms = shorter_wait(error.retry_after_ms, wait)

    def fall_back(self, error: Error, spec: _Asked, *, has_begun: bool) -> _Asked | None:
        """Works as `following`. The model that `fallback_on` names for the failure comes before those of `fallback`."""
        named = spec.model.fallback_on.get(error.code)
        if named is not None:
            self._fallbacks = (named, *self._fallbacks)
        return self.following(spec, has_begun=has_begun)

    def take_back(self) -> None:
        """Counts the last attempt no longer."""
        self.at_model, self.at_target = max(0, self.at_model - 1), max(0, self.at_target - 1)

    def drop(self) -> None:
        """Drops all candidates: the failure would recur."""
        self._fallbacks = ()
        self._others = None

    def placed(self, spec: _Asked, model: ModelSettings, *, has_begun: bool) -> _Asked | None:
        """Returns a spec for another model or target. None if the request cannot be expressed in its dialect.

        Args:
            spec: The spec of the attempt before.
            model: The model with its target.
            has_begun: Whether events of an answer have been written.
        """
        try:
            return spec.to(replace(model, stream=self._stream), has_begun=has_begun)
        except Error:
            return None

    def other_target(self, spec: _Asked, *, has_begun: bool) -> _Asked | None:
        """Returns the spec for a ready target of the model that has not been asked. None if there is none.

        Args:
            spec: The spec of the attempt before.
            has_begun: Whether events of an answer have been written.
        """
        while self._others is not None:
            chosen = self._choice.choose_target(self._others, spec.home, self._places, spec.caller)
            if chosen is None:
                return None
            self._places = (*self._places, target_key(chosen))
            other = self.placed(spec, chosen, has_begun=has_begun)
            if other is not None:
                return other
        return None

    def following(self, spec: _Asked, *, has_begun: bool) -> _Asked | None:
        """Returns the spec for another target, or for the next model of `fallback`. None if there is none.

        Args:
            spec: The spec of the attempt before.
            has_begun: Whether events of an answer have been written.
        """
        other = self.other_target(spec, has_begun=has_begun)
        if other is not None:
            self.at_target = 0
            return other
        while self._fallbacks:
            name, self._fallbacks = self._fallbacks[0], self._fallbacks[1:]
            model = self._settings.model(name)
            if model is None or model.name in self._tried:
                continue
            self._tried = (*self._tried, model.name)
            model = self._choice.with_target(model, spec.home, spec.caller)
            self.use(model)
            other = self.placed(spec, model, has_begun=has_begun)
            if other is not None:
                self.at_model = self.at_target = 0
                self.models += 1
                return other
        return None

    def _waits(self, error: Error, seconds: float) -> None:
        self._limit_wait += seconds
        if asks_for_a_pause(error):
            self.commit_by += seconds  # as `Delivery.put_off`
