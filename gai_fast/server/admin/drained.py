"""The targets that an admin has drained, with several workers: the supervisor has the list.

Owns that list, and when a worker applies it. The supervisor outlives every worker, so a target stays drained even if
workers die or are busy.

1. Each change makes a list with a higher number. A worker applies the list with the highest number that it has seen:
   lists may arrive in any order.
2. On start, a worker first answers other workers, then asks the supervisor. So it also receives each change that is
   missing in the supervisor's reply.
3. A reload removes targets from the list that are no longer in the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gai_fast.model.settings import Settings
from gai_fast.net.attempts.balance import target_keys
from gai_fast.net.engine.engine import Engine
from gai_fast.server.admin.bodies import Target
from gai_fast.server.admin.targets import set_drained

DRAINED: Final = "drained"
"""The request for the list. With a target and whether it is drained, it first changes the list."""


class DrainedTargetsHome:
    """The list, in the supervisor."""

    def __init__(self) -> None:
        self._number = 0
        self._targets: set[tuple[str, str, str]] = set()

    def answer(self, items: Sequence[Any]) -> list[Any]:
        """Answers a worker. Returns the number of the list, and the list.

        Args:
            items: The model, the upstream and the id of a target, and whether it is drained; empty if nothing changes.
        """
        if items:
            model, upstream, identifier, is_drained = items
            change = self._targets.add if is_drained else self._targets.discard
            change((model, upstream, identifier))
            self._number += 1
        return [self._number, sorted(self._targets)]

    def use(self, settings: Settings) -> None:
        """Removes targets that are missing in a configuration: rule 3.

        Args:
            settings: The new configuration.
        """
        self._targets &= {(name, *place) for name, model in settings.models.items() for place in target_keys(model)}


class DrainedTargets:
    """One worker's copy of the list.

    Args:
        engine: Owns the targets.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._number = -1

    def take(self, number: int, listed: Sequence[Sequence[str]]) -> None:
        """Drains the targets of a list and restores all others, unless a later list has come: rule 1.

        Args:
            number: The number of the list.
            listed: The model, the upstream and the id of each listed target.
        """
        if number <= self._number:
            return
        self._number = number
        out = {tuple(each) for each in listed}
        for model, place, _, _ in self._engine.list_targets():
            target = Target(model=model, upstream=place[0], id=place[1])
            set_drained(self._engine, target, is_drained=(model, *place) in out)
