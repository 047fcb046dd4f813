"""The targets that an admin has taken out, with several workers: the supervisor has their list.

Owns that list, and when a worker takes one. The supervisor outlives every worker, so a target stays out whichever
workers die, and however busy the others are.

1. Each change makes a list with a higher number. A worker keeps to the list with the highest number that it has seen:
   lists may come in any order.
2. A worker that starts answers others first, and asks the supervisor then. So it is sent each change that its answer
   does not hold.
3. A reload takes the targets off the list that are not in the configuration any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gai_fast.model.settings import Settings
from gai_fast.net.attempts.balance import places_of
from gai_fast.net.stream.streams import Engine
from gai_fast.server.admin.targets import Target, set_drained

DRAINED: Final = "drained"
"""The question for the list; with a target and whether it is drained it changes the list first."""


class DrainedHome:
    """The list, in the supervisor."""

    def __init__(self) -> None:
        self._number = 0
        self._targets: set[tuple[str, str, str]] = set()

    def answer(self, items: Sequence[Any]) -> list[Any]:
        """Answers a worker; returns the number of the list, and the list.

        Args:
            items: The model, the upstream and the id of a target, and whether it is drained; or none.
        """
        if items:
            model, upstream, identifier, is_drained = items
            change = self._targets.add if is_drained else self._targets.discard
            change((model, upstream, identifier))
            self._number += 1
        return [self._number, sorted(self._targets)]

    def use(self, settings: Settings) -> None:
        """Keeps the targets of a configuration: rule 3.

        Args:
            settings: The new configuration.
        """
        self._targets &= {(name, *place) for name, model in settings.models.items() for place in places_of(model)}


class Drained:
    """The list, as one worker has it.

    Args:
        engine: Has the targets.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._number = -1

    def take(self, number: int, listed: Sequence[Sequence[str]]) -> None:
        """Takes the targets of a list out and all others back in, if no later list has come: rule 1.

        Args:
            number: The number of the list.
            listed: The model, the upstream and the id of each target on it.
        """
        if number <= self._number:
            return
        self._number = number
        out = {tuple(each) for each in listed}
        for model, place, _, _ in self._engine.list_targets():
            target = Target(model=model, upstream=place[0], id=place[1])
            set_drained(self._engine, target, is_drained=(model, *place) in out)
