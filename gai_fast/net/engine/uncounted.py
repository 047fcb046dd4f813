"""The models whose upstreams count no tokens, though they have the rest of an API that does.

Owns what is remembered of their refusals, and for how long.

1. Only what no client could have caused is remembered: the method and the path are the gateway's, the model is one of
   the configuration, and the refusal names nothing of the request.
2. It holds for the model alone: an upstream may be several servers behind one address.
"""

from __future__ import annotations

from collections.abc import Callable

from gai_fast.model.errors import Error
from gai_fast.model.settings import ModelSettings
from gai_fast.net.limits import LIMITS
from gai_fast.providers import missing_route

_Place = tuple[str, str, str, str]


class Uncounted:
    """The refusals that one process remembers.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[_Place, float] = {}

    def has(self, model: ModelSettings, route: str) -> bool:
        """Returns whether a model's upstream is known to have no route that counts.

        Args:
            model: The model, with its target.
            route: The route.
        """
        until = self._until.get(_place(model, route)) if self._until else None
        return until is not None and self._clock() < until

    def refused(self, model: ModelSettings, route: str, error: Error, *, is_configured: bool) -> bool:
        """Returns whether an upstream's refusal means that it has no such route. Remembers it by rule 1.

        Args:
            model: The model, with its target.
            route: The route.
            error: The refusal.
            is_configured: Whether the configuration names the model: a client may write any other.
        """
        missing = missing_route(error)
        if missing == "surely" and is_configured:
            if len(self._until) >= LIMITS.uncounted:
                self._until.clear()
            self._until[_place(model, route)] = self._clock() + LIMITS.uncounted_for
        return missing != "no"


def _place(model: ModelSettings, route: str) -> _Place:
    upstream = model.upstream
    return upstream.name, upstream.base_url, model.id, route
