"""The targets and models that may still be asked for one answer.

Owns their order, and that each is asked once: the other targets of the model, then the models of `fallback`. The model
that `fallback_on` names for a failure comes before those. `balance.py` chooses among the targets of a model.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Any

from mypy_extensions import mypyc_attr

from gai_fast.model.errors import Error
from gai_fast.model.request import Request
from gai_fast.model.settings import ModelSettings, Settings
from gai_fast.net.attempts.balance import TargetKey, target_key
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.net.limits import LIMITS


@mypyc_attr(allow_interpreted_subclasses=True)
class TargetChoice:
    """Chooses among the targets of a model. A class and no protocol, as `Timers`."""

    def choose_target(
        self, model: ModelSettings, request: Request | dict[str, Any], without: Container[TargetKey]
    ) -> ModelSettings | None:
        """Chooses a ready target of a model.

        Args:
            model: A model with targets.
            request: As for `StreamSpec`.
            without: Targets that must not be chosen.

        Returns:
            The model with the target's upstream and id. None if no target is ready.
        """
        raise NotImplementedError

    def with_target(self, model: ModelSettings, request: Request | dict[str, Any]) -> ModelSettings:
        """Returns a model with a target, ready or not, or the model itself if it has no targets.

        Args:
            model: The model.
            request: As for `StreamSpec`.
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

    Attributes:
        at_model: Attempts at the current model.
        at_target: Attempts at the current target.
        models: Models asked so far.
    """

    __slots__ = (
        "_choice",
        "_fallbacks",
        "_others",
        "_places",
        "_settings",
        "_stream",
        "_tried",
        "_wait_until",
        "at_model",
        "at_target",
        "models",
    )

    def __init__(self, choice: TargetChoice, settings: Settings, model: ModelSettings) -> None:
        self._choice = choice
        self._settings = settings
        self._stream = model.stream  # the client's options hold whichever model answers
        self._fallbacks: tuple[str, ...] = model.fallback  # tuples, because most streams leave these as they are
        self._tried: tuple[str, ...] = (model.name,)
        self._wait_until: float | None = None
        self.at_model = 0
        self.at_target = 0
        self.models = 1
        self.use(model)

    @property
    def has_fallbacks(self) -> bool:
        """Whether models of `fallback` are left."""
        return bool(self._fallbacks)

    def chosen_first(self, spec: StreamSpec, now: float) -> StreamSpec | None:
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
        chosen = self._choice.choose_target(model, spec.request, ()) or model
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

    def same(self, spec: StreamSpec, *, has_begun: bool) -> StreamSpec | None:
        """Returns the spec for the same model again. None if it cannot follow the frames that the client has.

        Args:
            spec: The spec of the attempt before.
            has_begun: Whether events of an answer have been written.
        """
        if spec.frames is None or spec.hold or spec.other is None or not has_begun:
            return spec
        try:
            return spec.to(spec.model, has_begun=True)
        except Error:
            return None  # the upstream reads more of its dialect than can be translated

    def fall_back(self, error: Error, spec: StreamSpec, *, has_begun: bool) -> StreamSpec | None:
        """Works as `following`. The model that `fallback_on` names for the failure comes before those of `fallback`."""
        named = spec.model.fallback_on.get(error.code)
        if named is not None:
            self._fallbacks = (named, *self._fallbacks)
        return self.following(spec, has_begun=has_begun)

    def drop(self) -> None:
        """Drops all candidates: the failure would recur."""
        self._fallbacks = ()
        self._others = None

    def placed(self, spec: StreamSpec, model: ModelSettings, *, has_begun: bool) -> StreamSpec | None:
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

    def other_target(self, spec: StreamSpec, *, has_begun: bool) -> StreamSpec | None:
        """Returns the spec for a ready target of the model that has not been asked. None if there is none.

        Args:
            spec: The spec of the attempt before.
            has_begun: Whether events of an answer have been written.
        """
        while self._others is not None:
            chosen = self._choice.choose_target(self._others, spec.request, self._places)
            if chosen is None:
                return None
            self._places = (*self._places, target_key(chosen))
            other = self.placed(spec, chosen, has_begun=has_begun)
            if other is not None:
                return other
        return None

    def following(self, spec: StreamSpec, *, has_begun: bool) -> StreamSpec | None:
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
            model = self._choice.with_target(model, spec.request)
            self.use(model)
            other = self.placed(spec, model, has_begun=has_begun)
            if other is not None:
                self.at_model = self.at_target = 0
                self.models += 1
                return other
        return None
