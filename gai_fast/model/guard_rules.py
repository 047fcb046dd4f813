"""Which guards hold: for a request, and at the upstreams of guarded models.

Owns the choice. The server asks for it at each request, and `gai-fast check` prints it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase, translate
from typing import Final

from gai_fast.model.settings import GuardSettings, Settings


class Names:
    """A set of names, given by names and by patterns of `fnmatch`.

    Args:
        patterns: The names and patterns.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = tuple(patterns)
        self._plain = frozenset(self._patterns)
        # One search for all of them: there may be a thousand.
        special = [each for each in self._patterns if _SPECIAL.search(each)]
        self._special = re.compile("|".join(map(translate, special))) if special else None

    def __contains__(self, name: str) -> bool:
        return name in self._plain or (self._special is not None and self._special.match(name) is not None)

    def has_below(self, beginning: str) -> bool:
        """Returns whether a longer name with a beginning, such as `openai/`, may be in the set."""
        for pattern in self._patterns:
            parts = _PART.findall(pattern)
            star = parts.index("*") if "*" in parts else len(parts)
            head = parts[: min(star, len(beginning))]
            goes_on = star > len(beginning) or star < len(parts)
            if goes_on and fnmatchcase(beginning[: len(head)], "".join(head)):
                return True
        return False


_SPECIAL: Final = re.compile(r"[*?\[]")
_PART: Final = re.compile(r"\[!?\]?[^\]]*\]|.", re.S)
"""A part of a pattern that matches one character, or `*`."""


class GuardRules:
    """The choice of guards in one configuration.

    Args:
        settings: The configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._models: Final = settings.models
        self._guards: Final = [(each, Names(each.models), Names(each.keys)) for each in settings.guards]
        self._guarded: dict[str, frozenset[str]] = {}
        self._names: dict[str, list[str]] = {}
        """The models behind an upstream's name and an id, by which they may be asked too."""
        for model in settings.models.values() if settings.guards else ():
            for place in model.targets or (model,):
                name = f"{place.upstream.name}/{place.id}"
                if name not in settings.models:
                    self._names.setdefault(name, []).append(model.name)

    def guards_for(self, model: str, caller: str) -> tuple[GuardSettings, ...]:
        """Returns the guards that hold for a request, in the order of the configuration.

        `<upstream>/<id>` has the guards of the models that have this upstream and id too.

        Args:
            model: The model that the request names, or the default model's name. Fallbacks keep its guards.
            caller: The caller's name.
        """
        names = (model, *self._names.get(model, ()))
        return tuple(
            [guard for guard, models, keys in self._guards if caller in keys and any(each in models for each in names)]
        )

    def guards_at(self, upstream: str, caller: str | None = None) -> tuple[GuardSettings, ...]:
        """Returns the guards that hold for a model of an upstream, whose own paths would lead past them.

        Args:
            upstream: The name of an upstream of the configuration.
            caller: The caller's name. None: guards of any caller.
        """
        if not self._guards:
            return ()
        guarded = self._guarded.get(upstream)
        if guarded is None:
            guarded = frozenset([guard.name for guard, models, _ in self._guards if self._is_of(models, upstream)])
            self._guarded[upstream] = guarded
        return tuple(
            [guard for guard, _, keys in self._guards if guard.name in guarded and (caller is None or caller in keys)]
        )

    def _is_of(self, models: Names, upstream: str) -> bool:
        """Returns whether a model of an upstream is among some models."""
        return models.has_below(f"{upstream}/") or any(
            place.upstream.name == upstream
            for model in self._models.values()
            if model.name in models
            for place in model.targets or (model,)
        )
